"""Graphs for CUDA: products in the place of convolutions, and joins of few tensors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from riva_speech.archive import open_archive
from riva_speech.repository import VERSION, read_config
from riva_speech.servicemaker.for_cuda import write_for_cuda
from riva_speech.servicemaker.pipelines import layout
from riva_speech.servicemaker.pipelines.writing import Source, write_acoustic_model, write_pipeline
from riva_speech.servicemaker.targets import FP32, ONNX_RUNTIME_CUDA, Target
from riva_speech.servicemaker.verification import Recording, check
from riva_speech.sessions.onnx import OnnxSession
from riva_speech.sessions.opening import GRAPH_FILE

onnx = pytest.importorskip("onnx", reason="needs the package onnx (extra 'nemo')")
pytestmark = pytest.mark.nemo  # what brings onnx

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

BATCH, MOST = 2, 12


@st.composite
def convolutions(draw: Callable[..., Any]) -> dict[str, Any]:
    """Draw a convolution over one axis or two, of all channels or of each by itself."""
    axes = draw(st.integers(1, 2))
    sizes = st.integers(1, 3)
    kernel = draw(st.lists(sizes, min_size=axes, max_size=axes))
    inputs = draw(sizes)
    is_depthwise = draw(st.booleans())
    outputs = inputs if is_depthwise else draw(sizes)
    said = {
        "strides": draw(st.lists(sizes, min_size=axes, max_size=axes)),
        "dilations": draw(st.lists(sizes, min_size=axes, max_size=axes)),
        "pads": draw(st.lists(st.integers(0, 2), min_size=2 * axes, max_size=2 * axes)),
        "group": inputs if is_depthwise else 1,
    }
    left_out = draw(st.sets(st.sampled_from(["strides", "dilations", "pads"])))
    return {
        "weight": (outputs, 1 if is_depthwise else inputs, *kernel),
        "has_bias": draw(st.booleans()),
        "attributes": {name: value for name, value in said.items() if name not in left_out},
        "channels": inputs,
    }


def graph(path: Path, *, weight: tuple[int, ...], has_bias: bool, channels: int,
          attributes: dict[str, Any]) -> Path:  # fmt: skip
    """Write a graph of one convolution over axes of any length."""
    rng = np.random.default_rng(0)
    helper, numpy_helper = onnx.helper, onnx.numpy_helper
    constants = {"weight": rng.normal(size=weight)} | (
        {"bias": rng.normal(size=weight[:1])} if has_bias else {}
    )
    node = helper.make_node("Conv", ["signal", *constants], ["heard"], **attributes)
    axes = [f"axis{number}" for number in range(len(weight) - 2)]
    kind = onnx.TensorProto.FLOAT
    model = helper.make_model(
        helper.make_graph(
            [node],
            "one",
            [helper.make_tensor_value_info("signal", kind, ["batch", channels, *axes])],
            [helper.make_tensor_value_info("heard", kind, None)],
            [numpy_helper.from_array(v.astype(np.float32), n) for n, v in constants.items()],
        ),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )
    onnx.save(model, path)
    return path


def heard(path: Path, signal: NDArray[np.float32]) -> NDArray[np.float32]:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    values: NDArray[np.float32] = session.run(["heard"], {"signal": signal})[0]
    return values


def kinds(path: Path) -> list[str]:
    return [node.op_type for node in onnx.load(path, load_external_data=False).graph.node]


@settings(deadline=None)
@given(convolution=convolutions(), lengths=st.lists(st.integers(7, MOST), min_size=2, max_size=2))
def test_products_give_what_the_convolution_gives(
    tmp_path_factory: pytest.TempPathFactory, convolution: dict[str, Any], lengths: list[int]
) -> None:
    """Of any kernel, stride, dilation and padding, and for any length."""
    folder = tmp_path_factory.mktemp("graphs")
    source = graph(folder / "source.onnx", **convolution)
    write_for_cuda(source, folder / "target.onnx")

    shape = (BATCH, convolution["channels"], *lengths[: len(convolution["weight"]) - 2])
    signal = np.random.default_rng(1).normal(size=shape).astype(np.float32)
    expected, found = heard(source, signal), heard(folder / "target.onnx", signal)

    assert "Conv" not in kinds(folder / "target.onnx")
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "attributes",
    [{"group": 2, "pads": [1, 1]}, {"group": 1, "auto_pad": "SAME_UPPER"}],
    ids=["two groups of two channels", "padding that follows from the length"],
)
def test_what_is_of_another_kind_stays(tmp_path: Path, attributes: dict[str, Any]) -> None:
    """It is left as it is, and gives what it gave."""
    weight = (4, 4 // attributes["group"], 3)
    source = graph(
        tmp_path / "source.onnx", weight=weight, has_bias=True, channels=4, attributes=attributes
    )

    write_for_cuda(source, tmp_path / "target.onnx")

    assert kinds(tmp_path / "target.onnx") == ["Conv"]
    signal = np.random.default_rng(1).normal(size=(BATCH, 4, MOST)).astype(np.float32)
    assert np.array_equal(heard(source, signal), heard(tmp_path / "target.onnx", signal))


@pytest.mark.parametrize("count", [2, 32, 33, 70, 1100])
def test_many_tensors_are_joined_in_groups(tmp_path: Path, count: int) -> None:
    """No join is of more than a recorded run may have, and what they give is the same."""
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    names = [f"part{number}" for number in range(count)]
    model = helper.make_model(
        helper.make_graph(
            [helper.make_node("Concat", names, ["whole"], axis=1)],
            "joined",
            [helper.make_tensor_value_info(name, kind, ["batch", 2]) for name in names],
            [helper.make_tensor_value_info("whole", kind, None)],
        ),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )
    onnx.save(model, tmp_path / "source.onnx")

    write_for_cuda(tmp_path / "source.onnx", tmp_path / "target.onnx")

    graph = onnx.load(tmp_path / "target.onnx").graph
    assert max(len(node.input) for node in graph.node) <= 32
    parts = {name: np.full((1, 2), float(name[4:]), np.float32) for name in names}
    session = onnxruntime.InferenceSession(
        str(tmp_path / "target.onnx"), providers=["CPUExecutionProvider"]
    )
    assert np.array_equal(session.run(["whole"], parts)[0], np.hstack([*parts.values()]))


def test_what_is_deployed_for_cuda_has_products(tmp_path: Path, tiny_rmir: Path) -> None:
    """Each graph beside its weights as they are, said to be for a GPU, and equal to its source."""
    target = Target(runtime=ONNX_RUNTIME_CUDA)
    (tmp_path / "source").mkdir()
    with open_archive(tiny_rmir, kind="rmir") as rmir:
        source = Source(rmir, tmp_path / "source")
        for pipeline in layout.pipelines_of(rmir):
            models = layout.acoustic_models(pipeline, target)
            for model in models:
                write_acoustic_model(source, pipeline, model, tmp_path / model.directory, target)
            name = layout.pipeline_directory(pipeline)
            write_pipeline(rmir, pipeline, tmp_path / name, target)
            sources = {model.directory: source.graph(model) for model in models}
            recording = Recording(tmp_path / name, sources)

            for model in models:
                folder = tmp_path / model.directory
                graph = folder / VERSION / GRAPH_FILE
                (weights,) = source.weights()
                assert (graph.parent / weights.name).samefile(weights)
                assert read_config(folder).on_gpu
                assert "Conv" not in kinds(graph)
                check(recording, model.directory, OnnxSession(graph), target.tolerance(FP32))
