from __future__ import annotations

import argparse
import asyncio
import base64
import json
import subprocess
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st
from riva.client.argparse_utils import (
    add_asr_config_argparse_parameters,
    add_connection_argparse_parameters,
    add_realtime_config_argparse_parameters,
)
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect
from websockets.typing import Subprotocol

from riva_speech.audio.stream import DeclaredFormat, decode_all
from riva_speech.server.realtime_session import new_session, streaming_config
from riva_speech.server.requests import RequestError
from riva_speech.server.session_keys import KEY_VARIABLE
from riva_speech.server.transcriptions import read_form
from support.audio import flac, ogg_opus, pcm16
from support.certificates import make
from support.digits import SAID
from support.ports import free_port
from support.programs import MODULES, serving

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from websockets.sync.client import ClientConnection

COMPLETED = "conversation.item.input_audio_transcription.completed"
DELTA = "conversation.item.input_audio_transcription.delta"


@pytest.fixture(scope="module")
def address(digits_repository: Path) -> Iterator[str]:
    """HOST:PORT of a server's HTTP service."""
    port = free_port()
    with serving(digits_repository, f"--http_port={port}", quiet=True):
        yield f"127.0.0.1:{port}"


def parse(address: str, *flags: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_connection_argparse_parameters(parser)
    add_asr_config_argparse_parameters(
        parser, max_alternatives=True, profanity_filter=True, word_time_offsets=True
    )
    add_realtime_config_argparse_parameters(parser)
    return parser.parse_args([*flags, "--server", address])


def official(address: str, pieces: list[bytes], *flags: str, forced: int = -1) -> str:
    """Return the final transcript of the official client, which realtime_asr_client.py runs."""
    from riva.client.realtime import RealtimeClientASR  # noqa: PLC0415 - sets logging up

    async def hear() -> str:
        client = RealtimeClientASR(parse(address, *flags))
        await client.connect()
        ends = [number == forced for number in range(len(pieces))]
        await asyncio.gather(client.send_audio_chunks(pieces, ends), client.receive_responses())
        await client.disconnect()
        return str(client.final_transcript)

    return asyncio.run(hear())


def cut(data: bytes, size: int = 3200) -> list[bytes]:
    return [data[i : i + size] for i in range(0, len(data), size)]


@pytest.mark.parametrize(
    "flags",
    [
        "",
        "--language-code en-US --automatic-punctuation --no-verbatim-transcripts",
        "--model-name digits-en-US-asr-streaming --max-alternatives 2 --profanity-filter",
        "--boosted-lm-words seven --boosted-lm-score 2",
        "--stop-history 400 --stop-threshold 0.8 --stop-history-eou 160 --stop-threshold-eou 0.8",
        "--custom-configuration apply_partial_itn:true,neural_vad.onset:0.6",
        "--word-time-offsets",
    ],
)
def test_the_official_realtime_client_is_served(
    address: str, digits_sample: Path, flags: str
) -> None:
    """Whatever it asks for, its last transcript is what was said."""
    assert official(address, cut(digits_sample.read_bytes()), *flags.split()) == SAID


def test_a_forced_end_of_the_official_client_is_heard(address: str, digits_sample: Path) -> None:
    """The stream goes on behind it, and its last transcript has both parts."""
    heard = official(address, cut(digits_sample.read_bytes()), forced=22)

    assert heard.split() == SAID.split()


def session_of(socket: ClientConnection, **values: object) -> dict[str, Any]:
    """Begin a dialogue with these values of the session, and return the server's answer."""
    assert json.loads(socket.recv(60))["type"] == "conversation.created"
    socket.send(json.dumps({"type": "transcription_session.update", "session": values}))
    return dict(json.loads(socket.recv(60)))


def append(socket: ClientConnection, audio: bytes, **values: object) -> None:
    data = base64.b64encode(audio).decode()
    socket.send(json.dumps({"type": "input_audio_buffer.append", "audio": data, **values}))
    socket.send(json.dumps({"type": "input_audio_buffer.commit"}))


def events_to_the_end(socket: ClientConnection) -> list[dict[str, Any]]:
    return [json.loads(text) for text in socket]


def open_socket(
    address: str,
    query: str = "?intent=transcription",
    subprotocols: list[Subprotocol] | None = None,
) -> ClientConnection:
    url = f"ws://{address}/v1/realtime{query}"
    return connect(url, subprotocols=subprotocols, open_timeout=60)


def test_a_dialogue_tells_deltas_utterances_and_the_whole(
    address: str, digits_sample: Path
) -> None:
    """Each utterance of a microphone is completed with its words, and the last event has all."""
    samples = decode_all(digits_sample.read_bytes(), DeclaredFormat(), 16000)
    with open_socket(address) as socket:
        updated = session_of(
            socket,
            input_audio_format="pcm16",
            recognition_config={"enable_word_time_offsets": True},
        )
        for piece in cut(pcm16(samples)):
            append(socket, piece)
        socket.send(json.dumps({"type": "input_audio_buffer.done"}))
        events = events_to_the_end(socket)

    assert updated["type"] == "transcription_session.updated"
    assert updated["session"]["recognition_config"]["enable_word_time_offsets"] is True
    completed = [event for event in events if event["type"] == COMPLETED]
    assert [event["transcript"] for event in completed] == ["four one seven", "two nine six", SAID]
    assert [event["is_last_result"] for event in completed] == [False, False, True]
    assert [word["word"] for word in completed[-1]["words_info"]["words"]] == SAID.split()
    assert any(event["type"] == DELTA and event["delta"] == "four one" for event in events)


@pytest.mark.parametrize(
    ("session", "messages", "said"),
    [
        ({"input_audio_transcription": {"language": "ru-RU"}}, ["append"], "Lang: ru-RU"),
        ({"recognition_config": {"max_alternatives": "many"}}, [], "the session cannot be"),
        ({"recognition_config": []}, [], "recognition_config is not an object"),
        ({"endpointing_config": {"stop_threshold": 7}}, ["append"], "endpointing_config"),
        ({"speaker_diarization": {"enable_speaker_diarization": True}}, ["append"], "diarization"),
        ({}, ['{"type": "input_audio_buffer.append", "audio": "%%%"}'], "audio is base64"),
        ({}, ['{"type": "input_audio_buffer.append", "audio": "\u00e9"}'], "audio is base64"),
        (
            {},
            ['{"type": "input_audio_buffer.append", "runtime_config": {"\\ud800": "x"}}'],
            "runtime_config key",
        ),
        ({"input_audio_format": "g711_ulaw"}, [], "input_audio_format is one of none, pcm16"),
        ({"x" * 600_000: "", "y" * 600_000: ""}, [], "a session has at most"),
        ({}, ['{"type": "nonsense"}'], "event 'nonsense' is not known"),
        ({}, ["[1, 2"], "an event is an object of JSON"),
        ({}, ['{"type": [' + "[]," * 60_000 + "[]]}"], "at most 100000 brackets and commas"),
        (
            {"input_audio_format": "pcm16"},
            ["append", '{"type": "transcription_session.update"}'],
            "the session cannot change",
        ),
    ],
)
def test_what_cannot_be_is_an_error_event_and_the_end(
    address: str, session: dict[str, object], messages: list[str], said: str
) -> None:
    """One event says what is wrong, in the words of the gRPC service, and the socket is closed."""
    with open_socket(address) as socket:
        events = [session_of(socket, **session)]
        for message in messages:
            # The server may have said no, and closed, before all is sent.
            with suppress(ConnectionClosed):
                if message == "append":
                    append(socket, bytes(3200))
                else:
                    socket.send(message)
        events += events_to_the_end(socket)

    assert events[-1]["type"] == "error"
    assert said in events[-1]["error"]["message"]


def test_audio_does_not_pile_up(tiny_repository: Path) -> None:
    """What is appended and never committed has a limit, that of a message."""
    port = free_port()
    piece = base64.b64encode(bytes(700_000)).decode()
    options = (f"--http_port={port}", "--max-message=1")
    with serving(tiny_repository, *options), open_socket(f"127.0.0.1:{port}") as socket:
        session_of(socket, input_audio_format="pcm16")
        for _ in range(2):
            socket.send(json.dumps({"type": "input_audio_buffer.append", "audio": piece}))
        (told,) = events_to_the_end(socket)

    assert "wait for a commit" in told["error"]["message"]


def test_sockets_have_an_intent(address: str) -> None:
    """Without it the handshake is forbidden, as by NVIDIA's server."""
    for query in ("", "?intent=synthesize"):
        with pytest.raises(InvalidStatus) as caught:
            open_socket(address, query)
        assert caught.value.response.status_code == 403


def test_sockets_count_as_requests(tiny_repository: Path) -> None:
    """Beyond the limit a dialogue is told so at once; places come back when sockets close."""
    port = free_port()
    address = f"127.0.0.1:{port}"

    def is_served() -> bool:
        with suppress(ConnectionClosed), open_socket(address) as socket:
            return session_of(socket)["type"] == "transcription_session.updated"
        return False

    with serving(tiny_repository, f"--http_port={port}", "--max_requests=1"):
        with open_socket(address) as held:
            session_of(held)
            with open_socket(address) as refused:
                events = events_to_the_end(refused)

        assert [event["type"] for event in events] == ["conversation.created", "error"]
        assert "limit of 1" in events[1]["error"]["message"]
        assert eventually(is_served, seconds=180)


def eventually(check: Callable[[], bool], seconds: float) -> bool:
    """Wait for a check to hold."""
    deadline = time.monotonic() + seconds
    while not (holds := check()) and time.monotonic() < deadline:
        time.sleep(0.1)
    return holds


def test_a_key_guards_realtime_sessions(
    tiny_repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where there is a key, sessions are posted for with it, and each secret opens one socket."""
    monkeypatch.setenv(KEY_VARIABLE, "sesame")
    port = free_port()
    address = f"127.0.0.1:{port}"
    sessions = f"http://{address}/v1/realtime/transcription_sessions"

    with serving(tiny_repository, f"--http_port={port}"):
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"X-API-Key": "sesam"}):
            refused = requests.post(sessions, json={}, headers=headers, timeout=100)
            assert refused.status_code == 401
            assert "riva-realtime-mint" in refused.headers["www-authenticate"]
        with pytest.raises(InvalidStatus):
            open_socket(address)

        minted = requests.post(sessions, json={}, headers={"X-API-Key": "sesame"}, timeout=100)
        token = f"realtime-token.{minted.json()['client_secret']['value']}"
        offered = [Subprotocol("realtime"), Subprotocol(token)]
        with open_socket(address, subprotocols=offered) as socket:
            assert socket.subprotocol == "realtime"
        with pytest.raises(InvalidStatus):
            open_socket(address, subprotocols=offered)
        official(address, [bytes(100)], "--mint-api-key", "sesame")


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(max_size=5) | st.integers(),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from(sorted(new_session())) | st.text(max_size=3), inner)
        ),
        max_leaves=8,
    )
)
def test_any_session_is_understood_or_refused(given: Any) -> None:
    """Whatever JSON a client sends for a session, nothing but a RequestError comes of it."""
    section = given if isinstance(given, dict) else {"recognition_config": {"model": given}}
    try:
        assert streaming_config(section).interim_results
    except RequestError as error:
        assert len(str(error)) < 400  # noqa: PT017 - either is fine, and a long one is not


def post(address: str, recording: bytes | None, **fields: str) -> requests.Response:
    files = {"file": ("sample", recording)} if recording is not None else {"x": ("x", b"")}
    url = f"http://{address}/v1/audio/transcriptions"
    return requests.post(url, files=files, data=fields, timeout=100)


@pytest.mark.parametrize("encode", [None, flac, ogg_opus])
def test_a_posted_recording_is_answered(address: str, digits_sample: Path, encode: Any) -> None:
    """WAV, FLAC and Ogg Opus give JSON with the text, or the text alone where it is asked for."""
    data = digits_sample.read_bytes()
    if encode:
        data = encode(decode_all(data, DeclaredFormat(), 16000))

    answer = post(address, data, language="en-US")
    text = post(address, data, model="digits-en-US-asr-offline", response_format="text")

    assert answer.json() == {"text": SAID}
    assert (text.text, text.headers["content-type"]) == (SAID, "text/plain; charset=utf-8")


@pytest.mark.parametrize(
    ("recording", "fields", "said"),
    [
        (None, {"language": "en-US"}, "no field 'file'"),
        (b"x", {}, "'language' or 'model'"),
        (b"x", {"language": "en-US", "response_format": "srt"}, "json and text are"),
        (b"no recording at all", {"language": "en-US"}, "no WAV, FLAC or Ogg header"),
        (b"x", {"model": "nothing"}, "Unavailable model requested"),
    ],
)
def test_forms_that_cannot_be_are_400(
    address: str, recording: bytes | None, fields: dict[str, str], said: str
) -> None:
    """The detail says why."""
    answer = post(address, recording, **fields)

    assert answer.status_code == 400
    assert said in answer.json()["detail"]


def test_bodies_have_a_length_and_a_limit(address: str) -> None:
    """What has none, or too much, is refused before it is read; a plain body is no form."""
    url = f"http://{address}/v1/audio/transcriptions"

    chunked = requests.post(url, data=iter([b"abc"]), timeout=100)
    plain = requests.post(url, data=b"abc", timeout=100)

    assert chunked.status_code == 411
    assert plain.status_code == 400
    assert requests.get(url, timeout=100).status_code == 404
    assert requests.post(f"http://{address}/v1/nothing", timeout=100).status_code == 405


def test_certificates_are_not_bypassed(tiny_repository: Path, tmp_path: Path) -> None:
    """Where gRPC has TLS, the port without it answers for health, and takes no audio."""
    made, port = make(tmp_path), free_port()
    options = [f"--riva-uri=127.0.0.1:{free_port()}", f"--model_repository={tiny_repository}"]
    tls = ["--use_ssl", f"--ssl_server_key={made.key}", f"--ssl_server_cert={made.certificate}"]
    program = [sys.executable, "-m", MODULES["start-riva"], *options, f"--http_port={port}", *tls]
    url = f"http://127.0.0.1:{port}"

    with subprocess.Popen(program, stderr=subprocess.DEVNULL) as process:
        try:
            answers = eventually(lambda: is_ready(url), seconds=180)
            posted = requests.post(f"{url}/v1/audio/transcriptions", data=b"", timeout=100)
            with pytest.raises(InvalidStatus):
                open_socket(f"127.0.0.1:{port}")
        finally:
            process.terminate()

    assert (answers, posted.status_code) == (True, 405)


def is_ready(url: str) -> bool:
    with suppress(requests.ConnectionError):
        return requests.get(f"{url}/v1/health/ready", timeout=100).ok
    return False


@given(st.binary(max_size=300), st.text(max_size=60))
def test_any_body_is_read_as_a_form_or_not(body: bytes, kind: str) -> None:
    """A form's reader takes whatever comes."""
    for one in (kind, "multipart/form-data; boundary=x"):
        assert isinstance(read_form(one, body), dict)


def test_hostile_forms_take_no_time() -> None:
    """No body keeps the loop that answers everybody for longer than its length explains."""
    for line in (b"content-disposition:", b"content-disposition:\n", b"content-disposition:; \t"):
        body = b"--x\r\n" + line * 50_000 + b"\r\n\r\nvalue"
        began = time.process_time()
        assert read_form("multipart/form-data; boundary=x", body) == {}
        assert time.process_time() - began < 30
    assert read_form("multipart/form-data; boundary=x", b"--x\r\n\r\n\r\n" * 2_000) == {}
