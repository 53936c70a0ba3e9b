"""Artefacts that the distribution itself brings along."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from quickstart.errors import ArtifactMissingError
from quickstart.sources import SourceFile
from quickstart.sources.local import part_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from quickstart.catalog import Artifact
    from quickstart.sources import Body


def _packaged() -> Path:
    """Return the folder of the artefacts that were installed with this package."""
    return Path(str(files("quickstart"))) / "artifacts"


@dataclass(frozen=True)
class EmbeddedSource:
    """Reads artefacts from a folder of the installed package."""

    folder: Path = field(default_factory=_packaged)

    def files(self, artifact: Artifact) -> tuple[SourceFile, ...]:
        """Return the one file that the catalogue names."""
        return (SourceFile(artifact.file, artifact.size, artifact.sha256),)

    @contextmanager
    def open(self, _artifact: Artifact, file: SourceFile, start: int, stop: int) -> Iterator[Body]:
        """Give the bytes [start, stop) of the file."""
        try:
            with part_of(self.folder / file.name, start, stop) as body:
                yield body
        except FileNotFoundError as error:
            message = f"this installation lacks {file.name} (looked in {self.folder})"
            raise ArtifactMissingError(message, "install riva-qs again") from error
