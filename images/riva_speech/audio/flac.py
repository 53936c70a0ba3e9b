"""FLAC (RFC 9639) as it arrives: frames are found here, and decoded by ffmpeg.

ffmpeg's own parser looks some ten frames ahead before it trusts a frame's beginning, which are
seconds of speech. Here a frame is complete once the next one begins, and what begins it is known:
its header has a checksum, and its number follows the one before.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from riva_speech.audio.encoding import MONO_ONLY, AudioError
from riva_speech.audio.ffmpeg import PacketDecoder

if TYPE_CHECKING:
    from collections.abc import Iterator

    from riva_speech.audio.features import Samples

# "fLaC", and the block STREAMINFO with its header, which always comes first.
STREAM_HEADER_BYTES = 42
_STREAM_INFO_BEGINS = 8
_BLOCK_HEADER_BYTES = 4  # a flag and a type, then the block's length

# Files have a handful; each may be of no length, and skipping them takes time.
_MOST_BLOCKS = 1024
_LONGEST_FRAME_HEADER = 16
# One channel of 65,535 samples of 32 bits, written as they are, with room to spare.
_LONGEST_FRAME = 1 << 19
# Codes in a frame's header: what follows it, in bytes, and the block sizes that need nothing more.
_BLOCK_SIZE_BYTES = {6: 1, 7: 2}
_RATE_BYTES = {12: 1, 13: 2, 14: 2}
_BLOCK_SIZES = {
    1: 192,
    **{2 + i: 576 << i for i in range(4)},
    **{8 + i: 256 << i for i in range(8)},
}
_CANNOT_BE_DECODED = "Error: the FLAC audio cannot be decoded."


def _crc_8_table() -> bytes:
    """Return the checksums of all bytes, of the polynomial x^8 + x^2 + x + 1."""
    table = list(range(256))
    for _ in range(8):
        table = [(value << 1 ^ (0x07 if value & 0x80 else 0)) & 0xFF for value in table]
    return bytes(table)


_CRC_8 = _crc_8_table()


@dataclass(frozen=True)
class FrameHeader:
    """What a frame's header says, as far as it takes to find the next one.

    ``number`` counts samples where ``is_variable``, and frames where all are as long.
    """

    is_variable: bool
    number: int
    block_size: int
    channels: int

    @property
    def next_number(self) -> int:
        """The number of the frame that follows."""
        return self.number + (self.block_size if self.is_variable else 1)


def read_frame_header(data: bytes) -> FrameHeader | None:
    """Read the header at the beginning of these bytes, or return None where there is none."""
    if len(data) < 6 or data[0] != 0xFF or data[1] & 0xFE != 0xF8:  # noqa: PLR2004 - the sync code
        return None
    size_code, rate_code, channel_code = data[2] >> 4, data[2] & 15, data[3] >> 4
    number, position = _coded_number(data, 4)
    extra = _BLOCK_SIZE_BYTES.get(size_code, 0)
    end = position + extra + _RATE_BYTES.get(rate_code, 0)
    if number < 0 or not size_code or len(data) <= end or _crc_8(data[:end]) != data[end]:
        return None
    written = int.from_bytes(data[position : position + extra], "big") + 1
    return FrameHeader(
        is_variable=bool(data[1] & 1),
        number=number,
        block_size=_BLOCK_SIZES.get(size_code, written),
        channels=channel_code + 1,
    )


def _coded_number(data: bytes, position: int) -> tuple[int, int]:
    """Read a number that is written as UTF-8 is, and where it ends; -1 where it is none."""
    first = data[position]
    length = 8 - (~first & 0xFF).bit_length()
    if not length:
        return first, position + 1
    rest = data[position + 1 : position + length]
    if length in (1, 8) or len(rest) < length - 1 or not all(_follows(byte) for byte in rest):
        return -1, position
    number = first & (0x7F >> length)
    for byte in rest:
        number = number << 6 | byte & 0x3F
    return number, position + length


def _follows(byte: int) -> bool:
    """Whether a byte can stand behind the first one of a number: its upper bits are 10."""
    return byte >> 6 == 0b10  # noqa: PLR2004 - the bits


def _crc_8(data: bytes) -> int:
    checksum = 0
    for byte in data:
        checksum = _CRC_8[checksum ^ byte]
    return checksum


class FlacDecoder:
    """FLAC of 8 to 24 bits, the stream's header included.

    A frame's samples come with the first bytes of the next one.
    """

    def __init__(self) -> None:
        self._metadata = _Metadata()
        self._frames = _Frames()
        self._codec: PacketDecoder | None = None

    def decode(self, data: bytes) -> Iterator[Samples]:
        """Give the samples of the frames that are complete with these bytes.

        Raises:
            AudioError: The bytes are not FLAC, or not mono.
        """
        for frame in self._frames.accept(self._metadata.skip(data)):
            yield self._decode(frame)

    def finish(self) -> Iterator[Samples]:
        """Give the samples of the last frame; one that was cut off is left out.

        Raises:
            AudioError: There was no frame that could be decoded.
        """
        if rest := self._frames.rest:
            is_only = self._codec is None
            try:
                yield self._decode(rest)
            except AudioError:
                if is_only:
                    raise

    def _decode(self, frame: bytes) -> Samples:
        if self._codec is None:
            stream_info = self._metadata.beginning[_STREAM_INFO_BEGINS:]
            self._codec = PacketDecoder("flac", stream_info)
        return self._codec.decode(frame)


class _Metadata:
    """Leaves out what stands before the first frame, keeping its beginning."""

    def __init__(self) -> None:
        self.beginning = b""
        self._pending = b""
        self._to_skip = len(b"fLaC")
        self._is_last = False
        self._blocks_left = _MOST_BLOCKS

    def skip(self, data: bytes) -> bytes:
        """Return those of the next bytes that belong to frames.

        Raises:
            AudioError: They never do.
        """
        if len(self.beginning) < STREAM_HEADER_BYTES:
            self.beginning = (self.beginning + data)[:STREAM_HEADER_BYTES]
        data, at = self._pending + data, 0
        while True:
            skipped = min(self._to_skip, len(data) - at)
            at += skipped
            self._to_skip -= skipped
            is_cut = not self._is_last and len(data) - at < _BLOCK_HEADER_BYTES
            if self._to_skip or is_cut:
                self._pending = data[at:]
                return b""
            if self._is_last:
                self._pending = b""
                return data[at:]
            if not self._blocks_left:
                raise AudioError(_CANNOT_BE_DECODED)
            self._blocks_left -= 1
            self._is_last = bool(data[at] & 0x80)
            self._to_skip = _BLOCK_HEADER_BYTES + int.from_bytes(data[at + 1 : at + 4], "big")


class _Frames:
    """Cuts the bytes behind the metadata into frames."""

    def __init__(self) -> None:
        self._pending = bytearray()
        self._header: FrameHeader | None = None
        # Up to here no other frame begins.
        self._searched = 1

    @property
    def rest(self) -> bytes:
        """What no other frame has followed yet."""
        return bytes(self._pending)

    def accept(self, data: bytes) -> Iterator[bytes]:
        """Give the frames that are complete with these bytes.

        Raises:
            AudioError: They are no frames, or have more than one channel.
        """
        self._pending += data
        while end := self._next_begin():
            frame = bytes(self._pending[:end])
            del self._pending[:end]
            self._searched, self._header = 1, self._read(0)
            yield frame

    def _next_begin(self) -> int:
        """Return where the next frame begins; 0 where that is not known yet."""
        last = len(self._pending) - _LONGEST_FRAME_HEADER
        if last <= 0:
            return 0
        if self._header is None:
            self._header = self._read(0)
        if self._header is None:
            raise AudioError(_CANNOT_BE_DECODED)
        sync = bytes(self._pending[:2])
        end = min(last, _LONGEST_FRAME)
        while (at := self._pending.find(sync, self._searched, end + len(sync))) >= 0:
            self._searched = at + 1
            found = self._read(at)
            if found and found.number == self._header.next_number:
                return at
        if last > _LONGEST_FRAME:
            raise AudioError(_CANNOT_BE_DECODED)
        self._searched = max(self._searched, last)
        return 0

    def _read(self, at: int) -> FrameHeader | None:
        header = read_frame_header(bytes(self._pending[at : at + _LONGEST_FRAME_HEADER]))
        if header and header.channels != 1:
            raise AudioError(MONO_ONLY)
        return header
