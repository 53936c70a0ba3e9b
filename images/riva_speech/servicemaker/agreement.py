"""How far an acoustic model with rounded weights is from the one it was made of."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from riva_speech.asr.acoustic import OfflineAcousticModel, step
from riva_speech.asr.offline import OfflineRecognizer
from riva_speech.audio.encoding import AudioError
from riva_speech.audio.stream import DeclaredFormat, decode_all
from riva_speech.errors import ArtifactMissingError, SpeechError, UsageError
from riva_speech.sessions.onnx import OnnxSession

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from riva_speech.asr.acoustic import LogProbs
    from riva_speech.asr.loading import Recognizer
    from riva_speech.audio.features import LogMel, Samples

_log = logging.getLogger("riva_speech.riva_build")

# The largest share of steps whose best token may be another.
TOLERANCE = 0.03
# What is shorter has no frame to hear, or one whose features have no spread.
_LEAST_SECONDS = 0.1
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

    def __str__(self) -> str:
        """Return what a log says of it."""
        return (
            f"log-probabilities differ by {self.mean:.3f} on average and {self.largest:.3f} at "
            f"most, {100 * self.changed:.2f} % of {self.steps} steps have another best token"
        )


def compare(original: Sequence[LogProbs], rounded: Sequence[LogProbs]) -> Agreement:
    """Compare two models' outputs, one [steps, tokens + 1] a recording."""
    one, other = np.concatenate(original), np.concatenate(rounded)
    counts = one > np.log(1e-3)
    differences = np.abs(one - other)[counts]
    changed = float((one.argmax(axis=1) != other.argmax(axis=1)).mean())
    return Agreement(float(differences.max()), float(differences.mean()), changed, len(one))


def encoded(recognizer: Recognizer, samples: Samples) -> LogProbs:
    """Return the log-probabilities of all that a recogniser encodes, [steps, tokens + 1].

    A stream is given its chunks one by one, and carries its own state from each to the next.
    """
    features = recognizer.log_mel(samples)
    if isinstance(recognizer, OfflineRecognizer):
        return recognizer.log_probs(features)
    state, steps = recognizer.acoustic.start(), []
    while features.shape[1]:
        size = recognizer.acoustic.wanted_frames(state)
        steps.append(step(recognizer.acoustic, state, features[:, :size]))
        features = features[:, size:]
    return np.concatenate(steps)


def check(original: Path, rounded: Path, log_mel: LogMel, recordings: Path | None) -> Agreement:
    """Let both graphs hear the same recordings, or noise where there are none.

    Raises:
        ArtifactMissingError: There is nothing at ``recordings``.
        UsageError: It holds no recording.
        SpeechError: With recordings, more steps than ``TOLERANCE`` have another best token.
    """
    sounds = load_sounds([recordings] if recordings else [], log_mel.config.sample_rate)
    heard = [log_mel(samples) for samples in sounds]
    outputs = [
        [OfflineAcousticModel(session)(features) for features in heard]
        for session in (OnnxSession(original), OnnxSession(rounded))
    ]
    found = compare(*outputs)
    _log.info("int8 on %s: %s", recordings or "noise", found)
    if recordings and not found.changed <= TOLERANCE:
        raise SpeechError(
            f"int8 weights change {100 * found.changed:.1f} % of the model's best tokens, and at "
            f"most {100 * TOLERANCE:g} % are tolerated",
            hint="build with --nn.weights=fp32",
        )
    return found


def load_sounds(recordings: Sequence[Path], rate: int) -> list[Samples]:
    """Read recordings, or those of folders, at a sample rate; without any, make noise.

    Raises:
        ArtifactMissingError: There is nothing at one of the paths.
        UsageError: It holds no recording.
    """
    if not recordings:
        noise = np.random.default_rng(0).normal(0, 0.01, rate * _SECONDS_OF_NOISE)
        return [noise.astype(np.float32)]
    return [_load(audio, rate) for path in recordings for audio in _audio_in(path)]


def _audio_in(path: Path) -> list[Path]:
    if not path.exists():
        raise ArtifactMissingError(f"there is no file {path}", hint="check the path")
    paths = sorted(path.iterdir()) if path.is_dir() else [path]
    audio = [one for one in paths if one.suffix.lower() in _AUDIO]
    if not audio:
        raise UsageError(f"{path} holds no recording ({', '.join(_AUDIO)})")
    return audio


def _load(path: Path, rate: int) -> Samples:
    try:
        samples = decode_all(path.read_bytes(), DeclaredFormat(), rate)
    except AudioError as error:
        raise UsageError(f"check_audio cannot use {path}: {error}") from error
    if len(samples) < _LEAST_SECONDS * rate:
        raise UsageError(f"check_audio cannot use {path}: it is shorter than {_LEAST_SECONDS:g} s")
    return samples
