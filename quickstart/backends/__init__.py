"""What runs the service; `choose` picks one and says why."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from quickstart.backends.base import Backend
    from quickstart.config import Settings
    from quickstart.store import Store


def choose(settings: Settings, store: Store) -> tuple[Backend, str]:
    """Return the backend that the settings ask for, and the reason for it."""
    if settings.backend == "docker":
        from quickstart.backends import docker

        return docker.connect(settings), "backend=docker asks for it"
    from quickstart.backends.embedded import Embedded

    asked = settings.backend == "embedded"
    why = "backend=embedded asks for it" if asked else "it is the only backend of this version"
    return Embedded(store), why
