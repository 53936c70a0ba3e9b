"""Decoders at build time: their options, and which of them go together."""

from __future__ import annotations

import argparse
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING

from riva_speech.asr.decoder_config import (
    DECODERS,
    TRANSDUCER_DECODER,
    DecoderConfig,
    FlashlightConfig,
)
from riva_speech.asr.pipeline import ONLINE
from riva_speech.errors import UnsupportedError, UsageError
from riva_speech.servicemaker.pipelines.effects import add_refused, exactly, only
from riva_speech.servicemaker.pipelines.official import BATCH_SIZES

if TYPE_CHECKING:
    from collections.abc import Callable

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
    "unk_score": "added for a word that the lexicon lacks, which is written as far as its tokens "
    "begin one of it; -inf writes none",
    "num_tokenization": "spellings of a boosted word that the lexicon lacks",
    "use_lexicon_free_decoding": "find any sequence of tokens, not only words of a lexicon",
}
_OF_STREAMS = "streaming.flashlight_decoder"
_ALONE = "each stream is decoded by itself"


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
        # Both pipelines have the same files, so both have words or neither.
        if not is_switch:
            parser.add_argument(
                f"--{_OF_STREAMS}.{field.name}",
                type=type(field.default),
                metavar="N",
                help="the same for streams (default: that of the option above)",
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


def configure(options: argparse.Namespace, head: str, kind: str) -> DecoderConfig:
    """Return the decoder that the options ask for.

    Args:
        options: As they were read.
        head: The model's, such as ``ctc``.
        kind: ``online`` or ``offline``, as the pipeline is.

    Raises:
        UsageError: A value that no search can have, or options that do not go together.
        UnsupportedError: A language model for a transducer.
    """
    chosen = options.decoder_type or (DECODERS[0] if head == "ctc" else TRANSDUCER_DECODER)
    if (chosen == TRANSDUCER_DECODER) == (head == "ctc"):
        fitting = f"{DECODERS[0]} or flashlight" if head == "ctc" else TRANSDUCER_DECODER
        raise UsageError(
            f"--decoder_type={chosen} does not decode a model with a {head} head",
            hint=f"use {fitting}",
        )
    _check(options, head)
    delay = getattr(options, f"{chosen}_decoder.asr_model_delay")
    return DecoderConfig(chosen, delay, options.decoder_fallback, _flashlight(options, kind))


def _flashlight(options: argparse.Namespace, kind: str) -> FlashlightConfig:
    """Return how flashlight searches in a pipeline of a kind."""
    names = [field.name for field in fields(FlashlightConfig)]
    values = {name: getattr(options, f"flashlight_decoder.{name}") for name in names}
    if kind == ONLINE:
        values |= _of_streams(options)
    try:
        return FlashlightConfig(**values)
    except ValueError as error:
        raise UsageError(f"--flashlight_decoder: {error}") from error


def refuse_of_streams(options: argparse.Namespace) -> None:
    """Refuse what is said of streams alone, where none are built for.

    Raises:
        UsageError: An option says something of them.
    """
    for name in _of_streams(options):
        raise UsageError(
            f"--{_OF_STREAMS}.{name} is for streams, and none are built for",
            hint="add --streaming=True, or leave the option out",
        )


def _of_streams(options: argparse.Namespace) -> dict[str, float]:
    """Return what is said of flashlight's search in streams alone."""
    names = [field.name for field in fields(FlashlightConfig)]
    values = {name: getattr(options, f"{_OF_STREAMS}.{name}", None) for name in names}
    return {name: value for name, value in values.items() if value is not None}


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
