"""A model location on a Docker volume: the same code as for a folder, run inside a container.

The container is started with the first thing to do, and goes away with this process.
"""

from __future__ import annotations

import os
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quickstart.errors import RivaQsError
from quickstart.store import agent_client
from quickstart.store.folder import Folder
from quickstart.store.staging import claim, release, staging, waiting

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import BinaryIO

    from quickstart.backends.engine import Engine
    from quickstart.config import Settings

_ROLE, _STORE, _AGENT = "riva-qs.role", "riva-qs.store", "store"
_CHUNK = 1 << 20
_PATIENCE = 60


@dataclass
class Volume:
    """A named volume of a Docker Engine; one that is not there looks like an empty folder."""

    name: str
    settings: Settings
    _engine: Engine | None = None
    _agent: agent_client.Agent | None = field(default=None, repr=False)
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
                agent.send(chunk)
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

    def _connected(self) -> agent_client.Agent:
        """Return the agent, started where it is not yet."""
        if self._agent is None:
            self._agent = agent_client.Agent(self._attach(), self.name)
        return self._agent

    def _attach(self) -> Any:  # noqa: ANN401 - a socket
        """Run the container of the agent and return its socket."""
        from quickstart.backends.container import ContainerSpec, Mount
        from quickstart.backends.plan import default_image

        image = self.settings.image_speech_api or default_image(self.engine.architecture)
        labels = ((_ROLE, _AGENT), (_STORE, self.name))
        command, mounts = agent_client.COMMAND, (Mount(self.name, agent_client.ROOT),)
        return self.engine.attach(
            ContainerSpec("", image, command, mounts=mounts, labels=labels, unprivileged=True)
        )

    def _drop(self, *, remove: bool) -> None:
        """End the agent, and remove the volume when nothing is left in it."""
        if self._agent is not None:
            self._agent.close()
        self._agent = None
        if remove:
            self._remove_volume()

    def _remove_volume(self) -> None:
        """Remove the volume, once the agent's container is gone too."""
        deadline = time.monotonic() + _PATIENCE
        while self.engine.volume_users(self.name) and time.monotonic() < deadline:
            time.sleep(0.1)
        self.engine.remove_volume(self.name)
