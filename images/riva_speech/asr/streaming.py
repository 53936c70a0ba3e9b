"""The recogniser for streams.

Like an utterance, a stream says what it wants computed next, and takes the answer: the steps of
many streams are one run of the model.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from riva_speech.asr.endpointing import Endpointer
from riva_speech.asr.flashlight import FlashlightDecoding
from riva_speech.asr.options import NOTHING_ASKED
from riva_speech.asr.pipeline import EndpointingConfig
from riva_speech.asr.vad import gate_for
from riva_speech.audio.features import LogMelStream

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence
    from typing import Any

    from numpy.typing import NDArray

    from riva_speech.asr.acoustic import StreamingModel
    from riva_speech.asr.ctc import Decoding, Hypothesis, Reading
    from riva_speech.asr.options import RequestOptions
    from riva_speech.asr.pipeline import PipelineConfig
    from riva_speech.asr.results import Result, ResultBuilder
    from riva_speech.asr.vad import VoiceActivity
    from riva_speech.audio.features import Features, LogMel, Samples
    from riva_speech.batching import BatchLimits

_NO_ENDPOINTING = EndpointingConfig(stop_history=0)


@dataclass(frozen=True)
class Step:
    """What a stream wants computed next.

    ``windows`` are of samples, [frames, win_length]; ``state`` is the model's, and ``carry`` the
    decoder's.
    """

    windows: NDArray[np.float32]
    state: Any
    carry: Any


@dataclass(frozen=True)
class StreamingRecognizer:
    """Recognises streams; ``start`` one for each. Safe to share."""

    config: PipelineConfig
    log_mel: LogMel
    acoustic: StreamingModel
    decoding: Decoding
    results: ResultBuilder
    activity: VoiceActivity | None = None

    def start(self, options: RequestOptions = NOTHING_ASKED) -> Stream:
        """Open a stream."""
        return Stream(self, options)

    def start_whole(self, options: RequestOptions = NOTHING_ASKED) -> Stream:
        """Open a stream for one utterance, which nothing cuts."""
        return Stream(self, replace(options, endpointing=_NO_ENDPOINTING, interim=False))

    def recognize(self, samples: Samples, options: RequestOptions = NOTHING_ASKED) -> Result:
        """Recognise a whole utterance through a stream, without cutting it."""
        stream = self.start_whole(options)
        stream.accept(samples)
        return stream.finish()

    def run(self, steps: Sequence[Step]) -> list[Reading]:
        """Compute the next steps of several streams of one kind.

        Their features come from one transform, their encoder steps from one run of the model, and
        their tokens from one search. No stream has moved on unless all have.
        """
        chunks = self._features([step.windows for step in steps])
        with self.acoustic.encoding([step.state for step in steps], chunks) as encoded:
            return self.decoding.read([step.carry for step in steps], encoded)

    def _features(self, frames: Sequence[NDArray[np.float32]]) -> list[Features]:
        """Return the features of each stream's windows."""
        features = self.log_mel.of_frames(frames)
        if len(frames) == 1:
            return [features]
        ends = np.cumsum([len(windows) for windows in frames])[:-1]
        return np.split(features, ends, axis=1)

    def learn_to_join(self) -> None:
        """Find out whether steps share a run of the model."""
        acoustic = self.config.acoustic
        self.acoustic.learn_to_join(acoustic.stride, acoustic.features.n_mels)

    def rehearse(self, most: int) -> None:
        """Get ready for runs of up to ``most`` streams, where that takes a while.

        Nothing else of this process may use a GPU meanwhile.
        """
        self.acoustic.rehearse(most)

    def limits(self, limits: BatchLimits) -> BatchLimits:
        """Return the limits of runs, of those that are given."""
        return self.acoustic.limits(limits)

    def cost(self, step: Step) -> float:
        """Return the same for all steps: each is one chunk."""
        del step
        return 1.0

    def live_streams(self) -> int:
        """Return how many streams hold caches."""
        return self.acoustic.live_streams()

    def shrink(self) -> None:
        """Free memory that is kept for further streams."""
        self.acoustic.shrink()

    def kind(self, step: Step) -> Hashable:
        """Return what steps have in common that may share a run."""
        return self.acoustic.kind(step.state)


class Stream:
    """One stream of samples on its way to words.

    ``push`` samples, and then compute each ``next_step`` and ``take`` what it gave, until there is
    none; ``partial`` is what is heard of an utterance that has not ended. ``accept`` and
    ``finish`` do all that at once.
    """

    def __init__(self, recognizer: StreamingRecognizer, options: RequestOptions) -> None:
        self._recognizer = recognizer
        self._options = options
        self._gate = gate_for(recognizer.activity, options)
        self._features = LogMelStream(recognizer.log_mel)
        self._state = recognizer.acoustic.start()
        self._decoder = _decoding(recognizer.decoding, options).start(options.boosts)
        self._endpointer = Endpointer(
            options.endpointing or recognizer.config.endpointing,
            recognizer.config.acoustic.ms_per_timestep,
        )
        # Whether anything was heard since the client was last told, and what that was.
        self._news = False
        self._told = ""
        self._seemed_over = False
        self._ending = False
        self._steps = 0
        self._samples = 0

    @property
    def is_quick(self) -> bool:
        """Whether all but the model's runs takes next to no time."""
        return self._decoder.is_quick and self._recognizer.results.is_quick and not self._gate

    def accept(self, samples: Samples) -> list[Result]:
        """Take samples; return the utterances that ended, then what is heard of the next one.

        The list is empty as long as there is nothing new to tell.
        """
        self.push(samples)
        finals = self._compute()
        return [*finals, *self.partial()]

    def finish(self) -> Result:
        """End the stream; return its last utterance, which may have no words.

        Utterances that end within the last chunk are joined to it: nothing follows them.
        """
        self.end()
        self._compute()
        return self.last()

    def close(self) -> None:
        """Give back at once what the stream takes, whatever still refers to it."""
        self._recognizer.acoustic.end(self._state)

    def push(self, samples: Samples) -> None:
        """Take samples; before the first there is silence, where the pipeline wants it."""
        if not self._samples and len(samples):
            self._push_silence(self._recognizer.config.leading_silence)
        self._samples += len(samples)
        self._features.push(self._gate.push(samples) if self._gate else samples)

    def end(self) -> None:
        """Say that no samples follow. The stream is heard out with silence, if it had any."""
        self._ending = True
        if self._samples:
            if self._gate:
                self._features.push(self._gate.end())
            self._push_silence(self._recognizer.acoustic.tail_seconds)
            self._features.end()

    def next_step(self) -> Step | None:
        """Return what is to be computed next; None if more samples are wanted first."""
        wanted = self._recognizer.acoustic.wanted_frames(self._state)
        ready = self._features.ready
        if ready < wanted and not (self._ending and ready):
            return None
        windows = self._features.take(min(wanted, ready))
        return Step(windows, self._state, self._decoder.carry)

    def take(self, reading: Reading) -> list[Result]:
        """Take what a step gave; return the utterances that ended within it."""
        self._news = True
        if self._ending:
            self._decoder.accept(reading)
            return []
        finals: list[Result] = []
        first, begin = self._steps, 0
        self._steps += len(reading)
        for end in self._endpointer.accept(reading.blanks):
            cut = max(begin, end - first)
            self._decoder.accept(reading.cut(begin, cut))
            final = self._end_utterance()
            # One without words is not sent, and what was told with it would be lost.
            finals += [self._with_activity(final)] if final.words else []
            begin = cut
        self._decoder.accept(reading.cut(begin, len(reading)) if begin else reading)
        return finals

    def partial(self) -> list[Result]:
        """Return what is heard of the utterance in progress, where that is news and wanted."""
        if not (self._news and self._options.interim):
            return []
        self._news = False
        best = self._decoder.best()
        seems_over = self._endpointer.seems_over
        first_pass = seems_over and not self._seemed_over
        self._seemed_over = seems_over
        if not best.words or (best.text == self._told and not first_pass):
            return []
        self._told = best.text
        partial = self._with_activity(self._build([best], is_final=False))
        return [replace(partial, first_pass=True) if first_pass else partial]

    def last(self) -> Result:
        """End the present utterance; return it, with or without words."""
        return self._with_activity(self._end_utterance())

    def _push_silence(self, seconds: float) -> None:
        rate = self._recognizer.config.acoustic.features.sample_rate
        self._features.push(np.zeros(round(seconds * rate), np.float32))

    def _end_utterance(self) -> Result:
        self._told, self._seemed_over = "", False
        return self._build(self._decoder.end(self._options.alternatives), is_final=True)

    def _with_activity(self, result: Result) -> Result:
        """Tell with a result what the voice activity was since the last one that was sent."""
        return replace(result, vad_probabilities=self._gate.tell()) if self._gate else result

    def _compute(self) -> list[Result]:
        """Compute whatever can be."""
        finals: list[Result] = []
        while step := self.next_step():
            (reading,) = self._recognizer.run([step])
            finals += self.take(reading)
        return finals

    def _build(self, hypotheses: list[Hypothesis], *, is_final: bool) -> Result:
        rate = self._recognizer.config.acoustic.features.sample_rate
        return self._recognizer.results.build(
            hypotheses,
            self._options,
            is_final=is_final,
            audio_processed=self._samples / rate,
        )


def _decoding(decoding: Decoding, options: RequestOptions) -> Decoding:
    """Return what decodes a stream: with little memory, unless it is for several readings."""
    if isinstance(decoding, FlashlightDecoding) and options.alternatives == 1:
        return decoding.settling_early()
    return decoding
