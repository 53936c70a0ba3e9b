"""Greedy CTC decoding."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from riva_speech.asr.acoustic import LogProbs


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

    def until(self, step: int) -> Tokens:
        """Return the tokens seen before an encoder step."""
        return self._where(self.steps < step)

    def since(self, step: int) -> Tokens:
        """Return the tokens seen at or after an encoder step."""
        return self._where(self.steps >= step)

    def _where(self, mask: NDArray[np.bool_]) -> Tokens:
        return Tokens(self.ids[mask], self.steps[mask], self.probabilities[mask])


@dataclass(frozen=True)
class Decoded:
    """What one piece of log-probabilities gave: new tokens, and which steps were blank."""

    tokens: Tokens
    blanks: NDArray[np.bool_]


class GreedyDecoder:
    """Takes the best token of each step, merges repeats, drops blanks.

    It remembers the last step, so that pieces of a stream decode as the whole would.
    """

    def __init__(self, blank: int) -> None:
        self._blank = blank
        self._last = blank
        self._steps = 0

    def accept(self, log_probs: LogProbs) -> Decoded:
        """Decode the next steps, [steps, tokens + 1]."""
        best = log_probs.argmax(axis=1)
        previous = np.concatenate([[self._last], best[:-1]]).astype(np.int64)
        at = np.flatnonzero((best != previous) & (best != self._blank))
        tokens = Tokens(best[at], at + self._steps, np.exp(log_probs[at, best[at]]))
        if len(best):
            self._last = int(best[-1])
        self._steps += len(best)
        return Decoded(tokens, best == self._blank)
