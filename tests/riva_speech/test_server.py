"""A real server process, through the official client."""

from __future__ import annotations

import shutil
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import grpc
import pytest
import riva.client
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from riva.client.proto import riva_asr_pb2, riva_audio_pb2

from riva_speech.asr.pipeline import OFFLINE
from support.audio import babble, flac, pcm16, wav
from support.client import (
    CHUNK,
    INVALID,
    config,
    cut,
    final_text,
    hold_a_stream,
    refusal,
    stream,
)
from support.programs import run, serving

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from google.protobuf.message import Message

    from riva_speech.asr.loading import Recognizer
    from support.audio import Samples

SAMPLES = babble(3.3)
SERVICE = riva_asr_pb2.DESCRIPTOR.services_by_name["RivaSpeechRecognition"]


def test_recognize_answers_as_the_pipeline_does(
    asr: riva.client.ASRService, recognizers: dict[str, Recognizer]
) -> None:
    """The offline RPC gives the words, times and confidences of the offline pipeline."""
    expected = recognizers[OFFLINE].recognize(SAMPLES)

    (result,) = asr.offline_recognize(wav(SAMPLES), config(enable_word_time_offsets=True)).results

    (alternative,) = result.alternatives
    assert alternative.transcript == f"{expected.transcript} "
    assert alternative.confidence == pytest.approx(expected.confidence, abs=1e-3)
    assert [(w.word, w.start_time, w.end_time) for w in alternative.words] == [
        (word.text, word.start_ms, word.end_ms) for word in expected.words
    ]
    assert all(0 < word.confidence <= 1 for word in alternative.words)
    assert result.audio_processed == pytest.approx(3.3, abs=0.01)
    assert result.channel_tag == 1


def test_word_times_come_only_when_asked_for(asr: riva.client.ASRService) -> None:
    """Without enable_word_time_offsets there are no words."""
    assert not asr.offline_recognize(wav(SAMPLES), config()).results[0].alternatives[0].words


@pytest.mark.parametrize(
    ("encode", "values"),
    [
        (wav, {}),
        (flac, {}),
        (wav, {"encoding": riva_audio_pb2.LINEAR_PCM, "sample_rate_hertz": 16000}),
        (pcm16, {"encoding": riva_audio_pb2.LINEAR_PCM, "sample_rate_hertz": 16000}),
        (pcm16, {"sample_rate_hertz": 16000}),
    ],
)
def test_the_same_audio_gives_the_same_words_in_every_dress(
    asr: riva.client.ASRService,
    recognizers: dict[str, Recognizer],
    encode: Callable[[Samples], bytes],
    values: dict[str, int],
) -> None:
    """Headers are found where nothing is said, and bare samples are believed."""
    expected = recognizers[OFFLINE].recognize(SAMPLES).transcript

    response = asr.offline_recognize(encode(SAMPLES), config(**values))

    assert response.results[0].alternatives[0].transcript.strip() == expected


@pytest.mark.parametrize("size", [200, CHUNK, 10**6])
def test_a_stream_gives_the_words_of_its_pipeline(
    asr: riva.client.ASRService, recognizers: dict[str, Recognizer], size: int
) -> None:
    """A stream in pieces of any size, header cut included, gives the streaming pipeline's words."""
    expected = recognizers["online"].recognize(SAMPLES).transcript

    assert final_text(stream(asr, cut(wav(SAMPLES), size))).split() == expected.split()


def test_each_chunk_is_answered_and_the_end_too(asr: riva.client.ASRService) -> None:
    """There is one response a chunk, and one more that holds the last final."""
    chunks = cut(wav(SAMPLES))

    responses = stream(asr, chunks, interim=True)

    assert len(responses) == len(chunks) + 1
    assert [result.is_final for result in responses[-1].results] == [True]


def test_interim_results_come_only_when_asked_for(asr: riva.client.ASRService) -> None:
    """Interims carry a stability and no confidence; finals the reverse."""
    with_interim = stream(asr, cut(wav(SAMPLES)), interim=True)
    without = stream(asr, cut(wav(SAMPLES)))

    results = [result for response in with_interim for result in response.results]
    interims = [result for result in results if not result.is_final]
    assert interims
    assert all(0 < one.stability <= 1 and not one.alternatives[0].confidence for one in interims)
    assert all(r.is_final for response in without for r in response.results)
    assert all(r.alternatives[0].confidence > 0 for r in results if r.is_final and r.alternatives)


def test_a_pause_ends_an_utterance(asr: riva.client.ASRService) -> None:
    """The endpointing of a request decides when a final comes: before the stream's end."""
    endpointing = riva.client.EndpointingConfig(stop_history=80, stop_threshold=0.0)

    responses = stream(asr, cut(wav(SAMPLES)), endpointing_config=endpointing)

    finals = [i for i, one in enumerate(responses) if any(r.is_final for r in one.results)]
    assert finals[0] < len(responses) - 1


def test_a_stream_without_audio_ends_with_an_empty_final(asr: riva.client.ASRService) -> None:
    """No audio is no error: the stream's one response has a final without alternatives."""
    (response,) = stream(asr, [])

    assert [(one.is_final, len(one.alternatives)) for one in response.results] == [(True, 0)]


def test_models_are_listed_for_clients(asr: riva.client.ASRService) -> None:
    """The list has what official clients read: name, type and language; other names give none."""

    def listed(name: str) -> dict[str, tuple[str, str]]:
        request = riva_asr_pb2.RivaSpeechRecognitionConfigRequest(model_name=name)
        found = asr.stub.GetRivaSpeechRecognitionConfig(request).model_config
        return {
            one.model_name: (one.parameters["type"], one.parameters["language_code"])
            for one in found
        }

    offline = {"tiny-offline": ("offline", "en-US")}
    assert listed("") == {"tiny-streaming": ("online", "en-US"), **offline}
    assert listed("tiny-offline") == listed("tiny-offline-asr-bls-ensemble") == offline
    assert not listed("no-such-model")


@pytest.mark.parametrize("name", ["tiny-offline", "tiny-offline-asr-bls-ensemble"])
def test_a_model_is_found_with_or_without_its_suffix(
    asr: riva.client.ASRService, name: str
) -> None:
    """Newer clients ask for the ensemble's name."""
    assert asr.offline_recognize(wav(SAMPLES), config(model=name)).results


def test_a_streaming_model_recognises_whole_recordings_too(
    asr: riva.client.ASRService, recognizers: dict[str, Recognizer]
) -> None:
    """As with the official server, a streaming model may be named in Recognize."""
    response = asr.offline_recognize(wav(SAMPLES), config(model="tiny-streaming"))

    expected = recognizers["online"].recognize(SAMPLES).transcript
    assert response.results[0].alternatives[0].transcript.strip() == expected


def test_request_ids_are_echoed(asr: riva.client.ASRService) -> None:
    """A response bears the id of its request, and none where none was given."""
    request = riva_asr_pb2.RecognizeRequest(config=config(), audio=wav(SAMPLES))
    assert not asr.stub.Recognize(request).HasField("id")
    request.id.value = "42"
    assert asr.stub.Recognize(request).id.value == "42"


def test_an_unavailable_model_is_told_in_riva_s_words(asr: riva.client.ASRService) -> None:
    """The official tests know one sentence word for word; a wrong name is told what there is."""
    russian = config()
    russian.language_code = "ru-RU"

    code, text = refusal(lambda: asr.offline_recognize(wav(SAMPLES), russian))
    assert code is INVALID
    assert text == "Error: Unavailable model requested. Lang: ru-RU, Type: offline"

    code, text = refusal(lambda: stream(asr, [], model="tiny-offline"))
    assert code is INVALID
    assert text.startswith(
        "Error: Unavailable model requested given these parameters: "
        "language_code=en-US; sample_rate=0; type=online; name=tiny-offline; Available: "
    )
    assert "tiny-offline (en-US, offline)" in text


@pytest.mark.parametrize(
    ("audio", "values", "said"),
    [
        (b"", {}, "empty audio"),
        (b"hello world, this is no audio", {}, "no WAV, FLAC or Ogg header"),
        (
            wav(SAMPLES),
            {"sample_rate_hertz": 8000},
            "config format doesn't match with header format",
        ),
        (wav(SAMPLES, channels=2), {}, "mono"),
        (pcm16(SAMPLES), {"sample_rate_hertz": 4000}, "out of range"),
        (pcm16(SAMPLES), {"sample_rate_hertz": -5}, "invalid sample rate"),
        (pcm16(SAMPLES), {"audio_channel_count": 2}, "mono"),
        (pcm16(SAMPLES), {"encoding": riva_audio_pb2.OGGOPUS}, "config format doesn't match"),
        (pcm16(SAMPLES), {"encoding": 77}, "encoding 77 is not supported"),
    ],
)
def test_bad_audio_is_an_invalid_argument(
    asr: riva.client.ASRService, audio: bytes, values: dict[str, int], said: str
) -> None:
    """Both RPCs refuse what they cannot decode with the same sentence."""
    code, text = refusal(lambda: asr.offline_recognize(audio, config(**values)))
    assert (code, said in text) == (INVALID, True), text
    if audio:
        assert refusal(lambda: stream(asr, cut(audio), **values)) == (code, text)


@pytest.mark.parametrize(
    ("method", "sent"),
    [
        ("Recognize", riva_asr_pb2.RecognizeRequest()),
        ("StreamingRecognize", riva_asr_pb2.StreamingRecognizeRequest(audio_content=b"00")),
    ],
)
def test_a_refusal_is_a_status_and_no_message(uri: str, method: str, sent: Message) -> None:
    """No response goes before it, not even an empty one, which some clients would take for theirs.

    The method is called as one of several responses, which shows each that comes.
    """
    name = f"/{SERVICE.full_name}/{method}"
    heard: list[bytes] = []
    with grpc.insecure_channel(uri) as channel:
        answers = channel.unary_stream(name)(sent.SerializeToString())
        with pytest.raises(grpc.RpcError) as caught:
            heard.extend(answers)

    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert heard == []


@pytest.mark.parametrize("method", SERVICE.methods_by_name)
def test_every_method_of_the_service_is_there(uri: str, method: str) -> None:
    """What reflection lists is answered or refused, and not unknown."""
    name = f"/{SERVICE.full_name}/{method}"
    with grpc.insecure_channel(uri) as channel:
        answers = channel.stream_stream(name)(iter([b""]))
        try:
            list(answers)
        except grpc.RpcError:
            assert answers.code() == grpc.StatusCode.INVALID_ARGUMENT


def test_the_order_of_a_stream_s_messages_is_checked(asr: riva.client.ASRService) -> None:
    """The first message configures, the later ones carry audio, and there must be a first."""
    audio = riva_asr_pb2.StreamingRecognizeRequest(audio_content=wav(SAMPLES))
    first = riva_asr_pb2.StreamingRecognizeRequest(
        streaming_config=riva_asr_pb2.StreamingRecognitionConfig(config=config())
    )
    for messages, said in (
        ([], "no messages received"),
        ([audio], "first message must contain streaming_config"),
        ([first, first], "must carry audio_content"),
    ):
        code, text = refusal(lambda m=messages: list(asr.stub.StreamingRecognize(iter(m))))
        assert (code, said in text) == (INVALID, True)


@pytest.mark.parametrize("value", [float("nan"), 2.0, -0.5])
def test_impossible_endpointing_is_refused(asr: riva.client.ASRService, value: float) -> None:
    """A threshold is a share; NaN is none."""
    endpointing = riva.client.EndpointingConfig(stop_threshold=value)

    code, text = refusal(lambda: stream(asr, [], endpointing_config=endpointing))

    assert (code, "endpointing_config" in text) == (INVALID, True)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.binary(max_size=300), max_size=5), st.sampled_from([0, 8000, 16000]))
def test_random_streams_get_an_answer_or_an_error(
    asr: riva.client.ASRService, chunks: list[bytes], rate: int
) -> None:
    """Whatever is sent, the call ends with responses or INVALID_ARGUMENT."""
    try:
        responses, code = stream(asr, chunks, sample_rate_hertz=rate), None
    except grpc.RpcError as error:
        responses, code = [], error.code()

    assert responses or code is INVALID


def test_streams_do_not_disturb_each_other(
    asr: riva.client.ASRService, recognizers: dict[str, Recognizer]
) -> None:
    """Eight different streams at once each get their own words."""
    signals = [babble(2.0 + seed / 5, seed=seed) for seed in range(8)]
    expected = [recognizers["online"].recognize(signal).transcript.split() for signal in signals]

    with ThreadPoolExecutor(8) as pool:
        texts = pool.map(lambda signal: final_text(stream(asr, cut(wav(signal)))), signals)

    assert [text.split() for text in texts] == expected


def test_health_and_reflection_are_served(uri: str) -> None:
    """Probes and grpcurl find what they look for."""
    with grpc.insecure_channel(uri) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        reflection = reflection_pb2_grpc.ServerReflectionStub(channel)
        request = reflection_pb2.ServerReflectionRequest(list_services="")

        status = health.Check(health_pb2.HealthCheckRequest()).status
        (answer,) = reflection.ServerReflectionInfo(iter([request]))

    assert status == health_pb2.HealthCheckResponse.SERVING
    assert "nvidia.riva.asr.RivaSpeechRecognition" in {
        service.name for service in answer.list_services_response.service
    }


def test_a_full_server_refuses_at_once(tiny_repository: Path) -> None:
    """Above its limit a server answers RESOURCE_EXHAUSTED, and serves again once there is room."""
    with serving(tiny_repository, "--max_requests=1") as (uri, _):
        asr = riva.client.ASRService(riva.client.Auth(uri=uri))
        held = hold_a_stream(asr, wav(SAMPLES))

        code, text = refusal(lambda: asr.offline_recognize(wav(SAMPLES), config()))
        held.cancel()

        assert (code, "limit of 1" in text) == (grpc.StatusCode.RESOURCE_EXHAUSTED, True)
        assert eventually(lambda: bool(asr.offline_recognize(wav(SAMPLES), config()).results))


def eventually(check: object, seconds: float = 180) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            return bool(check())  # type: ignore[operator]  # a callable
        except grpc.RpcError:  # noqa: PERF203 - the waiting is the point
            time.sleep(0.05)
    return False


def test_sigterm_lets_running_streams_end(tiny_repository: Path) -> None:
    """A server that is told to stop answers what has begun, then ends with 0."""
    with serving(tiny_repository, "--drain_timeout=100") as (uri, process):
        asr = riva.client.ASRService(riva.client.Auth(uri=uri))
        call = hold_a_stream(asr, wav(SAMPLES), 3)

        process.send_signal(signal.SIGTERM)
        responses = list(call)

        assert responses[-1].results[0].is_final
        assert process.wait(timeout=100) == 0


def test_a_taken_port_is_exit_7(tiny_repository: Path, uri: str) -> None:
    """Two servers never share an address."""
    done = run("start-riva", f"--riva-uri={uri}", f"--model_repository={tiny_repository}")

    assert done.returncode == 7
    assert f"error: cannot listen on {uri}" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_empty_repository_is_exit_3(tmp_path: Path) -> None:
    """Nothing to serve is an error, and a missing folder too."""
    for folder in (tmp_path, tmp_path / "missing"):
        done = run("start-riva", "--riva-uri=127.0.0.1:0", f"--model_repository={folder}")

        assert done.returncode == 3
        assert "hint:" in done.stderr


@pytest.mark.parametrize(
    ("file", "code"),
    [
        ("riva-onnx-tiny-offline-am-streaming-offline/1/model.onnx", 9),
        ("riva-onnx-tiny-offline-am-streaming-offline/config.pbtxt", 9),
        ("tiny-offline-asr-bls-ensemble/1/riva_bls_config.yaml", 9),
        ("tiny-offline-asr-bls-ensemble/1/featurizer.npz", 9),
    ],
)
def test_a_damaged_repository_is_never_ready(
    tmp_path: Path, tiny_repository: Path, file: str, code: int
) -> None:
    """A server whose model does not load names the file and ends."""
    repository = tmp_path / "models"
    shutil.copytree(tiny_repository, repository)
    (repository / file).write_bytes(b"\x00garbage: [")

    done = run("start-riva", "--riva-uri=127.0.0.1:0", f"--model_repository={repository}")

    assert (done.returncode, file in done.stderr) == (code, True), done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "option",
    ["--asr_service=", "--asr_service=maybe", "--riva-uri=nowhere", "--tts_service=true", "--x=1"],
)
def test_wrong_options_are_exit_2(option: str) -> None:
    """A flag that cannot be right is told before anything starts."""
    assert run("start-riva", option).returncode == 2


def test_the_log_has_a_line_a_request_and_no_words(tiny_repository: Path) -> None:
    """Requests are logged with model, durations and status; what was said is not."""
    with serving(tiny_repository) as (uri, process):
        asr = riva.client.ASRService(riva.client.Auth(uri=uri))
        text = asr.offline_recognize(wav(SAMPLES), config()).results[0].alternatives[0].transcript
        process.terminate()
        log = process.communicate(timeout=100)[1]

    assert "Riva server is ready..." in log
    assert "Recognize model=tiny-offline audio=3.300s took=" in log
    assert text.strip() not in log
