"""What those see who run a server: health over HTTP, metrics, logs, limits of messages."""

from __future__ import annotations

import asyncio
import json
import shutil
import socket
import subprocess
import sys
import time
from contextlib import ExitStack, closing, contextmanager, suppress
from http.client import HTTPConnection
from typing import TYPE_CHECKING, Any

import grpc
import pytest
import riva.client
from grpc_health.v1 import health_pb2, health_pb2_grpc
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families
from riva.client.proto import riva_asr_pb2, riva_asr_pb2_grpc
from websockets.sync.client import connect

from riva_speech.server.command_line import parse
from riva_speech.server.http import HttpServer, Paths
from riva_speech.server.http_messages import Answer, Head
from riva_speech.server.metrics import Metrics
from support.audio import babble, wav
from support.client import hold_a_stream
from support.ports import free_port
from support.programs import MODULES, deploying, run, serving

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from riva_speech.server.http_body import Body

SAMPLES = babble(3.3)
MIB = 1 << 20


class Running:
    """A server with an HTTP port, and its clients."""

    def __init__(self, uri: str, port: int, process: Any) -> None:
        self.uri, self.port, self.process = uri, port, process
        self.asr = riva.client.ASRService(riva.client.Auth(uri=uri))

    def ask(self, path: str, method: str = "GET", port: int = 0) -> tuple[int, str, str]:
        """Return the status, the type and the body of what HTTP answers."""
        return ask(port or self.port, path, method)

    def metric(self, name: str, **labels: str) -> float:
        """Return the value of a sample; 0 where there is none."""
        for family in text_string_to_metric_families(self.ask("/v1/metrics")[2]):
            for sample in family.samples:
                if sample.name == name and sample.labels.items() >= labels.items():
                    return sample.value
        return 0.0

    def stream(self, *chunks: bytes) -> list[Any]:
        """Stream chunks and return the responses."""
        wanted = riva.client.StreamingRecognitionConfig(config=config(), interim_results=False)
        return list(self.asr.streaming_response_generator(chunks, wanted))

    def log(self) -> str:
        """End the server and return what it wrote."""
        self.process.terminate()
        return str(self.process.communicate(timeout=100)[1])


def ask(port: int, path: str, method: str = "GET") -> tuple[int, str, str]:
    with closing(HTTPConnection("127.0.0.1", port, timeout=60)) as connection:
        connection.request(method, path)
        answer = connection.getresponse()
        return answer.status, answer.getheader("Content-Type", ""), answer.read().decode()


def config(**values: object) -> riva.client.RecognitionConfig:
    return riva.client.RecognitionConfig(language_code="en-US", **values)


@contextmanager
def started(repository: Path, *options: str, quiet: bool = False) -> Iterator[Running]:
    """Run a server whose HTTP port is known."""
    port = free_port()
    with serving(repository, f"--http_port={port}", *options, quiet=quiet) as (uri, process):
        yield Running(uri, port, process)


@pytest.fixture(scope="module")
def server(tiny_repository: Path) -> Iterator[Running]:
    with started(tiny_repository, quiet=True) as running:
        yield running


def test_health_is_asked_over_http(server: Running) -> None:
    """Both probes answer as those of NVIDIA's server do, and queries change nothing."""
    assert server.ask("/v1/health/live") == (200, "application/json", '{"status": "live"}')
    assert server.ask("/v1/health/ready?x=1") == (200, "application/json", '{"status": "ready"}')
    assert server.ask("/v1/health/ready", "HEAD") == (200, "application/json", "")


def test_what_is_not_there_is_told(server: Running) -> None:
    """Other paths and methods are refused with what there is."""
    status, _, body = server.ask("/v1/nothing")
    assert (status, "/v1/health/ready" in body) == (404, True)
    assert server.ask("/v1/health/ready", "POST")[0] == 405


def test_a_server_that_drains_is_live_and_not_ready(tiny_repository: Path) -> None:
    """From SIGTERM until the last stream has ended, ready answers 503 with the state."""
    with started(tiny_repository, "--drain_timeout=100") as running:
        call = hold_a_stream(running.asr, wav(SAMPLES))
        running.process.terminate()
        seen = eventually(lambda: running.ask("/v1/health/ready")[0] == 503)
        answers = running.ask("/v1/health/ready"), running.ask("/v1/health/live")
        call.cancel()

    assert seen
    assert answers[0] == (503, "application/json", '{"status": "draining"}')
    assert answers[1][0] == 200


def test_all_that_runs_has_one_time_to_end(tiny_repository: Path) -> None:
    """A gRPC stream and a socket share the time of a drain, and nobody else is let in meanwhile."""
    with started(tiny_repository, "--drain_timeout=20") as running:
        socket_address = f"ws://127.0.0.1:{running.port}/v1/realtime?intent=transcription"
        with connect(socket_address, open_timeout=60) as held:
            held.recv(60)
            call = hold_a_stream(running.asr, wav(SAMPLES))
            running.process.terminate()
            assert eventually(lambda: running.ask("/v1/health/ready")[0] == 503)
            with connect(socket_address, open_timeout=60) as late:
                told = [json.loads(text) for text in late]
            code = running.process.wait(timeout=38)
        call.cancel()

    assert told[-1]["error"]["message"] == "Error: the server is stopping."
    assert code == 0


@pytest.mark.parametrize("text", ["nan", "inf", "-1", "soon"])
def test_a_drain_takes_seconds(text: str) -> None:
    """What is no number of seconds is refused at the start, not at the end."""
    with pytest.raises(SystemExit) as caught:
        parse([f"--drain_timeout={text}"])
    assert caught.value.code == 2


def test_a_body_that_does_not_come_is_told() -> None:
    """Who posts too slowly reads why, and is not just hung up on."""

    async def post() -> bytes:
        async def answer(_head: Head, body: Body) -> Answer:
            return Answer(await body.read())

        server, port = HttpServer(Paths({}, {"/x": answer}, largest_body=9), 0.2), free_port()
        await server.start("127.0.0.1", port, "--http_port")
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"POST /x HTTP/1.1\r\nContent-Length: 9\r\n\r\nabc")
        told = await asyncio.wait_for(reader.read(), 30)
        writer.close()
        await writer.wait_closed()
        await server.stop(30)
        return told

    told = asyncio.run(post())

    assert told.startswith(b"HTTP/1.1 408 ")
    assert b"a body comes within 0.2 s" in told


def eventually(check: Any, seconds: float = 180) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if check():
            return True
        time.sleep(0.05)
    return False


def test_a_server_that_loads_is_live_and_not_ready(tiny_repository: Path, tmp_path: Path) -> None:
    """While the models load, health over HTTP is 503; afterwards it is 200."""
    models, port = tmp_path / "models", free_port()
    shutil.copytree(tiny_repository, models)
    options = [f"--riva-uri=127.0.0.1:{free_port()}", f"--http_port={port}"]
    command = [sys.executable, "-m", MODULES["start-riva"], *options]
    deploy = ExitStack()
    deploy.enter_context(deploying(models))

    with deploy, subprocess.Popen([*command, f"--model_repository={models}"]) as process:
        try:
            assert eventually(lambda: answers(port, "/v1/health/live", 200))
            assert ask(port, "/v1/health/ready")[0] == 503
            deploy.close()
            assert eventually(lambda: answers(port, "/v1/health/ready", 200))
        finally:
            process.terminate()


def test_a_server_that_loads_ends_though_its_health_is_watched(
    tiny_repository: Path, tmp_path: Path
) -> None:
    """There is nothing to drain, and so the time for that is not waited for."""
    models, uri = tmp_path / "models", f"127.0.0.1:{free_port()}"
    shutil.copytree(tiny_repository, models)
    options = [f"--riva-uri={uri}", f"--model_repository={models}", "--drain_timeout=3600"]

    with (
        deploying(models),
        subprocess.Popen([sys.executable, "-m", MODULES["start-riva"], *options]) as process,
        grpc.insecure_channel(uri) as channel,
    ):
        try:
            request = health_pb2.HealthCheckRequest()
            watch = health_pb2_grpc.HealthStub(channel).Watch(
                request, wait_for_ready=True, timeout=600
            )
            assert next(watch).status == health_pb2.HealthCheckResponse.NOT_SERVING
            process.terminate()
            assert process.wait(timeout=120) == 0
        finally:
            process.kill()


def answers(port: int, path: str, status: int) -> bool:
    """Whether a server is there and answers with a status."""
    with suppress(OSError):
        return ask(port, path)[0] == status
    return False


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(min_size=1, max_size=200), st.sampled_from([b"", b"\r\n\r\n"]))
def test_http_survives_anything(server: Running, data: bytes, end: bytes) -> None:
    """Bytes that are no request get an answer or a closed connection, and the server lives on."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as connection:
        connection.sendall(data + end)
        connection.shutdown(socket.SHUT_WR)
        try:
            answer = connection.recv(100)
        except ConnectionResetError:
            answer = b""

    assert not answer or answer.startswith(b"HTTP/1.1 ")
    assert server.ask("/v1/health/live")[0] == 200


def test_a_head_without_end_is_refused(server: Running) -> None:
    """More than 8 KiB of headers are not read to their end."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\n" + b"x: y\r\n" * 1500)

        assert connection.recv(100).startswith(b"HTTP/1.1 431 ")


def test_metrics_count_what_was_asked(server: Running) -> None:
    """Requests, audio and chunks are counted under the model that answered."""
    names = {
        "requests": ("riva_requests_total", {"method": "StreamingRecognize", "status": "OK"}),
        "audio": ("riva_audio_seconds_total", {"method": "StreamingRecognize"}),
        "chunks": ("riva_chunk_seconds_count", {"model": "tiny-streaming"}),
        "durations": ("riva_request_seconds_count", {"method": "StreamingRecognize"}),
    }

    def values() -> dict[str, float]:
        return {key: server.metric(name, **labels) for key, (name, labels) in names.items()}

    before = values()
    data = wav(SAMPLES)
    server.stream(data[:50000], data[50000:])
    after = values()

    grown = {key: after[key] - before[key] for key in names}
    assert grown == pytest.approx({"requests": 1, "audio": 3.3, "chunks": 3, "durations": 1})
    assert server.metric("process_resident_memory_bytes") > MIB
    assert server.metric("riva_active_requests", method="StreamingRecognize") == 0


def test_metrics_tell_errors_apart(server: Running) -> None:
    """A request that fails is counted under its status, and no word of a client is a label."""
    labels = {"method": "Recognize", "status": "INVALID_ARGUMENT"}
    before = server.metric("riva_requests_total", **labels)

    with pytest.raises(grpc.RpcError):
        server.asr.offline_recognize(wav(SAMPLES), config(model="no-such-model"))

    assert server.metric("riva_requests_total", **labels) == before + 1
    assert "no-such-model" not in server.ask("/v1/metrics")[2]


def test_refused_and_active_streams_are_metrics(tiny_repository: Path) -> None:
    """A full server shows how many run and how many it has refused; so does its metrics port."""
    port = free_port()
    with started(tiny_repository, "--max_requests=1", f"--metrics_port={port}") as running:
        call = hold_a_stream(running.asr, wav(SAMPLES))
        with pytest.raises(grpc.RpcError, match="limit of 1"):
            running.asr.offline_recognize(wav(SAMPLES), config())
        active = running.metric("riva_active_requests", method="StreamingRecognize")
        refused = running.metric("riva_refused_requests_total", method="Recognize")
        alone = running.ask("/metrics", port=port)
        elsewhere = running.ask("/v1/health/live", port=port)[0]
        call.cancel()
        log = running.log()

    assert (active, refused) == (1, 1)
    assert alone[0] == 200
    assert "riva_refused_requests_total" in alone[2]
    assert elsewhere == 404
    assert "Recognize status=RESOURCE_EXHAUSTED limit=1" in log


def test_batches_and_slots_have_metrics() -> None:
    """What a batcher reports is exposed: sizes, waits, runs, and who holds caches."""
    metrics = Metrics()
    metrics.batch("m", [0.001, 0.002], 0.01)
    metrics.watch_slots("m", lambda: 7)

    text = metrics.exposition().decode()

    for line in (
        'riva_batch_size_sum{model="m"} 2.0',
        'riva_batch_queue_seconds_count{model="m"} 2.0',
        'riva_batch_run_seconds_count{model="m"} 1.0',
        'riva_live_slots{model="m"} 7.0',
    ):
        assert line in text


def test_json_logs_are_objects_with_durations(tiny_repository: Path) -> None:
    """With --log_format=json each line is an object, and a request's values are its keys."""
    with started(tiny_repository, "--log_format=json") as running:
        text = running.asr.offline_recognize(wav(SAMPLES), config()).results[0]
        running.stream(wav(SAMPLES))
        log = running.log()

    entries = [json.loads(line) for line in log.splitlines()]
    requests = [entry for entry in entries if "method" in entry]
    assert [entry["method"] for entry in requests] == ["Recognize", "StreamingRecognize"]
    assert requests[0]["model"] == "tiny-offline"
    assert requests[0]["audio"] == pytest.approx(3.3)
    assert requests[1]["chunks"] == 2
    assert {"time", "level", "message", "took", "status", "slowest_chunk"} <= requests[1].keys()
    assert text.alternatives[0].transcript.strip() not in log


def test_transcripts_are_logged_when_asked_for(tiny_repository: Path) -> None:
    """--log_transcripts adds what was recognised to the line of each request."""
    with started(tiny_repository, "--log_transcripts", "--log_format=json") as running:
        whole = running.asr.offline_recognize(wav(SAMPLES), config()).results[0]
        finals = [
            result.alternatives[0].transcript
            for response in running.stream(wav(SAMPLES))
            for result in response.results
        ]
        log = running.log()

    logged = [json.loads(line).get("transcript") for line in log.splitlines() if "method" in line]
    assert logged == [whole.alternatives[0].transcript, "".join(finals)]


def test_messages_beyond_the_limit_are_refused(tiny_repository: Path) -> None:
    """--max-message bounds what is taken: a larger one is RESOURCE_EXHAUSTED with both sizes."""
    with started(tiny_repository, "--max-message=1") as running:
        with pytest.raises(grpc.RpcError) as caught:
            running.asr.offline_recognize(wav(SAMPLES) + bytes(2 * MIB), config())
        answer = running.asr.offline_recognize(wav(SAMPLES), config())

    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert str(MIB) in caught.value.details()
    assert answer.results


def test_idle_streams_live_on_while_clients_ping(server: Running) -> None:
    """A client that pings five times a second through a silence is not hung up on."""
    options = [
        ("grpc.keepalive_time_ms", 200),
        ("grpc.keepalive_timeout_ms", 60_000),
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.keepalive_permit_without_calls", 1),
    ]

    def requests() -> Iterator[riva_asr_pb2.StreamingRecognizeRequest]:
        streaming = riva_asr_pb2.StreamingRecognitionConfig(config=config())
        yield riva_asr_pb2.StreamingRecognizeRequest(streaming_config=streaming)
        for _ in range(2):
            time.sleep(2.5)
            yield riva_asr_pb2.StreamingRecognizeRequest(audio_content=wav(SAMPLES))

    with grpc.insecure_channel(server.uri, options=options) as channel:
        stub = riva_asr_pb2_grpc.RivaSpeechRecognitionStub(channel)
        responses = list(stub.StreamingRecognize(requests()))

    assert len(responses) == 3


def test_a_taken_http_port_is_exit_7(tiny_repository: Path, server: Running) -> None:
    """A server never runs without the health checks that it was asked for."""
    done = run(
        "start-riva",
        f"--riva-uri=127.0.0.1:{free_port()}",
        f"--model_repository={tiny_repository}",
        f"--http_port={server.port}",
    )

    assert done.returncode == 7
    assert f"cannot listen on 127.0.0.1:{server.port}" in done.stderr
    assert "--http_port" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_official_variable_names_the_http_port(monkeypatch: pytest.MonkeyPatch) -> None:
    """RIVA_SERVER_HTTP_PORT is the default, and the option is stronger."""
    monkeypatch.setenv("RIVA_SERVER_HTTP_PORT", "4711")
    assert parse([]).http_port == 4711
    assert parse(["--http_port=0"]).http_port == 0
    monkeypatch.setenv("RIVA_SERVER_HTTP_PORT", "many")
    with pytest.raises(SystemExit):
        parse([])


@pytest.mark.parametrize(
    ("given", "runs", "threads"),
    [
        (["--threads=1"], 1, 1),
        (["--threads=2"], 2, 1),
        (["--threads=8"], 2, 7),
        (["--threads=8", "--parallel_runs=1"], 1, 8),
        (["--threads=2", "--parallel_runs=5"], 2, 1),
        (["--threads=8", "--triton-uri=localhost:8001"], 1, 8),
    ],
)
def test_runs_share_the_threads(given: list[str], runs: int, threads: int) -> None:
    """All of a model's runs together compute with as many as were given."""
    chosen = parse(given)

    assert (chosen.limits.runs, chosen.threads_a_run) == (runs, threads)
    assert runs - 1 + threads == int(given[0].partition("=")[2])


@pytest.mark.parametrize(
    "option",
    [
        "--max-message=0",
        "--max-message=4096",
        "--http_port=70000",
        "--max_requests=0",
        "--log_format=xml",
    ],
)
def test_values_out_of_range_are_exit_2(option: str) -> None:
    """What cannot be right is told before anything starts."""
    with pytest.raises(SystemExit) as caught:
        parse([option])
    assert caught.value.code == 2
