"""init: metadata of all that is wanted, fit, fetch, deploy beside what is served, swap."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from quickstart import __version__, catalog, fit, log, transfer
from quickstart.backends.judge import judge
from quickstart.errors import OutOfResourceError
from quickstart.lifecycle import Result, outdated
from quickstart.lock_file import LOCK_SCHEMA, artifact_key, unlike
from quickstart.planning import Part, Plan, artifact_rows, names, plan
from quickstart.sources import notes, source_of
from quickstart.store import File, is_prebuilt, place_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from quickstart.backends.base import Model
    from quickstart.lifecycle import Suite
    from quickstart.store import Stamp

    Report = Callable[[str], None]


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
        steps = _fetch(suite, todo)
        deployed = todo.reused or _deploy(suite, todo, lock)
        _sweep(suite)
    return _done(suite, todo, deployed, steps)


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
        steps += [f"deploy {', '.join(names(todo.archives))}"]
        steps += [f"let {here.models} show the new generation"]
    fits = all(need.fits for need in todo.needs)
    needs = [f"needs {need}" for need in todo.needs] if steps else []
    lines = [f"would {step}" for step in steps] or ["nothing to do: all is deployed"]
    facts = {"dry_run": True, "steps": steps, "fits": fits, "download": todo.download}
    rows = {
        "artifacts": artifact_rows(todo.parts),
        "archives": [asdict(archive) for archive in todo.archives],
        "needs": [need.as_data() for need in todo.needs],
    }
    code = 0 if fits else OutOfResourceError.code
    return Result((*lines, *needs), suite.facts("init", **facts, **rows), code=code)


def _fetch(suite: Suite, todo: Plan) -> list[str]:
    """Bring all files to their places, several at once; return what was done."""
    fresh = {part.name: part for part in todo.fresh}
    if fresh:
        # Everybody claims files in one order: two that do not would wait for each other.
        ordered = sorted(fresh.values(), key=lambda part: part.file.sha256)
        jobs = [_job(suite, part) for part in ordered]
        what = f"{len(jobs)} archives" if len(jobs) > 1 else jobs[0].target.name
        size = sum(job.file.size for job in jobs)
        with suite.console.bytes_progress(f"fetching {what}", size) as progress:
            transfer.fetch_all(jobs, progress)
        for job in jobs:
            name = job.target.name
            suite.store.place.bring(job.target, place_of(name), job.file.size, job.file.sha256)
    return [f"{part.name}: {_fetched(part)}" for part in todo.parts]


def _job(suite: Suite, part: Part) -> transfer.Job:
    """Return the transfer of a file, which is noted as ours."""
    target = suite.store.place.landing(place_of(part.name), part.file.sha256)
    suite.store.remember_fetched(part.name, part.file.sha256)
    source = source_of(part.artifact, suite.settings)
    return transfer.Job(source, part.artifact, part.file, target)


def _fetched(part: Part) -> str:
    """Say what was done for a file."""
    if part.there:
        return "there already, reused"
    return f"fetched, {transfer.size_text(part.file.size)}, SHA-256 verified"


def _deploy(suite: Suite, todo: Plan, lock: dict[str, Any] | None) -> Stamp:
    """Deploy all archives into a new generation and publish it."""
    here, engine = suite.store, suite.backend.engine()
    if lock is not None and lock["engine"] != engine:
        raise unlike("engine", lock["engine"], engine)
    for key, files in _files_by_key(todo.parts).items():
        here.remember_files(key, files)
    title = f"deploying {', '.join(names(todo.archives))}"
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
        found.setdefault(artifact_key(part.artifact), []).append(file)
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
        "artifacts": artifact_rows(todo.parts),
    }
    next_step = "next: riva-qs start"
    return Result((*lines, *outdated(suite, deployed)), suite.facts("init", **facts), next_step)


def lock_of(suite: Suite, todo: Plan, engine: dict[str, str]) -> dict[str, Any]:
    """Return all that decides what a deploy makes."""
    artifacts = artifact_rows(todo.parts)
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
