"""start, status, stop, clean: the order of the steps, and nothing else."""

from __future__ import annotations

import shlex
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quickstart import catalog, health, store
from quickstart.audio import read_recording
from quickstart.backends import choose
from quickstart.backends.base import server_spec
from quickstart.client import reachable, require, tls_of
from quickstart.errors import (
    ArtifactMissingError,
    NotReadyError,
    RivaQsError,
    from_exit_code,
)
from quickstart.store import place_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from quickstart.backends.base import Backend, Model, Running, ServerSpec
    from quickstart.config import Settings
    from quickstart.console import Console
    from quickstart.store import Stamp, Store


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
        location = self.store.name
        return {"verb": verb, "backend": self.backend.name, "location": location, **more}


def outdated(suite: Suite, deployed: Stamp) -> tuple[str, ...]:
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
    probe = _probe(suite, uri, stamp, path.name, audio)
    ready = _await(suite, probe, started=how != "reused")
    lines = (f"the service is ready at {uri} ({how}): {ready.answers.detail}",)
    data = suite.facts("start", action=how, uri=uri, pid=running.pid, **_as_data(ready))
    return Result(lines, data, f"next: riva-qs transcribe {shlex.quote(str(path))}")


def _probe(
    suite: Suite, uri: str, stamp: Stamp, recording: str, audio: bytes
) -> health.ServiceProbe:
    """Return what asks a server of the settings whether it answers."""
    tls = tls_of(suite.settings)
    return health.ServiceProbe(suite.backend, uri, stamp.models, recording, audio, tls)


def _recording(settings: Settings) -> tuple[Path, bytes]:
    """Return the readiness recording."""
    path = Path(settings.readiness_audio) if settings.readiness_audio else catalog.sample()
    return path, read_recording(path)


def _deployed(here: Store) -> Stamp:
    """Return the stamp of what is deployed."""
    stamp = here.current()
    if stamp is None:
        message = f"no model is deployed in {here} yet"
        raise ArtifactMissingError(message, "riva-qs init")
    return stamp


def _plan_start(suite: Suite, spec: ServerSpec) -> Result:
    """Say what `start` would do."""
    running = suite.backend.state()
    step = f"start a server at {spec.uri} on generation {spec.generation}"
    if running:
        same = running.digest == suite.backend.digest(spec)
        step = f"reuse the server ({running})" if same else f"stop the server, then {step}"
    details = suite.backend.plan(spec)
    data = suite.facts("start", dry_run=True, steps=[step], details=list(details))
    return Result((f"would {step}", *details), data)


def _serve(suite: Suite, spec: ServerSpec) -> tuple[Running, str]:
    """Return a running server that fits the settings, and how it came to run."""
    running, how = suite.backend.state(), "started"
    if running and running.digest == suite.backend.digest(spec):
        suite.console.note(f"already running ({running}) with these settings: reused")
        return running, "reused"
    if running:
        suite.console.note("the settings or models have changed since the server was started")
        suite.console.note(suite.backend.stop())
        how = "restarted"
    for line in suite.backend.plan(spec)[1:]:
        suite.console.note(line)
    repository = suite.store.repository(spec.generation).relative_to(suite.store.root)
    return suite.backend.serve(spec, str(repository), suite.console.note), how


def _await(suite: Suite, probe: health.ServiceProbe, *, started: bool) -> health.Health:
    """Wait until the service answers; a server that we started does not outlive an interrupt."""
    title = f"waiting for {probe.uri}"
    try:
        with suite.console.activity(title) as report:
            outcome = health.wait(probe, suite.settings.riva_timeout_sec, report)
    except KeyboardInterrupt:
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
    vitals = suite.backend.vitals() if running else {}
    lines += [
        f"{name.removesuffix('_s').removesuffix('_bytes')}: {_vital(name, value)}"
        for name, value in vitals.items()
    ]
    models = [model.name for model in _served(suite, running)]
    lines += [f"models: {', '.join(models)}"] if models else []
    pid = running.pid if running else None
    facts = {"uri": uri, "pid": pid, "models": models, **vitals}
    data = suite.facts("status", **facts, **_as_data(state))
    next_step = "" if running else "next: riva-qs start"
    code = 0 if state.ready else NotReadyError.code
    return Result(tuple(lines), data, next_step, code)


def _served(suite: Suite, running: Running | None) -> Sequence[Model]:
    """Return the models that the server which runs was started on, where its stamp can be read."""
    if running is None or not running.generation:
        return ()
    with suppress(ArtifactMissingError):
        return suite.store.stamp(running.generation).models
    return ()


def _health_of(suite: Suite, running: Running | None) -> health.Health:
    """Examine the server that runs, whatever the settings say by now."""
    if running is None:
        return health.Health(health.Check(ok=False, detail="no server runs"))
    alive = health.Check(ok=True, detail=f"a server runs ({running})")
    if not running.uri:
        unknown = health.Check(ok=False, detail="its start was cut short; start it again")
        return health.Health(alive, unknown)
    path, audio = _recording(suite.settings)
    try:
        stamp = suite.store.stamp(running.generation)
    except ArtifactMissingError as error:
        return health.Health(alive, health.Check(ok=False, detail=error.message))
    host, _, port = running.uri.rpartition(":")
    uri = reachable(host.strip("[]"), int(port))
    return health.examine(_probe(suite, uri, stamp, path.name, audio))


def _checks(state: health.Health) -> dict[str, health.Check]:
    """Return the three questions by name."""
    return {"alive": state.alive, "loaded": state.loaded, "answers": state.answers}


def _vital(name: str, value: str | int) -> str:
    """Return a fact of a running server for people."""
    from quickstart.transfer import size_text

    if name == "memory_bytes":
        return size_text(int(value))
    return str(timedelta(seconds=int(value))) if name == "uptime_s" else str(value)


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
        step = f"stop the server ({running})"
        return Result((f"would {step}",), suite.facts("stop", dry_run=True, steps=[step]))
    suite.console.note(f"stopping the server ({running})")
    return Result((suite.backend.stop(),), suite.facts("stop", stopped=True, pid=running.pid))


def clean(suite: Suite, *, dry_run: bool = False, yes: bool = False) -> Result:
    """Remove what riva-qs made, and keep what the user put there."""
    from quickstart.transfer import size_text

    here = suite.store
    made, running = here.belongings(), suite.backend.state()
    kept = sorted({place_of(archive.name) for archive in here.archives()} - set(made))
    sizes = [f"{here.root / name} ({size_text(here.size(name))})" for name in made]
    stops = [f"stop the server ({running})"] if running else []
    others = suite.backend.belongings()
    steps = [*stops, *(f"remove {each}" for each in (*others, *sizes))]
    data = suite.facts("clean", steps=steps, kept=[str(here.root / name) for name in kept])
    keeps = tuple(f"keeps {here.root / name}" for name in kept)
    if dry_run or not steps:
        lines = tuple(f"would {step}" for step in steps) or (f"nothing to clean in {here}",)
        return Result((*lines, *keeps), {**data, "dry_run": dry_run})
    here.refuse_others()
    for line in (*(f"will {step}" for step in steps), *keeps):
        suite.console.note(line)
    if not (yes or suite.console.confirm(f"Clean {here}?")):
        raise RivaQsError("not confirmed: nothing was removed")
    with here.locked("clean"):
        if running:
            suite.console.note(suite.backend.stop())
        suite.backend.remove()
        here.remove(made)
        here.remove_empty()
    return Result((f"cleaned {here}", *keeps), {**data, "dry_run": False})
