"""What happens to the words of a transcript: options at build time, and the files they bring."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from riva_speech.asr import writer
from riva_speech.asr.pipeline import VERBATIM, TextConfig
from riva_speech.errors import ArtifactMissingError, UsageError
from riva_speech.text import grammars
from riva_speech.text.hints import SpeechHints
from riva_speech.text.inverse_normalisation import InverseNormaliser
from riva_speech.text.profanity import ProfanityFilter

if TYPE_CHECKING:
    import argparse

_log = logging.getLogger("riva_speech.riva_build")

_TAGGER, _VERBALISER = "wfst_tokenizer_model", "wfst_verbalizer_model"
_HINTS, _PROFANE = "speech_hints_model", "profane_words_file"
# Each option's file in a deployed pipeline.
_FILES = {
    _TAGGER: writer.TAGGER_FILE,
    _VERBALISER: writer.VERBALISER_FILE,
    _HINTS: writer.HINTS_FILE,
    _PROFANE: writer.PROFANITY_FILE,
}
_HELP = {
    _TAGGER: "grammar that finds numbers, dates and the like (tokenize_and_classify.far); finals "
    "are then written as one would write them, unless a request wants them verbatim",
    _VERBALISER: "grammar that writes what was found (verbalize.far)",
    _HINTS: "grammars of the classes that a phrase of speech_contexts may name, such as $MONEY",
    _PROFANE: "words and phrases, one a line, to mask where a request wants that",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    for name, text in _HELP.items():
        parser.add_argument(f"--{name}", type=Path, metavar="FILE", help=f"{text} (default: none)")
    parser.add_argument(
        "--wfst_fallback",
        choices=[VERBATIM],
        default="",
        help="how to write where pynini, which runs the grammars, is not installed; the server "
        "says so in its log (default: nothing, such a server refuses the model)",
    )


def configure(options: argparse.Namespace) -> TextConfig:
    """Return what the options ask for.

    Raises:
        UsageError: One grammar of two is missing.
    """
    tagger, verbaliser = getattr(options, _TAGGER), getattr(options, _VERBALISER)
    if bool(tagger) != bool(verbaliser):
        given, missing = (_TAGGER, _VERBALISER) if tagger else (_VERBALISER, _TAGGER)
        raise UsageError(f"--{given} needs --{missing}", hint="they are exported as a pair")
    return TextConfig(
        inverse_normalisation=bool(tagger),
        speech_hints=bool(getattr(options, _HINTS)),
        profane_words=bool(getattr(options, _PROFANE)),
        fallback=options.wfst_fallback,
    )


def artifacts(options: argparse.Namespace) -> dict[str, Path]:
    """Return the files that the options name, by the names that a deployed pipeline has.

    Raises:
        ArtifactMissingError: A file is not there.
        UsageError: It is not what the option takes.
        DamagedArchiveError: It is no file of grammars, or lacks the one that is needed.
    """
    found = {}
    for option, name in _FILES.items():
        path = getattr(options, option)
        if path is None:
            continue
        if not path.is_file():
            raise ArtifactMissingError(f"--{option}={path} is not there", hint="check the path")
        found[name] = path
    _check_words(found.get(writer.PROFANITY_FILE))
    _check_grammars(found)
    return found


def _check_words(path: Path | None) -> None:
    if path is None:
        return
    try:
        path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UsageError(f"--{_PROFANE}={path} is no text: {error.reason}") from error
    if not len(ProfanityFilter.load(path)):
        raise UsageError(f"--{_PROFANE}={path} has no word", hint="write one a line")


def _check_grammars(found: dict[str, Path]) -> None:
    """Load grammars as a server would, where this machine can."""
    names = {writer.TAGGER_FILE, writer.VERBALISER_FILE, writer.HINTS_FILE} & found.keys()
    if not names:
        return
    if not grammars.is_available():
        _log.warning("The grammars are not checked: pynini is not installed here")
        return
    if writer.TAGGER_FILE in names:
        InverseNormaliser(found[writer.TAGGER_FILE], found[writer.VERBALISER_FILE])
    if writer.HINTS_FILE in names:
        classes = SpeechHints(found[writer.HINTS_FILE]).classes
        _log.info("Classes for speech hints: %s", ", ".join(classes))
