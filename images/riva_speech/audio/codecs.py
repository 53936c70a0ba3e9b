"""Decoders: bytes in pieces of any size to mono float32 samples in [-1, 1]."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy as np

from riva_speech.audio.encoding import MONO_ONLY, AudioError, Encoding

if TYPE_CHECKING:
    from av import AudioStream, Packet
    from av.audio.frame import AudioFrame
    from numpy.typing import NDArray

    from riva_speech.audio.features import Samples

_PCM_SCALE = np.float32(1 / 32768)
_FLAC_BLOCK_HEADER = 4  # bytes: a flag and a type, then the block's length
_FLAC_SCALES = {"s16": _PCM_SCALE, "s32": np.float32(1 / 2**31)}


class Decoder(Protocol):
    """Decodes one stream."""

    def decode(self, data: bytes) -> Samples:
        """Return the samples that are complete with these bytes."""

    def finish(self) -> Samples:
        """Return what is left at the end of the stream."""


class PcmDecoder:
    """16-bit little-endian PCM."""

    def __init__(self) -> None:
        self._odd = b""

    def decode(self, data: bytes) -> Samples:
        """Return the samples that are complete with these bytes."""
        data = self._odd + data
        whole = len(data) & ~1
        self._odd = data[whole:]
        return np.frombuffer(data[:whole], "<i2").astype(np.float32) * _PCM_SCALE

    def finish(self) -> Samples:
        """Return nothing: half a sample is no sample."""
        return np.zeros(0, np.float32)


class CompandedDecoder:
    """8-bit mu-law or A-law: each byte stands for one sample."""

    def __init__(self, table: NDArray[np.float32]) -> None:
        self._table = table

    def decode(self, data: bytes) -> Samples:
        """Return a sample for each byte."""
        return self._table[np.frombuffer(data, np.uint8)]

    def finish(self) -> Samples:
        """Return nothing: no byte is held back."""
        return np.zeros(0, np.float32)


def _mulaw_table() -> NDArray[np.float32]:
    """Return the 256 values of ITU-T G.711 mu-law."""
    code = ~np.arange(256, dtype=np.uint8)
    exponent, mantissa = (code >> 4) & 7, (code & 15).astype(np.int32)
    magnitude = ((2 * mantissa + 33) << exponent) - 33
    sign = np.where(code & 0x80, -1, 1)
    return (sign * magnitude * 4).astype(np.float32) * _PCM_SCALE


def _alaw_table() -> NDArray[np.float32]:
    """Return the 256 values of ITU-T G.711 A-law."""
    code = np.arange(256, dtype=np.uint8) ^ 0x55
    exponent, mantissa = (code >> 4) & 7, (code & 15).astype(np.int32)
    linear = 2 * mantissa + 1
    magnitude = np.where(exponent == 0, linear, (linear + 32) << np.maximum(exponent, 1) - 1)
    sign = np.where(code & 0x80, 1, -1)
    return (sign * magnitude * 8).astype(np.float32) * _PCM_SCALE


class FlacDecoder:
    """FLAC of 16 or 24 bits, the stream's header included.

    The parser looks some frames ahead before it trusts a frame's beginning, so samples come later
    than their bytes.
    """

    def __init__(self) -> None:
        from av import CodecContext  # noqa: PLC0415 - loads ffmpeg, which PCM streams never need

        self._codec = CodecContext.create("flac", "r")
        self._metadata = _FlacMetadata()

    def decode(self, data: bytes) -> Samples:
        """Return the samples that are complete with these bytes.

        Raises:
            AudioError: The bytes are not FLAC, or not mono.
        """
        frames = self._metadata.skip(data)
        # No bytes would end the parser's stream.
        return self._decode(self._codec.parse(frames)) if frames else np.zeros(0, np.float32)

    def finish(self) -> Samples:
        """Return the samples of the frames that were held back."""
        pieces = []
        while packets := self._codec.parse(b""):
            pieces.append(self._decode(packets))
        return np.concatenate([*pieces, np.zeros(0, np.float32)])

    def _decode(self, packets: list[Packet[AudioStream]]) -> Samples:
        from av.error import FFmpegError  # noqa: PLC0415 - as above

        try:
            frames = [frame for packet in packets for frame in self._codec.decode(packet)]
        except FFmpegError:
            raise AudioError("Error: the FLAC audio cannot be decoded.") from None
        return np.concatenate([np.zeros(0, np.float32), *map(_flac_samples, frames)])


class _FlacMetadata:
    """Leaves out what stands before the first frame (RFC 9639, section 8).

    ffmpeg's parser would take it for a part of that frame, and its decoder then drops both.
    """

    def __init__(self) -> None:
        self._pending = b""
        self._to_skip = len(b"fLaC")
        self._is_last = False

    def skip(self, data: bytes) -> bytes:
        """Return those of the next bytes that belong to frames."""
        self._pending += data
        while True:
            skipped = min(self._to_skip, len(self._pending))
            self._pending = self._pending[skipped:]
            self._to_skip -= skipped
            if self._to_skip or (not self._is_last and len(self._pending) < _FLAC_BLOCK_HEADER):
                return b""
            if self._is_last:
                frames, self._pending = self._pending, b""
                return frames
            self._is_last = bool(self._pending[0] & 0x80)
            self._to_skip = _FLAC_BLOCK_HEADER + int.from_bytes(self._pending[1:4], "big")


def _flac_samples(frame: AudioFrame) -> Samples:
    if frame.layout.nb_channels != 1 or frame.format.name not in _FLAC_SCALES:
        raise AudioError(MONO_ONLY)
    samples: Samples = frame.to_ndarray()[0].astype(np.float32) * _FLAC_SCALES[frame.format.name]
    return samples


def decoder_for(encoding: Encoding) -> Decoder:
    """Return a new decoder."""
    if encoding is Encoding.FLAC:
        return FlacDecoder()
    if encoding is Encoding.MULAW:
        return CompandedDecoder(_mulaw_table())
    if encoding is Encoding.ALAW:
        return CompandedDecoder(_alaw_table())
    return PcmDecoder()
