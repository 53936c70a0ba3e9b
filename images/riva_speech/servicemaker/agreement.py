"""How far an acoustic model with rounded weights is from the one it was made of."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from riva_speech.asr.acoustic import OfflineAcousticModel
from riva_speech.audio.encoding import AudioError
from riva_speech.audio.stream import DeclaredFormat, decode_all
from riva_speech.errors import ArtifactMissingError, SpeechError, UsageError
from riva_speech.sessions.onnx import OnnxSession

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from riva_speech.asr.acoustic import LogProbs
    from riva_speech.audio.features import LogMel, Samples

_log = logging.getLogger("riva_speech.riva_build")

# The largest share of steps whose best token may be another.
TOLERANCE = 0.03
_SECONDS_OF_NOISE = 4
_AUDIO = (".wav", ".flac")


@dataclass(frozen=True)
class Agreement:
    """Two models on the same sounds.

    ``largest`` and ``mean`` are absolute differences of log-probabilities that matter, those above
    one in a thousand; ``changed`` is the share of steps with another best token.
    """

    largest: float
    mean: float
    changed: float
    steps: int


def compare(original: Sequence[LogProbs], rounded: Sequence[LogProbs]) -> Agreement:
    """Compare two models' outputs, one [steps, tokens + 1] a recording."""
    one, other = np.concatenate(original), np.concatenate(rounded)
    counts = one > np.log(1e-3)
    differences = np.abs(one - other)[counts]
    changed = float((one.argmax(axis=1) != other.argmax(axis=1)).mean())
    return Agreement(float(differences.max()), float(differences.mean()), changed, len(one))


def check(original: Path, rounded: Path, log_mel: LogMel, recordings: Path | None) -> Agreement:
    """Let both graphs hear the same recordings, or noise where there are none.

    Raises:
        ArtifactMissingError: There is nothing at ``recordings``.
        UsageError: It holds no recording.
        SpeechError: With recordings, more steps than ``TOLERANCE`` have another best token.
    """
    heard = [log_mel(samples) for samples in _sounds(recordings, log_mel.config.sample_rate)]
    outputs = [
        [OfflineAcousticModel(session)(features) for features in heard]
        for session in (OnnxSession(original), OnnxSession(rounded))
    ]
    found = compare(*outputs)
    _log.info(
        "int8 on %s: log-probabilities differ by %.3f on average and %.3f at most, "
        "%.2f %% of %d steps have another best token",
        recordings or "noise",
        found.mean,
        found.largest,
        100 * found.changed,
        found.steps,
    )
    if recordings and not found.changed <= TOLERANCE:
        raise SpeechError(
            f"int8 weights change {100 * found.changed:.1f} % of the model's best tokens, and at "
            f"most {100 * TOLERANCE:g} % are tolerated",
            hint="build with --nn.weights=fp32",
        )
    return found


def _sounds(recordings: Path | None, rate: int) -> list[Samples]:
    if recordings is None:
        noise = np.random.default_rng(0).normal(0, 0.01, rate * _SECONDS_OF_NOISE)
        return [noise.astype(np.float32)]
    if not recordings.exists():
        raise ArtifactMissingError(f"there is no file {recordings}", hint="check the path")
    paths = sorted(recordings.iterdir()) if recordings.is_dir() else [recordings]
    audio = [path for path in paths if path.suffix.lower() in _AUDIO]
    if not audio:
        raise UsageError(f"{recordings} holds no recording ({', '.join(_AUDIO)})")
    try:
        return [decode_all(path.read_bytes(), DeclaredFormat(), rate) for path in audio]
    except AudioError as error:
        raise UsageError(f"--nn.check_audio={recordings}: {error}") from error
