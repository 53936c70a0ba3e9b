"""One step of a cache-aware Conformer as a module that computes only what is new.

NeMo's own graph projects its whole context to keys and values at each step, and gives back all
that it was given. This one has keys and values in its cache and gives back those of its own steps.
Everything that follows from the shapes alone, which are fixed, is computed here beforehand:
projected positions, masks and lengths are tables.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from riva_speech.asr.streaming_config import CacheConfig
from riva_speech.servicemaker.families.conformer import Geometry, Layer, mixes_steps, pointwise
from riva_speech.servicemaker.families.subsampling import applied, is_spatial, strided
from riva_speech.servicemaker.families.tracing import Interface, write_graph

if TYPE_CHECKING:
    from pathlib import Path

    from riva_speech.asr.streaming_config import StreamingConfig
    from riva_speech.servicemaker.families.sharing import Destination

ATTENTION_CACHE, CONVOLUTION_CACHE = "cache_last_channel", "cache_last_time"
# What NeMo gives a masked score: small enough to become 0, large enough for half precision.
_MASKED = -10_000.0


def is_supported(encoder: Any) -> bool:
    """Whether this module can stand for an encoder's step; all released models' encoders do."""
    return (
        encoder.self_attention_model == "rel_pos"
        and getattr(encoder.pre_encode, "conv2d_subsampling", False)
        and encoder.reduction_position is None
        and all(layer.conv.pointwise_activation == "glu_" for layer in encoder.layers)
        and not any(mixes_steps(layer.conv) for layer in encoder.layers)
    )


def export_steps(
    encoder: Any,
    head: Any,
    config: StreamingConfig,
    paths: tuple[Path, Path],
    to: Destination,
) -> None:
    """Write the graphs of a stream's first and of each following step to two ``paths``.

    ``head`` is what makes log-probabilities of steps, None for transducers.
    """
    device = next(encoder.parameters()).device
    with torch.inference_mode():
        for path, first in zip(paths, (True, False), strict=True):
            # Never both at once: each holds projected positions and the biases of all layers.
            Step(encoder, head, config, first=first).to(device).export(path, to)


def caches(encoder: Any, left: int) -> tuple[CacheConfig, ...]:
    """Describe the caches of a step that looks ``left`` steps back.

    That of attention holds each layer's keys and then its values.
    """
    layers, attention = len(encoder.layers), encoder.layers[0].self_attn
    kernel = encoder.layers[0].conv.kernel_size
    return (
        CacheConfig(
            ATTENTION_CACHE,
            (2 * layers, attention.h, left, attention.d_k),
            append_axis=2,
            is_split=True,
        ),
        CacheConfig(CONVOLUTION_CACHE, (layers, kernel - 1, encoder.d_model), is_split=True),
    )


class Step(nn.Module):
    """A step of an encoder and, with a CTC head, of what makes log-probabilities of it."""

    def __init__(self, encoder: Any, head: Any, config: StreamingConfig, *, first: bool) -> None:
        """Prepare the ``first`` or a following step; ``head`` is None for transducers."""
        super().__init__()
        history = 0 if first else config.history_frames
        geometry = Geometry(
            frames=config.first_frames if first else history + config.chunk_frames,
            steps=config.chunk_steps,
            dropped=0 if first else int(encoder.streaming_cfg.drop_extra_pre_encoded),
            cached=config.att_context_size[0],
        )
        self.geometry = geometry
        self.n_mels = int(encoder._feat_in)  # noqa: SLF001 - NeMo has no other name
        self.caches = config.caches
        self.subsampling = _Subsampling(encoder.pre_encode, geometry)
        self.scale = float(encoder.xscale or 1)
        positions = _positions(encoder.pos_enc, geometry)
        self.layers = nn.ModuleList(Layer(one, positions, geometry) for one in encoder.layers)
        self.projection = encoder.out_proj
        self.width = int(encoder._feat_out)  # noqa: SLF001 - as above
        self.head = head
        self.register_buffer("old_bias", _newest_allowed(geometry.cached))

    def forward(self, audio_signal: Tensor, length: Tensor, *caches: Tensor) -> tuple[Tensor, ...]:
        """Return the outputs of NeMo's exported step.

        The caches are each layer's keys and values, each layer's convolution's, and last how many
        steps of attention's are real; shapes are those of ``caches``. The context is a whole number
        of chunks, so a chunk reaches all of its cache and itself.
        """
        *heard, cached = caches
        times = heard[2 * len(self.layers) :]
        x, encoded_length, new_bias = self.subsampling(audio_signal, length)
        x = x * self.scale if self.scale != 1 else x
        bias = torch.cat([_row(self.old_bias, cached), new_bias], dim=1)[:, None, None]
        x = x.flatten(0, 1)
        new_heard, new_times = [], []
        for number, layer in enumerate(self.layers):
            known = heard[2 * number], heard[2 * number + 1]
            x, new, following = layer(x, bias, known, times[number])
            new_heard += new
            new_times.append(following)
        return (
            self._output(x),
            encoded_length,
            *self._following(new_heard, new_times),
            torch.clamp(cached + self.geometry.steps, max=self.geometry.cached),
        )

    def _following(self, heard: list[Tensor], times: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Return what goes into the caches, of the layers' new keys and values and their times.

        They are joined, and then divided again: to stack them would take an operator for each.
        """
        (parts, heads, _, width), of_times = (cache.shape for cache in self.caches)
        of_heard = parts, heads, self.geometry.steps, width
        return (
            torch.cat(heard, dim=1).view(-1, *of_heard),
            torch.cat(times, dim=1).view(-1, *of_times),
        )

    def _output(self, x: Tensor) -> Tensor:
        steps = self.geometry.steps
        if self.projection is not None:
            x = self.projection(x)
        if self.head is None:
            return x.view(-1, steps, self.width).transpose(1, 2)
        layer = self.head.decoder_layers[0]
        scores = pointwise(layer, x).view(-1, steps, layer.out_channels)
        if self.head.temperature != 1:
            scores = scores / self.head.temperature
        return functional.log_softmax(scores, dim=-1)

    def export(self, path: Path, to: Destination) -> None:
        """Write the step as an ONNX graph for any batch, with the names of NeMo's own."""
        taken = [name for cache in self.caches for name in cache.inputs]
        inputs = ["audio_signal", "length", *taken, f"{ATTENTION_CACHE}_len"]
        encoded = "logprobs" if self.head else "outputs"
        following = [cache.next_name for cache in self.caches]
        outputs = [encoded, "encoded_lengths", *following, f"{ATTENTION_CACHE}_next_len"]
        axes = {name: {0: "batch"} for name in (*inputs, *outputs)}
        write_graph(self, self._example(), path, Interface(inputs, outputs, axes), to)

    def _example(self) -> tuple[Tensor, ...]:
        """Return inputs of a batch of two: one would be taken for a constant."""
        device, frames = self.old_bias.device, self.geometry.frames
        shapes = [shape for cache in self.caches for shape in cache.inputs.values()]
        caches = (torch.zeros(2, *shape, device=device) for shape in shapes)
        signal = torch.zeros(2, self.n_mels, frames, device=device)
        lengths = torch.full((2,), frames, device=device)
        return signal, lengths, *caches, torch.zeros_like(lengths)


class _Subsampling(nn.Module):
    """Feature frames to encoder steps; what lies behind the end of a stream is kept silent."""

    def __init__(self, pre_encode: Any, geometry: Geometry) -> None:
        super().__init__()
        self.layers, self.out = pre_encode.conv, pre_encode.out
        self.geometry = geometry
        size, lengths = geometry.frames, torch.arange(geometry.frames + 1)
        for number, layer in enumerate(self.layers):
            if not is_spatial(layer):
                continue
            self.register_buffer(f"mask_{number}", _before(lengths, size).float())
            size, lengths = strided(layer, size), strided(layer, lengths)
        lengths = (lengths - geometry.dropped).clamp(0, geometry.steps)
        self.register_buffer("lengths", lengths)
        self.register_buffer("bias", _bias(_before(lengths, geometry.steps)))

    def forward(self, audio_signal: Tensor, length: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return steps, [batch, steps, width], their number, and the bias of their scores."""
        x = audio_signal.transpose(1, 2)[:, None]
        for number, layer in enumerate(self.layers):
            if is_spatial(layer):
                x = x * _row(getattr(self, f"mask_{number}"), length)[:, None, :, None]
            x = applied(layer, x)
        x = x[:, :, self.geometry.dropped :].transpose(1, 2).flatten(2)
        return self.out(x), _row(self.lengths, length), _row(self.bias, length)


def _positions(encodings: Any, geometry: Geometry) -> Tensor:
    """Return the encodings of all distances between a new step and what it attends to.

    They begin with the farthest key behind the last new step. The last entry stands for nothing:
    it makes shifting a matter of shapes.
    """
    farthest = geometry.cached + geometry.steps - 1
    count = geometry.cached + 2 * geometry.steps
    encodings.extend_pe(count, encodings.pe.device, encodings.pe.dtype)
    middle = encodings.pe.shape[1] // 2
    found: Tensor = encodings.pe[0, middle - farthest : middle - farthest + count]
    return found


def _newest_allowed(count: int) -> Tensor:
    """Return the biases of ``count`` cached steps, a row for each number of them that are real."""
    return _bias(_before(torch.arange(count + 1), count).flip(1))


def _before(lengths: Tensor, size: int) -> Tensor:
    """Return for each length which of ``size`` places lie before it."""
    return torch.arange(size) < lengths[:, None]


def _bias(allowed: Tensor) -> Tensor:
    """Return what is added to scores: nothing where allowed."""
    return torch.where(allowed, 0.0, _MASKED)


def _row(table: Tensor, number: Tensor) -> Tensor:
    """Return a row of a table for each entry of a batch."""
    return table.index_select(0, number)
