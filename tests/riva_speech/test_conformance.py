from __future__ import annotations

import asyncio
import json
import struct
import time
from typing import TYPE_CHECKING

import grpc
import pytest
import riva.client
from riva.client.proto import riva_asr_pb2, riva_asr_pb2_grpc, riva_audio_pb2

from riva_speech.audio.stream import DeclaredFormat, decode_all
from support import official
from support.audio import flac, ogg_opus, pcm16
from support.client import INVALID, Request, cut, final_text, refusal, results, streaming_config
from support.digits import SAID, SAMPLE

if TYPE_CHECKING:
    from pathlib import Path

SECONDS = 3.95
UNAVAILABLE = "Error: Unavailable model requested. Lang: ru-RU, Type: {}"

# What the integration tests of python-clients ask of each script, beside the plain call.
FLAGS = [
    "",
    "--automatic-punctuation",
    "--max-alternatives 2",
    "--no-verbatim-transcripts",
    "--boosted-lm-words AntiBERTa --boosted-lm-words ABlooper --boosted-lm-score 4.0",
    "--language-code en-US",
    "--model-name {model}",
    "--model-name {model}-asr-bls-ensemble --language-code en-US",
    "--profanity-filter",
    (
        "--start-history 200 --start-threshold 0.1 --stop-history 800 --stop-threshold 0.9 "
        "--stop-history-eou 240 --stop-threshold-eou 0.9"
    ),
    (
        "--custom-configuration "
        "enable_vad_endpointing:true,neural_vad.onset:0.65,apply_partial_itn:true"
    ),
]


def finals(printed: str, mark: str = "## ") -> str:
    """Return the final transcripts of a print, joined."""
    lines = [line.partition(mark) for line in printed.splitlines()]
    return " ".join(text.strip() for _, found, text in lines if found)


def offline_text(printed: str) -> str:
    return finals(printed, "Final transcript: ")


def model_name(uri: str, kind: str) -> str:
    return official.list_models(uri, kind)["en-US"][0]


def test_models_are_listed_by_language(digits: str) -> None:
    """--list-models finds the streaming model and the offline one, under their language."""
    for kind, name in (("online", "streaming"), ("offline", "offline")):
        assert official.list_models(digits, kind) == {"en-US": [f"digits-en-US-asr-{name}"]}


@pytest.mark.parametrize("flags", FLAGS)
def test_transcribe_file(digits: str, flags: str) -> None:
    """The finals are what was said, whatever flags the script gets."""
    given = flags.format(model=model_name(digits, "online")).split()

    assert finals(official.transcribe_file(digits, SAMPLE, *given)) == SAID


@pytest.mark.parametrize("flags", FLAGS)
def test_transcribe_file_offline(digits: str, flags: str) -> None:
    """The response's JSON and the final transcript are what the script prints."""
    given = flags.format(model=model_name(digits, "offline")).split()

    printed = official.transcribe_file_offline(digits, SAMPLE, *given)

    assert offline_text(printed) == SAID
    (result,) = json.loads(printed.partition("Final transcript:")[0])["results"]
    assert result["channelTag"] == 1
    assert result["audioProcessed"] == pytest.approx(SECONDS, abs=0.01)
    assert result["alternatives"][0]["transcript"] == f"{SAID} "
    assert 0.5 < result["alternatives"][0]["confidence"] <= 1


@pytest.mark.parametrize("flags", FLAGS)
def test_the_streaming_client(digits: str, tmp_path: Path, flags: str) -> None:
    """The file that it writes has the finals."""
    given = flags.format(model=model_name(digits, "online")).split()

    (written,) = official.streaming_client(
        digits, SAMPLE, tmp_path, *given, clients=1, iterations=1
    )

    assert finals(written, "Transcript 0: ") == SAID


def test_intermediate_transcripts_are_shown(digits: str) -> None:
    """--show-intermediate prints some, and they grow into the finals."""
    printed = official.transcribe_file(digits, SAMPLE, "--show-intermediate")

    assert ">> four" in printed
    assert "## four" in printed


def test_stability_and_confidence_are_shown(digits: str) -> None:
    """--print-confidence prints both, each at least once."""
    printed = official.transcribe_file(digits, SAMPLE, "--print-confidence")

    assert "Stability:    0.1000" in printed
    assert "Confidence:    0.9" in printed


def test_word_times_are_a_table(digits: str, tmp_path: Path) -> None:
    """--word-time-offsets prints each word with its times, multiples of a step, and confidence."""
    (written,) = official.streaming_client(
        digits, SAMPLE, tmp_path, "--word-time-offsets", clients=1, iterations=1
    )

    rows = [line.split() for line in written.splitlines()]
    assert ["Word", "Start", "(ms)", "End", "(ms)", "Confidence"] in rows
    table = [row for row in rows if len(row) == 4 and row[0] in SAID.split()]
    assert [row[0] for row in table] == SAID.split()
    times = [int(row[i]) for row in table for i in (1, 2)]
    assert times == sorted(times)
    assert all(time % 80 == 0 for time in times)
    assert times[-1] <= 1000 * SECONDS
    assert all(0 < float(row[3]) <= 1 for row in table)


def test_clients_and_iterations_have_files_of_their_own(digits: str, tmp_path: Path) -> None:
    """--num-clients 2 --num-iterations 2: two files, each with the transcripts of two rounds."""
    files = official.streaming_client(digits, SAMPLE, tmp_path, clients=2, iterations=2)

    assert [finals(written, "Transcript 0: ") for written in files] == [f"{SAID} {SAID}"] * 2


def test_a_missing_language_is_told_in_the_asserted_words(digits: str) -> None:
    """The official tests look for these texts in what the scripts print, quote to quote."""
    russian = ("--language-code", "ru-RU")
    with pytest.raises(grpc.RpcError) as caught:
        official.transcribe_file(digits, SAMPLE, *russian)
    assert f'details = "{UNAVAILABLE.format("online")}"' in str(caught.value)

    code, text = refusal(lambda: official.transcribe_file_offline(digits, SAMPLE, *russian))
    assert (code, text) == (INVALID, UNAVAILABLE.format("offline"))


@pytest.mark.parametrize(
    ("flags", "code"),
    [
        ("", 0),
        ("--language-code ru-RU", 4),
        ("--model-name nothing", 4),
        ("--speaker-diarization", 4),
        ("--custom-configuration no_such_key:1", 4),
        ("--stop-threshold 7", 4),
    ],
)
def test_scripts_end_with_their_codes(digits: str, flags: str, code: int) -> None:
    """Whoever runs a script learns by its exit code whose fault it was."""
    assert official.exit_code(digits, SAMPLE, *flags.split()) == code


def test_a_simulated_microphone_is_heard(digits: str) -> None:
    """--simulate-realtime takes as long as the recording, and hears it."""
    began = time.monotonic()

    printed = official.transcribe_file(digits, SAMPLE, "--simulate-realtime")

    assert finals(printed) == SAID
    assert time.monotonic() - began >= 0.95 * SECONDS


@pytest.mark.parametrize("frames", [1, 100, 1600, 10**6])
def test_chunks_may_be_of_any_size(digits: str, frames: int) -> None:
    """Chunks cut the header and the words anywhere; translation clients send 100 frames."""
    size = frames if frames > 1 else 37  # which is shorter than the header

    printed = official.transcribe_file(digits, SAMPLE, f"--file-streaming-chunk={size}")

    assert finals(printed) == SAID


def with_chunks(wav: bytes, offset: int) -> bytes:
    """Return a WAV file whose data begin at an offset, behind a list of what ffmpeg wrote."""
    listed = b"INFO" + bytes(offset - 44 - 12)
    chunk = b"LIST" + struct.pack("<I", len(listed)) + listed
    return wav[:36] + chunk + wav[36:]


@pytest.mark.parametrize("offset", [78, 110])
def test_the_headers_of_the_official_samples_are_read(
    digits: str, tmp_path: Path, offset: int
) -> None:
    """Their audio begins at byte 78 or 110, behind another chunk."""
    file = tmp_path / "sample.wav"
    file.write_bytes(with_chunks(SAMPLE.read_bytes(), offset))

    assert finals(official.transcribe_file(digits, file, "--file-streaming-chunk=50")) == SAID
    assert offline_text(official.transcribe_file_offline(digits, file)) == SAID


@pytest.mark.parametrize("encode", [flac, ogg_opus])
def test_other_files_are_streamed_as_bytes(digits: str, tmp_path: Path, encode: object) -> None:
    """What is no WAV file the library cuts by bytes, 1600 at once, and says nothing of it."""
    file = tmp_path / "sample"
    samples = decode_all(SAMPLE.read_bytes(), DeclaredFormat(), 16000)
    file.write_bytes(encode(samples))  # type: ignore[operator]  # a function

    assert finals(official.transcribe_file(digits, file)) == SAID
    assert offline_text(official.transcribe_file_offline(digits, file)) == SAID


def test_the_c_client_s_requests_are_understood(digits: str) -> None:
    """It says encoding and rate, sends the header all the same, and counts a response a chunk."""
    said = streaming_config(
        interim=True,
        encoding=riva_audio_pb2.LINEAR_PCM,
        sample_rate_hertz=16000,
        audio_channel_count=1,
        enable_automatic_punctuation=True,
        verbatim_transcripts=True,
        enable_word_time_offsets=True,
        enable_separate_recognition_per_channel=False,
    )
    chunks = cut(SAMPLE.read_bytes())
    stub = riva_asr_pb2_grpc.RivaSpeechRecognitionStub(grpc.insecure_channel(digits))
    messages = [Request(streaming_config=said), *(Request(audio_content=one) for one in chunks)]

    responses = list(stub.StreamingRecognize(iter(messages)))

    assert len(responses) - len(chunks) in (0, 1)
    assert final_text(responses).split() == SAID.split()
    assert all(one.channel_tag == 1 for one in results(responses, final=True))


def test_coroutines_are_served_too(digits: str) -> None:
    """The asynchronous client of the integration tests: lists, three streams at once, a recording.

    It says encoding and rate and sends bare samples, behind no header.
    """
    samples = decode_all(SAMPLE.read_bytes(), DeclaredFormat(), 16000)
    said = {"encoding": riva_audio_pb2.LINEAR_PCM, "sample_rate_hertz": 16000}
    audio = pcm16(samples)

    async def hear(stub: riva_asr_pb2_grpc.RivaSpeechRecognitionStub) -> str:
        first = Request(streaming_config=streaming_config(**said))
        pieces = [Request(audio_content=piece) for piece in cut(audio)]
        return final_text([one async for one in stub.StreamingRecognize(iter([first, *pieces]))])

    async def everything() -> tuple[list[str], str, int]:
        async with grpc.aio.insecure_channel(digits) as channel:
            stub = riva_asr_pb2_grpc.RivaSpeechRecognitionStub(channel)
            texts = await asyncio.gather(*(hear(stub) for _ in range(3)))
            config = riva.client.RecognitionConfig(language_code="en-US", **said)
            request = riva_asr_pb2.RecognizeRequest(config=config, audio=audio)
            whole = await stub.Recognize(request)
            listed = await stub.GetRivaSpeechRecognitionConfig(
                riva_asr_pb2.RivaSpeechRecognitionConfigRequest()
            )
            text = whole.results[0].alternatives[0].transcript
            return texts, text, len(listed.model_config)

    texts, whole, count = asyncio.run(everything())

    assert [text.split() for text in (*texts, whole)] == [SAID.split()] * 4
    assert count == 2


def test_a_future_gives_what_the_call_does(digits: str) -> None:
    """The library's asynchronous call of Recognize is the same request."""
    asr = riva.client.ASRService(riva.client.Auth(uri=digits))
    config = riva.client.RecognitionConfig(language_code="en-US")

    answer = asr.offline_recognize(SAMPLE.read_bytes(), config, future=True).result(timeout=120)

    assert answer.results[0].alternatives[0].transcript == f"{SAID} "
