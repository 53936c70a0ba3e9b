from __future__ import annotations

import itertools
import json
import logging
import subprocess
import sys
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import pytest
import riva.client
from hypothesis import example, given, settings
from hypothesis import strategies as st

from riva_speech.asr import flashlight
from riva_speech.asr.ctc import Hypothesis, read
from riva_speech.asr.decoder_config import FlashlightConfig
from riva_speech.asr.flashlight import FlashlightDecoding
from riva_speech.asr.flashlight_decoder import EARLY, LATE, FlashlightDecoder, Settling
from riva_speech.asr.greedy import GreedyDecoding
from riva_speech.asr.loading import load_recognizer, load_recognizers
from riva_speech.asr.peaks import Peaks
from riva_speech.asr.pipeline import PipelineConfig
from riva_speech.asr.streaming import StreamingRecognizer
from riva_speech.audio.stream import DeclaredFormat, decode_all
from riva_speech.errors import DamagedArchiveError, UnsupportedError
from riva_speech.text.lexicon import Lexicon, word_pieces
from riva_speech.text.vocabulary import Vocabulary, VocabularyType
from support.audio import babble, wav
from support.digits import CHECKPOINT, SAID, SAMPLE
from support.language import Bigrams
from support.nemo import make_pair, nemo_log_probs, nemo_stream
from support.programs import run, serving, succeed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from riva_speech.asr.ctc import Decoding
    from riva_speech.asr.loading import Recognizer

    LogProbs = NDArray[np.float32]

PIECES = Vocabulary(("▁a", "▁b", "a", "b"), VocabularyType.SENTENCEPIECE)
SPELLINGS = {"a": (0,), "b": (1,), "ab": (0, 3), "ba": (1, 2), "bab": (1, 2, 3)}
# "ba" begins "bab", and is none of these.
FEW = ("bab", "a")
LETTERS = Vocabulary((" ", "a", "b"), VocabularyType.CHARACTER)
MODEL = Bigrams(
    unigrams={"a": -0.6, "b": -0.8, "ab": -1.1, "ba": -0.9, "bab": -1.4},
    backoffs={"a": -0.2, "ba": -0.3},
    bigrams={("<s>", "ba"): -0.1, ("a", "b"): -0.2, ("ab", "a"): -1.6, ("b", "</s>"): -0.3},
)
WIDE = FlashlightConfig(beam_size=2000, beam_size_token=10, beam_threshold=1000.0)
MATRICES = st.integers(0, 2**32 - 1)
UNSETTLED = Settling(10**6, 10**6)
SETTLINGS = pytest.mark.parametrize("settling", [LATE, EARLY], ids=["late", "early"])
# How far back flashlight looks for the end of a word.
FLASHLIGHT_LIMIT = 100


def random_scores(seed: int, steps: int, tokens: int, sharpness: float = 2.0) -> LogProbs:
    """Return log-probabilities of any sort."""
    scores = np.random.default_rng(seed).normal(0, sharpness, (steps, tokens))
    result: LogProbs = (scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))).astype("f4")
    return result


def speech(vocabulary: Vocabulary, seed: int, words: int) -> LogProbs:
    """Return log-probabilities of clearly spoken words, with pauses and tokens that last."""
    rng = np.random.default_rng(seed)
    path: list[int] = []
    for word in rng.choice(list(SPELLINGS), words):
        for token in spell(vocabulary, str(word)):
            path += [token] * int(rng.integers(1, 4)) + [vocabulary.blank] * int(rng.integers(1, 3))
    scores = rng.uniform(0, 1, (len(path), vocabulary.blank + 1))
    scores[np.arange(len(path)), path] += 50
    result: LogProbs = np.log(scores / scores.sum(axis=1, keepdims=True)).astype("f4")
    return result


def spell(vocabulary: Vocabulary, word: str) -> tuple[int, ...]:
    if vocabulary.type is VocabularyType.SENTENCEPIECE:
        return SPELLINGS[word]
    return (0, *word_pieces(vocabulary)(word))


def decoding(
    vocabulary: Vocabulary,
    config: FlashlightConfig = WIDE,
    model: Path | None = None,
    words: tuple[str, ...] = tuple(SPELLINGS),
    settling: Settling = LATE,
) -> FlashlightDecoding:
    """Return flashlight over the words of these tests."""
    start = 0 if vocabulary.type is VocabularyType.SENTENCEPIECE else 1
    entries = tuple((word, spell(vocabulary, word)[start:]) for word in words)
    way = FlashlightDecoding(vocabulary, config, Lexicon(entries), model)
    way.settling = settling
    return way


def decode(decoding: Decoding, pieces: list[LogProbs], count: int = 1) -> list[Hypothesis]:
    decoder = decoding.start()
    for piece in pieces:
        decoder.accept(read(decoding, decoder, piece))
        decoder.best()
    return decoder.end(count)


@pytest.fixture(scope="module")
def arpa(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return MODEL.save(tmp_path_factory.mktemp("model") / "model.arpa")


def aligned(tokens: list[tuple[int, bool]], scores: LogProbs, blank: int) -> float:
    """Return the score of the best alignment, by trying each.

    ``tokens`` says of each whether it ends a word; such a token lasts one step, as in flashlight.
    """
    states = [blank, *itertools.chain.from_iterable((token, blank) for token, _ in tokens)]
    fixed = [False, *itertools.chain.from_iterable((last, False) for _, last in tokens)]
    best = np.full(len(states), -np.inf)
    best[:2] = scores[0][states[:2]]
    for row in scores[1:]:
        moves = np.full((3, len(states)), -np.inf)
        moves[0] = np.where(fixed, -np.inf, best)
        moves[1, 1:] = best[:-1]
        skips = [
            i for i in range(2, len(states)) if states[i] != blank != states[i - 2] != states[i]
        ]
        moves[2, skips] = best[[i - 2 for i in skips]]
        best = moves.max(axis=0) + row[states]
    return float(best[-2:].max())


def reference(scores: LogProbs, config: FlashlightConfig) -> tuple[float, str]:
    """Return the best sentence of all there are, and its score."""
    found = []
    for length in range(len(scores) + 1):
        for sentence in itertools.product(SPELLINGS, repeat=length):
            tokens = [
                (token, place == len(SPELLINGS[word]) - 1)
                for word in sentence
                for place, token in enumerate(SPELLINGS[word])
            ]
            if len(tokens) <= len(scores):
                acoustic = aligned(tokens, scores, PIECES.blank)
                language = config.lm_weight * MODEL.score(list(sentence))
                total = acoustic + language + config.word_insertion_score * length
                found.append((total, " ".join(sentence)))
    return max(found)


@settings(max_examples=25)
@given(MATRICES, st.integers(1, 5), st.sampled_from([0.0, 0.5, 1.2]), st.sampled_from([-1.0, 0.7]))
def test_the_best_of_all_sentences_is_found(
    arpa: Path, seed: int, steps: int, weight: float, score: float
) -> None:
    """With a beam that drops nothing, the search agrees with trying every sentence."""
    config = FlashlightConfig(weight, score, 4000, 10, 1000.0)
    scores = random_scores(seed, steps, 5)
    peaks = Peaks(PIECES.blank)
    gathered = np.concatenate([peaks.accept(scores), peaks.finish()])

    total, sentence = reference(gathered, config)
    (best,) = decode(decoding(PIECES, config, arpa), [scores])

    if best.text != sentence:  # only where two are as good
        tokens = [(int(t), False) for t in best.tokens.ids]
        assert len(tokens) <= steps
        assert total == pytest.approx(reference_of(best, gathered, config), abs=1e-3)


def reference_of(hypothesis: Hypothesis, scores: LogProbs, config: FlashlightConfig) -> float:
    """Return the score of one hypothesis."""
    sentence = [word.text for word in hypothesis.words]
    tokens = [
        (token, place == len(SPELLINGS[word]) - 1)
        for word in sentence
        for place, token in enumerate(SPELLINGS[word])
    ]
    acoustic = aligned(tokens, scores, PIECES.blank)
    language = config.lm_weight * MODEL.score(sentence)
    return acoustic + language + config.word_insertion_score * len(sentence)


@SETTLINGS
@pytest.mark.parametrize("vocabulary", [PIECES, LETTERS])
@settings(max_examples=30)
@given(MATRICES, st.lists(st.integers(0, 60), max_size=6), st.sampled_from([1, 4]))
def test_pieces_decode_as_the_whole(
    arpa: Path,
    settling: Settling,
    vocabulary: Vocabulary,
    seed: int,
    cuts: list[int],
    count: int,
) -> None:
    """Words, times and confidences do not depend on how the steps of a stream are grouped."""
    scores = random_scores(seed, 60, vocabulary.blank + 1)
    way = decoding(vocabulary, FlashlightConfig(beam_size=20), arpa, settling=settling)

    whole = decode(way, [scores], count)
    parts = decode(way, np.split(scores, sorted(cuts)), count)

    assert [one.words for one in parts] == [one.words for one in whole]
    for part, one in zip(parts, whole, strict=True):
        np.testing.assert_array_equal(part.tokens.steps, one.tokens.steps)
        np.testing.assert_array_equal(part.tokens.probabilities, one.tokens.probabilities)


@pytest.mark.parametrize("vocabulary", [PIECES, LETTERS])
@pytest.mark.parametrize("seed", range(5))
def test_clear_speech_decodes_as_greedily(vocabulary: Vocabulary, seed: int) -> None:
    """Without a language model, clear words are those of greedy decoding, at the same times."""
    scores = speech(vocabulary, seed, 12)
    config = FlashlightConfig(word_insertion_score=0.0)

    (greedy,) = decode(GreedyDecoding(vocabulary), [scores])
    (ours,) = decode(decoding(vocabulary, config), [scores])

    assert ours.text == greedy.text
    times = [[one.tokens.steps[word.first] for word in one.words] for one in (ours, greedy)]
    assert times[0] == times[1]


def test_a_model_of_tokens_needs_no_lexicon(tmp_path: Path) -> None:
    """Lexicon-free decoding gives the words of greedy decoding; an n-gram of tokens bends it."""
    scores = speech(PIECES, 3, 6)
    config = FlashlightConfig(use_lexicon_free_decoding=True)
    flat = Bigrams(dict.fromkeys(PIECES.tokens, -0.6), {}, {("▁a", "▁a"): -0.6})
    loud = Bigrams({**dict.fromkeys(PIECES.tokens, -90.0), "▁a": -0.1}, {}, {("▁a", "▁a"): -0.1})

    found = [
        decode(FlashlightDecoding(PIECES, config, None, one.save(tmp_path / name)), [scores])[0]
        for name, one in (("flat", flat), ("loud", loud))
    ]

    assert found[0].text == decode(GreedyDecoding(PIECES), [scores])[0].text
    assert {word.text for word in found[1].words} <= {"a"}


@given(MATRICES, st.floats(-20, 20))
@settings(deadline=None, max_examples=50)
def test_penalised_blanks_are_those_of_lower_logits(seed: int, penalty: float) -> None:
    """The search sees what a model would give whose logits of blanks were so much lower."""
    scores = random_scores(seed, 6, PIECES.blank + 1)
    penalised = decoding(PIECES, replace(WIDE, blank_penalty=penalty))

    (reading,) = penalised.read([None], [scores])

    logits = scores.astype(np.float64)
    logits[:, PIECES.blank] -= penalty
    expected = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    assert np.asarray(reading.log_probs) == pytest.approx(expected, abs=1e-4)
    assert reading.blanks.tolist() == (expected.argmax(axis=1) == PIECES.blank).tolist()


def test_penalised_blanks_let_more_words_be_found() -> None:
    """A word that is less likely than silence is found once blanks are penalised."""
    scores = np.log(np.array([[0.05, 0.0001, 0.0001, 0.0001, 0.9497]], np.float32))

    assert not decode(decoding(PIECES), [scores])[0].words
    penalised = decode(decoding(PIECES, replace(WIDE, blank_penalty=3.0)), [scores])
    assert penalised[0].text == "a"


@pytest.mark.parametrize("penalty", [-21.0, 21.0, float("nan"), float("inf")])
def test_a_penalty_that_leaves_nothing_is_refused(penalty: float) -> None:
    """Beyond its bounds a search would hear blanks only, or none."""
    with pytest.raises(ValueError, match="blank_penalty"):
        replace(WIDE, blank_penalty=penalty)


def test_a_language_model_decides_what_sounds_alike(arpa: Path) -> None:
    """Of two spellings that sound alike, the likelier sentence wins."""
    row = np.log(np.array([0.02, 0.02, 0.45, 0.46, 0.05], "f4"))
    begin = np.log(np.array([0.02, 0.9, 0.02, 0.02, 0.04], "f4"))
    scores = np.stack([begin, row, np.log(np.array([0.02, 0.02, 0.02, 0.02, 0.92], "f4"))])
    lexicon = Lexicon((("ba", (1, 2)), ("bb", (1, 3))))

    texts = [
        decode(FlashlightDecoding(PIECES, WIDE, lexicon, model), [scores])[0].text
        for model in (None, arpa)
    ]

    assert texts == ["bb", "ba"]


@SETTLINGS
@pytest.mark.parametrize("vocabulary", [PIECES, LETTERS])
def test_an_unknown_word_does_not_take_the_rest_along(
    vocabulary: Vocabulary, settling: Settling
) -> None:
    """A search that may leave a word hears those behind it, and writes what it left as spelt."""
    said = ["a", "ba", *["a"] * 400]
    path = [one for word in said for token in spell(vocabulary, word) for one in (token, -1)]
    # Missing what is said lies outside the beam, and nothing else may be heard.
    scores = np.full((len(path), vocabulary.blank + 1), -60, np.float32)
    scores[:, vocabulary.blank] = -6
    scores[np.arange(len(path)), path] = 0
    narrow = FlashlightConfig(beam_threshold=5.0)

    stuck, freed = (
        decode(decoding(vocabulary, one, words=FEW, settling=settling), [scores])[0]
        for one in (narrow, replace(narrow, unk_score=-3.0))
    )

    assert stuck.text.split() == ["a"]
    assert freed.text.split() == said
    (greedy,) = decode(GreedyDecoding(vocabulary), [scores])
    times = [[one.tokens.steps[word.first] for word in one.words] for one in (freed, greedy)]
    assert times[0] == times[1]


@pytest.mark.parametrize("vocabulary", [PIECES, LETTERS])
@settings(max_examples=30)
@given(
    MATRICES,
    st.lists(st.integers(0, 300), max_size=6),
    st.sampled_from([-np.inf, -100.0, -3.0, 0.0, 100.0]),
)
def test_unknown_words_are_spelt_by_their_tokens(
    arpa: Path, vocabulary: Vocabulary, seed: int, cuts: list[int], score: float
) -> None:
    """Each word is of the lexicon or what its tokens say, and grouping changes nothing."""
    scores = random_scores(seed, 300, vocabulary.blank + 1)
    way = decoding(vocabulary, FlashlightConfig(beam_size=20, unk_score=score), arpa, FEW)

    whole = decode(way, [scores], 3)
    parts = decode(way, np.split(scores, sorted(cuts)), 3)

    assert [one.words for one in parts] == [one.words for one in whole]
    for one in whole:
        for word in one.words:
            ids = one.tokens.ids[word.first : word.last].tolist()
            assert [spelt.text for spelt in vocabulary.words(ids)] == [word.text]


@given(MATRICES)
def test_by_default_there_are_words_of_the_lexicon_only(arpa: Path, seed: int) -> None:
    """Whatever is said, nothing else is written: in archives of before the option, too."""
    scores = random_scores(seed, 60, PIECES.blank + 1)

    found = decode(decoding(PIECES, FlashlightConfig(), arpa, FEW), [scores], 4)

    assert {word.text for one in found for word in one.words} <= set(FEW)


@pytest.mark.parametrize("score", [-101.0, 101.0, 1e300, float("nan"), float("inf")])
def test_an_unknown_word_has_a_bounded_score(score: float) -> None:
    """What would always or never be heard is refused; minus infinity is how to say never."""
    with pytest.raises(ValueError, match="unk_score"):
        replace(WIDE, unk_score=score)


def test_clear_words_appear_as_they_end_and_stay(arpa: Path) -> None:
    """What is heard so far begins the final words, but for a last word that may grow."""
    scores = speech(PIECES, 4, 10)
    way = decoding(PIECES, FlashlightConfig(), arpa)
    decoder = way.start()
    heard = []

    for piece in np.split(scores, len(scores)):
        decoder.accept(read(way, decoder, piece))
        heard.append([word.text for word in decoder.best().words])

    (final,) = decoder.end()
    words = [word.text for word in final.words]
    assert all(words[: len(one[:-1])] == one[:-1] for one in heard)
    assert len(heard[-1]) >= len(words) - 1


@SETTLINGS
@pytest.mark.parametrize("vocabulary", [PIECES, LETTERS])
def test_a_long_utterance_is_settled_piece_by_piece(
    arpa: Path, vocabulary: Vocabulary, settling: Settling
) -> None:
    """What is settled on the way is what a single search over all steps finds."""
    scores = speech(vocabulary, 0, 600)
    assert len(scores) > 6 * LATE.look_back

    check_settled(vocabulary, scores, arpa, settling)


@SETTLINGS
@pytest.mark.parametrize("vocabulary", [PIECES, LETTERS])
@pytest.mark.parametrize("steps", [30, 150, 700])
def test_pauses_between_words_and_in_them_are_got_over(
    arpa: Path, vocabulary: Vocabulary, settling: Settling, steps: int
) -> None:
    """What is heard behind a pause is heard where it was said, also where it ends a word.

    Nobody could tell that it does, were what is before the pause a word, too.
    """
    pause = [vocabulary.blank] * steps
    path = [one for word in ("a", "bab", "a") for one in (*pause, *spell(vocabulary, word))]
    inside = [one for token in spell(vocabulary, "bab") for one in (token, *pause)]
    scores = clearly([*path, *inside, *spell(vocabulary, "a")], vocabulary.blank + 1)

    found = check_settled(vocabulary, scores, arpa, settling, FEW)

    assert found.text == "a bab a bab a"


@SETTLINGS
@pytest.mark.parametrize("vocabulary", [PIECES, LETTERS])
def test_words_without_a_pause_between_them_keep_their_tokens(
    arpa: Path, vocabulary: Vocabulary, settling: Settling
) -> None:
    """Where words are settled, the first step behind them begins another, and is that word's."""
    said = ["a", "bab", "ab"] * 100
    path = [token for word in said for token in spell(vocabulary, word)]
    scores = clearly(path, vocabulary.blank + 1)

    assert check_settled(vocabulary, scores, arpa, settling).text.split() == said


@pytest.mark.parametrize("vocabulary", [PIECES, LETTERS])
@settings(max_examples=20)
@given(MATRICES)
@example(0)
@example(2)
def test_however_early_words_are_settled_each_has_tokens(
    arpa: Path, vocabulary: Vocabulary, seed: int
) -> None:
    """What ends a word may have been settled as the end of another, which the best path lacks."""
    scores = random_scores(seed, 300, vocabulary.blank + 1)
    config, at_once = FlashlightConfig(beam_size=20), Settling(every=1, look_back=1)

    (best,) = decode(decoding(vocabulary, config, arpa, FEW, at_once), [scores])

    assert all(word.first < word.last for word in best.words)


def clearly(path: list[int], tokens: int) -> LogProbs:
    """Return log-probabilities that leave no doubt."""
    scores = np.full((len(path), tokens), -20, np.float32)
    scores[np.arange(len(path)), path] = 0
    return scores


def check_settled(
    vocabulary: Vocabulary,
    scores: LogProbs,
    model: Path,
    settling: Settling,
    words: tuple[str, ...] = tuple(SPELLINGS),
) -> Hypothesis:
    """Return what is heard, the same as by a search that settles nothing on the way."""
    found, expected = (
        decode(
            decoding(vocabulary, FlashlightConfig(), model, words, settling=one),
            np.split(scores, range(7, len(scores), 7)),
        )[0]
        for one in (settling, UNSETTLED)
    )
    assert found.words == expected.words
    np.testing.assert_array_equal(found.tokens.ids, expected.tokens.ids)
    np.testing.assert_array_equal(found.tokens.steps, expected.tokens.steps)
    np.testing.assert_array_equal(found.tokens.probabilities, expected.tokens.probabilities)
    return found


@SETTLINGS
def test_a_search_without_words_is_settled_too(settling: Settling) -> None:
    """Tokens that nobody joins into words are found as by a single search over all steps."""
    scores = speech(PIECES, 0, 200)
    way = FlashlightDecoding(PIECES, FlashlightConfig(use_lexicon_free_decoding=True), None, None)
    found = []
    for way.settling in (settling, UNSETTLED):
        found += decode(way, np.split(scores, range(7, len(scores), 7)))

    assert found[0].words == found[1].words
    np.testing.assert_array_equal(found[0].tokens.steps, found[1].tokens.steps)


@SETTLINGS
@pytest.mark.parametrize(
    ("lasting", "back"), [(["a", "bab"], 0), ([""], FLASHLIGHT_LIMIT)], ids=["speech", "silence"]
)
def test_a_search_remembers_few_steps_however_long_an_utterance_is(
    arpa: Path, settling: Settling, lasting: list[str], back: int
) -> None:
    """It remembers those that are not to be settled, and those since a word has ended, if any."""
    path = [token for word in lasting for token in (*SPELLINGS.get(word, ()), PIECES.blank)]
    way = decoding(PIECES, FlashlightConfig(), arpa, settling=settling)
    decoder = way.start()
    assert isinstance(decoder, FlashlightDecoder)
    most = 0
    for row in clearly(path * (1500 // len(path)), PIECES.blank + 1):
        decoder.accept(read(way, decoder, row[np.newaxis]))
        most = max(most, remembered(decoder))

    # A search has a state more than steps.
    assert most <= settling.look_back + settling.every + (back or len(path)) + 1


def remembered(decoder: FlashlightDecoder) -> int:
    """Return how many steps a decoder's paths have."""
    paths = decoder._search.get_all_final_hypothesis()
    return max((len(path.tokens) for path in paths), default=0)


@settings(max_examples=30)
@given(MATRICES)
@example(220)
def test_a_word_keeps_its_tokens_where_a_block_ends(arpa: Path, seed: int) -> None:
    """A token that ends a block and begins a word is that word's, and so is its time."""
    scores = random_scores(seed, 300, PIECES.blank + 1)

    (best,) = decode(decoding(PIECES, FlashlightConfig(beam_size=20), arpa, FEW), [scores])

    ids = [best.tokens.ids[word.first : word.last].tolist() for word in best.words]
    assert ids == [list(SPELLINGS[word.text]) for word in best.words]


def test_utterances_of_a_stream_are_decoded_apart(arpa: Path) -> None:
    """After an end the next utterance begins anew, and its times go on."""
    one, other = speech(PIECES, 1, 5), speech(PIECES, 2, 5)
    way = decoding(PIECES, FlashlightConfig(), arpa)
    decoder = way.start()

    decoder.accept(read(way, decoder, one))
    decoder.end()
    decoder.accept(read(way, decoder, other))
    (second,) = decoder.end()

    (alone,) = decode(way, [other])
    assert second.text == alone.text
    np.testing.assert_array_equal(second.tokens.steps, alone.tokens.steps + len(one))


def test_alternatives_differ_and_the_best_is_first(arpa: Path) -> None:
    """N-best readings are distinct, at most as many as asked for, the best first."""
    scores = random_scores(5, 12, 5)
    way = decoding(PIECES, WIDE, arpa)

    found = decode(way, [scores], 6)

    texts = [one.text for one in found]
    assert len(set(texts)) == len(texts) == 6
    assert texts[0] == decode(way, [scores])[0].text


@given(MATRICES, st.integers(0, 40), st.lists(st.integers(0, 40), max_size=4))
def test_gathering_runs_keeps_the_greedy_reading(seed: int, steps: int, cuts: list[int]) -> None:
    """Gathered steps read as before, none of their tokens lasts, and grouping changes nothing."""
    scores = random_scores(seed, steps, 3, sharpness=1.0)
    peaks = Peaks(2)
    pieces = [peaks.accept(one) for one in np.split(scores, sorted(min(c, steps) for c in cuts))]
    gathered = np.concatenate([*pieces, peaks.finish()])

    assert gathered.shape == scores.shape
    before, after = scores.argmax(axis=1), gathered.argmax(axis=1)
    runs = [token for token, _ in itertools.groupby(before)]
    assert [token for token in runs if token != 2] == [token for token in after if token != 2]
    whole = Peaks(2)
    np.testing.assert_array_equal(np.concatenate([whole.accept(scores), whole.finish()]), gathered)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("word\n", "line 1 is not"),
        ("a\ta\n\nab\ta x\n", "line 3 spells 'ab' with 'x'"),
        ("\ta\n", "line 1 is not"),
        ("a\t" + "a " * 101, "line 1 is not"),
    ],
)
def test_a_malformed_lexicon_is_refused_by_its_line(tmp_path: Path, text: str, said: str) -> None:
    """An error in a lexicon says where it is."""
    path = tmp_path / "lexicon.txt"
    path.write_text(text)

    with pytest.raises(ValueError, match=said):
        Lexicon.load(path, LETTERS)


def test_a_lexicon_survives_its_file(tmp_path: Path) -> None:
    """What is written is read again, with every spelling of a word."""
    lexicon = Lexicon((("ab", (1, 2)), ("ab", (2,)), ("b", (2,))))

    lexicon.save(tmp_path / "lexicon.txt", LETTERS)

    assert Lexicon.load(tmp_path / "lexicon.txt", LETTERS) == lexicon
    assert lexicon.words == ["ab", "b"]


def test_word_pieces_are_the_longest() -> None:
    """Words are spelt as BERT's tokenizer does, and not where that is impossible."""
    spell_word = word_pieces(Vocabulary(("un", "a", "##aff", "##able"), VocabularyType.WORDPIECE))

    assert spell_word("unaffable") == (0, 2, 3)
    assert spell_word("unx") == ()


def test_a_broken_language_model_is_damage(tmp_path: Path) -> None:
    """KenLM's refusal is an error with its reason, not a traceback."""
    path = tmp_path / "model.arpa"
    path.write_text("\\data\\\nngram 1=oops\n")

    with pytest.raises(DamagedArchiveError, match="KenLM refuses the language model"):
        decoding(PIECES, model=path)


# Every word of one or two letters: whatever a random model says, some of them fit.
ALPHABET = "abcdefghijklmnopqrstuvwxyz"
WORDS = "".join(f"{a}\n" for a in ALPHABET) + "".join(
    f"{a}{b}\n" for a in ALPHABET for b in ALPHABET
)


@pytest.fixture(scope="module")
def beam_rmir(tiny_riva: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("beam")
    (folder / "words.txt").write_text(WORDS)
    arpa = MODEL.save(folder / "model.arpa")
    rmir = folder / "beam.rmir"
    succeed(
        *("riva-build", "speech_recognition", rmir, tiny_riva, "--name=beam", "--offline"),
        *("--streaming=True", "--decoder_type=flashlight", f"--decoding_vocab={folder}/words.txt"),
        *(f"--decoding_language_model_arpa={arpa}", "--flashlight_decoder.word_insertion_score=9"),
        "--decoder_fallback=greedy",
    )
    return rmir


@pytest.fixture(scope="module")
def beam_repository(beam_rmir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    repository = tmp_path_factory.mktemp("repository") / "models"
    report = repository.parent / "report.json"
    succeed("riva-deploy", beam_rmir, repository, "--report", report)
    models = json.loads(report.read_text())["models"]
    assert {(one["decoder"], one["decoder_wanted"]) for one in models} == {("flashlight",) * 2}
    return repository


@pytest.fixture(scope="module")
def asr(beam_repository: Path) -> Iterator[riva.client.ASRService]:
    with serving(beam_repository, quiet=True) as (uri, _):
        yield riva.client.ASRService(riva.client.Auth(uri=uri))


def test_the_server_answers_with_words_of_the_lexicon(asr: riva.client.ASRService) -> None:
    """Whole recordings give up to max_alternatives readings; the first has word times."""
    config = riva.client.RecognitionConfig(
        language_code="en-US", max_alternatives=3, enable_word_time_offsets=True
    )

    (result,) = asr.offline_recognize(wav(babble(3.0)), config).results

    assert 1 < len(result.alternatives) <= 3
    assert len({one.transcript for one in result.alternatives}) == len(result.alternatives)
    best = result.alternatives[0]
    assert {word.word for word in best.words} <= set(WORDS.split())
    assert [word.word for word in best.words] == best.transcript.split()
    times = [time for word in best.words for time in (word.start_time, word.end_time)]
    assert times == sorted(times)
    assert not any(one.words for one in result.alternatives[1:])
    assert 0 < best.confidence <= 1


def test_a_stream_gives_the_same_words_however_it_is_cut(asr: riva.client.ASRService) -> None:
    """Finals are the same for pieces of any size."""
    config = riva.client.StreamingRecognitionConfig(
        config=riva.client.RecognitionConfig(language_code="en-US"), interim_results=False
    )
    audio = wav(babble(4.0))
    finals = []
    for size in (500, 3200, len(audio)):
        pieces = [audio[i : i + size] for i in range(0, len(audio), size)]
        finals.append(
            [
                result.alternatives[0].transcript
                for response in asr.streaming_response_generator(pieces, config)
                for result in response.results
                if result.alternatives
            ]
        )

    assert finals[0] == finals[1] == finals[2] != []


def test_pipelines_of_one_archive_share_their_lexicon(beam_repository: Path) -> None:
    """Trie and language model are in memory once."""
    streaming, offline = load_recognizers(beam_repository)

    assert streaming.decoding is offline.decoding


@pytest.fixture
def build_beams(tiny_riva: Path, tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """What builds pipelines that search, with further options, into ``beams.rmir``."""
    (tmp_path / "words.txt").write_text(WORDS)
    words = f"--decoding_vocab={tmp_path}/words.txt"
    fixed = (tmp_path / "beams.rmir", tiny_riva, "--decoder_type=flashlight", words)
    return partial(run, "riva-build", "speech_recognition", *fixed)


@pytest.fixture
def load_both(
    tmp_path: Path, build_beams: Callable[..., subprocess.CompletedProcess[str]]
) -> Callable[..., dict[str, Recognizer]]:
    """What builds and deploys pipelines of both kinds with further options, and loads them."""

    def load(*options: str) -> dict[str, Recognizer]:
        built = build_beams("--offline", "--streaming=True", *options)
        assert built.returncode == 0, built.stderr
        succeed("riva-deploy", tmp_path / "beams.rmir", tmp_path / "models")
        return {one.config.type: one for one in load_recognizers(tmp_path / "models")}

    return load


def test_streams_may_be_searched_otherwise_in_the_same_memory(
    load_both: Callable[..., dict[str, Recognizer]],
) -> None:
    """What is said of streams holds for them alone, and words are in memory once."""
    of = load_both(
        *("--flashlight_decoder.lm_weight=0.5", "--flashlight_decoder.beam_size=9"),
        "--streaming.flashlight_decoder.beam_size=7",
        "--streaming.flashlight_decoder.lm_weight=0.25",
    )

    streams, whole = of["online"].decoding, of["offline"].decoding
    assert isinstance(streams, FlashlightDecoding)
    assert isinstance(whole, FlashlightDecoding)
    assert (streams.config.beam_size, streams.config.lm_weight) == (7, 0.25)
    assert (whole.config.beam_size, whole.config.lm_weight) == (9, 0.5)
    assert streams.lexicon is whole.lexicon
    assert streams.model is whole.model
    scores = speech(streams.vocabulary, seed=1, words=3)[:, : streams.vocabulary.blank + 1]
    assert decode(streams, [scores])[0].text == decode(whole, [scores])[0].text


def test_whole_utterances_alone_may_have_unknown_words(
    load_both: Callable[..., dict[str, Recognizer]],
) -> None:
    """Both a number and minus infinity come through the archive; what is neither is damage."""
    loaded = load_both(
        "--flashlight_decoder.unk_score=-3", "--streaming.flashlight_decoder.unk_score=-inf"
    )

    scores = {kind: one.config.decoder.flashlight.unk_score for kind, one in loaded.items()}
    assert scores == {"online": -np.inf, "offline": -3.0}
    values = loaded["online"].config.to_mapping()
    values["decoder"]["flashlight"]["unk_score"] = float("nan")
    with pytest.raises(DamagedArchiveError, match="unk_score"):
        PipelineConfig.from_mapping(values)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--offline"], "beam_size is for streams, and none are built"),
        (["--streaming.flashlight_decoder.beam_size=0"], "beam sizes are 1 to"),
        (["--flashlight_decoder.unk_score=inf"], "unk_score is -100 to 100, or -inf"),
    ],
)
def test_a_search_that_no_stream_can_have_is_refused(
    tmp_path: Path,
    build_beams: Callable[..., subprocess.CompletedProcess[str]],
    options: list[str],
    said: str,
) -> None:
    """One sentence, exit code 2, and nothing is written."""
    done = build_beams("--streaming.flashlight_decoder.beam_size=7", *options)

    assert done.returncode == 2
    assert said in done.stderr
    assert not (tmp_path / "beams.rmir").exists()


def test_without_the_library_the_fallback_decodes(
    beam_repository: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A model with a fallback is served greedily, and the log says so and what would help."""
    monkeypatch.setattr(flashlight, "is_available", lambda: False)
    monkeypatch.setattr(logging.getLogger("riva_speech"), "propagate", True)
    # NeMo's libraries, where a test before this one has loaded them, silence others' loggers.
    log = logging.getLogger("riva_speech.asr.loading")
    monkeypatch.setattr(log, "disabled", False)

    with caplog.at_level(logging.WARNING, logger=log.name):
        recognizer = load_recognizer(beam_repository / "beam-offline-asr-bls-ensemble")

    assert recognizer.decoding.name == "greedy"
    assert "pip install 'flashlight-text" in caplog.text


def test_without_the_library_or_a_fallback_the_model_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The refusal names the decoder and the line that installs it."""
    monkeypatch.setattr(flashlight, "is_available", lambda: False)

    with pytest.raises(UnsupportedError, match="decoder flashlight needs flashlight-text") as error:
        decoding(PIECES)
    assert "pip install" in (error.value.hint or "")


def test_no_program_needs_the_library() -> None:
    """Building, deploying and serving are imported without it."""
    code = (
        "import sys, riva_speech.servicemaker.riva_build, riva_speech.servicemaker.riva_deploy, "
        "riva_speech.server.grpc_server; print('flashlight' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout == "False\n"


@pytest.mark.parametrize(
    ("options", "said", "code"),
    [
        (["--decoding_vocab=missing"], "there is no file missing", 3),
        (["--decoding_vocab=two"], "one word a line", 2),
        (["--decoding_vocab=odd"], "has no word that", 2),
        (["--decoding_vocab=binary"], "is no text", 2),
        (["--decoding_lexicon=odd"], "line 1 is not word<TAB>", 2),
        (["--decoding_vocab=words", "--decoding_language_model_arpa=words"], "neither a KenLM", 2),
        (["--decoding_vocab=words", "--decoding_language_model_binary=arpa"], "model_arpa", 2),
        (["--decoding_vocab=words", "--flashlight_decoder.beam_size=0"], "beam sizes are", 2),
        (["--decoding_vocab=words", "--flashlight_decoder.lm_weight=nan"], "finite", 2),
        (
            ["--decoding_vocab=words", "--flashlight_decoder.use_lexicon_free_decoding"],
            "takes its words from one of",
            2,
        ),
    ],
)
def test_files_that_do_not_fit_are_refused(
    tmp_path: Path, tiny_riva: Path, options: list[str], said: str, code: int
) -> None:
    """What a decoder cannot use is one error that names it, before anything is written."""
    (tmp_path / "words").write_text(WORDS)
    (tmp_path / "two").write_text("two words\n")
    (tmp_path / "odd").write_text("ÄÖ\n")
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    MODEL.save(tmp_path / "arpa")
    names = ("words", "two", "odd", "binary", "arpa")
    for name in names:
        options = [one.replace(f"={name}", f"={tmp_path / name}") for one in options]

    done = run(
        *("riva-build", "speech_recognition", tmp_path / "out.rmir", tiny_riva),
        *("--decoder_type=flashlight", *options),
    )

    assert done.returncode == code
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names)


DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


@pytest.mark.nemo
def test_words_are_those_of_nemo_s_log_probabilities(tmp_path: Path) -> None:
    """Deployed pipelines search NeMo's own log-probabilities, whole and streamed."""
    (tmp_path / "words").write_text("\n".join(DIGITS))
    arpa = Bigrams(dict.fromkeys(DIGITS, -1.0), {}, {("one", "seven"): -0.1}).save(
        tmp_path / "arpa"
    )
    pair = make_pair(
        CHECKPOINT,
        tmp_path,
        options=(
            "--decoder_type=flashlight",
            f"--decoding_vocab={tmp_path / 'words'}",
            f"--decoding_language_model_arpa={arpa}",
        ),
    )
    speech = decode_all(SAMPLE.read_bytes(), DeclaredFormat(), 16000)
    # NeMo's simulation leaves out what does not fill a last chunk.
    samples = np.concatenate([speech, np.zeros(16000, np.float32)])

    for recognizer in pair.recognizers:
        steps = [nemo_log_probs(pair.nemo, samples)]
        if isinstance(recognizer, StreamingRecognizer):
            steps, _ = nemo_stream(
                pair.nemo, samples, recognizer.config.streaming.att_context_size[1]
            )
        expected = decode(recognizer.decoding, steps)

        result = recognizer.recognize(samples)

        assert result.transcript == expected[0].text == SAID
        starts = [word.start_ms for word in result.words]
        assert starts == [80 * expected[0].tokens.steps[one.first] for one in expected[0].words]
