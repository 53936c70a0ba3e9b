"""Where an artefact comes from: one module a source, behind one Protocol.

First `files` says what there is, with sizes and hashes and before any byte of it moves; then `open`
gives any part of a file, so that a transfer can be split, resumed and checked.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable
    from contextlib import AbstractContextManager

    from quickstart.catalog import Artifact
    from quickstart.config import Settings


@dataclass(frozen=True)
class SourceFile:
    """One file of an artefact.

    Attributes:
        name: Its plain file name.
        size: Its length in bytes.
        sha256: Its SHA-256 in lower-case hex.
    """

    name: str
    size: int
    sha256: str


class Body(Protocol):
    """A part of a file on its way."""

    @property
    def start(self) -> int:
        """The offset of the first byte that comes; 0 where the other side gives only all."""
        ...

    def readinto(self, buffer: memoryview) -> int:
        """Fill a buffer, and return with how many bytes: fewer, or none, at the end."""
        ...

    def abort(self) -> None:
        """Make a `readinto` that waits in another thread end."""
        ...


class Source(Protocol):
    """Says which files an artefact has, and gives any part of them."""

    def files(self, artifact: Artifact) -> tuple[SourceFile, ...]:
        """Return the artefact's files; no byte of them is fetched."""
        ...

    def open(
        self, artifact: Artifact, file: SourceFile, start: int, stop: int
    ) -> AbstractContextManager[Body]:
        """Return the bytes [start, stop) of a file, or more of it where it must be so."""
        ...


def source_of(artifact: Artifact, settings: Settings) -> Source:
    """Return the source that an artefact names.

    Raises:
        ArtifactMissingError: It is elsewhere, and `offline` forbids to go there.
        UnsupportedError: This version knows no such source.
    """
    from quickstart.sources.embedded import EmbeddedSource
    from quickstart.sources.local import LocalSource

    if artifact.source == "embedded":
        return EmbeddedSource()
    if artifact.source == "file":
        return LocalSource()
    if artifact.source not in {"http", "ngc"}:
        from quickstart.errors import UnsupportedError

        message = f"{artifact.name} comes from {artifact.source}, which this version does not know"
        raise UnsupportedError(message, "install a newer riva-qs")
    return _remote(artifact, settings)


def _remote(artifact: Artifact, settings: Settings) -> Source:
    """Return the source of an artefact that is not on this machine."""
    from quickstart.errors import ArtifactMissingError
    from quickstart.sources.http import HttpSource
    from quickstart.sources.ngc import NgcSource

    if settings.offline:
        raise ArtifactMissingError(
            f"{artifact.reference} is not on this machine, and offline=true forbids to fetch it",
            "import a bundle that has it, or set offline=false where there is a network",
        )
    return NgcSource.of(settings) if artifact.source == "ngc" else HttpSource()


def notes(artifacts: Iterable[Artifact], settings: Settings) -> tuple[str, ...]:
    """Return what people should know before anything is fetched: which NGC key is used."""
    from quickstart.sources import key

    remote = any(artifact.source == "ngc" for artifact in artifacts)
    return (key.find(settings).note,) if remote and not settings.offline else ()
