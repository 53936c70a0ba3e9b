"""Graphs as CUDA runs them well: without convolutions, and such that a run can be recorded."""

from __future__ import annotations

from typing import TYPE_CHECKING

from riva_speech.servicemaker.convolutions import replace_convolutions
from riva_speech.servicemaker.onnx_package import require_onnx

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import onnx

# ONNX Runtime keeps the addresses of what it joins in memory of this machine where there are more,
# and a run that is recorded may not read that ("CUDA Concat supports at most 32 inputs during CUDA
# Graph capture").
_MOST_JOINED = 32


def write_for_cuda(source: Path, target: Path) -> None:
    """Write a graph that computes the same; its weights stay where they are.

    Raises:
        UnsupportedError: The package onnx is not installed.
    """
    require_onnx("to be deployed, a model for CUDA needs")
    import onnx  # noqa: PLC0415 - optional

    model = onnx.load(source, load_external_data=False)
    replace_convolutions(model.graph)
    split_joins(model.graph)
    onnx.save(model, target)


def split_joins(graph: onnx.GraphProto) -> None:
    """Let a graph join many tensors in groups, in place, and then the groups."""
    nodes = [part for node in graph.node for part in _split(node)]
    del graph.node[:]
    graph.node.extend(nodes)


def _split(node: onnx.NodeProto) -> Iterator[onnx.NodeProto]:
    """Yield the nodes that do what one does."""
    from onnx import helper  # noqa: PLC0415 - optional

    inputs = list(node.input)
    if node.op_type != "Concat" or len(inputs) <= _MOST_JOINED:
        yield node
        return
    (axis,) = (entry.i for entry in node.attribute if entry.name == "axis")
    groups = []
    for begin in range(0, len(inputs), _MOST_JOINED):
        group = f"{node.output[0]}/{begin} of {len(inputs)}"
        groups.append(group)
        some = inputs[begin : begin + _MOST_JOINED]
        yield helper.make_node("Concat", some, [group], name=group, axis=axis)
    whole = helper.make_node("Concat", groups, list(node.output), name=node.name, axis=axis)
    yield from _split(whole)
