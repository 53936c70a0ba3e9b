"""Recordings, and the NeMo manifests that list them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import soundfile
import soxr

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    Samples: TypeAlias = NDArray[np.float32]

RATE = 16_000


@dataclass(frozen=True)
class Clip:
    """One recording: where it lies, what is said in it, by whom, and what it is for."""

    audio: Path
    text: str
    speaker: str
    duration: float
    split: str = "train"

    @property
    def words(self) -> list[str]:
        """The words said, in order."""
        return self.text.split()


def read_manifest(path: Path) -> list[Clip]:
    """Read a NeMo manifest, whose audio paths are absolute or relative to it."""
    return list(_parse(path))


def _parse(path: Path) -> Iterator[Clip]:
    for line in path.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        yield Clip(
            audio=path.parent / row["audio_filepath"],
            text=row["text"],
            speaker=row["speaker"],
            duration=row["duration"],
            split=row.get("split", "train"),
        )


def write_manifest(path: Path, clips: Iterable[Clip]) -> None:
    """Write a NeMo manifest whose audio paths are relative to it."""
    with path.open("w", encoding="utf-8") as manifest:
        for clip in clips:
            row = {
                "audio_filepath": str(clip.audio.relative_to(path.parent)),
                "duration": clip.duration,
                "text": clip.text,
                "speaker": clip.speaker,
                "split": clip.split,
            }
            manifest.write(json.dumps(row) + "\n")


def read_audio(path: Path) -> Samples:
    """Read the first channel of an audio file at the model's rate."""
    samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    return resample(samples[:, 0], rate)


def resample(samples: Samples, rate: float) -> Samples:
    """Turn samples taken at `rate` into samples at the model's rate."""
    if rate == RATE:
        return samples
    return np.asarray(soxr.resample(samples, rate, RATE), np.float32)


def write_audio(path: Path, samples: Samples) -> float:
    """Write audio of the kind that the file's name says; return its duration in seconds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples, RATE)
    return round(len(samples) / RATE, 3)
