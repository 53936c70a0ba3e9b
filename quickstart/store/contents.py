"""The files of a model location: described, sealed, compared, shared and received."""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from quickstart.errors import IntegrityError
from quickstart.files import sha256
from quickstart.store.layout import PARTIAL

if TYPE_CHECKING:
    from pathlib import Path
    from typing import BinaryIO

Plain = dict[str, Any]  # a JSON object

_CHUNK = 1 << 20


def described(path: Path, name: str) -> Plain:
    """Return a file with its size and hash."""
    return {"name": name, "size": path.stat().st_size, "sha256": sha256(path)}


def seal(models: Path) -> list[Plain]:
    """Take the right to write from every file, since it may get links; return their hashes."""
    paths = sorted(p for p in models.rglob("*") if p.is_file() and not p.is_symlink())
    for path in paths:
        with suppress(PermissionError):
            path.chmod(path.stat().st_mode & 0o555)
    return [described(path, path.relative_to(models).as_posix()) for path in paths]


def replace_by_link(path: Path, twin: Path) -> None:
    """Make a file a link to its twin, where the file system can."""
    fresh = path.with_name(f"{path.name}{PARTIAL}")
    with suppress(OSError):
        os.link(twin, fresh)
        fresh.replace(path)
    # Where both were one file already, renaming leaves both names.
    fresh.unlink(missing_ok=True)


def wrong(folder: Path, file: Plain) -> str:
    """Return what is wrong with a file; empty for nothing."""
    path = folder / file["name"]
    try:
        if path.stat().st_size != file["size"]:
            return f"{file['name']} has {path.stat().st_size} bytes instead of {file['size']}"
        return "" if sha256(path) == file["sha256"] else f"{file['name']} has other content"
    except FileNotFoundError:
        return f"{file['name']} is gone"


def copy(stream: BinaryIO, size: int, path: Path) -> str:
    """Write `size` bytes of a stream to a file, and return their hash."""
    digest = hashlib.sha256()
    with path.open("wb") as sink:
        while size:
            chunk = stream.read(min(size, _CHUNK))
            if not chunk:
                raise IntegrityError(f"{path.name} was cut on its way", "try again")
            digest.update(chunk)
            sink.write(chunk)
            size -= len(chunk)
        sink.flush()
        os.fsync(sink.fileno())
    return digest.hexdigest()
