"""Opus in Ogg (RFC 7845) as it arrives: packets are found here, and decoded by ffmpeg."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from riva_speech.audio.encoding import MONO_ONLY, AudioError
from riva_speech.audio.ffmpeg import PacketDecoder
from riva_speech.audio.ogg import Packets

if TYPE_CHECKING:
    from collections.abc import Iterator

    from riva_speech.audio.features import Samples
    from riva_speech.audio.ogg import Packet

# Whatever rate its sound had, Opus decodes at this one.
SAMPLE_RATE = 48_000
_MAGIC = b"OpusHead"
_HEAD = struct.Struct("<8sBBHIhB")
_PRE_SKIP_AT = 10


class OggOpusDecoder:
    """Opus in Ogg, the stream's header included. Samples come page by page."""

    def __init__(self) -> None:
        self._packets = Packets()
        self._codec: PacketDecoder | None = None
        self._comments_read = False
        # Samples to leave out at the beginning, and how many there were, those included.
        self._to_skip = 0
        self._decoded = 0

    def decode(self, data: bytes) -> Iterator[Samples]:
        """Give the samples of the pages that are complete with these bytes.

        Raises:
            AudioError: The bytes are not Opus in Ogg, or not mono.
        """
        for packet in self._packets.accept(data):
            if self._codec is None:
                self._open(packet.data)
            elif not self._comments_read:
                self._comments_read = True
            elif packet.data:
                yield self._within(self._codec.decode(packet.data), packet)

    def finish(self) -> Iterator[Samples]:
        """Give nothing: a page that is cut off cannot be told from a damaged one."""
        yield from ()

    def _open(self, head: bytes) -> None:
        if len(head) < _HEAD.size or not head.startswith(_MAGIC):
            raise AudioError("Error: Ogg audio other than Opus is not supported.")
        _, _, channels, self._to_skip, _, _, _ = _HEAD.unpack_from(head)
        if channels != 1:
            raise AudioError(MONO_ONLY)
        # What is skipped is skipped here: ffmpeg's decoders do not agree on who does it.
        setup = head[:_PRE_SKIP_AT] + bytes(2) + head[_PRE_SKIP_AT + 2 : _HEAD.size]
        self._codec = PacketDecoder("opus", setup)

    def _within(self, samples: Samples, packet: Packet) -> Samples:
        """Cut off what an encoder put before the sound, and what filled its last packet up."""
        self._decoded += len(samples)
        if packet.is_last and packet.position >= 0:
            surplus = self._decoded - packet.position
            samples = samples[: max(0, len(samples) - max(0, surplus))]
        skipped = min(self._to_skip, len(samples))
        self._to_skip -= skipped
        return samples[skipped:]
