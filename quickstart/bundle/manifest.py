"""What a bundle says of itself, read as something that a stranger may have written."""

from __future__ import annotations

import json
import os
import re
import tarfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from quickstart.errors import IntegrityError, UsageError
from quickstart.store.layout import is_archive, place_of
from quickstart.store.unpack import is_inside
from quickstart.store.values import File, Stamp, parse_files, parse_stamp

if TYPE_CHECKING:
    from collections.abc import Iterator

SCHEMA, KIND = 1, "riva-qs bundle"
MANIFEST, _MOST = "manifest.json", 64 << 20
# A header that makes no sense ends tarfile with whatever its numbers lead to.
_BAD_HEADERS = (tarfile.TarError, ValueError, OverflowError)
_GENERATION = re.compile(r"\d{8}T\d{6}Z-[0-9a-f]{8}")


@dataclass(frozen=True)
class Manifest:
    """What a bundle says of itself, checked to make sense."""

    members: tuple[File, ...]
    known: dict[str, tuple[File, ...]]
    stamp: Stamp | None
    lock: dict[str, Any]
    images: tuple[dict[str, str], ...]

    @property
    def size(self) -> int:
        """How many bytes the members have."""
        return sum(file.size for file in self.members)

    def of(self, *folders: str) -> list[File]:
        """Return the members that lie in some folders."""
        return [file for file in self.members if file.name.partition("/")[0] in folders]


@contextmanager
def opened(source: Path) -> Iterator[tarfile.TarFile]:
    """Give a bundle as a tar, which is never a compressed one."""
    if not source.is_file():
        hint = "name the file that riva-qs bundle export made"
        raise UsageError(f"there is no file {source}", hint)
    with _told(source, *_BAD_HEADERS):
        tar = tarfile.open(source, "r:")  # noqa: SIM115 - closed below
    with tar, _told(source, tarfile.TarError):
        yield tar


def following(source: Path, tar: tarfile.TarFile) -> tarfile.TarInfo | None:
    """Return the next member of a bundle; None at its end."""
    with _told(source, *_BAD_HEADERS):
        return tar.next()
    return None


def is_plain(member: tarfile.TarInfo) -> bool:
    """Say whether a member is a file whose bytes are all in the tar."""
    return member.isreg() and not member.issparse()


@contextmanager
def _told(source: Path, *kinds: type[Exception]) -> Iterator[None]:
    """Refuse a bundle for what tarfile raises."""
    try:
        yield
    except kinds as error:
        raise refused(source, f"it is no bundle, or it is cut: {error}") from error


def refused(source: Path, why: str) -> IntegrityError:
    """Return the error for a bundle that is not taken over."""
    message = f"{source}: {why}; nothing was changed"
    return IntegrityError(message, "copy it once more, or export it again")


def read_manifest(source: Path, tar: tarfile.TarFile) -> Manifest:
    """Return the manifest, which is the first member."""
    first = following(source, tar)
    if first is None or first.name != MANIFEST or not is_plain(first):
        raise UsageError(f"{source} is not a bundle of riva-qs", "riva-qs bundle export makes one")
    if first.size > _MOST:
        raise refused(source, "its manifest is too long")
    stream = tar.extractfile(first)
    try:
        data = json.loads(stream.read() if stream else b"")
        _check_kind(source, data)
        manifest = _parsed(data)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise refused(source, f"its manifest makes no sense: {error!r}") from error
    for problem in (*_problems(manifest), *_problems_of_models(manifest)):
        raise refused(source, problem)
    if manifest.size > source.stat().st_size:
        raise refused(source, "it is shorter than what it says to hold")
    return manifest


def _check_kind(source: Path, data: dict[str, Any]) -> None:
    """Raise an error unless this version can read a manifest."""
    if data.get("kind") != KIND:
        raise UsageError(f"{source} is not a bundle of riva-qs", "riva-qs bundle export makes one")
    if data.get("schema_version") != SCHEMA:
        version = data.get("schema_version")
        message = f"{source} has schema_version {version!r}, and this riva-qs reads {SCHEMA}"
        raise UsageError(message, f"use riva-qs {data.get('riva_qs')} or newer")


def _parsed(data: dict[str, Any]) -> Manifest:
    """Return a manifest from its JSON."""
    known = {str(key): parse_files(rows) for key, rows in data.get("known", {}).items()}
    stamp = parse_stamp(data["stamp"]) if data.get("stamp") else None
    fields = ("member", "name", "id")
    images = tuple({name: str(row[name]) for name in fields} for row in data.get("images", ()))
    return Manifest(parse_files(data["members"]), known, stamp, dict(data.get("lock", {})), images)


def _problems(manifest: Manifest) -> Iterator[str]:
    """Yield what must not be in a manifest."""
    names = [file.name for file in manifest.members]
    if len(set(names)) < len(names):
        yield "it has a file twice"
    yield from (f"{f.name!r} has no place here" for f in manifest.members if not _has_place(f))
    numbers = (type(f.size) is int and f.size >= 0 for f in manifest.members)
    hashes = (re.fullmatch("[0-9a-f]{64}", str(f.sha256)) for f in manifest.members)
    if not (all(numbers) and all(hashes)):
        yield "its sizes or hashes are none"
    if {row["member"] for row in manifest.images} != {f.name for f in manifest.of("images")}:
        yield "its images are not those that it names"


def _problems_of_models(manifest: Manifest) -> Iterator[str]:
    """Yield what must not be in a manifest's stamp."""
    stamp = manifest.stamp
    if stamp is None and manifest.of("models"):
        yield "it has models and no stamp"
    if stamp is not None:
        if not _GENERATION.fullmatch(str(stamp.generation)):
            yield f"{stamp.generation!r} is no generation"
        if not all(_has_place(File(f"models/{f.name}", 0, "")) for f in stamp.files):
            yield "its models lead elsewhere"
        stamped = {(f.size, f.sha256) for f in stamp.files}
        if stamped != {(f.size, f.sha256) for f in manifest.of("models")}:
            yield "its models are not those of its stamp"


def _has_place(file: File) -> bool:
    """Say whether a member's name is one that a bundle may have."""
    path = PurePosixPath(file.name)
    if (
        not is_inside(file.name)
        or not _can_be_written(file.name)
        or str(path) != file.name
        or any(part.startswith(".") for part in path.parts)
    ):
        return False
    if path.parts[0] in {"rmir", "prebuilt"}:
        return is_archive(path.name) and place_of(path.name) == file.name
    return path.parts[0] in {"models", "images"} and len(path.parts) > 1


def _can_be_written(name: str) -> bool:
    """Say whether a file can have a name: JSON knows halves of characters, which no file has."""
    try:
        os.fsencode(name)
    except UnicodeEncodeError:
        return False
    return True
