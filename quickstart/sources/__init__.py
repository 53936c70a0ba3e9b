"""Where an artefact comes from: one module a source, behind one Protocol."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from quickstart.errors import UnsupportedError

if TYPE_CHECKING:
    from typing import BinaryIO

    from quickstart.catalog import Artifact


class Source(Protocol):
    """Gives the bytes of an artefact, from any offset so that a transfer can resume."""

    def open(self, artifact: Artifact, offset: int = 0) -> BinaryIO:
        """Return the artefact's bytes from `offset` on, to be closed by the caller."""
        ...


def source_of(artifact: Artifact) -> Source:
    """Return the source that an artefact names."""
    from quickstart.sources.embedded import EmbeddedSource

    if artifact.source == "embedded":
        return EmbeddedSource()
    raise UnsupportedError(f"{artifact.name} comes from {artifact.source}, which is not built yet")
