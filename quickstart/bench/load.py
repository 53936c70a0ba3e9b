"""Many streams at once, each at the pace of a microphone."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from quickstart.bench.wire import RefusedError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

SHED = "RESOURCE_EXHAUSTED"
# Each place of a step is filled this often, one request after the other.
REQUESTS_A_STREAM = 3


class Service(Protocol):
    """What is measured: something that answers streams of audio."""

    def stream(self, number: int, chunks: AsyncIterator[bytes]) -> AsyncIterator[None]:
        """Send chunks as they come and yield once for every response.

        Raises:
            RefusedError: It ended the stream with an error.
        """
        ...


@dataclass
class Seen:
    """What the client of one stream saw; times are seconds of one clock.

    Attributes:
        sent: When each chunk was sent.
        received: When each response came.
        late: How far behind its pace the client sent at worst.
        error: The status that ended it; empty where all went well.
    """

    sent: list[float] = field(default_factory=list)
    received: list[float] = field(default_factory=list)
    late: float = 0.0
    error: str = ""


async def paced(service: Service, number: int, chunks: Sequence[bytes], period: float) -> Seen:
    """Send one stream, a chunk every `period` seconds, and note when what happens."""
    seen = Seen()
    try:
        async for _ in service.stream(number, pace(chunks, period, seen)):
            seen.received.append(time.perf_counter())
    except RefusedError as error:
        seen.error = error.status
    return seen


async def pace(chunks: Sequence[bytes], period: float, seen: Seen) -> AsyncIterator[bytes]:
    """Yield each chunk at its time, counted from the first; lateness does not add up."""
    began = time.perf_counter()
    for i, chunk in enumerate(chunks):
        due = began + i * period
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        now = time.perf_counter()
        seen.late = max(seen.late, now - due)
        seen.sent.append(now)
        yield chunk


async def step(
    service: Service,
    streams: int,
    chunks: Sequence[bytes],
    period: float,
    requests: int = REQUESTS_A_STREAM,
) -> list[Seen]:
    """Keep a number of streams open until each place was filled with some requests in turn.

    Their beginnings are spread over one period: people do not begin to speak in step.
    """

    async def place(number: int) -> list[Seen]:
        """Hold one place of the crowd: stream after stream."""
        await asyncio.sleep(period * number / streams)
        return [await paced(service, number, chunks, period) for _ in range(requests)]

    places = await asyncio.gather(*(place(number) for number in range(streams)))
    return [seen for each in places for seen in each]


@dataclass(frozen=True)
class Rush:
    """How requests went that were sent as fast as they were answered."""

    seconds: float
    answered: int
    errors: dict[str, int]


async def rush(request: Callable[[], Awaitable[None]], parallel: int, count: int) -> Rush:
    """Send `count` requests, `parallel` at once, without any pace."""
    left = iter(range(count))
    statuses: list[str] = []

    async def place() -> None:
        """Send requests, one after another, while any are left."""
        statuses.extend([await _status_of(request()) for _ in left])

    began = time.perf_counter()
    await asyncio.gather(*(place() for _ in range(parallel)))
    took = time.perf_counter() - began
    counted = Counter(statuses)
    answered = counted.pop("", 0)
    return Rush(took, answered, dict(counted))


async def _status_of(request: Awaitable[None]) -> str:
    """Wait for the answer to a request; return the status of an error, else nothing."""
    try:
        await request
    except RefusedError as error:
        return error.status
    return ""
