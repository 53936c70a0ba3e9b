"""A layer of a Conformer that computes one step of a stream: new steps over cached ones.

The modules of NeMo's layer do the arithmetic; only what they would compute for old steps, too, is
arranged anew. What a layer for whole utterances does alike is here, too: factors are multiplied
into weights, which are constants of the graph, and the steps of all utterances are rows of one
matrix, [rows, width], so that a product and its bias are one operator.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional

from riva_speech.servicemaker.families.subsampling import convolved

if TYPE_CHECKING:
    from collections.abc import Callable

KeysAndValues: TypeAlias = tuple[Tensor, Tensor]
"""Of one layer, each [batch, heads, steps, head width]."""


class Geometry(NamedTuple):
    """The shapes of a step: frames, encoder steps, those dropped before them, and those cached."""

    frames: int
    steps: int
    dropped: int
    cached: int


class Layer(nn.Module):
    """One Conformer layer."""

    def __init__(self, layer: Any, positions: Tensor, geometry: Geometry) -> None:
        super().__init__()
        self.layer = layer
        self.attention = _Attention(layer.self_attn, positions, geometry)
        self.convolution = _Convolution(layer.conv, geometry)

    def forward(
        self, x: Tensor, bias: Tensor, known: KeysAndValues, time: Tensor
    ) -> tuple[Tensor, KeysAndValues, Tensor]:
        """Return the layer's steps, its new keys and values, and its next convolution cache.

        Args:
            x: The new steps, [batch * steps, width].
            bias: What is added to the scores of cached and new steps, [batch, 1, 1, both].
            known: The keys and values of the cached steps.
            time: What the convolution saw last, [batch, kernel - 1, width].
        """
        layer = self.layer
        x = x + feed_forward(layer.feed_forward1, layer.norm_feed_forward1(x), layer.fc_factor)
        heard, new = self.attention(layer.norm_self_att(x), bias, known)
        x = x + heard
        mixed, times = self.convolution(layer.norm_conv(x), time)
        x = x + mixed
        x = x + feed_forward(layer.feed_forward2, layer.norm_feed_forward2(x), layer.fc_factor)
        return layer.norm_out(x), new, times


class _Attention(nn.Module):
    """Self-attention with relative positions over the cache and the new steps."""

    def __init__(self, attention: Any, positions: Tensor, geometry: Geometry) -> None:
        super().__init__()
        self.attention = attention
        self.geometry = geometry
        heads, width = attention.h, attention.d_k
        projected = attention.linear_pos(positions).view(-1, heads, width)
        self.register_buffer("positions", projected.permute(1, 2, 0).contiguous())
        self.query = Query(attention)

    def forward(
        self, x: Tensor, bias: Tensor, known: KeysAndValues
    ) -> tuple[Tensor, KeysAndValues]:
        """Return what the new steps heard, and their keys and values.

        Products with cached and with new steps are apart, so that the cache is never copied.
        """
        attention, (old_keys, old_values) = self.attention, known
        by_content, by_position = self.query(x, self._heads)
        keys = self._heads(attention.linear_k(x)).transpose(1, 2)
        values = self._heads(attention.linear_v(x)).transpose(1, 2)
        parts = [torch.matmul(by_content, one.transpose(2, 3)) for one in (old_keys, keys)]
        shifted = self._shift(torch.matmul(by_position, self.positions))
        scores = torch.cat(parts, dim=3) + shifted + bias
        old, new = torch.softmax(scores, dim=3).split(
            [self.geometry.cached, self.geometry.steps], dim=3
        )
        heard = torch.matmul(old, old_values) + torch.matmul(new, values)
        width = attention.h * attention.d_k
        heard = heard.transpose(1, 2).reshape(-1, width)
        return attention.linear_out(heard), (keys, values)

    def _heads(self, x: Tensor) -> Tensor:
        return x.view(-1, self.geometry.steps, self.attention.h, self.attention.d_k)

    def _shift(self, scores: Tensor) -> Tensor:
        """Move row i of [batch, heads, steps, positions] i places left of the last row's place.

        Read as one long row, each row begins one place earlier than the row before it.
        """
        steps, cached = self.geometry.steps, self.geometry.cached
        positions = cached + 2 * steps
        flat = scores.view(-1, self.attention.h, steps * positions)
        flat = flat[:, :, steps - 1 : steps - 1 + steps * (positions - 1)]
        return flat.view(-1, self.attention.h, steps, positions - 1)[..., : cached + steps]


class _Convolution(nn.Module):
    """The convolution module, with steps before channels throughout."""

    def __init__(self, convolution: Any, geometry: Geometry) -> None:
        super().__init__()
        self.convolution = convolution
        self.geometry = geometry

    def forward(self, x: Tensor, cache: Tensor) -> tuple[Tensor, Tensor]:
        """Return the convolved steps and the next cache."""
        module, steps = self.convolution, self.geometry.steps
        x = functional.glu(pointwise(module.pointwise_conv1, x), dim=1)
        width = module.pointwise_conv1.out_channels // 2
        x = torch.cat([cache, x.view(-1, steps, width)], dim=1)
        following = x[:, steps:]
        x = functional.silu(mixed(module, x, (0, 0), steps))
        return pointwise(module.pointwise_conv2, x), following


class Query(nn.Module):
    """What steps ask of others: of what these hold, and of how far away they are."""

    def __init__(self, attention: Any) -> None:
        super().__init__()
        self.linear = attention.linear_q
        self.factor = attention.d_k**-0.5
        bias = self.linear.bias
        bias = 0 if bias is None else bias.view(attention.h, attention.d_k)
        of_content, of_position = attention.pos_bias_u + bias, attention.pos_bias_v + bias
        self.register_buffer("content_bias", (of_content * self.factor).detach())
        self.register_buffer("position_bias", (of_position * self.factor).detach())

    def forward(self, x: Tensor, heads: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
        """Return both for steps, [batch, heads, steps, head width].

        ``heads`` turns rows into [batch, steps, heads, head width].
        """
        query = heads(functional.linear(x, _times(self.linear.weight, self.factor)))
        by_content, by_position = query + self.content_bias, query + self.position_bias
        return by_content.transpose(1, 2), by_position.transpose(1, 2)


def feed_forward(module: Any, x: Tensor, factor: float) -> Tensor:
    """Apply NeMo's two layers to rows, and multiply what they give."""
    last = module.linear2
    bias = None if last.bias is None else _times(last.bias, factor)
    x = module.activation(module.linear1(x))
    return functional.linear(x, _times(last.weight, factor), bias)


def _times(weight: Tensor, factor: float) -> Tensor:
    """Multiply a weight, which takes no memory while a graph is traced."""
    multiplied: Tensor = _Multiplied.apply(weight, factor)
    return multiplied


class _Multiplied(torch.autograd.Function):
    """A weight times a number.

    The tracer keeps every product that it sees. What it is given for weights are zeros, of which
    any product is the same, so it may have them as they are.
    """

    @staticmethod
    def forward(_: Any, weight: Tensor, factor: float) -> Tensor:
        """Multiply, or leave it to the graph."""
        return weight.view_as(weight) if torch.onnx.is_in_onnx_export() else weight * factor

    @staticmethod
    def symbolic(graph: Any, weight: Any, factor: float) -> Any:
        """Return the node."""
        return graph.op("Mul", weight, graph.op("Constant", value_t=torch.tensor(factor)))


def mixed(module: Any, x: Tensor, pads: tuple[int, int], steps: int) -> Tensor:
    """Convolve [batch, steps, width] along the steps, each channel by itself, and normalise.

    Args:
        module: NeMo's convolution module.
        x: What is convolved.
        pads: How many silent steps are added before and behind.
        steps: How many steps that gives, of which rows are returned.
    """
    layer, norm = module.depthwise_conv, module.batch_norm
    # Along an image of height 1: ONNX Runtime has no fast convolution along a line. It takes
    # channels last, and gives them so, where it is the image that is transposed.
    image, weight = x[:, None].permute(0, 3, 1, 2), layer.weight[:, :, None]
    image = convolved(image, (weight, layer.bias), ((0, 0), pads), ((1, 1), layer.groups))
    if isinstance(norm, nn.BatchNorm1d):  # goes into the convolution's weights
        image = functional.batch_norm(
            image, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=norm.eps
        )
    rows = image.permute(0, 2, 3, 1).reshape(-1, layer.out_channels)
    if isinstance(norm, nn.BatchNorm1d):
        return rows
    if isinstance(norm, nn.LayerNorm):
        normalised: Tensor = norm(rows)
        return normalised
    channels = rows.view(-1, steps, layer.out_channels).transpose(1, 2)
    return norm(channels).transpose(1, 2).flatten(0, 1)


def mixes_steps(module: Any) -> bool:
    """Whether the normalisation in NeMo's convolution module is one of all steps together."""
    return isinstance(module.batch_norm, (nn.GroupNorm, nn.InstanceNorm1d))


def pointwise(layer: Any, x: Tensor) -> Tensor:
    """Apply a convolution of single steps to rows."""
    return functional.linear(x, layer.weight[:, :, 0], layer.bias)
