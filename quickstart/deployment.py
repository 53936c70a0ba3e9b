"""init: metadata of all that is wanted, fit, fetch, deploy beside what is served, swap."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from quickstart import __version__, catalog, fit, log, transfer
from quickstart.backends.judge import judge
from quickstart.errors import (
    ArtifactMissingError,
    IntegrityError,
    OutOfResourceError,
    RivaQsError,
    UsageError,
)
from quickstart.lifecycle import Result, outdated
from quickstart.sources import SourceFile, notes, source_of
from quickstart.store import File, is_prebuilt, place_of
from quickstart.store.values import is_archive, parse_files

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from quickstart.backends.base import Model
    from quickstart.catalog import Artifact
    from quickstart.lifecycle import Suite
    from quickstart.sources import Source
    from quickstart.store import Stamp, Store

    Report = Callable[[str], None]

LOCK_SCHEMA = 1


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


def init(
    suite: Suite,
    *,
    dry_run: bool = False,
    lock: dict[str, Any] | None = None,
    anew: bool = False,
) -> Result:
    """Fetch what the settings need, deploy it beside what is served, and swap in one step.

    Args:
        suite: What to work on.
        dry_run: Say what would be done, and do nothing.
        lock: A lock file to reproduce.
        anew: Deploy even when the generation that is served has all of it.
    """
    suite.store.check_ours()
    pulls = suite.backend.prepare(suite.console, dry_run=True)
    if pulls and suite.store.is_volume and not dry_run:
        # Whatever looks into the volume runs in that image.
        suite.backend.prepare(suite.console, dry_run=False)
        pulls = ()
    if dry_run:
        return _told(suite, plan(suite, pulls, lock, anew=anew))
    suite.console.note(f"backend: {suite.backend.name} ({suite.why}); models: {suite.store}")
    for line in notes(catalog.wanted(suite.settings), suite.settings):
        suite.console.note(line)
    if not pulls:
        suite.backend.engine()
    with suite.store.locked("init"):
        _sweep(suite, drafts_only=True)
        todo = plan(suite, pulls, lock, anew=anew)
        fit.check(todo.needs)
        suite.backend.prepare(suite.console, dry_run=False)
        steps = [_fetch(suite, part) for part in todo.parts]
        deployed = todo.reused or _deploy(suite, todo, lock)
        _sweep(suite)
    return _done(suite, todo, deployed, steps)


def plan(suite: Suite, pulls: tuple[str, ...], lock: dict[str, Any] | None, *, anew: bool) -> Plan:
    """Ask every source for its files, and compare them with what is there; nothing is fetched."""
    here = suite.store
    artifacts = catalog.wanted(suite.settings)
    engine = {} if pulls else suite.backend.engine()
    there = {archive.name: archive for archive in here.archives()}
    if lock is not None:
        _check_lock(lock, artifacts, engine)
    parts = tuple(p for artifact in artifacts for p in _parts(suite, artifact, there, lock))
    _check_names(here, parts, there)
    named = {**there, **{part.name: part.as_file() for part in parts}}
    archives = tuple(sorted(named.values(), key=lambda a: place_of(a.name)))
    if not archives:
        raise _no_archives(here)
    if lock is not None and archives != parse_files(lock["archives"]):
        raise _unlike("archives", _names(parse_files(lock["archives"])), _names(archives))
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
    files = _locked_files(lock, artifact) if lock is not None else _noted(suite, artifact, there)
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
    known = suite.store.known_files(_key(artifact))
    whole = all(there.get(PurePosixPath(f.name).name) == _plainly(f) for f in known)
    return _as_source_files(known) if whole else ()


def _key(artifact: Artifact) -> str:
    """Return what an artefact's files are noted under."""
    return f"{artifact.reference}#{artifact.version}"


def _plainly(file: File) -> File:
    """Return a file under the name that it has in the location."""
    return File(PurePosixPath(file.name).name, file.size, file.sha256)


def _as_source_files(files: Sequence[File]) -> tuple[SourceFile, ...]:
    """Return noted files as a source gives them."""
    return tuple(SourceFile(f.name, f.size, f.sha256) for f in files)


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


def _told(suite: Suite, todo: Plan) -> Result:
    """Say what `init` would do, and whether it fits."""
    here = suite.store
    steps = [*todo.pulls]
    steps += [
        f"fetch {part.name} ({transfer.size_text(part.file.size)})"
        f" into {here.root / PurePosixPath(place_of(part.name)).parent}"
        for part in todo.fresh
    ]
    if not todo.reused:
        steps += [f"deploy {', '.join(_names(todo.archives))}"]
        steps += [f"let {here.models} show the new generation"]
    fits = all(need.fits for need in todo.needs)
    needs = [f"needs {need}" for need in todo.needs] if steps else []
    lines = [f"would {step}" for step in steps] or ["nothing to do: all is deployed"]
    facts = {"dry_run": True, "steps": steps, "fits": fits, "download": todo.download}
    rows = {
        "artifacts": _artifact_rows(todo.parts),
        "archives": [asdict(archive) for archive in todo.archives],
        "needs": [need.as_data() for need in todo.needs],
    }
    code = 0 if fits else OutOfResourceError.code
    return Result((*lines, *needs), suite.facts("init", **facts, **rows), code=code)


def _artifact_rows(parts: Sequence[Part]) -> list[dict[str, Any]]:
    """Return every artefact with its files, as JSON data."""
    rows: dict[str, dict[str, Any]] = {}
    for part in parts:
        names = ("service", "language", "model", "name", "version", "source", "reference")
        row = {name: getattr(part.artifact, name) for name in names}
        mine = rows.setdefault(_key(part.artifact), {**row, "files": []})
        mine["files"].append({**asdict(part.file), "there": part.there})
    return list(rows.values())


def _names(archives: Sequence[File]) -> list[str]:
    """Return the names of archives."""
    return [archive.name for archive in archives]


def _fetch(suite: Suite, part: Part) -> str:
    """Bring a file to its place unless it is there; return what was done."""
    here, name, digest = suite.store, part.name, part.file.sha256
    if part.there:
        return f"{name}: there already, reused"
    target = here.place.landing(place_of(name), digest)
    here.remember_fetched(name, digest)
    with suite.console.bytes_progress(f"fetching {name}", part.file.size) as progress:
        source: Source = source_of(part.artifact, suite.settings)
        transfer.fetch(source, part.artifact, part.file, target, progress)
    here.place.bring(target, place_of(name), part.file.size, digest)
    return f"{name}: fetched, {transfer.size_text(part.file.size)}, SHA-256 verified"


def _deploy(suite: Suite, todo: Plan, lock: dict[str, Any] | None) -> Stamp:
    """Deploy all archives into a new generation and publish it."""
    here, engine = suite.store, suite.backend.engine()
    if lock is not None and lock["engine"] != engine:
        raise _unlike("engine", lock["engine"], engine)
    for key, files in _files_by_key(todo.parts).items():
        here.remember_files(key, files)
    title = f"deploying {', '.join(_names(todo.archives))}"
    with here.draft() as draft, suite.console.activity(title) as report:
        models = _models(suite, todo.archives, draft, engine, lambda x: report(log.message(x)))
        return here.publish(draft, todo.archives, engine, models, lock_of(suite, todo, engine))


def _models(
    suite: Suite, archives: Sequence[File], draft: str, engine: dict[str, str], report: Report
) -> tuple[Model, ...]:
    """Deploy archives into a draft, and unpack those that are deployed already."""
    rmirs = [place_of(a.name) for a in archives if not is_prebuilt(a.name)]
    models: tuple[Model, ...] = ()
    if rmirs:
        models = suite.backend.deploy(rmirs, draft, suite.settings.model_deploy_key, report).models
    for archive in (a for a in archives if is_prebuilt(a.name)):
        report(f"unpacking {archive.name}")
        listing = suite.store.listing(draft, suite.store.unpack(archive, draft))
        models += judge(listing, (), [archive.name], engine).models
    return models


def _files_by_key(parts: Sequence[Part]) -> dict[str, list[File]]:
    """Return the files of each artefact."""
    found: dict[str, list[File]] = {}
    for part in parts:
        file = File(part.file.name, part.file.size, part.file.sha256)
        found.setdefault(_key(part.artifact), []).append(file)
    return found


def _sweep(suite: Suite, *, drafts_only: bool = False) -> None:
    """Remove what killed runs left behind; what a transfer can resume stays until it is done."""
    running = suite.backend.state()
    keep, in_use = suite.settings.keep_generations, running.generation if running else ""
    found = suite.store.leftovers(keep=keep, in_use=in_use)
    drafts = [name for name in found if not name.startswith(("rmir/", "prebuilt/"))]
    suite.store.remove(drafts if drafts_only else found)


def _done(suite: Suite, todo: Plan, deployed: Stamp, steps: list[str]) -> Result:
    """Say what `init` has done."""
    models = ", ".join(model.name for model in deployed.models)
    verdict = "unchanged, reused" if todo.reused else "deployed"
    lines = (*steps, f"models: {models} ({verdict}, generation {deployed.generation})")
    facts = {
        "reused": bool(todo.reused),
        "generation": deployed.generation,
        "steps": steps,
        "models": [asdict(model) for model in deployed.models],
        "artifacts": _artifact_rows(todo.parts),
    }
    next_step = "next: riva-qs start"
    return Result((*lines, *outdated(suite, deployed)), suite.facts("init", **facts), next_step)


# The lock file


def lock_of(suite: Suite, todo: Plan, engine: dict[str, str]) -> dict[str, Any]:
    """Return all that decides what a deploy makes."""
    artifacts = _artifact_rows(todo.parts)
    for row in artifacts:
        row["files"] = [{k: v for k, v in file.items() if k != "there"} for file in row["files"]]
    return {
        "schema_version": LOCK_SCHEMA,
        "riva_qs": __version__,
        "backend": suite.backend.name,
        "engine": engine,
        "artifacts": artifacts,
        "archives": [asdict(archive) for archive in todo.archives],
    }


def check_lock_file(lock: dict[str, Any], where: str) -> dict[str, Any]:
    """Return a lock file, checked to be one.

    Raises:
        ArtifactMissingError: There is none.
        IntegrityError: It is damaged, or made by a newer riva-qs.
    """
    if not lock:
        raise ArtifactMissingError(f"there is no lock file in {where}", "riva-qs init makes one")
    if lock.get("schema_version") != LOCK_SCHEMA:
        version = lock.get("schema_version")
        message = f"the lock file in {where} has schema_version {version!r}, not {LOCK_SCHEMA}"
        raise IntegrityError(message, "a newer riva-qs may know it")
    try:
        parse_files(lock["archives"])
        [parse_files(row["files"]) for row in lock["artifacts"]]
        [(row["reference"], row["version"]) for row in lock["artifacts"]]
        dict(lock["engine"])
    except (KeyError, TypeError, ValueError) as error:
        message = f"the lock file in {where} is damaged: {error!r}"
        raise IntegrityError(message, "make it anew: riva-qs init") from error
    return lock


def _check_lock(
    lock: dict[str, Any], artifacts: Sequence[Artifact], engine: dict[str, str]
) -> None:
    """Raise an error when the settings or this installation are not those of a lock file."""
    locked = sorted(f"{row['reference']}#{row['version']}" for row in lock["artifacts"])
    wanted = sorted(map(_key, artifacts))
    if locked != wanted:
        raise _unlike("artefacts", locked, wanted)
    if engine and lock["engine"] != engine:
        raise _unlike("engine", lock["engine"], engine)


def _locked_files(lock: dict[str, Any], artifact: Artifact) -> tuple[SourceFile, ...]:
    """Return the files that a lock file names for an artefact."""
    rows = {f"{row['reference']}#{row['version']}": row["files"] for row in lock["artifacts"]}
    return _as_source_files(parse_files(rows[_key(artifact)]))


def _unlike(what: str, locked: object, found: object) -> IntegrityError:
    """Return the error for what is not as the lock file says."""
    message = f"the lock file cannot be reproduced: its {what} are {locked}, and here {found}"
    return IntegrityError(message, "use the same settings and versions, or init without --locked")


def read_lock(suite: Suite, file: Path | None) -> dict[str, Any]:
    """Return the lock file of a path, or of the location."""
    if file is None:
        return check_lock_file(suite.store.lock_file(), str(suite.store))
    try:
        data = json.loads(file.read_text("utf-8"))
    except ValueError as error:
        raise IntegrityError(
            f"{file} is no lock file: {error}", "riva-qs init makes one"
        ) from error
    return check_lock_file(data if isinstance(data, dict) else {}, str(file))
