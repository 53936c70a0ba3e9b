"""What a recogniser gives back."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, NamedTuple, Protocol

from riva_speech.asr.options import NOTHING_ASKED

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from riva_speech.asr.ctc import Hypothesis
    from riva_speech.asr.options import RequestOptions


class RecognisedWord(NamedTuple):
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
            word._replace(start_ms=word.start_ms + milliseconds, end_ms=word.end_ms + milliseconds)
            for word in self.words
        )
        return replace(self, words=tuple(words))


class DeferredAlternative:
    """A reading whose text is known, and whose words are timed when somebody asks for them.

    Of an utterance in progress that is told anew with every piece of audio, few do.
    """

    def __init__(self, transcript: str, make: Callable[[], Alternative]) -> None:
        self.transcript = transcript
        self._make = make

    @cached_property
    def _made(self) -> Alternative:
        return self._make()

    @property
    def words(self) -> tuple[RecognisedWord, ...]:
        """The words, with their times."""
        return self._made.words

    @property
    def confidence(self) -> float:
        """The mean posterior of the tokens."""
        return self._made.confidence

    def later(self, milliseconds: int) -> DeferredAlternative:
        """Return this reading with its words so much later."""
        return DeferredAlternative(self.transcript, lambda: self._made.later(milliseconds))


@dataclass(frozen=True)
class Result:
    """What was heard of one utterance.

    ``alternatives`` has at least one entry, the best first; ``audio_processed`` is in seconds from
    the beginning of the stream. A partial result is ``first_pass`` where its utterance seems over.
    ``vad_probabilities`` are those of speech since the result before, where they are asked for.
    """

    alternatives: tuple[Alternative | DeferredAlternative, ...]
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

    def changes(self, options: RequestOptions, *, is_final: bool) -> bool:
        """Whether they may come back other than they were given."""

    def __call__(
        self, words: tuple[RecognisedWord, ...], options: RequestOptions, *, is_final: bool
    ) -> tuple[RecognisedWord, ...]:
        """Return words as they are written, with their times."""


class AsSpoken:
    """Leaves words as the model gave them, whatever is asked."""

    def changes(self, options: RequestOptions, *, is_final: bool) -> bool:
        """Return False."""
        del options, is_final
        return False

    def __call__(
        self, words: tuple[RecognisedWord, ...], options: RequestOptions, *, is_final: bool
    ) -> tuple[RecognisedWord, ...]:
        """Return the words."""
        del options, is_final
        return words


@dataclass(frozen=True)
class ResultBuilder:
    """Turns what a decoder gives into results.

    ``is_quick`` if writing takes next to no time; ``classes`` are those that phrases may name.
    """

    ms_per_timestep: int
    asr_model_delay: int = 0
    write: WriteWords = field(default_factory=AsSpoken)
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
        latest = round(1000 * audio_processed)
        alternatives = tuple(
            self._alternative(one, options, latest, is_final=is_final) for one in hypotheses
        )
        return Result(alternatives, is_final, audio_processed)

    def _alternative(
        self, hypothesis: Hypothesis, options: RequestOptions, latest: int, *, is_final: bool
    ) -> Alternative | DeferredAlternative:
        if not is_final and not self.write.changes(options, is_final=is_final):
            return DeferredAlternative(hypothesis.text, partial(self._spoken, hypothesis, latest))
        spoken = self._spoken(hypothesis, latest)
        return replace(spoken, words=self.write(spoken.words, options, is_final=is_final))

    def _spoken(self, hypothesis: Hypothesis, latest: int) -> Alternative:
        """Return a reading as it was spoken; ``latest`` is the last time of a word, in ms."""
        # Lists, for to take an array's numbers one by one takes many times as long.
        steps = hypothesis.tokens.steps.tolist()
        probabilities = hypothesis.tokens.probabilities.tolist()
        words = tuple(
            RecognisedWord(
                word.text,
                min(self._ms(steps[word.first]), latest),
                min(self._ms(steps[word.last - 1] + 1), latest),
                min(probabilities[word.first : word.last]),
            )
            for word in hypothesis.words
        )
        return Alternative(words, math.fsum(probabilities) / len(probabilities) if words else 0.0)

    def _ms(self, step: int) -> int:
        return max(0, (step + self.asr_model_delay) * self.ms_per_timestep)
