"""Running an acoustic model: features in, log-probabilities out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from riva_speech.audio.features import normalise

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from riva_speech.asr.streaming_config import CacheConfig, StreamingConfig
    from riva_speech.audio.features import Features
    from riva_speech.sessions import Session

    LogProbs = NDArray[np.float32]


# What an empty buffer is filled with: the number that NeMo 3 fills it with.
_EMPTY = 0.0
_TAIL_SECONDS = 0.5


class OfflineAcousticModel:
    """Encodes whole utterances."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def __call__(self, features: Features) -> LogProbs:
        """Turn features, [n_mels, frames], into log-probabilities, [steps, tokens + 1].

        A transducer's encoder gives its own steps instead, [steps, width].
        """
        outputs = self._session.run(
            {
                "audio_signal": features[np.newaxis],
                "length": np.array([features.shape[1]], np.int64),
            }
        )
        return _first_of_batch(outputs)


def _first_of_batch(outputs: Mapping[str, NDArray[Any]]) -> LogProbs:
    """Return what a CTC model or a transducer's encoder gives, steps first."""
    is_ctc = "logprobs" in outputs
    steps: LogProbs = outputs["logprobs"][0] if is_ctc else outputs["outputs"][0].T
    return steps


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


@dataclass
class EncoderState:
    """The caches of one stream by name, with a batch dimension of 1, and its last feature frames.

    ``history`` is None until the stream has begun.
    """

    caches: dict[str, NDArray[np.float32]]
    channel_length: NDArray[np.int64]
    history: Features | None = None


class StreamingModel(Protocol):
    """Encodes streams; each has a state, of a kind that the model alone knows."""

    @property
    def tail_seconds(self) -> float:
        """How much silence a stream needs behind it, in seconds."""

    def start(self) -> Any:  # noqa: ANN401 - see above
        """Return the state of a stream that has heard nothing."""

    def wanted_frames(self, state: Any) -> int:  # noqa: ANN401 - see above
        """Return how many new frames the next step takes."""

    def step(self, state: Any, chunk: Features) -> LogProbs:  # noqa: ANN401 - see above
        """Encode the next frames, [n_mels, t], and advance the state."""


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

    def start(self) -> BufferState:
        """Return the state of a stream that has heard nothing: an empty buffer."""
        frames = self._config.total_steps * self._config.stride
        return BufferState(np.full((self._config.n_mels, frames), _EMPTY, np.float32))

    def wanted_frames(self, state: BufferState) -> int:
        """Return how many new frames the next step takes."""
        del state
        return self._config.chunk_steps * self._config.stride

    def step(self, state: BufferState, chunk: Features) -> LogProbs:
        """Encode the buffer with the next frames, [n_mels, t], at its end.

        Only the last chunk of a stream may be shorter than ``wanted_frames``.
        """
        size = self.wanted_frames(state)
        missing = size - chunk.shape[1]
        filled = np.pad(chunk, ((0, 0), (0, missing)), constant_values=_EMPTY)
        state.frames = np.concatenate([state.frames[:, size:], filled], axis=1)
        encoded = self._model(normalise(state.frames, self._normalize, ddof=0))
        begin = len(encoded) - self.delay_steps - self._config.chunk_steps
        return encoded[begin : begin + self._config.chunk_steps]


class StreamingAcousticModel:
    """Encodes streams chunk by chunk with a cache-aware model.

    The model has two graphs: ``first`` begins a stream, as NeMo does, with nothing before its
    first frame; ``following`` takes every later chunk behind the frames that its convolutions
    still look back to, and drops their steps.
    """

    def __init__(self, first: Session, following: Session, config: StreamingConfig) -> None:
        self._first = first
        self._following = following
        self._config = config

    @property
    def tail_seconds(self) -> float:
        """How much silence a stream needs behind it.

        Streaming models may emit a word some steps after they have heard it, so the end of a
        stream is heard out: without that, words that end with the audio can be lost.
        """
        return _TAIL_SECONDS

    def start(self) -> EncoderState:
        """Return the state of a stream that has heard nothing."""
        return EncoderState(
            caches={
                cache.name: np.zeros((1, *cache.shape), np.float32) for cache in self._config.caches
            },
            channel_length=np.zeros(1, np.int64),
        )

    def wanted_frames(self, state: EncoderState) -> int:
        """Return how many new frames the next step takes."""
        return self._config.first_frames if state.history is None else self._config.chunk_frames

    def step(self, state: EncoderState, chunk: Features) -> LogProbs:
        """Encode the next frames, [n_mels, t], and advance the state.

        Only the last chunk of a stream may be shorter than ``wanted_frames``.
        """
        session, signal = self._first, chunk
        if state.history is not None:
            session, signal = self._following, np.concatenate([state.history, chunk], axis=1)
        # A last, short chunk is filled up: the graph always sees one shape.
        missing = self.wanted_frames(state) - chunk.shape[1]
        outputs = session.run(
            {
                "audio_signal": np.pad(signal, ((0, 0), (0, missing)))[np.newaxis],
                "length": np.array([signal.shape[1]], np.int64),
                **state.caches,
                "cache_last_channel_len": state.channel_length,
            }
        )
        for cache in self._config.caches:
            given = outputs[cache.next_name]
            state.caches[cache.name] = _next_cache(state.caches[cache.name], given, cache)
        state.channel_length = outputs["cache_last_channel_next_len"]
        state.history = self._last_frames(signal)
        return _first_of_batch(outputs)[: int(outputs["encoded_lengths"][0])]

    def _last_frames(self, signal: Features) -> Features:
        """Return what the next chunk looks back to, behind zeros where there is not enough."""
        kept = signal[:, -self._config.history_frames :]
        return np.pad(kept, ((0, 0), (self._config.history_frames - kept.shape[1], 0)))


def _next_cache(
    cache: NDArray[np.float32], given: NDArray[np.float32], config: CacheConfig
) -> NDArray[np.float32]:
    """Return a cache for the next step, [batch, *shape], of what this step gave for it."""
    if config.append_axis is None:
        return given
    axis = config.append_axis + 1
    kept = np.take(cache, range(given.shape[axis], cache.shape[axis]), axis)
    newest = np.take(given, range(-min(cache.shape[axis], given.shape[axis]), 0), axis)
    return np.concatenate([kept, newest], axis)
