"""Decoding the packets of a codec with ffmpeg's libraries; nothing else here imports PyAV."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from riva_speech.audio.encoding import MONO_ONLY, AudioError

if TYPE_CHECKING:
    from av.audio.frame import AudioFrame

    from riva_speech.audio.features import Samples

_SCALES = {
    "s16": np.float32(1 / 2**15),
    "s16p": np.float32(1 / 2**15),
    "s32": np.float32(1 / 2**31),
    "s32p": np.float32(1 / 2**31),
    "flt": np.float32(1),
    "fltp": np.float32(1),
}


class PacketDecoder:
    """Decodes the packets of one stream, each by itself: none is held back.

    ``codec`` is ffmpeg's name for it, ``setup`` what ffmpeg calls its extradata.
    """

    def __init__(self, codec: str, setup: bytes) -> None:
        from av import AudioCodecContext  # noqa: PLC0415 - loads ffmpeg, which PCM never needs

        context = AudioCodecContext.create(codec, "r")
        assert isinstance(context, AudioCodecContext)
        context.extradata = setup
        # Threads would trade the first samples for more of the later ones.
        context.thread_count = 1
        self._codec, self._name = context, codec.upper()

    def decode(self, packet: bytes) -> Samples:
        """Return the samples of a packet.

        Raises:
            AudioError: It cannot be decoded, or is not mono.
        """
        from av import Packet  # noqa: PLC0415 - as above
        from av.error import FFmpegError  # noqa: PLC0415 - as above

        try:
            frames = self._codec.decode(Packet(packet))
        except FFmpegError:
            raise AudioError(f"Error: the {self._name} audio cannot be decoded.") from None
        return np.concatenate([np.zeros(0, np.float32), *map(_samples, frames)])


def _samples(frame: AudioFrame) -> Samples:
    if frame.layout.nb_channels != 1 or frame.format.name not in _SCALES:
        raise AudioError(MONO_ONLY)
    samples: Samples = frame.to_ndarray()[0].astype(np.float32) * _SCALES[frame.format.name]
    return samples
