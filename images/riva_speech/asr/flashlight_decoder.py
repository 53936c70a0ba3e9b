"""One stream's search with flashlight, and what its paths say."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from riva_speech.asr.ctc import Hypothesis, Tokens
from riva_speech.asr.peaks import NEVER, Peaks
from riva_speech.text.vocabulary import Word

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from riva_speech.asr.ctc import Reading
    from riva_speech.text.vocabulary import Vocabulary

NO_SPACE = -1

# A long utterance without a pause is committed piece by piece: each path costs memory for each step
# that is not. By then all hypotheses agree on what lies half a block back. Flashlight looks another
# hundred steps back for the end of a word, which must be in the block, too.
_BLOCK_STEPS = 256


@dataclass(frozen=True)
class Setting:
    """What a search looks things up in: plain for all streams, or with the phrases of some.

    ``model`` is the language model, and ``weight`` its weight; ``words`` are those of the ``trie``
    by number, and neither is there without a lexicon. The number behind them is that of an unknown
    word.
    """

    model: Any
    trie: Any
    words: Sequence[str] | None
    weight: float

    def own(self) -> Setting:
        """Return the same with a model that remembers one stream only, where it remembers any."""
        return replace(self, model=self.model.own()) if hasattr(self.model, "own") else self


class FlashlightDecoder:
    """Decodes one stream, utterance by utterance."""

    carry = None
    is_quick = False

    def __init__(self, search: Any, vocabulary: Vocabulary, space: int, setting: Setting) -> None:  # noqa: ANN401 - no types
        """Begin a stream with flashlight's own search; ``space`` is the token between words."""
        self._search = search
        self._vocabulary = vocabulary
        self._space = space
        self._setting = setting
        self._blank = vocabulary.blank
        by_words = setting.words is not None
        self._peaks = Peaks(self._blank) if by_words else None
        # A lexicon's search wants a token for silence. No model has one, and so none may be heard.
        self._padding = ((0, 0), (0, int(by_words)))
        self._steps = 0
        self._begin()

    def accept(self, reading: Reading) -> None:
        """Take the next steps."""
        rows = np.asarray(reading.log_probs, np.float32)
        self._feed(self._peaks.accept(rows) if self._peaks else rows)

    def best(self) -> Hypothesis:
        """Return the words of the best path so far, as far as they are whole."""
        return self._read(self._search.get_best_hypothesis(0), without_last=False)

    def end(self, count: int = 1) -> list[Hypothesis]:
        """End the utterance; return at most ``count`` readings, the best first."""
        if self._peaks:
            self._feed(self._peaks.finish())
        self._search.decode_end()
        found: dict[str, Hypothesis] = {}
        for result in self._search.get_all_final_hypothesis():
            hypothesis = self._read(result, without_last=True)
            found.setdefault(hypothesis.text, hypothesis)
            if len(found) >= count:
                break
        self._begin()
        return list(found.values()) or [Hypothesis(Tokens.none(), ())]

    def _begin(self) -> None:
        """Begin an utterance; before its first word a virtual step stands for the space."""
        self._search.decode_begin()
        self._committed = Hypothesis(Tokens.none(), ())
        self._rows = np.zeros((0, self._blank + 1), np.float32)
        # Where a path has the first of these steps: behind the state that it begins with.
        self._first = 1
        self._before = self._blank
        if self._space != NO_SPACE:
            row = np.full((1, self._blank + 1), NEVER, np.float32)
            row[0, [self._space, self._blank]] = 0
            self._steps -= 1
            self._feed(row)

    def _feed(self, rows: NDArray[np.float32]) -> None:
        """Search on, and commit at the same steps however the rows come."""
        while len(rows):
            size = min(len(rows), _BLOCK_STEPS - len(self._rows))
            block, rows = rows[:size], rows[size:]
            emissions = np.ascontiguousarray(np.pad(block, self._padding, constant_values=NEVER))
            self._search.decode_step(emissions.ctypes.data, *emissions.shape)
            self._rows = np.concatenate([self._rows, block])
            self._steps += size
            if len(self._rows) == _BLOCK_STEPS:
                self._commit()

    def _commit(self) -> None:
        """Settle the words that lie far enough back, and forget what led to them."""
        result = self._search.get_best_hypothesis(_BLOCK_STEPS // 2)
        # The last step is the first behind a word, and may begin another: it is read again, for
        # paths begin with it from now on.
        self._committed = self._read(result, without_last=True)
        settled = len(result.tokens) - 1 - self._first
        self._search.prune(_BLOCK_STEPS // 2)
        if settled >= 0:
            self._before = int(result.tokens[-2]) if settled else self._before
            self._rows = self._rows[settled:]
            self._first = 0

    def _read(self, result: Any, *, without_last: bool) -> Hypothesis:  # noqa: ANN401 - no types
        """Turn a path, one token a step, into words behind those that are settled.

        The path of an utterance that has ended is to be read without its last state, which stands
        for the end.
        """
        steps = slice(self._first, -1 if without_last else None)
        path = np.array(result.tokens[steps], np.int64)
        previous = np.concatenate([[self._before], path[:-1]])[: len(path)]
        begins = (path != previous) & (path < self._blank)
        if self._setting.words is None:
            tokens = self._committed.tokens + self._tokens(path, np.flatnonzero(begins))
            return Hypothesis(tokens, tuple(self._vocabulary.words(tokens.ids.tolist())))
        labels = np.array(result.words[steps], np.int64)
        ends = np.flatnonzero(labels >= 0)
        spoken = np.flatnonzero(begins & (path != self._space))
        at = spoken[: np.searchsorted(spoken, ends[-1], side="right")] if len(ends) else spoken[:0]
        tokens = self._tokens(path, at)
        lasts = np.searchsorted(at, ends, side="right")
        words = self._words(tokens.ids.tolist(), lasts.tolist(), labels[ends].tolist())
        return self._join(tokens, list(words))

    def _tokens(self, path: NDArray[np.int64], at: NDArray[np.int64]) -> Tokens:
        first_step = self._steps - len(self._rows)
        return Tokens(path[at], at + first_step, np.exp(self._rows[at, path[at]]))

    def _words(self, ids: list[int], lasts: list[int], labels: list[int]) -> Iterator[Word]:
        """Return the words of tokens, of which each label's end before one of ``lasts``.

        Those of the lexicon are written as it says, and unknown ones as they are spelt; one that is
        but a mark of a beginning is none.
        """
        words = self._setting.words
        assert words is not None
        first = 0
        for label, last in zip(labels, lasts, strict=True):
            if label < len(words):
                yield Word(words[label], first, last)
            else:
                yield from self._vocabulary.words(ids[first:last], first)
            first = last

    def _join(self, tokens: Tokens, words: list[Word]) -> Hypothesis:
        before = len(self._committed.tokens)
        moved = (Word(word.text, word.first + before, word.last + before) for word in words)
        return Hypothesis(self._committed.tokens + tokens, (*self._committed.words, *moved))
