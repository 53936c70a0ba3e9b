"""This machine's end of the conversation with `agent.py`, which runs in a container.

The container gets the few modules that it needs through its stdin, so any image with a python3
will do.
"""

from __future__ import annotations

import io
import json
import os
import socket
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import quickstart
from quickstart.errors import RivaQsError, from_exit_code

if TYPE_CHECKING:
    from typing import BinaryIO

_MODULES = (
    "errors",
    "files",
    "platforms",
    *(f"store/{n}" for n in ("agent", "contents", "folder", "generations")),
    *(f"store/{n}" for n in ("layout", "locking", "unpack")),
)
_PACKAGES = ("quickstart", "quickstart/store")
ROOT = "/data"
_HEADER, _STDOUT = 8, 1
_CHUNK = 1 << 20
_BOOT = (
    "import sys, tempfile; size = int(sys.stdin.buffer.readline());"
    " file = tempfile.NamedTemporaryFile(suffix='.zip'); file.write(sys.stdin.buffer.read(size));"
    " file.flush(); sys.path.insert(0, file.name); sys.dont_write_bytecode = True;"
    " from quickstart.store.agent import main; main(sys.argv[1])"
)
COMMAND = ("python3", "-c", _BOOT, ROOT)


class Agent:
    """Speaks with the program in the container, whose stdin and stdout a socket is."""

    def __init__(self, connection: Any, volume: str) -> None:  # noqa: ANN401 - what the SDK gives
        self._channel, self._volume = _Channel(connection), volume
        code = modules()
        self._channel.write(b"%d\n%s" % (len(code), code))
        # An image's entry point may greet on stdout before the program runs.
        while "hello" not in self._line():
            pass

    def do(self, name: str, *arguments: Any) -> Any:  # noqa: ANN401 - JSON
        """Have something done, and return its result."""
        self.ask(name, *arguments)
        return self.answer()

    def ask(self, name: str, *arguments: Any) -> None:  # noqa: ANN401 - JSON
        """Send a request."""
        self._channel.write(json.dumps({"do": name, "with": arguments}).encode() + b"\n")

    def send(self, data: bytes) -> None:
        """Send bytes that a request announced."""
        self._channel.write(data)

    def answer(self) -> Any:  # noqa: ANN401 - JSON
        """Return the result of a request, or raise its error."""
        return self._message().get("result")

    def copy(self, sink: BinaryIO) -> None:
        """Copy the file that the agent sends to a stream."""
        left = int(self._message()["size"])
        while left:
            chunk = self._channel.read(min(left, _CHUNK))
            sink.write(chunk)
            left -= len(chunk)
        self.answer()

    def close(self) -> None:
        """Hang up, which ends the program, and wait for its end."""
        self._channel.close()

    def _message(self) -> dict[str, Any]:
        """Return the next message, or raise the error that it tells."""
        message = self._line()
        if "error" in message:
            code, text, hint = message["error"]
            raise from_exit_code(code, text.replace(ROOT, f"{self._volume}:"), hint)
        return message

    def _line(self) -> dict[str, Any]:
        """Return the next message; what is none is passed over."""
        while True:
            line = self._channel.line()
            try:
                message = json.loads(line)
            except ValueError:
                continue
            if isinstance(message, dict):
                return message


class _Channel:
    """The socket of an attached container, without Docker's frames."""

    def __init__(self, connection: Any) -> None:  # noqa: ANN401 - what the SDK gives
        connection.settimeout(None)
        self._socket = connection
        self._ready = b""
        self._complaints = b""

    def write(self, data: bytes) -> None:
        """Send bytes to the program's stdin."""
        try:
            self._socket.sendall(data)
        except OSError as error:
            raise self._gone() from error

    def line(self) -> bytes:
        """Return the next line that the program wrote."""
        while b"\n" not in self._ready:
            self._fill()
        line, _, self._ready = self._ready.partition(b"\n")
        return line

    def read(self, size: int) -> bytes:
        """Return at most `size` bytes that the program wrote."""
        if not self._ready:
            self._fill()
        chunk, self._ready = self._ready[:size], self._ready[size:]
        return chunk

    def close(self) -> None:
        """Hang up, which ends the program, and wait for its end."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)
            for _ in iter(lambda: self._socket.recv(_CHUNK), b""):
                pass
        # The SDK keeps a file over the socket, which would keep it open.
        os.close(self._socket.detach())

    def _fill(self) -> None:
        """Read one frame."""
        header = self._exactly(_HEADER)
        data = self._exactly(int.from_bytes(header[4:], "big"))
        if header[0] == _STDOUT:
            self._ready += data
        else:
            self._complaints += data

    def _exactly(self, size: int) -> bytes:
        """Return `size` bytes of the socket."""
        parts = []
        while size:
            part = self._socket.recv(min(size, _CHUNK))
            if not part:
                raise self._gone()
            parts.append(part)
            size -= len(part)
        return b"".join(parts)

    def _gone(self) -> RivaQsError:
        """Return the error for a program that ended."""
        words = self._complaints.decode(errors="replace").strip().splitlines()
        last = f": {words[-1]}" if words else ""
        return RivaQsError(
            f"the container that looks after the volume has ended{last}",
            "image_speech_api must name an image with a python3; try again",
        )


def modules() -> bytes:
    """Return the modules that the agent needs, as a zip."""
    buffer, package = io.BytesIO(), Path(quickstart.__file__).parent
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in _PACKAGES:
            archive.writestr(f"{name}/__init__.py", "")
        for name in _MODULES:
            archive.write(package / f"{name}.py", f"quickstart/{name}.py")
    return buffer.getvalue()
