"""What this host is, and who on it is in the way."""

from __future__ import annotations

import os
import platform
import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_PROC = Path("/proc")
_LISTEN = "0A"


@dataclass(frozen=True)
class Host:
    """The facts of this machine that choices depend on."""

    system: str
    machine: str
    python: str

    def __str__(self) -> str:
        """Return the facts in one line."""
        return f"{self.system} {self.machine}, Python {self.python}"


@dataclass(frozen=True)
class Process:
    """A process of this machine."""

    pid: int
    command: str

    def __str__(self) -> str:
        """Return the process as error messages name it."""
        return f"{self.command} (pid {self.pid})"


def gpu_family(root: Path = Path("/")) -> str:
    """Return "tegra" on a Jetson, as the official `config.sh` names it, else "non-tegra"."""
    if (root / "etc/nv_tegra_release").exists():
        return "tegra"
    try:
        compatible = (root / "proc/device-tree/compatible").read_bytes()
    except OSError:
        return "non-tegra"
    return "tegra" if b"nvidia,tegra" in compatible else "non-tegra"


def host() -> Host:
    """Return what this host is."""
    return Host(platform.system(), platform.machine(), platform.python_version())


def describe(pid: int) -> Process | None:
    """Return the process with this id, if there is one."""
    try:
        words = (_PROC / str(pid) / "cmdline").read_bytes().split(b"\0")
    except OSError:
        return None
    command = [Path(word.decode(errors="replace")).name for word in words[:3] if word]
    return Process(pid, " ".join(command) or "?")


def memory_of(pid: int) -> int:
    """Return how many bytes of memory a process holds; 0 where that cannot be known."""
    try:
        status = (_PROC / str(pid) / "status").read_text()
    except OSError:
        return 0
    resident = re.search(r"VmRSS:\s+(\d+) kB", status)
    return 1024 * int(resident[1]) if resident else 0


def memory() -> int | None:
    """Return how many bytes of memory this machine has; None where that cannot be known."""
    try:
        found = re.search(r"MemTotal:\s+(\d+) kB", (_PROC / "meminfo").read_text())
    except OSError:
        return None
    return 1024 * int(found[1]) if found else None


def listener(port: int) -> Process | None:
    """Return the process that listens on a TCP port; None where this user may not know."""
    targets = {f"socket:[{inode}]" for inode in _listening_inodes(port)}
    return next(_owners(targets), None) if targets else None


def holder(path: Path) -> Process | None:
    """Return a process that has a file open; None where there is none that can be seen."""
    return next(_owners({str(path.resolve())}), None)


def _listening_inodes(port: int) -> Iterator[str]:
    """Yield the sockets that listen on a port, from the kernel's tables."""
    for table in ("tcp", "tcp6"):
        try:
            lines = (_PROC / "net" / table).read_text().splitlines()[1:]
        except OSError:
            continue
        for columns in map(str.split, lines):
            if columns[3] == _LISTEN and int(columns[1].rpartition(":")[2], 16) == port:
                yield columns[9]


def _owners(targets: set[str]) -> Iterator[Process]:
    """Yield the processes, this one apart, with a descriptor that links to one of the targets."""
    for folder in _PROC.iterdir() if _PROC.is_dir() else ():
        if not re.fullmatch(r"[0-9]+", folder.name) or int(folder.name) == os.getpid():
            continue
        if targets & set(_links(folder / "fd")):
            process = describe(int(folder.name))
            if process:
                yield process


def _links(folder: Path) -> Iterator[str]:
    """Yield what a process's descriptors link to; nothing where it is gone or somebody else's."""
    try:
        descriptors = list(folder.iterdir())
    except OSError:
        return
    for descriptor in descriptors:
        with suppress(OSError):
            yield str(descriptor.readlink())
