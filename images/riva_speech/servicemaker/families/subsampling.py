"""The convolutions that make encoder steps of feature frames, in the form that runs fastest.

NeMo fills up before each convolution, and masks around each layer with as many numbers as there
are channels. Here a convolution fills up itself, and only what mixes neighbouring frames is masked.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional

if TYPE_CHECKING:
    from collections.abc import Iterator

Pads = tuple[int, int]

# What is far below anything that a convolution gives, and not too large for half precision.
_SILENCE = -10_000.0


def is_spatial(layer: nn.Module) -> bool:
    """Whether a layer mixes neighbouring frames, so that it must not see those behind the end."""
    return isinstance(layer, nn.Conv2d) and layer.kernel_size != (1, 1)


def strided(layer: Any, size: Any) -> Any:
    """Return how many frames a layer makes of ``size``, a number or a tensor of numbers."""
    return (size + sum(_pads(layer)) - layer.kernel_size[0]) // layer.stride[0] + 1


def applied(layer: nn.Module, x: Tensor) -> Tensor:
    """Apply a layer to [batch, channels, frames, mels]."""
    if not (isinstance(layer, nn.Conv2d) and is_spatial(layer)):
        found: Tensor = layer(x)
        return found
    pads = _pads(layer)
    return convolved(x, (layer.weight, layer.bias), (pads, pads), (layer.stride, layer.groups))


def convolved(
    x: Tensor,
    weights: tuple[Tensor, Tensor | None],
    pads: tuple[Pads, Pads],
    geometry: tuple[tuple[int, int], int],
) -> Tensor:
    """Convolve [batch, channels, height, width].

    Args:
        x: What is convolved.
        weights: The convolution's, and its bias.
        pads: How many zeros go before and behind, along the height and along the width.
        geometry: The stride along both, and the number of groups.
    """
    padded: Tensor = _Padded.apply(x, *weights, pads, geometry)
    return padded


def _pads(layer: Any) -> Pads:
    """Return how many zeros go before and behind, along frames and mels alike."""
    if hasattr(layer, "_left_padding"):
        return layer._left_padding, layer._right_padding  # noqa: SLF001 - NeMo has no other name
    return layer.padding[0], layer.padding[0]


class _Padded(torch.autograd.Function):
    """A convolution that fills up unevenly, which is one operator of ONNX, and two of torch."""

    @staticmethod
    def forward(
        _: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        pads: tuple[Pads, Pads],
        geometry: tuple[tuple[int, int], int],
    ) -> Tensor:
        """Convolve as ``convolved`` says."""
        (along, across), (stride, groups) = pads, geometry
        padded = functional.pad(x, (*across, *along))
        return functional.conv2d(padded, weight, bias, stride, groups=groups)

    @staticmethod
    def symbolic(
        graph: Any,
        x: Any,
        weight: Any,
        bias: Any,
        pads: tuple[Pads, Pads],
        geometry: tuple[tuple[int, int], int],
    ) -> Any:
        """Return the node; ONNX names the pads before both axes first."""
        stride, groups = geometry
        inputs = [x, weight] if bias is None else [x, weight, bias]
        before, behind = zip(*pads, strict=True)
        return graph.op(
            "Conv",
            *inputs,
            pads_i=[*before, *behind],
            strides_i=list(stride),
            group_i=groups,
        )


class WholeSubsampling(nn.Module):
    """Stands for NeMo's convolutions where whole utterances are encoded.

    The first one also hears, as a second channel, which of its own frames lie behind the end, and
    gives so little there that the activation after it leaves nothing: masking all of its channels
    would take longer than it does.
    """

    def __init__(self, layers: Any) -> None:
        super().__init__()
        self.layers = layers
        weight = layers[0].weight
        before, _ = self.pads = _pads(layers[0])
        silencing = torch.zeros_like(weight)
        silencing[:, :, before, before] = _SILENCE
        self.register_buffer("weight", torch.cat([weight, silencing], dim=1).detach())

    def forward(self, x: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Turn [batch, frames, mels] and lengths into [batch, channels, steps, rest] and lengths.

        What lies behind the end is not silent in the last one: the encoder masks it.
        """
        x, lengths = self._first(x[:, None], lengths)
        x = self.layers[1](x)
        is_silent = True
        for layer in self.layers[2:]:
            if is_spatial(layer):
                x = x if is_silent else x * _heard(x.shape[2], lengths)
                lengths, is_silent = strided(layer, lengths), False
            x = applied(layer, x)
        return x, lengths

    def _first(self, x: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Apply the first layer to [batch, 1, frames, mels]."""
        layer, (before, behind) = self.layers[0], self.pads
        x = functional.pad(x * _heard(x.shape[2], lengths), (0, behind, 0, behind))
        lengths = strided(layer, lengths)
        # An output's own frame and mel are where its kernel has ``before`` others before them.
        beyond = 1 - _heard(x.shape[2], lengths * layer.stride[0])
        x = torch.cat([x, beyond.expand(x.shape)], dim=1)
        pads = before, 0
        x = convolved(x, (self.weight, layer.bias), (pads, pads), (layer.stride, layer.groups))
        return x, lengths


def _heard(size: int, lengths: Tensor) -> Tensor:
    """Return 1 for each of ``size`` frames before an end, else 0: [batch, 1, frames, 1]."""
    frames = torch.arange(size, device=lengths.device)
    return (frames < lengths[:, None]).float()[:, None, :, None]


@contextmanager
def lean_subsampling(encoder: Any) -> Iterator[None]:
    """Let an encoder of whole utterances subsample as above, while it is exported."""
    before = getattr(encoder, "pre_encode", None)
    layers = getattr(before, "conv", None)
    if not getattr(before, "conv2d_subsampling", False) or not _is_masked(layers):
        yield
        return
    assert before is not None  # it has such layers
    before.conv = WholeSubsampling(layers)
    try:
        yield
    finally:
        before.conv = layers


def _is_masked(layers: Any) -> bool:
    """Whether these are NeMo's masked convolutions, and hold nothing but what is known here."""
    known = (nn.Conv2d, nn.ReLU)
    return (
        type(layers).__name__ == "MaskedConvSequential"
        and all(isinstance(layer, known) and _is_even(layer) for layer in layers)
        and is_spatial(layers[0])
        and isinstance(layers[1], nn.ReLU)
    )


def _is_even(layer: nn.Module) -> bool:
    """Whether a layer treats both axes alike, as all of NeMo's do."""
    if not isinstance(layer, nn.Conv2d):
        return True
    sizes = (layer.kernel_size, layer.stride, layer.padding, layer.dilation)
    return all(len(set(one)) == 1 for one in sizes) and layer.dilation == (1, 1)
