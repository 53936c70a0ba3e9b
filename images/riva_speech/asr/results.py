"""What a recogniser gives back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from riva_speech.asr.ctc import Tokens
    from riva_speech.text.vocabulary import Vocabulary


@dataclass(frozen=True)
class RecognisedWord:
    """A word with its times in milliseconds and the smallest posterior of its tokens."""

    text: str
    start_ms: int
    end_ms: int
    confidence: float


@dataclass(frozen=True)
class Result:
    """A hypothesis for one utterance.

    ``confidence`` is the mean posterior of the tokens; ``audio_processed`` is in seconds from the
    beginning of the stream.
    """

    words: tuple[RecognisedWord, ...]
    confidence: float
    is_final: bool
    audio_processed: float

    @property
    def transcript(self) -> str:
        """The words, joined by single spaces."""
        return " ".join(word.text for word in self.words)


@dataclass(frozen=True)
class ResultBuilder:
    """Turns decoded tokens into results."""

    vocabulary: Vocabulary
    ms_per_timestep: int
    asr_model_delay: int = 0

    def build(self, tokens: Tokens, *, is_final: bool, audio_processed: float) -> Result:
        """Return the result for one utterance's tokens.

        ``audio_processed`` is how many seconds of audio the client has sent; silence that follows
        a stream gives no word a later time.
        """
        words = tuple(
            RecognisedWord(
                text=word.text,
                start_ms=self._ms(tokens.steps[word.first], audio_processed),
                end_ms=self._ms(tokens.steps[word.last - 1] + 1, audio_processed),
                confidence=float(tokens.probabilities[word.first : word.last].min()),
            )
            for word in self.vocabulary.words(tokens.ids.tolist())
        )
        confidence = float(tokens.probabilities.mean()) if words else 0.0
        return Result(words, confidence, is_final, audio_processed)

    def _ms(self, step: int, audio_processed: float) -> int:
        milliseconds = (int(step) + self.asr_model_delay) * self.ms_per_timestep
        return min(max(0, milliseconds), round(1000 * audio_processed))
