"""One stream of audio bytes on its way to samples at the model's rate.

Clients send whole files, headers included, cut into pieces at any place, and often say nothing
about the format; or they send bare samples and say it all. Both come through here.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import soxr

from riva_speech.audio import flac, ogg, opus, wav
from riva_speech.audio.codecs import decoder_for
from riva_speech.audio.encoding import AudioError, AudioFormat, Encoding

if TYPE_CHECKING:
    from collections.abc import Iterable

    from riva_speech.audio.codecs import Decoder
    from riva_speech.audio.features import Samples

_MAGIC_BYTES = 12
_FLAC_MAGIC = b"fLaC"
_MAGICS = (*wav.MAGICS, _FLAC_MAGIC, ogg.MAGIC)
_CODECS = (Encoding.FLAC, Encoding.OGGOPUS)
_MISMATCH = "Error: config format doesn't match with header format"
# Some bytes of a codec may stand for hours of silence: a message ends here.
MAX_MESSAGE_SECONDS = 2 * 3600


@dataclass(frozen=True)
class DeclaredFormat:
    """What the client says about its audio; None and 0 stand for nothing said."""

    encoding: Encoding | None = None
    sample_rate: int = 0

    def agree(self, found: AudioFormat) -> None:
        """Check a header against what was said.

        Raises:
            AudioError: They differ. The text is Riva's.
        """
        if self.encoding not in (None, found.encoding):
            raise AudioError(_MISMATCH)
        # Opus has no rate of its own: each client says another.
        has_rate = found.encoding is not Encoding.OGGOPUS
        if has_rate and self.sample_rate not in (0, found.sample_rate):
            raise AudioError(_MISMATCH)


class AudioStream:
    """Decodes and resamples one stream, of which at most ``max_seconds`` come at once.

    Raises:
        AudioError: From any method, with the sentence that the client should read.
    """

    def __init__(
        self,
        declared: DeclaredFormat,
        target_rate: int,
        *,
        max_seconds: int = MAX_MESSAGE_SECONDS,
    ) -> None:
        self._declared = declared
        self._target_rate = target_rate
        self._max_seconds = max_seconds
        self._header = b""
        self._left: int | None = None
        self._decoder: Decoder | None = None
        # Until the format is known, it may be any.
        self._packed = True
        self._resampler: soxr.ResampleStream | None = None

    @property
    def is_packed(self) -> bool:
        """Whether a few bytes may stand for many samples, so that decoding them takes its time."""
        return self._packed

    def accept(self, data: bytes) -> Samples:
        """Take bytes; return mono float32 samples at the target rate that are complete now."""
        if self._decoder is None:
            data = self._open(data)
        if self._decoder is None:
            return np.zeros(0, np.float32)
        # It holds all of the first message.
        self._header = b""
        return self._gather(self._decoder.decode(self._within_data(data)))

    def finish(self) -> Samples:
        """End the stream and return its last samples."""
        if self._decoder is None:
            if not self._header:
                return np.zeros(0, np.float32)
            raise AudioError("Error: the audio ends within its header.")
        left = self._gather(self._decoder.finish())
        return np.concatenate([left, self._resample(np.zeros(0, np.float32), last=True)])

    def _open(self, data: bytes) -> bytes:
        """Gather bytes until the format is known; return those that are audio."""
        self._header += data
        if len(self._header) < _MAGIC_BYTES and not self._declared_is_enough(self._header):
            return b""
        magic = self._header[:4]
        if magic in wav.MAGICS and self._header[8:12] == b"WAVE":
            return self._open_wav()
        if magic == _FLAC_MAGIC:
            return self._open_flac()
        if magic == ogg.MAGIC:
            self._use(AudioFormat(Encoding.OGGOPUS, opus.SAMPLE_RATE))
            return self._header
        return self._open_bare()

    def _declared_is_enough(self, beginning: bytes) -> bool:
        """Whether bytes too few for a header cannot become one."""
        return not any(magic.startswith(beginning[:4]) for magic in _MAGICS)

    def _open_wav(self) -> bytes:
        header = wav.parse_header(self._header)
        if header is None:
            return b""
        self._left = header.data_size
        self._use(header.format)
        return self._header[header.data_offset :]

    def _open_flac(self) -> bytes:
        if len(self._header) < flac.STREAM_HEADER_BYTES:
            return b""
        # STREAMINFO: 20 bits of sample rate, then 3 of channels - 1 (RFC 9639, section 8.2).
        (bits,) = struct.unpack_from(">I", self._header, 18)
        self._use(AudioFormat(Encoding.FLAC, bits >> 12, (bits >> 9 & 7) + 1))
        return self._header

    def _open_bare(self) -> bytes:
        if self._declared.encoding in _CODECS:
            raise AudioError(_MISMATCH)
        if not self._declared.sample_rate:
            raise AudioError(
                "Error: the audio has no WAV, FLAC or Ogg header, and sample_rate_hertz is not set."
            )
        encoding = self._declared.encoding or Encoding.LINEAR_PCM
        self._use(AudioFormat(encoding, self._declared.sample_rate))
        return self._header

    def _use(self, audio_format: AudioFormat) -> None:
        self._declared.agree(audio_format)
        audio_format.check()
        self._decoder = decoder_for(audio_format)
        self._packed = audio_format.encoding in _CODECS
        if audio_format.sample_rate != self._target_rate:
            self._resampler = soxr.ResampleStream(
                audio_format.sample_rate, self._target_rate, 1, dtype="float32"
            )

    def _within_data(self, data: bytes) -> bytes:
        """Cut off what follows a WAV file's data, such as tags."""
        if self._left is None:
            return data
        data = data[: self._left]
        self._left -= len(data)
        return data

    def _gather(self, pieces: Iterable[Samples]) -> Samples:
        """Resample what a decoder gives, as long as it is no more than a message may hold."""
        kept, left = [], self._max_seconds * self._target_rate
        for piece in pieces:
            kept.append(self._resample(piece, last=False))
            left -= len(kept[-1])
            if left < 0:
                raise AudioError(
                    f"Error: a message holds more than {self._max_seconds} s of audio."
                )
        if len(kept) == 1:
            return kept[0]
        return np.concatenate([np.zeros(0, np.float32), *kept])

    def _resample(self, samples: Samples, *, last: bool) -> Samples:
        if self._resampler is None:
            return samples
        resampled: Samples = self._resampler.resample_chunk(samples, last=last)
        return resampled


def decode_all(data: bytes, declared: DeclaredFormat, target_rate: int) -> Samples:
    """Decode a whole recording; the errors are those of ``AudioStream``."""
    stream = AudioStream(declared, target_rate)
    return np.concatenate([stream.accept(data), stream.finish()])
