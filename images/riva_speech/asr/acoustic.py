"""Running an acoustic model: features in, log-probabilities out, of several streams at once."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from riva_speech.asr import padding
from riva_speech.asr.arena import Arena, Row, Slot
from riva_speech.audio.features import normalise

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager

    from numpy.typing import NDArray

    from riva_speech.asr.padding import Padding
    from riva_speech.asr.streaming_config import StreamingConfig
    from riva_speech.audio.features import Features
    from riva_speech.sessions import Session

    LogProbs = NDArray[np.float32]


# What an empty buffer is filled with: the number that NeMo 3 fills it with.
_EMPTY = 0.0
_TAIL_SECONDS = 0.5
# How many steps of its attention's cache are a stream's own: what the graph takes and gives.
_LENGTH, _NEXT_LENGTH = "cache_last_channel_len", "cache_last_channel_next_len"
# The feature frames that a chunk looks back to.
_HISTORY = "history"


class OfflineAcousticModel:
    """Encodes whole utterances, each alone until it is known how they go together."""

    def __init__(self, session: Session) -> None:
        """Run a session; ``padding`` says how utterances are joined, where they can be."""
        self._session = session
        self.padding: Padding | None = None

    def learn_to_join(self, stride: int, n_mels: int) -> None:
        """Find out, by trying, how utterances share a run; ``stride`` is frames a step."""
        self.padding = padding.learn(self, stride, n_mels)

    def __call__(self, features: Features) -> LogProbs:
        """Turn features, [n_mels, frames], into log-probabilities, [steps, tokens + 1].

        A transducer's encoder gives its own steps instead, [steps, width].
        """
        steps: LogProbs = self.run(features[np.newaxis], [features.shape[1]])[0]
        return steps

    def encode(self, utterances: Sequence[Features]) -> list[LogProbs]:
        """Encode several utterances, each [n_mels, frames], in one run where that can be."""
        if self.padding is None or len(utterances) == 1:
            return [self(features) for features in utterances]
        lengths = [features.shape[1] for features in utterances]
        encoded = self.run(joined(utterances, max(lengths)), lengths)
        return [
            steps[: self.padding.steps(length)]
            for steps, length in zip(encoded, lengths, strict=True)
        ]

    def run(self, batch: Features, lengths: Sequence[int]) -> LogProbs:
        """Run the graph on a batch, [batch, n_mels, frames]; return [batch, steps, ...]."""
        length = np.array(lengths, np.int64)
        return _steps_first(self._session.run({"audio_signal": batch, "length": length}))


def joined(signals: Sequence[Features], frames: int) -> Features:
    """Return signals, each [n_mels, at most ``frames``], as one batch, filled up with zeros."""
    batch = np.zeros((len(signals), signals[0].shape[0], frames), np.float32)
    for row, signal in zip(batch, signals, strict=True):
        row[:, : signal.shape[1]] = signal
    return batch


def _steps_first(outputs: Mapping[str, NDArray[Any]]) -> LogProbs:
    """Return what a CTC model or a transducer's encoder gives, [batch, steps, ...]."""
    is_ctc = "logprobs" in outputs
    steps: LogProbs = outputs["logprobs"] if is_ctc else outputs["outputs"].transpose(0, 2, 1)
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
    """The place of one stream among the caches; ``began`` once it has heard a first chunk."""

    slot: Slot
    began: bool = False


class StreamingModel(Protocol):
    """Encodes streams; each has a state, of a kind that the model alone knows."""

    @property
    def tail_seconds(self) -> float:
        """How much silence a stream needs behind it, in seconds."""

    def learn_to_join(self, stride: int, n_mels: int) -> None:
        """Find out whether streams share a run, where that is not known."""

    def live_streams(self) -> int:
        """Return how many streams hold caches."""

    def start(self) -> Any:  # noqa: ANN401 - see above
        """Return the state of a stream that has heard nothing."""

    def wanted_frames(self, state: Any) -> int:  # noqa: ANN401 - see above
        """Return how many new frames the next step takes."""

    def kind(self, state: Any) -> Hashable:  # noqa: ANN401 - see above
        """Return what streams have in common whose next steps may be one run."""

    def end(self, state: Any) -> None:  # noqa: ANN401 - see above
        """Give back what a stream's state takes; nothing of it is run any more."""

    def encoding(
        self, states: Sequence[Any], chunks: Sequence[Features]
    ) -> AbstractContextManager[list[LogProbs]]:
        """Encode the next frames of streams of one kind, each [n_mels, t], in one run.

        Only the last chunk of a stream may be shorter than ``wanted_frames``. The states advance
        when the context ends well: whoever fails on the steps may ask for them again.
        """


def step(model: StreamingModel, state: Any, chunk: Features) -> LogProbs:  # noqa: ANN401 - see above
    """Encode the next frames of one stream, [n_mels, t], and advance its state."""
    with model.encoding([state], [chunk]) as (steps,):
        return steps


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

    def live_streams(self) -> int:
        """Return 0: a buffer lies with its stream."""
        return 0

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


class StreamingAcousticModel:
    """Encodes streams chunk by chunk with a cache-aware model.

    The model has two graphs: ``first`` begins a stream, as NeMo does, with nothing before its
    first frame; ``following`` takes every later chunk behind the frames that its convolutions
    still look back to, and drops their steps.
    """

    def __init__(
        self, first: Session, following: Session, config: StreamingConfig, n_mels: int
    ) -> None:
        self._first = first
        self._following = following
        self._config = config
        self.arena = Arena(
            {
                **{
                    cache.name: Row(cache.shape, np.float32, cache.append_axis, cache.is_split)
                    for cache in config.caches
                },
                _LENGTH: Row((), np.int64),
                _HISTORY: Row((n_mels, config.history_frames), np.float32),
            }
        )

    @property
    def tail_seconds(self) -> float:
        """How much silence a stream needs behind it.

        Streaming models may emit a word some steps after they have heard it, so the end of a
        stream is heard out: without that, words that end with the audio can be lost.
        """
        return _TAIL_SECONDS

    def learn_to_join(self, stride: int, n_mels: int) -> None:
        """Know it already: every such graph takes several streams."""

    def live_streams(self) -> int:
        """Return how many slots are taken."""
        return self.arena.live

    def start(self) -> EncoderState:
        """Return the state of a stream that has heard nothing."""
        return EncoderState(self.arena.take())

    def wanted_frames(self, state: EncoderState) -> int:
        """Return how many new frames the next step takes."""
        return self._config.chunk_frames if state.began else self._config.first_frames

    def kind(self, state: EncoderState) -> Hashable:
        """Return which graph takes the next step."""
        return state.began

    def end(self, state: EncoderState) -> None:
        """Give the stream's slot back."""
        state.slot.free()

    @contextmanager
    def encoding(
        self, states: Sequence[EncoderState], chunks: Sequence[Features]
    ) -> Iterator[list[LogProbs]]:
        """Encode the next frames of streams that all have begun, or all have not."""
        slots = [state.slot for state in states]
        with self.arena.using(slots):
            kept = self.arena.gather(slots)
            signal, lengths = self._signal(kept.pop(_HISTORY), states, chunks)
            session = self._following if states[0].began else self._first
            outputs = session.run({"audio_signal": signal, "length": lengths, **self._inputs(kept)})
            yield _cut(_steps_first(outputs), outputs["encoded_lengths"])
            following = {cache.name: outputs[cache.next_name] for cache in self._config.caches}
            following[_LENGTH] = outputs[_NEXT_LENGTH]
            following[_HISTORY] = self._last_frames(signal)
            self.arena.scatter(slots, following)
            for state in states:
                state.began = True

    def _inputs(self, kept: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Return what a graph takes of what is kept of its streams."""
        inputs = {_LENGTH: kept[_LENGTH]}
        for cache in self._config.caches:
            inputs |= cache.given(kept[cache.name])
        return inputs

    def _signal(
        self, history: Features, states: Sequence[EncoderState], chunks: Sequence[Features]
    ) -> tuple[Features, NDArray[np.int64]]:
        """Return what the graph hears, [batch, n_mels, frames], and how much of it is sound.

        A last, short chunk is filled up: the graph always sees one shape.
        """
        signal = joined(chunks, self.wanted_frames(states[0]))
        lengths = np.array([chunk.shape[1] for chunk in chunks], np.int64)
        if not states[0].began:
            return signal, lengths
        return np.concatenate([history, signal], axis=2), lengths + history.shape[2]

    def _last_frames(self, signal: Features) -> Features:
        """Return what the next chunks look back to, behind zeros where there is not enough.

        That of a stream whose last chunk was short is wrong, and never used.
        """
        kept = signal[..., signal.shape[2] - min(signal.shape[2], self._config.history_frames) :]
        missing = self._config.history_frames - kept.shape[2]
        return np.pad(kept, ((0, 0), (0, 0), (missing, 0))) if missing else kept


def _cut(batch: LogProbs, lengths: NDArray[np.int64]) -> list[LogProbs]:
    """Return the steps of each stream that stand for its own frames."""
    return [steps[:length] for steps, length in zip(batch, lengths.tolist(), strict=True)]
