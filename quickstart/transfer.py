"""From a source to a verified file: all of it, with the right hash, or nothing.

Bytes go to a `.partial` file and are hashed on the way; the file takes its name, in one atomic
step, only when size and hash are those of the catalogue.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from typing import TYPE_CHECKING

from quickstart.errors import IntegrityError, OutOfResourceError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from quickstart.catalog import Artifact
    from quickstart.sources import Source, SourceFile

PARTIAL = ".partial"
_CHUNK = 1 << 20
_SPARE = 64 << 20


def check_space(folder: Path, needed: int) -> None:
    """Raise OutOfResourceError unless `needed` bytes, and a little more, fit where `folder` is."""
    place = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(place).free
    if free < needed + _SPARE:
        raise OutOfResourceError(
            f"{size_text(needed + _SPARE)} are needed in {folder}, and {size_text(free)} are free",
            "free some space, or set riva_model_loc to a larger disk",
        )


def fetch(
    source: Source,
    artifact: Artifact,
    file: SourceFile,
    target: Path,
    progress: Callable[[int], None],
) -> None:
    """Bring an artefact to `target`, verified; on any failure nothing is left behind.

    Raises:
        IntegrityError: What came is not what the catalogue names.
        OutOfResourceError: The disk has no room for it.
    """
    check_space(target.parent, file.size)
    partial = target.with_name(target.name + PARTIAL)
    try:
        got = _copy(source, artifact, file, partial, progress)
        wanted = (file.size, file.sha256)
        if got != wanted:
            raise IntegrityError(
                f"{file.name} is not the file of the catalogue: {got[0]} bytes with SHA-256"
                f" {got[1][:16]}..., instead of {wanted[0]} with {wanted[1][:16]}...",
                "fetch it again; if it stays so, install riva-qs again",
            )
        partial.replace(target)
        sync_folder(target.parent)
    finally:
        partial.unlink(missing_ok=True)


def _copy(
    source: Source,
    artifact: Artifact,
    file: SourceFile,
    partial: Path,
    progress: Callable[[int], None],
) -> tuple[int, str]:
    """Write an artefact's bytes to disk and return their number and hash."""
    digest, size = hashlib.sha256(), 0
    with source.open(artifact, file, 0, file.size) as stream, partial.open("wb") as sink:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
            size += len(chunk)
            sink.write(chunk)
            progress(len(chunk))
        sink.flush()
        os.fsync(sink.fileno())
    return size, digest.hexdigest()


def sha256(path: Path) -> str:
    """Return the hash of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def sync_folder(folder: Path) -> None:
    """Make what was renamed in a folder survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def size_text(count: int) -> str:
    """Return a number of bytes as people write it."""
    size = float(count)
    for unit in ("B", "kB", "MB"):
        if size < 1000:  # noqa: PLR2004 - the step of decimal units
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"
