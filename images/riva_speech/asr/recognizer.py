"""The recognisers: one for whole utterances, one for streams."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from riva_speech.asr.endpointing import Endpointer
from riva_speech.asr.options import NOTHING_ASKED
from riva_speech.asr.pipeline import EndpointingConfig
from riva_speech.audio.features import LogMelStream

if TYPE_CHECKING:
    from riva_speech.asr.acoustic import LogProbs, OfflineAcousticModel, StreamingModel
    from riva_speech.asr.ctc import Decoding, Hypothesis
    from riva_speech.asr.options import RequestOptions
    from riva_speech.asr.pipeline import PipelineConfig
    from riva_speech.asr.results import Result, ResultBuilder
    from riva_speech.audio.features import Features, LogMel, Samples

_NO_ENDPOINTING = EndpointingConfig(stop_history=0)


@dataclass(frozen=True)
class OfflineRecognizer:
    """Recognises whole utterances. Holds no state of any of them; safe to share."""

    config: PipelineConfig
    log_mel: LogMel
    acoustic: OfflineAcousticModel
    decoding: Decoding
    results: ResultBuilder

    def recognize(self, samples: Samples, options: RequestOptions = NOTHING_ASKED) -> Result:
        """Recognise mono float32 samples at the model's rate, in [-1, 1].

        Only beam decoders have more than one reading. Endpointing cuts nothing here.
        """
        features = self.log_mel(samples)
        decoder = self.decoding.start()
        if features.shape[1]:
            decoder.accept(self.log_probs(features))
        seconds = len(samples) / self.config.acoustic.features.sample_rate
        hypotheses = decoder.end(options.alternatives)
        return self.results.build(hypotheses, is_final=True, audio_processed=seconds)

    def log_probs(self, features: Features) -> LogProbs:
        """Encode features, [n_mels, frames], in one run, or chunk by chunk where they are long.

        Attention over an hour would take more memory than any machine has, so each chunk is
        encoded with some context on both sides, whose steps are then cut off.
        """
        chunk = self._frames(self.config.chunk_size)
        before = self._frames(self.config.left_padding_size)
        after = self._frames(self.config.right_padding_size)
        total = features.shape[1]
        if total <= chunk:
            return self.acoustic(features)
        pieces = []
        for begin in range(0, total, chunk):
            left = min(begin, before)
            window = features[:, begin - left : begin + chunk + after]
            encoded = self.acoustic(window)
            is_last = begin + chunk >= total
            end = None if is_last else (left + chunk) // self._stride
            pieces.append(encoded[left // self._stride : end])
        return np.concatenate(pieces)

    @property
    def _stride(self) -> int:
        """Feature frames an encoder step."""
        return self.config.acoustic.stride

    def _frames(self, seconds: float) -> int:
        """Return a duration as feature frames, rounded to whole encoder steps."""
        steps = round(1000 * seconds / self.config.acoustic.ms_per_timestep)
        return steps * self._stride


@dataclass(frozen=True)
class StreamingRecognizer:
    """Recognises streams; ``start`` one for each. Safe to share."""

    config: PipelineConfig
    log_mel: LogMel
    acoustic: StreamingModel
    decoding: Decoding
    results: ResultBuilder

    def start(self, options: RequestOptions = NOTHING_ASKED) -> Stream:
        """Open a stream."""
        return Stream(self, options)

    def recognize(self, samples: Samples, options: RequestOptions = NOTHING_ASKED) -> Result:
        """Recognise a whole utterance through a stream, without cutting it."""
        stream = self.start(replace(options, endpointing=_NO_ENDPOINTING, interim=False))
        stream.accept(samples)
        return stream.finish()


class Stream:
    """One stream of samples on its way to words."""

    def __init__(self, recognizer: StreamingRecognizer, options: RequestOptions) -> None:
        self._recognizer = recognizer
        self._options = options
        self._features = LogMelStream(recognizer.log_mel)
        self._pending = np.zeros((recognizer.log_mel.config.n_mels, 0), np.float32)
        self._state = recognizer.acoustic.start()
        self._decoder = recognizer.decoding.start()
        self._endpointer = Endpointer(
            options.endpointing or recognizer.config.endpointing,
            recognizer.config.acoustic.ms_per_timestep,
        )
        # What the client was last told of the utterance in progress.
        self._told = ""
        self._seemed_over = False
        self._steps = 0
        self._samples = 0

    def accept(self, samples: Samples) -> list[Result]:
        """Take samples; return the utterances that ended, then what is heard of the next one.

        The list is empty as long as there is nothing new to tell.
        """
        self._samples += len(samples)
        self._pending = np.concatenate([self._pending, self._features.accept(samples)], axis=1)
        finals: list[Result] = []
        heard_anything = False
        while self._pending.shape[1] >= self._wanted_frames():
            finals += self._step(self._take_chunk())
            heard_anything = True
        return [*finals, *self._partial()] if heard_anything and self._options.interim else finals

    def finish(self) -> Result:
        """End the stream; return its last utterance, which may have no words.

        Utterances that end within the last chunk are joined to it: nothing follows them.
        """
        if self._samples:
            self._hear_out()
        return self._end()

    def _partial(self) -> list[Result]:
        """Return what is heard of the utterance in progress, where that is news."""
        best = self._decoder.best()
        seems_over = self._endpointer.seems_over
        first_pass = seems_over and not self._seemed_over
        self._seemed_over = seems_over
        if not best.words or (best.text == self._told and not first_pass):
            return []
        self._told = best.text
        return [replace(self._build([best], is_final=False), first_pass=first_pass)]

    def _hear_out(self) -> None:
        rate = self._recognizer.config.acoustic.features.sample_rate
        seconds = self._recognizer.acoustic.tail_seconds
        tail = self._features.accept(np.zeros(int(seconds * rate), np.float32))
        self._pending = np.concatenate([self._pending, tail, self._features.finish()], axis=1)
        while self._pending.shape[1]:
            self._decoder.accept(self._encode(self._take_chunk()))

    def _wanted_frames(self) -> int:
        return self._recognizer.acoustic.wanted_frames(self._state)

    def _take_chunk(self) -> Features:
        size = self._wanted_frames()
        chunk, self._pending = self._pending[:, :size], self._pending[:, size:]
        return chunk

    def _encode(self, chunk: Features) -> LogProbs:
        return self._recognizer.acoustic.step(self._state, chunk)

    def _step(self, chunk: Features) -> list[Result]:
        """Decode a chunk, cut where utterances end."""
        log_probs = self._encode(chunk)
        ends = self._endpointer.accept(self._decoder.blanks(log_probs))
        *ended, rest = np.split(log_probs, [max(0, end - self._steps) for end in ends])
        self._steps += len(log_probs)
        finals = []
        for piece in ended:
            self._decoder.accept(piece)
            finals.append(self._end())
        self._decoder.accept(rest)
        return [final for final in finals if final.words]

    def _end(self) -> Result:
        self._told, self._seemed_over = "", False
        return self._build(self._decoder.end(self._options.alternatives), is_final=True)

    def _build(self, hypotheses: list[Hypothesis], *, is_final: bool) -> Result:
        rate = self._recognizer.config.acoustic.features.sample_rate
        return self._recognizer.results.build(
            hypotheses, is_final=is_final, audio_processed=self._samples / rate
        )
