"""How much of what a model's run takes is its products, at the rate that ONNX Runtime reaches.

The batch of offline_throughput is encoded on one thread, in runs of utterances that go together, as
the server joins them. Its products with weights are then computed alone, as one operator each over
long enough a matrix. In each round both are timed, in CPU seconds, one after the other. No change
of a graph can make it faster than its products are: what is printed is what they take, what the
runs take, and the share, median and quartiles.

    python -m benchmarks.share_of_peak --subject english
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Any

from benchmarks import machine, subjects
from benchmarks.utterances import RATE, batch, seconds

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from riva_speech.asr.offline import OfflineRecognizer

Shape = tuple[int, int]
# Rows of the matrices that products alone are timed with, which more would not make quicker; and
# how often each is computed in a round: the quickest counts.
_ROWS = 512
_TRIES = 5
_MATRIX = 2  # dimensions


def thread_seconds(compute: Callable[[], object]) -> float:
    """Return the CPU time of this thread that something takes."""
    began = time.thread_time()
    compute()
    return time.thread_time() - began


def quickest(compute: Callable[[], object]) -> float:
    """Return the least CPU time that something takes."""
    return min(thread_seconds(compute) for _ in range(_TRIES))


def products(graph: Path) -> Counter[Shape]:
    """Return how many products with a constant matrix, [inputs, outputs], a graph has."""
    import onnx

    model = onnx.load(graph, load_external_data=False)
    constants = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    found: Counter[Shape] = Counter()
    for node in model.graph.node:
        shape = constants.get(node.input[1]) if node.op_type in ("MatMul", "Gemm") else None
        if shape and len(shape) == _MATRIX:
            first, second = shape
            turned = any(entry.name == "transB" and entry.i for entry in node.attribute)
            found[(second, first) if turned else (first, second)] += 1
    return found


def product(shape: Shape) -> Callable[[], object]:
    """Return what multiplies rows with a matrix of some shape, as ONNX Runtime does."""
    import numpy as np  # after its threads are chosen
    import onnxruntime
    from onnx import TensorProto, helper, numpy_helper

    random = np.random.default_rng(0)
    weight = numpy_helper.from_array(random.normal(size=shape).astype(np.float32), "weight")
    rows, result = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [_ROWS, width])
        for name, width in zip(("rows", "result"), shape, strict=True)
    )
    node = helper.make_node("MatMul", ["rows", "weight"], ["result"])
    graph = helper.make_graph([node], "product", [rows], [result], [weight])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    inputs = {"rows": random.normal(size=(_ROWS, shape[0])).astype(np.float32)}
    return lambda: session.run(None, inputs)


def recognizer(repository: Path) -> OfflineRecognizer:
    """Return the recogniser for whole utterances, which runs on one thread."""
    from riva_speech.asr.offline import OfflineRecognizer
    from riva_speech.server.grpc_server import load_and_warm_up
    from riva_speech.server.registry import Wanted
    from riva_speech.sessions.opening import opener

    found = load_and_warm_up(repository, opener(1)).offline(Wanted("", "", RATE))
    assert isinstance(found, OfflineRecognizer)
    return found


def joined(one: OfflineRecognizer, utterances: Sequence[bytes]) -> list[list[NDArray[Any]]]:
    """Return the features of utterances, those together that share a run."""
    from benchmarks.offline_worker import samples

    runs: dict[Hashable, list[NDArray[Any]]] = {}
    for features in map(one.log_mel, map(samples, utterances)):
        runs.setdefault(one.kind(features), []).append(features)
    return list(runs.values())


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--subject", choices=subjects.SUBJECTS, default="digits")
    parser.add_argument("--batch", type=int, default=32, help="utterances (default: 32)")
    parser.add_argument("--rounds", type=int, default=9, help="(default: 9)")
    chosen = parser.parse_args()
    # As start-riva does, before NumPy is imported.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    print(machine.facts("onnxruntime"))
    repository = subjects.subject(chosen.subject, "fp32").repository
    one = recognizer(repository)
    utterances = batch(chosen.batch)
    runs = joined(one, utterances)
    steps = sum(len(rows) for run in runs for rows in one.run(run))
    (graph,) = repository.glob("*-offline-am-*/1/model.onnx")
    counted = {product(shape): count for shape, count in products(graph).items()}
    alone, inside = [], []
    for _ in range(chosen.rounds):
        per_row = sum(n * quickest(compute) for compute, n in counted.items()) / _ROWS
        alone.append(steps * per_row)
        inside.append(sum(thread_seconds(partial(one.run, run)) for run in runs))
    low, middle, high = statistics.quantiles(
        [100 * a / b for a, b in zip(alone, inside, strict=True)], n=4, method="inclusive"
    )
    print(
        f"{chosen.subject}, {seconds(utterances):.0f} s of audio, {steps} steps, {len(runs)} runs: "
        f"products alone {statistics.median(alone):.3f} s, runs {statistics.median(inside):.3f} s, "
        f"share {middle:.0f} % ({low:.0f} to {high:.0f})"
    )


if __name__ == "__main__":
    main()
