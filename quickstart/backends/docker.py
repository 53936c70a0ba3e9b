"""The backend that deploys and serves in containers.

A server is the container named `riva_daemon_speech` that carries our label; its labels say which
spec it was made from. A container that ended stays, with its log, until the next start.
"""

from __future__ import annotations

import os
import re
import time
from contextlib import suppress
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from quickstart import log, platforms
from quickstart.backends import engine as engines
from quickstart.backends import gpu, plan
from quickstart.backends.base import Exit, LogQuery, Running, parse_report
from quickstart.backends.container import run_line
from quickstart.backends.ending import explain
from quickstart.backends.judge import judge
from quickstart.backends.pulling import pull
from quickstart.errors import (
    ArtifactMissingError,
    NotReadyError,
    OutOfResourceError,
    RivaQsError,
    UnsupportedError,
    from_exit_code,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from quickstart.backends.base import DeployReport, ServerSpec
    from quickstart.backends.container import ContainerSpec, Gpu
    from quickstart.backends.engine import Container, Engine, Image
    from quickstart.config import Settings
    from quickstart.console import Console

DRAIN_SECONDS = 15
_SIGNALLED = 128


class Docker:
    """Deploys and serves with an image, on one Docker Engine."""

    name = "docker"

    def __init__(self, settings: Settings, engine: Engine, store: str) -> None:
        self._settings = settings
        self._engine = engine
        self._name = settings.riva_daemon_speech
        self._names = (self._name, f"{self._name}-before", plan.deploy_name(settings))
        self._store = store
        self._has_stopped = False
        state = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
        self._kept = Path(state).expanduser() / "riva-qs" / self._name

    @cached_property
    def image_name(self) -> str:
        """The image that the settings name, or ours for this machine."""
        from quickstart.images import default_name

        return self._settings.image_speech_api or default_name(self._facts.architecture)

    @cached_property
    def _facts(self) -> engines.Facts:
        return self._engine.facts()

    @cached_property
    def _image(self) -> Image:
        """The image, checked to be there and to run on this machine."""
        image = self._engine.image(self.image_name)
        if image is None:
            hint = "riva-qs image build makes it"
            if self._settings.image == "riva":
                hint = "riva-qs init pulls it"
            where = f"the Docker Engine at {self._engine.address}"
            raise ArtifactMissingError(f"{where} has no image {self.image_name}", hint)
        wanted = f"linux/{engines.architecture(self._facts.architecture)}"
        if image.platform != wanted:
            raise UnsupportedError(
                f"the image {image.name} is for {image.platform}, and this machine is {wanted}",
                "set image_speech_api to one that fits, or make it: riva-qs image build",
            )
        return image

    @cached_property
    def _gpu(self) -> tuple[Gpu, str]:
        variant = self._image.labels.get(f"{plan.LABEL}.variant", "")
        return gpu.choose(self._settings, self._facts, variant)

    @cached_property
    def _host(self) -> plan.Host:
        """What the containers depend on besides the settings."""
        owner = ""
        if self._store.startswith("/"):
            found = Path(self._store).stat()
            owner = f"{found.st_uid}:{found.st_gid}"
        devices = tuple(d for d in ("/dev/bus/usb", "/dev/snd") if Path(d).exists())
        image = self._image.name
        return plan.Host(image, self._store, self._gpu[0], owner, devices, self._plugins())

    def _plugins(self) -> tuple[str, ...]:
        """Return the plugins for Triton that are in the store, as NVIDIA's server sees them."""
        if self._settings.image != "riva":
            return ()
        if self._store.startswith("/"):
            found = Path(self._store, "plugins").glob("*.so")
            return tuple(sorted(f"/data/plugins/{p.name}" for p in found if p.stat().st_size))
        if not self._engine.volume_exists(self._store):
            return ()
        lines = self._engine.output(plan.finder(self._image.name, self._store))
        return tuple(sorted(line for line in lines if line.startswith("/data/plugins/")))

    def prepare(self, console: Console, *, dry_run: bool) -> tuple[str, ...]:
        """Pull NVIDIA's image unless it is there; ours is never pulled, since it is built."""
        if self._settings.image != "riva" or self._engine.image(self.image_name):
            return ()
        if not dry_run:
            pull(self._engine, self.image_name, self._settings.ngc_api_key, console)
            return (f"{self.image_name}: pulled",)
        return (f"pull the image {self.image_name}",)

    def engine(self) -> dict[str, str]:
        """Return the image that deploys and serves, and what it is made of."""
        return {"image": self._image.name, "image_id": self._image.id}

    def deploy(
        self, rmirs: Sequence[str], draft: str, key: str, report: Callable[[str], None]
    ) -> DeployReport:
        """Deploy archives in a container, reporting each line of its log.

        Raises:
            RivaQsError: It failed, or did not make what the archives hold.
        """
        report(self._gpu[1])
        spec = plan.deploy(self._settings, self._host, tuple(rmirs), draft, keyed=bool(key))
        self._make_room(spec.name)
        container = self._engine.create(spec, {"MODEL_DEPLOY_KEY": key})
        try:
            self._engine.start(container)
            lines = self._watched(container, report)
            self._check_deploy(container, lines)
            return self._made(container, draft, rmirs, lines)
        finally:
            self._engine.remove(container)

    def _watched(self, container: str, report: Callable[[str], None]) -> list[str]:
        """Report a container's lines as they come, and keep them in a file."""
        lines = []
        with self._keep("deploy.log").open("w", encoding="utf-8") as kept:
            for line in self._engine.logs(container, follow=True):
                lines.append(line)
                kept.write(f"{line}\n")
                report(line)
        return lines

    def _check_deploy(self, container: str, lines: Sequence[str]) -> None:
        """Raise an error unless the deploy's container ended well."""
        code = self._engine.wait(container)
        if code:
            end = _ending(self._engine.container(container), lines, "riva-deploy")
            hint = end.hint or f"its whole log: {self._keep('deploy.log')}"
            raise from_exit_code(end.code, f"the deploy failed: {end.cause}", hint)

    def _made(
        self, container: str, draft: str, rmirs: Sequence[str], lines: Sequence[str]
    ) -> DeployReport:
        """Return what a deploy made, read from files that its container left."""
        if self._settings.image != "riva":
            data = self._engine.read_file(container, f"/data/{draft}/report.json")
            return replace(parse_report(data), engine=self.engine())
        listing = self._engine.read_file(container, plan.LISTING).decode(errors="replace")
        names = [Path(rmir).name for rmir in rmirs]
        return judge(listing, lines, names, self.engine())

    def _spec(self, spec: ServerSpec) -> ContainerSpec:
        """Return the container that a server is to run in."""
        return plan.server(self._settings, spec, self._host)

    def _secrets(self, spec: ContainerSpec) -> dict[str, str]:
        """Return the values of the secrets that a server gets."""
        return dict.fromkeys(spec.secrets, self._settings.riva_api_key)

    def digest(self, spec: ServerSpec) -> str:
        """Return the hash that tells containers of different settings apart."""
        container = self._spec(spec)
        return container.digest(self._image.id, self._secrets(container))

    def plan(self, spec: ServerSpec) -> tuple[str, ...]:
        """Return the container as a `docker run` line, and how it gets a GPU."""
        return (run_line(self._spec(spec)), self._gpu[1])

    def serve(self, spec: ServerSpec, _repository: str) -> Running:
        """Start a server and return at once.

        Raises:
            OutOfResourceError: A port is taken.
            UnsupportedError: The engine cannot give it a GPU.
        """
        container = self._spec(spec)
        before = self._set_aside(container.name)
        secrets = self._secrets(container)
        digest = container.digest(self._image.id, secrets)
        try:
            self._engine.create(container, secrets, **{f"{plan.LABEL}.spec": digest})
            self._engine.start(container.name)
        except BaseException as error:
            self._engine.remove(container.name)
            self._put_back(before)
            if isinstance(error, OutOfResourceError):
                raise self._port_error(error) from error
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
        return _running(container) if container and container.running and _ours(container) else None

    def ended(self) -> Exit:
        """Say how the last server ended, from its container's state and its own log."""
        container = self._engine.container(self._name)
        if container is None:
            return Exit(None, f"the container {self._name} is gone: somebody removed it")
        lines = list(self._engine.logs(container.id, since=_posix(container.started_at)))
        return _ending(container, lines, "the server")

    def logs(self, query: LogQuery) -> Iterator[str]:
        """Yield lines of the server's log; it outlives the server, until the next start."""
        if query.previous:
            yield from log.show(self._kept / "previous.log", query, lambda: False)
            return
        container = self._engine.container(self._name)
        if container is None or not _ours(container):
            message = f"no server has run here yet: there is no container {self._name}"
            raise NotReadyError(message, "riva-qs start")
        yield from self._engine.logs(
            container.id, follow=query.follow, tail=query.tail, since=query.since
        )

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
        if container and container.exit_code == _SIGNALLED + 9:
            return f"killed the server ({self._name}); it did not drain in {DRAIN_SECONDS} s"
        return f"stopped the server (container {self._name}); it drained first"

    def vitals(self) -> dict[str, str | int]:
        """Return the image, the uptime and the memory of the server that runs."""
        container = self._engine.container(self._name)
        if container is None or not container.running:
            return {}
        started = _posix(container.started_at) or time.time()
        return {
            "image": container.labels.get("org.opencontainers.image.ref.name", self.image_name),
            "image_id": container.image_id,
            "uptime_s": int(time.time() - started),
            "memory_bytes": self._engine.memory(container.id),
            **({"healthcheck": container.health} if container.health else {}),
        }

    def belongings(self) -> tuple[str, ...]:
        """Return what the backend itself has made: containers and kept logs."""
        names = [n for n in self._names if self._has(n)]
        kept = [f"the kept logs {self._kept}"] if self._kept.is_dir() else []
        return (*(f"the container {name}" for name in names), *kept)

    def remove(self) -> None:
        """Remove what `belongings` names."""
        for name in self._names:
            if self._has(name):
                self._engine.remove(name)
        for path in self._kept.glob("*"):
            path.unlink()
        with suppress(FileNotFoundError):
            self._kept.rmdir()

    def _has(self, name: str) -> bool:
        """Say whether a container is there that this location made."""
        container = self._engine.container(name)
        return container is not None and container.labels.get(_STORE) == self._store

    def _set_aside(self, name: str) -> str:
        """Keep the container that ended and has a name, under another; return its id, if any."""
        container = self._ended(name)
        if container is None:
            return ""
        with self._keep("previous.log").open("w", encoding="utf-8") as kept:
            kept.writelines(f"{line}\n" for line in self._engine.logs(container.id))
        self._engine.remove(f"{name}-before")
        self._engine.rename(container.id, f"{name}-before")
        return container.id

    def _put_back(self, container: str) -> None:
        """Undo `_set_aside`; a server that we have stopped for another one runs again."""
        if container:
            self._engine.rename(container, self._name)
        if container and self._has_stopped:
            self._engine.start(container)

    def _make_room(self, name: str) -> None:
        """Remove the container that ended and has a name."""
        container = self._ended(name)
        if container is not None:
            self._engine.remove(container.id)

    def _ended(self, name: str) -> Container | None:
        """Return the container that has a name, which nothing runs in any more.

        Raises:
            RivaQsError: It runs, or is somebody else's.
        """
        container = self._engine.container(name)
        if container is None:
            return None
        if not _ours(container):
            message = f"a container named {name} is there that riva-qs did not make"
            raise RivaQsError(message, f"docker rm -f {name}, or set riva_daemon_speech")
        if container.running and not self._is_leftover(container):
            message = f"the container {name} runs already, for {container.labels.get(_STORE, '?')}"
            raise RivaQsError(message, f"wait for its end, or docker rm -f {name}")
        return container

    def _is_leftover(self, container: Container) -> bool:
        """Say whether a deploy runs on whose riva-qs was killed: whoever asks holds its lock."""
        labels = container.labels
        return labels[_ROLE] == plan.DEPLOY and labels.get(_STORE) == self._store

    def _keep(self, name: str) -> Path:
        """Return the path of a log that outlives its container."""
        self._kept.mkdir(parents=True, exist_ok=True)
        return self._kept / name

    def _port_error(self, error: OutOfResourceError) -> RivaQsError:
        """Return the error for a port that is taken, naming who has it; others stay as they are."""
        port = re.search(r"Bind for \S*?:(\d+) failed|listen tcp4? \S*?:(\d+):", error.message)
        if not port:
            return error
        number = int(port[1] or port[2])
        container = self._engine.publisher(number)
        owner = f"the container {container}" if container else platforms.listener(number)
        return OutOfResourceError(
            f"port {number} is taken by {owner or 'another process'}",
            "stop it, or set riva_speech_api_port (or riva_speech_api_http_port) to a free port",
        )


_STORE, _ROLE = f"{plan.LABEL}.store", f"{plan.LABEL}.role"


def connect(settings: Settings, store: str) -> Docker:
    """Return the backend on the Docker Engine that this user's environment names.

    Args:
        settings: What to run.
        store: The absolute path or the volume that holds the models.
    """
    return Docker(settings, engines.connect(), store)


def _ours(container: Container) -> bool:
    """Say whether riva-qs made a container."""
    return _ROLE in container.labels


def _running(container: Container) -> Running:
    """Return the server that runs in a container, from its labels."""
    labels = {name: container.labels.get(f"{plan.LABEL}.{name}", "") for name in _NOTES}
    return Running(
        pid=container.pid,
        uri=labels["uri"],
        generation=labels["generation"],
        digest=labels["spec"],
        started_at=container.started_at,
        container=container.name,
    )


_NOTES = ("uri", "generation", "spec")


def _ending(container: Container | None, lines: Sequence[str], who: str) -> Exit:
    """Return why a container ended: what the engine says of it, else what its program said."""
    if container is None:
        return Exit(None, f"the container of {who} is gone: somebody removed it")
    if container.oom_killed:
        hint = "raise container_memory, or use a machine with more memory"
        return Exit(OutOfResourceError.code, f"{who} was killed: out of memory", hint)
    if container.error:
        return Exit(None, f"the container {container.name} does not run: {container.error}")
    if container.status == "created":
        hint = f"docker start {container.name} shows what the engine says"
        return Exit(None, f"the container {container.name} was made and never ran", hint)
    code = container.exit_code
    return explain(_SIGNALLED - code if code > _SIGNALLED else code, lines, who)


def _posix(stamp: str) -> float | None:
    """Return the POSIX time of an engine's time, whose fractions have nine digits."""
    with suppress(ValueError, RivaQsError):
        return log.parse_since(re.sub(r"(\.\d{6})\d*", r"\1", stamp))
    return None
