"""Artefacts that the distribution itself brings along."""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from quickstart.errors import ArtifactMissingError

if TYPE_CHECKING:
    from typing import BinaryIO

    from quickstart.catalog import Artifact


def _packaged() -> Path:
    """Return the folder of the artefacts that were installed with this package."""
    return Path(str(files("quickstart"))) / "artifacts"


@dataclass(frozen=True)
class EmbeddedSource:
    """Reads artefacts from a folder of the installed package."""

    folder: Path = field(default_factory=_packaged)

    def open(self, artifact: Artifact, offset: int = 0) -> BinaryIO:
        """Return the artefact's bytes from `offset` on."""
        try:
            stream = (self.folder / artifact.file).open("rb")
        except FileNotFoundError as error:
            message = f"this installation lacks {artifact.file} (looked in {self.folder})"
            raise ArtifactMissingError(message, "install riva-qs again") from error
        stream.seek(offset)
        return stream
