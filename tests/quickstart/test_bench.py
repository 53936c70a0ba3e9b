from __future__ import annotations

import asyncio
import math
import socket
import struct
import wave
import xml.etree.ElementTree as ET
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st
from riva.client.proto import riva_asr_pb2_grpc

from quickstart.bench import figures, load, plot, recording, report
from quickstart.bench.figures import Trial
from quickstart.bench.ladder import Measured, Plan, Step
from quickstart.bench.load import Rush, Seen
from quickstart.bench.wire import RefusedError, Wanted, connect
from quickstart.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from .conftest import CommandLine


@given(st.lists(st.floats(0, 10), min_size=1, max_size=300))
def test_percentiles_are_those_of_riva_s_clients(seconds: list[float]) -> None:
    """A percentile is the value at floor(p * n) of the sorted ones, never one in between."""
    found = figures.summary(seconds)
    ordered = sorted(seconds)

    for name, hundredths in (("p50", 50), ("p90", 90), ("p95", 95), ("p99", 99)):
        index = min(hundredths * len(ordered) // 100, len(ordered) - 1)
        assert found[name] == pytest.approx(1000 * ordered[index])
    assert found["avg"] == pytest.approx(1000 * math.fsum(seconds) / len(seconds))


def test_chunks_and_responses_are_paired_by_index() -> None:
    """The n-th response answers the n-th chunk; the one that ends the stream answers none."""
    assert figures.latencies(Seen([0.0, 1.0], [0.25, 1.5, 2.0])) == [0.25, 0.5]
    assert figures.latencies(Seen([0.0, 1.0, 2.0], [3.0])) == []


def test_errors_stand_beside_latency() -> None:
    """Streams that were shed, that failed and that cannot be paired are counted apart."""
    streams = [
        Seen([0.0], [0.5, 1.0]),
        Seen([0.0], error="RESOURCE_EXHAUSTED"),
        Seen([0.0], [0.1], error="INTERNAL"),
        Seen([0.0, 1.0, 2.0], [3.0]),
    ]

    trial = figures.trial(streams, 2.0)

    assert (trial.shed, trial.errors, trial.unpaired) == (1, {"INTERNAL": 1}, 1)
    assert trial.latency["p99"] == 500
    assert trial.finalisation["p50"] == 1000
    assert not trial.went_well


class Echo:
    """A service that answers every chunk, but for the streams it has no room for."""

    def __init__(self, room: int) -> None:
        self.room, self.active, self.heard = room, 0, 0

    async def stream(self, _number: int, chunks: AsyncIterator[bytes]) -> AsyncIterator[None]:
        if self.active >= self.room:
            raise RefusedError("RESOURCE_EXHAUSTED", "full")
        self.active += 1
        async for chunk in chunks:
            self.heard += len(chunk)
            yield
        self.active -= 1
        yield


def test_a_step_sends_three_requests_a_stream() -> None:
    """Every place of a step is filled three times, and every chunk is noted."""
    service = Echo(room=4)

    streams = asyncio.run(load.step(service, 4, [b"ab", b"c"], 0.001))

    assert len(streams) == 12
    assert service.heard == 36
    assert {(len(one.sent), len(one.received)) for one in streams} == {(2, 3)}


def test_a_shed_stream_does_not_end_the_step() -> None:
    """What one stream is refused for is noted, and the others go on."""
    streams = asyncio.run(load.step(Echo(room=0), 2, [b"a"], 0.001))

    assert [one.error for one in streams] == ["RESOURCE_EXHAUSTED"] * 6


def test_a_service_that_says_nothing_is_given_up() -> None:
    """A request that nobody answers ends with a status, like any other that fails."""

    async def ask(uri: str) -> list[str]:
        async with connect(uri, Wanted(16_000, patience=0.5), 1) as wire:
            streamed = await load.paced(wire, 0, [b"\0\0"], 0.01)
            rushed = await load.rush(lambda: wire.recognize(b"\0\0"), 1, 1)
        return [streamed.error, *rushed.errors]

    with socket.create_server(("127.0.0.1", 0)) as silent:
        found = asyncio.run(ask(f"127.0.0.1:{silent.getsockname()[1]}"))
    assert found == ["DEADLINE_EXCEEDED"] * 2


class Full(riva_asr_pb2_grpc.RivaSpeechRecognitionServicer):  # type: ignore[misc]  # generated
    """A service that refuses every stream, or ends it, while its client still writes."""

    def __init__(self, status: grpc.StatusCode) -> None:
        self.status = status

    async def StreamingRecognize(  # noqa: N802 - gRPC's name
        self, requests: AsyncIterator[Any], context: grpc.aio.ServicerContext
    ) -> None:
        await anext(requests)
        if self.status is not grpc.StatusCode.OK:
            await context.abort(self.status, "full")


async def ended_early(status: grpc.StatusCode, streams: int) -> list[Seen]:
    """Return what streams see that a service ends with a status while they write without pause."""
    server = grpc.aio.server()
    riva_asr_pb2_grpc.add_RivaSpeechRecognitionServicer_to_server(Full(status), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with connect(f"127.0.0.1:{port}", Wanted(16_000), streams) as wire:
        chunks = [bytes(1 << 16)] * 50
        places = (load.paced(wire, number, chunks, 0.0) for number in range(streams))
        seen = await asyncio.gather(*places)
    await server.stop(0)
    return seen


@pytest.mark.parametrize("status", [grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.OK])
def test_a_stream_that_ends_while_it_is_written_has_the_service_s_status(
    status: grpc.StatusCode,
) -> None:
    """A write that fails because the service ended the stream hides not what the service said."""
    seen = asyncio.run(ended_early(status, 64))

    ended = "" if status is grpc.StatusCode.OK else status.name
    assert [one.error for one in seen] == [ended] * 64


def test_a_rush_counts_answers_and_errors() -> None:
    """Unpaced requests that fail do not count as answered."""
    numbers = iter(range(10))

    async def request() -> None:
        if next(numbers) % 5 == 0:
            raise RefusedError("INTERNAL", "")

    rush = asyncio.run(load.rush(request, parallel=3, count=10))

    assert (rush.answered, rush.errors) == (8, {"INTERNAL": 2})


def measured(*p99: float) -> Measured:
    """Return a ladder of 1, 2, 4 … streams with these latencies."""
    steps = []
    for i, value in enumerate(p99):
        latency = dict.fromkeys(figures.NAMES, value)
        steps.append(Step(2**i, (Trial(latency, latency, {}, 0, 0, 0.0, 1.0),)))
    plan = Plan(tuple(step.streams for step in steps))
    return Measured(plan, 2.0, steps, [Rush(1.0, 96, {})])


@pytest.mark.parametrize(
    ("p99", "most"), [((1, 2, 3), 4), ((1, 159.9, 160), 2), ((200, 1, 1), 0), ((1, 200, 1), 1)]
)
def test_the_most_streams_are_those_below_the_first_that_fails(
    p99: tuple[float, ...], most: int
) -> None:
    """A step holds with p99 below a chunk's length, and counts if all below it hold."""
    assert measured(*p99).most_streams == most


def test_every_curve_is_drawn() -> None:
    """The picture is XML with one line for each figure, and the chunk's length."""
    drawing = ET.fromstring(plot.svg(measured(1, 2, 200), "<title & more>"))

    texts = [node.text for node in drawing.iter() if node.tag.endswith("text")]
    assert len([node for node in drawing.iter() if node.tag.endswith("polyline")]) == 5
    assert {"<title & more>", "p99", "160 ms", "4"} <= set(texts)


def test_a_slow_client_says_so() -> None:
    """Where the client itself lags, the reader is told that the figures are not the service's."""
    found = measured(1.0)
    late = Trial({"p99": 1.0}, {}, {}, 0, 0, 90.0, 1.0)
    found.steps[0] = Step(1, (late,))

    assert any("90 ms late" in line for line in report.sentences(found))
    assert report.data(found)["throughput"]["rtfx"]["median"] == 192


def write_wav(path: Path, channels: int = 1, width: int = 2) -> Path:
    with wave.open(str(path), "wb") as sink:
        sink.setnchannels(channels)
        sink.setsampwidth(width)
        sink.setframerate(8000)
        sink.writeframes(struct.pack("<8h", *range(8)) * 100)
    return path


def test_a_recording_is_cut_by_its_own_rate(tmp_path: Path) -> None:
    """A chunk is a duration, whatever the rate, and nothing is lost."""
    found = recording.read(write_wav(tmp_path / "a.wav"))

    chunks = found.chunks(40)

    assert (found.seconds, len(chunks[0])) == (0.1, 640)
    assert b"".join(chunks) == found.samples


@pytest.mark.parametrize(
    ("channels", "width", "said"), [(2, 2, "2 channels of 16 bits"), (1, 1, "1 channels of 8 bits")]
)
def test_what_cannot_be_paced_is_refused(
    tmp_path: Path, channels: int, width: int, said: str
) -> None:
    """Recordings of another form are named with what they are."""
    with pytest.raises(UsageError, match=said):
        recording.read(write_wav(tmp_path / "a.wav", channels, width))


@pytest.mark.parametrize("rate", [0, 50])
def test_a_rate_that_no_microphone_has_is_refused(tmp_path: Path, rate: int) -> None:
    """A header that says so few samples a second that a chunk may hold none is an error."""
    path = write_wav(tmp_path / "a.wav")
    data = bytearray(path.read_bytes())
    data[24:28] = struct.pack("<I", rate)
    path.write_bytes(data)
    with pytest.raises(UsageError, match=f"{rate} samples a second"):
        recording.read(path)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"RIFF\x00\x00\x00\x00WAVE", "cannot be sent at the pace"),
        (b"fLaC" + bytes(40), "it is FLAC"),
        (b"hello", "it looks like text"),
    ],
)
def test_wrong_files_are_exit_2(bare: CommandLine, content: bytes, said: str) -> None:
    """Before anything is measured, a file that cannot be sent is told with the way out."""
    (bare.folder / "a.wav").write_bytes(content)
    done = bare("bench", "asr", "a.wav")
    assert (done.returncode, said in done.stderr) == (2, True), done.stderr


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (["--streams", "0"], 2, "numbers from 1"),
        (["--streams", "1,two"], 2, "numbers from 1"),
        (["--streams", "1" * 5000], 2, "numbers from 1"),
        (["--parallel", "10001"], 2, "parallel"),
        (["--plot", "a.png"], 2, "only SVG"),
        (["--plot", "nowhere/a.svg"], 1, "does not exist"),
        (["--plot", "folder.svg"], 1, "cannot be written"),
        (["--chunk-ms", "1"], 2, "chunk-ms"),
        (["--uri", "127.0.0.1:1"], 6, "no server answers at 127.0.0.1:1"),
    ],
)
def test_what_cannot_be_measured_is_told(
    bare: CommandLine, options: list[str], code: int, said: str
) -> None:
    """Each wrong option, and a server that is away, has its sentence and its code."""
    (bare.folder / "folder.svg").mkdir()
    done = bare("bench", "asr", *options)
    assert (done.returncode, said in done.stderr) == (code, True), done.stderr
    assert "Traceback" not in done.stderr
