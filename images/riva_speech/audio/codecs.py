"""Decoders: bytes in pieces of any size to mono float32 samples in [-1, 1]."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from riva_speech.audio import pcm
from riva_speech.audio.encoding import AudioFormat, Encoding
from riva_speech.audio.flac import FlacDecoder
from riva_speech.audio.opus import OggOpusDecoder

if TYPE_CHECKING:
    from collections.abc import Iterator

    from riva_speech.audio.features import Samples


class Decoder(Protocol):
    """Decodes one stream.

    Samples are given bit by bit, for a few bytes may stand for hours of them: whoever asks for the
    next ones bounds what there is.
    """

    def decode(self, data: bytes) -> Iterator[Samples]:
        """Give the samples that are complete with these bytes."""

    def finish(self) -> Iterator[Samples]:
        """Give what is left at the end of the stream."""


def decoder_for(audio_format: AudioFormat) -> Decoder:
    """Return a new decoder."""
    if audio_format.encoding is Encoding.FLAC:
        return FlacDecoder()
    if audio_format.encoding is Encoding.OGGOPUS:
        return OggOpusDecoder()
    if audio_format.encoding is Encoding.MULAW:
        return pcm.CompandedDecoder(pcm.MULAW)
    if audio_format.encoding is Encoding.ALAW:
        return pcm.CompandedDecoder(pcm.ALAW)
    return pcm.PcmDecoder(audio_format.sample_type)
