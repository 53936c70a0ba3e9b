"""What happens to words once they are recognised: written forms, hints, masks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from riva_speech.asr.options import Boost, RequestOptions
from riva_speech.asr.results import RecognisedWord
from riva_speech.asr.writer import Writer
from riva_speech.errors import DamagedArchiveError
from riva_speech.text import grammars
from riva_speech.text.hints import SpeechHints, literal_parts
from riva_speech.text.inverse_normalisation import InverseNormaliser
from riva_speech.text.profanity import ProfanityFilter
from riva_speech.text.rewriting import spread
from riva_speech.text.vocabulary import Word
from support.grammars import write_hints, write_itn

if TYPE_CHECKING:
    from pathlib import Path

    from riva_speech.asr.writer import Words

SAID = "i paid twenty three dollars on may third to b 7"


@pytest.fixture
def normaliser(tmp_path: Path) -> InverseNormaliser:
    return InverseNormaliser(*write_itn(tmp_path))


@pytest.fixture
def hints(tmp_path: Path) -> SpeechHints:
    return SpeechHints(write_hints(tmp_path))


def spoken(text: str) -> Words:
    """Return words of 100 ms each, each a little less sure than the one before."""
    return tuple(
        RecognisedWord(word, 100 * place, 100 * place + 100, 1 - place / 100)
        for place, word in enumerate(text.split())
    )


def read(words: Words) -> str:
    return " ".join(word.text for word in words)


@pytest.mark.grammars
def test_words_are_written_as_one_writes_them(normaliser: InverseNormaliser) -> None:
    """Fields are put into the order that the verbaliser takes; each word knows what it was."""
    written = normaliser(SAID.split())

    assert [word.text for word in written] == ["i", "paid", "$23", "on", "may", "3", "to", "b", "7"]
    assert written[2] == Word("$23", 2, 5)
    assert written[4:6] == [Word("may", 6, 7), Word("3", 7, 8)]


@pytest.mark.grammars
@pytest.mark.parametrize("text", ["", "[a] \\b ]", 'a "quoted" word', "äöü one", "a { b } c: d"])
def test_no_text_is_lost(normaliser: InverseNormaliser, text: str) -> None:
    """Characters that grammars use, and those that they do not know, come through."""
    assert " ".join(one.text for one in normaliser(text.split())) == text.replace("one", "1")


@pytest.mark.grammars
def test_adjacent_tokens_keep_their_own_words(normaliser: InverseNormaliser) -> None:
    """Where one number follows another, each stands for its own words."""
    written = normaliser(["twenty", "three", "thirty"])

    assert written == [Word("23", 0, 2), Word("30", 2, 3)]


@pytest.mark.grammars
def test_times_and_confidence_are_those_of_the_words(normaliser: InverseNormaliser) -> None:
    """A rewritten word lasts from its first word to its last, and is as sure as the least sure."""
    words = Writer(normaliser=normaliser)(spoken(SAID), RequestOptions(), is_final=True)

    assert words[2] == RecognisedWord("$23", 200, 500, 0.96)
    assert [(one.start_ms, one.end_ms) for one in words[4:6]] == [(600, 700), (700, 800)]


@pytest.mark.grammars
def test_only_finals_that_are_not_verbatim_are_rewritten(normaliser: InverseNormaliser) -> None:
    """Verbatim requests get what was said; partial results only change where that is asked for."""
    write, plain = Writer(normaliser=normaliser), spoken("twenty three")

    assert write(plain, RequestOptions(verbatim=True), is_final=True) == plain
    assert write(plain, RequestOptions(), is_final=False) == plain
    assert read(write(plain, RequestOptions(partial_itn=True), is_final=False)) == "23"


@pytest.mark.grammars
def test_hints_write_their_classes_where_their_words_stand(hints: SpeechHints) -> None:
    """A phrase with a class rewrites what stands in its place, and nothing elsewhere."""
    phrase = "code is $OOV_ALPHA_NUMERIC_SEQUENCE"
    said = ["one", "code", "is", "a", "b", "one", "two", "and", "three"]

    written = hints(said, [phrase, "no class", "$UNKNOWN"])

    assert [one.text for one in written] == ["one", "code", "is", "AB12", "and", "three"]
    assert written[3] == Word("AB12", 3, 7)
    assert hints(said, []) == [Word(text, at, at + 1) for at, text in enumerate(said)]


@pytest.mark.grammars
def test_a_class_may_want_spaces_around_it(hints: SpeechHints) -> None:
    """Where a class reads margins it stands anywhere, at either end of what is said too."""
    for said, written in (
        ("one two", "12"),
        ("call one two now", "call 12 now"),
        ("one two three four or five six", "1234 or 56"),
        ("one two may one", "12 may one"),
    ):
        found = hints(said.split(), ["$OOV_NUMERIC_SEQUENCE"])
        assert " ".join(one.text for one in found) == written
    found = hints(["call", "one", "two", "now"], ["call $OOV_NUMERIC_SEQUENCE"])
    assert found[1] == Word("12", 1, 3)


@pytest.mark.grammars
def test_hints_come_before_inverse_normalisation(tmp_path: Path) -> None:
    """What a hint has written is no longer read as numbers; the rest is."""
    write = Writer(SpeechHints(write_hints(tmp_path)), InverseNormaliser(*write_itn(tmp_path)))
    asked = RequestOptions(boosts=(Boost("code $OOV_ALPHA_NUMERIC_SEQUENCE", 10),))

    words = write(spoken("code one two costs twenty three dollars"), asked, is_final=True)

    assert read(words) == "code 12 costs $23"
    assert (words[1].start_ms, words[1].end_ms) == (100, 300)
    assert (words[3].start_ms, words[3].end_ms) == (400, 700)


@pytest.mark.grammars
@pytest.mark.parametrize("word", ["x[y]\\", "caf\u00e0", "n\u011b", "\u4f60"])
def test_hints_pass_over_words_of_any_script(hints: SpeechHints, word: str) -> None:
    """A word that no phrase asks for hinders none, whatever it is written in."""
    assert [one.text for one in hints([word, "may"], ["$MONTH"])] == [word, "May"]


@pytest.mark.grammars
def test_hostile_phrases_do_no_harm(hints: SpeechHints) -> None:
    """Brackets, null bytes, long words and thousands of phrases are only phrases."""
    odd = ["[x] $MONTH", "\0 $MONTH", "\\ ] $MONTH", "ä" * 1000 + " $MONTH"]
    many = [f"in {number} $MONTH" for number in range(5000)]

    written = hints(["in", "may"], [*odd, "in $MONTH", *many])

    assert [one.text for one in written] == ["in", "May"]
    assert len(hints.relevant(many)) == 100
    assert hints.relevant(["$MONTH " * 4, "$MONTH " * 5]) == ("$MONTH " * 4,)


def test_a_phrase_s_words_are_told_from_its_classes() -> None:
    """Only words can be listened for."""
    assert literal_parts("my code is $A b $C") == ["my code is", "b"]
    assert literal_parts("$A") == []


def test_profane_words_keep_their_first_letter() -> None:
    """Case and punctuation do not hide a word; phrases and parts of words are told apart."""
    mask = ProfanityFilter(["darn", "son of a gun", ""])

    assert mask(["Darn,", "you", "darned", "son", "of", "a", "gun"]) == (
        ["D***,", "you", "darned", "s**", "o*", "a", "g**"]
    )
    assert mask([]) == []


def test_masks_are_asked_for_and_leave_times() -> None:
    """Only requests that want it are filtered, partial results too."""
    write, words = Writer(profanity=ProfanityFilter(["darn"])), spoken("oh darn")
    asked = RequestOptions(profanity_filter=True, verbatim=True)

    assert read(write(words, RequestOptions(), is_final=True)) == "oh darn"
    for is_final in (True, False):
        masked = write(words, asked, is_final=is_final)
        assert read(masked) == "oh d***"
        assert masked[1].start_ms == 100


@pytest.mark.parametrize(
    ("text", "count", "ranges"),
    [
        ("a b", 2, [(0, 1), (1, 2)]),
        ("a b", 3, [(0, 2), (1, 3)]),
        ("a b c", 1, [(0, 1), (0, 1), (0, 1)]),
        ("a", 4, [(0, 4)]),
    ],
)
def test_words_share_a_range(text: str, count: int, ranges: list[tuple[int, int]]) -> None:
    """Every word of a rewritten range stands for at least one word, and all for the whole."""
    assert [(one.first - 5, one.last - 5) for one in spread(text, 5, 5 + count)] == ranges


@pytest.mark.grammars
@pytest.mark.parametrize("content", [b"", b"hello", b"\\\xf3\xb2~" + bytes(40)])
def test_a_file_that_is_no_far_is_refused(tmp_path: Path, content: bytes) -> None:
    """Empty, foreign and cut files are damaged archives, each by its name."""
    path = tmp_path / "some.far"
    path.write_bytes(content)

    with pytest.raises(DamagedArchiveError, match=r"some\.far"):
        grammars.read_far(path)


@pytest.mark.grammars
def test_a_far_without_the_grammar_is_refused(tmp_path: Path) -> None:
    """The two files of inverse normalisation cannot be confused."""
    tagger, verbaliser = write_itn(tmp_path)

    with pytest.raises(DamagedArchiveError, match="TOKENIZE_AND_CLASSIFY"):
        InverseNormaliser(verbaliser, tagger)
    with pytest.raises(DamagedArchiveError, match="no class"):
        SpeechHints(tagger)
