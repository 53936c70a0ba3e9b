"""What the tests share, tested: what is left open is told where it was, and ports are nobody's."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from support.ports import ENOUGH, free_port

# Only the collector finds the socket: it is in a cycle.
LEAKY = """
import socket

def test_that_leaks():
    kept = [socket.socket()]
    kept.append(kept)
"""
HONEST = """
def test_that_is_honest():
    pass
"""


def test_what_a_module_leaves_open_is_told_there(tmp_path: Path) -> None:
    """The module that left it has the error, and the next one has none."""
    (tmp_path / "test_a.py").write_text(LEAKY)
    (tmp_path / "test_b.py").write_text(HONEST)
    options = ["-W", "error", "-rEp", "-p", "no:randomly", "-p", "conftest", "--rootdir=."]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "PYTEST_ADDOPTS": ""}

    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, "test_a.py", "test_b.py"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )

    told = done.stdout.split("short test summary info")[-1]
    assert "ERROR test_a.py::test_that_leaks" in told, done.stdout + done.stderr
    assert "ResourceWarning: unclosed" in done.stdout
    assert "2 passed, 1 error" in told


def test_a_free_port_is_given_to_nobody_else() -> None:
    """Neither by the kernel, where that leaves enough, nor a second time."""
    text = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text()
    first, last = map(int, text.split())

    ports = [free_port() for _ in range(100)]

    assert len(set(ports)) == len(ports)
    if first >= 10_000 + ENOUGH:
        assert not [port for port in ports if first <= port <= last]
