"""Constants of graphs that are written without their weights."""

from __future__ import annotations

from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from riva_speech.servicemaker.families.folding import fold
from riva_speech.servicemaker.families.sharing import Destination, shared_weights
from riva_speech.sessions.onnx import OnnxSession

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    Arrays = dict[str, NDArray[np.float32]]

pytestmark = pytest.mark.nemo

CHANNELS, WIDTH, STEPS = 6, 8, 20


def weights() -> Arrays:
    random = np.random.default_rng(0)
    shapes = {
        "kernel": (WIDTH, CHANNELS, 3),
        "bias": (WIDTH,),
        "scale": (WIDTH,),
        "shift": (WIDTH,),
        "mean": (WIDTH,),
        "pointwise": (WIDTH, WIDTH),
        "rows": (40, WIDTH),
    }
    made = {name: random.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    return {**made, "variance": random.uniform(0.5, 2, WIDTH).astype(np.float32)}


def graph(*, normalised_twice: bool = False) -> Any:
    """Return a graph without weights: a convolution, a normalisation, and two kinds of products."""
    from onnx import TensorProto, helper, numpy_helper  # noqa: PLC0415 - of the extra nemo

    statistics = ["scale", "shift", "same mean", "variance"]
    nodes = [
        helper.make_node("Constant", [], ["first"], value=numpy_helper.from_array(np.array(0))),
        helper.make_node("Constant", [], ["last"], value=numpy_helper.from_array(np.array([2]))),
        helper.make_node("Constant", [], ["half"], value=numpy_helper.from_array(np.float32(0.5))),
        helper.make_node("Identity", ["mean"], ["same mean"]),
        helper.make_node("Conv", ["x", "kernel", "bias"], ["heard"]),
        helper.make_node("BatchNormalization", ["heard", *statistics], ["normal"], epsilon=1e-3),
        helper.make_node("Transpose", ["normal"], ["steps"], perm=[0, 2, 1]),
        helper.make_node("Unsqueeze", ["pointwise", "last"], ["of one step"]),
        helper.make_node("Gather", ["of one step", "first"], ["matrix"], axis=2),
        helper.make_node("Transpose", ["matrix"], ["turned"], perm=[1, 0]),
        helper.make_node("MatMul", ["steps", "turned"], ["mixed"]),
        helper.make_node("Mul", ["rows", "half"], ["halves"]),
        helper.make_node("Transpose", ["halves"], ["columns"], perm=[1, 0]),
        helper.make_node("MatMul", ["mixed", "columns"], ["y"]),
    ]
    outputs = ["y", "heard"] if normalised_twice else ["y"]
    given = {"x": (1, CHANNELS, STEPS)} | {name: one.shape for name, one in weights().items()}
    return helper.make_graph(
        nodes,
        "folded",
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in given.items()],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
    )


def save(made: Any, path: Path) -> OnnxSession:
    from onnx import helper, save_model  # noqa: PLC0415 - as above

    opsets = [helper.make_opsetid("", 17)]
    save_model(helper.make_model(made, opset_imports=opsets, ir_version=8), path)
    return OnnxSession(path, as_written=True)


@pytest.mark.parametrize("twice", [False, True], ids=["read once", "read twice"])
def test_a_folded_graph_computes_the_same(tmp_path: Path, twice: bool) -> None:  # noqa: FBT001 - a case
    """What only rearranges weights, or multiplies them, is gone.

    A normalisation is too, where only it reads its input.
    """
    x = np.random.default_rng(1).normal(size=(1, CHANNELS, STEPS)).astype(np.float32)
    arrays = weights()
    expected = save(graph(normalised_twice=twice), tmp_path / "plain.onnx").run({"x": x, **arrays})
    folded = graph(normalised_twice=twice)

    used = fold(folded, {name: partial(np.copy, one) for name, one in arrays.items()})
    del folded.input[1:]
    with shared_weights(tmp_path / "weights.bin") as shared:
        folded.initializer.extend(shared.tensor(name, load()) for name, load in used.items())

    found = save(folded, tmp_path / "folded.onnx").run({"x": x})
    assert all(np.allclose(found[name], value, atol=1e-4) for name, value in expected.items())
    kinds = Counter(node.op_type for node in folded.node)
    kept = {"BatchNormalization": 1} if twice else {}
    assert kinds == {"Constant": 3, "Conv": 1, "Transpose": 1, "MatMul": 2, **kept}


def test_what_only_a_branch_or_the_caller_reads_is_kept(tmp_path: Path) -> None:
    """A branch reads names from around it, and a constant may itself be what is asked for.

    A convolution whose output a branch reads is not given normalised weights.
    """
    from onnx import TensorProto, helper  # noqa: PLC0415 - of the extra nemo

    def value(name: str, kind: int = TensorProto.FLOAT) -> Any:
        return helper.make_tensor_value_info(name, kind, None)

    def branch(name: str, *nodes: Any) -> Any:
        return helper.make_graph(nodes, name, [], [value(name)])

    def made() -> Any:
        statistics = ["scale", "shift", "mean", "variance"]
        then = branch("sum", helper.make_node("Mul", ["heard", "rows of it"], ["sum"]))
        other = branch("same", helper.make_node("Identity", ["normal"], ["same"]))
        nodes = [
            helper.make_node("Identity", ["kernel"], ["same kernel"]),
            helper.make_node("Transpose", ["turned rows"], ["rows of it"], perm=[0, 2, 1]),
            helper.make_node("Conv", ["x", "same kernel"], ["heard"]),
            helper.make_node("BatchNormalization", ["heard", *statistics], ["normal"]),
            helper.make_node("If", ["loud"], ["y"], then_branch=then, else_branch=other),
        ]
        given = [value("x"), value("loud", TensorProto.BOOL), *map(value, arrays)]
        return helper.make_graph(nodes, "branched", given, [value("y"), value("rows of it")])

    random = np.random.default_rng(2)
    names = ("kernel", "scale", "shift", "mean", "variance")
    arrays = {name: one for name, one in weights().items() if name in names}
    arrays["turned rows"] = random.normal(size=(1, 1, WIDTH)).astype(np.float32)
    x = random.normal(size=(1, CHANNELS, STEPS)).astype(np.float32)
    folded = made()

    used = fold(folded, {name: partial(np.copy, one) for name, one in arrays.items()})
    del folded.input[2:]
    with shared_weights(tmp_path / "weights.bin") as shared:
        folded.initializer.extend(shared.tensor(name, load()) for name, load in used.items())

    plain, ours = save(made(), tmp_path / "plain.onnx"), save(folded, tmp_path / "folded.onnx")
    for loud in (False, True):
        given = {"x": x, "loud": np.array(loud)}
        expected, found = plain.run({**given, **arrays}), ours.run(given)
        assert all(np.allclose(found[name], one, atol=1e-4) for name, one in expected.items())


def test_a_weight_has_one_name_and_a_table_is_stored_with_the_weights(tmp_path: Path) -> None:
    """The tracer is given no weight twice, and the graph holds neither weights nor tables."""
    import torch  # noqa: PLC0415 - comes with the extra nemo

    from riva_speech.servicemaker.families import graphs, tracing  # noqa: PLC0415 - needs torch

    torch.manual_seed(0)
    linear, table = torch.nn.Linear(80, 80), torch.randn(STEPS, 80)
    part = torch.nn.Sequential(linear, torch.nn.ReLU(), linear)
    module = tracing.ForExport(part, lambda x: part(x) + table)
    x, path, stored = torch.randn(3, STEPS, 80), tmp_path / "g.onnx", tmp_path / "weights.bin"
    interface = tracing.Interface(["x"], ["y"], {"x": {0: "batch"}, "y": {0: "batch"}})

    assert list(tracing.distinct_weights(module)) == ["part.0.weight", "part.0.bias"]
    with graphs.quiet(path), shared_weights(stored) as shared:
        tracing.write_graph(module, (x,), path, interface, Destination(shared, 17))

    with torch.inference_mode():
        expected = module(x).numpy()
    found = OnnxSession(path, as_written=True).run({"x": x.numpy()})["y"]
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert path.stat().st_size < table.nbytes < stored.stat().st_size
