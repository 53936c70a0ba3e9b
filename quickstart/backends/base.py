"""What every backend can do, and the values that go in and out of it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Protocol

from quickstart import __version__
from quickstart.errors import RivaQsError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from quickstart.config import Settings
    from quickstart.console import Console


@dataclass(frozen=True)
class Model:
    """One model that was deployed, as the server will list it."""

    name: str
    service: str
    type: str
    language_code: str
    rmir: str
    directories: tuple[str, ...]


@dataclass(frozen=True)
class DeployReport:
    """What a deploy made: the models, and the engine that made them."""

    engine: dict[str, str]
    models: tuple[Model, ...]


def parse_model(row: dict[str, Any]) -> Model:
    """Return the model of one row of a deploy report; keys that are news are left out."""
    known = {name: row[name] for name in Model.__dataclass_fields__}
    directories = tuple(known.pop("directories"))
    if not all(isinstance(text, str) for text in (*known.values(), *directories)):
        raise TypeError("what a model is called is no text")
    return Model(**known, directories=directories)


def read_report(path: Path) -> DeployReport:
    """Return the report that a deploy wrote.

    Raises:
        RivaQsError: There is none, or it is not a report.
    """
    return parse_report(path.read_bytes() if path.is_file() else b"")


def parse_report(text: bytes) -> DeployReport:
    """Return the report that a deploy wrote, from its bytes.

    Raises:
        RivaQsError: It is not a report.
    """
    try:
        data = json.loads(text)
        return DeployReport(dict(data["engine"]), tuple(map(parse_model, data["models"])))
    except (ValueError, KeyError, TypeError) as error:
        message = f"the deploy ended well, but left no readable report: {error!r}"
        raise RivaQsError(message, "install riva-qs again: its two halves do not fit") from error


@dataclass(frozen=True)
class ServerSpec:
    """Everything that makes one running server different from another."""

    host: str
    port: int
    services: tuple[str, ...]
    generation: str
    tls: tuple[str, ...] = ()
    http_port: int = 0
    metrics_port: int = 0
    options: tuple[str, ...] = ()
    version: str = __version__

    @property
    def uri(self) -> str:
        """The address to listen on, as the server's command line takes it."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def digest(self) -> str:
        """A short hash: two servers with the same one need not be told apart."""
        text = json.dumps(asdict(self), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def server_spec(settings: Settings, generation: str) -> ServerSpec:
    """Return the server that the settings ask for, on one generation of models."""
    switches = {
        "asr": settings.service_enabled_asr,
        "nlp": settings.service_enabled_nlp,
        "tts": settings.service_enabled_tts,
    }
    services = tuple(service for service, on in switches.items() if on)
    host, port = settings.riva_speech_api_host, settings.riva_speech_api_port
    return ServerSpec(
        host,
        port,
        services,
        generation,
        tls=tls_arguments(settings),
        http_port=settings.riva_speech_api_http_port,
        metrics_port=settings.server_metrics_port,
        options=_server_options(settings),
    )


def _server_options(settings: Settings) -> tuple[str, ...]:
    """Return the arguments of start-riva for its limits and its log."""
    threads = settings.server_threads
    return (
        f"--max_requests={settings.server_max_requests}",
        f"--max_batch={settings.server_max_batch}",
        *((f"--threads={threads}",) if threads else ()),
        f"--max-message={settings.server_max_message}",
        f"--log_format={settings.server_log_format}",
        *(("--log_transcripts",) if settings.server_log_transcripts else ()),
    )


def service_arguments(spec: ServerSpec) -> tuple[str, ...]:
    """Return the arguments of start-riva that say which services to run."""
    return tuple(
        f"--{service}_service={str(service in spec.services).lower()}"
        for service in ("asr", "tts", "nlp")
    )


def http_arguments(http_port: int, metrics_port: int) -> tuple[str, ...]:
    """Return the arguments of start-riva for its ports of HTTP; those that are 0 stay shut.

    A port of HTTP is said to be none, too: else RIVA_SERVER_HTTP_PORT of the environment holds.
    """
    metrics = (f"--metrics_port={metrics_port}",) if metrics_port else ()
    return (f"--http_port={http_port}", *metrics)


def tls_files(settings: Settings) -> dict[str, str]:
    """Return the files of TLS by the options of start-riva; none without a certificate."""
    if not (settings.ssl_server_cert and settings.ssl_server_key):
        return {}
    files = {
        "--ssl_server_cert": settings.ssl_server_cert,
        "--ssl_server_key": settings.ssl_server_key,
        "--ssl_root_cert": settings.ssl_root_cert,
    }
    return {option: path for option, path in files.items() if path}


def tls_arguments(settings: Settings, places: Mapping[str, str] | None = None) -> tuple[str, ...]:
    """Return the arguments of start-riva for TLS, with files where `places` says that they are."""
    files = tls_files(settings)
    if not files:
        return ()
    mutual = ("--ssl_use_mutual_auth",) if settings.ssl_use_mutual_auth else ()
    where = places or files
    return ("--use_ssl", *(f"{option}={where[option]}" for option in files), *mutual)


@dataclass(frozen=True)
class Running:
    """A server that runs."""

    pid: int
    uri: str
    generation: str
    digest: str
    started_at: str
    container: str = ""

    def __str__(self) -> str:
        """Return the server as sentences name it."""
        return f"container {self.container}" if self.container else f"pid {self.pid}"


@dataclass(frozen=True)
class Exit:
    """How a server ended: its exit code where it is known, and the first cause in its log."""

    code: int | None
    cause: str
    hint: str = ""


@dataclass(frozen=True)
class LogQuery:
    """Which lines of the log to show."""

    tail: int | None = None
    since: float | None = None
    follow: bool = False
    previous: bool = False


class Backend(Protocol):
    """Deploys archives and runs the server: as processes, or in containers."""

    @property
    def name(self) -> str:
        """The name that `backend=` knows it by."""
        ...

    def prepare(self, console: Console, *, dry_run: bool) -> tuple[str, ...]:
        """Fetch what deploys and serves where that is not there; return what was, or would be."""
        ...

    def engine(self) -> dict[str, str]:
        """Return the versions of what deploys and serves; raise UnsupportedError without it."""
        ...

    def deploy(
        self, rmirs: Sequence[str], draft: str, key: str, report: Callable[[str], None]
    ) -> DeployReport:
        """Make the model repository `draft`/models of archives, reporting each line of the log.

        All paths are relative to the model location.
        """
        ...

    def digest(self, spec: ServerSpec) -> str:
        """Return a short hash: servers with the same one need not be told apart."""
        ...

    def plan(self, spec: ServerSpec) -> tuple[str, ...]:
        """Say in detail what `serve` would run."""
        ...

    def serve(self, spec: ServerSpec, repository: str, report: Callable[[str], None]) -> Running:
        """Start a server on a repository of the model location, and return at once.

        What keeps it from being started at once is reported.
        """
        ...

    def state(self) -> Running | None:
        """Return the server that runs now, if one does."""
        ...

    def ended(self) -> Exit:
        """Say how the last server ended."""
        ...

    def logs(self, query: LogQuery) -> Iterator[str]:
        """Yield lines of the server's log."""
        ...

    def stop(self) -> str:
        """Stop the server and say how it went; empty when none ran."""
        ...

    def vitals(self) -> dict[str, str | int]:
        """Return what is known of the server that runs: uptime, memory and more."""
        ...

    def belongings(self) -> tuple[str, ...]:
        """Return what the backend has made outside the model location."""
        ...

    def remove(self) -> None:
        """Remove what `belongings` names."""
        ...
