"""Converting a checkpoint: what it is, which of its heads to take, and the archive it becomes."""

from __future__ import annotations

import logging
import tempfile
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from riva_speech.archive import open_archive, refuse_overwrite, write_archive
from riva_speech.errors import UnsupportedError, UsageError
from riva_speech.servicemaker import checkpoint
from riva_speech.servicemaker.families import models

if TYPE_CHECKING:
    from riva_speech.asr.streaming_config import AttentionContext
    from riva_speech.servicemaker.checkpoint import Checkpoint
    from riva_speech.servicemaker.families.ctc import Export

HEADS = ("ctc", "rnnt")

_log = logging.getLogger("riva_speech.nemo2riva")
_MODELS = "nemo.collections.asr.models"
_TRANSDUCER = "rnnt"  # RNN-T and TDT alike, as in NeMo's own decoder_type


@dataclass(frozen=True)
class ConvertOptions:
    """What a conversion is asked for.

    ``decoder`` is the head of a hybrid to take, ``ctc`` or ``rnnt``; ``max_dim`` the longest input
    in feature frames; ``format`` what NVIDIA's tool would write; ``offline_context`` how far whole
    utterances of a cache-aware model look, in encoder steps.
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
    offline_context: AttentionContext | None = None


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
    has: tuple[str, ...] = HEADS
    if class_name in models.CTC_CLASSES:
        has = ("ctc",)
    elif class_name in models.TRANSDUCER_CLASSES:
        has = (_TRANSDUCER,)
    prefers_transducer = options.format == "NEMO" and _TRANSDUCER in has
    head = options.decoder or (_TRANSDUCER if prefers_transducer else has[0])
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
    if options.offline_context:
        words += ["--offline-context", *map(str, options.offline_context)]
    return " ".join(words)


def _export(source: Checkpoint, folder: Path, head: str, options: ConvertOptions) -> Export:
    if find_spec("nemo") is None:
        raise UnsupportedError(
            "nemo2riva needs NeMo, which is not installed",
            hint="pip install 'riva-qs[nemo]', or take the image that"
            " `riva-qs image build --variant servicemaker` makes",
        )
    _quiet_telemetry()
    from riva_speech.servicemaker.families import ctc, transducer  # noqa: PLC0415 - as NeMo

    family = transducer if head == _TRANSDUCER else ctc
    result = family.export(
        source,
        folder,
        ctc.ExportOptions(
            options.device,
            options.onnx_opset,
            options.max_dim,
            options.runtime_check,
            options.offline_context,
        ),
    )
    _log.info("Architecture: %s", result.summary)
    return result


def _quiet_telemetry() -> None:
    """Keep the notices of NeMo's telemetry, which is off, out of this program's log."""
    logging.getLogger("nv_one_logger").setLevel(logging.CRITICAL)
