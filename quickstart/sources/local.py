"""Artefacts that a `file://` address names."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from quickstart.errors import ArtifactMissingError
from quickstart.sources import SourceFile

if TYPE_CHECKING:
    from collections.abc import Iterator
    from io import BufferedReader

    from quickstart.catalog import Artifact
    from quickstart.sources import Body


@dataclass(frozen=True)
class FileBody:
    """A part of a file of this machine."""

    stream: BufferedReader
    start: int
    stop: int

    def readinto(self, buffer: memoryview) -> int:
        """Fill a buffer, and return with how many bytes: fewer, or none, at the end."""
        return self.stream.readinto(buffer[: self.stop - self.stream.tell()])

    def abort(self) -> None:
        """Do nothing: a disk does not keep its reader waiting."""


@contextmanager
def part_of(path: Path, start: int, stop: int) -> Iterator[Body]:
    """Give the bytes [start, stop) of a file of this machine."""
    with path.open("rb") as stream:
        stream.seek(start)
        yield FileBody(stream, start, stop)


@dataclass(frozen=True)
class LocalSource:
    """Reads artefacts from where their `file://` address says."""

    hint: str = field(default="check the address in the configuration")

    def files(self, artifact: Artifact) -> tuple[SourceFile, ...]:
        """Return the one file, with the hash that the address promised."""
        path = _path(artifact)
        if not path.is_file():
            raise ArtifactMissingError(f"there is no file {path}", self.hint)
        return (SourceFile(artifact.file, path.stat().st_size, artifact.sha256),)

    @contextmanager
    def open(self, artifact: Artifact, _file: SourceFile, start: int, stop: int) -> Iterator[Body]:
        """Give the bytes [start, stop) of the file."""
        with part_of(_path(artifact), start, stop) as body:
            yield body


def _path(artifact: Artifact) -> Path:
    """Return where the artefact is."""
    return Path(unquote(urlsplit(artifact.reference).path))
