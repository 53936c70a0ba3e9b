"""Run parts of an ONNX graph in PyTorch, many utterances at once.

Only the operators of Kokoro's graph are here. Quantised operators run in floating point: their
integer weights are scaled back, and inputs are not rounded. Shapes and other small integers stay
on the CPU, so that reading them does not wait for the device.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import onnx
import torch
from onnx import helper, numpy_helper
from torch.nn import functional

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    Values = dict[str, Any]
    Operator = Callable[["Graph", "Node", list[Any]], Any]

Tensor: TypeAlias = Any

SMALL = 4096
_FLOATS = (1, 10, 11)
_TYPES = {6: torch.int32, 7: torch.int64, 9: torch.bool}


@dataclass(frozen=True)
class Node:
    """One operation of the graph."""

    kind: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: dict[str, Any]

    def axis(self, default: int) -> int:
        """Return the axis that it works along."""
        return int(self.attributes.get("axis", default))


class Graph:
    """An ONNX graph whose values can be given and asked for by name."""

    def __init__(self, path: Path, device: str) -> None:
        """Load the graph's weights onto a device."""
        graph = onnx.load(str(path)).graph
        self.device = torch.device(device)
        self.constants: Values = {
            one.name: self._constant(numpy_helper.to_array(one)) for one in graph.initializer
        }
        self.nodes: list[Node] = []
        for one in graph.node:
            attributes = {each.name: helper.get_attribute_value(each) for each in one.attribute}
            if one.op_type == "Constant":
                array = numpy_helper.to_array(attributes["value"])
                self.constants[one.output[0]] = self._constant(array)
            else:
                self.nodes.append(
                    Node(one.op_type, tuple(one.input), tuple(one.output), attributes)
                )
        self.made: dict[Any, Any] = {}
        self._fold()

    def _constant(self, array: Any) -> Tensor:  # noqa: ANN401 - onnx has no types
        tensor = torch.from_numpy(np.array(array, order="C"))
        if tensor.dtype.is_floating_point:
            return tensor.to(self.device, torch.float32)
        return tensor.to(self.device) if tensor.numel() > SMALL else tensor

    def _fold(self) -> None:
        """Work out once what does not depend on the inputs; quantisation scales are all 1."""
        left = []
        for node in self.nodes:
            if node.kind == "DynamicQuantizeLinear":
                self.constants[node.outputs[1]] = torch.ones((), device=self.device)
                self.constants[node.outputs[2]] = None
            if node.kind not in OPERATORS:
                left.append(node)
            elif all(name in self.constants or not name for name in node.inputs):
                self._run_node(node, self.constants)
            else:
                left.append(node)
        self.nodes = left

    def plan(self, given: Iterable[str], wanted: Iterable[str]) -> list[tuple[Node, list[str]]]:
        """Return the operations between two sets of values, and what can be dropped after each."""
        known, needed, nodes = set(given), set(wanted), []
        for node in reversed(self.nodes):
            if needed.intersection(node.outputs) and not known.intersection(node.outputs):
                nodes.append(node)
                needed.update(name for name in node.inputs if name not in known)
        nodes.reverse()
        last = {name: place for place, node in enumerate(nodes) for name in node.inputs}
        kept = set(wanted) | self.constants.keys() | {""}
        drops: list[list[str]] = [[] for _ in nodes]
        for name, place in last.items():
            if name not in kept:
                drops[place].append(name)
        return list(zip(nodes, drops, strict=True))

    def run(self, given: Values, wanted: list[str]) -> list[Tensor]:
        """Work out values from other values."""
        key = (tuple(given), tuple(wanted))
        if key not in self.made:
            self.made[key] = self.plan(given, wanted)
        values = {**self.constants, **given}
        with torch.inference_mode():
            for node, drops in self.made[key]:
                self._run_node(node, values)
                for name in drops:
                    values.pop(name, None)
        return [values[name] for name in wanted]

    def _run_node(self, node: Node, values: Values) -> None:
        inputs = [values[name] if name else None for name in node.inputs]
        results = OPERATORS[node.kind](self, node, inputs)
        if not isinstance(results, tuple):
            results = (results,)
        values.update(zip(node.outputs, results, strict=False))

    def together(self, *tensors: Tensor) -> list[Tensor]:
        """Bring tensors to one device, if they are not on one."""
        if len({tensor.device for tensor in tensors}) > 1:
            return [tensor.to(self.device) for tensor in tensors]
        return list(tensors)


def _integers(tensor: Tensor) -> list[int]:
    return [int(one) for one in tensor.reshape(-1).tolist()]


def _binary(function: Callable[[Tensor, Tensor], Tensor]) -> Operator:
    def run(graph: Graph, _: Node, inputs: list[Tensor]) -> Tensor:
        return function(*graph.together(*inputs[:2]))

    return run


def _unary(function: Callable[[Tensor], Tensor]) -> Operator:
    def run(_: Graph, __: Node, inputs: list[Tensor]) -> Tensor:
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
    return tensor.cpu() if kind != 9 and tensor.numel() <= SMALL else tensor  # noqa: PLR2004


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
    axes = _integers(inputs[3]) if len(inputs) > 3 else range(len(starts))  # noqa: PLR2004
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
        keep = bool(node.attributes.get("keepdims", 1))
        return function(inputs[0], dim=_integers(inputs[1]), keepdim=keep)

    return run


def _fused_matmul(_: Graph, node: Node, inputs: list[Tensor]) -> Tensor:
    one, other = inputs
    one = one.transpose(-1, -2) if node.attributes.get("transA") else one
    other = other.transpose(-1, -2) if node.attributes.get("transB") else other
    return torch.matmul(one, other) * node.attributes.get("alpha", 1.0)


def _layer_norm(_: Graph, node: Node, inputs: list[Tensor]) -> Tensor:
    epsilon = node.attributes.get("epsilon", 1e-5)
    return functional.layer_norm(inputs[0], inputs[0].shape[-1:], inputs[1], inputs[2], epsilon)


def _skip_layer_norm(_: Graph, node: Node, inputs: list[Tensor]) -> Tensor:
    total = inputs[0] + inputs[1]
    if len(inputs) > 4 and inputs[4] is not None:  # noqa: PLR2004 - the bias's place
        total = total + inputs[4]
    epsilon = node.attributes.get("epsilon", 1e-12)
    return functional.layer_norm(total, total.shape[-1:], inputs[2], inputs[3], epsilon)


def _fast_gelu(_: Graph, __: Node, inputs: list[Tensor]) -> Tensor:
    total = inputs[0] if len(inputs) == 1 or inputs[1] is None else inputs[0] + inputs[1]
    return functional.gelu(total, approximate="tanh")


def _convolve(node: Node, tensor: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    attributes = node.attributes
    begin, end = attributes.get("pads", (0, 0))
    if begin != end:
        tensor, begin = functional.pad(tensor, (begin, end)), 0
    return functional.conv1d(
        tensor,
        weight,
        bias,
        stride=attributes.get("strides", (1,)),
        padding=begin,
        dilation=attributes.get("dilations", (1,)),
        groups=attributes.get("group", 1),
    )


def _conv(_: Graph, node: Node, inputs: list[Tensor]) -> Tensor:
    return _convolve(node, inputs[0], inputs[1], inputs[2] if len(inputs) > 2 else None)  # noqa: PLR2004


def _conv_transpose(_: Graph, node: Node, inputs: list[Tensor]) -> Tensor:
    attributes = node.attributes
    return functional.conv_transpose1d(
        inputs[0],
        inputs[1],
        inputs[2] if len(inputs) > 2 else None,  # noqa: PLR2004
        stride=attributes.get("strides", (1,)),
        padding=attributes.get("pads", (0,))[0],
        output_padding=attributes.get("output_padding", (0,)),
        groups=attributes.get("group", 1),
        dilation=attributes.get("dilations", (1,)),
    )


def _resize(_: Graph, node: Node, inputs: list[Tensor]) -> Tensor:
    mode = node.attributes["mode"].decode()
    factor = inputs[2].reshape(-1).tolist()[-1]
    options = {} if mode == "nearest" else {"align_corners": False}
    return functional.interpolate(
        inputs[0],
        size=int(inputs[0].shape[-1] * factor + 1e-4),
        mode=mode,
        **options,
    )


def _stft(graph: Graph, _: Node, inputs: list[Tensor]) -> Tensor:
    window = inputs[2].to(graph.device)
    size = window.numel()
    signal = inputs[0].reshape(inputs[0].shape[0], -1)
    spectrum = torch.stft(
        signal, size, int(inputs[1]), size, window=window, center=False, return_complex=True
    )
    return torch.view_as_real(spectrum.transpose(1, 2).contiguous())


def _weight(graph: Graph, node: Node, inputs: list[Tensor]) -> Tensor:
    """Return an integer weight less its zero point, in floating point."""
    name = node.inputs[1]
    if name not in graph.made:
        weight = inputs[1].to(graph.device, torch.float32)
        if len(inputs) > 3 and inputs[3] is not None:  # noqa: PLR2004
            zero = inputs[3].to(graph.device, torch.float32)
            if node.kind == "ConvInteger" and zero.numel() > 1:
                zero = zero.reshape(-1, *[1] * (weight.dim() - 1))
            weight = weight - zero
        graph.made[name] = weight
    return graph.made[name]


def _matmul_integer(graph: Graph, node: Node, inputs: list[Tensor]) -> Tensor:
    return torch.matmul(inputs[0], _weight(graph, node, inputs))


def _conv_integer(graph: Graph, node: Node, inputs: list[Tensor]) -> Tensor:
    return _convolve(node, inputs[0], _weight(graph, node, inputs), None)


def _quantize(_: Graph, __: Node, inputs: list[Tensor]) -> Tensor:
    return inputs[0]


def _dequantize(graph: Graph, _: Node, inputs: list[Tensor]) -> Tensor:
    zero = inputs[2].to(graph.device).float() if len(inputs) > 2 else 0  # noqa: PLR2004
    return (inputs[0].to(graph.device).float() - zero) * inputs[1].to(graph.device)


def _lstm(graph: Graph, node: Node, inputs: list[Tensor]) -> Tensor:
    """Run a bidirectional LSTM that starts from zeros; only its sequence is returned."""
    size = int(node.attributes["hidden_size"])
    if node.inputs[1] not in graph.made:
        graph.made[node.inputs[1]] = _make_lstm(graph, size, inputs)
    sequence, _ = graph.made[node.inputs[1]](inputs[0])
    steps, batch, width = sequence.shape
    return sequence.reshape(steps, batch, width // size, size).permute(0, 2, 1, 3)


def _make_lstm(graph: Graph, size: int, inputs: list[Tensor]) -> Tensor:
    lstm = torch.nn.LSTM(inputs[1].shape[1], size, bidirectional=True).to(graph.device)
    scaled = [_scaled(graph, inputs[1], inputs[8], inputs[9]),
              _scaled(graph, inputs[2], inputs[10], inputs[11])]  # fmt: skip
    with torch.no_grad():
        for direction, suffix in enumerate(("", "_reverse")):
            input_bias, hidden_bias = inputs[3][direction].split(4 * size)
            getattr(lstm, f"weight_ih_l0{suffix}").copy_(_gates(scaled[0][direction], size))
            getattr(lstm, f"weight_hh_l0{suffix}").copy_(_gates(scaled[1][direction], size))
            getattr(lstm, f"bias_ih_l0{suffix}").copy_(_gates(input_bias, size))
            getattr(lstm, f"bias_hh_l0{suffix}").copy_(_gates(hidden_bias, size))
    lstm.flatten_parameters()
    return lstm


def _scaled(graph: Graph, weight: Tensor, scale: Tensor, zero: Tensor) -> Tensor:
    weight, scale, zero = (one.to(graph.device).float() for one in (weight, scale, zero))
    shape = (2, 1, -1)
    return ((weight - zero.reshape(shape)) * scale.reshape(shape)).transpose(1, 2)


def _gates(tensor: Tensor, size: int) -> Tensor:
    """Put ONNX's gates (input, output, forget, cell) in PyTorch's order."""
    gates = tensor.split(size)
    return torch.cat([gates[0], gates[2], gates[3], gates[1]])


OPERATORS: dict[str, Operator] = {
    "Add": _binary(torch.add),
    "And": _binary(torch.logical_and),
    "Atan": _unary(lambda tensor: tensor.nan_to_num(nan=0.0).atan()),  # of 0 / 0, in silence
    "Cast": _cast,
    "Concat": _concat,
    "ConstantOfShape": _constant_of_shape,
    "Conv": _conv,
    "ConvInteger": _conv_integer,
    "ConvTranspose": _conv_transpose,
    "Cos": _unary(torch.cos),
    "CumSum": lambda _, __, inputs: inputs[0].cumsum(int(inputs[1])),
    "DequantizeLinear": _dequantize,
    "Div": _binary(_divide),
    "DynamicQuantizeLSTM": _lstm,
    "DynamicQuantizeLinear": _quantize,
    "Equal": _binary(torch.eq),
    "Exp": _unary(torch.exp),
    "Expand": _expand,
    "FastGelu": _fast_gelu,
    "Floor": _floor,
    "FusedMatMul": _fused_matmul,
    "Gather": _gather,
    "Greater": _binary(torch.gt),
    "LayerNormalization": _layer_norm,
    "LeakyRelu": lambda _, node, inputs: functional.leaky_relu(
        inputs[0], node.attributes.get("alpha", 0.01)
    ),
    "Less": _binary(torch.lt),
    "MatMul": _binary(torch.matmul),
    "MatMulInteger": _matmul_integer,
    "Mul": _binary(torch.mul),
    "Pad": _pad,
    "Pow": _binary(torch.pow),
    "ReduceMean": _reduce(torch.mean),
    "ReduceSum": _reduce(torch.sum),
    "Reshape": _reshape,
    "Resize": _resize,
    "STFT": _stft,
    "Shape": _shape,
    "Sigmoid": _unary(torch.sigmoid),
    "Sin": _unary(torch.sin),
    "SkipLayerNormalization": _skip_layer_norm,
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
