"""Does what `folder.py` does inside a container that has a volume mounted.

One JSON object a line comes in, and one goes out. After a request for `receive` its bytes follow
on stdin; before the answer to `send` the bytes go to stdout. The agent ends when its stdin does,
whatever it is doing: the lock that it holds falls with it, and nothing is left half visible.
"""

from __future__ import annotations

import json
import os
import select
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quickstart.errors import RivaQsError, from_os_error
from quickstart.store.folder import Folder

if TYPE_CHECKING:
    from typing import BinaryIO

HELLO = "riva-qs store agent"
_CHUNK = 1 << 20


def main(root: str) -> None:
    """Answer requests until stdin ends."""
    threading.Thread(target=_end_with_stdin, daemon=True).start()
    incoming, outgoing = sys.stdin.buffer, sys.stdout.buffer
    folder = Folder(Path(root))
    _say(outgoing, {"hello": HELLO})
    for line in incoming:
        request = json.loads(line)
        try:
            _say(outgoing, {"result": _answer(folder, request, incoming, outgoing)})
        except (RivaQsError, OSError) as error:
            ours = from_os_error(error) if isinstance(error, OSError) else error
            _say(outgoing, {"error": [ours.code, ours.message, ours.hint]})


def _answer(folder: Folder, request: dict[str, Any], incoming: BinaryIO, outgoing: BinaryIO) -> Any:  # noqa: ANN401 - JSON
    """Do what a request asks for."""
    name, arguments = request["do"], request["with"]
    if name == "receive":
        return _receive(folder, arguments, incoming)
    if name == "send":
        path = folder.root / arguments[0]
        size = path.stat().st_size
        _say(outgoing, {"size": size})
        with path.open("rb") as stream:
            outgoing.writelines(iter(lambda: stream.read(_CHUNK), b""))
        return size
    return getattr(folder, name)(*arguments)


def _receive(folder: Folder, arguments: list[Any], incoming: BinaryIO) -> None:
    """Receive a file; what a failure leaves unread is read, so that the next line is a request."""
    counted = _Counted(incoming, arguments[1])
    try:
        folder.receive(*arguments, counted)  # type: ignore[call-arg]  # a request has the others
    finally:
        while counted.read(_CHUNK):
            pass


class _Counted:
    """The next bytes of a stream, and no more."""

    def __init__(self, stream: BinaryIO, size: int) -> None:
        self._stream, self._left = stream, size

    def read(self, size: int) -> bytes:
        """Return at most `size` bytes."""
        chunk = self._stream.read(min(size, self._left))
        self._left -= len(chunk)
        return chunk


def _say(outgoing: BinaryIO, message: dict[str, Any]) -> None:
    """Write one line."""
    outgoing.write(json.dumps(message).encode() + b"\n")
    outgoing.flush()


def _end_with_stdin() -> None:
    """End this process as soon as whoever writes to its stdin is gone."""
    poll = select.poll()
    poll.register(0, 0)  # a hang-up is always reported
    while not poll.poll(1000):
        time.sleep(0)
    os._exit(0)
