"""A batch of utterances: ours, through the server and without it, beside our peers.

The same weights, the same utterances of 2 to 8 s, two threads each. In each round every way
recognises the batch once, in turn; before the first round each has done so to warm up. Prints each
way's RTFX (seconds of audio a second), and how many times a peer's throughput ours is: median,
least and most of the rounds. fp32 meets fp32, and int8 int8; NeMo has no int8 on a CPU, so there
its row is `nemo in fp32`.

    python -m benchmarks.offline_throughput --subject digits --weights fp32

Peers take the batch as it is, at once: they fill all utterances up to the longest. Ours finds those
that go together by itself; `--sorted 8` has that done for the peers beforehand, who are given eight
of like length at a time, which is what suits NeMo best.

`server` is all requests at once over gRPC, the client's own work included; `pipeline` is the same
without gRPC.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import subprocess
import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING

from benchmarks import machine, subjects
from benchmarks.processes import AS_SERVED, THREADS, our_server
from benchmarks.utterances import RATE, batch, seconds
from quickstart.bench import load
from quickstart.bench.wire import Wanted, connect

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from benchmarks.subjects import Subject

OURS = ("server", "pipeline")
_NEMO_FP32 = "nemo in fp32"
_PATIENCE_SECONDS = 600


@dataclass(frozen=True)
class Batch:
    """How many utterances there are, and how many of like length a peer is given; 0 for all."""

    count: int
    sorted: int


class Worker:
    """A process that recognises the batch whenever it is told to."""

    def __init__(self, stack: ExitStack, way: str, folder: Path, batch: Batch) -> None:
        """Start it, and wait until it is warm."""
        command = [sys.executable, "-W", "ignore", "-m", "benchmarks.offline_worker"]
        self._process = stack.enter_context(
            subprocess.Popen(
                [*command, way, str(folder), str(batch.count), f"--sorted={batch.sorted}"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env={**os.environ, **(AS_SERVED if way in OURS else {})},
                text=True,
            )
        )
        stack.callback(self._process.kill)
        self._read()

    def __call__(self) -> float:
        """Recognise the batch; return the seconds that it took."""
        assert self._process.stdin
        self._process.stdin.write("again\n")
        self._process.stdin.flush()
        return float(self._read())

    def _read(self) -> str:
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"{self._process.args!r} ended")
        return line


def over_grpc(uri: str, utterances: list[bytes]) -> float:
    """Send every utterance at once; return the seconds until all are answered."""

    async def send() -> float:
        """Measure from a connection that is there already."""
        async with connect(uri, Wanted(RATE, "en-US"), len(utterances)) as wire:
            left = iter(utterances)
            began = time.perf_counter()
            count = len(utterances)
            rush = await load.rush(lambda: wire.recognize(next(left)), count, count)
            if rush.errors:
                raise SystemExit(f"the server answered {rush.errors}")
            return time.perf_counter() - began

    return asyncio.run(send())


def ways(stack: ExitStack, subject: Subject, work: Batch) -> dict[str, Callable[[], float]]:
    """Start every way of recognising the batch."""
    utterances = batch(work.count)
    uri = stack.enter_context(our_server(subject.repository)).uri
    over_grpc(uri, utterances)
    folders = {
        "pipeline": subject.repository,
        "onnx_asr": subject.peer("offline"),
        "sherpa_onnx": subject.peer("offline"),
    }
    if find_spec("nemo"):
        folders["nemo" if subject.weights == "fp32" else _NEMO_FP32] = subject.checkpoint
    found: dict[str, Callable[[], float]] = {"server": lambda: over_grpc(uri, utterances)}
    for way, folder in folders.items():
        found[way] = Worker(stack, way.partition(" ")[0], folder, work)
    return found


def report(times: dict[str, list[float]], audio: float) -> None:
    """Print throughputs and ratios."""
    for way, took in times.items():
        print(f"{way}: RTFX {audio / statistics.median(took):.1f}")
    for ours in OURS:
        for peer in (way for way in times if way not in OURS):
            each = [theirs / own for own, theirs in zip(times[ours], times[peer], strict=True)]
            print(
                f"{ours}: {statistics.median(each):.2f} times {peer} "
                f"({min(each):.2f} to {max(each):.2f})"
            )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    subjects.add_options(parser)
    parser.add_argument("--batch", type=int, default=32, help="utterances (default: 32)")
    parser.add_argument("--rounds", type=int, default=5, help="(default: 5)")
    parser.add_argument(
        "--sorted",
        type=int,
        default=0,
        metavar="N",
        help="give peers N utterances of like length at a time (default: all as they are)",
    )
    chosen = parser.parse_args()
    print(machine.facts("onnxruntime", "onnx-asr", "sherpa-onnx", "nemo-toolkit", "torch"))
    subject = subjects.subject(chosen.subject, chosen.weights)
    audio = seconds(batch(chosen.batch))
    print(
        f"{chosen.subject}, {chosen.weights}, {chosen.batch} utterances, {audio:.0f} s of audio, "
        f"{THREADS} threads, {chosen.rounds} rounds"
    )
    with ExitStack() as stack:
        measured = ways(stack, subject, Batch(chosen.batch, chosen.sorted))
        times: dict[str, list[float]] = {way: [] for way in measured}
        for _ in range(chosen.rounds):
            for way, recognise in measured.items():
                times[way].append(recognise())
    report(times, audio)


if __name__ == "__main__":
    main()
