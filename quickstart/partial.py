"""A file that is on its way: `NAME.partial`, and beside it `NAME.partial.state`.

The state is a journal: what the file is to become, then one line for each finished range with its
CRC-32. After any interruption, a power cut included, a range counts as there when the bytes on the
disk have the check that the journal names, and is fetched again when they do not. Whoever holds the
lock on the `.partial` file has both alone.
"""

from __future__ import annotations

import fcntl
import json
import os
import zlib
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from quickstart.sources import SourceFile

PARTIAL = ".partial"
STATE = ".partial.state"
_FORMAT = 1
_CHUNK = 1 << 20


def beside(target: Path, suffix: str) -> Path:
    """Return the path of what lies beside a target."""
    return target.with_name(target.name + suffix)


@dataclass
class Partial:
    """An open `.partial` file, with its ranges.

    Attributes:
        target: The path that it will have.
        file: What it is to become.
        step: The length of its ranges in bytes; the last may be shorter.
        checks: The CRC-32 of each range that its journal says is finished.
    """

    target: Path
    file: SourceFile
    step: int
    descriptor: int
    checks: dict[int, int] = field(default_factory=dict)
    _journal: int = -1

    @property
    def ranges(self) -> range:
        """The numbers of all ranges."""
        return range(-(-self.file.size // self.step))

    def bounds(self, index: int) -> tuple[int, int]:
        """Return where a range begins, and the offset behind its end."""
        return index * self.step, min((index + 1) * self.step, self.file.size)

    def missing(self) -> int:
        """Return how many bytes the journal does not say are there."""
        return self.file.size - sum(b - a for a, b in map(self.bounds, self.checks))

    def write(self, data: bytes, offset: int) -> None:
        """Write all of `data` at an offset."""
        rest = memoryview(data)
        while rest:
            written = os.pwrite(self.descriptor, rest, offset)
            rest, offset = rest[written:], offset + written

    def check_of(self, index: int) -> int | None:
        """Return the CRC-32 of a range as it is on the disk; None where a part of it is not."""
        (position, stop), check = self.bounds(index), 0
        while position < stop:
            data = os.pread(self.descriptor, min(_CHUNK, stop - position), position)
            if not data:
                return None
            check, position = zlib.crc32(data, check), position + len(data)
        return check

    def finish(self, index: int, check: int) -> None:
        """Write into the journal that a range is there."""
        self.checks[index] = check
        os.write(self._journal, f"{index} {check:08x}\n".encode())

    def resume(self) -> None:
        """Read the journal; one that is about another file begins anew."""
        path = beside(self.target, STATE)
        header = json.dumps({"format": _FORMAT, "step": self.step, **vars(self.file)}) + "\n"
        self._journal = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        first, *lines = path.read_text("ascii", errors="replace").splitlines(keepends=True) or [""]
        self.checks = {}
        if first == header:
            self.checks = dict(entry for line in lines if (entry := self._entry(line)))
        else:
            os.ftruncate(self.descriptor, 0)
        os.ftruncate(self._journal, 0)
        entries = [f"{index} {check:08x}\n" for index, check in self.checks.items()]
        os.write(self._journal, "".join([header, *entries]).encode())

    def _entry(self, line: str) -> tuple[int, int] | None:
        """Return a range and its check; None for a line that a cut left unfinished."""
        with suppress(ValueError):
            number, check = line.split()
            if line.endswith("\n") and int(number) in self.ranges:
                return int(number), int(check, 16)
        return None

    def publish(self) -> None:
        """Let the file take its name, in one step, when its bytes are on the disk."""
        os.fsync(self.descriptor)
        beside(self.target, PARTIAL).replace(self.target)
        beside(self.target, STATE).unlink(missing_ok=True)

    def discard(self) -> None:
        """Remove what has arrived."""
        beside(self.target, STATE).unlink(missing_ok=True)
        beside(self.target, PARTIAL).unlink(missing_ok=True)

    def close(self) -> None:
        """Let others have it."""
        if self._journal >= 0:
            os.close(self._journal)
        os.close(self.descriptor)


@contextmanager
def held(target: Path, file: SourceFile, step: int) -> Iterator[Partial]:
    """Give the `.partial` file of a target, as soon as no other process or thread has it."""
    partial = Partial(target, file, step, _locked(beside(target, PARTIAL)))
    try:
        yield partial
    finally:
        partial.close()


def _locked(path: Path) -> int:
    """Return a descriptor of the file at a path, held against everybody else."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(descriptor), path.stat()):
                    return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        # It got its name, or was removed, while we waited for it.
        os.close(descriptor)
