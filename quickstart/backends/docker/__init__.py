"""The backend that deploys and serves in containers.

A server is the container named `riva_daemon_speech` that carries our label; its labels say which
spec it was made from. A container that ended stays, with its log, until the next start.

    premises.py   what containers depend on besides the settings
    names.py      whose a container's name is, and the logs that outlive containers
    deploying.py  a deploy: watched, ended when it hangs, judged by what it made
    starting.py   a start that may hang
    verdicts.py   what a container says of what is or was in it
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from quickstart import log, platforms
from quickstart.backends import engine as engines
from quickstart.backends import plan, ports
from quickstart.backends.base import Exit, LogQuery, Running
from quickstart.backends.container import run_line
from quickstart.backends.docker.deploying import Deploy
from quickstart.backends.docker.names import Names
from quickstart.backends.docker.premises import Premises
from quickstart.backends.docker.starting import start
from quickstart.backends.docker.verdicts import (
    KILLED,
    after_its_end,
    ending,
    is_ours,
    posix,
    running_in,
)
from quickstart.backends.pulling import pull
from quickstart.errors import NotReadyError, OutOfResourceError, RivaQsError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from quickstart.backends.base import DeployReport, ServerSpec
    from quickstart.backends.container import ContainerSpec
    from quickstart.backends.engine import Engine
    from quickstart.config import Settings
    from quickstart.console import Console

DRAIN_SECONDS = 15


class Docker:
    """Deploys and serves with an image, on one Docker Engine."""

    name = "docker"

    def __init__(self, settings: Settings, engine: Engine, store: str) -> None:
        self._settings = settings
        self._engine = engine
        self._name = settings.riva_daemon_speech
        self._names = Names(engine, store, *plan.names(settings))
        self._premises = Premises(settings, engine, store)
        self._has_stopped = False

    def prepare(self, console: Console, *, dry_run: bool) -> tuple[str, ...]:
        """Pull NVIDIA's image unless it is there; ours is never pulled, since it is built."""
        if self._settings.image != "riva" or self._engine.image(self._premises.image_name):
            return ()
        if not dry_run:
            pull(self._engine, self._premises.image_name, self._settings.ngc_api_key, console)
            return (f"{self._premises.image_name}: pulled",)
        return (f"pull the image {self._premises.image_name}",)

    def engine(self) -> dict[str, str]:
        """Return the image that deploys and serves, and what it is made of."""
        return {"image": self._premises.image.name, "image_id": self._premises.image.id}

    def deploy(
        self, rmirs: Sequence[str], draft: str, key: str, report: Callable[[str], None]
    ) -> DeployReport:
        """Deploy archives in a container, reporting each line of its log.

        Raises:
            RivaQsError: It failed, or did not make what the archives hold.
        """
        report(self._premises.gpu[1])
        self._names.make_room()
        deploying = Deploy(self._premises, self._names.log("deploy.log"), self.engine())
        return deploying.run(rmirs, draft, key, report)

    def _spec(self, spec: ServerSpec) -> ContainerSpec:
        """Return the container that a server is to run in."""
        return plan.server(self._settings, spec, self._premises.host)

    def _secrets(self, spec: ContainerSpec) -> dict[str, str]:
        """Return the values of the secrets that a server gets."""
        return dict.fromkeys(spec.secrets, self._settings.riva_api_key)

    def digest(self, spec: ServerSpec) -> str:
        """Return the hash that tells containers of different settings apart."""
        container = self._spec(spec)
        return container.digest(self._premises.image.id, self._secrets(container))

    def plan(self, spec: ServerSpec) -> tuple[str, ...]:
        """Return the container as a `docker run` line, and how it gets a GPU."""
        return (run_line(self._spec(spec)), self._premises.gpu[1])

    def serve(self, spec: ServerSpec, _repository: str, report: Callable[[str], None]) -> Running:
        """Start a server and return at once; what takes long is reported.

        Raises:
            OutOfResourceError: A port is taken.
            UnsupportedError: The engine cannot give it a GPU.
        """
        container = self._spec(spec)
        before = self._names.ended_server()
        secrets = self._secrets(container)
        digest = container.digest(self._premises.image.id, secrets)
        try:
            if before:
                self._names.set_aside(before)
            self._engine.create(container, secrets, **{f"{plan.LABEL}.spec": digest})
            start(self._engine, container.name, report)
        except BaseException as error:
            self._put_back(before)
            if isinstance(error, OutOfResourceError):
                raise self._port_error(spec, error) from error
            raise
        if before:
            self._engine.remove(before)
        running = self.state()
        if running is not None:
            return running
        started = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        return Running(0, spec.uri, spec.generation, digest, started, self._name)

    def state(self) -> Running | None:
        """Return the server that runs now, if one does."""
        container = self._engine.container(self._name)
        return (
            running_in(container)
            if container and container.running and is_ours(container)
            else None
        )

    def ended(self) -> Exit:
        """Say how the last server ended, from its container's state and its own log."""
        container = after_its_end(self._engine, self._name)
        if container is None:
            return Exit(None, f"the container {self._name} is gone: somebody removed it")
        lines = list(self._engine.logs(container.id, since=posix(container.started_at)))
        return ending(container, lines, "the server")

    def logs(self, query: LogQuery) -> Iterator[str]:
        """Yield lines of the server's log; it outlives the server, until the next start."""
        if query.previous:
            yield from log.show(self._names.log("previous.log"), query, lambda: False)
            return
        container = self._engine.container(self._name)
        if container is None or not is_ours(container):
            message = f"no server has run here yet: there is no container {self._name}"
            raise NotReadyError(message, "riva-qs start")
        yield from self._engine.logs(
            container.id, follow=query.follow, tail=query.tail, since=query.since
        )
        # An engine that goes away ends its streams as a container does: asked again, it tells.
        self._engine.container(container.id)

    def stop(self) -> str:
        """Ask the server to drain, and kill it when that takes too long."""
        if self.state() is None:
            return ""
        self._engine.stop(self._name, DRAIN_SECONDS)
        self._has_stopped = True
        container = self._engine.container(self._name)
        if container and container.running:
            message = f"the container {self._name} survives being killed"
            raise RivaQsError(message, "restart the Docker Engine")
        if container and container.exit_code == KILLED:
            return f"killed the server ({self._name}); it did not drain in {DRAIN_SECONDS} s"
        return f"stopped the server (container {self._name}); it drained first"

    def vitals(self) -> dict[str, str | int]:
        """Return the image, the uptime and the memory of the server that runs."""
        container = self._engine.container(self._name)
        if container is None or not container.running:
            return {}
        started = posix(container.started_at) or time.time()
        return {
            "image": container.labels.get(
                "org.opencontainers.image.ref.name", self._premises.image_name
            ),
            "image_id": container.image_id,
            "uptime_s": int(time.time() - started),
            "memory_bytes": self._engine.memory(container.id),
            **({"healthcheck": container.health} if container.health else {}),
        }

    def belongings(self) -> tuple[str, ...]:
        """Return what the backend itself has made: containers and kept logs."""
        return self._names.belongings()

    def remove(self) -> None:
        """Remove what `belongings` names."""
        self._names.remove()

    def _put_back(self, before: str) -> None:
        """Let all be as before; a server that we have stopped for another one runs again."""
        self._names.put_back(before)
        if before and self._has_stopped:
            self._engine.start(before)

    def _port_error(self, spec: ServerSpec, error: OutOfResourceError) -> RivaQsError:
        """Return the error for a port that is taken, naming who has it; others stay as they are."""
        port = ports.refused(error.message)
        if not port:
            return error
        container = self._engine.publisher(port)
        owner = f"the container {container}" if container else platforms.listener(port)
        return ports.taken(spec, port, str(owner or ""))


def connect(settings: Settings, store: str) -> Docker:
    """Return the backend on the Docker Engine that this user's environment names.

    Args:
        settings: What to run.
        store: The absolute path or the volume that holds the models.
    """
    return Docker(settings, engines.connect(), store)
