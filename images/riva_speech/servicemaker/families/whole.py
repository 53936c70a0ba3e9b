"""A Conformer's layers for whole utterances, in the form that runs fastest.

NeMo's encoder computes masks and positions, and calls its layers with them; each of these here
stands for one of NeMo's while the encoder is exported. The steps of all utterances are rows of one
matrix throughout, and what NeMo does once more to masked scores is left out.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from riva_speech.servicemaker.families.conformer import (
    Query,
    feed_forward,
    mixed,
    mixes_steps,
    pointwise,
)
from riva_speech.servicemaker.families.subsampling import lean_subsampling

if TYPE_CHECKING:
    from collections.abc import Iterator

# What NeMo gives a masked score.
_MASKED = -10_000.0
# How far below a row's greatest score the least one is, at most. Its exponential is nothing beside
# 1, yet a normal number: with others processors compute far more slowly.
_DEPTH = 80.0


class Layer(nn.Module):
    """Stands for one of NeMo's layers."""

    def __init__(self, layer: Any) -> None:
        super().__init__()
        self.layer = layer
        self.attention = _Attention(layer.self_attn)

    def forward(
        self, x: Tensor, att_mask: Tensor, pos_emb: Tensor, pad_mask: Tensor, **_: None
    ) -> Tensor:
        """Return the layer's steps, [batch, steps, width], as NeMo's does.

        Args:
            x: The steps before it, of the same shape.
            att_mask: True for each step that another does not see, [batch, steps, steps].
            pos_emb: The encodings of distances, the farthest behind first, [1, distances, width].
            pad_mask: True for each step behind the end, [batch, steps].
        """
        layer, (batch, steps) = self.layer, att_mask.shape[:2]
        width = layer.conv.d_model
        x = x.reshape(-1, width)
        x = x + feed_forward(layer.feed_forward1, layer.norm_feed_forward1(x), layer.fc_factor)
        x = x + self.attention(layer.norm_self_att(x), att_mask, pos_emb)
        x = x + _convolved(layer.conv, layer.norm_conv(x), pad_mask)
        x = x + feed_forward(layer.feed_forward2, layer.norm_feed_forward2(x), layer.fc_factor)
        found: Tensor = layer.norm_out(x).view(batch, steps, width)
        return found


class _Attention(nn.Module):
    """Self-attention with relative positions."""

    def __init__(self, attention: Any) -> None:
        super().__init__()
        self.attention = attention
        self.query = Query(attention)

    def forward(self, x: Tensor, mask: Tensor, encodings: Tensor) -> Tensor:
        """Return what rows of steps heard; the other arguments are those of ``Layer``."""
        attention, (batch, steps) = self.attention, mask.shape[:2]

        def heads(x: Tensor) -> Tensor:
            """View rows, [batch * steps, width], by head: [batch, steps, heads, head width]."""
            return x.view(batch, steps, attention.h, attention.d_k)

        by_content, by_position = self.query(x, heads)
        keys = heads(attention.linear_k(x)).permute(0, 2, 3, 1)
        values = heads(attention.linear_v(x)).transpose(1, 2)
        distances = torch.matmul(by_position, self._positions(encodings))
        shifted = _shifted(distances, batch, attention.h, steps)
        bias = torch.where(mask, _MASKED, 0.0)[:, None]
        scores = torch.matmul(by_content, keys) + shifted + bias
        heard = torch.matmul(softmax(scores), values).transpose(1, 2)
        heard = heard.reshape(-1, attention.h * attention.d_k)
        found: Tensor = attention.linear_out(heard)
        return found

    def _positions(self, encodings: Tensor) -> Tensor:
        """Return what each distance is to each head, [heads, head width, distances + 1].

        The last entry stands for nothing: it makes shifting a matter of shapes.
        """
        attention = self.attention
        one_more = functional.pad(encodings[0], (0, 0, 0, 1))
        projected = functional.linear(one_more, attention.linear_pos.weight)
        return projected.view(-1, attention.h, attention.d_k).permute(1, 2, 0)


def _shifted(scores: Tensor, batch: int, heads: int, steps: int) -> Tensor:
    """Move row i of [batch, heads, steps, 2 * steps] i places left of the last row's place.

    Read as one long row, each row begins one place earlier than the row before it.
    """
    distances = 2 * steps - 1
    flat = scores.view(batch, heads, -1)
    flat = flat[:, :, steps - 1 : steps - 1 + steps * distances]
    return flat.view(batch, heads, steps, distances)[..., :steps]


def softmax(scores: Tensor) -> Tensor:
    """Turn scores into weights along the last of four dimensions, in which no number is tiny."""
    least = scores.amax(dim=3, keepdim=True) - _DEPTH
    return torch.softmax(torch.maximum(scores, least), dim=3)


def _convolved(module: Any, x: Tensor, silent: Tensor) -> Tensor:
    """Apply NeMo's convolution module to rows; ``silent`` is the ``pad_mask`` of ``Layer``."""
    layer, (batch, steps) = module.depthwise_conv, silent.shape
    pads = layer._left_padding, layer._right_padding  # noqa: SLF001 - NeMo has no other name
    x = functional.glu(pointwise(module.pointwise_conv1, x), dim=1).view(
        batch, steps, module.d_model
    )
    if pads[1] or mixes_steps(module):  # else no step hears what comes later
        x = x * torch.where(silent, 0.0, 1.0)[:, :, None]
    x = functional.silu(mixed(module, x, pads, steps))
    return pointwise(module.pointwise_conv2, x)


@contextmanager
def lean(encoder: Any) -> Iterator[None]:
    """Let an encoder of whole utterances compute as above, while it is exported."""
    with lean_subsampling(encoder):
        layers = getattr(encoder, "layers", None)
        if layers is None or not is_supported(encoder):
            yield
            return
        encoder.layers = nn.ModuleList(map(Layer, layers))
        try:
            yield
        finally:
            encoder.layers = layers


def is_supported(encoder: Any) -> bool:
    """Whether these layers can stand for an encoder's; all released models' encoders do."""
    attention = getattr(encoder, "self_attention_model", None)
    return attention == "rel_pos" and all(map(_is_known, encoder.layers))


def _is_known(layer: Any) -> bool:
    """Whether a layer is NeMo's own, with nothing put into it."""
    is_conformer = type(layer).__name__ == "ConformerLayer"
    return (
        is_conformer
        and layer.conv.pointwise_activation == "glu_"
        and not layer.is_adapter_available()
    )
