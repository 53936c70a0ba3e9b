"""Phrases that requests boost or suppress, in every way of decoding."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from riva_speech.asr.boosting import (
    CTC_LIMIT,
    ROOT,
    TRANSDUCER_LIMIT,
    Booster,
    BoostGraph,
    Walk,
)
from riva_speech.asr.ctc import Reading, read_blanks
from riva_speech.asr.greedy import GreedyDecoding
from riva_speech.asr.options import Boost
from riva_speech.asr.pipeline import TransducerConfig
from riva_speech.asr.prefix_search import PrefixDecoder
from riva_speech.asr.transducer import GreedySearch, TransducerDecoding
from riva_speech.errors import DamagedArchiveError
from riva_speech.text.spelling import Speller
from riva_speech.text.vocabulary import Vocabulary, VocabularyType

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

LETTERS = Vocabulary((" ", "a", "b"), VocabularyType.CHARACTER)
PIECES = Vocabulary(("▁a", "▁b", "a", "b"), VocabularyType.SENTENCEPIECE)


def booster(vocabulary: Vocabulary) -> Booster:
    return Booster(vocabulary, Speller(vocabulary), CTC_LIMIT)


def decoder(vocabulary: Vocabulary, boosts: Sequence[Boost], *, beam: int = 1000) -> PrefixDecoder:
    nothing = Walk(BoostGraph([], np.zeros(vocabulary.blank, np.bool_)))
    walk = booster(vocabulary).walk(tuple(boosts)) or nothing
    return PrefixDecoder(vocabulary, walk, beam=beam)


def reading(log_probs: NDArray[np.float32]) -> Reading:
    (found,) = read_blanks([None], [log_probs])
    return found


def random_steps(steps: int, tokens: int, seed: int) -> NDArray[np.float32]:
    """Return log-probabilities, [steps, tokens]."""
    raw = np.random.default_rng(seed).normal(0, 2, (steps, tokens))
    return (raw - np.logaddexp.reduce(raw, axis=1, keepdims=True)).astype(np.float32)


def brute_force(
    vocabulary: Vocabulary, log_probs: NDArray[np.float32], boosts: Sequence[Boost]
) -> dict[tuple[int, ...], float]:
    """Return the score of each token sequence: all paths summed, and words of phrases counted."""
    sums: dict[tuple[int, ...], float] = {}
    for path in product(range(vocabulary.blank + 1), repeat=len(log_probs)):
        score = float(log_probs[np.arange(len(path)), path].sum())
        merged = [one for at, one in enumerate(path) if at == 0 or one != path[at - 1]]
        key = tuple(one for one in merged if one != vocabulary.blank)
        sums[key] = float(np.logaddexp(sums.get(key, -np.inf), score))
    return {key: score + granted(vocabulary, key, boosts) for key, score in sums.items()}


def granted(vocabulary: Vocabulary, tokens: Sequence[int], boosts: Sequence[Boost]) -> float:
    """Count phrases of single words, each of which has one spelling here."""
    words = vocabulary.words(list(tokens))
    said = [word.text for word in words if vocabulary.tokens[tokens[word.first]].startswith("▁")]
    return sum(boost.score * said.count(boost.phrase) for boost in boosts)


@settings(max_examples=25)
@given(
    st.integers(0, 10_000),
    st.lists(st.sampled_from(["a", "b", "ab", "ba"]), min_size=1, max_size=3, unique=True),
    st.lists(st.floats(-9, 9).filter(lambda score: abs(score) > 0.01), min_size=3, max_size=3),
)
def test_the_search_finds_what_trying_everything_finds(
    seed: int, phrases: list[str], scores: list[float]
) -> None:
    """With a beam that drops nothing, the best prefix is the best of all token sequences.

    A word has one spelling in pieces here: the token that begins it, and then letters.
    """
    boosts = [Boost(*one) for one in zip(phrases, scores, strict=False)]
    log_probs = random_steps(5, PIECES.blank + 1, seed)
    search = decoder(PIECES, boosts)

    search.accept(reading(log_probs))
    found = search.best().tokens.ids.tolist()

    every = brute_force(PIECES, log_probs, boosts)
    assert every[tuple(found)] == pytest.approx(max(every.values()), abs=1e-4)


@pytest.mark.parametrize("vocabulary", [LETTERS, PIECES], ids=["letters", "pieces"])
def test_without_phrases_clear_speech_decodes_as_greedily(vocabulary: Vocabulary) -> None:
    """Tokens, steps and probabilities are those of greedy decoding where nothing is in doubt."""
    wanted = [vocabulary.blank, 1, 1, vocabulary.blank, 1, 2, 2, 0, vocabulary.blank, 2]
    log_probs = np.full((len(wanted), vocabulary.blank + 1), np.log(0.001), np.float32)
    log_probs[np.arange(len(wanted)), wanted] = np.log(0.996)
    greedy, search = GreedyDecoding(vocabulary), decoder(vocabulary, [])
    plain = greedy.start()

    plain.accept(greedy.read([None], [log_probs])[0])
    search.accept(reading(log_probs))

    expected, found = plain.best(), search.best()
    assert found.words == expected.words
    np.testing.assert_array_equal(found.tokens.steps, expected.tokens.steps)
    np.testing.assert_allclose(found.tokens.probabilities, expected.tokens.probabilities)


def test_pieces_of_a_stream_decode_as_the_whole() -> None:
    """However the steps come, the readings are the same, and an utterance leaves nothing behind."""
    log_probs = random_steps(24, PIECES.blank + 1, 7)
    boosts = [Boost("ab", 3.0), Boost("b", -2.0)]
    whole, pieces = decoder(PIECES, boosts, beam=16), decoder(PIECES, boosts, beam=16)

    for _ in range(2):
        whole.accept(reading(log_probs))
        for piece in np.split(log_probs, [1, 2, 9, 9]):
            pieces.accept(reading(piece))
        expected, found = whole.end(4), pieces.end(4)
        assert [one.text for one in found] == [one.text for one in expected]
        assert len(expected) == 4
        assert len({one.text for one in expected}) == 4
    assert whole.best().words == ()


def test_a_word_wins_or_loses_where_the_sound_is_unclear() -> None:
    """Boosted, the less probable reading is heard; suppressed, the more probable one is not."""
    log_probs = np.log(np.array([[0.5, 0.4, 0.01, 0.01, 0.08], [0.1, 0.1, 0.01, 0.01, 0.78]]))

    def heard(*boosts: Boost) -> str:
        search = decoder(PIECES, boosts)
        search.accept(reading(log_probs.astype(np.float32)))
        return search.best().text

    assert heard() == "a"
    assert heard(Boost("b", 2.0)) == "b"
    assert heard(Boost("a", -2.0)) == "b"
    assert heard(Boost("b", 2.0), Boost("a", 3.0)) == "a"
    assert heard(Boost("bb", 2.0)) == "a"  # another word that begins alike


@given(st.lists(st.integers(0, 3), max_size=12), st.lists(st.booleans(), min_size=4, max_size=4))
def test_only_whole_phrases_stay_granted(said: list[int], begins: list[bool]) -> None:
    """Whatever is said, shares of unfinished phrases are gone at the end, and none is left over."""
    graph = BoostGraph([[(0, 1.0), (1, 2.0), (2, 3.0)]], np.array(begins))
    node, total = ROOT, 0.0
    for token in said:
        following, gains = graph.row(node)
        node, total = int(following[token]), total + float(gains[token])
    total += graph.final(node)

    places = [at for at in range(len(said) - 2) if said[at : at + 3] == [0, 1, 2]]
    whole = [at for at in places if at + 3 == len(said) or begins[said[at + 3]]]
    assert total == pytest.approx(3.0 * len(whole), abs=1e-5)


def test_a_phrase_within_another_is_granted_too() -> None:
    """Where a longer phrase breaks off, a shorter one that was said in it counts."""
    graph = BoostGraph([[(0, 1.0), (1, 2.0), (2, 3.0)], [(1, 4.0), (3, 8.0)]], np.ones(4, np.bool_))
    node, total = ROOT, 0.0
    for token in (0, 1, 3):
        following, gains = graph.row(node)
        node, total = int(following[token]), total + float(gains[token])

    assert total + graph.final(node) == pytest.approx(8.0)
    np.testing.assert_allclose(graph.biases(graph.row(ROOT)[0][0]), [1, 1, 0, 0])


def test_scores_are_bounded_and_phrases_that_cannot_be_spelt_are_none() -> None:
    """No client can make a word certain; unknown letters, classes and zero do nothing."""
    maker = booster(LETTERS)
    walk = maker.walk((Boost("A", 1e6),))

    assert walk is not None
    assert walk.biases[1] == pytest.approx(CTC_LIMIT)
    assert maker.walk((Boost("xyz", 5), Boost("$MONEY", 5), Boost("a", 0))) is None


def test_a_damaged_tokenizer_is_refused_by_name(tmp_path: Path) -> None:
    """Pipelines come with one, and nobody vouches for it."""
    pytest.importorskip("sentencepiece")
    (tmp_path / "tokenizer.model").write_bytes(b"junk")

    with pytest.raises(DamagedArchiveError, match=r"tokenizer\.model is no tokenizer"):
        Speller(PIECES, tmp_path / "tokenizer.model")


def test_spellings_are_the_shortest_first() -> None:
    """Without the model's own tokenizer, words are spelt with as few tokens as may be."""
    vocabulary = Vocabulary(("▁a", "▁ab", "a", "b", "ba", "▁"), VocabularyType.SENTENCEPIECE)
    spell = Speller(vocabulary).spell

    assert spell("aba", 3) == [(0, 4), (1, 2), (0, 3, 2)]
    assert spell("ABA") == [(0, 4)]
    assert spell("abc") == []
    pieces = Vocabulary(("a", "##b", "##a", "##ba"), VocabularyType.WORDPIECE)
    assert Speller(pieces).spell("aba", 2) == [(0, 3), (0, 1, 2)]
    assert Speller(LETTERS).spell("ab", 2) == [(1, 2)]


class EitherToken:
    """A joint that always finds one token, then another and the blank about as likely."""

    def __init__(self, *scores: float) -> None:
        self._scores = np.array(scores, np.float32)

    def run(self, inputs: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        batch, _, steps = inputs["encoder_outputs"].shape
        said = inputs["targets"][:, 0] != 2
        outputs = np.tile(self._scores, (batch, steps, 1, 1))
        outputs[said, ..., 2] = 9.0  # one token is enough
        states = [inputs[f"input_states_{one}"] for one in (1, 2)]
        return {"outputs": outputs, "output_states_1": states[0], "output_states_2": states[1]}


def test_a_transducer_s_tokens_are_boosted_for_each_stream_alone() -> None:
    """In one batch, one stream hears a phrase more readily, one less, and one as it is."""
    vocabulary = Vocabulary(("▁a", "▁b"), VocabularyType.SENTENCEPIECE)
    config = TransducerConfig(durations=(), max_symbols=1, encoder_width=1, state_shape=(1, 1))
    joint: Any = EitherToken(2.0, 1.0, 0.0)
    search = GreedySearch(joint, config, vocabulary.blank)
    maker = Booster(vocabulary, Speller(vocabulary), TRANSDUCER_LIMIT)
    decoding = TransducerDecoding(search, vocabulary, maker)
    streams = [
        decoding.start(boosts)
        for boosts in ((), (Boost("b", 3.0),), (Boost("a", -3.0),), (Boost("x", 9.0),))
    ]
    steps = [np.zeros((3, 1), np.float32)] * len(streams)

    readings = decoding.read([stream.carry for stream in streams], steps)
    for stream, found in zip(streams, readings, strict=True):
        stream.accept(found)

    assert [stream.best().text for stream in streams] == ["a", "b", "b", "a"]
    # What is said to be sure is the model's own.
    sure = np.exp(1) / np.exp([2, 1, 0]).sum()
    assert readings[1].tokens.probabilities[0] == pytest.approx(sure)
