"""Options of the official riva-build that this one records, or takes without effect, or refuses.

None of them changes what is recognised: those that would, work or are refused.
"""

from __future__ import annotations

import argparse
import logging
from typing import TYPE_CHECKING, Any

from riva_speech.errors import DamagedArchiveError, UsageError
from riva_speech.servicemaker import batches
from riva_speech.servicemaker.pipelines.effects import add_refused, exactly, no_effect, only

if TYPE_CHECKING:
    from collections.abc import Callable

_log = logging.getLogger("riva_speech.riva_build")

# What the official tool lets one set for each of its parts.
BATCH_SIZES = ("min_batch_size", "opt_batch_size", "max_batch_size", "max_execution_batch_size")

# What riva-deploy reads from the RMIR, for engines and for Triton.
_RECORDED_NUMBERS = {
    "max_batch_size": "streams or utterances at once",
    "nn.opt_batch_size": "batch that the acoustic model is tuned for",
    "nn.max_batch_size": "largest batch of the acoustic model",
}
_RECORDED_SWITCHES = {"nn.use_trt_fp32": "no FP16 where TensorRT is used"}

_STREAMS_ALONE = "features are computed for each stream by itself"
_NOTHING_CUT = "utterances are cut between tokens, so there are no blanks to keep around them"
_IDLE_NUMBERS = {
    "nn.min_batch_size": "every model takes one request too",
    **{f"featurizer.{name}": _STREAMS_ALONE for name in BATCH_SIZES},
    **{
        f"endpointing.{name}": "endpoints are found for each stream by itself"
        for name in BATCH_SIZES
    },
    "endpointing.residue_blanks_at_start": _NOTHING_CUT,
    "endpointing.residue_blanks_at_end": _NOTHING_CUT,
    "vad.residue_blanks_at_start": _NOTHING_CUT,
    "decoder_chunk_size": "decoders take what the acoustic model gives, as it comes",
}
_IDLE_SWITCHES = {
    "nn.fp16_needs_obey_precision_pass": "what FP16 cannot hold is kept in FP32 in any case",
    "nemo_decoder.use_stateful_decoding": "streams keep the state of their decoder in any case",
}
_NO_EFFECT = {**_IDLE_NUMBERS, **_IDLE_SWITCHES}

_SPEAKERS = "telling speakers apart is not in this version; leave the option out"
_REFUSED = {
    "diarization_type": _SPEAKERS,
    "diarization_model": _SPEAKERS,
    **{
        f"sortformer_diarizer.{name}": _SPEAKERS
        for name in ("min_speakers", "max_speakers", "speaker_label_coverage")
    },
}
_ENDPOINTING_TYPES = ("greedy_ctc", "niva")

_NO_STATISTICS = "checkpoints hold no statistics"
# Switches that are what they are, with the value that says so.
_FIXED = {
    "return_separate_utterances": (
        False,
        "a recording gives one result, and a stream one for each utterance",
    ),
    "unified_acoustic_model": (
        True,
        "what the model writes, case and punctuation too, is kept as it is",
    ),
    "featurizer.precalc_norm_params": (False, _NO_STATISTICS),
}


def add_arguments(parser: argparse.ArgumentParser, boolean: Callable[[str], bool]) -> None:
    """Declare the options."""
    for name, text in _RECORDED_NUMBERS.items():
        parser.add_argument(
            f"--{name}",
            type=_positive,
            metavar="N",
            help=f"{text} (default: riva-deploy's own)",
        )
    for name, text in _RECORDED_SWITCHES.items():
        _add_switch(parser, name, boolean, f"{text} (default: False)", default=False)
    parser.add_argument(
        "--endpointing_type",
        choices=_ENDPOINTING_TYPES,
        help="both count blank steps: greedy_ctc those of CTC models, niva those of RNN-T and TDT "
        "(default: the one that fits)",
    )
    _add_features(parser, boolean)
    for name, (value, reason) in _FIXED.items():
        text = f"{only(str(value), reason)} (default: {value})"
        _add_switch(parser, name, _either(value, boolean, reason), text)
    for name, reason in _IDLE_NUMBERS.items():
        parser.add_argument(f"--{name}", type=float, metavar="N", help=no_effect(reason))
    for name, reason in _IDLE_SWITCHES.items():
        _add_switch(parser, name, boolean, no_effect(reason))
    for name, reason in _REFUSED.items():
        add_refused(parser, f"--{name}", reason)


def _add_features(parser: argparse.ArgumentParser, boolean: Callable[[str], bool]) -> None:
    _add_switch(
        parser,
        "featurizer.use_utterance_norm_params",
        boolean,
        "True for whole utterances alone: a stream is normalised over its buffer, as NeMo does "
        "(default: what fits)",
    )
    parser.add_argument(
        "--featurizer.precalc_norm_time_steps",
        type=exactly(0, _NO_STATISTICS),
        metavar="0",
        help=f"{only('0', _NO_STATISTICS)} (default: 0)",
    )


def _add_switch(
    parser: argparse.ArgumentParser,
    name: str,
    boolean: Callable[[str], bool],
    text: str,
    *,
    default: bool | None = None,
) -> None:
    """Declare an option that is a switch, or takes True or False."""
    parser.add_argument(
        f"--{name}",
        type=boolean,
        nargs="?",
        const="True",
        default=default,
        metavar="BOOL",
        help=text,
    )


def _either(
    fixed: bool,  # noqa: FBT001 - the value of the option
    boolean: Callable[[str], bool],
    reason: str,
) -> Callable[[str], bool]:
    """Return what reads a switch that may have one value only."""

    def read(text: str) -> bool:
        """Return the one value; the other is an ``ArgumentTypeError``."""
        if boolean(text) != fixed:
            raise argparse.ArgumentTypeError(f"{text} is not supported: {reason}")
        return fixed

    return read


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a positive number")
    return int(text)


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
    names = [*_RECORDED_NUMBERS, *_RECORDED_SWITCHES]
    return {name: value for name in names if (value := getattr(options, name))}
