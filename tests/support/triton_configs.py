"""What a deployed config.pbtxt says, held against its graph as Triton's own backend would.

The rules are those that Triton states for its ONNX Runtime backend: every tensor of the graph by
name and type; where batches are declared, a first dimension of any size in front of ``dims`` (or of
``reshape``, where there is one); and every other dimension as in the graph, or -1 where the graph
takes any.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnxruntime
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as triton

from riva_speech.repository import CONFIG_FILE
from riva_speech.sessions.opening import GRAPH_FILE

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

_TYPES = {
    "tensor(float)": triton.TYPE_FP32,
    "tensor(int64)": triton.TYPE_INT64,
    "tensor(int32)": triton.TYPE_INT32,
}


def configured(folder: Path) -> triton.ModelConfig:
    """Parse a model's configuration with Triton's schema, and nothing else."""
    text = (folder / CONFIG_FILE).read_text()
    return text_format.Parse(text, triton.ModelConfig())


def session(folder: Path) -> onnxruntime.InferenceSession:
    """Load the graph of a deployed model."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    graph = str(folder / "1" / GRAPH_FILE)
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


def graph_shape(tensor: triton.ModelInput, *, batched: bool) -> list[int]:
    """Return the shape that Triton gives a tensor; -1 is any size."""
    dims = tensor.reshape.shape if tensor.HasField("reshape") else tensor.dims
    return [-1, *dims] if batched else list(dims)


def faults(config: triton.ModelConfig, graph: onnxruntime.InferenceSession) -> Iterable[str]:
    """Return where Triton's backend would refuse to load a model."""
    for kind, ours, theirs in (
        ("input", config.input, graph.get_inputs()),
        ("output", config.output, graph.get_outputs()),
    ):
        tensors = {tensor.name: tensor for tensor in theirs}
        if set(tensors) != {tensor.name for tensor in ours}:
            yield f"{kind}s are {set(tensors)}"
            continue
        for tensor in ours:
            known = tensors[tensor.name]
            shape = graph_shape(tensor, batched=bool(config.max_batch_size))
            if _TYPES[known.type] != tensor.data_type:
                yield f"{tensor.name} is {known.type}"
            sizes = [size if isinstance(size, int) else -1 for size in known.shape]
            if len(sizes) != len(shape) or any(
                theirs not in (-1, mine) for mine, theirs in zip(shape, sizes, strict=False)
            ):
                yield f"{tensor.name} has {known.shape}, and {shape} is declared"


def models(repository: Path) -> list[Path]:
    """Return the folders of the acoustic models."""
    return sorted(repository.glob("riva-onnx-*"))


def check(repository: Path) -> None:
    """Hold the configuration of every acoustic model against its graph."""
    folders = models(repository)
    assert folders
    for folder in folders:
        config = configured(folder)
        assert (config.name, config.backend) == (folder.name, "onnxruntime")
        assert list(faults(config, session(folder))) == [], folder.name
        preferred = [*config.dynamic_batching.preferred_batch_size]
        assert all(1 <= size <= config.max_batch_size for size in preferred)
