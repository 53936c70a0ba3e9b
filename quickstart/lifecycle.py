"""init, start, status, stop, clean: the order of the steps, and nothing else."""

from __future__ import annotations

import shlex
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quickstart import catalog, health, log, store, transfer
from quickstart.audio import read_recording
from quickstart.backends import choose
from quickstart.backends.base import server_spec
from quickstart.client import reachable, require
from quickstart.errors import (
    ArtifactMissingError,
    InterruptionError,
    NotReadyError,
    RivaQsError,
    from_exit_code,
)
from quickstart.sources import notes, source_of

if TYPE_CHECKING:
    from quickstart.backends.base import Backend, Running, ServerSpec
    from quickstart.catalog import Artifact
    from quickstart.config import Settings
    from quickstart.console import Console
    from quickstart.store import Rmir, Stamp, Store


@dataclass(frozen=True)
class Result:
    """What a verb did or would do: sentences for people, data for programs, an exit code."""

    lines: tuple[str, ...]
    data: dict[str, Any]
    next_step: str = ""
    code: int = 0


@dataclass
class Suite:
    """What every verb works on: settings, where they put things, and who runs them."""

    settings: Settings
    console: Console
    store: Store = field(init=False)
    backend: Backend = field(init=False)
    why: str = field(init=False)

    def __post_init__(self) -> None:
        """Find the place and the backend that the settings name."""
        self.store = store.locate(self.settings)
        self.backend, self.why = choose(self.settings, self.store)

    def facts(self, verb: str, **more: Any) -> dict[str, Any]:  # noqa: ANN401 - JSON values
        """Return what the JSON of every verb tells."""
        location = str(self.store.root)
        return {"verb": verb, "backend": self.backend.name, "location": location, **more}


def init(suite: Suite, *, dry_run: bool = False) -> Result:
    """Fetch what the settings need, deploy it beside what is served, and swap in one step."""
    engine = suite.backend.engine()
    artifacts = catalog.wanted(suite.settings)
    suite.store.check_ours()
    if dry_run:
        return _plan_init(suite, engine, artifacts)
    suite.console.note(f"backend: {suite.backend.name} ({suite.why}); models: {suite.store.root}")
    for line in notes(artifacts, suite.settings):
        suite.console.note(line)
    with suite.store.locked("init"):
        _sweep(suite)
        fetched = [_fetch(suite, artifact) for artifact in artifacts]
        rmirs = _archives(suite.store)
        stamp = _reusable(suite.store, rmirs, engine)
        deployed = stamp or _deploy(suite, rmirs, engine)
    models = ", ".join(model.name for model in deployed.models)
    verdict = "unchanged, reused" if stamp else "deployed"
    lines = (*fetched, f"models: {models} ({verdict}, generation {deployed.generation})")
    data = {"reused": bool(stamp), "generation": deployed.generation, "steps": fetched}
    models_data = [asdict(model) for model in deployed.models]
    facts = suite.facts("init", **data, models=models_data)
    return Result((*lines, *_outdated(suite, deployed)), facts, "next: riva-qs start")


def _plan_init(suite: Suite, engine: dict[str, str], artifacts: tuple[Artifact, ...]) -> Result:
    """Say what `init` would do."""
    here = suite.store
    fresh = [a for a in artifacts if not _is_there(here, a)]
    steps = [f"fetch {a.file} ({transfer.size_text(a.size)}) into {here.rmir}" for a in fresh]
    rmirs = here.rmirs()
    if not (rmirs or artifacts):
        raise _no_archives(here)
    if fresh or not _reusable(here, rmirs, engine):
        names = sorted({rmir.name for rmir in rmirs} | {a.file for a in artifacts})
        steps += [f"deploy {', '.join(names)}", f"let {here.models} show the new generation"]
    lines = [f"would {step}" for step in steps] or ["nothing to do: all is deployed"]
    return Result(tuple(lines), suite.facts("init", dry_run=True, steps=steps))


def _sweep(suite: Suite) -> None:
    """Remove what killed runs left behind."""
    running = suite.backend.state()
    for path in suite.store.leftovers(in_use=running.generation if running else ""):
        store.remove(path)


def _is_there(here: Store, artifact: Artifact) -> bool:
    """Say whether an artefact of the catalogue is in rmir/ already."""
    path = here.rmir / artifact.file
    return path.is_file() and transfer.sha256(path) == artifact.sha256


def _fetch(suite: Suite, artifact: Artifact) -> str:
    """Bring an artefact to rmir/ unless it is there; return what was done."""
    here, target = suite.store, suite.store.rmir / artifact.file
    if _is_there(here, artifact):
        return f"{artifact.file}: there already, reused"
    if target.exists() and target not in here.fetched():
        message = f"{target} is neither the file of the catalogue nor one that riva-qs fetched"
        raise RivaQsError(message, "move it away, or set use_existing_rmirs=true to deploy it")
    here.rmir.mkdir(exist_ok=True)
    here.remember_fetched(artifact.file, artifact.sha256)
    title = f"fetching {artifact.file}"
    with suite.console.bytes_progress(title, artifact.size) as progress:
        source = source_of(artifact, suite.settings)
        (file,) = source.files(artifact)
        transfer.fetch(source, artifact, file, target, progress)
    return f"{artifact.file}: fetched, {transfer.size_text(artifact.size)}, SHA-256 verified"


def _archives(here: Store) -> tuple[Rmir, ...]:
    """Return the archives to deploy."""
    rmirs = here.rmirs()
    if not rmirs:
        raise _no_archives(here)
    return rmirs


def _no_archives(here: Store) -> ArtifactMissingError:
    """Return the error for an empty rmir/."""
    message = f"there is no archive to deploy: {here.rmir} holds no *.rmir"
    return ArtifactMissingError(message, "put yours there, or set use_existing_rmirs=false")


def _reusable(here: Store, rmirs: tuple[Rmir, ...], engine: dict[str, str]) -> Stamp | None:
    """Return the current generation's stamp when a deploy would make the same again."""
    try:
        stamp = here.current()
    except ArtifactMissingError:
        return None
    same = stamp is not None and (stamp.rmirs, stamp.engine) == (rmirs, engine)
    return stamp if same else None


def _deploy(suite: Suite, rmirs: tuple[Rmir, ...], engine: dict[str, str]) -> Stamp:
    """Deploy all archives into a new generation and publish it."""
    here, key = suite.store, suite.settings.model_deploy_key
    transfer.check_space(here.root, 2 * sum(rmir.size for rmir in rmirs))
    paths = [here.rmir / rmir.name for rmir in rmirs]
    title = f"deploying {', '.join(rmir.name for rmir in rmirs)}"
    with here.draft() as draft, suite.console.activity(title) as report_line:
        report = suite.backend.deploy(
            paths, draft / "models", key, lambda line: report_line(log.message(line))
        )
        stamp = here.publish(draft, rmirs, engine, report.models)
    _sweep(suite)
    return stamp


def _outdated(suite: Suite, deployed: Stamp) -> tuple[str, ...]:
    """Say so when the server that runs serves another generation than the deployed one."""
    running = suite.backend.state()
    if running is None or running.generation == deployed.generation:
        return ()
    return ("the running server still serves the models before; riva-qs start restarts it",)


def start(suite: Suite, *, dry_run: bool = False) -> Result:
    """Run the server that the settings ask for, and return when it answers."""
    suite.backend.engine()
    require()
    catalog.enabled_services(suite.settings)
    path, audio = _recording(suite.settings)
    stamp = _deployed(suite.store)
    spec = server_spec(suite.settings, stamp.generation)
    if dry_run:
        return _plan_start(suite, spec)
    with suite.store.locked("start"):
        running, how = _serve(suite, spec)
    uri = reachable(spec.host, spec.port)
    probe = health.ServiceProbe(suite.backend, uri, stamp.models, path.name, audio)
    ready = _await(suite, probe, started=how != "reused")
    lines = (f"the service is ready at {uri} ({how}): {ready.answers.detail}",)
    data = suite.facts("start", action=how, uri=uri, pid=running.pid, **_as_data(ready))
    return Result(lines, data, f"next: riva-qs transcribe {shlex.quote(str(path))}")


def _recording(settings: Settings) -> tuple[Path, bytes]:
    """Return the readiness recording."""
    path = Path(settings.readiness_audio) if settings.readiness_audio else catalog.sample()
    return path, read_recording(path)


def _deployed(here: Store) -> Stamp:
    """Return the stamp of what is deployed."""
    stamp = here.current()
    if stamp is None:
        message = f"no model is deployed in {here.root} yet"
        raise ArtifactMissingError(message, "riva-qs init")
    return stamp


def _plan_start(suite: Suite, spec: ServerSpec) -> Result:
    """Say what `start` would do."""
    running = suite.backend.state()
    step = f"start a server at {spec.uri} on generation {spec.generation}"
    if running:
        same = running.digest == spec.digest
        step = f"reuse the server (pid {running.pid})" if same else f"stop the server, then {step}"
    return Result((f"would {step}",), suite.facts("start", dry_run=True, steps=[step]))


def _serve(suite: Suite, spec: ServerSpec) -> tuple[Running, str]:
    """Return a running server that fits the settings, and how it came to run."""
    running, how = suite.backend.state(), "started"
    if running and running.digest == spec.digest:
        suite.console.note(f"already running (pid {running.pid}) with these settings: reused")
        return running, "reused"
    if running:
        suite.console.note("the settings or models have changed since the server was started")
        suite.console.note(suite.backend.stop())
        how = "restarted"
    return suite.backend.serve(spec, suite.store.repository(spec.generation)), how


def _await(suite: Suite, probe: health.ServiceProbe, *, started: bool) -> health.Health:
    """Wait until the service answers; a server that we started does not outlive an interrupt."""
    title = f"waiting for {probe.uri}"
    try:
        with suite.console.activity(title) as report:
            outcome = health.wait(probe, suite.settings.riva_timeout_sec, report)
    except (KeyboardInterrupt, InterruptionError):
        if started:
            suite.console.note(suite.backend.stop())
        raise
    if isinstance(outcome, health.Ready):
        return outcome.health
    if isinstance(outcome, health.Exited):
        end = outcome.exit
        hint = end.hint or "riva-qs logs shows all that it said"
        raise from_exit_code(end.code, f"the server did not start: {end.cause}", hint)
    raise NotReadyError(
        f"not ready after {outcome.waited:.0f} s: {outcome.health.last.detail}",
        "riva-qs logs shows what the server does; riva-qs stop ends it;"
        " riva_timeout_sec is how long start waits",
    )


def status(suite: Suite) -> Result:
    """Say whether the service answers."""
    running = suite.backend.state()
    state = _health_of(suite, running)
    uri = running.uri if running else ""
    lines = [f"{name}: {_yes(check)}" for name, check in _checks(state).items()]
    data = suite.facts("status", uri=uri, pid=running.pid if running else None, **_as_data(state))
    next_step = "" if running else "next: riva-qs start"
    code = 0 if state.ready else NotReadyError.code
    return Result(tuple(lines), data, next_step, code)


def _health_of(suite: Suite, running: Running | None) -> health.Health:
    """Examine the server that runs, whatever the settings say by now."""
    if running is None:
        return health.Health(health.Check(ok=False, detail="no server runs"))
    if not running.uri:
        alive = health.Check(ok=True, detail=f"a server runs (pid {running.pid})")
        unknown = health.Check(ok=False, detail="its start was cut short; start it again")
        return health.Health(alive, unknown)
    path, audio = _recording(suite.settings)
    stamp = suite.store.stamp(running.generation)
    host, _, port = running.uri.rpartition(":")
    uri = reachable(host.strip("[]"), int(port))
    return health.examine(health.ServiceProbe(suite.backend, uri, stamp.models, path.name, audio))


def _checks(state: health.Health) -> dict[str, health.Check]:
    """Return the three questions by name."""
    return {"alive": state.alive, "loaded": state.loaded, "answers": state.answers}


def _yes(check: health.Check) -> str:
    """Return the answer to one question in words."""
    return f"{'yes' if check.ok else 'no'} ({check.detail})"


def _as_data(state: health.Health) -> dict[str, Any]:
    """Return the answers to the three questions as JSON data."""
    checks = {n: {"ok": c.ok, "detail": c.detail} for n, c in _checks(state).items()}
    return {"ready": state.ready, **checks}


def stop(suite: Suite, *, dry_run: bool = False) -> Result:
    """Stop the server, which first ends what it is doing."""
    running = suite.backend.state()
    if running is None:
        return Result(("no server runs: nothing to stop",), suite.facts("stop", stopped=False))
    if dry_run:
        step = f"stop the server (pid {running.pid})"
        return Result((f"would {step}",), suite.facts("stop", dry_run=True, steps=[step]))
    suite.console.note(f"stopping the server (pid {running.pid})")
    return Result((suite.backend.stop(),), suite.facts("stop", stopped=True, pid=running.pid))


def clean(suite: Suite, *, dry_run: bool = False, yes: bool = False) -> Result:
    """Remove what riva-qs made, and keep what the user put there."""
    here = suite.store
    made, running = here.belongings(), suite.backend.state()
    kept = sorted({here.rmir / r.name for r in here.rmirs()} - set(made))
    sizes = [f"{path} ({transfer.size_text(store.size_of(path))})" for path in made]
    stops = [f"stop the server (pid {running.pid})"] if running else []
    steps = [*stops, *(f"remove {size}" for size in sizes)]
    data = suite.facts("clean", steps=steps, kept=list(map(str, kept)))
    keeps = tuple(f"keeps {path}" for path in kept)
    if dry_run or not steps:
        lines = tuple(f"would {step}" for step in steps) or (f"nothing to clean in {here.root}",)
        return Result((*lines, *keeps), {**data, "dry_run": dry_run})
    for line in (*(f"will {step}" for step in steps), *keeps):
        suite.console.note(line)
    if not (yes or suite.console.confirm(f"Clean {here.root}?")):
        raise RivaQsError("not confirmed: nothing was removed")
    with here.locked("clean"):
        if running:
            suite.console.note(suite.backend.stop())
        for path in made:
            store.remove(path)
        here.remove_empty()
    return Result((f"cleaned {here.root}", *keeps), {**data, "dry_run": False})
