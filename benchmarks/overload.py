"""What admitted streams feel when twice as many clients come as the server takes.

As many streams as the server takes are paced at real time; then as many again knock, over and over,
and are refused. In each round the admitted streams' latencies while nobody knocks stand beside
those while all do, and the time that a refusal takes is measured. Prints the ratios of the rounds'
medians and 99th percentiles, and the refusals.

    python -m benchmarks.overload MODELS RECORDING [--streams 8] [--rounds 5] [--seconds 10]
"""

from __future__ import annotations

import argparse
import statistics
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import numpy as np

from benchmarks.server_client import RATE, pcm16, stream_of
from benchmarks.soak import serving

if TYPE_CHECKING:
    from collections.abc import Iterator
    from concurrent.futures import Future

_CHUNK_SECONDS = 0.16
_KNOCK_SECONDS = 0.1
_PERCENTILES = (50, 99)
_HEAD_START_SECONDS = 1.0


def paced(stub: Any, audio: bytes, seconds: float) -> list[float]:
    """Send a recording over and over at real time; return the seconds to each chunk's answer."""
    size = int(2 * RATE * _CHUNK_SECONDS)
    sent: list[float] = []

    def chunks() -> Iterator[bytes]:
        """Yield 16-bit samples at the pace of real time, and note when."""
        began = time.monotonic()
        for number in range(int(seconds / _CHUNK_SECONDS)):
            time.sleep(max(0.0, began + number * _CHUNK_SECONDS - time.monotonic()))
            begin = number * size % (len(audio) - size)
            sent.append(time.monotonic())
            yield audio[begin : begin + size]

    answered = [time.monotonic() for _ in stub.StreamingRecognize(stream_of(chunks()))]
    return [after - before for before, after in zip(sent, answered, strict=False)]


def knock(stub: Any, until: threading.Event) -> list[float]:
    """Ask for streams until told to stop; return the seconds to each refusal."""
    refusals: list[float] = []
    while not until.is_set():
        began = time.monotonic()
        try:
            list(stub.StreamingRecognize(stream_of([])))
        except grpc.RpcError as error:
            if error.code() is not grpc.StatusCode.RESOURCE_EXHAUSTED:
                raise
            refusals.append(time.monotonic() - began)
        until.wait(_KNOCK_SECONDS)
    return refusals


def latencies(pool: ThreadPoolExecutor, options: argparse.Namespace, stub: Any) -> list[float]:
    """Return the latencies of all streams that the server takes."""
    audio = pcm16(options.recording)
    streams = [pool.submit(paced, stub, audio, options.seconds) for _ in range(options.streams)]
    return [latency for stream in streams for latency in stream.result()]


def beset(
    pool: ThreadPoolExecutor,
    options: argparse.Namespace,
    stub: Any,
) -> tuple[list[float], list[float]]:
    """Return the latencies of all admitted streams while others knock, and those's refusals."""
    stop = threading.Event()
    knocks: list[Future[list[float]]] = []

    def besiege() -> None:
        """Let as many knock as are inside."""
        knocks.extend(pool.submit(knock, stub, stop) for _ in range(options.streams))

    # The streams to be admitted are in before anybody knocks.
    siege = threading.Timer(_HEAD_START_SECONDS, besiege)
    siege.start()
    try:
        found = latencies(pool, options, stub)
    finally:
        siege.join()
        stop.set()
    return found, [seconds for one in knocks for seconds in one.result()]


def main() -> None:
    """Run the rounds and print three lines."""
    parser = argparse.ArgumentParser(description="Admitted streams while others are refused.")
    parser.add_argument("models", type=Path)
    parser.add_argument("recording", type=Path)
    parser.add_argument("--streams", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=10.0)
    options = parser.parse_args()
    rounds: list[tuple[list[float], list[float]]] = []
    refusals: list[float] = []
    with (
        serving(options.models, f"--max_requests={options.streams}") as subject,
        ThreadPoolExecutor(2 * options.streams) as pool,
    ):
        for _ in range(options.rounds):
            alone = latencies(pool, options, subject.stub)
            among, refused = beset(pool, options, subject.stub)
            rounds.append((alone, among))
            refusals += refused
    for percentile in _PERCENTILES:
        ratios = [
            float(np.percentile(among, percentile) / np.percentile(alone, percentile))
            for alone, among in rounds
        ]
        low, middle, high = statistics.quantiles(ratios, n=4, method="inclusive")
        print(f"p{percentile}: {middle:.2f} times that of before ({low:.2f} to {high:.2f})")
    usual, worst = 1000 * float(np.percentile(refusals, 99)), 1000 * max(refusals)
    print(f"{len(refusals)} refusals, 99 % within {usual:.0f} ms, all within {worst:.0f} ms")


if __name__ == "__main__":
    main()
