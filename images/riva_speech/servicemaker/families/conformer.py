"""A layer of a Conformer that computes one step of a stream: new steps over cached ones.

The modules of NeMo's layer do the arithmetic; only what they would compute for old steps, too, is
arranged anew.
"""

from __future__ import annotations

from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional

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

    def __init__(self, layer: Any, positions: Tensor, geometry: Geometry) -> None:  # noqa: ANN401 - NeMo has no types
        super().__init__()
        self.layer = layer
        self.attention = _Attention(layer.self_attn, positions, geometry)
        self.convolution = _Convolution(layer.conv, geometry)

    def forward(
        self, x: Tensor, bias: Tensor, known: KeysAndValues, time: Tensor
    ) -> tuple[Tensor, KeysAndValues, Tensor]:
        """Return the layer's steps, its new keys and values, and its next convolution cache.

        Args:
            x: The new steps, [batch, steps, width].
            bias: What is added to the scores of cached and new steps, [batch, 1, 1, both].
            known: The keys and values of the cached steps.
            time: What the convolution saw last, [batch, kernel - 1, width].
        """
        layer = self.layer
        x = x + layer.feed_forward1(layer.norm_feed_forward1(x)) * layer.fc_factor
        heard, new = self.attention(layer.norm_self_att(x), bias, known)
        x = x + heard
        mixed, times = self.convolution(layer.norm_conv(x), time)
        x = x + mixed
        x = x + layer.feed_forward2(layer.norm_feed_forward2(x)) * layer.fc_factor
        return layer.norm_out(x), new, times


class _Attention(nn.Module):
    """Self-attention with relative positions over the cache and the new steps."""

    def __init__(self, attention: Any, positions: Tensor, geometry: Geometry) -> None:  # noqa: ANN401 - as above
        super().__init__()
        self.attention = attention
        self.geometry = geometry
        heads, width = attention.h, attention.d_k
        self.factor = width**-0.5
        projected = attention.linear_pos(positions).view(-1, heads, width)
        self.register_buffer("positions", projected.permute(1, 2, 0).contiguous() * self.factor)
        bias = attention.linear_q.bias
        bias = 0 if bias is None else bias.view(heads, width)
        self.register_buffer("content_bias", (attention.pos_bias_u + bias).detach())
        self.register_buffer("position_bias", (attention.pos_bias_v + bias).detach())

    def forward(
        self, x: Tensor, bias: Tensor, known: KeysAndValues
    ) -> tuple[Tensor, KeysAndValues]:
        """Return what the new steps heard, and their keys and values.

        Products with cached and with new steps are apart, so that the cache is never copied.
        """
        attention, (old_keys, old_values) = self.attention, known
        query = self._heads(functional.linear(x, attention.linear_q.weight))
        keys = self._heads(attention.linear_k(x)).transpose(1, 2)
        values = self._heads(attention.linear_v(x)).transpose(1, 2)
        by_content = (query + self.content_bias).transpose(1, 2)
        by_position = (query + self.position_bias).transpose(1, 2)
        parts = [torch.matmul(by_content, one.transpose(2, 3)) for one in (old_keys, keys)]
        shifted = self._shift(torch.matmul(by_position, self.positions))
        scores = torch.cat(parts, dim=3) * self.factor + shifted + bias
        old, new = torch.softmax(scores, dim=3).split(
            [self.geometry.cached, self.geometry.steps], dim=3
        )
        heard = torch.matmul(old, old_values) + torch.matmul(new, values)
        width = attention.h * attention.d_k
        heard = heard.transpose(1, 2).reshape(-1, self.geometry.steps, width)
        return attention.linear_out(heard), (keys, values)

    def _heads(self, x: Tensor) -> Tensor:
        return x.view(-1, self.geometry.steps, self.attention.h, self.attention.d_k)

    def _shift(self, scores: Tensor) -> Tensor:
        """Move row i of [batch, heads, steps, positions] i places left of the last row's place.

        Read as one long row, each row begins one place earlier than the row before it.
        """
        steps, cached = self.geometry.steps, self.geometry.cached
        positions = cached + 2 * steps
        flat = scores.flatten(2)[:, :, steps - 1 : steps - 1 + steps * (positions - 1)]
        return flat.view(-1, self.attention.h, steps, positions - 1)[..., : cached + steps]


class _Convolution(nn.Module):
    """The convolution module, with steps before channels throughout."""

    def __init__(self, convolution: Any, geometry: Geometry) -> None:  # noqa: ANN401 - as above
        super().__init__()
        self.convolution = convolution
        self.geometry = geometry

    def forward(self, x: Tensor, cache: Tensor) -> tuple[Tensor, Tensor]:
        """Return the convolved steps and the next cache."""
        module = self.convolution
        x = functional.glu(pointwise(module.pointwise_conv1, x), dim=2)
        x = torch.cat([cache, x], dim=1)
        following = x[:, self.geometry.steps :]
        x = self._depthwise(x)
        x = functional.silu(self._normalise(x))
        return pointwise(module.pointwise_conv2, x), following

    def _depthwise(self, x: Tensor) -> Tensor:
        """Convolve along the steps, [batch, kernel - 1 + steps, width]."""
        layer = self.convolution.depthwise_conv
        # Along an image of height 1: ONNX Runtime has no fast convolution along a line.
        image, weight = x.transpose(1, 2)[:, :, None], layer.weight[:, :, None]
        x = functional.conv2d(image, weight, layer.bias, groups=layer.groups)
        return x[:, :, 0].transpose(1, 2)

    def _normalise(self, x: Tensor) -> Tensor:
        norm = self.convolution.batch_norm
        if isinstance(norm, nn.LayerNorm):
            normalised: Tensor = norm(x)
            return normalised
        return norm(x.transpose(1, 2)).transpose(1, 2)


def pointwise(layer: Any, x: Tensor) -> Tensor:  # noqa: ANN401 - a convolution of one step
    """Apply a convolution of single steps to [batch, steps, width] as one product."""
    rows = functional.linear(x.flatten(0, 1), layer.weight[:, :, 0], layer.bias)
    return rows.view(-1, x.shape[1], rows.shape[1])
