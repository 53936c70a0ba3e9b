"""What a recogniser gives back."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

from riva_speech.asr.options import NOTHING_ASKED

if TYPE_CHECKING:
    from collections.abc import Sequence

    from riva_speech.asr.ctc import Hypothesis
    from riva_speech.asr.options import RequestOptions


@dataclass(frozen=True)
class RecognisedWord:
    """A word with its times in milliseconds and the smallest posterior of its tokens."""

    text: str
    start_ms: int
    end_ms: int
    confidence: float


@dataclass(frozen=True)
class Alternative:
    """One reading of an utterance; ``confidence`` is the mean posterior of its tokens."""

    words: tuple[RecognisedWord, ...]
    confidence: float

    @property
    def transcript(self) -> str:
        """The words, joined by single spaces."""
        return " ".join(word.text for word in self.words)

    def later(self, milliseconds: int) -> Alternative:
        """Return this reading with its words so much later."""
        words = (
            replace(word, start_ms=word.start_ms + milliseconds, end_ms=word.end_ms + milliseconds)
            for word in self.words
        )
        return replace(self, words=tuple(words))


@dataclass(frozen=True)
class Result:
    """What was heard of one utterance.

    ``alternatives`` has at least one entry, the best first; ``audio_processed`` is in seconds from
    the beginning of the stream. A partial result is ``first_pass`` where its utterance seems over.
    ``vad_probabilities`` are those of speech since the result before, where they are asked for.
    """

    alternatives: tuple[Alternative, ...]
    is_final: bool
    audio_processed: float
    first_pass: bool = False
    vad_probabilities: tuple[float, ...] = ()

    @property
    def words(self) -> tuple[RecognisedWord, ...]:
        """The words of the best reading."""
        return self.alternatives[0].words

    @property
    def confidence(self) -> float:
        """The confidence in the best reading."""
        return self.alternatives[0].confidence

    @property
    def transcript(self) -> str:
        """The text of the best reading."""
        return self.alternatives[0].transcript

    def heard_on(self, following: Result) -> Result:
        """Return this result with what the voice activity was in one that is not sent."""
        told = (*self.vad_probabilities, *following.vad_probabilities)
        return replace(self, vad_probabilities=told)

    def later(self, seconds: float) -> Result:
        """Return this result as it is where its audio begins so much later in a stream."""
        return replace(
            self,
            alternatives=tuple(one.later(round(1000 * seconds)) for one in self.alternatives),
            audio_processed=self.audio_processed + seconds,
        )


class WriteWords(Protocol):
    """Writes the words of a reading as a request wants them."""

    def __call__(
        self, words: tuple[RecognisedWord, ...], options: RequestOptions, *, is_final: bool
    ) -> tuple[RecognisedWord, ...]:
        """Return words as they are written, with their times."""


def as_spoken(
    words: tuple[RecognisedWord, ...], options: RequestOptions, *, is_final: bool
) -> tuple[RecognisedWord, ...]:
    """Return words as the model gave them, whatever is asked."""
    del options, is_final
    return words


@dataclass(frozen=True)
class ResultBuilder:
    """Turns what a decoder gives into results.

    ``is_quick`` if writing takes next to no time; ``classes`` are those that phrases may name.
    """

    ms_per_timestep: int
    asr_model_delay: int = 0
    write: WriteWords = as_spoken
    is_quick: bool = True
    classes: tuple[str, ...] = ()

    def build(
        self,
        hypotheses: Sequence[Hypothesis],
        options: RequestOptions = NOTHING_ASKED,
        *,
        is_final: bool,
        audio_processed: float,
    ) -> Result:
        """Return the result for one utterance, of which there is at least one hypothesis.

        ``audio_processed`` is how many seconds of audio the client has sent; silence that follows
        a stream gives no word a later time.
        """
        spoken = (self._alternative(one, audio_processed) for one in hypotheses)
        alternatives = tuple(
            replace(one, words=self.write(one.words, options, is_final=is_final)) for one in spoken
        )
        return Result(alternatives, is_final, audio_processed)

    def _alternative(self, hypothesis: Hypothesis, audio_processed: float) -> Alternative:
        tokens = hypothesis.tokens
        words = tuple(
            RecognisedWord(
                text=word.text,
                start_ms=self._ms(tokens.steps[word.first], audio_processed),
                end_ms=self._ms(tokens.steps[word.last - 1] + 1, audio_processed),
                confidence=float(tokens.probabilities[word.first : word.last].min()),
            )
            for word in hypothesis.words
        )
        return Alternative(words, float(tokens.probabilities.mean()) if words else 0.0)

    def _ms(self, step: int, audio_processed: float) -> int:
        milliseconds = (int(step) + self.asr_model_delay) * self.ms_per_timestep
        return min(max(0, milliseconds), round(1000 * audio_processed))
