"""More and more streams, as long as the service keeps up."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from quickstart.bench import figures, load
from quickstart.bench.figures import Trial, over_trials
from quickstart.bench.wire import RefusedError, Wanted, connect
from quickstart.errors import NotReadyError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from quickstart.bench.load import Rush, Service
    from quickstart.bench.recording import Recording
    from quickstart.bench.wire import Wire
    from quickstart.client import Tls

# The first answer may need what only a first request warms up.
_PATIENCE_SECONDS = 60.0


@dataclass(frozen=True)
class Plan:
    """What is measured: steps of the ladder, length of a chunk, and how often each is tried."""

    streams: tuple[int, ...]
    chunk_ms: int = 160
    trials: int = 3
    parallel: int = 32
    keep_going: bool = False

    @property
    def period(self) -> float:
        """Seconds from one chunk to the next."""
        return self.chunk_ms / 1000


@dataclass(frozen=True)
class Step:
    """One number of streams, tried some times."""

    streams: int
    trials: tuple[Trial, ...]

    def holds(self, chunk_ms: int) -> bool:
        """Whether the service keeps up: all is answered, and p99 lies below a chunk's length."""
        p99 = over_trials([one.latency for one in self.trials]).get("p99")
        well = all(one.went_well for one in self.trials)
        return well and p99 is not None and p99["median"] < chunk_ms


@dataclass
class Measured:
    """The whole ladder, and throughput where it was measured."""

    plan: Plan
    audio_seconds: float
    steps: list[Step] = field(default_factory=list)
    rushes: list[Rush] = field(default_factory=list)

    @property
    def most_streams(self) -> int:
        """The largest step that holds with all steps below it; 0 where the first does not."""
        most = 0
        for step in self.steps:
            if not step.holds(self.plan.chunk_ms):
                break
            most = step.streams
        return most


def measure(
    uri: str,
    recording: Recording,
    wanted: Wanted,
    plan: Plan,
    *,
    tls: Tls | None = None,
    report: Callable[[str], None],
) -> Measured:
    """Measure the service at `uri`, and say how far it is.

    Raises:
        RivaQsError: The service is away, or refuses a single request.
    """
    return asyncio.run(_measure(uri, recording, wanted, plan, tls, report))


async def _measure(
    uri: str,
    recording: Recording,
    wanted: Wanted,
    plan: Plan,
    tls: Tls | None,
    report: Callable[[str], None],
) -> Measured:
    measured = Measured(plan, recording.seconds)
    most = max(*plan.streams, plan.parallel, 1)
    async with connect(uri, wanted, most, tls) as wire:
        report("warming up")
        await _warm_up(wire, uri, recording.chunks(plan.chunk_ms))
        await _climb(wire, recording.chunks(plan.chunk_ms), measured, report)
        if plan.parallel:
            await _rush(wire, recording, measured, report)
    return measured


async def _warm_up(wire: Wire, uri: str, chunks: Sequence[bytes]) -> None:
    """Send one stream whose times do not count; what it is refused for is everybody's error."""
    try:
        await asyncio.wait_for(_send_all(wire, chunks), _PATIENCE_SECONDS)
    except RefusedError as error:
        raise error.translated(uri) from error
    except asyncio.TimeoutError as error:
        message = f"the server at {uri} did not answer one stream in {_PATIENCE_SECONDS:.0f} s"
        raise NotReadyError(message, "riva-qs logs shows what it does") from error


async def _send_all(service: Service, chunks: Sequence[bytes]) -> None:
    seen = load.Seen()
    async for _ in service.stream(0, load.pace(chunks, 0.0, seen)):
        pass


async def _climb(
    wire: Wire, chunks: Sequence[bytes], measured: Measured, report: Callable[[str], None]
) -> None:
    plan = measured.plan
    for streams in plan.streams:
        trials = []
        for number in range(plan.trials):
            report(f"{streams} streams, trial {number + 1} of {plan.trials}")
            seen = await load.step(wire, streams, chunks, plan.period)
            trials.append(figures.trial(seen, measured.audio_seconds))
        measured.steps.append(Step(streams, tuple(trials)))
        if not (plan.keep_going or measured.steps[-1].holds(plan.chunk_ms)):
            return


async def _rush(
    wire: Wire, recording: Recording, measured: Measured, report: Callable[[str], None]
) -> None:
    parallel = measured.plan.parallel
    count = load.REQUESTS_A_STREAM * parallel
    for number in range(measured.plan.trials):
        report(f"throughput, {parallel} at once, trial {number + 1} of {measured.plan.trials}")
        rush = await load.rush(lambda: wire.recognize(recording.samples), parallel, count)
        measured.rushes.append(rush)
