"""Decoders at build time: their options, and the files they bring into an RMIR."""

from __future__ import annotations

import argparse
import logging
from dataclasses import fields
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from riva_speech.asr import loading
from riva_speech.asr.decoder_config import (
    DECODERS,
    TRANSDUCER_DECODER,
    DecoderConfig,
    FlashlightConfig,
)
from riva_speech.errors import ArtifactMissingError, UnsupportedError, UsageError
from riva_speech.servicemaker.families import ctc
from riva_speech.servicemaker.pipelines.effects import add_refused, exactly, only
from riva_speech.servicemaker.pipelines.official import BATCH_SIZES
from riva_speech.text.lexicon import Lexicon
from riva_speech.text.spelling import Speller
from riva_speech.text.vocabulary import Vocabulary, VocabularyType

if TYPE_CHECKING:
    from collections.abc import Callable

    from riva_speech.archive import ArchiveReader
    from riva_speech.asr.pipeline import AcousticConfig

_log = logging.getLogger("riva_speech.riva_build")

# Decoders of the official tool that this one does not have, and why.
_REFUSED = {
    "os2s": "OpenSeq2Seq's decoder is gone from current releases too; use flashlight",
    "kaldi": "decoding with a WFST on a GPU is not in this version; use flashlight",
    "pass_through": "models that emit text themselves are not in this version; use a CTC, RNN-T or "
    "TDT model",
}
_FUSION = "language models for RNN-T and TDT are not in this version"
_NO_WORDS = "RNN-T and TDT choose among tokens, not among words"
_WITHOUT_FUSION = (
    "leave the option out: requests may boost phrases, and a CTC model, or a hybrid's CTC head, "
    "takes a language model by flashlight"
)
_KALDI = (
    "asr_model_delay",
    "default_beam",
    "max_active",
    "lattice_beam",
    "acoustic_scale",
    "word_insertion_penalty",
    "determinize_lattice",
    "max_batch_size",
)
_REFUSED_OPTIONS = {
    **{f"--kaldi_decoder.{name}": _REFUSED["kaldi"] for name in _KALDI},
    "--decoding_language_model_fst": _REFUSED["kaldi"],
    "--decoding_language_model_words": _REFUSED["kaldi"],
    "--nemo_decoder.language_model_alpha": f"{_FUSION}; {_WITHOUT_FUSION}",
    "--nemo_decoder.language_model_file": f"{_FUSION}; {_WITHOUT_FUSION}",
    "--os2s_decoder.beam_search_width": _REFUSED["os2s"],
    "--os2s_decoder.language_model_alpha": _REFUSED["os2s"],
    "--os2s_decoder.language_model_beta": _REFUSED["os2s"],
}
_FILES = {
    "decoding_language_model_binary": "a KenLM file made by build_binary; with "
    "--flashlight_decoder.use_lexicon_free_decoding a model of tokens, else of words",
    "decoding_language_model_arpa": "the same as ARPA text",
    "decoding_vocab": "the words to choose from, one a line; the lexicon is made of them",
    "decoding_lexicon": "the lexicon itself, word<TAB>token token ...",
}
_HELP = {
    "lm_weight": "weight of the language model",
    "word_insertion_score": "added for each word",
    "beam_size": "paths kept after a step",
    "beam_size_token": "tokens tried for each path",
    "beam_threshold": "paths this much worse than the best are dropped",
    "blank_penalty": "nats by which blanks are less likely, where too few words are found",
    "num_tokenization": "spellings of a boosted word that the lexicon lacks",
    "use_lexicon_free_decoding": "find any sequence of tokens, not only words of a lexicon",
}
_ALONE = "each stream is decoded by itself"
_KENLM = b"mmap lm http://kheafield.com/code"


def add_arguments(parser: argparse.ArgumentParser, boolean: Callable[[str], bool]) -> None:
    """Declare the options of decoders."""
    parser.add_argument(
        "--decoder_type",
        type=_decoder_type,
        metavar="{" + ",".join(DECODERS) + "}",
        help=f"how words are found; {', '.join(_REFUSED)} are refused (default: {DECODERS[0]}; "
        f"{TRANSDUCER_DECODER} for RNN-T and TDT models, which have no other)",
    )
    parser.add_argument(
        "--decoder_fallback",
        choices=[DECODERS[0]],
        default="",
        help="what decodes where the library of --decoder_type is not installed; the server says "
        "so in its log (default: nothing, such a server refuses the model)",
    )
    for name, text in _FILES.items():
        parser.add_argument(f"--{name}", type=Path, metavar="FILE", help=f"{text} (default: none)")
    for kind in DECODERS:
        parser.add_argument(
            f"--{kind}_decoder.asr_model_delay",
            type=int,
            default=0,
            metavar="STEPS",
            help="shift of word times (default: %(default)s)",
        )
    _add_flashlight(parser, boolean)
    for option, reason in _REFUSED_OPTIONS.items():
        add_refused(parser, option, reason)


def _add_flashlight(parser: argparse.ArgumentParser, boolean: Callable[[str], bool]) -> None:
    for field in fields(FlashlightConfig):
        is_switch = isinstance(field.default, bool)
        parser.add_argument(
            f"--flashlight_decoder.{field.name}",
            type=boolean if is_switch else type(field.default),
            nargs="?" if is_switch else None,
            const=True if is_switch else None,
            default=field.default,
            metavar="BOOL" if is_switch else "N",
            help=f"{_HELP[field.name]} (default: %(default)s)",
        )
    for name in BATCH_SIZES:
        parser.add_argument(
            f"--flashlight_decoder.{name}",
            type=exactly(1, _ALONE),
            default=1,
            metavar="1",
            help=f"{only('1', _ALONE)} (default: %(default)s)",
        )


def _decoder_type(text: str) -> str:
    if text in _REFUSED:
        raise argparse.ArgumentTypeError(f"{text} is not supported: {_REFUSED[text]}")
    if text not in DECODERS:
        raise argparse.ArgumentTypeError(f"{text!r} is none of {', '.join(DECODERS)}")
    return text


def configure(options: argparse.Namespace, head: str) -> DecoderConfig:
    """Return the decoder that the options ask for, for a model with this head.

    Raises:
        UsageError: A value that no search can have, or options that do not go together.
        UnsupportedError: A language model for a transducer.
    """
    kind = options.decoder_type or (DECODERS[0] if head == "ctc" else TRANSDUCER_DECODER)
    if (kind == TRANSDUCER_DECODER) == (head == "ctc"):
        fitting = f"{DECODERS[0]} or flashlight" if head == "ctc" else TRANSDUCER_DECODER
        raise UsageError(
            f"--decoder_type={kind} does not decode a model with a {head} head",
            hint=f"use {fitting}",
        )
    _check(options, head)
    names = [field.name for field in fields(FlashlightConfig)]
    values = {name: getattr(options, f"flashlight_decoder.{name}") for name in names}
    try:
        flashlight = FlashlightConfig(**values)
    except ValueError as error:
        raise UsageError(f"--flashlight_decoder: {error}") from error
    delay = getattr(options, f"{kind}_decoder.asr_model_delay")
    return DecoderConfig(kind, delay, options.decoder_fallback, flashlight)


def _check(options: argparse.Namespace, head: str) -> None:
    given = [name for name in _FILES if getattr(options, name)]
    if given and head != "ctc":
        reason = _FUSION if "language_model" in given[0] else _NO_WORDS
        raise UnsupportedError(f"--{given[0]}: {reason}", hint=_WITHOUT_FUSION)
    if options.decoder_type != "flashlight":
        if given:
            raise UsageError(f"--{given[0]} needs --decoder_type=flashlight")
        return
    if all(getattr(options, f"decoding_language_model_{one}") for one in ("binary", "arpa")):
        raise UsageError("one language model is enough: --decoding_language_model_binary or _arpa")
    words = options.decoding_lexicon or options.decoding_vocab
    free = getattr(options, "flashlight_decoder.use_lexicon_free_decoding")
    if bool(words) == bool(free):
        raise UsageError(
            "flashlight takes its words from one of --decoding_vocab, --decoding_lexicon and "
            "--flashlight_decoder.use_lexicon_free_decoding",
            hint="--decoding_vocab=FILE has one word a line",
        )


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
