from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from riva_speech.asr.ctc import Hypothesis, Tokens, read
from riva_speech.asr.endpointing import Endpointer
from riva_speech.asr.greedy import GreedyDecoding
from riva_speech.asr.pipeline import EndpointingConfig
from riva_speech.asr.results import (
    Alternative,
    DeferredAlternative,
    RecognisedWord,
    Result,
    ResultBuilder,
)
from riva_speech.errors import DamagedArchiveError
from riva_speech.text.vocabulary import Vocabulary, VocabularyType

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

BLANK = 3
LETTERS = Vocabulary(("a", "b", "c"), VocabularyType.CHARACTER)
PATHS = st.lists(st.integers(0, BLANK), max_size=40)
# Of each kind a token that begins a word, one that goes on with it, and one without text.
KINDS = (
    Vocabulary((" ", "b", "<s>"), VocabularyType.CHARACTER),
    Vocabulary(
        ("\N{LOWER ONE EIGHTH BLOCK}a", "b", "\N{LOWER ONE EIGHTH BLOCK}"),
        VocabularyType.SENTENCEPIECE,
    ),
    Vocabulary(("a", "##b", "<pad>"), VocabularyType.WORDPIECE),
)


def log_probs(path: list[int]) -> NDArray[np.float32]:
    """Return log-probabilities whose best path this is, each step with another posterior."""
    rng = np.random.default_rng(len(path))
    scores = rng.uniform(0, 1, (len(path), BLANK + 1))
    scores[np.arange(len(path)), path] += 2
    result: NDArray[np.float32] = np.log(scores / scores.sum(axis=1, keepdims=True)).astype("f4")
    return result


def collapse(path: list[int]) -> list[int]:
    """CTC's definition, written with groupby: merge repeats, then drop blanks."""
    return [token for token, _ in itertools.groupby(path) if token != BLANK]


def decode(pieces: list[NDArray[np.float32]]) -> Tokens:
    """Return the greedy tokens of a stream that comes in pieces."""
    decoding = GreedyDecoding(LETTERS)
    decoder = decoding.start()
    for piece in pieces:
        decoder.accept(read(decoding, decoder, piece))
    (only,) = decoder.end(5)
    return only.tokens


@given(PATHS)
def test_greedy_decoding_follows_ctc_s_definition(path: list[int]) -> None:
    """The decoder merges repeats and drops blanks, and says where each token began."""
    tokens = decode(np.split(log_probs(path), 1))

    assert tokens.ids.tolist() == collapse(path)
    assert [path[step] for step in tokens.steps] == collapse(path)


@given(PATHS, st.lists(st.integers(0, 40), max_size=5))
def test_pieces_decode_as_the_whole(path: list[int], cuts: list[int]) -> None:
    """A stream decodes alike however its steps are grouped."""
    scores = log_probs(path)
    whole = decode([scores])

    tokens = decode(np.split(scores, sorted(min(cut, len(path)) for cut in cuts)))

    assert tokens.ids.tolist() == whole.ids.tolist()
    assert tokens.steps.tolist() == whole.steps.tolist()
    np.testing.assert_array_equal(tokens.probabilities, whole.probabilities)


@given(PATHS, st.lists(st.integers(0, 40), max_size=5), st.sampled_from(KINDS))
def test_words_are_read_on_as_they_are_read_whole(
    path: list[int], cuts: list[int], vocabulary: Vocabulary
) -> None:
    """Whoever asks for the words after each piece ends with those of the whole, place for place.

    So it is with the next utterance, which has none of the words before.
    """
    decoding, scores = GreedyDecoding(vocabulary), log_probs([*path, BLANK])
    whole, decoder = decoding.start(), decoding.start()
    whole.accept(read(decoding, whole, scores))
    expected = whole.best()
    for _ in range(2):
        for piece in np.split(scores, sorted(min(cut, len(path)) for cut in cuts)):
            decoder.accept(read(decoding, decoder, piece))
            decoder.best()
        (found,) = decoder.end()
        assert (found.words, found.text) == (expected.words, expected.text)


@given(st.lists(PATHS, min_size=1, max_size=5), st.integers(1, 9), st.integers(1, 9))
def test_streams_are_read_together_as_alone(paths: list[list[int]], size: int, cut: int) -> None:
    """Streams of different lengths, read in one batch and taken in parts, decode as each alone."""
    decoding = GreedyDecoding(LETTERS)
    decoders = [decoding.start() for _ in paths]
    scores = [log_probs(path) for path in paths]
    for begin in range(0, max(map(len, paths)), size):
        pieces = [one[begin : begin + size] for one in scores]
        readings = decoding.read([decoder.carry for decoder in decoders], pieces)
        for decoder, reading in zip(decoders, readings, strict=True):
            at = min(cut, len(reading))
            decoder.accept(reading.cut(0, at))
            decoder.accept(reading.cut(at, len(reading)))

    for decoder, one in zip(decoders, scores, strict=True):
        alone = decode([one])
        assert decoder.best().tokens.ids.tolist() == alone.ids.tolist()
        assert decoder.best().tokens.steps.tolist() == alone.steps.tolist()
        np.testing.assert_array_equal(decoder.best().tokens.probabilities, alone.probabilities)


@pytest.mark.parametrize(
    ("kind", "tokens", "expected"),
    [
        (VocabularyType.CHARACTER, [" ", "h", "i", " ", " ", "y", "o"], ["hi", "yo"]),
        (
            VocabularyType.SENTENCEPIECE,
            ["▁hel", "lo", "▁", "wor", "ld", "</s>"],
            ["hello", "world"],
        ),
        (VocabularyType.WORDPIECE, ["hel", "##lo", "world"], ["hello", "world"]),
        (VocabularyType.SENTENCEPIECE, ["▁a", "<unk>", "▁b"], ["a", "⁇", "b"]),
        (VocabularyType.CHARACTER, [], []),
    ],
)
def test_tokens_become_words(kind: VocabularyType, tokens: list[str], expected: list[str]) -> None:
    """Each kind of vocabulary marks the beginning of words in its own way."""
    vocabulary = Vocabulary(tuple(dict.fromkeys(tokens)), kind)

    words = vocabulary.words([vocabulary.tokens.index(token) for token in tokens])

    assert [word.text for word in words] == expected


def test_a_vocabulary_survives_its_file(tmp_path_factory: pytest.TempPathFactory) -> None:
    """A token that is a space comes back from the file."""
    path = tmp_path_factory.mktemp("vocabulary") / "v.txt"
    vocabulary = Vocabulary((" ", "a", "▁b"), VocabularyType.CHARACTER)

    vocabulary.save(path)

    assert Vocabulary.load(path, VocabularyType.CHARACTER) == vocabulary


def build(vocabulary: Vocabulary, tokens: Tokens, *, seconds: float, is_final: bool) -> Result:
    """Return the result of one hypothesis, of steps of 80 ms."""
    hypothesis = Hypothesis(tokens, tuple(vocabulary.words(tokens.ids.tolist())))
    return ResultBuilder(80).build([hypothesis], is_final=is_final, audio_processed=seconds)


@pytest.mark.parametrize("is_final", [True, False])
def test_word_times_and_confidences_come_from_the_tokens(*, is_final: bool) -> None:
    """A word lasts from its first token's step to the end of its last one's."""
    vocabulary = Vocabulary(("▁one", "▁t", "wo"), VocabularyType.SENTENCEPIECE)
    tokens = Tokens(np.array([0, 1, 2]), np.array([2, 7, 9]), np.array([0.9, 0.8, 0.5], "f4"))

    result = build(vocabulary, tokens, seconds=1.0, is_final=is_final)

    assert result.transcript == "one two"
    assert [(word.start_ms, word.end_ms) for word in result.words] == [(160, 240), (560, 800)]
    assert [word.confidence for word in result.words] == pytest.approx([0.9, 0.5])
    assert result.confidence == pytest.approx(np.mean([0.9, 0.8, 0.5]))


@pytest.mark.parametrize("is_final", [True, False])
def test_a_result_may_be_told_later(*, is_final: bool) -> None:
    """Its text and confidence stay, and each word's times are so much later."""
    vocabulary = Vocabulary(("▁one",), VocabularyType.SENTENCEPIECE)
    tokens = Tokens(np.array([0, 0]), np.array([2, 9]), np.array([0.9, 0.8], "f4"))
    result = build(vocabulary, tokens, seconds=1.0, is_final=is_final)

    later = result.later(1.5)

    assert (later.transcript, later.confidence) == (result.transcript, result.confidence)
    assert [(word.start_ms, word.end_ms) for word in later.words] == [(1660, 1740), (2220, 2300)]
    assert later.audio_processed == 2.5


def test_an_interim_result_that_is_told_later_is_timed_when_somebody_asks() -> None:
    """An utterance in progress costs no more for being another than its stream's first."""
    asked: list[str] = []

    def make() -> Alternative:
        """Note that the words are wanted."""
        asked.append("words")
        return Alternative((RecognisedWord("one", 0, 80, 1.0),), 1.0)

    later = DeferredAlternative("one", make).later(500)
    assert (later.transcript, asked) == ("one", [])
    assert later.words == (RecognisedWord("one", 500, 580, 1.0),)
    assert asked == ["words"]


@pytest.mark.parametrize("is_final", [True, False])
def test_word_times_stay_within_the_client_s_audio(*, is_final: bool) -> None:
    """Silence that a stream is heard out with gives no word a time after the client's audio."""
    vocabulary = Vocabulary(("▁one",), VocabularyType.SENTENCEPIECE)
    tokens = Tokens(np.array([0, 0]), np.array([2, 9]), np.array([0.9, 0.8], "f4"))

    result = build(vocabulary, tokens, seconds=0.5, is_final=is_final)

    assert [(word.start_ms, word.end_ms) for word in result.words] == [(160, 240), (500, 500)]


def ends(pattern: str, config: EndpointingConfig, sizes: list[int]) -> list[int]:
    """Feed a pattern of speech (#) and blanks (.) in pieces; return where utterances end."""
    blanks = np.array([character == "." for character in pattern])
    endpointer = Endpointer(config, 80)
    found: list[int] = []
    while len(blanks):
        size = sizes[len(found) % len(sizes)]
        found += endpointer.accept(blanks[:size])
        blanks = blanks[size:]
    return found


@pytest.mark.parametrize("sizes", [[1], [2], [7], [100]])
def test_an_utterance_ends_after_the_stop_window(sizes: list[int]) -> None:
    """800 ms of blanks, ten steps, end an utterance, in pieces of any size."""
    assert ends("...#.#" + "." * 10, EndpointingConfig(), sizes) == [16]
    assert ends("...#.#" + "." * 9, EndpointingConfig(), sizes) == []


@pytest.mark.parametrize("sizes", [[1], [7], [100]])
def test_silence_alone_ends_nothing(sizes: list[int]) -> None:
    """Without speech there is no utterance to end."""
    assert ends("." * 60, EndpointingConfig(), sizes) == []


@pytest.mark.parametrize("sizes", [[1], [7], [100]])
def test_each_utterance_ends_once(sizes: list[int]) -> None:
    """A long pause ends the utterance before it, and the next one ends for itself."""
    assert ends("#" + "." * 25 + "##" + "." * 12, EndpointingConfig(), sizes) == [11, 38]


def test_a_stop_history_of_zero_never_ends() -> None:
    """Endpointing can be switched off."""
    assert ends("#" + "." * 99, EndpointingConfig(stop_history=0), [7]) == []


def test_a_lower_threshold_forgives_a_blip() -> None:
    """With stop_th at 0.9, one stray token in the window does not keep an utterance open."""
    pattern = "##" + "....." + "#" + "....."

    assert ends(pattern, EndpointingConfig(stop_th=0.9), [1]) == [12]
    assert ends(pattern, EndpointingConfig(), [1]) == []


def seeming(pattern: str, config: EndpointingConfig) -> str:
    """Return, for each step of a pattern, whether (!) the utterance seems over after it."""
    endpointer = Endpointer(config, 80)
    told = ""
    for character in pattern:
        endpointer.accept(np.array([character == "."]))
        told += "!" if endpointer.seems_over else "-"
    return told


def test_the_first_pass_announces_an_end_before_it_is_one() -> None:
    """Three steps of silence seem an end, until speech goes on or the utterance is over."""
    config = EndpointingConfig(start_history=80, stop_history=480, stop_history_eou=240)

    assert seeming("....#.#...#......", config) == "---------!---!!!-"


def test_the_first_pass_is_off_unless_asked_for() -> None:
    """Without a window of its own it announces nothing."""
    assert seeming("#" + "." * 9, EndpointingConfig(stop_history=0)) == "-" * 10


def test_the_first_pass_needs_no_second() -> None:
    """Ends are announced where none is made, too."""
    config = EndpointingConfig(start_history=80, stop_history=0, stop_history_eou=160)

    assert seeming("#...#..", config) == "--!!--!"


def test_a_vocabulary_that_is_no_text_is_damaged(tmp_path: Path) -> None:
    """It comes with an archive, which may hold anything."""
    (tmp_path / "vocabulary.txt").write_bytes(b"a\n\xff\n")

    with pytest.raises(DamagedArchiveError, match=r"vocabulary\.txt cannot be read"):
        Vocabulary.load(tmp_path / "vocabulary.txt", VocabularyType.CHARACTER)
