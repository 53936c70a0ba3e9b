"""Reading a WAV header that arrives in pieces."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from riva_speech.audio.encoding import AudioError, AudioFormat, Encoding, SampleType

_PCM, _FLOAT, _ALAW, _MULAW, _EXTENSIBLE = 0x0001, 0x0003, 0x0006, 0x0007, 0xFFFE
_SAMPLE_TYPES = {
    (_PCM, 8): SampleType.UNSIGNED_8,
    (_PCM, 16): SampleType.SIGNED_16,
    (_PCM, 24): SampleType.SIGNED_24,
    (_PCM, 32): SampleType.SIGNED_32,
    (_FLOAT, 32): SampleType.FLOAT_32,
    (_FLOAT, 64): SampleType.FLOAT_64,
}
_COMPANDED = {(_ALAW, 8): Encoding.ALAW, (_MULAW, 8): Encoding.MULAW}
# The second is that of files over 4 GiB: their sizes stand in a chunk of its own.
MAGICS = (b"RIFF", b"RF64")
_RIFF_BYTES = 12
_CHUNK_BYTES = 8
# What stands for a size that is not known, and for one that the sizes' own chunk has.
_UNKNOWN, _UNKNOWN_LARGE = (1 << 32) - 1, (1 << 64) - 1
# Headers of ordinary files end within some hundred bytes; lists of cue points may take more.
_MAX_HEADER_BYTES = 1 << 16


@dataclass(frozen=True)
class WavHeader:
    """What a header says: the format, where its audio begins, and how many bytes it has.

    ``data_size`` is None where the writer did not know it, as in a stream.
    """

    format: AudioFormat
    data_offset: int
    data_size: int | None


def parse_header(data: bytes) -> WavHeader | None:
    """Read the header at the beginning of ``data``, or return None where it is still incomplete.

    Chunks other than ``fmt`` and ``data`` are skipped, wherever they stand.

    Raises:
        AudioError: This is no WAV audio that can be read.
    """
    position, audio_format, large = _RIFF_BYTES, None, 0
    while position <= _MAX_HEADER_BYTES and len(data) >= position + _CHUNK_BYTES:
        name, size = struct.unpack_from("<4sI", data, position)
        body = position + _CHUNK_BYTES
        if name == b"data":
            if audio_format is None:
                raise AudioError("Error: the WAV header has no format before its data.")
            whole = large if size == _UNKNOWN else size
            return WavHeader(audio_format, body, whole or None)
        if name in (b"fmt ", b"ds64"):
            if len(data) < body + size:
                break
            if name == b"fmt ":
                audio_format = _parse_format(data[body : body + size])
            else:
                large = _large_size(data[body : body + size])
        position = body + size + size % 2
    if max(position, len(data)) > _MAX_HEADER_BYTES:
        raise AudioError("Error: the WAV header does not end.")
    return None


def _large_size(chunk: bytes) -> int:
    """Return the size of the data of a file over 4 GiB; 0 where the writer did not know it."""
    if len(chunk) < struct.calcsize("<QQ"):
        return 0
    _, size = struct.unpack_from("<QQ", chunk)
    return 0 if size == _UNKNOWN_LARGE else int(size)


def _parse_format(chunk: bytes) -> AudioFormat:
    if len(chunk) < struct.calcsize("<HHIIHH"):
        raise AudioError("Error: the WAV header is cut short.")
    tag, channels, rate, _, _, bits = struct.unpack_from("<HHIIHH", chunk)
    if tag == _EXTENSIBLE and len(chunk) >= 26:  # noqa: PLR2004 - the sub-format's offset and size
        (tag,) = struct.unpack_from("<H", chunk, 24)
    if (tag, bits) in _SAMPLE_TYPES:
        return AudioFormat(Encoding.LINEAR_PCM, rate, channels, _SAMPLE_TYPES[tag, bits])
    if (tag, bits) in _COMPANDED:
        return AudioFormat(_COMPANDED[tag, bits], rate, channels)
    raise AudioError(
        f"Error: WAV audio of format {tag:#06x} with {bits} bits is not supported: "
        "PCM of 8 to 32 bits, floats, mu-law and A-law are."
    )
