"""Options of the official riva-build that this one records, or takes without effect, or refuses.

None of them changes what is recognised: those that would, work or are refused.
"""

from __future__ import annotations

import argparse
import logging
from typing import TYPE_CHECKING, Any

from riva_speech.errors import DamagedArchiveError, UsageError
from riva_speech.servicemaker import batches

if TYPE_CHECKING:
    from collections.abc import Callable

_log = logging.getLogger("riva_speech.riva_build")

_BATCHES = ("min_batch_size", "opt_batch_size", "max_batch_size", "max_execution_batch_size")

# Numbers for engines and for Triton: riva-deploy reads them from the RMIR.
RECORDED_NUMBERS = {
    "max_batch_size": "streams or utterances at once",
    "nn.min_batch_size": "recorded only, since every model takes one request too",
    "nn.opt_batch_size": "batch that the acoustic model is tuned for",
    "nn.max_batch_size": "largest batch of the acoustic model",
}
RECORDED_SWITCHES = {
    "nn.fp16_needs_obey_precision_pass": "keep what FP16 cannot hold in FP32, where FP16 is used",
    "nn.use_trt_fp32": "no FP16 where TensorRT is used",
}

_STREAMS_ALONE = "features are computed for each stream by itself"
_NOTHING_CUT = "utterances are cut between tokens, so there are no blanks to keep around them"
_NO_EFFECT = {
    **{f"featurizer.{name}": _STREAMS_ALONE for name in _BATCHES},
    **{f"endpointing.{name}": "endpoints are found for each stream by itself" for name in _BATCHES},
    "endpointing.residue_blanks_at_start": _NOTHING_CUT,
    "endpointing.residue_blanks_at_end": _NOTHING_CUT,
    "vad.residue_blanks_at_start": _NOTHING_CUT,
    "decoder_chunk_size": "decoders take what the acoustic model gives, as it comes",
}

_SPEAKERS = "telling speakers apart is not in this version"
REFUSED = {
    "diarization_type": _SPEAKERS,
    "diarization_model": _SPEAKERS,
    **{
        f"sortformer_diarizer.{name}": _SPEAKERS
        for name in ("min_speakers", "max_speakers", "speaker_label_coverage")
    },
}
_ENDPOINTING_TYPES = ("greedy_ctc", "niva")


def add_arguments(parser: argparse.ArgumentParser, boolean: Callable[[str], bool]) -> None:
    """Declare the options."""
    for name, text in RECORDED_NUMBERS.items():
        parser.add_argument(
            f"--{name}",
            type=_positive,
            metavar="N",
            help=f"{text} (default: riva-deploy's own)",
        )
    for name, text in RECORDED_SWITCHES.items():
        _add_switch(parser, name, boolean, f"{text} (default: False)", default=False)
    _add_features(parser, boolean)
    for name, value in (("return_separate_utterances", False), ("unified_acoustic_model", True)):
        _add_switch(parser, name, boolean, _FIXED[name], default=None, only=value)
    parser.add_argument(
        "--endpointing_type",
        choices=_ENDPOINTING_TYPES,
        help="both count blank steps: greedy_ctc those of CTC models, niva those of RNN-T and TDT "
        "(default: the one that fits)",
    )
    for name, reason in _NO_EFFECT.items():
        parser.add_argument(f"--{name}", type=float, metavar="N", help=f"no effect: {reason}")
    for name, reason in REFUSED.items():
        add_refused(parser, f"--{name}", reason)


_FIXED = {
    "return_separate_utterances": "False only: a recording gives one result, a stream one for each "
    "utterance (default: False)",
    "unified_acoustic_model": "no effect: what the model writes, case and punctuation too, is kept "
    "as it is (default: True)",
}


def _add_features(parser: argparse.ArgumentParser, boolean: Callable[[str], bool]) -> None:
    _add_switch(
        parser,
        "featurizer.use_utterance_norm_params",
        boolean,
        "True only for whole utterances: a stream is normalised over its buffer, as NeMo does "
        "(default: what fits)",
        default=None,
    )
    _add_switch(
        parser,
        "featurizer.precalc_norm_params",
        boolean,
        "False only: checkpoints hold no statistics (default: False)",
        default=False,
        only=False,
    )
    parser.add_argument(
        "--featurizer.precalc_norm_time_steps",
        type=_zero,
        default=0,
        metavar="0",
        help="0 only: checkpoints hold no statistics (default: 0)",
    )


def _add_switch(
    parser: argparse.ArgumentParser,
    name: str,
    boolean: Callable[[str], bool],
    text: str,
    *,
    default: bool | None,
    only: bool | None = None,
) -> None:
    """Declare an option that is a switch, or takes True or False; maybe ``only`` one of them."""

    def read(value: str) -> bool:
        chosen = boolean(value)
        if only is not None and chosen != only:
            raise argparse.ArgumentTypeError(f"{value} is not supported: {text}")
        return chosen

    parser.add_argument(
        f"--{name}", type=read, nargs="?", const="True", default=default, metavar="BOOL", help=text
    )


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a positive number")
    return int(text)


def _zero(text: str) -> int:
    if text != "0":
        raise argparse.ArgumentTypeError("only 0 is supported: checkpoints hold no statistics")
    return 0


def add_refused(parser: argparse.ArgumentParser, option: str, reason: str) -> None:
    """Declare an option of the official tool that is an error here."""

    def refuse(_: str) -> str:
        raise argparse.ArgumentTypeError(f"not supported: {reason}")

    parser.add_argument(
        option, type=refuse, nargs="?", const="", metavar="X", help=f"refused: {reason}"
    )


def check(options: argparse.Namespace, head: str) -> None:
    """Check what depends on the model, and say what has no effect.

    Raises:
        UsageError: A value that does not fit.
    """
    fitting = _ENDPOINTING_TYPES[head != "ctc"]
    if options.endpointing_type not in (None, fitting):
        raise UsageError(
            f"--endpointing_type={options.endpointing_type} is not for a {head} head",
            hint=f"it is {fitting} here, and need not be given",
        )
    whole = getattr(options, "featurizer.use_utterance_norm_params")
    if whole and (options.streaming or not options.offline):
        raise UsageError(
            "--featurizer.use_utterance_norm_params=True is for whole utterances: nobody knows the "
            "whole of a stream before its end"
        )
    _check_batches(options)
    for name, reason in _NO_EFFECT.items():
        if getattr(options, name) is not None:
            _log.info("--%s has no effect: %s", name, reason)


def _check_batches(options: argparse.Namespace) -> None:
    """Refuse what riva-deploy would."""
    try:
        batches.of_engine(recorded(options))
    except DamagedArchiveError as error:
        raise UsageError(
            error.message, hint="the usual size is --nn.opt_batch_size, at most the largest"
        ) from error


def recorded(options: argparse.Namespace) -> dict[str, Any]:
    """Return what riva-deploy is to know of engines and batches; names as the options'."""
    names = [*RECORDED_NUMBERS, *RECORDED_SWITCHES]
    return {name: value for name in names if (value := getattr(options, name))}
