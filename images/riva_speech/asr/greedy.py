"""Greedy CTC decoding: the best token of each step."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from riva_speech.asr.ctc import Reading, TokenDecoder, Tokens
from riva_speech.asr.deferred import DeferredDecoder
from riva_speech.asr.prefix_search import PrefixDecoder

if TYPE_CHECKING:
    from collections.abc import Sequence

    from riva_speech.asr.acoustic import LogProbs
    from riva_speech.asr.boosting import Booster
    from riva_speech.asr.ctc import Decoder
    from riva_speech.asr.options import Boost
    from riva_speech.text.vocabulary import Vocabulary


@dataclass(frozen=True)
class GreedyDecoding:
    """Takes the best token of each step, merges repeats, drops blanks.

    Where phrases are boosted, a beam of token sequences is searched instead.
    """

    vocabulary: Vocabulary
    booster: Booster | None = None
    name: str = "greedy"

    def start(self, boosts: tuple[Boost, ...] = ()) -> Decoder:
        """Return the decoder of a new stream."""
        if boosts and self.booster:
            return DeferredDecoder(partial(self._boosted, self.booster, boosts))
        return TokenDecoder(self.vocabulary)

    def _boosted(self, booster: Booster, boosts: tuple[Boost, ...]) -> Decoder:
        walk = booster.walk(boosts)
        return PrefixDecoder(self.vocabulary, walk) if walk else TokenDecoder(self.vocabulary)

    def read(self, carries: Sequence[int | None], steps: Sequence[LogProbs]) -> list[Reading]:
        """Find the tokens of several streams; each carries its last step's best token.

        All steps lie one behind the other: only what stands before a stream's first is its own.
        """
        if len(steps) == 1:
            return [self._read_one(carries[0], steps[0])]
        every = np.concatenate(steps)
        best = every.argmax(axis=1)
        ends = np.cumsum([len(piece) for piece in steps])
        begins = ends - [len(piece) for piece in steps]
        blank = self.vocabulary.blank
        lasts = np.array([blank if carry is None else carry for carry in carries])
        previous = np.empty_like(best)
        previous[1:] = best[:-1]
        heard = ends > begins
        previous[begins[heard]] = lasts[heard]
        blanks = best == blank
        at = np.flatnonzero((best != previous) & ~blanks)
        tokens = Tokens(best[at], at, np.exp(every[at, best[at]]))
        lasts[heard] = best[ends[heard] - 1]
        cuts = np.searchsorted(at, [begins, ends]).T.tolist()
        return [
            Reading(piece, blanks[begin:end], tokens[first:last].moved(-begin), carry)
            for piece, begin, end, (first, last), carry in zip(
                steps, begins.tolist(), ends.tolist(), cuts, lasts.tolist(), strict=True
            )
        ]

    def _read_one(self, carry: int | None, steps: LogProbs) -> Reading:
        """Find the tokens of a stream that is alone: most often none, and few at that."""
        blank = self.vocabulary.blank
        best = steps.argmax(axis=1)
        blanks = best == blank
        seen = [blank if carry is None else carry, *best.tolist()]
        (at,) = ((best != seen[:-1]) & ~blanks).nonzero()
        if not len(at):
            return Reading(steps, blanks, carry=seen[-1])
        ids = best[at]
        return Reading(steps, blanks, Tokens(ids, at, np.exp(steps[at, ids])), seen[-1])
