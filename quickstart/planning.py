"""What `init` is about to do: every artefact with its files, and whether all of it fits."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from quickstart import catalog, fit
from quickstart.errors import ArtifactMissingError, RivaQsError, UsageError
from quickstart.lock_file import artifact_key, as_source_files, check_lock, locked_files, unlike
from quickstart.sources import SourceFile, source_of
from quickstart.store import File, place_of
from quickstart.store.layout import is_archive
from quickstart.store.values import parse_files

if TYPE_CHECKING:
    from collections.abc import Sequence

    from quickstart.catalog import Artifact
    from quickstart.lifecycle import Suite
    from quickstart.store import Stamp, Store


@dataclass(frozen=True)
class Part:
    """One file of an artefact that is wanted, and whether it is there."""

    artifact: Artifact
    file: SourceFile
    there: bool

    @property
    def name(self) -> str:
        """The name of the file in the location."""
        return PurePosixPath(self.file.name).name

    def as_file(self) -> File:
        """Return the archive that this becomes."""
        return File(self.name, self.file.size, self.file.sha256)


@dataclass(frozen=True)
class Plan:
    """What `init` is about to do.

    Attributes:
        parts: The files of the artefacts.
        archives: All archives that will be deployed.
        reused: The generation that has them deployed already.
        needs: What that takes.
        pulls: What the backend fetches first.
    """

    parts: tuple[Part, ...]
    archives: tuple[File, ...]
    reused: Stamp | None
    needs: tuple[fit.Need, ...]
    pulls: tuple[str, ...] = ()

    @property
    def fresh(self) -> tuple[Part, ...]:
        """The files that must be fetched."""
        return tuple(part for part in self.parts if not part.there)

    @property
    def download(self) -> int:
        """How many bytes must be fetched."""
        return sum(part.file.size for part in self.fresh)


def plan(suite: Suite, pulls: tuple[str, ...], lock: dict[str, Any] | None, *, anew: bool) -> Plan:
    """Ask every source for its files, and compare them with what is there; nothing is fetched."""
    here = suite.store
    artifacts = catalog.wanted(suite.settings)
    engine = {} if pulls else suite.backend.engine()
    there = {archive.name: archive for archive in here.archives()}
    if lock is not None:
        check_lock(lock, artifacts, engine)
    parts = tuple(p for artifact in artifacts for p in _parts(suite, artifact, there, lock))
    _check_names(here, parts, there)
    named = {**there, **{part.name: part.as_file() for part in parts}}
    archives = tuple(sorted(named.values(), key=lambda a: place_of(a.name)))
    if not archives:
        raise _no_archives(here)
    if lock is not None and archives != parse_files(lock["archives"]):
        raise unlike("archives", names(parse_files(lock["archives"])), names(archives))
    fresh = [part for part in parts if not part.there]
    reused = None if fresh or anew or pulls else _reusable(here, archives, engine)
    services = [artifact.service for artifact in artifacts]
    size = sum(part.file.size for part in fresh)
    needs = (
        *fit.disk(here, size, archives, deploys=reused is None, pulls=bool(pulls)),
        fit.memory(suite.settings, services, archives),
    )
    return Plan(parts, archives, reused, needs, pulls)


def _parts(
    suite: Suite, artifact: Artifact, there: dict[str, File], lock: dict[str, Any] | None
) -> list[Part]:
    """Return the files of an artefact, from the lock file, our notes or its source."""
    files = locked_files(lock, artifact) if lock is not None else _noted(suite, artifact, there)
    if not files:
        offered = source_of(artifact, suite.settings).files(artifact)
        files = tuple(file for file in offered if is_archive(file.name))
    if not files:
        message = f"{artifact.reference} holds no .rmir and no .tar.gz"
        raise ArtifactMissingError(message, "look at what it holds where it comes from")
    parts = [Part(artifact, file, there=False) for file in files]
    return [Part(artifact, p.file, there.get(p.name) == p.as_file()) for p in parts]


def _noted(suite: Suite, artifact: Artifact, there: dict[str, File]) -> tuple[SourceFile, ...]:
    """Return the files of a remote artefact whose source need not be asked: all are there."""
    if artifact.source in {"embedded", "file"}:
        return ()
    known = suite.store.known_files(artifact_key(artifact))
    whole = all(there.get(PurePosixPath(f.name).name) == _plainly(f) for f in known)
    return as_source_files(known) if whole else ()


def _plainly(file: File) -> File:
    """Return a file under the name that it has in the location."""
    return File(PurePosixPath(file.name).name, file.size, file.sha256)


def _check_names(here: Store, parts: Sequence[Part], there: dict[str, File]) -> None:
    """Raise an error when a file would replace a user's own, or another artefact's."""
    ours, seen = {PurePosixPath(path).name for path in here.fetched()}, dict[str, Part]()
    for part in parts:
        other = seen.setdefault(part.name, part)
        if other.as_file() != part.as_file():
            both = f"{other.artifact.reference} and {part.artifact.reference}"
            raise UsageError(f"{both} hold different files {part.name}", "ask for one of them")
        if part.name in there and not part.there and part.name not in ours:
            path = here.root / place_of(part.name)
            message = f"{path} is neither the file of the catalogue nor one that riva-qs fetched"
            raise RivaQsError(message, "move it away, or set use_existing_rmirs=true to deploy it")


def _no_archives(here: Store) -> ArtifactMissingError:
    """Return the error for an empty rmir/."""
    message = f"there is no archive to deploy: {here.rmir} holds no *.rmir"
    return ArtifactMissingError(message, "put yours there, or set use_existing_rmirs=false")


def _reusable(here: Store, archives: tuple[File, ...], engine: dict[str, str]) -> Stamp | None:
    """Return the current generation's stamp when a deploy would make the same again."""
    try:
        stamp = here.current()
    except ArtifactMissingError:
        return None
    same = stamp is not None and (stamp.rmirs, stamp.engine) == (archives, engine)
    return stamp if same else None


def artifact_rows(parts: Sequence[Part]) -> list[dict[str, Any]]:
    """Return every artefact with its files, as JSON data."""
    rows: dict[str, dict[str, Any]] = {}
    for part in parts:
        names = ("service", "language", "model", "name", "version", "source", "reference")
        row = {name: getattr(part.artifact, name) for name in names}
        mine = rows.setdefault(artifact_key(part.artifact), {**row, "files": []})
        mine["files"].append({**asdict(part.file), "there": part.there})
    return list(rows.values())


def names(archives: Sequence[File]) -> list[str]:
    """Return the names of archives."""
    return [archive.name for archive in archives]
