"""Unpacks archives that nobody vouches for.

Only the standard library is used, since this also runs inside a container.
"""

from __future__ import annotations

import gzip
import shutil
import tarfile
import zlib
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from quickstart.errors import IntegrityError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# Model weights hardly shrink; what grows this much is made to fill a disk.
_MOST_GROWTH = 100
_ALWAYS_FINE = 1 << 30
_CHUNK = 1 << 20
# A header's own fields come in one piece; a few hundred bytes are usual.
_LARGEST_PIECE = 4 << 20
_DOUBLE = (FileExistsError, NotADirectoryError, IsADirectoryError)
_BROKEN = (tarfile.TarError, gzip.BadGzipFile, EOFError, zlib.error, ValueError, *_DOUBLE)


def unpack(archive: Path, target: Path) -> list[str]:
    """Unpack a tar of model directories; return the names of the directories.

    Raises:
        IntegrityError: It is damaged, or has what an archive of models never has: links, devices,
            paths that lead out of it, a file twice or beside the directories, endless zeros.
    """
    made: dict[str, None] = {}
    try:
        with _Pieces(archive) as stream, tarfile.open(fileobj=stream, mode="r:") as tar:
            for member in _checked(archive, tar):
                path = PurePosixPath(member.name)
                made[path.parts[0]] = None
                _extract(tar, member, target / path)
        _read_to_end(archive)
    except _BROKEN as error:
        raise _refused(archive, f"it is damaged: {error}") from error
    if not made:
        raise _refused(archive, "it holds no model")
    return list(made)


class _Pieces(gzip.GzipFile):
    """Gives only small pieces: tarfile takes a header's fields into memory, however long."""

    def read(self, size: int | None = -1) -> bytes:
        """Return at most `size` bytes."""
        if size is None or not 0 <= size <= _LARGEST_PIECE:
            raise ValueError("a header is too long")
        return super().read(size)


def _checked(archive: Path, tar: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """Yield the files of a tar, each one checked."""
    most, total = _ALWAYS_FINE + _MOST_GROWTH * archive.stat().st_size, 0
    for member in tar:
        if member.isdir() and is_inside(member.name or "."):
            continue
        total += member.size
        if not member.isreg():
            raise _refused(archive, f"{member.name!r} is a link or a device")
        if not is_inside(member.name) or not PurePosixPath(member.name).parent.name:
            raise _refused(archive, f"{member.name!r} does not lie in a model's directory")
        if total > most:
            raise _refused(archive, f"it unpacks to more than {_MOST_GROWTH} times its size")
        yield member


def is_inside(name: str) -> bool:
    """Say whether a path of an archive stays where the archive is unpacked."""
    path = PurePosixPath(name)
    return not path.is_absolute() and ".." not in path.parts and "\0" not in name


def _extract(tar: tarfile.TarFile, member: tarfile.TarInfo, path: Path) -> None:
    """Write one file, which must not be there yet."""
    path.parent.mkdir(parents=True, exist_ok=True)
    stream = tar.extractfile(member)
    with path.open("xb") as sink:
        if stream is not None:
            shutil.copyfileobj(stream, sink, _CHUNK)
    if path.stat().st_size != member.size:
        raise EOFError(f"{member.name} is cut")


def _read_to_end(archive: Path) -> None:
    """Read what tar leaves unread: the end, where gzip has its checksum."""
    with gzip.open(archive) as stream:
        while stream.read(_CHUNK):
            pass


def _refused(archive: Path, why: str) -> IntegrityError:
    """Return the error for an archive that is not unpacked."""
    message = f"{archive.name} is not unpacked: {why}"
    return IntegrityError(message, "fetch it again, or ask whoever made it")
