"""What a server is started with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from riva_speech.program import LogFormat

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True)
class Tls:
    """PEM files of TLS; with ``mutual``, clients show a certificate that ``root`` signed."""

    certificate: Path
    key: Path
    root: Path | None = None
    mutual: bool = False


@dataclass(frozen=True)
class ServerOptions:
    """Address, models and limits of one server.

    Attributes:
        uri: HOST:PORT of the gRPC service.
        model_repository: What riva-deploy wrote.
        max_requests: The most recognitions at once.
        max_batch: The most streams or utterances in one run of a model.
        batch_delay: How many seconds a step waits for others when its model is free.
        triton_uri: HOST:PORT of the Triton that runs the acoustic models; empty for this process.
        threads: Threads for one run of a model; 0 takes one a core.
        max_message: The largest message in MiB, to and from clients.
        drain_timeout: How many seconds running requests may take once the server is told to stop.
        http_port: The port of health checks and metrics, on the host of ``uri``; 0 for none.
        metrics_port: A further port for metrics alone; 0 for none.
        log_format: How lines of the log are written.
        log_transcripts: Whether the line of a request in the log holds what was recognised.
        tls: How the gRPC service is encrypted; None for not at all.
    """

    uri: str
    model_repository: Path
    max_requests: int = 64
    max_batch: int = 32
    batch_delay: float = 0.0
    triton_uri: str = ""
    threads: int = 0
    max_message: int = 128
    drain_timeout: float = 10.0
    http_port: int = 0
    metrics_port: int = 0
    log_format: LogFormat = LogFormat.TEXT
    log_transcripts: bool = False
    tls: Tls | None = None

    @property
    def host(self) -> str:
        """The host that ``uri`` names, without the brackets of IPv6."""
        return self.uri.rpartition(":")[0].strip("[]")
