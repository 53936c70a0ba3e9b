"""The seam of the backend that runs containers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from quickstart.errors import UnsupportedError

if TYPE_CHECKING:
    from quickstart.backends.base import Backend
    from quickstart.config import Settings


def connect(settings: Settings) -> Backend:
    """Return the backend on the Docker engine that the settings name.

    Raises:
        UnsupportedError: Always, in this version.
    """
    raise UnsupportedError(
        f"backend={settings.backend} is not built yet; this version runs the embedded backend",
        "set backend=embedded (or auto): it needs neither Docker nor an account",
    )
