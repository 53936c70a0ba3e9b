"""One stream's search with flashlight, and what its paths say."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from riva_speech.asr.ctc import Hypothesis, Tokens
from riva_speech.asr.peaks import NEVER, Peaks
from riva_speech.text.vocabulary import Word

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from numpy.typing import NDArray

    from riva_speech.asr.ctc import Reading
    from riva_speech.text.vocabulary import Vocabulary

NO_SPACE = -1


@dataclass(frozen=True)
class Settling:
    """When words are settled: ``every`` so many steps, where one ended ``look_back`` steps before.

    A step that is not settled takes memory: some 45 KiB with 128 paths, most of it for what the
    language model was asked. What is settled stays, though another path may turn out to be the
    best, and is the same in all readings of an utterance. Flashlight looks another hundred steps
    back for the end of a word, and where none is, settles what lies before these.
    """

    every: int
    look_back: int


LATE = Settling(every=128, look_back=128)
# By then nearly all paths agree: of 1,093 recordings 20 are heard otherwise, and as well as before.
EARLY = Settling(every=4, look_back=16)


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


@dataclass(frozen=True)
class Heard:
    """What some steps were read as.

    ``said`` are the words that have ended, and ``begun`` the tokens behind them; ``last`` is the
    token of the last step.
    """

    said: Hypothesis
    begun: Tokens
    last: int


class FlashlightDecoder:
    """Decodes one stream, utterance by utterance."""

    carry = None
    is_quick = False

    def __init__(
        self,
        search: Any,  # noqa: ANN401 - flashlight has no types
        vocabulary: Vocabulary,
        space: int,
        setting: Setting,
        settling: Settling,
    ) -> None:
        """Begin a stream with flashlight's own search; ``space`` is the token between words."""
        self._search = search
        self._vocabulary = vocabulary
        self._space = space
        self._setting = setting
        self._settling = settling
        self._blank = vocabulary.blank
        by_words = setting.words is not None
        self._peaks = Peaks(self._blank) if by_words else None
        # A lexicon's search wants a token for silence. No model has one, and so none may be heard.
        self._width = self._blank + 1 + int(by_words)
        self._steps = 0
        self._begin()

    def accept(self, reading: Reading) -> None:
        """Take the next steps."""
        rows = np.asarray(reading.log_probs, np.float32)
        self._feed(self._peaks.accept(rows) if self._peaks else rows)

    def best(self) -> Hypothesis:
        """Return the words of the best path so far, as far as they are whole."""
        return self._read(self._search.get_best_hypothesis(0))

    def end(self, count: int = 1) -> list[Hypothesis]:
        """End the utterance; return at most ``count`` readings, the best first."""
        if self._peaks:
            self._feed(self._peaks.finish())
        self._search.decode_end()
        found: dict[str, Hypothesis] = {}
        for result in self._search.get_all_final_hypothesis():
            # Its last state stands for the end.
            hypothesis = self._read(result, -1)
            found.setdefault(hypothesis.text, hypothesis)
            if len(found) >= count:
                break
        self._begin()
        return list(found.values()) or [Hypothesis(Tokens.none(), ())]

    def _begin(self) -> None:
        """Begin an utterance; before its first word a virtual step stands for the space."""
        self._search.decode_begin()
        self._settled = Heard(Hypothesis(Tokens.none(), ()), Tokens.none(), self._blank)
        self._rows = np.zeros((0, self._blank + 1), np.float32)
        # Where a path has the first of these steps: behind the state that it begins with.
        self._first = 1
        self._due = self._settling.every
        if self._space != NO_SPACE:
            row = np.full((1, self._blank + 1), NEVER, np.float32)
            row[0, [self._space, self._blank]] = 0
            self._steps -= 1
            self._feed(row)

    def _feed(self, rows: NDArray[np.float32]) -> None:
        """Search on, and settle at the same steps however the rows come."""
        while len(rows):
            size = min(len(rows), self._due)
            block, rows = rows[:size], rows[size:]
            emissions = np.full((size, self._width), NEVER, np.float32)
            emissions[:, : self._blank + 1] = block
            self._search.decode_step(emissions.ctypes.data, *emissions.shape)
            self._rows = np.concatenate([self._rows, block])
            self._steps += size
            self._due -= size
            if not self._due:
                self._due = self._settling.every
                self._settle()

    def _settle(self) -> None:
        """Settle the words that lie far enough back, and forget what led to them.

        Where none has ended there yet, one may have the next time.
        """
        result = self._search.get_best_hypothesis(self._settling.look_back)
        # The last step is the first behind a word, and may begin another: it is read again, for
        # paths begin with it from now on.
        begin = len(result.tokens) - 1
        if begin > 0:
            self._settled = self._follow(result, -1)
            self._search.prune(self._settling.look_back)
            self._rows = self._rows[begin - self._first :]
            self._first = 0

    def _read(self, result: Any, end: int | None = None) -> Hypothesis:  # noqa: ANN401 - no types
        """Return the words of a path, behind those that are settled."""
        heard = self._follow(result, end)
        if self._setting.words is not None:
            return heard.said
        return Hypothesis(heard.begun, tuple(self._vocabulary.words(heard.begun.ids.tolist())))

    def _follow(self, result: Any, end: int | None) -> Heard:  # noqa: ANN401 - no types
        """Go on from what is settled along a path, one token a step, as far as its ``end``.

        Without a lexicon no word ends.
        """
        before = self._settled
        path = np.array(result.tokens[self._first : end], np.int64)
        labels = np.array(result.words[self._first : end], np.int64)
        previous = np.concatenate([[before.last], path])
        begins = (path != previous[:-1]) & (path < self._blank) & (path != self._space)
        at = np.flatnonzero(begins)
        tokens = before.begun + self._tokens(path, at)
        ends = np.flatnonzero(labels >= 0)
        lasts = [0, *(len(before.begun) + np.searchsorted(at, ends, side="right")).tolist()]
        words = self._words(tokens.ids.tolist(), lasts, labels[ends].tolist())
        said = _join(before.said, tokens[: lasts[-1]], words)
        return Heard(said, tokens[lasts[-1] :], int(previous[-1]))

    def _tokens(self, path: NDArray[np.int64], at: NDArray[np.int64]) -> Tokens:
        first_step = self._steps - len(self._rows)
        return Tokens(path[at], at + first_step, np.exp(self._rows[at, path[at]]))

    def _words(self, ids: list[int], bounds: list[int], labels: list[int]) -> Iterator[Word]:
        """Return the words of tokens; each label's lie between two of ``bounds``.

        Those of the lexicon are written as it says, and unknown ones as they are spelt; one that is
        but a mark of a beginning is none. Nor is one whose tokens were settled as another's.
        """
        words = self._setting.words or ()
        for label, (first, last) in zip(labels, pairwise(bounds), strict=True):
            if label >= len(words):
                yield from self._vocabulary.words(ids[first:last], first)
            elif first < last:
                yield Word(words[label], first, last)


def _join(said: Hypothesis, tokens: Tokens, words: Iterable[Word]) -> Hypothesis:
    """Return words behind others; theirs are the first of the tokens."""
    before = len(said.tokens)
    moved = (Word(word.text, word.first + before, word.last + before) for word in words)
    return Hypothesis(said.tokens + tokens, (*said.words, *moved))
