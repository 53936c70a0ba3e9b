"""A model location on a Docker volume: the same code as for a folder, run inside a container.

The container gets the few modules that it needs through its stdin, so any image with a python3
will do. It is started with the first thing to do, and goes away with this process.
"""

from __future__ import annotations

import io
import json
import os
import socket
import time
import zipfile
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import quickstart
from quickstart.errors import RivaQsError, from_exit_code
from quickstart.store.folder import Folder
from quickstart.store.staging import claim, release, staging, waiting

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import BinaryIO

    from quickstart.backends.engine import Engine
    from quickstart.config import Settings

_MODULES = (
    "errors",
    "files",
    "platforms",
    *(f"store/{n}" for n in ("agent", "contents", "folder", "locking", "unpack")),
)
_PACKAGES = ("quickstart", "quickstart/store")
_ROOT = "/data"
_ROLE, _STORE, _AGENT = "riva-qs.role", "riva-qs.store", "store"
_HEADER, _STDOUT = 8, 1
_CHUNK = 1 << 20
_PATIENCE = 60
_BOOT = (
    "import sys, tempfile; size = int(sys.stdin.buffer.readline());"
    " file = tempfile.NamedTemporaryFile(suffix='.zip'); file.write(sys.stdin.buffer.read(size));"
    " file.flush(); sys.path.insert(0, file.name); sys.dont_write_bytecode = True;"
    " from quickstart.store.agent import main; main(sys.argv[1])"
)


@dataclass
class Volume:
    """A named volume of a Docker Engine; one that is not there looks like an empty folder."""

    name: str
    settings: Settings
    _engine: Engine | None = None
    _agent: Agent | None = field(default=None, repr=False)
    _claims: dict[str, int] = field(default_factory=dict, repr=False)

    @property
    def engine(self) -> Engine:
        """The engine that has the volume."""
        if self._engine is None:
            from quickstart.backends import engine

            self._engine = engine.connect()
        return self._engine

    def do(self, name: str, *arguments: Any) -> Any:  # noqa: ANN401 - JSON
        """Do what a method of `Folder` does, and return what it returns."""
        if name == "lock" and self._agent is None:
            self.engine.create_volume(self.name, **{_ROLE: _AGENT})
        if self._agent is None and not self.engine.volume_exists(self.name):
            return getattr(Folder(Path("/nonexistent", self.name)), name)(*arguments)
        with self._whole():
            result = self._connected().do(name, *arguments)
        if name == "remove_empty":
            self._drop(remove=bool(result))
        return result

    def bring(self, path: Path, relative: str, size: int, digest: str) -> None:
        """Copy a file of this machine into the volume, where its hash is checked once more."""
        with self._whole(), path.open("rb") as stream:
            agent = self._connected()
            agent.ask("receive", relative, size, digest)
            for chunk in iter(lambda: stream.read(_CHUNK), b""):
                agent.channel.write(chunk)
            agent.answer()
        path.unlink()
        if digest in self._claims and not waiting(staging() / digest):
            release(staging() / digest, self._claims.pop(digest))

    def read(self, relative: str, sink: BinaryIO) -> None:
        """Copy a file of the volume to a stream."""
        with self._whole():
            agent = self._connected()
            agent.ask("send", relative)
            agent.copy(sink)

    def landing(self, relative: str, digest: str) -> Path:
        """Return where a download waits on this machine for its way into the volume."""
        folder = staging() / digest
        if digest not in self._claims:
            self._claims[digest] = claim(folder)
        return folder / Path(relative).name

    def refuse_others(self) -> None:
        """Raise OutOfResourceError where a container has the volume that is not of this location.

        Those that look after it, as this one does, go away by themselves.
        """
        from quickstart.backends import engine, plan

        own = plan.names(self.settings)
        users = self.engine.volume_users(self.name)
        engine.refuse_users(self.name, [name for name in users if not self._is_ours(name, own)])

    def _is_ours(self, container: str, own: Sequence[str]) -> bool:
        """Say whether a container is this location's, looks after a volume, or is gone by now.

        A name alone says nothing: the official scripts name theirs alike.
        """
        found = self.engine.container(container)
        if found is None or found.labels.get(_ROLE) == _AGENT:
            return True
        return container in own and found.labels.get(_STORE) == self.name

    @contextmanager
    def _whole(self) -> Iterator[None]:
        """Hang up when a conversation is cut short: what comes next would be misunderstood."""
        try:
            yield
        except RivaQsError:
            raise
        except BaseException:
            self._drop(remove=False)
            raise

    def close(self) -> None:
        """End the agent, and with it the lock that it holds; what was not brought may wait on."""
        self._drop(remove=False)
        while self._claims:
            os.close(self._claims.popitem()[1])
        if self._engine is not None:
            self._engine.close()
        self._engine = None

    def _connected(self) -> Agent:
        """Return the agent, started where it is not yet."""
        if self._agent is None:
            self._agent = Agent(_Channel(self._attach()), self.name)
        return self._agent

    def _attach(self) -> Any:  # noqa: ANN401 - a socket
        """Run the container of the agent and return its socket."""
        from quickstart.backends.container import ContainerSpec, Mount
        from quickstart.backends.plan import default_image

        image = self.settings.image_speech_api or default_image(self.engine.architecture)
        labels = ((_ROLE, _AGENT), ("riva-qs.store", self.name))
        command = ("python3", "-c", _BOOT, _ROOT)
        mounts = (Mount(self.name, _ROOT),)
        return self.engine.attach(
            ContainerSpec("", image, command, mounts=mounts, labels=labels, unprivileged=True)
        )

    def _drop(self, *, remove: bool) -> None:
        """End the agent, and remove the volume when nothing is left in it."""
        if self._agent is not None:
            self._agent.channel.close()
        self._agent = None
        if remove:
            self._remove_volume()

    def _remove_volume(self) -> None:
        """Remove the volume, once the agent's container is gone too."""
        deadline = time.monotonic() + _PATIENCE
        while self.engine.volume_users(self.name) and time.monotonic() < deadline:
            time.sleep(0.1)
        self.engine.remove_volume(self.name)


class Agent:
    """Speaks with the program in the container."""

    def __init__(self, channel: _Channel, name: str) -> None:
        self.channel, self._name = channel, name
        code = _code()
        channel.write(b"%d\n%s" % (len(code), code))
        # An image's entry point may greet on stdout before the program runs.
        while "hello" not in self._line():
            pass

    def do(self, name: str, *arguments: Any) -> Any:  # noqa: ANN401 - JSON
        """Have something done, and return its result."""
        self.ask(name, *arguments)
        return self.answer()

    def ask(self, name: str, *arguments: Any) -> None:  # noqa: ANN401 - JSON
        """Send a request."""
        self.channel.write(json.dumps({"do": name, "with": arguments}).encode() + b"\n")

    def answer(self) -> Any:  # noqa: ANN401 - JSON
        """Return the result of a request, or raise its error."""
        message = self._line()
        if "error" in message:
            code, text, hint = message["error"]
            raise from_exit_code(code, text.replace(_ROOT, f"{self._name}:"), hint)
        return message.get("result")

    def copy(self, sink: BinaryIO) -> None:
        """Copy the file that the agent sends to a stream."""
        message = self._line()
        if "error" in message:
            code, text, hint = message["error"]
            raise from_exit_code(code, text.replace(_ROOT, f"{self._name}:"), hint)
        left = int(message["size"])
        while left:
            chunk = self.channel.read(min(left, _CHUNK))
            sink.write(chunk)
            left -= len(chunk)
        self.answer()

    def _line(self) -> dict[str, Any]:
        """Return the next message; what is none is passed over."""
        while True:
            line = self.channel.line()
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


def _code() -> bytes:
    """Return the modules that the agent needs, as a zip."""
    buffer, package = io.BytesIO(), Path(quickstart.__file__).parent
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in _PACKAGES:
            archive.writestr(f"{name}/__init__.py", "")
        for name in _MODULES:
            archive.write(package / f"{name}.py", f"quickstart/{name}.py")
    return buffer.getvalue()
