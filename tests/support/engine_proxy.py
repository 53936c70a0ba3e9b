"""A door in front of a Docker Engine, as a program that can be stopped, and that can hold back.

    python engine_proxy.py LISTEN TARGET [PATTERN]

Everything is passed on, but for requests that begin with the regular expression PATTERN: those
wait until SIGUSR1. SIGSTOP makes of it an engine that stops answering in the middle.
"""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_CHUNK = 1 << 16


@contextmanager
def before(engine: str, path: Path, pattern: str = "") -> Iterator[subprocess.Popen[bytes]]:
    """Run a door at `path` that leads to an engine, `unix://...`; it ends with the block."""
    target = engine.removeprefix("unix://")
    command = [sys.executable, __file__, str(path), target, *filter(None, [pattern])]
    with subprocess.Popen(command) as door:
        try:
            deadline = time.monotonic() + 100
            while not path.exists():
                assert time.monotonic() < deadline
                time.sleep(0.05)
            yield door
        finally:
            door.kill()


def _serve(
    caller: socket.socket, target: str, held: re.Pattern[bytes], go: threading.Event
) -> None:
    """Pass one connection on, both ways."""
    with caller, socket.socket(socket.AF_UNIX) as engine, suppress(OSError):
        engine.connect(target)
        threading.Thread(target=_copy, args=(engine, caller), daemon=True).start()
        while data := caller.recv(_CHUNK):
            if held.match(data):
                go.wait()
            engine.sendall(data)
        engine.shutdown(socket.SHUT_WR)


def _copy(source: socket.socket, sink: socket.socket) -> None:
    """Copy until the source ends."""
    with suppress(OSError):
        while data := source.recv(_CHUNK):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)


def main() -> None:
    """Serve until killed."""
    listen, target, *pattern = sys.argv[1:]
    held = re.compile(pattern[0].encode() if pattern else rb"(?!)")
    go = threading.Event()
    signal.signal(signal.SIGUSR1, lambda *_: go.set())
    with socket.socket(socket.AF_UNIX) as door:
        door.bind(f"{listen}.new")
        door.listen(64)
        Path(f"{listen}.new").rename(listen)
        while True:
            caller, _ = door.accept()
            threading.Thread(target=_serve, args=(caller, target, held, go), daemon=True).start()


if __name__ == "__main__":
    main()
