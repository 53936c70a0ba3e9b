"""The recogniser for whole utterances.

Between its samples and its words stands the model, which is run for many requests at once. So an
utterance is an object that says what it wants computed, and takes the answer: who drives it may
run the model at once, or wait for its turn.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from riva_speech.asr.ctc import read
from riva_speech.asr.options import NOTHING_ASKED
from riva_speech.asr.vad import gate_for

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator, Sequence

    from riva_speech.asr.acoustic import LogProbs, OfflineAcousticModel
    from riva_speech.asr.ctc import Decoding
    from riva_speech.asr.options import RequestOptions
    from riva_speech.asr.pipeline import PipelineConfig
    from riva_speech.asr.results import Result, ResultBuilder
    from riva_speech.asr.vad import VoiceActivity
    from riva_speech.audio.features import Features, LogMel, Samples
    from riva_speech.batching import BatchLimits


@dataclass(frozen=True)
class OfflineRecognizer:
    """Recognises whole utterances. Holds no state of any of them; safe to share."""

    config: PipelineConfig
    log_mel: LogMel
    acoustic: OfflineAcousticModel
    decoding: Decoding
    results: ResultBuilder
    activity: VoiceActivity | None = None

    def recognize(self, samples: Samples, options: RequestOptions = NOTHING_ASKED) -> Result:
        """Recognise mono float32 samples at the model's rate, in [-1, 1].

        Only beam decoders have more than one reading. Endpointing cuts nothing here.
        """
        utterance = self.start(samples, options)
        for window in utterance.windows():
            utterance.take(self.acoustic(window))
        return utterance.finish(options)

    def start(self, samples: Samples, options: RequestOptions = NOTHING_ASKED) -> Utterance:
        """Compute the features of samples as ``recognize`` takes them."""
        if gate := gate_for(self.activity, options):
            samples = np.concatenate([gate.push(samples), gate.end()])
        return Utterance(self, self.features(samples), len(samples))

    def features(self, samples: Samples) -> Features:
        """Compute the features of samples, with the silence around them that is to be heard.

        A recording may be cut where its first word begins and its last one ends.
        """
        rate = self.config.acoustic.features.sample_rate
        seconds = (self.config.leading_silence, self.config.trailing_silence)
        before, behind = (round(rate * one) for one in seconds)
        if (before or behind) and len(samples):
            samples = np.pad(samples, (before, behind))
        return self.log_mel(samples)

    def log_probs(self, features: Features) -> LogProbs:
        """Encode features, [n_mels, frames], as ``recognize`` does."""
        utterance = Utterance(self, features, 0)
        for window in utterance.windows():
            utterance.take(self.acoustic(window))
        return utterance.log_probs()

    def run(self, windows: Sequence[Features]) -> list[LogProbs]:
        """Encode windows of several utterances."""
        return self.acoustic.encode(windows)

    def kind(self, window: Features) -> Hashable:
        """Return what windows have in common that may share a run."""
        padding = self.acoustic.padding
        return padding.kind(window.shape[1]) if padding else None

    def learn_to_join(self) -> None:
        """Find out how windows share a run of the model."""
        acoustic = self.config.acoustic
        self.acoustic.learn_to_join(acoustic.stride, acoustic.features.n_mels)

    def limits(self, limits: BatchLimits) -> BatchLimits:
        """Return the limits of runs: windows of all runs together are as long as one may be.

        One that alone is longer than its run's share has a run of its own.
        """
        most = limits.max_batch if self.acoustic.padding else 1
        return replace(limits, max_batch=most, max_cost=1.0 / limits.runs)

    def cost(self, window: Features) -> float:
        """Return the length of a window as a share of the longest that there may be."""
        longest = self.frames(
            self.config.left_padding_size + self.config.chunk_size + self.config.right_padding_size
        )
        return window.shape[1] / max(1, longest)

    @property
    def stride(self) -> int:
        """Feature frames an encoder step."""
        return self.config.acoustic.stride

    def frames(self, seconds: float) -> int:
        """Return a duration as feature frames, rounded to whole encoder steps."""
        return self.config.acoustic.steps(seconds) * self.stride


class Utterance:
    """One whole utterance on its way to words.

    Attention over an hour would take more memory than any machine has, so what is longer than a
    chunk is encoded in windows with some context on both sides, whose steps are then cut off.
    """

    def __init__(self, recognizer: OfflineRecognizer, features: Features, samples: int) -> None:
        self._recognizer = recognizer
        self._features = features
        self._samples = samples
        config = recognizer.config
        # Windows may be as long as the positions reach, which is a step more than the graph takes.
        longest = config.acoustic.longest_steps * recognizer.stride
        self._chunk = min(recognizer.frames(config.chunk_size), longest)
        room = longest - self._chunk
        self._before = min(recognizer.frames(config.left_padding_size), room)
        self._after = min(recognizer.frames(config.right_padding_size), room - self._before)
        self._encoded: list[LogProbs] = []

    def windows(self) -> Iterator[Features]:
        """Return what is to be encoded, each [n_mels, frames]; ``take`` takes the answers."""
        total = self._features.shape[1]
        if total <= self._chunk:
            if total:
                yield self._features
            return
        for begin in range(0, total, self._chunk):
            first = begin - min(begin, self._before)
            yield self._features[:, first : begin + self._chunk + self._after]

    def take(self, steps: LogProbs) -> None:
        """Take the steps of the next window, and cut its context off."""
        begin = len(self._encoded) * self._chunk
        total = self._features.shape[1]
        if total > self._chunk:
            stride = self._recognizer.stride
            left = min(begin, self._before)
            is_last = begin + self._chunk >= total
            steps = steps[left // stride : None if is_last else (left + self._chunk) // stride]
        self._encoded.append(steps)

    def log_probs(self) -> LogProbs:
        """Return the steps of all windows; there is at least one."""
        return self._encoded[0] if len(self._encoded) == 1 else np.concatenate(self._encoded)

    def finish(self, options: RequestOptions = NOTHING_ASKED) -> Result:
        """Decode what was encoded."""
        decoding = self._recognizer.decoding
        decoder = decoding.start(options.boosts)
        if self._encoded:
            decoder.accept(read(decoding, decoder, self.log_probs()))
        seconds = self._samples / self._recognizer.config.acoustic.features.sample_rate
        return self._recognizer.results.build(
            decoder.end(options.alternatives), options, is_final=True, audio_processed=seconds
        )
