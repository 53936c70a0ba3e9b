"""Greedy CTC decoding, and what every decoder gives back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from riva_speech.asr.acoustic import LogProbs
    from riva_speech.text.vocabulary import Vocabulary, Word


@dataclass(frozen=True)
class Tokens:
    """A decoded sequence: for each token its id, the encoder step it was seen at, its posterior."""

    ids: NDArray[np.int64]
    steps: NDArray[np.int64]
    probabilities: NDArray[np.float32]

    @classmethod
    def none(cls) -> Tokens:
        """Return the empty sequence."""
        return cls(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.float32))

    def __add__(self, other: Tokens) -> Tokens:
        """Return both sequences, one after the other."""
        return Tokens(
            np.concatenate([self.ids, other.ids]),
            np.concatenate([self.steps, other.steps]),
            np.concatenate([self.probabilities, other.probabilities]),
        )

    def __len__(self) -> int:
        """Return the number of tokens."""
        return len(self.ids)


@dataclass(frozen=True)
class Hypothesis:
    """What one utterance may have been: its words, and the tokens that they refer to."""

    tokens: Tokens
    words: tuple[Word, ...]

    @property
    def text(self) -> str:
        """The words, joined by single spaces."""
        return " ".join(word.text for word in self.words)


class Decoder(Protocol):
    """Turns the log-probabilities of one stream into words, utterance by utterance.

    However a stream's steps are grouped, its utterances are the same.
    """

    def accept(self, log_probs: LogProbs) -> None:
        """Take the next steps, [steps, tokens + 1]."""

    def best(self) -> Hypothesis:
        """Return what the utterance seems to be so far."""

    def end(self, count: int = 1) -> list[Hypothesis]:
        """End the utterance here, and begin the next; return at most ``count``, the best first."""


class Decoding(Protocol):
    """A way of decoding, ready to start decoders of streams. Safe to share."""

    @property
    def name(self) -> str:
        """Its ``--decoder_type``."""

    def start(self) -> Decoder:
        """Return the decoder of a new stream."""


@dataclass(frozen=True)
class GreedyDecoding:
    """Takes the best token of each step."""

    vocabulary: Vocabulary
    name: str = "greedy"

    def start(self) -> GreedyDecoder:
        """Return the decoder of a new stream."""
        return GreedyDecoder(self.vocabulary)


class GreedyDecoder:
    """Takes the best token of each step, merges repeats, drops blanks.

    It remembers the last step, so that pieces of a stream decode as the whole would.
    """

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        self._last = vocabulary.blank
        self._steps = 0
        self._tokens = Tokens.none()

    def accept(self, log_probs: LogProbs) -> None:
        """Take the next steps, [steps, tokens + 1]."""
        best = log_probs.argmax(axis=1)
        previous = np.concatenate([[self._last], best[:-1]]).astype(np.int64)
        at = np.flatnonzero((best != previous) & (best != self._vocabulary.blank))
        self._tokens += Tokens(best[at], at + self._steps, np.exp(log_probs[at, best[at]]))
        if len(best):
            self._last = int(best[-1])
        self._steps += len(best)

    def best(self) -> Hypothesis:
        """Return what the utterance is so far."""
        words = self._vocabulary.words(self._tokens.ids.tolist())
        return Hypothesis(self._tokens, tuple(words))

    def end(self, count: int = 1) -> list[Hypothesis]:
        """End the utterance; there is one hypothesis, however many are asked for."""
        ended = self.best()
        self._tokens = Tokens.none()
        return [ended][:count]
