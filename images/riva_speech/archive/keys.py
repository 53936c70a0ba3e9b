"""Where an archive's key comes from."""

from __future__ import annotations

import os
from pathlib import Path


def split_key(spec: str) -> tuple[Path, str | None]:
    """Split ``file[:key]``, the official form: the key is what follows the last colon.

    A colon that belongs to an existing file's name is not a separator.
    """
    if ":" not in spec or Path(spec).exists():
        return Path(spec), None
    path, key = spec.rsplit(":", 1)
    return Path(path), key or None


def key_from_environment() -> str | None:
    """Return the key that the suite hands over in ``MODEL_DEPLOY_KEY``, if any."""
    return os.environ.get("MODEL_DEPLOY_KEY") or None
