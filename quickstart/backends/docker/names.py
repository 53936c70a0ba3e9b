"""The names that containers go by: a new one takes the name of the one that ended."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from quickstart.backends import plan
from quickstart.backends.docker.verdicts import ROLE, STORE, is_ours
from quickstart.errors import RivaQsError

if TYPE_CHECKING:
    from quickstart.backends.engine import Container, Engine


@dataclass(frozen=True)
class Names:
    """The containers of one location, and the logs that outlive them.

    Attributes:
        engine: The engine that has them.
        store: The absolute path or the volume that holds the models.
        server: The name of the server's container.
        before: The name that it has while another one takes its place.
        deploy: The name of the container that deploys.
    """

    engine: Engine
    store: str
    server: str
    before: str
    deploy: str

    @property
    def _all(self) -> tuple[str, ...]:
        """Every name that a container of ours may have."""
        return (self.server, self.before, self.deploy)

    @property
    def _kept(self) -> Path:
        """The folder of the logs that outlive their containers."""
        state = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
        return Path(state).expanduser() / "riva-qs" / self.server

    def log(self, name: str) -> Path:
        """Return the path of a log that outlives its container, in a folder that is there."""
        self._kept.mkdir(parents=True, exist_ok=True)
        return self._kept / name

    def ended_server(self) -> str:
        """Return the id of the server's container that ended, empty for none.

        Raises:
            RivaQsError: It runs, or is somebody else's.
        """
        container = self._ended(self.server)
        return container.id if container is not None else ""

    def set_aside(self, ended: str) -> None:
        """Keep the log of the server's container that ended, and free its name for a new one."""
        with self.log("previous.log").open("w", encoding="utf-8") as kept:
            kept.writelines(f"{line}\n" for line in self.engine.logs(ended))
        self.engine.remove(self.before)
        self.engine.rename(ended, self.before)

    def put_back(self, ended: str) -> None:
        """Remove what took the name of the container that ended, which gets it again.

        It holds at whatever moment the work was cut off, so nothing is taken for granted.
        """
        newer = self.engine.container(self.server)
        if newer is not None and newer.id != ended and is_ours(newer):
            self.engine.remove(newer.id)
        if ended and (newer is None or newer.id != ended):
            self.engine.rename(ended, self.server)

    def make_room(self) -> None:
        """Remove the container of a deploy that ended, or that was left alone.

        Raises:
            RivaQsError: It runs, or is somebody else's.
        """
        container = self._ended(self.deploy)
        if container is not None:
            self.engine.remove(container.id)

    def belongings(self) -> tuple[str, ...]:
        """Return what there is, in words: containers and kept logs."""
        kept = [f"the kept logs {self._kept}"] if self._kept.is_dir() else []
        return (*(f"the container {name}" for name in self._all if self._has(name)), *kept)

    def remove(self) -> None:
        """Remove what `belongings` names."""
        for name in self._all:
            if self._has(name):
                self.engine.remove(name)
        for path in self._kept.glob("*"):
            path.unlink()
        with suppress(FileNotFoundError):
            self._kept.rmdir()

    def _has(self, name: str) -> bool:
        """Say whether a container is there that this location made."""
        container = self.engine.container(name)
        return container is not None and container.labels.get(STORE) == self.store

    def _ended(self, name: str) -> Container | None:
        """Return the container that has a name, which nothing runs in any more."""
        container = self.engine.container(name)
        if container is None:
            return None
        if not is_ours(container):
            message = f"a container named {name} is there that riva-qs did not make"
            raise RivaQsError(message, f"docker rm -f {name}, or set riva_daemon_speech")
        if container.running and not self._is_leftover(container):
            message = f"the container {name} runs already, for {container.labels.get(STORE, '?')}"
            raise RivaQsError(message, f"wait for its end, or docker rm -f {name}")
        return container

    def _is_leftover(self, container: Container) -> bool:
        """Say whether a deploy runs on whose riva-qs was killed: whoever asks holds its lock."""
        labels = container.labels
        return labels[ROLE] == plan.DEPLOY and labels.get(STORE) == self.store
