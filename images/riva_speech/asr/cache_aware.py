"""Streams by a cache-aware model: each step computes only what is new."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from riva_speech.asr.acoustic import joined, steps_first
from riva_speech.asr.arena import Arena, Row, Slot

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator, Sequence

    from numpy.typing import NDArray

    from riva_speech.asr.acoustic import LogProbs
    from riva_speech.asr.streaming_config import CacheConfig, StreamingConfig
    from riva_speech.audio.features import Features
    from riva_speech.batching import BatchLimits
    from riva_speech.sessions import Session

_TAIL_SECONDS = 0.5
# How many steps of its attention's cache are a stream's own: what the graph takes and gives.
_LENGTH, _NEXT_LENGTH = "cache_last_channel_len", "cache_last_channel_next_len"
# The feature frames that a chunk looks back to.
_HISTORY = "history"


@dataclass
class EncoderState:
    """The place of one stream among the caches; ``began`` once it has heard a first chunk."""

    slot: Slot
    began: bool = False


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
        self._n_mels = n_mels
        caches = {
            cache.name: Row(cache.shape, np.float32, cache.append_axis, cache.is_split)
            for cache in config.caches
        }
        small = {
            _LENGTH: Row((), np.int64),
            _HISTORY: Row((n_mels, config.history_frames), np.float32),
        }
        self.arena = self._make_arena(caches, small)

    @property
    def tail_seconds(self) -> float:
        """How much silence a stream needs behind it.

        Streaming models may emit a word some steps after they have heard it, so the end of a
        stream is heard out: without that, words that end with the audio can be lost.
        """
        return _TAIL_SECONDS

    def learn_to_join(self, stride: int, n_mels: int) -> None:
        """Know it already: every such graph takes several streams."""

    def rehearse(self, most: int) -> None:
        """Do nothing: the first run takes as long as any other."""

    def limits(self, limits: BatchLimits) -> BatchLimits:
        """Return those that are given."""
        return limits

    def live_streams(self) -> int:
        """Return how many slots are taken."""
        return self.arena.live

    def shrink(self) -> None:
        """Free the memory of slots that no stream has."""
        self.arena.shrink()

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
        with self.arena.using(slots) as kept:
            signal, lengths = self._signal(kept.pop(_HISTORY), states, chunks)
            session = self._following if states[0].began else self._first
            given = {**self._inputs(kept), "audio_signal": signal, "length": lengths}
            outputs = self._run(session, given)
            yield _cut(steps_first(outputs), outputs["encoded_lengths"])
            following = {cache.name: outputs[cache.next_name] for cache in self._config.caches}
            following[_LENGTH] = outputs[_NEXT_LENGTH]
            following[_HISTORY] = self._last_frames(signal)
            self.arena.scatter(slots, following)
            for state in states:
                state.began = True

    def _make_arena(self, caches: dict[str, Row], small: dict[str, Row]) -> Arena:
        """Make room for what is remembered of streams: megabytes of caches, and little else."""
        return Arena({**caches, **small})

    def _run(self, session: Session, given: dict[str, Any]) -> dict[str, Any]:
        return session.run(given)

    def _inputs(self, kept: dict[str, Any]) -> dict[str, Any]:
        """Return what a graph takes of what is kept of its streams."""
        inputs = {_LENGTH: kept[_LENGTH]}
        for cache in self._config.caches:
            inputs |= self._given(cache, kept[cache.name])
        return inputs

    @staticmethod
    def _given(cache: CacheConfig, rows: Any) -> dict[str, Any]:  # noqa: ANN401 - the arena's own
        return cache.given(rows)

    def _signal(
        self, history: Features, states: Sequence[EncoderState], chunks: Sequence[Features]
    ) -> tuple[Features, NDArray[np.int64]]:
        """Return what the graph hears, [batch, n_mels, frames], and how much of it is sound.

        A last, short chunk is filled up: the graph always sees one shape.
        """
        before, known = (history, history.shape[2]) if states[0].began else (None, 0)
        signal = joined(chunks, self.wanted_frames(states[0]), before)
        return signal, np.array([known + chunk.shape[1] for chunk in chunks], np.int64)

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
