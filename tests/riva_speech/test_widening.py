"""Graphs of int8 weights for GPUs: the rounded matrices, and no other rounding."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest

from riva_speech.archive import open_archive
from riva_speech.servicemaker.engines import lower
from riva_speech.servicemaker.for_cuda import write_for_cuda
from riva_speech.servicemaker.pipelines import layout
from riva_speech.servicemaker.pipelines.writing import Source
from riva_speech.servicemaker.quantisation import quantise
from riva_speech.servicemaker.targets import FP16, ONNX_RUNTIME_CUDA, Target
from riva_speech.servicemaker.widening import in_floating_point
from riva_speech.sessions.onnx import OnnxSession
from support.gpu_at_hand import gpu_at_hand
from support.programs import succeed

onnx = pytest.importorskip("onnx", reason="needs the package onnx (extra 'nemo')")
pytestmark = pytest.mark.nemo  # what brings onnx

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    Array = NDArray[np.float32]

STEPS, INNER, OUTER = 5, 6, 4
HALF_OF_INT8 = 63


def rounded(matrix: Array) -> Array:
    """Return a matrix [in, out] as 127 levels a column store it."""
    scale = np.abs(matrix).max(axis=0) / HALF_OF_INT8
    return np.round(matrix / scale) * scale


@pytest.fixture
def weights() -> dict[str, Array]:
    rng = np.random.default_rng(0)
    shapes = {
        "matrix": (INNER, OUTER),
        "kernel": (OUTER, OUTER, 1),
        "bias": (OUTER,),
    }
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


@pytest.fixture
def graph(tmp_path: Path, weights: dict[str, Array]) -> Path:
    """A graph in integers: two products with one matrix, and a convolution of single steps."""
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    nodes = [
        helper.make_node("MatMul", ["x", "matrix"], ["once"]),
        helper.make_node("MatMul", ["x", "matrix"], ["twice"]),
        helper.make_node("Add", ["once", "twice"], ["total"]),
        helper.make_node("Transpose", ["total"], ["channels"], perm=[0, 2, 1]),
        helper.make_node("Conv", ["channels", "kernel", "bias"], ["heard"]),
        helper.make_node("Relu", ["heard"], ["y"]),
    ]
    model = helper.make_model(
        helper.make_graph(
            nodes,
            "graph",
            [helper.make_tensor_value_info("x", kind, [1, STEPS, INNER])],
            [helper.make_tensor_value_info("y", kind, None)],
            [onnx.numpy_helper.from_array(array, name) for name, array in weights.items()],
        ),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )
    onnx.save(model, tmp_path / "graph.onnx")
    quantise([tmp_path / "graph.onnx"], tmp_path / "weights.bin")
    return tmp_path / "graph.onnx"


def kinds(path: Path) -> list[str]:
    return [node.op_type for node in onnx.load(path, load_external_data=False).graph.node]


def test_only_the_weights_are_rounded(graph: Path, weights: dict[str, Array]) -> None:
    """What comes out is what the rounded matrices give, to the last bits of 32."""
    x = np.random.default_rng(1).normal(size=(1, STEPS, INNER)).astype(np.float32)
    kernel = rounded(weights["kernel"][:, :, 0].T)
    total = 2 * x @ rounded(weights["matrix"])
    expected = np.maximum(total @ kernel + weights["bias"], 0).transpose(0, 2, 1)

    widened, for_cuda = in_floating_point(graph), graph.with_name("cuda.onnx")
    write_for_cuda(widened, for_cuda)

    for target in (widened, for_cuda):
        np.testing.assert_allclose(OnnxSession(target).run({"x": x})["y"], expected, atol=1e-5)


def test_no_product_in_integers_is_left(graph: Path) -> None:
    """Each matrix is widened once, however often it is multiplied with."""
    found = kinds(in_floating_point(graph))

    assert found.count("MatMul") == 3
    assert found.count("DequantizeLinear") == 2
    assert not {"MatMulInteger", "DynamicQuantizeLinear", "Cast"}.intersection(found)


def test_half_precision_keeps_the_scales(graph: Path) -> None:
    """They are numbers of 32 bits, or no runtime takes the graph."""
    lowered = lower(in_floating_point(graph), FP16, graph.with_name("half.onnx"))
    x = np.random.default_rng(1).normal(size=(1, STEPS, INNER)).astype(np.float32)

    found = OnnxSession(lowered).run({"x": x})["y"]

    np.testing.assert_allclose(found, OnnxSession(graph).run({"x": x})["y"], atol=0.2)


def test_a_graph_without_integers_is_taken_as_it_is(tmp_path: Path, tiny_rmir: Path) -> None:
    with open_archive(tiny_rmir, kind="rmir") as rmir:
        source = Source(rmir, tmp_path)
        (model, *_), *_ = (
            layout.acoustic_models(pipeline, Target(runtime=ONNX_RUNTIME_CUDA))
            for pipeline in layout.pipelines_of(rmir)
        )
        assert in_floating_point(source.graph(model)) == source.graph(model)


def test_engines_are_built_of_int8_weights(tmp_path: Path, tiny_riva: Path) -> None:
    """TensorRT knows no products in integers; nothing but these is another in the engine."""
    rmir, report = tmp_path / "tiny.rmir", tmp_path / "report.json"
    succeed("riva-build", "speech_recognition", rmir, tiny_riva, "--name=tiny", "--offline",
            "--nn.weights=int8")  # fmt: skip

    with gpu_at_hand():
        succeed("riva-deploy", "--runtime=tensorrt", rmir, tmp_path / "models", "--report", report)

    (model,) = json.loads(report.read_text())["models"]
    (engine,) = [entry for entry in model["deployment"] if "tolerance" in entry]
    assert engine["largest_difference"] < 1e-4 < engine["tolerance"] < 0.01
