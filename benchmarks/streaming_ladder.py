"""How many streams at once: our server beside sherpa-onnx's websocket server.

Both serve the same cache-aware weights on the same cores with two threads; the streams send chunks
of 160 ms at the pace of real time. A number of streams holds when all are answered and p99 of the
chunks' latencies lies under 160 ms. Each round searches, by doubling and then by bisection, the
most that hold, the two servers probed in turn; what does not hold is tried a second time. Before
each try the same streams run for a second that does not count: memory that was left alone, while
the other server was probed, comes back slowly on some machines: 0.2 s and more for these weights.
Prints both, and the ratio: median, least and most of the rounds. Beside each try stands what the
server computed for one second of one stream, which a busy machine changes less.

    python -m benchmarks.streaming_ladder --subject digits --weights fp32

sherpa-onnx answers a chunk once it has also heard what its graph looks back to: its first answer
belongs to the second chunk, and is paired with that.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks import machine, subjects
from benchmarks.processes import THREADS, our_server, sherpa_server
from benchmarks.utterances import RATE, sound
from quickstart.bench import figures, load
from quickstart.bench.wire import RefusedError, Wanted, connect

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from benchmarks.processes import Running
    from quickstart.bench.load import Seen, Service

CHUNK_MS = 160
_PERIOD = CHUNK_MS / 1000
_CHUNK_BYTES = 2 * RATE * CHUNK_MS // 1000
_FIRST_TRY, _MOST_STREAMS = 8, 1024
_WARM_UP_CHUNKS = 6
_CONNECTIONS = 512
# How fine the search is: steps of a sixteenth are told apart.
_FINENESS = 16
# sherpa-onnx's window is one chunk and nine frames: its first answer comes with the second chunk.
_SHERPA_LAG = 1


class Sherpa:
    """sherpa-onnx's websocket server, as a service that answers streams."""

    def __init__(self, uri: str) -> None:
        self._uri = uri

    async def stream(self, _number: int, chunks: AsyncIterator[bytes]) -> AsyncIterator[None]:
        """Send chunks as they come and yield once for every answer.

        Raises:
            RefusedError: The connection was refused or broke off.
        """
        from websockets.asyncio.client import connect as dial
        from websockets.exceptions import WebSocketException

        try:
            async with dial(self._uri, compression=None, max_queue=None) as connection:
                sending = asyncio.create_task(self._send(connection, chunks))
                async for message in connection:
                    if message == "Done!":
                        break
                    yield
                await sending
        except (WebSocketException, OSError) as error:
            raise RefusedError(type(error).__name__, str(error)) from error

    async def _send(self, connection: Any, chunks: AsyncIterator[bytes]) -> None:
        async for chunk in chunks:
            samples = np.frombuffer(chunk, np.int16).astype(np.float32) / 32768
            await connection.send(samples.tobytes())
        await connection.send("Done")


@dataclass
class Server:
    """One server, and the search for the most streams that it holds."""

    name: str
    service: Service
    running: Running
    lag: int = 0
    found: list[int] = field(default_factory=list)
    low: int = 0
    high: int = 0
    next_try: int = _FIRST_TRY

    def begin(self) -> None:
        """Begin a round: around what the round before has found."""
        last = self.found[-1] if self.found else 0
        self.low, self.high = 0, 0
        self.next_try = last or _FIRST_TRY

    @property
    def is_done(self) -> bool:
        """Whether no number between what holds and what does not is left to try."""
        close = self.high and self.high - self.low <= max(1, self.low // _FINENESS)
        return bool(close) or self.low >= _MOST_STREAMS

    def learn(self, *, holds: bool) -> None:
        """Take the outcome of a try, and choose the next."""
        if holds:
            self.low = self.next_try
        else:
            self.high = self.next_try
        if self.high:
            self.next_try = (self.low + self.high) // 2
            if self.found and not self.low:
                self.next_try = max(1, 3 * self.high // 4)
        else:
            grown = 5 * self.low // 4 if self.found else 2 * self.low
            self.next_try = min(_MOST_STREAMS, max(grown, self.low + 1))

    def paired(self, seen: Seen) -> Seen:
        """Return a stream with its answers to its chunks, those of its tail left out."""
        sent = seen.sent[self.lag :]
        return load.Seen(sent, seen.received[: len(sent)], seen.late, seen.error)


async def probe(server: Server, streams: int, seconds: float) -> bool:
    """Say whether a number of streams holds, and print what was seen."""
    data = sound(seconds)
    chunks = [data[i : i + _CHUNK_BYTES] for i in range(0, len(data), _CHUNK_BYTES)]
    await load.step(server.service, streams, chunks[:_WARM_UP_CHUNKS], _PERIOD, requests=1)
    before = server.running.cpu_seconds()
    seen = await load.step(server.service, streams, chunks, _PERIOD, requests=1)
    computed = 1000 * (server.running.cpu_seconds() - before) / (streams * seconds)
    trial = figures.trial([server.paired(one) for one in seen], seconds)
    p99 = trial.latency.get("p99", float("inf"))
    holds = trial.went_well and p99 < CHUNK_MS
    verdict = "holds" if holds else "does not hold"
    print(
        f"  {server.name}, {streams} streams: p50 {trial.latency.get('p50', 0):.0f}, "
        f"p99 {p99:.0f} ms, shed {trial.shed}, errors {trial.errors or 0}, unpaired "
        f"{trial.unpaired}, client late {trial.late:.0f} ms, "
        f"computed {computed:.1f} ms/s: {verdict}",
        flush=True,
    )
    return holds


async def search(servers: list[Server], seconds: float) -> None:
    """Search once for each server, the tries in turn."""
    for server in servers:
        server.begin()
    while waiting := [server for server in servers if not server.is_done]:
        for server in waiting:
            holds = await probe(server, server.next_try, seconds)
            server.learn(holds=holds or await probe(server, server.next_try, seconds))
    for server in servers:
        server.found.append(server.low)


async def measure(ours: Running, theirs: Running, rounds: int, seconds: float) -> list[Server]:
    """Search in every round; return what was found."""
    async with AsyncExitStack() as stack:
        wanted = Wanted(RATE, "en-US")
        wire = await stack.enter_async_context(connect(ours.uri, wanted, _CONNECTIONS))
        servers = [
            Server("ours", wire, ours),
            Server("sherpa-onnx", Sherpa(theirs.uri), theirs, _SHERPA_LAG),
        ]
        for server in servers:
            await probe(server, 2, 2.0)
        for _ in range(rounds):
            await search(servers, seconds)
        return servers


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    subjects.add_options(parser)
    parser.add_argument("--rounds", type=int, default=2, help="(default: 2)")
    parser.add_argument("--seconds", type=float, default=4.0, help="of a try (default: 4)")
    chosen = parser.parse_args()
    print(machine.facts("onnxruntime", "sherpa-onnx-bin", "grpcio", "websockets"))
    subject = subjects.subject(chosen.subject, chosen.weights)
    print(f"{chosen.subject}, {chosen.weights}, chunks of {CHUNK_MS} ms, {THREADS} threads")
    began = time.monotonic()
    with ExitStack() as stack:
        ours = stack.enter_context(our_server(subject.repository))
        theirs = stack.enter_context(sherpa_server(subject.peer("streaming")))
        servers = asyncio.run(measure(ours, theirs, chosen.rounds, chosen.seconds))
    report(*servers)
    print(f"took {time.monotonic() - began:.0f} s")


def report(ours: Server, theirs: Server) -> None:
    """Print what was found."""
    print(f"most streams: ours {ours.found}, sherpa-onnx {theirs.found}")
    each = [own / max(1, other) for own, other in zip(ours.found, theirs.found, strict=True)]
    print(f"ratio {statistics.median(each):.2f} ({min(each):.2f} to {max(each):.2f})")


if __name__ == "__main__":
    main()
