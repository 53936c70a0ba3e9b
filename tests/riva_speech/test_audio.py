from __future__ import annotations

import io
import struct
import tracemalloc
from contextlib import suppress
from typing import TYPE_CHECKING

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from riva_speech.audio.codecs import decoder_for
from riva_speech.audio.encoding import AudioError, AudioFormat, Encoding
from riva_speech.audio.stream import AudioStream, DeclaredFormat, decode_all
from support.audio import babble, encoded, flac, ogg_opus, pcm16, wav

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
    return b"fmt ", struct.pack("<HHIIHH", tag, channels, rate, 0, frame & 0xFFFF, bits)


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

    decoded = np.concatenate(list(decoder_for(AudioFormat(encoding, 8000)).decode(codes)))

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
        (wav(SECOND, rate=96001), "sample rate 96001"),
        (wav(SECOND, rate=7999), "sample rate 7999"),
        (riff(fmt(1, 16, rate=2**31), (b"data", pcm16(SECOND))), "sample rate 2147483648"),
        (riff(fmt(1, 16, rate=0), (b"data", pcm16(SECOND))), "sample rate 0"),
        (riff(fmt(1, 16, channels=0), (b"data", pcm16(SECOND))), "mono"),
        (riff(fmt(1, 16, channels=65535), (b"data", pcm16(SECOND))), "mono"),
        (riff(fmt(3, 16), (b"data", b"")), "not supported"),
        (riff(fmt(0x55, 16), (b"data", b"")), "0x0055 with 16 bits is not supported"),
        (riff((b"data", pcm16(SECOND))), "no format"),
        (riff((b"fmt ", b"\x01\0"), (b"data", b"")), "cut short"),
        (riff((b"LIST", bytes(1 << 17)))[: 1 << 16] + bytes(100), "does not end"),
        (riff(fmt(1, 16))[:30], "within its header"),
        (b"OggS" + bytes(100), "Ogg stream is damaged"),
        (b"#!/bin/sh\necho hello\n" * 9, "no WAV, FLAC or Ogg header"),
        (flac(SECOND)[:42] + b"\x80\0\0\0" + bytes(5000), "FLAC audio cannot be decoded"),
    ],
)
def test_what_cannot_be_decoded_says_why(data: bytes, said: str) -> None:
    """Every refusal names its reason."""
    with pytest.raises(AudioError, match=said):
        decode_all(data, NOTHING_SAID, RATE)


@pytest.mark.parametrize("size", [2 * RATE, 0, (1 << 64) - 1], ids=["known", "none", "unknown"])
def test_a_file_over_four_gigabytes_is_read(size: int) -> None:
    """RF64 leaves its sizes to a chunk of its own; what follows audio of a known size is none."""
    rest = b"LIST" + struct.pack("<I", 4000) + bytes(4000) if size == 2 * RATE else b""
    data = b"data" + struct.pack("<I", 0xFFFFFFFF) + pcm16(SECOND) + rest
    name, plain = fmt(1, 16)
    sizes = struct.pack("<IQQQI", 28, 0, size, 0, 0)
    head = b"ds64" + sizes + name + struct.pack("<I", 16) + plain

    assert len(decode_all(b"RF64\xff\xff\xff\xffWAVE" + head + data, NOTHING_SAID, RATE)) == RATE


@pytest.mark.parametrize(
    ("tag", "bits", "codec"),
    [
        (1, 8, "pcm_u8"),
        (1, 24, "pcm_s24le"),
        (1, 32, "pcm_s32le"),
        (3, 32, "pcm_f32le"),
        (3, 64, "pcm_f64le"),
    ],
)
def test_every_sample_type_equals_ffmpeg_s(tag: int, bits: int, codec: str) -> None:
    """Random bytes stand for the numbers that ffmpeg gives them; what is none is silence."""
    data = np.random.default_rng(bits).bytes(bits // 8 * 999)
    context = av.AudioCodecContext.create(codec, "r")
    assert isinstance(context, av.AudioCodecContext)
    context.sample_rate, context.layout = RATE, "mono"
    (frame,) = context.decode(av.Packet(data))
    scale = {"u8": 2.0**-7, "s32": 2.0**-31, "flt": 1.0, "dbl": 1.0}[frame.format.name]
    with np.errstate(invalid="ignore"):  # some bytes are numbers that are none
        values = frame.to_ndarray()[0].astype(np.float64)
    expected = (values - (128 if bits == 8 else 0)) * scale

    decoded = decode_all(riff(fmt(tag, bits), (b"data", data)), NOTHING_SAID, RATE)

    np.testing.assert_allclose(decoded, np.clip(np.nan_to_num(expected), -1, 1), atol=1e-7)


@pytest.mark.parametrize("size", [1, 7, 10**6])
def test_samples_may_be_cut_anywhere(size: int) -> None:
    """Samples of three bytes come together again."""
    data = riff(fmt(1, 24), (b"data", np.random.default_rng(0).bytes(300)))
    stream = AudioStream(NOTHING_SAID, RATE)

    pieces = [stream.accept(data[i : i + size]) for i in range(0, len(data), size)]

    np.testing.assert_array_equal(np.concatenate(pieces), decode_all(data, NOTHING_SAID, RATE))


def test_flac_of_24_bits_is_decoded_without_loss() -> None:
    """All 24 bits count."""
    decoded = decode_all(encoded("flac", "flac", SECOND, RATE, "s32"), NOTHING_SAID, RATE)

    np.testing.assert_allclose(decoded, SECOND, atol=2**-23)


def test_a_flac_stream_is_heard_a_frame_after_it_was_said() -> None:
    """Samples wait for the beginning of the next frame, and for nothing more."""
    samples = babble(5.0)
    file = flac(samples)
    stream, heard, late = AudioStream(NOTHING_SAID, RATE), 0, []

    for begin in range(0, len(file), 100):
        heard += len(stream.accept(file[begin : begin + 100]))
        sent = len(samples) * begin / len(file)
        late.append(sent - heard)

    assert max(late) < 3 * 4608  # a frame of ffmpeg's encoder; loudness makes some longer
    assert sum(late) / len(late) < 1.5 * 4608


def test_a_cut_flac_stream_keeps_what_came() -> None:
    """Half a frame at the end is left out; the frames before it are heard."""
    samples = babble(3.0)
    file = flac(samples)

    decoded = decode_all(file[:-100], NOTHING_SAID, RATE)

    assert 0 < len(decoded) < len(samples)
    np.testing.assert_allclose(decoded, samples[: len(decoded)], atol=ROUNDING)


@pytest.mark.parametrize("piece", [1, 200, 10**6])
@pytest.mark.parametrize("rate", [RATE, 48000])
def test_ogg_opus_equals_ffmpeg_s(piece: int, rate: int) -> None:
    """An Ogg file in pieces of any size gives what ffmpeg reads from it as a whole."""
    samples = babble(2.3, rate=rate)
    file = ogg_opus(samples, rate)
    with av.open(io.BytesIO(file)) as container:
        frames = [frame.to_ndarray()[0] for frame in container.decode(audio=0)]
    stream = AudioStream(NOTHING_SAID, 48000)

    pieces = [stream.accept(file[i : i + piece]) for i in range(0, len(file), piece)]

    decoded, expected = np.concatenate([*pieces, stream.finish()]), np.concatenate(frames)
    np.testing.assert_allclose(decoded[: len(expected)], expected[: len(decoded)], atol=1e-6)
    # ffmpeg's muxer counts an encoder's delay twice where it knows no better.
    assert 0 <= len(decoded) - len(expected) <= 400


def test_opus_has_whatever_rate_a_client_says() -> None:
    """Clients say the rate before encoding, or the one that Opus decodes at, or none."""
    file = ogg_opus(SECOND)

    lengths = {
        len(decode_all(file, DeclaredFormat(Encoding.OGGOPUS, rate), RATE))
        for rate in (0, 16000, 48000)
    }

    assert len(lengths) == 1
    assert abs(lengths.pop() - RATE) < 200


def page(body: bytes, flags: int = 0) -> bytes:
    """Return an Ogg page of one packet, with its checksum reckoned bit by bit."""
    sizes = bytes([255] * (len(body) // 255) + [len(body) % 255])
    head = struct.pack("<4sBBqIII", b"OggS", 0, flags, -1, 7, 0, 0) + bytes([len(sizes)]) + sizes
    checksum = 0
    for byte in head + body:
        checksum ^= byte << 24
        for _ in range(8):
            checksum = (checksum << 1 ^ (0x04C11DB7 if checksum >> 31 else 0)) & 0xFFFFFFFF
    return head[:22] + struct.pack("<I", checksum) + head[26:] + body


def opus_head(channels: int = 1) -> bytes:
    return page(b"OpusHead" + struct.pack("<BBHIhB", 1, channels, 0, RATE, 0, 0), flags=2)


def test_opus_of_two_channels_is_refused() -> None:
    """Mono only, in the official words."""
    with pytest.raises(AudioError, match=r"Only mono audio supported\."):
        decode_all(opus_head(channels=2), NOTHING_SAID, RATE)


def test_another_codec_in_ogg_is_refused() -> None:
    """Ogg may hold Vorbis and others."""
    with pytest.raises(AudioError, match="Ogg audio other than Opus"):
        decode_all(page(b"\x01vorbis" + bytes(23), flags=2), NOTHING_SAID, RATE)


def test_a_damaged_page_is_told() -> None:
    """A flipped bit anywhere in a page is found."""
    file = ogg_opus(SECOND)
    for at in (6, 30, 200, len(file) - 1):
        damaged = bytearray(file)
        damaged[at] ^= 4
        with pytest.raises(AudioError, match="damaged"):
            decode_all(bytes(damaged), NOTHING_SAID, RATE)


def test_a_bomb_is_defused() -> None:
    """A message that stands for more audio than it may hold is refused before it fills memory."""
    silence = bytes([0xFB, 0x03]) + bytes(3)  # a packet of code 3: three frames of 20 ms
    bomb = opus_head() + page(b"OpusTags") + page(silence) * 1100
    stream = AudioStream(NOTHING_SAID, RATE, max_seconds=60)

    with pytest.raises(AudioError, match="a message holds more than 60 s of audio"):
        stream.accept(bomb)


STREAM_INFO = flac(SECOND)[:4] + b"\x00" + flac(SECOND)[5:42]


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    "data",
    [
        STREAM_INFO + bytes(16 << 20),  # metadata blocks of no length
        STREAM_INFO + b"\x80\0\0\0" + flac(SECOND)[-3000:-2000] + b"\xff\xf8" * (8 << 20),
        STREAM_INFO + b"\x80\0\0\0" + b"\xff\xf8\xc9\x08\0" * (3 << 20),
        b"RIFF1234WAVE" + bytes(16 << 20),  # chunks of no length
        b"OggS" + bytes(16 << 20),
        opus_head() + page(b"OpusTags") * 200_000,
    ],
    ids=["blocks", "syncs", "headers", "chunks", "pages", "tags"],
)
def test_long_nonsense_is_soon_done_with(data: bytes) -> None:
    """Work grows with what is sent, and not with its square."""
    with suppress(AudioError):
        assert not len(decode_all(data, NOTHING_SAID, RATE))


def test_a_stream_keeps_nothing_of_what_it_gave() -> None:
    """A whole file as the first message is not held until the stream ends."""
    stream = AudioStream(DeclaredFormat(Encoding.LINEAR_PCM, 16000), 16000)
    tracemalloc.start()
    try:
        assert len(stream.accept(bytes(8 << 20))) == 4 << 20
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert kept < 1 << 20


def test_a_stream_may_last_longer_than_a_message() -> None:
    """The bound is on what comes at once."""
    stream = AudioStream(DeclaredFormat(None, RATE), RATE, max_seconds=2)

    assert sum(len(stream.accept(pcm16(SECOND))) for _ in range(5)) == 5 * RATE


@pytest.mark.parametrize("declared", [Encoding.OGGOPUS, Encoding.FLAC])
def test_what_needs_a_header_is_refused_without_one(declared: Encoding) -> None:
    """Bare bytes cannot be what they are said to be."""
    with pytest.raises(AudioError, match="config format doesn't match"):
        decode_all(pcm16(SECOND), DeclaredFormat(declared, RATE), RATE)


FILES = [wav(SECOND), flac(SECOND), ogg_opus(SECOND), riff(fmt(3, 32), (b"data", bytes(999)))]


@settings(max_examples=150)
@given(st.sampled_from([b"RIFF1234WAVE", b"fLaC", b"OggS", b""]), st.binary(max_size=400))
def test_hostile_bytes_give_samples_or_an_audio_error(beginning: bytes, rest: bytes) -> None:
    """Whatever comes, nothing but an AudioError comes back."""
    with suppress(AudioError):
        assert np.isfinite(decode_all(beginning + rest, NOTHING_SAID, RATE)).all()


@settings(max_examples=200)
@given(
    st.sampled_from(FILES),
    st.lists(st.tuples(st.floats(0, 1), st.binary(min_size=1, max_size=6)), max_size=6),
    st.integers(1, 5000),
    st.sampled_from([DeclaredFormat(), DeclaredFormat(Encoding.LINEAR_PCM, RATE)]),
)
def test_damaged_files_give_samples_or_an_audio_error(
    file: bytes, changes: list[tuple[float, bytes]], piece: int, declared: DeclaredFormat
) -> None:
    """Files with some bytes changed, in pieces of any size, do no worse."""
    data = bytearray(file)
    for where, what in changes:
        # Most of what can go wrong stands near the beginning.
        at = int(where**3 * len(data))
        data[at : at + len(what)] = what
    stream = AudioStream(declared, RATE)

    with suppress(AudioError):
        for begin in range(0, len(data), piece):
            assert np.isfinite(stream.accept(bytes(data[begin : begin + piece]))).all()
        assert np.isfinite(stream.finish()).all()
