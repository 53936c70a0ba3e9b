"""What an engine tells of itself, of images and of containers, as values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True)
class Facts:
    """What an engine says of itself and of its host."""

    version: str
    runtimes: tuple[str, ...] = ()
    cdi: tuple[str, ...] = ()
    cdi_folders: tuple[str, ...] = ()
    rootless: bool = False


@dataclass(frozen=True)
class Image:
    """An image that the engine has."""

    id: str
    name: str
    platform: str
    size: int
    labels: dict[str, str]
    digests: tuple[str, ...]
    user: str
    created: str


@dataclass(frozen=True)
class Container:
    """What an engine knows of one container; its limit counts bytes, 0 for none."""

    id: str
    name: str
    status: str
    pid: int
    exit_code: int
    oom_killed: bool
    memory_limit: int
    error: str
    started_at: str
    finished_at: str
    image_id: str
    labels: dict[str, str]
    health: str

    @property
    def running(self) -> bool:
        """Whether its program runs."""
        return self.status in {"running", "paused", "restarting"}


def parse_facts(info: Mapping[str, Any]) -> Facts:
    """Return the facts in what `docker info` says."""
    devices = info.get("DiscoveredDevices") or []
    return Facts(
        version=info.get("ServerVersion", ""),
        runtimes=tuple(sorted(info.get("Runtimes") or {})),
        cdi=tuple(d["ID"] for d in devices if d.get("Source") == "cdi"),
        cdi_folders=tuple(info.get("CDISpecDirs") or ()),
        rootless=any("rootless" in option for option in info.get("SecurityOptions") or ()),
    )


def parse_image(data: Mapping[str, Any], name: str) -> Image:
    """Return an image from the engine's answer."""
    config = data.get("Config") or {}
    return Image(
        id=data["Id"],
        name=name,
        platform=f"{data.get('Os', 'linux')}/{data.get('Architecture', '')}",
        size=int(data.get("Size", 0)),
        labels=dict(config.get("Labels") or {}),
        digests=tuple(data.get("RepoDigests") or ()),
        user=config.get("User") or "",
        created=data.get("Created", ""),
    )


def parse_container(data: Mapping[str, Any]) -> Container:
    """Return a container from the engine's answer."""
    state = data["State"]
    return Container(
        id=data["Id"],
        name=data["Name"].lstrip("/"),
        status=state["Status"],
        pid=int(state.get("Pid") or 0),
        exit_code=int(state.get("ExitCode") or 0),
        oom_killed=bool(state.get("OOMKilled")),
        memory_limit=int((data.get("HostConfig") or {}).get("Memory") or 0),
        error=state.get("Error") or "",
        started_at=state.get("StartedAt") or "",
        finished_at=state.get("FinishedAt") or "",
        image_id=data["Image"],
        labels=dict(data["Config"].get("Labels") or {}),
        health=(state.get("Health") or {}).get("Status", ""),
    )


def split_name(image: str) -> tuple[str, str]:
    """Return the repository and the tag (or digest) of an image's name."""
    repository, at, digest = image.partition("@")
    if at:
        return repository, digest
    head, slash, last = image.rpartition("/")
    name, _, tag = last.partition(":")
    return f"{head}{slash}{name}", tag or "latest"
