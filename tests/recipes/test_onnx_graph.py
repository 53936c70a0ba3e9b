"""The recipe's ONNX graph in PyTorch, held against ONNX Runtime on the same file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime
import pytest

if TYPE_CHECKING:
    from pathlib import Path

onnx = pytest.importorskip("onnx", reason="needs the package onnx (extra 'nemo')")
pytestmark = pytest.mark.nemo  # what brings torch and onnx

_OPSET = 18


def floats(*shape: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Return the same normal values for a shape every time."""
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(np.float32)


def integers(*values: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    return np.array(values, np.int64)


X = floats(2, 4, 20)
# Nodes as (operator, inputs, output, attributes), and the constants that they read.
CASES: dict[str, tuple[list[tuple[str, str, str, dict[str, Any]]], dict[str, Any]]] = {
    "convolutions": (
        [
            ("Conv", "x w b", "a", {"pads": [2, 1], "dilations": [1]}),
            ("LeakyRelu", "a", "c", {"alpha": 0.2}),
            ("ConvTranspose", "c v d", "e", {"strides": [2], "pads": [1, 1]}),
            ("Resize", "e  s", "y", {"mode": "linear"}),
        ],
        {
            "w": floats(6, 4, 3),
            "b": floats(6),
            "v": floats(6, 3, 4),
            "d": floats(3),
            "s": np.array([1, 1, 2], np.float32),
        },
    ),
    "norms": (
        [
            ("LayerNormalization", "x g h", "a", {"axis": -1}),
            ("ReduceMean", "a i", "m", {"keepdims": 1}),
            ("Sub", "a m", "c", {}),
            ("Tanh", "c", "t", {}),
            ("Softmax", "t", "y", {"axis": -1}),
        ],
        {"g": floats(20), "h": floats(20), "i": integers(1)},
    ),
    "shapes": (
        [
            ("Shape", "x", "n", {}),
            ("Gather", "n two", "k", {"axis": 0}),
            ("Concat", "minus k", "r", {"axis": 0}),
            ("Reshape", "x r", "f", {}),
            ("Slice", "f begin end axis", "p", {}),
            ("Transpose", "p", "q", {"perm": [1, 0]}),
            ("Unsqueeze", "q front", "u", {}),
            ("Pad", "u pads", "v", {"mode": "reflect"}),
            ("Squeeze", "v front", "y", {}),
        ],
        {
            "two": integers(2),
            "minus": integers(-1),
            "begin": integers(-9),
            "end": integers(-1),
            "axis": integers(1),
            "front": integers(0),
            "pads": integers(0, 0, 2, 0, 0, 1),
        },
    ),
    "choices": (
        [
            ("Greater", "x zero", "p", {}),
            ("Where", "p x zero", "a", {}),
            ("CumSum", "a last", "c", {}),
            ("Floor", "c", "e", {}),
            ("Expand", "e more", "y", {}),
        ],
        {
            "zero": np.zeros((), np.float32),
            "last": np.array(2, np.int64),
            "more": integers(3, 1, 1, 20),
        },
    ),
    "snake": (
        [
            ("ReduceMean", "x i", "m", {"keepdims": 1}),
            ("Sub", "x m", "c", {}),
            ("Mul", "c c", "q", {}),
            ("ReduceMean", "q i", "v", {"keepdims": 1}),
            ("Add", "v small", "e", {}),
            ("Sqrt", "e", "s", {}),
            ("Div", "c s", "n", {}),
            ("Mul", "factor n", "f", {}),
            ("Add", "f offset", "o", {}),
            ("Mul", "alpha o", "a", {}),
            ("Sin", "a", "h", {}),
            ("Pow", "h two", "p", {}),
            ("Mul", "reciprocal p", "r", {}),
            ("Add", "o r", "y", {}),
        ],
        {
            "i": integers(2),
            "small": np.array(1e-5, np.float32),
            "two": np.array(2, np.float32),
            "factor": floats(2, 4, 1),
            "offset": floats(1, 4, 1),
            "alpha": 2 + floats(1, 4, 1) / 9,
            "reciprocal": 1 / (2 + floats(1, 4, 1) / 9),
        },
    ),
    "quantised convolution": (
        [
            ("DynamicQuantizeLinear", "x", "t u z", {}),
            ("Mul", "u scale", "s", {}),
            ("ConvInteger", "t w z zero", "c", {"pads": [1, 1]}),
            ("Div", "b s", "d", {}),
            ("Floor", "d", "b_bias_quant", {}),
            ("Cast", "b_bias_quant", "k_bias_quant", {"to": onnx.TensorProto.INT32}),
            ("Add", "c k_bias_quant", "a", {}),
            ("Cast", "a", "f", {"to": onnx.TensorProto.FLOAT}),
            ("Mul", "f s", "y", {}),
        ],
        {
            "w": np.random.default_rng(0).integers(0, 255, (6, 4, 3)).astype(np.uint8),
            "zero": np.array(128, np.uint8),
            "scale": np.array(0.01, np.float32),
            "b": floats(1, 6, 1),
        },
    ),
}
# What a case may be off by: 8 bits of the input are not rounded in the recipe's graph.
COARSE = {"quantised convolution": 0.15}
# What groups of operators are run as.
GROUPS = {
    "snake": ["InstanceNorm", "AdaptiveSnake"],
    "quantised convolution": ["ScaledConvolution"],
}


@pytest.mark.parametrize("name", CASES)
def test_operators_are_those_of_onnx(name: str, tmp_path: Path) -> None:
    """Every value is ONNX Runtime's, within what floating point leaves open."""
    import torch  # noqa: PLC0415 - as above

    from recipes.english.onnx_graph import Graph  # noqa: PLC0415 - needs both

    nodes, constants = CASES[name]
    graph = onnx.helper.make_graph(
        [
            onnx.helper.make_node(kind, inputs.split(" "), outputs.split(" "), **attributes)
            for kind, inputs, outputs, attributes in nodes
        ],
        name,
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, X.shape)],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)],
        [onnx.numpy_helper.from_array(value, key) for key, value in constants.items()],
    )
    versions = [onnx.helper.make_opsetid("", _OPSET)]
    model = onnx.helper.make_model(graph, opset_imports=versions, ir_version=8)
    onnx.save(model, tmp_path / "graph.onnx")
    session = onnxruntime.InferenceSession(str(tmp_path / "graph.onnx"))
    (expected,) = session.run(["y"], {"x": X})
    mine = Graph(tmp_path / "graph.onnx", "cpu")
    (found,) = mine.run({"x": torch.from_numpy(X)}, ["y"])
    near = COARSE.get(name, 1e-4)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-4, atol=near)
    kinds = [node.kind for node, _ in mine.plan(["x"], ["y"]) if "Quantize" not in node.kind]
    assert kinds == GROUPS.get(name, kinds)
