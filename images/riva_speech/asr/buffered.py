"""Streams by a model for whole utterances: each step encodes the last seconds anew."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from riva_speech.audio.features import normalise

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator, Sequence

    from riva_speech.asr.acoustic import LogProbs, OfflineAcousticModel
    from riva_speech.audio.features import Features
    from riva_speech.batching import BatchLimits

# What an empty buffer is filled with: the number that NeMo 3 fills it with.
_EMPTY = 0.0


@dataclass(frozen=True)
class BufferConfig:
    """The geometry of buffered streaming, in encoder steps of ``stride`` feature frames each."""

    chunk_steps: int
    left_steps: int
    right_steps: int
    stride: int
    ms_per_timestep: int
    n_mels: int

    @property
    def total_steps(self) -> int:
        """The length of the buffer."""
        return self.left_steps + self.chunk_steps + self.right_steps


@dataclass
class BufferState:
    """The last feature frames of one stream, [n_mels, frames], before normalisation."""

    frames: Features


class BufferedAcousticModel:
    """Encodes streams with a model for whole utterances, as NeMo's buffered streaming does.

    Each step encodes a buffer of the last seconds, and keeps what lies ``right`` frames before its
    end: so every kept step has heard what comes before and after it.
    """

    def __init__(self, model: OfflineAcousticModel, config: BufferConfig, normalize: str) -> None:
        self._model = model
        self._config = config
        self._normalize = normalize
        # What is kept lags behind by the right padding, and by one step more, as in NeMo.
        self.delay_steps = config.right_steps + 1

    @property
    def tail_seconds(self) -> float:
        """How much silence a stream needs behind it until its end is kept."""
        steps = self.delay_steps + self._config.chunk_steps
        return steps * self._config.ms_per_timestep / 1000

    def learn_to_join(self, stride: int, n_mels: int) -> None:
        """Find out whether the graph takes several buffers at once."""
        self._model.learn_to_join(stride, n_mels)

    def rehearse(self, most: int) -> None:
        """Do nothing: the first run takes as long as any other."""

    def limits(self, limits: BatchLimits) -> BatchLimits:
        """Return those that are given."""
        return limits

    def live_streams(self) -> int:
        """Return 0: a buffer lies with its stream."""
        return 0

    def shrink(self) -> None:
        """Keep nothing: as above."""

    def start(self) -> BufferState:
        """Return the state of a stream that has heard nothing: an empty buffer."""
        frames = self._config.total_steps * self._config.stride
        return BufferState(np.full((self._config.n_mels, frames), _EMPTY, np.float32))

    def wanted_frames(self, state: BufferState) -> int:
        """Return how many new frames the next step takes."""
        del state
        return self._config.chunk_steps * self._config.stride

    def kind(self, state: BufferState) -> Hashable:
        """Return the same for all streams: every buffer has one size."""
        del state
        return None

    def end(self, state: BufferState) -> None:
        """Leave the buffer to its stream."""

    @contextmanager
    def encoding(
        self, states: Sequence[BufferState], chunks: Sequence[Features]
    ) -> Iterator[list[LogProbs]]:
        """Encode each stream's buffer with its next frames, [n_mels, t], at the end."""
        size = self._config.chunk_steps * self._config.stride
        buffers = [
            self._moved_on(state.frames, chunk, size)
            for state, chunk in zip(states, chunks, strict=True)
        ]
        heard = normalise(np.stack(buffers), self._normalize, ddof=0)
        steps = []
        for encoded in self._model.encode(list(heard)):
            begin = len(encoded) - self.delay_steps - self._config.chunk_steps
            steps.append(encoded[begin : begin + self._config.chunk_steps])

        yield steps
        for state, frames in zip(states, buffers, strict=True):
            state.frames = frames

    @staticmethod
    def _moved_on(frames: Features, chunk: Features, size: int) -> Features:
        """Return a buffer with a chunk at its end, filled up where it is short."""
        missing = size - chunk.shape[1]
        filled = np.pad(chunk, ((0, 0), (0, missing)), constant_values=_EMPTY)
        return np.concatenate([frames[:, size:], filled], axis=1)
