"""Operators without weights: on single elements, on shapes, and along axes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from onnx import numpy_helper
from torch.nn import functional

from recipes.english.onnx_graph.node import SMALL, given

if TYPE_CHECKING:
    from collections.abc import Callable

    from recipes.english.onnx_graph.graph import Graph
    from recipes.english.onnx_graph.node import Node, Operator, Tensor

# ONNX's numbers of types: float32, float16 and float64; int32, int64 and bool.
_FLOATS = (1, 10, 11)
_BOOL = 9
_TYPES = {6: torch.int32, 7: torch.int64, _BOOL: torch.bool}


def _integers(tensor: Tensor) -> list[int]:
    return [int(one) for one in tensor.reshape(-1).tolist()]


def _binary(function: Callable[[Tensor, Tensor], Tensor]) -> Operator:
    def run(graph: Graph, _: Node, inputs: list[Tensor]) -> Tensor:
        """Apply it to two inputs, on one device."""
        return function(*graph.together(*inputs[:2]))

    return run


def _unary(function: Callable[[Tensor], Tensor]) -> Operator:
    def run(_: Graph, __: Node, inputs: list[Tensor]) -> Tensor:
        """Apply it to the input."""
        return function(inputs[0])

    return run


def _divide(one: Tensor, other: Tensor) -> Tensor:
    mode = None if one.dtype.is_floating_point else "trunc"
    return torch.div(one, other, rounding_mode=mode)


def _floor(_: Graph, node: Node, inputs: list[Tensor]) -> Tensor:
    # Biases are rounded to steps of the quantised inputs, which are not quantised here.
    return inputs[0] if "bias_quant" in node.outputs[0] else inputs[0].floor()


def _cast(graph: Graph, node: Node, inputs: list[Tensor]) -> Tensor:
    tensor, kind = inputs[0], node.attributes["to"]
    if "bias_quant" in node.outputs[0]:
        return tensor
    if kind in _FLOATS:
        return tensor.to(graph.device, torch.float32)
    tensor = tensor.to(_TYPES[kind])
    return tensor.cpu() if kind != _BOOL and tensor.numel() <= SMALL else tensor


def _shape(_: Graph, node: Node, inputs: list[Tensor]) -> Tensor:
    shape = list(inputs[0].shape)
    start, stop = node.attributes.get("start", 0), node.attributes.get("end", len(shape))
    return torch.tensor(shape[start:stop], dtype=torch.int64)


def _gather(_: Graph, node: Node, inputs: list[Tensor]) -> Tensor:
    tensor, index = inputs
    axis = node.axis(0) % tensor.dim()
    index = torch.where(index < 0, index + tensor.shape[axis], index).to(tensor.device)
    taken = tensor.index_select(axis, index.reshape(-1))
    return taken.reshape([*tensor.shape[:axis], *index.shape, *tensor.shape[axis + 1 :]])


def _unsqueeze(_: Graph, __: Node, inputs: list[Tensor]) -> Tensor:
    tensor, axes = inputs[0], _integers(inputs[1])
    for axis in sorted(one % (tensor.dim() + len(axes)) for one in axes):
        tensor = tensor.unsqueeze(axis)
    return tensor


def _squeeze(_: Graph, __: Node, inputs: list[Tensor]) -> Tensor:
    axes = [axis % inputs[0].dim() for axis in _integers(inputs[1])]
    return inputs[0].squeeze(tuple(axes))


def _reshape(_: Graph, __: Node, inputs: list[Tensor]) -> Tensor:
    shape = [inputs[0].shape[place] if size == 0 else size
             for place, size in enumerate(_integers(inputs[1]))]  # fmt: skip
    return inputs[0].reshape(shape)


def _transpose(_: Graph, node: Node, inputs: list[Tensor]) -> Tensor:
    return inputs[0].permute(list(node.attributes["perm"]))


def _concat(graph: Graph, node: Node, inputs: list[Tensor]) -> Tensor:
    return torch.cat(graph.together(*inputs), node.axis(0))


def _split(_: Graph, node: Node, inputs: list[Tensor]) -> tuple[Tensor, ...]:
    axis = node.axis(0)
    if len(inputs) > 1:
        return tuple(torch.split(inputs[0], _integers(inputs[1]), axis))
    return tuple(torch.chunk(inputs[0], len(node.outputs), axis))


def _slice(_: Graph, __: Node, inputs: list[Tensor]) -> Tensor:
    tensor, starts, stops = inputs[0], _integers(inputs[1]), _integers(inputs[2])
    chosen = given(inputs, 3)
    axes = range(len(starts)) if chosen is None else _integers(chosen)
    for start, stop, axis in zip(starts, stops, axes, strict=True):
        size = tensor.shape[axis]
        begin, end, _step = slice(start, stop).indices(size)
        tensor = tensor.narrow(axis, begin, max(0, end - begin))
    return tensor


def _expand(_: Graph, __: Node, inputs: list[Tensor]) -> Tensor:
    shape = torch.broadcast_shapes(tuple(inputs[0].shape), tuple(_integers(inputs[1])))
    return inputs[0].expand(shape)


def _constant_of_shape(graph: Graph, node: Node, inputs: list[Tensor]) -> Tensor:
    value = torch.zeros(1)
    if "value" in node.attributes:
        value = torch.from_numpy(np.array(numpy_helper.to_array(node.attributes["value"])))
    device = graph.device if value.dtype.is_floating_point else "cpu"
    return torch.full(_integers(inputs[0]), value.item(), dtype=value.dtype, device=device)


def _where(graph: Graph, _: Node, inputs: list[Tensor]) -> Tensor:
    return torch.where(*graph.together(*inputs))


def _pad(_: Graph, node: Node, inputs: list[Tensor]) -> Tensor:
    sizes = _integers(inputs[1])
    begin, end = sizes[len(sizes) // 2 - 1], sizes[-1]
    mode = node.attributes.get("mode", b"constant").decode()
    return functional.pad(inputs[0], (begin, end), mode=mode)


def _reduce(function: Callable[..., Tensor]) -> Operator:
    def run(_: Graph, node: Node, inputs: list[Tensor]) -> Tensor:
        """Apply it along the axes that the second input names."""
        keep = bool(node.attributes.get("keepdims", 1))
        return function(inputs[0], dim=_integers(inputs[1]), keepdim=keep)

    return run


def _quantize(_: Graph, __: Node, inputs: list[Tensor]) -> Tensor:
    return inputs[0]


ELEMENTS: dict[str, Operator] = {
    "Add": _binary(torch.add),
    "And": _binary(torch.logical_and),
    "Atan": _unary(lambda tensor: tensor.nan_to_num(nan=0.0).atan()),  # of 0 / 0, in silence
    "Cast": _cast,
    "Concat": _concat,
    "ConstantOfShape": _constant_of_shape,
    "Cos": _unary(torch.cos),
    "CumSum": lambda _, __, inputs: inputs[0].cumsum(int(inputs[1])),
    "Div": _binary(_divide),
    "DynamicQuantizeLinear": _quantize,
    "Equal": _binary(torch.eq),
    "Exp": _unary(torch.exp),
    "Expand": _expand,
    "Floor": _floor,
    "Gather": _gather,
    "Greater": _binary(torch.gt),
    "LeakyRelu": lambda _, node, inputs: functional.leaky_relu(
        inputs[0], node.attributes.get("alpha", 0.01)
    ),
    "Less": _binary(torch.lt),
    "MatMul": _binary(torch.matmul),
    "Mul": _binary(torch.mul),
    "Pad": _pad,
    "Pow": _binary(torch.pow),
    "ReduceMean": _reduce(torch.mean),
    "ReduceSum": _reduce(torch.sum),
    "Reshape": _reshape,
    "Shape": _shape,
    "Sigmoid": _unary(torch.sigmoid),
    "Sin": _unary(torch.sin),
    "Slice": _slice,
    "Softmax": lambda _, node, inputs: inputs[0].softmax(node.axis(-1)),
    "Split": _split,
    "Sqrt": _unary(torch.sqrt),
    "Squeeze": _squeeze,
    "Sub": _binary(torch.sub),
    "Tanh": _unary(torch.tanh),
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
    "Where": _where,
}
