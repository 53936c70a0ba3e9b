"""Kokoro-82M, many utterances at once, with voices that nobody has.

Utterances of as many tokens go through the first half together. The second half takes those of
about the same length; the shorter ones end in some more silence, which is cut away. So nothing is
masked, although the network's normalisations look at whole utterances.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch

from recipes.english.onnx_graph import Graph

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.random import Generator
    from numpy.typing import NDArray

Tensor: TypeAlias = Any

# Of Kokoro's frames of 25 ms, in samples at 16 kHz.
FRAME = 400
STYLE = 256
LONGEST_STYLE = 509

_TOKENS, _STYLE, _SPEED = "tokens", "style", "speed"
_TIMBRE, _PROSODY = "/decoder/Slice_output_0", "/encoder/Slice_output_0"
_PROSODY_OF_TOKENS = "/encoder/predictor/text_encoder/Expand_output_0"
_LENGTHS = "/encoder/predictor/ReduceSum_output_0"
_PROSODIC = "/encoder/predictor/text_encoder/Concat_4_output_0"
_PHONETIC = "/encoder/text_encoder/Transpose_2_output_0"
_STRETCHED_PROSODIC, _STRETCHED_PHONETIC = "/encoder/MatMul_output_0", "/encoder/MatMul_1_output_0"
_PITCH_SHAPED, _ENERGY_SHAPED = "/encoder/Squeeze_output_0", "/encoder/Squeeze_1_output_0"
_PITCH, _ENERGY = "/encoder/Reshape_output_0", "/encoder/Reshape_1_output_0"
_SOURCE = "/decoder/decoder/generator/Squeeze_output_0"
_SOURCE_PADDED = "/decoder/decoder/generator/Reshape_3_output_0"
_WAVE = "/decoder/decoder/generator/istft/stft/ConvTranspose_output_0"
# The inverse transform's window reaches this far over each end.
_OVERLAP = 10
_WAVE_SCALE = 4.0
# The convolutions with the most to compute, in float16 on a GPU: what it changes is 48 dB below.
HALVED = ("/generator/noise_", "/generator/resblocks", "/generator/ups")


@dataclass(frozen=True)
class Manner:
    """How a batch of utterances is to be said; each is one number an utterance.

    Attributes:
        speed: How fast, 1 as the voice does it.
        pitch: What its pitch is multiplied by.
        melody: What its pitch's movements are multiplied by; 0 is monotonous.
        unevenness: Standard deviation of the logarithm of each sound's length.
    """

    speed: NDArray[np.float32]
    pitch: NDArray[np.float32]
    melody: NDArray[np.float32]
    unevenness: NDArray[np.float32]

    @classmethod
    def draw(cls, rng: Generator, size: int) -> Manner:
        """Draw manners of speaking."""
        return cls(
            speed=rng.uniform(0.75, 1.3, size).astype(np.float32),
            pitch=np.exp(rng.normal(0, 0.12, size)).astype(np.float32),
            melody=rng.uniform(0.5, 1.5, size).astype(np.float32),
            unevenness=rng.uniform(0, 0.3, size).astype(np.float32),
        )


class Voices:
    """Style vectors of recorded voices, and mixes of them."""

    def __init__(self, path: Path) -> None:
        """Read the voices' styles, one for each number of tokens."""
        with np.load(path) as file:
            self.names = sorted(file)
            self.styles = np.stack([file[name].astype(np.float32) for name in self.names])

    def draw(self, rng: Generator, tokens: int, size: int) -> NDArray[np.float32]:
        """Draw voices, [size, 256]: timbre and prosody are mixed apart from each other."""
        styles = self.styles[:, min(tokens, LONGEST_STYLE)].reshape(len(self.names), STYLE)
        mixes = [self.weights(rng, size) @ half for half in np.split(styles, 2, axis=1)]
        spread = styles.std(0)
        noise = rng.normal(0, 1, (size, STYLE)) * spread * rng.uniform(0, 0.8, (size, 1))
        drawn = np.concatenate(mixes, 1) + noise
        return np.asarray(drawn, np.float32)

    def weights(self, rng: Generator, size: int) -> NDArray[np.float64]:
        """Weigh one to three voices for half of the utterances, else all; [size, voices].

        Mixes of all are normally distributed as the voices are, and lie between and beyond them.
        """
        count = len(self.names)
        apart = rng.normal(0, 1, (size, count)) * rng.uniform(0.6, 1.4, (size, 1))
        weights = (1 + (apart - apart.mean(1, keepdims=True)) * math.sqrt(count)) / count
        for row in weights:
            if rng.random() < 0.5:  # noqa: PLR2004 - a half
                few = rng.choice((1, 2, 2, 3))
                row[:] = 0
                row[rng.choice(count, few, replace=False)] = rng.dirichlet(np.ones(few))
        return weights


class Kokoro:
    """The synthesiser on a device."""

    def __init__(self, graph: Path, device: str) -> None:
        """Load the network."""
        self.graph = Graph(graph, device, halved=HALVED if "cuda" in device else ())
        self.device = device
        self.filters = two_thirds().to(device)

    def speak(
        self,
        tokens: NDArray[np.int64],
        styles: NDArray[np.float32],
        manner: Manner,
        batch: int,
    ) -> Iterator[tuple[int, NDArray[np.int16]]]:
        """Say utterances of equally many tokens; yield each's number and samples at 16 kHz."""
        style = torch.from_numpy(styles).to(self.device)
        lengths, prosodic, phonetic = self._read(tokens, style, manner)
        order = torch.argsort(lengths.sum(1)).tolist()
        for start in range(0, len(order), batch):
            chosen = order[start : start + batch]
            totals = lengths[chosen].sum(1).tolist()
            waves = self._utter(lengths[chosen], prosodic[chosen], phonetic[chosen], style[chosen],
                                manner, chosen)  # fmt: skip
            rounded = (self._down(waves).clamp(-1, 1) * 32767).to(torch.int16).cpu().numpy()
            for number, total, wave in zip(chosen, totals, rounded, strict=True):
                yield number, wave[: int(total) * FRAME]

    def _read(
        self, tokens: NDArray[np.int64], style: Tensor, manner: Manner
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return each token's length in frames, on the CPU, and both encodings of the text."""
        ids = torch.from_numpy(np.pad(tokens, ((0, 0), (1, 1)))).to(self.device)
        everywhere = style[:, None, 128:].expand(-1, ids.shape[1], -1)
        lengths, prosodic, phonetic = self.graph.run(
            {_TOKENS: ids, _STYLE: style, _PROSODY_OF_TOKENS: everywhere},
            [_LENGTHS, _PROSODIC, _PHONETIC],
        )
        noise = torch.randn(lengths.shape) * torch.from_numpy(manner.unevenness)[:, None]
        scaled = lengths.cpu() / torch.from_numpy(manner.speed)[:, None] * noise.exp()
        return scaled.round().clamp(min=1).long(), prosodic, phonetic

    def _down(self, waves: Tensor) -> Tensor:
        """Resample waves from 24 to 16 kHz, [batch, samples]."""
        reach = self.filters.shape[-1] // 2
        pairs = torch.nn.functional.conv1d(waves[:, None], self.filters, stride=3, padding=reach)
        return pairs.transpose(1, 2).reshape(len(waves), -1)

    def _utter(
        self,
        lengths: Tensor,
        prosodic: Tensor,
        phonetic: Tensor,
        style: Tensor,
        manner: Manner,
        chosen: list[int],
    ) -> Tensor:
        """Return waves of one length, [batch, samples]."""
        stretch = alignment(lengths).to(self.device)
        halves = {_TIMBRE: style[:, :128], _PROSODY: style[:, 128:]}
        phonetic = phonetic @ stretch
        pitch, energy = self.graph.run(
            {**halves, _STRETCHED_PROSODIC: prosodic.transpose(1, 2) @ stretch},
            [_PITCH_SHAPED, _ENERGY_SHAPED],
        )
        pitch = sung(pitch, manner.pitch[chosen], manner.melody[chosen])
        features = {_PITCH: pitch, _ENERGY: energy, _STRETCHED_PHONETIC: phonetic, **halves}
        source = self.graph.run(features, [_SOURCE])[0]
        source = torch.nn.functional.pad(source.reshape(len(chosen), 1, -1), (10, 10), "reflect")
        wave = self.graph.run({**features, _SOURCE_PADDED: source.squeeze(1)}, [_WAVE])[0]
        return wave.squeeze(1)[:, _OVERLAP:-_OVERLAP] * _WAVE_SCALE


def two_thirds(reach: int = 48) -> Tensor:
    """Make the two filters that turn three samples at 24 kHz into two at 16 kHz, [2, 1, taps]."""
    taps = torch.arange(-reach, reach + 1, dtype=torch.float64)
    cut = 2 * 7600 / 24_000
    filters = []
    for delay in (0.0, 1.5):
        time = taps - delay
        window = torch.cos(math.pi / 2 * (time / (reach + 2))).square()
        filters.append(torch.sinc(cut * time) * cut * window)
    return torch.stack(filters)[:, None].float()


def alignment(lengths: Tensor) -> Tensor:
    """Say which token each frame is of, [batch, tokens, frames]; the last token fills the rest."""
    ends = lengths.cumsum(1)
    longest = int(ends[:, -1].max())
    ends[:, -1] = longest
    starts = torch.nn.functional.pad(ends[:, :-1], (1, 0))
    frames = torch.arange(longest)
    within = (frames >= starts[..., None]) & (frames < ends[..., None])
    return within.float()


def sung(pitch: Tensor, factor: NDArray[np.float32], melody: NDArray[np.float32]) -> Tensor:
    """Shift a pitch in Hz, and scale its movements around its mean; unvoiced frames stay."""
    voiced = pitch > 10.0  # noqa: PLR2004 - as the network's own source does
    mean = (pitch * voiced).sum(1, keepdim=True) / voiced.sum(1, keepdim=True).clamp(min=1)
    by, moves = (torch.from_numpy(one).to(pitch.device)[:, None] for one in (factor, melody))
    return torch.where(voiced, ((mean + (pitch - mean) * moves) * by).clamp(min=40), pitch)
