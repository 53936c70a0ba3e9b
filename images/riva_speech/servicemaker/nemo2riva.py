"""``nemo2riva``: convert a NeMo checkpoint.

nemo2riva model.nemo --out model.riva [--key KEY]

The architecture is read from the checkpoint, and the command that spells out what follows from it
is printed. Options of NVIDIA's tool are there; what has no meaning here is refused by name.
"""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from riva_speech import __version__, program
from riva_speech.archive import (
    open_archive,
    refuse_overwrite,
    split_key,
    write_archive,
)
from riva_speech.errors import UnsupportedError, UsageError
from riva_speech.servicemaker import checkpoint
from riva_speech.servicemaker.families import models

if TYPE_CHECKING:
    from collections.abc import Sequence

    from riva_speech.servicemaker.checkpoint import Checkpoint
    from riva_speech.servicemaker.families.ctc import Export

_log = logging.getLogger("riva_speech.nemo2riva")
_MODELS = "nemo.collections.asr.models"
_DEFAULT_OPSET = 17
_HEADS = ("ctc", "rnnt")
_TRANSDUCER = "rnnt"  # RNN-T and TDT alike, as in NeMo's own decoder_type


@dataclass(frozen=True)
class ConvertOptions:
    """What a conversion is asked for.

    ``decoder`` is the head of a hybrid to take, ``ctc`` or ``rnnt``; ``max_dim`` the longest input
    in feature frames; ``format`` what NVIDIA's tool would write.
    """

    source: Path
    out: Path
    key: str | None
    force: bool
    device: str
    onnx_opset: int
    decoder: str | None = None
    max_dim: int | None = None
    format: str = "ONNX"
    runtime_check: bool = False
    validate: bool = False


def main(argv: Sequence[str] | None = None) -> None:
    """Run the program and exit with its code."""
    chosen = parse(sys.argv[1:] if argv is None else argv)
    program.start_logging(logging.DEBUG if chosen.verbose else logging.INFO)
    sys.exit(program.run(lambda: convert(options_of(chosen))))


def options_of(chosen: argparse.Namespace) -> ConvertOptions:
    """Return what a command line asks for.

    Raises:
        UsageError: Two different keys are given.
    """
    out, key = split_key(chosen.out) if chosen.out else (chosen.source, None)
    given = _read_key(chosen.key)
    if key and given and key != given:
        raise UsageError("--out and --key name different keys", hint="give one of them")
    return ConvertOptions(
        source=chosen.source,
        out=out.with_suffix(".riva"),
        key=key or given,
        force=chosen.force,
        device=chosen.device,
        onnx_opset=chosen.onnx_opset,
        decoder=_decoder(chosen),
        max_dim=chosen.max_dim,
        format=chosen.format,
        runtime_check=chosen.runtime_check,
        validate=chosen.validate,
    )


def _decoder(chosen: argparse.Namespace) -> str | None:
    """Return the head asked for, which NeMo's own ``--export-config`` can name too.

    Raises:
        UsageError: It is named in two ways that differ.
    """
    named: str | None = chosen.export_config.get("decoder_type")
    if named and chosen.decoder and named != chosen.decoder:
        raise UsageError("--decoder and --export-config decoder_type name different heads")
    decoder: str | None = chosen.decoder or named
    return decoder


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="nemo2riva", description="Convert a NeMo checkpoint (.nemo) to a .riva archive."
    )
    parser.add_argument("--version", action="version", version=f"nemo2riva {__version__}")
    parser.add_argument("source", type=Path, help="the .nemo file")
    parser.add_argument(
        "--out",
        metavar="OUT.riva[:KEY]",
        help="where to write; always ends in .riva (default: beside the source)",
    )
    parser.add_argument(
        "--key",
        help="encrypt with this key, or with that in the file of this name "
        "(default: no encryption)",
    )
    parser.add_argument("-f", "--force", action="store_true", help="replace an existing file")
    parser.add_argument("--verbose", action="store_true", help="say more")
    parser.add_argument(
        "--validate", action="store_true", help="read the archive back and check it"
    )
    parser.add_argument(
        "--runtime-check",
        action="store_true",
        help="run the graphs on noise and compare them with NeMo",
    )
    _add_export_arguments(parser)
    return parser.parse_args(argv)


def _add_export_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options that say how to export; most follow from the checkpoint."""
    parser.add_argument(
        "--decoder", choices=_HEADS, help="the head of a hybrid model (default: ctc)"
    )
    parser.add_argument(
        "--format",
        choices=["ONNX", "NEMO", "TS", "CKPT"],
        default="ONNX",
        type=str.upper,
        help="ONNX for every model; NEMO, which NVIDIA's tool wants for RNN-T and TDT, gives the "
        "same graphs; TS and CKPT are refused (default: %(default)s)",
    )
    parser.add_argument(
        "--onnx-opset", type=int, default=_DEFAULT_OPSET, help="ONNX opset (default: %(default)s)"
    )
    parser.add_argument(
        "--device", default="cpu", help="where to run the export: cpu or cuda (default: cpu)"
    )
    parser.add_argument(
        "--max-dim",
        type=_positive,
        metavar="FRAMES",
        help="longest input (default: what the checkpoint says; for convolutions 100000)",
    )
    parser.add_argument(
        "--max-batch", type=_positive, help="accepted and not needed: graphs take any batch"
    )
    parser.add_argument(
        "--cache-support",
        action="store_true",
        help="accepted and not needed: cache-aware models are always exported with their caches",
    )
    parser.add_argument(
        "--export-config",
        action=_ExportConfig,
        nargs="+",
        default={},
        metavar="KEY=VALUE",
        help="NeMo's export settings: decoder_type=ctc|rnnt, cache_support=True",
    )
    parser.add_argument(
        "--autocast",
        type=_autocast,
        nargs="?",
        const=True,
        help="False only: graphs are exported in full precision, and made smaller by riva-deploy",
    )
    for option, reason in _REFUSED.items():
        parser.add_argument(option, action=_Refused, nargs="?", help=f"refused: {reason}")


_REFUSED = {
    "--schema": "schemas describe NVIDIA's archives, and these have a manifest of their own",
    "--export-subnet": "a pipeline needs all graphs of a model, so all are exported",
}


class _Refused(argparse.Action):
    """An option of NVIDIA's tool that has no meaning here."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: object,
        option_string: str | None = None,
    ) -> None:
        del namespace, values
        assert option_string is not None  # it is no positional
        parser.error(f"{option_string} is not supported: {_REFUSED[option_string]}")


class _ExportConfig(argparse.Action):
    """Settings that NeMo's exporter would take."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: object,
        option_string: str | None = None,
    ) -> None:
        del option_string
        assert isinstance(values, list)  # nargs="+"
        settings = dict(getattr(namespace, self.dest))
        for value in values:
            key, _, text = str(value).partition("=")
            if (key, text) not in _EXPORT_SETTINGS:
                known = ", ".join("=".join(pair) for pair in _EXPORT_SETTINGS)
                parser.error(f"--export-config {value} is not supported; known are {known}")
            settings[key] = text
        setattr(namespace, self.dest, settings)


_EXPORT_SETTINGS = (("decoder_type", "ctc"), ("decoder_type", "rnnt"), ("cache_support", "True"))


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a positive number")
    return number


def _autocast(text: str | bool) -> bool:  # noqa: FBT001 - argparse gives either
    if str(text).lower() != "false":
        raise argparse.ArgumentTypeError(
            "autocast is not supported: graphs are exported in full precision, and riva-deploy "
            "chooses a smaller one where the result stays the same"
        )
    return False


def _read_key(given: str | None) -> str | None:
    """Return the key itself; what is given may be the name of a file that holds it."""
    if given and Path(given).is_file():
        return Path(given).read_text(encoding="utf-8").strip()
    return given or None


def convert(options: ConvertOptions) -> None:
    """Convert a checkpoint.

    Raises:
        UsageError: The output exists and ``force`` is not set, or an option does not fit the model.
        UnsupportedError: NeMo is not installed, or the architecture is not supported.
        SpeechError: The checkpoint is missing, damaged or hostile, or a check failed.
    """
    refuse_overwrite(options.out, force=options.force)
    with tempfile.TemporaryDirectory(prefix="nemo2riva-") as folder:
        unpacked, exported = Path(folder) / "checkpoint", Path(folder) / "export"
        unpacked.mkdir()
        exported.mkdir()
        source = checkpoint.unpack(options.source, unpacked)
        _log.info("%s is a %s", options.source, source.class_name)
        head = head_of(source.class_name, options)
        _log.info("Chosen for it: %s", equivalent(options, source.class_name, head))
        result = _export(source, exported, head, options)
        metadata = {
            "description": "Exported NeMo model",
            "obj_cls": f"{_MODELS}.{source.class_name}",
            "nemo_version": str(source.config.get("nemo_version", "unknown")),
            "architecture": result.summary,
            "runtime": "ONNX",
            "acoustic": result.acoustic.to_mapping(),
        }
        _log.info("Saving to %s", options.out)
        write_archive(
            options.out,
            kind="riva",
            metadata=metadata,
            sources=result.files,
            key=options.key,
            force=options.force,
        )
    if options.validate:
        _validate(options)
    _log.info("Model saved to %s", options.out)


def _validate(options: ConvertOptions) -> None:
    """Read every artefact back, which checks its hash."""
    with (
        tempfile.TemporaryDirectory(prefix="nemo2riva-") as folder,
        open_archive(options.out, kind="riva", key=options.key) as archive,
    ):
        for name in archive.names:
            archive.extract(name, Path(folder) / name)


def head_of(class_name: str, options: ConvertOptions) -> str:
    """Return the head to export: the model's own, or of a hybrid the one asked for.

    Raises:
        UnsupportedError: The model's class, or the format for it, is not supported.
        UsageError: The model does not have the head asked for.
    """
    if class_name not in models.CLASSES:
        raise UnsupportedError(
            f"models of the class {class_name or 'unknown'} are not supported"
            + _what_it_is(class_name),
            hint="supported are " + ", ".join(models.CLASSES),
        )
    has: tuple[str, ...] = _HEADS
    if class_name in models.CTC_CLASSES:
        has = ("ctc",)
    elif class_name in models.TRANSDUCER_CLASSES:
        has = (_TRANSDUCER,)
    wanted = _TRANSDUCER if options.format == "NEMO" else has[0]
    head = options.decoder or wanted
    if head not in has:
        raise UsageError(f"a {class_name} has no {head} head", hint=f"it has {has[0]}")
    _check_format(options.format, head)
    return head


# What people try most, and where it belongs.
_ELSEWHERE = {
    "EncDecMultiTaskModel": "Canary, an attention decoder",
    "EncDecTransfModelBPE": "an attention decoder",
    "EncDecSpeakerLabelModel": "speaker recognition",
    "EncDecClassificationModel": "speech classification or VAD",
    "EncDecFrameClassificationModel": "frame VAD",
    "SortformerEncLabelModel": "diarization",
    "SpeechEncDecSelfSupervisedModel": "self-supervised pre-training, without a vocabulary",
    "EncDecHybridRNNTCTCBPEModelWithPrompt": "a model with prompts",
    "EncDecRNNTBPEModelWithPrompt": "a model with prompts",
}


def _what_it_is(class_name: str) -> str:
    return f" ({_ELSEWHERE[class_name]})" if class_name in _ELSEWHERE else ""


def _check_format(name: str, head: str) -> None:
    if name in ("TS", "CKPT"):
        raise UnsupportedError(
            f"--format {name} is not supported: the server runs ONNX graphs only",
            hint="leave --format out",
        )
    if name == "NEMO":
        if head == "ctc":
            raise UnsupportedError(
                "--format NEMO is not supported for a CTC head: it is exported as ONNX",
                hint="leave --format out",
            )
        _log.info("--format NEMO: the server runs no NeMo, so the model is exported as ONNX graphs")


def equivalent(options: ConvertOptions, class_name: str, head: str) -> str:
    """Return the command line that spells out the choices made."""
    words = ["nemo2riva", options.source.name, "--format", "ONNX"]
    words += ["--onnx-opset", str(options.onnx_opset), "--device", options.device]
    if class_name in models.HYBRID_CLASSES:
        words += ["--decoder", head]
    if options.max_dim:
        words += ["--max-dim", str(options.max_dim)]
    return " ".join(words)


def _export(source: Checkpoint, folder: Path, head: str, options: ConvertOptions) -> Export:
    if find_spec("nemo") is None:
        raise UnsupportedError(
            "nemo2riva needs NeMo, which is not installed",
            hint="install the extra: pip install 'riva-qs[nemo]'",
        )
    _quiet_telemetry()
    from riva_speech.servicemaker.families import ctc, transducer  # noqa: PLC0415 - as NeMo

    family = transducer if head == _TRANSDUCER else ctc
    result = family.export(
        source,
        folder,
        ctc.ExportOptions(
            options.device, options.onnx_opset, options.max_dim, options.runtime_check
        ),
    )
    _log.info("Architecture: %s", result.summary)
    return result


def _quiet_telemetry() -> None:
    """Keep the notices of NeMo's telemetry, which is off, out of this program's log."""
    logging.getLogger("nv_one_logger").setLevel(logging.CRITICAL)


if __name__ == "__main__":
    main()
