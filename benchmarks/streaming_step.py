"""One step of streams: the deployed graph beside the graph that NeMo exports of the same weights.

Both are a session of ONNX Runtime with two threads, and take one chunk of 160 ms of as many streams
as a batch has, with full caches. They run in turn. Prints for each batch the milliseconds a stream
of both, and the ratio of ours to NeMo's: median, least and most of the rounds. So does CPU time,
which a busy machine changes less.

    python -m benchmarks.streaming_step --subject digits --weights fp32
"""

from __future__ import annotations

import argparse
import statistics
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime

from benchmarks import machine, subjects
from benchmarks.processes import THREADS
from riva_speech import repository
from riva_speech.sessions.opening import open_session

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    Inputs = dict[str, NDArray[Any]]

_BATCHES = (1, 8, 32)
_MELS = 80
_LENGTH = "cache_last_channel_len"
# Steps of the attention's cache, which is full: look-aheads of the subjects have 70.
_CACHED = 70


def ours(folder: Path, frames: int) -> tuple[Callable[[Inputs], object], Callable[[int], Inputs]]:
    """Return what runs a deployed graph, and what makes its inputs for a batch."""
    session = open_session(folder, threads=THREADS)
    tensors = repository.read_config(folder).inputs
    shapes = {one.name: one.dims for one in tensors if one.name.startswith("cache")}
    return session.run, lambda batch: _inputs(batch, frames, shapes)


def nemo_s(graph: Path) -> tuple[Callable[[Inputs], object], Callable[[int], Inputs], int]:
    """Return the same for NeMo's graph, and the feature frames of a chunk."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = THREADS
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
    told = session.get_modelmeta().custom_metadata_map
    shapes = {
        name: tuple(int(told[f"{name}_dim{axis}"]) for axis in (1, 2, 3))
        for name in ("cache_last_channel", "cache_last_time")
    }
    frames = int(told["window_size"])
    return (
        lambda inputs: session.run(None, inputs),
        lambda batch: _inputs(batch, frames, shapes),
        frames,
    )


def _inputs(batch: int, frames: int, caches: dict[str, tuple[int, ...]]) -> Inputs:
    """Return a chunk of noise, and caches of noise, for each stream of a batch."""
    rng = np.random.default_rng(0)
    shapes = {"audio_signal": (_MELS, frames), **caches}
    return {
        **{
            name: rng.normal(size=(batch, *shape)).astype(np.float32)
            for name, shape in shapes.items()
            if name != _LENGTH
        },
        "length": np.full(batch, frames, np.int64),
        _LENGTH: np.full(batch, _CACHED, np.int64),
    }


def _cost(run: Callable[[Inputs], object], inputs: Inputs) -> tuple[float, float]:
    """Return the wall-clock and the CPU seconds of one run."""
    began, computed = time.perf_counter(), time.process_time()
    run(inputs)
    return time.perf_counter() - began, time.process_time() - computed


def _line(batch: int, pairs: list[tuple[float, float]], what: str) -> str:
    ratios = [one / other for one, other in pairs]
    one, other = (1000 * statistics.median(side) / batch for side in zip(*pairs, strict=True))
    return (
        f"batch {batch:2}: {one:.2f} and {other:.2f} ms of {what} a stream, "
        f"{statistics.median(ratios):.2f} times NeMo's ({min(ratios):.2f} to {max(ratios):.2f})"
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    subjects.add_options(parser)
    parser.add_argument("--rounds", type=int, default=7)
    chosen = parser.parse_args()
    subject = subjects.subject(chosen.subject, chosen.weights)
    theirs, their_inputs, frames = nemo_s(subject.peer("streaming") / "model.onnx")
    (folder,) = subject.repository.glob("*-am-streaming")
    run, our_inputs = ours(folder, frames)
    print(machine.facts("onnxruntime", "nemo_toolkit"))
    for batch in _BATCHES:
        pair = (run, our_inputs(batch)), (theirs, their_inputs(batch))
        costs = [[_cost(*side) for side in pair] for _ in range(chosen.rounds + 1)][1:]
        for number, what in enumerate(("wall-clock time", "CPU time")):
            print(_line(batch, [(a[number], b[number]) for a, b in costs], what), flush=True)


if __name__ == "__main__":
    main()
