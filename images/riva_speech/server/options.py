"""What a server is started with."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from riva_speech.batching import BatchLimits
from riva_speech.program import LogFormat

if TYPE_CHECKING:
    from pathlib import Path

# Less than a stream's client notices, and about what a run of many streams takes.
_OVERLAP = 0.02


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
        threads: Threads that run a model, shared among its runs; 0 takes one a core.
        parallel_runs: How many runs of a model there are at once; 0 chooses.
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
    parallel_runs: int = 0
    max_message: int = 128
    drain_timeout: float = 10.0
    http_port: int = 0
    metrics_port: int = 0
    log_format: LogFormat = LogFormat.TEXT
    log_transcripts: bool = False
    tls: Tls | None = None

    @property
    def limits(self) -> BatchLimits:
        """How much goes into the runs of a model."""
        return BatchLimits(
            self.max_batch, delay=self.batch_delay, runs=self._runs, overlap=_OVERLAP
        )

    @property
    def threads_a_run(self) -> int:
        """Threads for one run of a model.

        ONNX Runtime has one pool for all runs of a session, to which each adds the thread it is
        called from: together they compute with ``threads``.
        """
        return max(1, self._threads - self._runs + 1)

    @property
    def _threads(self) -> int:
        return self.threads or os.cpu_count() or 1

    @property
    def _runs(self) -> int:
        """Two, where there is a thread for each: one of them computes while one is prepared."""
        if self.triton_uri:
            return self.parallel_runs or 1
        return min(self.parallel_runs or 2, self._threads)

    @property
    def host(self) -> str:
        """The host that ``uri`` names, without the brackets of IPv6."""
        return self.uri.rpartition(":")[0].strip("[]")
