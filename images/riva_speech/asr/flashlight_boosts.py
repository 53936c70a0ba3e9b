"""Boosted phrases in flashlight's search: a language model that grants them their scores.

Only requests that boost phrases come here, for flashlight then asks Python for each word.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np
from flashlight.lib.text.decoder import LM, LMState

from riva_speech.asr.boosting import CTC_LIMIT, Booster, BoostGraph, Walk
from riva_speech.asr.flashlight_decoder import Setting
from riva_speech.text.hints import literal_parts

if TYPE_CHECKING:
    from collections.abc import Mapping

    from riva_speech.asr.flashlight import FlashlightDecoding
    from riva_speech.asr.options import Boost


_Key = TypeVar("_Key")
_Value = TypeVar("_Value")

# Some seconds of speech ask for as many states of a wide beam; each takes half a kilobyte.
_MOST_STATES = 1 << 15


def boosted(decoding: FlashlightDecoding, plain: Setting, boosts: tuple[Boost, ...]) -> Setting:
    """Return a setting with phrases: words that the lexicon lacks are put into its trie.

    Each has at most ``num_tokenization`` spellings there.
    """
    if decoding.lexicon is None:
        walk = Booster(decoding.vocabulary, decoding.speller, CTC_LIMIT).walk(boosts)
        return _with_model(plain, walk, {}, len(decoding.vocabulary.tokens)) if walk else plain
    phrases = [
        (part.split(), min(max(boost.score, -CTC_LIMIT), CTC_LIMIT))
        for boost in boosts
        for part in literal_parts(boost.phrase)
    ]
    words = decoding.lexicon.words
    numbers = {word: number for number, word in enumerate(words)}
    new = _new_words(decoding, phrases, numbers)
    for word in dict(new):
        numbers[word] = len(numbers)
    known = [(phrase, score) for phrase, score in phrases if all(one in numbers for one in phrase)]
    if not known:
        return plain
    # The graph numbers the words of phrases alone: to it all others are one.
    units = {
        numbers[word]: place
        for place, word in enumerate(dict.fromkeys(one for phrase, _ in known for one in phrase))
    }
    graph = BoostGraph(
        (
            [(units[numbers[word]], score * count) for count, word in enumerate(phrase, start=1)]
            for phrase, score in known
        ),
        np.ones(len(units) + 1, np.bool_),
    )
    setting = _with_model(plain, Walk(graph), units, len(words))
    scores = _scores(decoding, known, numbers, setting.weight)
    trie = decoding.plant([*decoding.lexicon.entries, *new], scores)
    return Setting(setting.model, trie, list(numbers), setting.weight)


def _new_words(
    decoding: FlashlightDecoding,
    phrases: list[tuple[list[str], float]],
    numbers: Mapping[str, int],
) -> list[tuple[str, tuple[int, ...]]]:
    """Return the spellings of words that the lexicon lacks, and that are to be heard."""
    wanted = [word for phrase, score in phrases if score > 0 for word in phrase]
    count = decoding.config.num_tokenization
    return [
        (word, spelling)
        for word in dict.fromkeys(wanted)
        if word not in numbers
        for spelling in decoding.speller.spell(word, count)
    ]


def _scores(
    decoding: FlashlightDecoding,
    phrases: list[tuple[list[str], float]],
    numbers: Mapping[str, int],
    weight: float,
) -> list[float]:
    """Return what words promise to the search before they are whole: more, if they are boosted."""
    promised: dict[int, float] = defaultdict(float)
    for phrase, score in phrases:
        for word in phrase:
            promised[numbers[word]] = max(promised[numbers[word]], score)
    *known, unknown = decoding.scores
    plain = [*known, *[unknown] * (len(numbers) - len(known))]
    return [score + promised.get(number, 0.0) / weight for number, score in enumerate(plain)]


def _with_model(plain: Setting, walk: Walk, units: Mapping[int, int], unknown: int) -> Setting:
    # A weight of 0 would take the phrases' scores too.
    weight = plain.weight or 1.0
    model = BoostedModel(plain.model, walk, units, unknown, (plain.weight / weight, weight))
    return Setting(model, plain.trie, plain.words, weight)


class Recent(Generic[_Key, _Value]):
    """Remembers what was used last: at least ``most`` entries, and at most twice as many."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._young: dict[_Key, _Value] = {}
        self._old: dict[_Key, _Value] = {}

    def __len__(self) -> int:
        """Return how many entries are remembered."""
        return len(self._young.keys() | self._old.keys())

    def keep(self, key: _Key, value: _Value) -> None:
        """Remember a value, and forget what has not been asked for for long."""
        self._young[key] = value
        if len(self._young) >= self._most:
            self._young, self._old = {}, self._young

    def recall(self, key: _Key) -> _Value | None:
        """Return the value of a key; None where it is forgotten."""
        if (found := self._young.get(key)) is not None:
            return found
        if (found := self._old.get(key)) is not None:
            self.keep(key, found)
        return found


class BoostedModel(LM):  # type: ignore[misc]  # flashlight has no types
    """A language model with phrases. It remembers the states of one stream.

    Flashlight does not say when it drops a state. Those in its beam are asked for again and again,
    so the others are forgotten after a while; should one of them come back, it is taken for a
    beginning.
    """

    def __init__(
        self,
        model: Any,  # noqa: ANN401 - flashlight has no types
        walk: Walk,
        units: Mapping[int, int],
        unknown: int,
        weights: tuple[float, float],
    ) -> None:
        """Put phrases around a language model.

        Args:
            model: The language model.
            walk: The phrases, and where utterances begin.
            units: The graph's numbers by flashlight's; others are the last of the graph. Empty
                where they are the same.
            unknown: What the model takes for what it does not know.
            weights: The model's own weight here, and flashlight's weight for all of this.
        """
        super().__init__()
        self._parts = (model, walk, units, unknown, weights)
        self._model, self._walk, self._units, self._unknown, (self._own, self._weight) = self._parts
        self._states: Recent[Any, tuple[Any, int]] = Recent(_MOST_STATES)

    def own(self) -> BoostedModel:
        """Return the same model for another stream."""
        return BoostedModel(*self._parts)

    def start(self, start_with_nothing: bool) -> Any:  # noqa: ANN401, FBT001 - flashlight's own signature
        """Return the state before the first word."""
        state = LMState()
        self._states = Recent(_MOST_STATES)
        self._states.keep(state, self._beginning(start_with_nothing=start_with_nothing))
        return state

    def score(self, state: Any, unit: int) -> tuple[Any, float]:  # noqa: ANN401 - as above
        """Return the state behind a word, and what the word is worth."""
        inner, node = self._states.recall(state) or self._beginning()
        after, score = self._model.score(inner, min(unit, self._unknown))
        following, gains = self._walk.graph.row(node)
        place = self._units.get(unit, len(gains) - 1) if self._units else unit
        behind = state.child(unit)
        self._states.keep(behind, (after, int(following[place])))
        return behind, self._own * score + float(gains[place]) / self._weight

    def finish(self, state: Any) -> tuple[Any, float]:  # noqa: ANN401 - as above
        """Return the state behind the last word, and what the end is worth."""
        inner, node = self._states.recall(state) or self._beginning()
        after, score = self._model.finish(inner)
        behind = state.child(-1)
        self._states.keep(behind, (after, node))
        return behind, self._own * score + self._walk.graph.final(node) / self._weight

    def _beginning(self, *, start_with_nothing: bool = False) -> tuple[Any, int]:
        """Return where an utterance begins: made anew, for states keep all that follow them."""
        return self._model.start(start_with_nothing), self._walk.node
