"""Artefacts that an `https://` address names."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from quickstart.sources import SourceFile
from quickstart.sources.network import Network

if TYPE_CHECKING:
    from collections.abc import Iterator

    from quickstart.catalog import Artifact
    from quickstart.sources import Body


@dataclass(frozen=True)
class HttpSource:
    """Fetches artefacts from where their address says."""

    network: Network = field(default_factory=Network)

    def files(self, artifact: Artifact) -> tuple[SourceFile, ...]:
        """Return the one file: its size as the server tells, its hash as the address promised."""
        size = self.network.size_of(artifact.reference)
        return (SourceFile(artifact.file, size, artifact.sha256),)

    @contextmanager
    def open(self, artifact: Artifact, file: SourceFile, start: int, stop: int) -> Iterator[Body]:
        """Give the bytes [start, stop) of the file."""
        with self.network.part_of(artifact.reference, file.size, start, stop) as body:
            yield body
