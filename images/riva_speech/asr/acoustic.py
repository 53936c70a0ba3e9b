"""Running an acoustic model: features in, log-probabilities out, of several streams at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from riva_speech.asr import padding

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping, Sequence
    from contextlib import AbstractContextManager

    from numpy.typing import NDArray

    from riva_speech.asr.padding import Padding
    from riva_speech.audio.features import Features
    from riva_speech.batching import BatchLimits
    from riva_speech.sessions import Session

    LogProbs = NDArray[np.float32]


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
        return steps_first(self._session.run({"audio_signal": batch, "length": length}))


def joined(signals: Sequence[Features], frames: int, before: Features | None = None) -> Features:
    """Return signals, each [n_mels, at most ``frames``], as one batch, filled up with zeros.

    What comes ``before`` each, [batch, n_mels, t], is put there.
    """
    begin = 0 if before is None else before.shape[2]
    batch = np.zeros((len(signals), signals[0].shape[0], begin + frames), np.float32)
    if before is not None:
        batch[:, :, :begin] = before
    for row, signal in zip(batch, signals, strict=True):
        row[:, begin : begin + signal.shape[1]] = signal
    return batch


def steps_first(outputs: Mapping[str, NDArray[Any]]) -> LogProbs:
    """Return what a CTC model or a transducer's encoder gives, [batch, steps, ...]."""
    is_ctc = "logprobs" in outputs
    steps: LogProbs = outputs["logprobs"] if is_ctc else outputs["outputs"].transpose(0, 2, 1)
    return steps


class StreamingModel(Protocol):
    """Encodes streams; each has a state, of a kind that the model alone knows."""

    @property
    def tail_seconds(self) -> float:
        """How much silence a stream needs behind it, in seconds."""

    def learn_to_join(self, stride: int, n_mels: int) -> None:
        """Find out whether streams share a run, where that is not known."""

    def rehearse(self, most: int) -> None:
        """Get ready for runs of up to ``most`` streams, where that takes a while."""

    def limits(self, limits: BatchLimits) -> BatchLimits:
        """Return the limits of runs, of those that are given."""

    def live_streams(self) -> int:
        """Return how many streams hold caches."""

    def shrink(self) -> None:
        """Free memory that is kept for further streams."""

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
