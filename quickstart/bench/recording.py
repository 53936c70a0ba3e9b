"""A recording as the chunks in which a microphone would give it."""

from __future__ import annotations

import io
import wave
from dataclasses import dataclass
from typing import TYPE_CHECKING

from quickstart import audio
from quickstart.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

_SAMPLE_BYTES = 2
# Below that a chunk of ten milliseconds may hold no sample.
_LOWEST_RATE = 100


@dataclass(frozen=True)
class Recording:
    """Mono samples of 16 bits, little-endian, at `rate` Hz."""

    samples: bytes
    rate: int

    @property
    def seconds(self) -> float:
        """How long it lasts."""
        return len(self.samples) / (_SAMPLE_BYTES * self.rate)

    def chunks(self, milliseconds: int) -> list[bytes]:
        """Return its samples in pieces of a length; the last one may be shorter."""
        size = _SAMPLE_BYTES * (self.rate * milliseconds // 1000)
        return [self.samples[i : i + size] for i in range(0, len(self.samples), size)]


def read(path: Path) -> Recording:
    """Return the recording in a file.

    Raises:
        UsageError: It cannot be read, or is not what can be cut into chunks of real time.
    """
    data = audio.read_recording(path)
    if audio.container(data) != "WAV":
        raise _unsuitable(path, f"it is {audio.container(data)}")
    try:
        with wave.open(io.BytesIO(data)) as source:
            channels, width = source.getnchannels(), source.getsampwidth()
            found = Recording(source.readframes(source.getnframes()), source.getframerate())
    except (wave.Error, EOFError) as error:
        raise _unsuitable(path, str(error) or "it breaks off") from error
    if (channels, width) != (1, _SAMPLE_BYTES):
        raise _unsuitable(path, f"it has {channels} channels of {8 * width} bits")
    if found.rate < _LOWEST_RATE:
        raise _unsuitable(path, f"it has {found.rate} samples a second")
    if not found.samples:
        raise _unsuitable(path, "it holds no sound")
    return found


def _unsuitable(path: Path, what: str) -> UsageError:
    """Return the error for a recording that cannot be paced."""
    message = f"{path} cannot be sent at the pace of real time: {what}"
    return UsageError(
        message, "`ffmpeg -i INPUT -ac 1 -c:a pcm_s16le out.wav` makes a WAV that can"
    )
