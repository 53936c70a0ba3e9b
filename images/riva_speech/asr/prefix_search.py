"""Beam search over a CTC model's tokens, for requests that boost phrases.

A prefix is a sequence of tokens, whatever steps it was said in; its probability is the sum over
all of these. So it is kept as two numbers, with the last step blank and with it not. Several
prefixes are followed at once, ordered by their probabilities and by what the phrases in them are
granted.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

import numpy as np

from riva_speech.asr.ctc import Hypothesis, Tokens

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from riva_speech.asr.boosting import Walk
    from riva_speech.asr.ctc import Reading
    from riva_speech.text.vocabulary import Vocabulary

    Floats = NDArray[np.float64]
    Integers = NDArray[np.int64]

_BEAM = 16
# Tokens that are tried at a step, and how much less probable than the best they may be: a boost
# can make up for that much.
_TRIED = 32
_REACH = 16.0
# Prefixes that are this much worse than the best are dropped.
_THRESHOLD = 20.0


@dataclass(eq=False)
class Prefix:
    """A token behind another prefix; the first has none.

    ``step`` and ``probability`` are those at which it was said first, or first was the best token.
    """

    parent: Prefix | None
    token: int
    step: int
    probability: float
    is_clear: bool
    children: WeakValueDictionary[int, Prefix] = field(default_factory=WeakValueDictionary)

    def tokens(self) -> Tokens:
        """Return the whole sequence."""
        chain = list(self._backwards())[::-1]
        return Tokens(
            np.array([one.token for one in chain], np.int64),
            np.array([one.step for one in chain], np.int64),
            np.array([one.probability for one in chain], np.float32),
        )

    def _backwards(self) -> Iterator[Prefix]:
        node: Prefix | None = self
        while node is not None and node.parent is not None:
            yield node
            node = node.parent


@dataclass
class Beam:
    """The prefixes that are followed, each with a row in every array.

    ``blank`` and ``token`` are log-probabilities, with the last step blank or not; ``nodes`` are
    where the boost graph stands, and ``granted`` what it has given.
    """

    prefixes: list[Prefix]
    blank: Floats
    token: Floats
    nodes: Integers
    granted: Floats

    @property
    def total(self) -> Floats:
        """The log-probability of each prefix, whatever its last step was."""
        total: Floats = np.logaddexp(self.blank, self.token)
        return total

    def scores(self) -> Floats:
        """What prefixes are ordered by."""
        return self.total + self.granted

    def chosen(self, places: Integers) -> Beam:
        """Return some of the prefixes."""
        return Beam(
            [self.prefixes[place] for place in places],
            self.blank[places],
            self.token[places],
            self.nodes[places],
            self.granted[places],
        )

    def joined(self, other: Beam) -> Beam:
        """Return the prefixes of both."""
        return Beam(
            [*self.prefixes, *other.prefixes],
            np.concatenate([self.blank, other.blank]),
            np.concatenate([self.token, other.token]),
            np.concatenate([self.nodes, other.nodes]),
            np.concatenate([self.granted, other.granted]),
        )

    @classmethod
    def start(cls, node: int) -> Beam:
        """Return the beam before the first step."""
        empty = Prefix(None, -1, 0, 1.0, is_clear=True)
        zero, never = np.zeros(1), np.full(1, -np.inf)
        return cls([empty], zero, never, np.array([node]), zero.copy())


class PrefixDecoder:
    """Decodes one stream, utterance by utterance, with phrases that are boosted."""

    is_quick = False

    def __init__(self, vocabulary: Vocabulary, walk: Walk, *, beam: int = _BEAM) -> None:
        """Begin a stream.

        Args:
            vocabulary: The model's tokens.
            walk: The graph of phrases, and where utterances begin in it.
            beam: How many prefixes are followed.
        """
        self.carry: Any = None
        self._vocabulary = vocabulary
        self._graph = walk.graph
        self._width = beam
        self._start = walk.node
        self._steps = 0
        # The last step's best token, and the best token of this step where it is another.
        self._last = vocabulary.blank
        self._onset: int | None = None
        self._beam = Beam.start(self._start)

    def accept(self, reading: Reading) -> None:
        """Take the next steps."""
        for row in np.asarray(reading.log_probs, np.float64):
            best = int(row.argmax())
            self._onset = best if best not in (self._last, self._vocabulary.blank) else None
            self._step(row)
            self._steps, self._last = self._steps + 1, best
        self.carry = reading.carry

    def best(self) -> Hypothesis:
        """Return what the utterance is so far."""
        return self._read(self._ranked()[0])

    def end(self, count: int = 1) -> list[Hypothesis]:
        """End the utterance; return at most ``count`` readings, the best first."""
        found: dict[str, Hypothesis] = {}
        for place in self._ranked():
            hypothesis = self._read(place)
            found.setdefault(hypothesis.text, hypothesis)
        self._beam = Beam.start(self._start)
        return list(found.values())[:count]

    def _read(self, place: int) -> Hypothesis:
        tokens = self._beam.prefixes[place].tokens()
        return Hypothesis(tokens, tuple(self._vocabulary.words(tokens.ids.tolist())))

    def _ranked(self) -> list[int]:
        """Return the places of the prefixes, the best first, as if the utterance ended here."""
        beam = self._beam
        back = np.array([self._graph.final(int(node)) for node in beam.nodes])
        scores = beam.scores() + back
        return [int(place) for place in np.argsort(-scores, kind="stable")]

    def _step(self, row: Floats) -> None:
        """Let each prefix stay as it is, and go on with each token that may be."""
        beam, blank = self._beam, self._vocabulary.blank
        tried = _likely(row[:blank], row.max() - _REACH)
        lasts = np.array([prefix.token for prefix in beam.prefixes])
        stays = _stay(beam, row, lasts, blank)
        grown = _grow(beam, row, lasts, tried)
        _join(beam.prefixes, tried, grown, stays.token)
        nodes, gains = self._walk(tried)
        granted = beam.granted[:, np.newaxis] + gains
        places = self._choose(stays.scores(), (grown + granted).ravel())
        here = places[places < len(beam.prefixes)]
        from_, at = np.divmod(places[len(here) :] - len(beam.prefixes), max(1, len(tried)))
        self._sharpen(row, [beam.prefixes[one] for one in here])
        self._beam = stays.chosen(here)
        if len(from_):
            longer = [
                self._child(beam.prefixes[one], int(tried[column]), row)
                for one, column in zip(from_, at, strict=True)
            ]
            never = np.full(len(from_), -np.inf)
            found = Beam(longer, never, grown[from_, at], nodes[from_, at], granted[from_, at])
            self._beam = self._beam.joined(found)

    def _walk(self, tried: Integers) -> tuple[Integers, Floats]:
        """Return where each token leads in the graph, and what it is granted; [prefixes, tried]."""
        rows = [self._graph.row(int(node)) for node in self._beam.nodes]
        nodes = np.stack([following[tried] for following, _ in rows])
        return nodes, np.stack([gains[tried] for _, gains in rows]).astype(np.float64)

    def _choose(self, stays: Floats, grown: Floats) -> Integers:
        """Return the places of the best in both, those that stay before those that have grown."""
        scores = np.concatenate([stays, grown])
        best = np.argsort(-scores, kind="stable")[: self._width]
        return np.sort(best[scores[best] > scores[best[0]] - _THRESHOLD])

    def _child(self, parent: Prefix, token: int, row: Floats) -> Prefix:
        """Return a prefix with one token more: the same object wherever it is still known."""
        child = parent.children.get(token)
        if child is None:
            is_clear = self._onset == token
            child = Prefix(parent, token, self._steps, float(np.exp(row[token])), is_clear)
            parent.children[token] = child
        return child

    def _sharpen(self, row: Floats, prefixes: Sequence[Prefix]) -> None:
        """Place a last token where greedy decoding does, if it was only guessed before."""
        for prefix in prefixes:
            if prefix.token == self._onset and not prefix.is_clear:
                prefix.step, prefix.is_clear = self._steps, True
                prefix.probability = float(np.exp(row[self._onset]))


def _likely(row: Floats, least: float) -> Integers:
    """Return the most probable tokens that are likely enough to be tried."""
    tried = np.argsort(-row, kind="stable")[:_TRIED]
    return tried[row[tried] >= least]


def _stay(beam: Beam, row: Floats, lasts: Integers, blank: int) -> Beam:
    """Return the same prefixes one step later: a blank follows, or the last token goes on."""
    goes_on = np.where(lasts >= 0, row[lasts], -np.inf)
    return replace(beam, blank=beam.total + row[blank], token=beam.token + goes_on)


def _grow(beam: Beam, row: Floats, lasts: Integers, tried: Integers) -> Floats:
    """Return the log-probability of each prefix with each token behind it, [prefixes, tokens].

    A token that repeats the last one is another only if a blank lies between.
    """
    repeats = tried == lasts[:, np.newaxis]
    before = np.where(repeats, beam.blank[:, np.newaxis], beam.total[:, np.newaxis])
    return before + row[tried]


def _join(prefixes: Sequence[Prefix], tried: Integers, grown: Floats, token: Floats) -> None:
    """Move what has grown into a prefix that is followed already to that prefix's ``token``."""
    places = {id(prefix): place for place, prefix in enumerate(prefixes)}
    columns = {int(one): column for column, one in enumerate(tried)}
    for place, prefix in enumerate(prefixes):
        parent, column = places.get(id(prefix.parent)), columns.get(prefix.token)
        if parent is not None and column is not None:
            token[place] = np.logaddexp(token[place], grown[parent, column])
            grown[parent, column] = -np.inf
