"""Boosted phrases in flashlight's search."""

from __future__ import annotations

import weakref
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from flashlight.lib.text.decoder import ZeroLM
from hypothesis import given
from hypothesis import strategies as st

from riva_speech.asr.ctc import read
from riva_speech.asr.decoder_config import FlashlightConfig
from riva_speech.asr.flashlight import FlashlightDecoding
from riva_speech.asr.flashlight_boosts import _MOST_STATES, Recent, boosted
from riva_speech.asr.options import Boost
from riva_speech.text.lexicon import Lexicon
from riva_speech.text.vocabulary import Vocabulary, VocabularyType
from support.language import Bigrams

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

PIECES = Vocabulary(("▁a", "▁b", "a", "b"), VocabularyType.SENTENCEPIECE)
LETTERS = Vocabulary((" ", "a", "b"), VocabularyType.CHARACTER)
SPELLINGS = {
    PIECES: (("a", (0,)), ("b", (1,)), ("ab", (0, 3)), ("ba", (1, 2))),
    LETTERS: (("a", (1,)), ("b", (2,)), ("ab", (1, 2)), ("ba", (2, 1))),
}
MODEL = Bigrams(
    unigrams={"a": -0.6, "b": -0.8, "ab": -1.1, "ba": -0.9},
    backoffs={"a": -0.2},
    bigrams={("a", "b"): -0.2},
)


@pytest.fixture(scope="module", params=[0.0, 0.8], ids=["no language model", "language model"])
def weight(request: pytest.FixtureRequest) -> float:
    return float(request.param)


@pytest.fixture(scope="module")
def arpa(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return MODEL.save(tmp_path_factory.mktemp("model") / "model.arpa")


def unclear(vocabulary: Vocabulary, *steps: dict[str, float]) -> NDArray[np.float32]:
    """Return log-probabilities in which each step has some tokens that may be; "" is the blank."""
    scores = np.full((len(steps), vocabulary.blank + 1), 1e-4)
    for row, step in zip(scores, steps, strict=True):
        for token, share in step.items():
            row[vocabulary.tokens.index(token) if token else vocabulary.blank] = share
    return np.log(scores / scores.sum(axis=1, keepdims=True)).astype(np.float32)


def heard(
    decoding: FlashlightDecoding, scores: NDArray[np.float32], *boosts: Boost, count: int = 1
) -> list[str]:
    decoder = decoding.start(boosts)
    for row in scores:
        decoder.accept(read(decoding, decoder, row[np.newaxis]))
        decoder.best()
    return [hypothesis.text for hypothesis in decoder.end(count)]


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 20))), st.integers(1, 8))
def test_what_was_last_asked_for_is_remembered(calls: list[tuple[bool, int]], most: int) -> None:
    """The last keys that were kept or found are there with their values, and few others are."""
    recent: Recent[int, int] = Recent(most)
    known: dict[int, int] = {}
    for value, (keeps, key) in enumerate(calls):
        if keeps:
            recent.keep(key, value)
            known[key] = value
        elif (found := recent.recall(key)) is None:
            assert key not in list(known)[-most:]
            continue
        else:
            assert found == known[key]
        # The one that was used last stands last.
        known[key] = known.pop(key)
        assert len(recent) <= 2 * most


def test_a_forgotten_state_is_a_beginning() -> None:
    """A search that comes back to what was long forgotten goes on, as if nothing had been said."""
    config = FlashlightConfig()
    decoding = FlashlightDecoding(PIECES, config, Lexicon(SPELLINGS[PIECES]), None)
    model = boosted(decoding, decoding._setting, (Boost("a b", 5.0),)).model
    first = model.start(False)  # noqa: FBT003 - flashlight's own signature
    after, gain = model.score(first, 0)
    _, again = model.score(type(first)(), 0)
    _, finish = model.finish(type(first)())

    assert gain == again
    assert finish == model.finish(first)[1]
    assert after is not first


class Watched(ZeroLM):  # type: ignore[misc]  # flashlight has no types
    """Flashlight's model without words, which notes whether its beginnings are still held."""

    def __init__(self) -> None:
        super().__init__()
        self.beginnings: list[weakref.ref[Any]] = []

    def start(self, start_with_nothing: bool) -> Any:  # noqa: FBT001 - flashlight's own signature
        """Return the state before the first word."""
        state = super().start(start_with_nothing)
        self.beginnings.append(weakref.ref(state))
        return state


def test_the_beginning_of_a_long_stream_is_let_go() -> None:
    """Flashlight's states hold all that follow them: who holds the first holds the whole stream."""
    decoding = FlashlightDecoding(PIECES, FlashlightConfig(), Lexicon(SPELLINGS[PIECES]), None)
    inner = Watched()
    plain = replace(decoding._setting, model=inner)
    model = boosted(decoding, plain, (Boost("a b", 5.0),)).model
    state = model.start(False)  # noqa: FBT003 - as above
    assert [begin() is None for begin in inner.beginnings] == [False]

    for _ in range(2 * _MOST_STATES + 1):
        state, _ = model.score(state, 0)

    assert [begin() is None for begin in inner.beginnings] == [True]


A_OR_B = ({"▁a": 0.6, "▁b": 0.38}, {"": 0.99})
A_OR_B_LETTERS = ({"a": 0.6, "b": 0.38}, {"": 0.99})


@pytest.mark.parametrize("vocabulary", [PIECES, LETTERS], ids=["pieces", "letters"])
def test_boosted_words_win_and_suppressed_ones_lose(
    arpa: Path, weight: float, vocabulary: Vocabulary
) -> None:
    """With and without a language model; other streams of the same pipeline hear as before."""
    config = FlashlightConfig(lm_weight=weight)
    decoding = FlashlightDecoding(vocabulary, config, Lexicon(SPELLINGS[vocabulary]), arpa)
    scores = unclear(vocabulary, *(A_OR_B if vocabulary is PIECES else A_OR_B_LETTERS))

    assert heard(decoding, scores) == ["a"]
    assert heard(decoding, scores, Boost("b", 5.0)) == ["b"]
    assert heard(decoding, scores, Boost("a", -5.0)) == ["b"]
    assert heard(decoding, scores, Boost("b", 5.0), Boost("a", 9.0)) == ["a"]
    assert heard(decoding, scores, Boost("ba", 5.0), Boost("b ab", 5.0)) == ["a"]
    assert heard(decoding, scores, Boost("xyz", 5.0), Boost("$MONEY", 5.0)) == ["a"]
    assert heard(decoding, scores) == ["a"]


@pytest.mark.parametrize("count", [1, 3])
def test_a_boosted_word_need_not_be_in_the_lexicon(arpa: Path, weight: float, count: int) -> None:
    """It is spelt by the tokenizer, and found where it was said; without a boost it is not."""
    config = FlashlightConfig(lm_weight=weight, num_tokenization=count)
    decoding = FlashlightDecoding(PIECES, config, Lexicon((("a", (0,)), ("b", (1,)))), arpa)
    scores = unclear(
        PIECES, {"▁b": 0.9}, {"b": 0.9}, {"": 0.9}, {"a": 0.9}, {"": 0.9}, {"▁a": 0.9}, {"": 1.0}
    )

    assert "bba" not in heard(decoding, scores)[0]
    assert heard(decoding, scores, Boost("bba", 8.0)) == ["bba a"]
    assert "bba" not in heard(decoding, scores, Boost("bba", -8.0))[0]


def test_an_unknown_word_is_none_of_the_boosted_ones(arpa: Path, weight: float) -> None:
    """Both kinds of word that the lexicon lacks are heard in one utterance, each as itself."""
    config = FlashlightConfig(lm_weight=weight, unk_score=-1.0)
    decoding = FlashlightDecoding(PIECES, config, Lexicon((("a", (0,)), ("BAB", (1, 2, 3)))), arpa)
    scores = unclear(
        PIECES,
        *({"▁b": 0.9}, {"a": 0.9}, {"": 0.9}, {"▁a": 0.9}, {"": 0.9}),
        *({"▁b": 0.9}, {"b": 0.9}, {"": 0.9}, {"▁b": 0.9}, {"a": 0.9}, {"b": 0.9}, {"": 1.0}),
    )

    assert heard(decoding, scores, Boost("Bb", 3.0)) == ["ba a Bb BAB"]
    assert "Bb" not in heard(decoding, scores)[0]


def test_a_phrase_is_boosted_in_its_order_only(arpa: Path) -> None:
    """The words of a phrase count one behind the other, and not each by itself."""
    config = FlashlightConfig(lm_weight=0.0, word_insertion_score=0.0)
    decoding = FlashlightDecoding(PIECES, config, Lexicon(SPELLINGS[PIECES]), arpa)
    either = {"▁a": 0.5, "▁b": 0.4}
    scores = unclear(PIECES, {"▁b": 1.0}, {"": 1.0}, either, {"": 1.0})

    assert heard(decoding, scores) == ["b a"]
    assert heard(decoding, scores, Boost("a b", 4.0)) == ["b a"]
    assert heard(decoding, scores, Boost("b b", 4.0)) == ["b b"]


def test_without_a_lexicon_phrases_are_boosted_too() -> None:
    """Any sequence of tokens may be found; those of phrases sooner."""
    config = FlashlightConfig(lm_weight=0.0, use_lexicon_free_decoding=True)
    decoding = FlashlightDecoding(PIECES, config, None, None)
    scores = unclear(PIECES, *A_OR_B)

    assert heard(decoding, scores) == ["a"]
    assert heard(decoding, scores, Boost("b", 5.0)) == ["b"]
    assert heard(decoding, scores, Boost("a", -5.0)) == ["b"]
    assert len(heard(decoding, scores, Boost("b", 5.0), count=2)) == 2


def test_streams_with_the_same_phrases_do_not_disturb_each_other(arpa: Path) -> None:
    """Two streams share a trie, and each has a language model state of its own."""
    decoding = FlashlightDecoding(PIECES, FlashlightConfig(), Lexicon(SPELLINGS[PIECES]), arpa)
    scores = unclear(PIECES, *A_OR_B)
    boosts = (Boost("b", 5.0),)
    one, other = decoding.start(boosts), decoding.start(boosts)
    for row in scores:
        for decoder in (one, other):
            decoder.accept(read(decoding, decoder, row[np.newaxis]))

    assert [decoder.end()[0].text for decoder in (one, other)] == ["b", "b"]
    assert one.end()[0].text == ""  # the next utterance begins afresh
