"""Sounds for tests that do not care what is said."""

from __future__ import annotations

import io
import wave

import numpy as np
from numpy.typing import NDArray

Samples = NDArray[np.float32]


def babble(seconds: float, *, rate: int = 16000, seed: int = 0) -> Samples:
    """Return noise whose loudness and colour change like those of syllables."""
    rng = np.random.default_rng(seed)
    time = np.arange(int(seconds * rate)) / rate
    pitch = 120 + 40 * np.sin(2 * np.pi * 0.7 * time)
    voice = np.sign(np.sin(2 * np.pi * np.cumsum(pitch) / rate))
    noise = rng.normal(0, 0.3, len(time))
    loudness = np.clip(np.sin(2 * np.pi * 3 * time + seed), 0, 1)
    return (0.2 * loudness * (voice + noise)).astype(np.float32)


def pcm16(samples: Samples) -> bytes:
    """Return samples as 16-bit little-endian PCM."""
    return np.clip(np.round(samples * 32768), -32768, 32767).astype("<i2").tobytes()


def wav(samples: Samples, rate: int = 16000, channels: int = 1) -> bytes:
    """Return samples as a WAV file of 16-bit PCM."""
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(pcm16(samples))
    return buffer.getvalue()


def encoded(container: str, codec: str, samples: Samples, rate: int, form: str = "s16") -> bytes:
    """Return samples as a file of ffmpeg's encoders; ``form`` is the samples' on their way."""
    import av  # noqa: PLC0415 - few tests need it

    buffer = io.BytesIO()
    with av.open(buffer, "w", format=container) as file:
        stream = file.add_stream(codec, rate=rate, layout="mono", format=form)
        if form == "s16":
            data = np.frombuffer(pcm16(samples), "<i2")
        else:  # 24 bits, in the upper ones of 32
            data = np.round(samples * 2**23).astype("<i4") << 8
        frame = av.AudioFrame.from_ndarray(data.reshape(1, -1), format=form, layout="mono")
        frame.sample_rate = rate
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            file.mux(packet)
    return buffer.getvalue()


def flac(samples: Samples, rate: int = 16000) -> bytes:
    """Return samples as a FLAC file of 16 bits."""
    return encoded("flac", "flac", samples, rate)


def ogg_opus(samples: Samples, rate: int = 16000) -> bytes:
    """Return samples as an Ogg file of Opus."""
    return encoded("ogg", "libopus", samples, rate)
