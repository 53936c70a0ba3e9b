"""What runs the service; `choose` picks one and says why."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from quickstart.backends.base import Backend
    from quickstart.config import Settings
    from quickstart.store import Store

_ENGINE = ("riva_speech", "onnxruntime")


def wanted(settings: Settings) -> tuple[str, str]:
    """Return the name of the backend that the settings ask for, and the reason for it."""
    if settings.backend != "auto":
        return settings.backend, f"backend={settings.backend} asks for it"
    if settings.image == "riva":
        return "docker", "image=riva runs in containers only"
    if all(map(find_spec, _ENGINE)):
        return "embedded", "the engine is installed here, and needs no Docker"
    if os.environ.get("DOCKER_HOST") or Path("/var/run/docker.sock").exists():
        return "docker", "the engine is not installed here, and there is a Docker Engine"
    return "embedded", "there is no Docker Engine here"


def choose(settings: Settings, store: Store) -> tuple[Backend, str]:
    """Return the backend that the settings ask for, and the reason for it."""
    name, why = wanted(settings)
    if name == "docker":
        from quickstart.backends import docker

        return docker.connect(settings, store.name), why
    from quickstart.backends.embedded import Embedded

    return Embedded(store, silence=settings.deploy_silence_sec), why
