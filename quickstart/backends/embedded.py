"""The backend that runs the engine's programs as processes of this machine.

A server counts as alive while it holds the lock `run/server.lock`, whose descriptor it inherits:
the kernel releases that lock when the process ends, however it ends, and no other process can be
taken for it.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib import metadata, util
from typing import TYPE_CHECKING

from quickstart import __version__, log, platforms
from quickstart.backends import child, life, ports
from quickstart.backends.base import Running, http_arguments, read_report, service_arguments
from quickstart.backends.ending import explain
from quickstart.errors import (
    RivaQsError,
    UnsupportedError,
    from_exit_code,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from quickstart.backends.base import DeployReport, Exit, LogQuery, ServerSpec
    from quickstart.console import Console
    from quickstart.store import Store

DRAIN_SECONDS, SILENCE_SECONDS = 15.0, 3600.0
_SECRETS = re.compile(r"(RIVA_QS_)?(MODEL_DEPLOY_KEY|NGC_.*KEY|RIVA_API_KEY)")


@dataclass(frozen=True)
class Programs:
    """The command lines of the engine, to which arguments are added."""

    deploy: tuple[str, ...] = (sys.executable, "-m", "riva_speech.servicemaker.riva_deploy")
    serve: tuple[str, ...] = (sys.executable, "-m", "riva_speech.server.start_riva")


class Embedded:
    """Deploys and serves with the engine that is installed beside riva-qs."""

    name = "embedded"

    def __init__(
        self,
        store: Store,
        programs: Programs | None = None,
        drain: float = DRAIN_SECONDS,
        silence: float = SILENCE_SECONDS,
    ) -> None:
        self._store = store
        self._programs = programs or Programs()
        self._drain = drain
        self._silence = silence
        self._child: subprocess.Popen[bytes] | None = None

    def engine(self) -> dict[str, str]:
        """Return the versions of the engine, which is looked for but not imported."""
        missing = [name for name in ("riva_speech", "onnxruntime") if not util.find_spec(name)]
        if missing:
            needs = f"the embedded backend needs {' and '.join(missing)}, not installed here"
            raise UnsupportedError(f"{needs} ({platforms.host()})", "pip install 'riva-qs[engine]'")
        return {"riva_speech": __version__, "onnxruntime": _installed_version("onnxruntime")}

    def prepare(self, _console: Console, *, dry_run: bool) -> tuple[str, ...]:  # noqa: ARG002 - as others
        """Fetch nothing: what deploys and serves is installed."""
        return ()

    def deploy(
        self, rmirs: Sequence[str], draft: str, key: str, report: Callable[[str], None]
    ) -> DeployReport:
        """Run riva-deploy over archives, reporting each line of its log.

        Raises:
            RivaQsError: It failed; kind, message and hint are those of the program.
        """
        folder = self._store.root / draft
        notes = folder / "report.json"
        archives = [str(self._store.root / rmir) for rmir in rmirs]
        arguments = ["--report", str(notes), *archives, str(folder / "models")]
        environment = {**_environment(), **({"MODEL_DEPLOY_KEY": key} if key else {})}
        command = [*self._programs.deploy, *arguments]
        code, lines = child.run(
            "riva-deploy", command, self._store.root, environment, report, self._silence
        )
        if code:
            end = explain(code, lines, "riva-deploy")
            raise from_exit_code(end.code, f"the deploy failed: {end.cause}", end.hint)
        return read_report(notes)

    def digest(self, spec: ServerSpec) -> str:
        """Return the hash of what makes one server different from another."""
        return spec.digest

    def plan(self, spec: ServerSpec) -> tuple[str, ...]:
        """Return the command line of the server."""
        repository = self._store.repository(spec.generation)
        return (shlex.join([*self._programs.serve, *_arguments(spec, repository)]),)

    def serve(self, spec: ServerSpec, repository: str, _report: Callable[[str], None]) -> Running:
        """Start a server in a session of its own and return at once.

        Raises:
            OutOfResourceError: Something listens on the port already.
        """
        ports.check(spec)
        run = self._store.run
        run.mkdir(exist_ok=True)
        lock = life.take(run / "server.lock")
        try:
            (run / "server.json").unlink(missing_ok=True)
            _rotate(run / "server.log", run / "server.previous.log")
            with (run / "server.log").open("wb") as output:
                self._child = subprocess.Popen(
                    [*self._programs.serve, *_arguments(spec, self._store.root / repository)],
                    cwd=self._store.root,
                    env=_environment(),
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    start_new_session=True,
                    pass_fds=[lock],
                )
        finally:
            os.close(lock)
        started = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        running = Running(self._child.pid, spec.uri, spec.generation, spec.digest, started)
        try:
            _write(run / "server.json", running)
        except BaseException:
            self._child.kill()
            raise
        return running

    def state(self) -> Running | None:
        """Return the server that runs now, if one does."""
        if self._child is not None:
            self._child.poll()
        path = self._store.run / "server.lock"
        if not life.is_held(path):
            return None
        with suppress(OSError, ValueError, TypeError):
            return Running(**json.loads((self._store.run / "server.json").read_text("utf-8")))
        # Whoever started it was killed before it could note which server this is.
        owner = platforms.holder(path)
        return Running(owner.pid if owner else 0, "", "", "", "")

    def ended(self) -> Exit:
        """Say how the last server ended, from its exit code and its log."""
        code = None
        if self._child is not None:
            # The lock falls an instant before the exit code can be had.
            with suppress(subprocess.TimeoutExpired):
                code = self._child.wait(2)
        lines = log.read(self._store.run / "server.log")
        return explain(code, lines, "the server")

    def logs(self, query: LogQuery) -> Iterator[str]:
        """Yield lines of the server's log."""
        if query.previous:
            return log.show(self._store.run / "server.previous.log", query, lambda: False)
        return log.show(self._store.run / "server.log", query, lambda: self.state() is not None)

    def stop(self) -> str:
        """Ask the server to drain, and kill it when that takes too long."""
        running = self.state()
        if running is None:
            return ""
        if not running.pid:
            raise RivaQsError(
                f"a server holds {self._store.run / 'server.lock'}, and its process cannot be seen",
                "stop it as the user who started it",
            )
        pid = running.pid
        if self._ends_after(pid, signal.SIGTERM, self._drain):
            how = f"stopped the server (pid {pid}); it drained first"
        elif self._ends_after(pid, signal.SIGKILL, self._drain):
            how = f"killed the server (pid {pid}); it did not drain in {self._drain:.0f} s"
        else:
            raise RivaQsError(f"the server (pid {pid}) survives SIGKILL", "look at it with ps")
        (self._store.run / "server.json").unlink(missing_ok=True)
        return how

    def vitals(self) -> dict[str, str | int]:
        """Return the uptime and the memory of the server that runs."""
        running = self.state()
        if running is None or not running.pid:
            return {}
        age = {}
        with suppress(RivaQsError):
            age = {"uptime_s": int(time.time() - log.parse_since(running.started_at))}
        return {**age, "memory_bytes": platforms.memory_of(running.pid)}

    def belongings(self) -> tuple[str, ...]:
        """Return nothing: all that a process leaves is in the model location."""
        return ()

    def remove(self) -> None:
        """Remove nothing."""

    def _ends_after(self, pid: int, number: signal.Signals, patience: float) -> bool:
        """Send a signal and say whether the server is gone in time."""
        with suppress(ProcessLookupError):
            os.kill(pid, number)
        deadline = time.monotonic() + patience
        while self.state() is not None:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.05)
        return True


def _installed_version(distribution: str) -> str:
    """Return the version of an installed distribution, or that it has none."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return "unknown"


def _environment() -> dict[str, str]:
    """Return this process's environment without secrets, for programs that need none."""
    kept = {name: value for name, value in os.environ.items() if not _SECRETS.fullmatch(name)}
    return {**kept, "PYTHONUNBUFFERED": "1"}


def _arguments(spec: ServerSpec, repository: Path) -> list[str]:
    """Return the command line of start-riva."""
    return [
        f"--riva-uri={spec.uri}",
        f"--model_repository={repository}",
        *service_arguments(spec),
        *http_arguments(spec.http_port, spec.metrics_port),
        *spec.options,
        *spec.tls,
    ]


def _rotate(log_file: Path, previous: Path) -> None:
    """Keep the log of the run before."""
    if log_file.exists():
        shutil.move(log_file, previous)


def _write(path: Path, running: Running) -> None:
    """Note which server runs, in one step."""
    fresh = path.with_suffix(".new")
    fresh.write_text(json.dumps(asdict(running), indent=2))
    fresh.replace(path)
