"""Operators with weights, and what stands between them: convolutions, norms, an LSTM, spectra."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn import functional

from recipes.english.onnx_graph.node import given

if TYPE_CHECKING:
    from recipes.english.onnx_graph.graph import Graph
    from recipes.english.onnx_graph.node import Node, Operator, Tensor


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


def _conv(graph: Graph, node: Node, inputs: list[Tensor]) -> Tensor:
    tensor, weight, bias = _in_precision(graph, node, inputs)
    return _convolve(node, tensor, weight, bias)


def _in_precision(graph: Graph, node: Node, inputs: list[Tensor]) -> list[Tensor]:
    """Bring a convolution's input, weight and bias, if any, to the precision it computes in."""
    kind = graph.precision(node)
    tensor, weight, bias = [*inputs, None][:3]
    return [tensor.to(kind), weight.to(kind), None if bias is None else bias.to(kind)]


def _scaled_convolution(graph: Graph, node: Node, inputs: list[Tensor]) -> Tensor:
    """Run what was a quantised convolution, its bias and the scale of both, as one convolution."""
    tensor, weight, zero, bias, scale = inputs
    name, kind = node.outputs[0], graph.precision(node)
    if name not in graph.made:
        by = scale.to(graph.device)
        weight = weight.to(graph.device, torch.float32)
        if zero is not None:
            weight = weight - zero.to(graph.device, torch.float32).reshape(-1, 1, 1)
        weight = weight * by.reshape(-1, 1, 1)
        bias = None if bias is None else (bias.to(graph.device) * by).flatten().to(kind)
        graph.made[name] = weight.to(kind), bias
    return _convolve(node, tensor.to(kind), *graph.made[name])


def _instance_norm(_: Graph, __: Node, inputs: list[Tensor]) -> Tensor:
    return functional.instance_norm(inputs[0], eps=float(inputs[1]))


def _adaptive_snake(_: Graph, __: Node, inputs: list[Tensor]) -> Tensor:
    """Compute y + sin(a y)^2 / a of y = factor x + offset, in the precision of x."""
    tensor, *others = inputs
    compute = _snake_on_gpu if tensor.is_cuda else _snake
    return compute(tensor, *(one.to(tensor.dtype) for one in others))


def _snake(
    tensor: Tensor, factor: Tensor, offset: Tensor, alpha: Tensor, reciprocal: Tensor
) -> Tensor:
    tensor = factor * tensor + offset
    return tensor + reciprocal * (alpha * tensor).sin().square()


# One pass over memory instead of six.
_snake_on_gpu = torch.compile(_snake, dynamic=True)


def _conv_transpose(graph: Graph, node: Node, inputs: list[Tensor]) -> Tensor:
    attributes = node.attributes
    return functional.conv_transpose1d(
        *_in_precision(graph, node, inputs),
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
        zero = given(inputs, 3)
        if zero is not None:
            weight = weight - zero.to(graph.device, torch.float32)
        graph.made[name] = weight
    return graph.made[name]


def _matmul_integer(graph: Graph, node: Node, inputs: list[Tensor]) -> Tensor:
    return torch.matmul(inputs[0], _weight(graph, node, inputs))


def _dequantize(graph: Graph, _: Node, inputs: list[Tensor]) -> Tensor:
    zero = given(inputs, 2)
    offset = 0 if zero is None else zero.to(graph.device).float()
    return (inputs[0].to(graph.device).float() - offset) * inputs[1].to(graph.device)


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


LAYERS: dict[str, Operator] = {
    "AdaptiveSnake": _adaptive_snake,
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "DequantizeLinear": _dequantize,
    "DynamicQuantizeLSTM": _lstm,
    "FastGelu": _fast_gelu,
    "FusedMatMul": _fused_matmul,
    "InstanceNorm": _instance_norm,
    "LayerNormalization": _layer_norm,
    "MatMulInteger": _matmul_integer,
    "Resize": _resize,
    "STFT": _stft,
    "ScaledConvolution": _scaled_convolution,
    "SkipLayerNormalization": _skip_layer_norm,
}
