"""A config.env that was made from a `config.sh` goes to a file, whole or not at all."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from quickstart.errors import UsageError

if TYPE_CHECKING:
    from quickstart.legacy.takeover import Imported


def write(path: Path, imported: Imported, *, replace: bool = False) -> None:
    """Write what was imported; with a secret in it, nobody else may read it.

    Raises:
        UsageError: Something is there already, and `replace` does not say to replace it.
        OSError: It cannot be written; nothing has changed.
    """
    target = path.resolve()
    if target.is_dir() or (target.exists() and not replace):
        hint = "name a file" if target.is_dir() else "choose another name, or add --force"
        raise UsageError(f"{path} is there already", hint)
    descriptor, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            stream.write(f"{imported.text}\n")
            stream.flush()
            os.fsync(stream.fileno())
        Path(name).chmod(0o600 if imported.secret else 0o666 & ~_umask())
        Path(name).replace(target)
    finally:
        Path(name).unlink(missing_ok=True)


def _umask() -> int:
    """Return which permissions new files lack."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
