"""What makes one container different from another, as a value, and how it is written down.

Nothing here talks to an engine: `engine.py` turns a spec into a container.
"""

from __future__ import annotations

import hashlib
import json
import shlex
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

SECRETS_FOLDER = "/run/secrets/riva-qs"
# Each file in the folder becomes a variable of the program, and of nothing that can be inspected.
_WITH_SECRETS = (
    f'for file in {SECRETS_FOLDER}/*; do export "${{file##*/}}=$(cat "$file")"; done; exec "$@"'
)


@dataclass(frozen=True)
class Mount:
    """A folder, file or named volume of the host, and where the container sees it."""

    source: str
    target: str
    read_only: bool = False

    @property
    def is_volume(self) -> bool:
        """Whether the source is the name of a volume."""
        return not self.source.startswith("/")

    def __str__(self) -> str:
        """Return the mount as `docker run -v` takes it."""
        return f"{self.source}:{self.target}{':ro' if self.read_only else ''}"


@dataclass(frozen=True)
class Port:
    """A port of the container, and the address of the host that leads to it; 0 is any port."""

    container: int
    published: int
    host: str = "127.0.0.1"

    def __str__(self) -> str:
        """Return the port as `docker run -p` takes it."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.published or ''}:{self.container}"


@dataclass(frozen=True)
class Gpu:
    """How a container is given GPUs.

    Attributes:
        way: "none", "gpus" (device requests), "runtime" (nvidia's) or "cdi".
        devices: Which, as `docker --gpus` takes it: all, 1, device=0,1.
    """

    way: str = "none"
    devices: str = ""

    @property
    def names(self) -> tuple[str, ...]:
        """The numbers or UUIDs that are named one by one; empty for all or for a count."""
        return tuple(self.devices.removeprefix("device=").split(",")) if "=" in self.devices else ()

    @property
    def cdi(self) -> tuple[str, ...]:
        """The same as names of CDI devices."""
        return tuple(f"nvidia.com/gpu={name}" for name in self.names or ("all",))


NO_GPU = Gpu()


@dataclass(frozen=True)
class ContainerSpec:
    """Everything that an engine is told when it makes a container.

    `secrets` are names of variables whose values are handed over as files: a value is never part
    of a spec. `user` is empty for the image's own; `memory` counts bytes, 0 for no limit.
    """

    name: str
    image: str
    command: tuple[str, ...]
    environment: tuple[tuple[str, str], ...] = ()
    secrets: tuple[str, ...] = ()
    mounts: tuple[Mount, ...] = ()
    ports: tuple[Port, ...] = ()
    gpu: Gpu = NO_GPU
    devices: tuple[str, ...] = ()
    ulimits: tuple[tuple[str, int], ...] = ()
    tmpfs: tuple[str, ...] = ()
    labels: tuple[tuple[str, str], ...] = ()
    ipc: str = ""
    user: str = ""
    memory: int = 0
    init: bool = False
    read_only: bool = False
    unprivileged: bool = False
    healthcheck: bool = True

    @property
    def full_command(self) -> tuple[str, ...]:
        """The command, with what reads the secrets before it where there are any."""
        wrapper = ("/bin/sh", "-c", _WITH_SECRETS, "riva-qs") if self.secrets else ()
        return (*wrapper, *self.command)

    @property
    def full_environment(self) -> dict[str, str]:
        """The environment, with what NVIDIA's runtime looks for where it is used."""
        visible = ",".join(self.gpu.names) or "all"
        nvidia = {"NVIDIA_VISIBLE_DEVICES": visible} if self.gpu.way == "runtime" else {}
        return {**dict(self.environment), **nvidia}

    def digest(self, image_id: str, secrets: Mapping[str, str]) -> str:
        """Return a short hash of the whole spec: containers with the same one are the same."""
        text = json.dumps([asdict(self), image_id, dict(secrets)], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def run_line(spec: ContainerSpec) -> str:
    """Return the spec as a `docker run` line; a secret shows as its name only."""
    return shlex.join(["docker", "run", "--detach", *_options(spec), spec.image, *spec.command])


def _options(spec: ContainerSpec) -> Iterator[str]:
    """Yield the options of a `docker run` line."""
    yield f"--name={spec.name}"
    yield from _switches(spec)
    yield from _gpu_options(spec.gpu)
    for port in spec.ports:
        yield from ("-p", str(port))
    for name, value in spec.full_environment.items():
        yield from ("-e", f"{name}={value}")
    for name in spec.secrets:
        yield from ("-e", name)
    for mount in spec.mounts:
        yield from ("-v", str(mount))
    yield from (f"--device={device}" for device in spec.devices)
    yield from (f"--ulimit={name}={limit}" for name, limit in spec.ulimits)
    yield from (f"--tmpfs={path}" for path in spec.tmpfs)
    yield from (f"--label={name}={value}" for name, value in spec.labels)


def _switches(spec: ContainerSpec) -> Iterator[str]:
    """Yield the options that say how a container runs."""
    if spec.init:
        yield "--init"
    if spec.ipc:
        yield f"--ipc={spec.ipc}"
    if spec.user:
        yield f"--user={spec.user}"
    if spec.memory:
        yield f"--memory={spec.memory}"
    if spec.read_only:
        yield "--read-only"
    if not spec.healthcheck:
        yield "--no-healthcheck"
    if spec.unprivileged:
        yield from ("--cap-drop=ALL", "--security-opt=no-new-privileges")


def _gpu_options(gpu: Gpu) -> Iterator[str]:
    """Yield the options that give a container GPUs."""
    if gpu.way == "gpus":
        # Docker reads the value as CSV, so a list of devices is one quoted field.
        yield f'--gpus="{gpu.devices}"' if "," in gpu.devices else f"--gpus={gpu.devices}"
    elif gpu.way == "runtime":
        yield "--runtime=nvidia"
    elif gpu.way == "cdi":
        yield from (f"--device={name}" for name in gpu.cdi)
