"""What every way of decoding takes and gives back."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from riva_speech.asr.acoustic import LogProbs
    from riva_speech.asr.options import Boost
    from riva_speech.text.vocabulary import Vocabulary, Word


@dataclass(frozen=True)
class Tokens:
    """A decoded sequence: for each token its id, the encoder step it was seen at, its posterior."""

    ids: NDArray[np.int64]
    steps: NDArray[np.int64]
    probabilities: NDArray[np.float32]

    @staticmethod
    def none() -> Tokens:
        """Return the empty sequence."""
        return _NO_TOKENS

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

    def __getitem__(self, part: slice) -> Tokens:
        """Return some of the tokens."""
        return Tokens(self.ids[part], self.steps[part], self.probabilities[part])

    def moved(self, steps: int) -> Tokens:
        """Return the same tokens, seen so many steps later."""
        return Tokens(self.ids, self.steps + steps, self.probabilities)


_NO_TOKENS = Tokens(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.float32))


@dataclass(frozen=True)
class Hypothesis:
    """What one utterance may have been: its words, and the tokens that they refer to."""

    tokens: Tokens
    words: tuple[Word, ...]

    @cached_property
    def text(self) -> str:
        """The words, joined by single spaces."""
        return " ".join([word.text for word in self.words])


@dataclass(frozen=True)
class Reading:
    """The next steps of one stream, as they were read together with those of other streams.

    ``log_probs`` is what the model gave, [steps, tokens + 1]; for a transducer its encoder's,
    [steps, width]. ``blanks`` tells which steps give no token, ``tokens`` what the others give,
    their steps counted from the first of these. ``carry`` is what the decoder needs to know when
    the steps that follow are read.
    """

    log_probs: LogProbs
    blanks: NDArray[np.bool_]
    tokens: Tokens = field(default_factory=Tokens.none)
    carry: Any = None

    def __len__(self) -> int:
        """Return the number of steps."""
        return len(self.blanks)

    def cut(self, begin: int, end: int) -> Reading:
        """Return some of the steps."""
        first, last = np.searchsorted(self.tokens.steps, [begin, end])
        tokens = self.tokens[first:last].moved(-begin)
        return Reading(self.log_probs[begin:end], self.blanks[begin:end], tokens, self.carry)


class Decoder(Protocol):
    """Turns the steps of one stream into words, utterance by utterance.

    However a stream's steps are grouped, its utterances are the same.
    """

    @property
    def is_quick(self) -> bool:
        """Whether taking a second of speech costs no more than the copying of it."""

    @property
    def carry(self) -> Any:  # noqa: ANN401 - of a kind that its decoding alone knows
        """What the last reading left behind; None before the first."""

    def accept(self, reading: Reading) -> None:
        """Take the next steps."""

    def best(self) -> Hypothesis:
        """Return what the utterance seems to be so far."""

    def end(self, count: int = 1) -> list[Hypothesis]:
        """End the utterance here, and begin the next; return at most ``count``, the best first."""


class Decoding(Protocol):
    """A way of decoding, ready to start decoders of streams. Safe to share."""

    @property
    def name(self) -> str:
        """Its ``--decoder_type``."""

    def start(self, boosts: tuple[Boost, ...] = ()) -> Decoder:
        """Return the decoder of a new stream, which hears some phrases more readily, or less."""

    def read(self, carries: Sequence[Any], steps: Sequence[LogProbs]) -> list[Reading]:
        """Read the next steps of several streams at once; each decoder takes its reading then."""


def read(decoding: Decoding, decoder: Decoder, steps: LogProbs) -> Reading:
    """Read the next steps of one stream."""
    (reading,) = decoding.read([decoder.carry], [steps])
    return reading


def read_blanks(carries: Sequence[Any], steps: Sequence[LogProbs]) -> list[Reading]:
    """Read which steps of a CTC model are blank, for decoders that look at the rest themselves.

    The blank is the last of the model's tokens.
    """
    del carries
    every = steps[0] if len(steps) == 1 else np.concatenate(steps)
    blanks = every.argmax(axis=1) == every.shape[1] - 1
    ends = np.cumsum([len(piece) for piece in steps]).tolist()
    return [
        Reading(piece, blanks[end - len(piece) : end])
        for piece, end in zip(steps, ends, strict=True)
    ]


class TokenDecoder:
    """Gathers the tokens that were read, whatever read them."""

    is_quick = True

    def __init__(self, vocabulary: Vocabulary, carry: Any = None) -> None:  # noqa: ANN401 - as above
        self.carry = carry
        self._vocabulary = vocabulary
        self._steps = 0
        self._tokens = Tokens.none()
        # The words of the tokens that were read; the last of them may go on.
        self._words: list[Word] = []
        self._best: Hypothesis | None = None

    def accept(self, reading: Reading) -> None:
        """Take the next steps."""
        if len(reading.tokens):
            self._tokens += reading.tokens.moved(self._steps)
            self._best = None
        self._steps += len(reading)
        self.carry = reading.carry

    def best(self) -> Hypothesis:
        """Return what the utterance is so far."""
        if self._best is None:
            begin = self._words[-1].first if self._words else 0
            ids = self._tokens.ids[begin:].tolist()
            self._words[-1:] = self._vocabulary.words(ids, begin)
            self._best = Hypothesis(self._tokens, tuple(self._words))
        return self._best

    def end(self, count: int = 1) -> list[Hypothesis]:
        """End the utterance; there is one hypothesis, however many are asked for."""
        ended = self.best()
        self._tokens, self._words, self._best = Tokens.none(), [], None
        return [ended][:count]
