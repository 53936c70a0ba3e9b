"""What audio looks like on the wire."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

MIN_SAMPLE_RATE = 8000
MAX_SAMPLE_RATE = 96_000
# What a client is told wherever more than one channel shows: in its request, header or frames.
MONO_ONLY = "Only mono audio supported."


class AudioError(ValueError):
    """Audio that cannot be decoded; the message is what a client is told."""


class Encoding(Enum):
    """The encodings that can be decoded; the names are those of Riva's ``AudioEncoding``."""

    LINEAR_PCM = "LINEAR_PCM"
    FLAC = "FLAC"
    MULAW = "MULAW"
    OGGOPUS = "OGGOPUS"
    ALAW = "ALAW"


class SampleType(Enum):
    """How one sample of linear PCM is written, always with its lowest byte first."""

    UNSIGNED_8 = "u8"
    SIGNED_16 = "s16"
    SIGNED_24 = "s24"
    SIGNED_32 = "s32"
    FLOAT_32 = "f32"
    FLOAT_64 = "f64"


@dataclass(frozen=True)
class AudioFormat:
    """An encoding with its sample rate in Hz and number of channels.

    ``sample_type`` is that of linear PCM; without a header it is 16 bits.
    """

    encoding: Encoding
    sample_rate: int
    channels: int = 1
    sample_type: SampleType = SampleType.SIGNED_16

    def check(self) -> None:
        """Check that this can be recognised.

        Raises:
            AudioError: The rate is out of range, or there is more than one channel.
        """
        if self.channels != 1:
            raise AudioError(MONO_ONLY)
        if not MIN_SAMPLE_RATE <= self.sample_rate <= MAX_SAMPLE_RATE:
            raise AudioError(
                f"Error: sample rate {self.sample_rate} is out of range: "
                f"{MIN_SAMPLE_RATE} to {MAX_SAMPLE_RATE} Hz are supported."
            )
