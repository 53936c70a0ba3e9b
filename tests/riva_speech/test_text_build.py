"""Text processing from riva-build to a loaded pipeline."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from riva_speech.asr.loading import load_recognizers
from riva_speech.asr.options import Boost, RequestOptions
from riva_speech.asr.results import RecognisedWord
from riva_speech.asr.streaming import StreamingRecognizer
from riva_speech.asr.writer import Writer
from riva_speech.errors import UnsupportedError
from riva_speech.text import grammars
from support.audio import babble
from support.grammars import write_hints, write_itn
from support.programs import run, succeed

if TYPE_CHECKING:
    from pathlib import Path

BUILD = ("riva-build", "speech_recognition")


@pytest.fixture(scope="module")
def options(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """What riva-build is given for a pipeline with all of text processing."""
    folder = tmp_path_factory.mktemp("grammars")
    tagger, verbaliser = write_itn(folder)
    (folder / "profane.txt").write_text("darn\n")
    return [
        f"--wfst_tokenizer_model={tagger}",
        f"--wfst_verbalizer_model={verbaliser}",
        f"--speech_hints_model={write_hints(folder)}",
        f"--profane_words_file={folder / 'profane.txt'}",
    ]


def deployed(folder: Path, tiny_riva: Path, *options: str) -> Path:
    succeed(*BUILD, folder / "out.rmir", tiny_riva, "--offline", "--streaming=True", *options)
    succeed("riva-deploy", folder / "out.rmir", folder / "models")
    return folder / "models"


@pytest.mark.grammars
def test_a_deployed_pipeline_writes_as_it_was_built(
    tmp_path: Path, tiny_riva: Path, options: list[str]
) -> None:
    """Grammars and words travel in the RMIR, and both of its pipelines share what was loaded."""
    first, second = load_recognizers(deployed(tmp_path, tiny_riva, *options))
    said = ["darn", "twenty", "three", "dollars", "code", "one", "two"]
    words = tuple(RecognisedWord(one, 0, 100, 1.0) for one in said)
    boosts = (Boost("code $OOV_ALPHA_NUMERIC_SEQUENCE", 10.0),)
    asked = RequestOptions(profanity_filter=True, boosts=boosts)

    assert isinstance(first.results.write, Writer)
    assert isinstance(second.results.write, Writer)
    assert "$MONTH" in first.results.classes
    for recognizer in (first, second):
        written = recognizer.results.write(words, asked, is_final=True)
        assert [one.text for one in written] == ["d***", "$23", "code", "12"]
    assert first.results.write.normaliser is second.results.write.normaliser


@pytest.mark.grammars
def test_without_pynini_a_pipeline_is_refused_or_verbatim(
    tmp_path: Path,
    tiny_riva: Path,
    options: list[str],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Where the library is missing a server says so by name, or does what the build allows."""
    strict, lenient = tmp_path / "strict", tmp_path / "lenient"
    for folder, more in ((strict, []), (lenient, ["--wfst_fallback=verbatim"])):
        folder.mkdir()
        deployed(folder, tiny_riva, *options, *more)
    # The package is found here and cannot be taken away.
    monkeypatch.setattr(grammars, "is_available", lambda: False)

    monkeypatch.setattr(logging.getLogger("riva_speech"), "propagate", True)
    # NeMo's libraries, where a test before this one has loaded them, silence others' loggers.
    log = logging.getLogger("riva_speech.asr.writer")
    monkeypatch.setattr(log, "disabled", False)

    with pytest.raises(UnsupportedError, match="pynini"):
        load_recognizers(strict / "models")
    with caplog.at_level(logging.WARNING, logger=log.name):
        (recognizer, _) = load_recognizers(lenient / "models")
    assert "pynini is not installed" in caplog.text
    words = (RecognisedWord("one", 0, 100, 1.0), RecognisedWord("darn", 100, 200, 1.0))
    asked = RequestOptions(profanity_filter=True)
    written = recognizer.results.write(words, asked, is_final=True)
    assert [one.text for one in written] == ["one", "d***"]
    assert recognizer.results.classes == ()


@pytest.mark.parametrize(
    ("content", "code", "said"),
    [(None, 3, "is not there"), (b"\xff\xfe", 2, "no text"), (b" \n\n", 2, "no word")],
)
def test_a_list_of_profane_words_is_checked(
    tmp_path: Path, tiny_riva: Path, content: bytes | None, code: int, said: str
) -> None:
    """A missing, binary or empty list is told when the pipeline is built."""
    path = tmp_path / "words.txt"
    if content is not None:
        path.write_bytes(content)

    done = run(*BUILD, tmp_path / "out.rmir", tiny_riva, f"--profane_words_file={path}")

    assert done.returncode == code
    assert said in done.stderr
    assert not (tmp_path / "out.rmir").exists()


@pytest.mark.grammars
def test_a_grammar_is_checked_when_the_pipeline_is_built(
    tmp_path: Path, tiny_riva: Path, options: list[str]
) -> None:
    """Files given in each other's place are told before anything is written."""
    tagger, verbaliser, *_ = (one.split("=")[1] for one in options)
    swapped = (f"--wfst_tokenizer_model={verbaliser}", f"--wfst_verbalizer_model={tagger}")

    done = run(*BUILD, tmp_path / "out.rmir", tiny_riva, *swapped)

    assert done.returncode == 9
    assert "TOKENIZE_AND_CLASSIFY" in done.stderr
    assert not (tmp_path / "out.rmir").exists()


def test_what_a_request_wants_reaches_the_writer(tiny_repository: Path) -> None:
    """Utterances, streams, partial results and finals are all written as their request says."""
    asked = RequestOptions(verbatim=True, profanity_filter=True)
    seen: list[tuple[RequestOptions, bool]] = []

    class Shout:
        def changes(self, options: RequestOptions, *, is_final: bool) -> bool:
            seen.append((options, is_final))
            return True

        def __call__(
            self, words: tuple[RecognisedWord, ...], options: RequestOptions, *, is_final: bool
        ) -> tuple[RecognisedWord, ...]:
            seen.append((options, is_final))
            return tuple(word._replace(text=f"{word.text}!") for word in words)

    for recognizer in load_recognizers(tiny_repository):
        loud = replace(recognizer, results=replace(recognizer.results, write=Shout()))
        said = recognizer.recognize(babble(3.0), asked).transcript
        assert loud.recognize(babble(3.0), asked).transcript == said.replace(" ", "! ") + "!"
        if isinstance(loud, StreamingRecognizer):
            stream = loud.start(asked)
            results = [*stream.accept(babble(3.0)), stream.finish()]
            assert all(one.transcript.endswith("!") for one in results if one.words)

    kept = [(options.verbatim, options.profanity_filter) for options, _ in seen]
    assert set(kept) == {(True, True)}
    assert {is_final for _, is_final in seen} == {True, False}
