"""What a server computes beside its model: CPU time outside of the model's runs, over that inside.

One stream, or several, are sent to a real server whose models run on one thread each, so that all
CPU time inside of a run is that of the thread that runs it. A client sends a chunk once the one
before is answered. Every round gives one ratio, both numbers of it from the same seconds of the
same process; what is printed is their median and quartiles. In turn with it the same is measured of
a server that does nothing but run the model and answer: less than that is not to be had.

    python -m benchmarks.server_overhead MODELS RECORDING [--streams N] [--rounds N] [--chunk MS]
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import os
import statistics
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.processes import AS_SERVED
from benchmarks.server_client import RATE, connected, pcm16, stream_of
from support.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from multiprocessing.connection import Connection

    from numpy.typing import NDArray

    from riva_speech.sessions import Session


class Timed:
    """A session whose runs are timed, in CPU seconds of their thread."""

    seconds = 0.0

    def __init__(self, session: Session) -> None:
        self._session = session

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Run the model."""
        began = time.thread_time()
        outputs = self._session.run(inputs)
        Timed.seconds += time.thread_time() - began
        return outputs


def serve(models: Path, port: int, pipe: Connection, *, bare: bool) -> None:
    """Serve until told to stop; answer every other word with the CPU seconds so far."""
    from benchmarks import bare_server  # in its own process
    from riva_speech.server.grpc_server import Server
    from riva_speech.server.options import ServerOptions
    from riva_speech.sessions.opening import open_session

    uri = f"127.0.0.1:{port}"

    def opened(folder: Path) -> Session:
        """Open a graph whose runs are timed, on one thread."""
        return Timed(open_session(folder, threads=1))

    async def run() -> None:
        """Serve until the pipe says that it is over."""
        stopping = asyncio.Event()
        loop = asyncio.get_running_loop()
        answer = partial(_answer, pipe, partial(loop.call_soon_threadsafe, stopping.set))
        threading.Thread(target=answer, daemon=True).start()
        with ThreadPoolExecutor() as executor:
            if bare:
                await bare_server.serve(uri, models, executor, opened, stopping)
            else:
                await Server(ServerOptions(uri, models), executor, opened).run(stopping)

    asyncio.run(run())


def _answer(pipe: Connection, stop: Any) -> None:  # a callable
    while pipe.recv() != "stop":
        pipe.send((time.process_time(), Timed.seconds))
    stop()


def talk(stub: Any, samples: bytes, size: int) -> None:
    """Send a recording as one stream."""
    turn = threading.Semaphore(1)

    def chunks() -> Iterator[bytes]:
        """Yield a chunk of 16-bit samples whenever the one before is answered."""
        for begin in range(0, len(samples), size):
            turn.acquire()
            yield samples[begin : begin + size]

    for _ in stub.StreamingRecognize(stream_of(chunks())):
        turn.release()


@dataclass(frozen=True)
class Subject:
    """A server that is measured: a stub of its service, and the pipe to its process."""

    stub: Any
    pipe: Connection

    @classmethod
    @contextmanager
    def started(cls, models: Path, *, bare: bool) -> Iterator[Subject]:
        """Run a server of models as long as the context lasts."""
        port = free_port()
        ours, theirs = multiprocessing.Pipe()
        process = multiprocessing.get_context("spawn").Process(
            target=serve, args=(models, port, theirs), kwargs={"bare": bare}
        )
        process.start()
        try:
            with connected(port) as stub:
                yield cls(stub, ours)
        finally:
            ours.send("stop")
            process.join()

    def ratio(self, round_: Callable[[Any], object]) -> float:
        """Give a round its stub; return what was computed meanwhile beside the runs, over these."""
        before = self._asked()
        round_(self.stub)
        whole, inside = (now - then for now, then in zip(self._asked(), before, strict=True))
        return (whole - inside) / inside

    def _asked(self) -> tuple[float, float]:
        self.pipe.send("now")
        answer: tuple[float, float] = self.pipe.recv()
        return answer


def measure(options: argparse.Namespace, subjects: Sequence[Subject]) -> list[list[float]]:
    """Return the ratios of each subject's rounds, but for the first one, which warms up."""
    samples = pcm16(options.recording) * options.repeat
    size = 2 * RATE * options.chunk // 1000
    with ThreadPoolExecutor(options.streams) as pool:

        def round_(stub: Any) -> None:
            """Send all streams at once."""
            list(pool.map(lambda _: talk(stub, samples, size), range(options.streams)))

        rounds = [[one.ratio(round_) for one in subjects] for _ in range(options.rounds + 1)]
    return [list(ratios) for ratios in zip(*rounds[1:], strict=True)]


def _told(ratios: list[float]) -> str:
    low, middle, high = statistics.quantiles(ratios, n=4, method="inclusive")
    return f"{100 * middle:.0f} % ({100 * low:.0f} to {100 * high:.0f})"


def main() -> None:
    """Start the server, measure, print one line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("models", type=Path)
    parser.add_argument("recording", type=Path)
    parser.add_argument("--streams", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--repeat", type=int, default=5, help="the recording, so many times over")
    parser.add_argument("--chunk", type=int, default=160, metavar="MS")
    options = parser.parse_args()
    # Before they begin: NumPy and the C library read it then.
    os.environ.update(AS_SERVED)
    with (
        Subject.started(options.models, bare=False) as server,
        Subject.started(options.models, bare=True) as bare,
    ):
        ratios = measure(options, (server, bare))
    of_server, of_bare = map(_told, ratios)
    print(
        f"{options.streams} stream(s), chunks of {options.chunk} ms: the server computes "
        f"{of_server} beside its model's runs, and one that does nothing else {of_bare}"
    )


if __name__ == "__main__":
    main()
