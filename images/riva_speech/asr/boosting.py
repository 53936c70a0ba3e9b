"""Phrases to hear more readily, or less so, as a graph over tokens.

A search walks the graph with each token that it takes. While a phrase is being said, its score is
granted in shares; where it is left unfinished, they are taken back. The graph is an Aho-Corasick
automaton: leaving one phrase may go on in another that began within it.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from riva_speech.text.hints import literal_parts
from riva_speech.text.vocabulary import VocabularyType

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from numpy.typing import NDArray

    from riva_speech.asr.options import Boost
    from riva_speech.text.spelling import Speller
    from riva_speech.text.vocabulary import Vocabulary

    # A phrase's tokens, and what has been granted once each of them is said.
    Path = list[tuple[int, float]]

# A word of a CTC model counts at most as e^10 times as probable, one of a transducer as e^5.
CTC_LIMIT = 10.0
TRANSDUCER_LIMIT = 5.0

# The node where no phrase has begun.
ROOT = 0
# Rows of so many nodes are kept; each has two numbers for each token of the model.
_ROWS = 512
# Requests with the same phrases share their graph; so many are kept.
_GRAPHS = 4


class BoostGraph:
    """Each node is what has been said of some phrase. Safe to share."""

    def __init__(self, paths: Iterable[Path], begins: NDArray[np.bool_]) -> None:
        """Build the graph.

        Args:
            paths: The phrases. Those that share a beginning are granted the larger of their
                shares; a whole phrase is granted its own value.
            begins: Which of the tokens begin a word: a phrase that is followed by another token is
                not that phrase.
        """
        self._begins = begins
        self._children: list[dict[int, int]] = [{}]
        self._value = [0.0]
        self._is_end = [False]
        # What stays granted where a node is left: of whole phrases on the way to it.
        self._inner = [0.0]
        self._fail = [ROOT]
        for path in paths:
            self._plant(path)
        self._link()
        self.row = lru_cache(_ROWS)(self._row)
        self.biases = lru_cache(_ROWS)(self._biases)

    def __len__(self) -> int:
        """Return the number of nodes."""
        return len(self._value)

    def _plant(self, path: Path) -> None:
        node = ROOT
        for token, value in path:
            following = self._children[node].get(token)
            if following is None:
                following = len(self._value)
                self._children[node][token] = following
                self._children.append({})
                self._value.append(value)
                self._is_end.append(False)
                self._fail.append(ROOT)
                self._inner.append(0.0)
            elif not self._is_end[following]:
                self._value[following] = max(self._value[following], value)
            node = following
        if path:
            self._is_end[node] = True
            self._value[node] = path[-1][1]

    def _link(self) -> None:
        """Find, breadth first, where each node is left for, and what stays granted then."""
        queue = deque([ROOT])
        while queue:
            node = queue.popleft()
            for token, child in self._children[node].items():
                ends = self._is_end[node] and self._begins[token]
                self._inner[child] = self._value[node] if ends else self._inner[node]
                if node != ROOT:
                    self._fail[child] = self._longest_suffix(self._fail[node], token)
                queue.append(child)

    def _longest_suffix(self, node: int, token: int) -> int:
        while node != ROOT and token not in self._children[node]:
            node = self._fail[node]
        return self._children[node].get(token, ROOT)

    def _row(self, node: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Return for each token the node that follows, and what is granted or taken back."""
        if node == ROOT:
            following = np.full(len(self._begins), ROOT, np.int64)
            gains = np.zeros(len(self._begins), np.float32)
        else:
            left_for = self._fail[node]
            following, gains = (row.copy() for row in self.row(left_for))
            whole = self._value[node] if self._is_end[node] else self._inner[node]
            kept = np.where(self._begins, whole, self._inner[node])
            gains += (kept - self._value[node] + self._value[left_for]).astype(np.float32)
        for token, child in self._children[node].items():
            following[token] = child
            gains[token] = self._value[child] - self._value[node]
        return following, gains

    def _biases(self, node: int) -> NDArray[np.float32]:
        """Return what each token is granted, with nothing taken back.

        That is for searches that hold one path and cannot think better of it.
        """
        following, _ = self.row(node)
        biases = np.zeros(len(self._begins), np.float32)
        while True:
            for token, child in self._children[node].items():
                if following[token] == child:
                    biases[token] = self._value[child] - self._value[node]
            if node == ROOT:
                return biases
            node = self._fail[node]

    def final(self, node: int) -> float:
        """Return what is taken back where an utterance ends: the shares of unfinished phrases."""
        back = 0.0
        while node != ROOT:
            whole = self._value[node] if self._is_end[node] else self._inner[node]
            back += whole - self._value[node]
            node = self._fail[node]
            back += self._value[node]
        return back


@dataclass(frozen=True)
class Walk:
    """Where one utterance stands in a graph."""

    graph: BoostGraph
    node: int = ROOT

    @property
    def biases(self) -> NDArray[np.float32]:
        """What each token is granted if it comes next, with nothing taken back."""
        return self.graph.biases(self.node)

    def onwards(self, token: int) -> Walk:
        """Return where a token leads."""
        following, _ = self.graph.row(self.node)
        return Walk(self.graph, int(following[token]))


class Booster:
    """Makes graphs of the phrases that requests send. Safe to share."""

    def __init__(self, vocabulary: Vocabulary, speller: Speller, limit: float) -> None:
        """Prepare for a model.

        Args:
            vocabulary: The model's tokens.
            speller: Spells words with them.
            limit: The largest score that a word may have, either way.
        """
        self._vocabulary = vocabulary
        self._speller = speller
        self._limit = limit
        # What stands before each word: the space, where spaces are tokens.
        self._space: tuple[int, ...] = ()
        if vocabulary.type is VocabularyType.CHARACTER and " " in vocabulary.tokens:
            self._space = (vocabulary.tokens.index(" "),)
        self._begins = np.array([vocabulary.begins_word(one) for one in vocabulary.tokens])
        self._graphs = lru_cache(_GRAPHS)(self._graph)

    def walk(self, boosts: tuple[Boost, ...]) -> Walk | None:
        """Return where an utterance begins in the graph of phrases.

        It is None where the model can spell none of them. Before the first word stands a space,
        where words have one, though nobody says it.
        """
        graph = self._graphs(boosts)
        if graph is None:
            return None
        walk = Walk(graph)
        return walk.onwards(self._space[0]) if self._space else walk

    def _graph(self, boosts: tuple[Boost, ...]) -> BoostGraph | None:
        """Return the graph of phrases, or None where the model can spell none of them.

        Of a phrase with classes, the plain words between these are listened for.
        """
        paths = []
        for boost in boosts:
            score = min(max(boost.score, -self._limit), self._limit)
            if score:
                paths += [self._path(part, score) for part in literal_parts(boost.phrase)]
        known = [path for path in paths if path]
        return BoostGraph(known, self._begins) if known else None

    def _path(self, phrase: str, score: float) -> Path:
        """Return a phrase's tokens; each word's score is granted in even shares."""
        path: Path = []
        for place, word in enumerate(phrase.split()):
            spellings = self._speller.spell(word)
            if not spellings:
                return []
            path += [(token, place * score) for token in self._space]
            path += _shares(spellings[0], place * score, score)
        return path


def _shares(spelling: Sequence[int], granted: float, score: float) -> Iterator[tuple[int, float]]:
    for count, token in enumerate(spelling, start=1):
        yield token, granted + score * count / len(spelling)
