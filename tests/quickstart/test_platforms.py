from __future__ import annotations

import os
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from quickstart import platforms

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

HOLD = "import sys, time; f = open(sys.argv[1], 'w'); print('open', flush=True); time.sleep(60)"
LISTEN = """
import socket, sys, time
s = socket.socket(int(sys.argv[2])); s.bind((sys.argv[1], 0)); s.listen()
print(s.getsockname()[1], flush=True); time.sleep(60)
"""


def test_the_listener_on_a_port_is_named() -> None:
    """A process that listens is found by its port, over IPv4 and IPv6."""
    for address, family in (("127.0.0.1", socket.AF_INET), ("::1", socket.AF_INET6)):
        command = [sys.executable, "-c", LISTEN, address, str(int(family))]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout is not None
            found = platforms.listener(int(child.stdout.readline()))
            child.kill()
        assert found is not None
        assert found.pid == child.pid
        assert str(found).startswith("python")


def test_nobody_listens_on_a_free_port(free_port: int) -> None:
    """A port that is free has no listener."""
    assert platforms.listener(free_port) is None


def test_the_holder_of_a_file_is_named(tmp_path: Path) -> None:
    """A process that has a file open is found, and this one is left out."""
    path = tmp_path / "file"
    command = [sys.executable, "-c", HOLD, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        found = platforms.holder(path)
        child.kill()
    assert found is not None
    assert found.pid == child.pid
    with path.open() as _ours:
        assert platforms.holder(path) is None


def test_a_process_is_described_by_its_command(wait_until: Callable[..., None]) -> None:
    """A live process has a command, and an ended one is not there."""
    ours = platforms.describe(os.getpid())
    assert ours is not None
    assert ours.command
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    wait_until(lambda: platforms.describe(child.pid) is None)


@pytest.mark.parametrize(
    ("file", "content", "family"),
    [
        ("etc/nv_tegra_release", b"# R36", "tegra"),
        ("proc/device-tree/compatible", b"nvidia,p3737-0000\0nvidia,tegra234\0", "tegra"),
        ("proc/device-tree/compatible", b"raspberrypi,4-model-b\0brcm,bcm2711\0", "non-tegra"),
        ("etc/os-release", b"", "non-tegra"),
    ],
)
def test_a_jetson_is_recognised(tmp_path: Path, file: str, content: bytes, family: str) -> None:
    """L4T's own file or the device tree say what the official script asks its user."""
    (tmp_path / file).parent.mkdir(parents=True)
    (tmp_path / file).write_bytes(content)
    assert platforms.gpu_family(tmp_path) == family


def test_the_host_is_described_in_one_line() -> None:
    """The host's facts make one line without blanks for unknowns."""
    assert f"Python {sys.version_info[0]}." in str(platforms.host())
