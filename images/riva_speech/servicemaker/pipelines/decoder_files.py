"""The files that a decoder brings into an RMIR: tokenizer, lexicon, language model."""

from __future__ import annotations

import logging
from importlib.util import find_spec
from typing import TYPE_CHECKING

from riva_speech.asr import loading
from riva_speech.errors import ArtifactMissingError, UnsupportedError, UsageError
from riva_speech.servicemaker.families import ctc
from riva_speech.text.lexicon import Lexicon
from riva_speech.text.spelling import Speller
from riva_speech.text.vocabulary import Vocabulary, VocabularyType

if TYPE_CHECKING:
    import argparse
    from pathlib import Path

    from riva_speech.archive import ArchiveReader
    from riva_speech.asr.pipeline import AcousticConfig

_log = logging.getLogger("riva_speech.riva_build")

_KENLM = b"mmap lm http://kheafield.com/code"


def artifacts(
    source: ArchiveReader, acoustic: AcousticConfig, options: argparse.Namespace, folder: Path
) -> dict[str, Path]:
    """Make the files of the decoder in ``folder``, by the names that a deployed pipeline has.

    Raises:
        ArtifactMissingError: A file that an option names is not there.
        UsageError: It is not what the option takes.
        UnsupportedError: The lexicon cannot be made from words for this model.
    """
    found = {}
    if ctc.TOKENIZER in source.names:
        # Servers spell the words of boosted phrases with it.
        found[loading.TOKENIZER_FILE] = folder / loading.TOKENIZER_FILE
        source.extract(ctc.TOKENIZER, found[loading.TOKENIZER_FILE])
    if options.decoder_type != "flashlight":
        return found
    model = options.decoding_language_model_binary or options.decoding_language_model_arpa
    if model:
        found[loading.LANGUAGE_MODEL_FILE] = _checked_model(model, options)
    source.extract(ctc.VOCABULARY, folder / ctc.VOCABULARY)
    vocabulary = Vocabulary.load(folder / ctc.VOCABULARY, acoustic.vocabulary_type)
    if options.decoding_lexicon:
        found[loading.LEXICON_FILE] = _checked_lexicon(options.decoding_lexicon, vocabulary)
    elif options.decoding_vocab:
        found[loading.LEXICON_FILE] = folder / loading.LEXICON_FILE
        words = _read_words(options.decoding_vocab)
        lexicon = _spell(words, vocabulary, source, folder)
        lexicon.save(folder / loading.LEXICON_FILE, vocabulary)
    return found


def _checked_model(path: Path, options: argparse.Namespace) -> Path:
    with _existing(path).open("rb") as file:
        begin = file.read(256)
    is_binary = begin.startswith(_KENLM)
    if not is_binary and not begin.lstrip().startswith(b"\\data\\"):
        raise UsageError(
            f"{path} is neither a KenLM binary nor an ARPA file",
            hint="make one with KenLM's lmplz and build_binary",
        )
    if is_binary != bool(options.decoding_language_model_binary):
        right = "binary" if is_binary else "arpa"
        raise UsageError(f"{path} is to be given as --decoding_language_model_{right}")
    return path


def _checked_lexicon(path: Path, vocabulary: Vocabulary) -> Path:
    try:
        words = Lexicon.load(_existing(path), vocabulary).words
    except ValueError as error:
        raise UsageError(f"--decoding_lexicon={path}: {error}") from error
    if not words:
        raise UsageError(f"--decoding_lexicon={path} has no word")
    return path


def _read_words(path: Path) -> list[str]:
    try:
        lines = _existing(path).read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise UsageError(f"--decoding_vocab={path} is no text: {error.reason}") from error
    words = list(dict.fromkeys(line.strip() for line in lines if line.strip()))
    if bad := [word for word in words if len(word.split()) > 1]:
        raise UsageError(f"--decoding_vocab={path} has one word a line, not {bad[0]!r}")
    return words


def _spell(
    words: list[str], vocabulary: Vocabulary, source: ArchiveReader, folder: Path
) -> Lexicon:
    """Spell words as the model's tokenizer does; those with a letter it lacks are left out."""
    tokenizer = None
    if vocabulary.type is VocabularyType.SENTENCEPIECE:
        tokenizer = _tokenizer(source, folder)
    tokenize = Speller(vocabulary, tokenizer).own
    spelt = [(word, tokenize(word)) for word in words]
    entries = tuple((word, tokens) for word, tokens in spelt if tokens)
    if len(entries) < len(words):
        left_out = [word for word, tokens in spelt if not tokens]
        _log.warning(
            "%d of %d words cannot be spelt with the model's tokens, such as %s",
            len(left_out),
            len(words),
            left_out[0],
        )
    if not entries:
        raise UsageError("--decoding_vocab has no word that the model's tokens can spell")
    return Lexicon(entries)


def _tokenizer(source: ArchiveReader, folder: Path) -> Path:
    if find_spec("sentencepiece") is None:
        raise UnsupportedError(
            "--decoding_vocab needs sentencepiece for this model, which is not installed",
            hint="pip install sentencepiece, or give the spellings with --decoding_lexicon",
        )
    if ctc.TOKENIZER not in source.names:
        raise UnsupportedError(
            f"{source.path} holds no tokenizer, which --decoding_vocab needs",
            hint="convert the checkpoint again, or give the spellings with --decoding_lexicon",
        )
    return folder / loading.TOKENIZER_FILE


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise ArtifactMissingError(f"there is no file {path}", hint="check the path")
    return path
