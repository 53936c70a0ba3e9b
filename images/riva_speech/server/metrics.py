"""What a server counts and times, for Prometheus: never what was said.

Labels are methods, statuses and the names of deployed models; nothing that a client sends becomes
one, so their number stays what it was after the first minutes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)

from riva_speech import __version__

if TYPE_CHECKING:
    from collections.abc import Callable

CONTENT_TYPE = CONTENT_TYPE_LATEST
# Seconds: a chunk of real-time audio lasts 0.08 to 1, and its answer should take far less.
_LATENCIES = (0.005, 0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12)
_DURATIONS = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0)
_BATCHES = (1, 2, 4, 8, 16, 32, 64, 128)


class Metrics:
    """The metrics of one server, in a registry of their own."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        build = self._gauge("build", "Always 1; its label is the version", "version")
        build.labels(__version__).set(1)
        self._requests = self._counter(
            "requests", "Requests that ended, by gRPC status", "method", "model", "status"
        )
        self._active = self._gauge("active_requests", "Requests in progress", "method")
        self._refused = self._counter(
            "refused_requests", "Requests refused because the server was at its limit", "method"
        )
        self._audio = self._counter("audio_seconds", "Seconds of audio heard", "method", "model")
        self._request_seconds = self._histogram(
            "request_seconds", "From a request to its last answer, in seconds", _DURATIONS, "method"
        )
        self._chunk_seconds = self._by_model(
            "chunk_seconds", "From a piece of audio to its answer, in seconds", _LATENCIES
        )
        self._queue_seconds = self._by_model(
            "batch_queue_seconds", "A step's wait for its run, in seconds", _LATENCIES
        )
        self._run_seconds = self._by_model(
            "batch_run_seconds", "One run of a model, in seconds", _LATENCIES
        )
        self._batch_size = self._by_model("batch_size", "Steps in one run", _BATCHES)
        self._slots = self._gauge("live_slots", "Streams that hold caches", "model")

    def _counter(self, name: str, told: str, *labels: str) -> Counter:
        return Counter(f"riva_{name}", told, labels, registry=self._registry)

    def _gauge(self, name: str, told: str, *labels: str) -> Gauge:
        return Gauge(f"riva_{name}", told, labels, registry=self._registry)

    def _histogram(
        self, name: str, told: str, buckets: tuple[float, ...], *labels: str
    ) -> Histogram:
        return Histogram(
            f"riva_{name}", told, ("model", *labels), registry=self._registry, buckets=buckets
        )

    def _by_model(self, name: str, told: str, buckets: tuple[float, ...]) -> _ByModel:
        return _ByModel(self._histogram(name, told, buckets))

    def began(self, method: str) -> None:
        """Count a request that was admitted."""
        self._active.labels(method).inc()

    def refused(self, method: str) -> None:
        """Count a request for which there was no room."""
        self._refused.labels(method).inc()
        self._requests.labels(method, "-", "RESOURCE_EXHAUSTED").inc()

    def ended(self, method: str, model: str, status: str, *, audio: float, took: float) -> None:
        """Count a request that was admitted and is over; ``audio`` and ``took`` are seconds."""
        self._active.labels(method).dec()
        self._requests.labels(method, model, status).inc()
        self._audio.labels(method, model).inc(audio)
        self._request_seconds.labels(model, method).observe(took)

    def chunk(self, model: str, seconds: float) -> None:
        """Time the answer to one piece of a stream's audio."""
        self._chunk_seconds[model].observe(seconds)

    def batch(self, model: str, waits: list[float], run: float) -> None:
        """Time one run of a model: how long each of its steps waited, and the run, in seconds."""
        self._batch_size[model].observe(len(waits))
        self._run_seconds[model].observe(run)
        queue = self._queue_seconds[model]
        for wait in waits:
            queue.observe(wait)

    def watch_slots(self, model: str, count: Callable[[], int]) -> None:
        """Ask ``count`` how many streams of a model hold caches, whenever somebody looks."""
        self._slots.labels(model).set_function(count)

    def exposition(self) -> bytes:
        """Return everything in Prometheus's text format."""
        return generate_latest(self._registry)


class _ByModel(dict[str, Histogram]):
    """A histogram's parts by model, kept: finding one by its labels takes longer than counting."""

    def __init__(self, histogram: Histogram) -> None:
        super().__init__()
        self._histogram = histogram

    def __missing__(self, model: str) -> Histogram:
        """Make, or find, the part of a model."""
        found: Histogram = self._histogram.labels(model)
        self[model] = found
        return found
