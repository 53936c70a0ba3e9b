"""Ogg (RFC 3533) as it arrives: pages, and the packets in them."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from riva_speech.audio.encoding import AudioError

if TYPE_CHECKING:
    from collections.abc import Iterator

MAGIC = b"OggS"
_HEADER = struct.Struct("<4sBBqIIIB")
_CHECKSUM_AT = 22
_CONTINUED, _LAST = 0x01, 0x04
_FULL_SEGMENT = 255
# Packets of speech are far shorter; the comments of a file may hold a picture.
_LONGEST_PACKET = 1 << 20
_REVERSED_BYTES = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
_DAMAGED = "Error: the Ogg stream is damaged."


@dataclass(frozen=True)
class Packet:
    """A packet, and what its page says: where it is the last of the page, the page's position.

    ``position`` counts samples; it is -1 where nothing is said. ``is_last`` marks the stream's end.
    """

    data: bytes
    position: int = -1
    is_last: bool = False


class Packets:
    """Reads the packets of the first logical stream; others beside it are left out."""

    def __init__(self) -> None:
        self._pending = bytearray()
        self._partial = bytearray()
        self._serial: int | None = None

    def accept(self, data: bytes) -> Iterator[Packet]:
        """Give the packets of the pages that are complete with these bytes.

        Raises:
            AudioError: They are no pages, or a page is damaged.
        """
        self._pending += data
        while page := self._take_page():
            yield from self._packets(page)

    def _take_page(self) -> bytes:
        """Take a page off the bytes at hand; empty where none is complete."""
        magic = bytes(self._pending[: len(MAGIC)])
        if magic != MAGIC[: len(magic)]:
            raise AudioError(_DAMAGED)
        if len(self._pending) < _HEADER.size:
            return b""
        body = _HEADER.size + self._pending[_HEADER.size - 1]
        size = body + sum(self._pending[_HEADER.size : body])
        if len(self._pending) < max(size, body):
            return b""
        page = bytes(self._pending[:size])
        del self._pending[:size]
        if _checksum(page) != int.from_bytes(page[_CHECKSUM_AT : _CHECKSUM_AT + 4], "little"):
            raise AudioError(_DAMAGED)
        return page

    def _packets(self, page: bytes) -> Iterator[Packet]:
        _, _, flags, position, serial, _, _, segments = _HEADER.unpack_from(page)
        if self._serial is None:
            self._serial = serial
        if serial != self._serial:
            return
        if not flags & _CONTINUED:
            self._partial.clear()
        sizes = page[_HEADER.size : _HEADER.size + segments]
        # The page's position is that of the last packet that ends on it.
        last_end = max((i for i, size in enumerate(sizes) if size < _FULL_SEGMENT), default=-1)
        begin = _HEADER.size + segments
        for i, size in enumerate(sizes):
            self._partial += page[begin : begin + size]
            begin += size
            if len(self._partial) > _LONGEST_PACKET:
                raise AudioError(_DAMAGED)
            if size < _FULL_SEGMENT:
                ends_page = i == last_end
                yield Packet(
                    bytes(self._partial),
                    position if ends_page else -1,
                    is_last=ends_page and bool(flags & _LAST),
                )
                self._partial.clear()


def _checksum(page: bytes) -> int:
    """Return a page's CRC-32, as if its own checksum were zero.

    Ogg takes the bits of a byte from the other end than zlib, begins with 0 and inverts nothing:
    of reversed bytes, and with both inversions undone, zlib's is its mirror image.
    """
    blank = page[:_CHECKSUM_AT] + bytes(4) + page[_CHECKSUM_AT + 4 :]
    mirrored = zlib.crc32(blank.translate(_REVERSED_BYTES), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int.from_bytes(mirrored.to_bytes(4, "little").translate(_REVERSED_BYTES), "big")
