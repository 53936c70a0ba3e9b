from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from riva_speech.audio.codecs import decoder_for
from riva_speech.audio.encoding import AudioError, Encoding
from riva_speech.audio.stream import AudioStream, DeclaredFormat, decode_all
from support.audio import babble, flac, pcm16, wav

RATE = 16000
if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

NOTHING_SAID = DeclaredFormat()
SECOND = babble(1.0)
ROUNDING = 2 / 32768


def riff(*chunks: tuple[bytes, bytes]) -> bytes:
    """Return a RIFF file of these chunks."""
    body = b"".join(
        name + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2)
        for name, data in chunks
    )
    return b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WAVE" + body


def fmt(tag: int, bits: int, *, rate: int = RATE, channels: int = 1) -> tuple[bytes, bytes]:
    """Return a format chunk."""
    frame = channels * bits // 8
    return b"fmt ", struct.pack("<HHIIHH", tag, channels, rate, rate * frame, frame, bits)


@settings(max_examples=30)
@given(st.lists(st.integers(0, 2000), max_size=12))
def test_a_wav_file_may_come_in_any_pieces(cuts: list[int]) -> None:
    """Header and samples are read alike however the file is cut, with chunks before its data."""
    samples = SECOND[:900]
    file = riff((b"LIST", b"x" * 35), fmt(1, 16), (b"fact", b"1234"), (b"data", pcm16(samples)))
    stream, pieces, begin = AudioStream(NOTHING_SAID, RATE), [], 0

    for cut in [*sorted(cuts), len(file)]:
        pieces.append(stream.accept(file[begin:cut]))
        begin = max(begin, cut)
    pieces.append(stream.finish())

    np.testing.assert_allclose(np.concatenate(pieces), samples, atol=ROUNDING)


def test_what_follows_the_data_is_not_audio() -> None:
    """Tags behind a WAV file's data are left out."""
    file = riff(fmt(1, 16), (b"data", pcm16(SECOND)), (b"LIST", b"y" * 1000))

    assert len(decode_all(file, NOTHING_SAID, RATE)) == len(SECOND)


@pytest.mark.parametrize("size", [0, 0xFFFFFFFF])
def test_a_wav_stream_of_unknown_length_is_read_to_its_end(size: int) -> None:
    """A header written before the audio was known does not cut it off."""
    header = riff(fmt(1, 16), (b"data", b""))[:-4] + struct.pack("<I", size)

    assert len(decode_all(header + pcm16(SECOND), NOTHING_SAID, RATE)) == len(SECOND)


def test_an_extensible_wav_header_is_read() -> None:
    """WAVE_FORMAT_EXTENSIBLE names its encoding in the sub-format."""
    name, plain = fmt(0xFFFE, 16)
    chunk = plain + struct.pack("<HHI", 22, 16, 4) + struct.pack("<H", 1) + bytes(14)

    file = riff((name, chunk), (b"data", pcm16(SECOND)))

    assert len(decode_all(file, NOTHING_SAID, RATE)) == len(SECOND)


def with_metadata(file: bytes) -> bytes:
    """Return a FLAC file with a padding block of 5000 bytes behind its first block."""
    first = 4 + 4 + int.from_bytes(file[5:8], "big")
    padding = b"\x01" + (5000).to_bytes(3, "big") + bytes(5000)
    return file[:first] + padding + file[first:]


@pytest.mark.parametrize("piece", [1, 200, 1024, 10**6])
@pytest.mark.parametrize("seconds", [0.1, 0.4, 1.0, 3.0])
@pytest.mark.parametrize("dress", [bytes, with_metadata])
def test_flac_is_decoded_without_loss(
    piece: int, seconds: float, dress: Callable[[bytes], bytes]
) -> None:
    """A FLAC file of one frame or many gives all its samples, in pieces of any size."""
    samples = babble(seconds)
    file = dress(flac(samples))
    stream = AudioStream(NOTHING_SAID, RATE)

    pieces = [stream.accept(file[i : i + piece]) for i in range(0, len(file), piece)]

    decoded = np.concatenate([*pieces, stream.finish()])
    np.testing.assert_array_equal(decoded, np.frombuffer(pcm16(samples), "<i2") / np.float32(32768))


@pytest.mark.recordings
def test_flac_files_of_others_are_decoded_without_loss(recordings: Path) -> None:
    """Files from another encoder give as many samples as they say they have."""
    files = sorted((recordings / "digits").glob("*.flac"))[::100]

    for file in files:
        data = file.read_bytes()
        total = int.from_bytes(data[21:26], "big") & (1 << 36) - 1  # STREAMINFO's total samples
        assert len(decode_all(data, NOTHING_SAID, RATE)) == total, file


@pytest.mark.parametrize(
    ("encoding", "codec"), [(Encoding.MULAW, "pcm_mulaw"), (Encoding.ALAW, "pcm_alaw")]
)
def test_companded_codes_equal_ffmpeg_s(encoding: Encoding, codec: str) -> None:
    """Each of the 256 codes stands for the value that ffmpeg gives it."""
    codes = bytes(range(256))
    context = av.AudioCodecContext.create(codec, "r")
    assert isinstance(context, av.AudioCodecContext)
    context.sample_rate, context.layout = 8000, "mono"
    (frame,) = context.decode(av.Packet(codes))

    decoded = decoder_for(encoding).decode(codes)

    np.testing.assert_array_equal(decoded, frame.to_ndarray()[0] / np.float32(32768))


@pytest.mark.parametrize("rate", [8000, 11025, 22050, 32000, 44100, 48000])
def test_other_rates_are_resampled(rate: int) -> None:
    """A tone keeps its pitch, loudness and length at the model's rate, in small pieces too."""
    tone = 0.5 * np.sin(2 * np.pi * 440 * np.arange(rate) / rate).astype(np.float32)
    stream, data = AudioStream(DeclaredFormat(Encoding.LINEAR_PCM, rate), RATE), pcm16(tone)

    pieces = [stream.accept(data[i : i + 333]) for i in range(0, len(data), 333)]

    samples = np.concatenate([*pieces, stream.finish()])
    expected = 0.5 * np.sin(2 * np.pi * 440 * np.arange(RATE) / RATE)
    assert abs(len(samples) - RATE) <= 1
    np.testing.assert_allclose(samples[500:15500], expected[500:15500], atol=2e-3)


@pytest.mark.parametrize(
    "declared",
    [
        DeclaredFormat(Encoding.LINEAR_PCM, 8000),
        DeclaredFormat(Encoding.FLAC),
        DeclaredFormat(None, 1),
    ],
)
def test_a_declaration_that_differs_from_the_header_is_refused(declared: DeclaredFormat) -> None:
    """Riva's own sentence tells of a mismatch."""
    with pytest.raises(AudioError, match="config format doesn't match with header format"):
        decode_all(wav(SECOND), declared, RATE)


def test_a_declaration_that_agrees_with_the_header_is_fine() -> None:
    """Clients may send the header and say the same."""
    declared = DeclaredFormat(Encoding.LINEAR_PCM, RATE)

    assert len(decode_all(wav(SECOND), declared, RATE)) == len(SECOND)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (wav(np.repeat(SECOND, 2), channels=2), "mono"),
        (wav(SECOND, rate=96000), "sample rate 96000"),
        (riff(fmt(3, 32), (b"data", b"")), "not supported"),
        (riff((b"data", pcm16(SECOND))), "no format"),
        (riff((b"fmt ", b"\x01\0"), (b"data", b"")), "cut short"),
        (riff((b"LIST", bytes(1 << 17)))[: 1 << 16] + bytes(100), "does not end"),
        (riff(fmt(1, 16))[:30], "within its header"),
        (b"OggS" + bytes(100), "OGGOPUS"),
        (b"#!/bin/sh\necho hello\n" * 9, "no WAV or FLAC header"),
    ],
)
def test_what_cannot_be_decoded_says_why(data: bytes, said: str) -> None:
    """Every refusal names its reason."""
    with pytest.raises(AudioError, match=said):
        decode_all(data, NOTHING_SAID, RATE)


@settings(max_examples=150)
@given(st.sampled_from([b"RIFF1234WAVE", b"fLaC", b""]), st.binary(max_size=400))
def test_hostile_bytes_give_samples_or_an_audio_error(beginning: bytes, rest: bytes) -> None:
    """Whatever comes, nothing but an AudioError comes back."""
    try:
        samples = decode_all(beginning + rest, DeclaredFormat(None, 0), RATE)
    except AudioError:
        return
    assert np.isfinite(samples).all()
