"""A server under requests that no honest client sends, and under more than it takes."""

from __future__ import annotations

import asyncio
import gc
import random
import threading
import time
import weakref
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from riva.client.proto import riva_asr_pb2

from benchmarks.server_client import connected, recognition_config, stream_of
from benchmarks.soak import LIMIT, Load, Subject
from benchmarks.soak import serving as soaked
from riva_speech.server.grpc_server import Server
from riva_speech.server.options import ServerOptions
from riva_speech.server.recognition import RefusedError
from riva_speech.server.scheduling import Waiting
from support.audio import babble, flac, pcm16, wav
from support.memory import without_collector
from support.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SAMPLES = babble(1.2)
SECONDS = 120
GROWTH = 1.05
LOADS = 4
# What a request may be told that is no answer: everything else would be a fault of the server.
REFUSALS = {grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.CANCELLED}

numbers = st.sampled_from([0, 1, -1, 2**31 - 1, -(2**31), 16000, 8000, 44100])
floats = st.sampled_from([0.0, 0.5, -1.0, 1e30, float("nan"), float("inf"), float("-inf")])
texts = st.sampled_from(["", "en-US", "xx", "tiny-streaming", "\N{SNOWMAN}" * 300, "a:b,c", "="])


def endpointing() -> st.SearchStrategy[riva_asr_pb2.EndpointingConfig]:
    names = ("start_history", "stop_history", "stop_history_eou")
    shares = ("start_threshold", "stop_threshold", "stop_threshold_eou")
    return st.builds(
        riva_asr_pb2.EndpointingConfig,
        **dict.fromkeys(names, st.none() | numbers),
        **dict.fromkeys(shares, st.none() | floats),
    )


def configs() -> st.SearchStrategy[riva_asr_pb2.RecognitionConfig]:
    return st.builds(
        riva_asr_pb2.RecognitionConfig,
        encoding=st.integers(0, 22),
        sample_rate_hertz=numbers,
        language_code=texts,
        model=texts,
        max_alternatives=numbers,
        audio_channel_count=numbers,
        enable_word_time_offsets=st.booleans(),
        endpointing_config=st.none() | endpointing(),
        speech_contexts=st.lists(
            st.builds(riva_asr_pb2.SpeechContext, phrases=st.lists(texts), boost=floats),
            max_size=2,
        ),
        custom_configuration=st.dictionaries(texts, texts, max_size=2),
    )


def likely() -> st.SearchStrategy[riva_asr_pb2.RecognitionConfig]:
    """Configurations that the server takes, so that what follows is heard."""
    return configs() | st.just(recognition_config()) | st.builds(riva_asr_pb2.RecognitionConfig)


@st.composite
def audio(draw: st.DrawFn) -> bytes:
    """Recordings whole, cut off, and with bytes that are wrong; and what never was one."""
    whole = draw(st.sampled_from([wav(SAMPLES), flac(SAMPLES), pcm16(SAMPLES), b"OggS", b""]))
    data = bytearray(whole[: draw(st.sampled_from([3, 11, 44, 100, 2000, len(whole)]))])
    for place in draw(st.lists(st.integers(0, 60), max_size=4)):
        if place < len(data):
            data[place] = draw(st.integers(0, 255))
    return bytes(data) + draw(st.binary(max_size=20)) * draw(st.sampled_from([0, 1, 5000]))


def messages() -> st.SearchStrategy[riva_asr_pb2.StreamingRecognizeRequest]:
    """Messages in an order that is right as often as not."""
    kind = riva_asr_pb2.StreamingRecognizeRequest
    streaming = st.builds(
        riva_asr_pb2.StreamingRecognitionConfig, config=likely(), interim_results=st.booleans()
    )
    return (
        st.builds(kind, streaming_config=streaming)
        | st.builds(kind, audio_content=audio())
        | st.builds(kind, runtime_config=st.dictionaries(texts, texts, max_size=1))
    )


@pytest.fixture(scope="module")
def subject(tiny_repository: Path) -> Iterator[Subject]:
    with soaked(tiny_repository) as running:
        yield running


def ended(call: Any) -> None:
    """Run a call; it must end with answers or with a refusal."""
    try:
        call()
    except grpc.RpcError as error:
        assert error.code() in REFUSALS, error.details()  # noqa: PT017 - answers are right too


@settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(first=likely(), rest=st.lists(messages(), max_size=4), cut=st.none() | st.integers(0, 3))
def test_whatever_a_stream_sends_is_answered_or_refused(
    subject: Subject,
    first: riva_asr_pb2.RecognitionConfig,
    rest: list[riva_asr_pb2.StreamingRecognizeRequest],
    cut: int | None,
) -> None:
    """Broken headers, wrong orders, impossible numbers and cut streams are the client's faults."""
    configured = next(stream_of([]))
    configured.streaming_config.config.CopyFrom(first)

    def call() -> None:
        stream = subject.stub.StreamingRecognize(iter([configured, *rest]), timeout=SECONDS)
        for number, _ in enumerate(stream):
            if number == cut:
                stream.cancel()

    ended(call)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(config=likely(), data=audio())
def test_whatever_recording_is_sent_is_answered_or_refused(
    subject: Subject, config: riva_asr_pb2.RecognitionConfig, data: bytes
) -> None:
    """The same of whole recordings."""
    request = riva_asr_pb2.RecognizeRequest(config=config, audio=data)

    ended(lambda: subject.stub.Recognize(request, timeout=SECONDS))


def test_a_huge_piece_of_a_stream_is_heard(subject: Subject) -> None:
    """Minutes of audio in one message are computed step by step, and others get their turns."""
    minutes = pcm16(SAMPLES) * 100
    with ThreadPoolExecutor(2) as pool:
        long = pool.submit(lambda: list(subject.stub.StreamingRecognize(stream_of([minutes]))))
        short = pool.submit(
            lambda: list(subject.stub.StreamingRecognize(stream_of([pcm16(SAMPLES)])))
        )

        assert short.result(SECONDS)
        assert long.result(SECONDS)[-1].results[0].audio_processed == pytest.approx(120, abs=1)


def test_a_thousand_dropped_streams_leave_nothing(subject: Subject) -> None:
    """Streams that are dropped at any moment give their places and their caches back."""
    load = Load(subject, pcm16(SAMPLES))

    def drop(number: int) -> None:
        try:
            load._dropped(random.Random(number))
        except grpc.RpcError as error:
            assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED, error.details()  # noqa: PT017 - as above

    with ThreadPoolExecutor(LIMIT) as pool:
        list(pool.map(drop, range(1000)))

    assert subject.drained()
    assert subject.process.poll() is None


def test_a_server_at_its_limit_keeps_its_words_and_its_memory(tiny_repository: Path) -> None:
    """Under twice what it takes every call ends as it should, and nothing is left behind.

    Heaps settle during the first loads; after these there is one that takes no more memory. What
    leaks, leaks under each.
    """
    with soaked(tiny_repository) as running:
        load = Load(running, pcm16(SAMPLES))
        load.learn()
        for _ in range(2):
            load.run(8)
        grown: list[float] = []
        while not grown or (min(grown) > GROWTH and len(grown) < LOADS):
            assert running.drained()
            before = running.rss()
            load.run(8)
            assert running.drained()
            grown.append(running.rss() / before)

        assert min(grown) <= GROWTH, grown
        assert not load.wrong
        assert load.ends["OK"] > 0
        assert load.ends["RESOURCE_EXHAUSTED"] > 0


@contextmanager
def in_process(models: Path) -> Iterator[Any]:
    """Serve from a thread of this process, where its objects can be counted."""
    port = free_port()
    stops: list[Any] = []

    async def run() -> None:
        stopping = asyncio.Event()
        loop = asyncio.get_running_loop()
        stops.append(lambda: loop.call_soon_threadsafe(stopping.set))
        with ThreadPoolExecutor(2) as executor:
            await Server(ServerOptions(f"127.0.0.1:{port}", models), executor).run(stopping)

    thread = threading.Thread(target=lambda: asyncio.run(run()))
    thread.start()
    try:
        with connected(port) as stub:
            yield stub
    finally:
        stops[0]()
        thread.join(SECONDS)


def test_equal_loads_leave_equal_numbers_of_objects(tiny_repository: Path) -> None:
    """What streams and recordings made is gone with them."""
    counts: list[int] = []

    def count() -> int:
        gc.collect()
        return len(gc.get_objects())

    with in_process(tiny_repository) as stub:
        for _ in range(4):
            for number in range(20):
                rng = random.Random(number)
                pieces = [pcm16(SAMPLES)[: rng.randrange(20_000)]] * rng.randrange(4)
                call = stub.StreamingRecognize(stream_of(pieces))
                next(call, None)
                call.cancel()
                list(stub.StreamingRecognize(stream_of([pcm16(SAMPLES)])))
            counts.append(count())
        # What was cancelled last may still be on its way out.
        until = time.monotonic() + SECONDS
        while count() > counts[2] * 1.005 and time.monotonic() < until:
            time.sleep(0.1)

    assert count() <= counts[2] * 1.005, counts


def refusals() -> int:
    """Return how many errors there are that refuse a request."""
    # Not by `isinstance`, which asks objects for their class: some of PyTorch's warn then.
    return sum(issubclass(type(one), RefusedError) for one in gc.get_objects())


def test_a_refused_request_is_gone_without_the_collector(tiny_repository: Path) -> None:
    """No circle of objects holds on to it: it may be a whole recording."""
    config = recognition_config()
    with in_process(tiny_repository) as stub, without_collector():
        for _ in range(20):
            with pytest.raises(grpc.RpcError, match="empty audio"):
                stub.Recognize(riva_asr_pb2.RecognizeRequest(config=config))
            with pytest.raises(grpc.RpcError, match="no messages received"):
                list(stub.StreamingRecognize(iter([])))
        # The last ones may still be on their way out.
        until = time.monotonic() + SECONDS
        while refusals() and time.monotonic() < until:
            time.sleep(0.1)

        assert not refusals()


def test_a_request_that_failed_in_its_turn_is_gone_without_the_collector() -> None:
    """Who waited for a future that failed leaves nothing that refers to it."""

    made: list[weakref.ref[Future[None]]] = []

    async def fail() -> None:
        waiting, loop = Waiting(), asyncio.get_running_loop()

        def submit() -> Future[None]:
            future: Future[None] = Future()
            made.append(weakref.ref(future))
            future.set_exception(ValueError("a fault"))
            loop.call_soon(waiting.wake, [future])
            return future

        with pytest.raises(ValueError, match="a fault"):
            await waiting.wait(submit)

    with without_collector():
        asyncio.run(fail())
        assert made[0]() is None


def test_health_is_told_at_once_under_load(subject: Subject) -> None:
    """While minutes of audio are heard, a probe has its answer."""
    minutes = pcm16(SAMPLES) * 50
    address = f"127.0.0.1:{subject.port}"
    with ThreadPoolExecutor(1) as pool, grpc.insecure_channel(address) as channel:
        busy = pool.submit(lambda: list(subject.stub.StreamingRecognize(stream_of([minutes]))))
        answer = health_pb2_grpc.HealthStub(channel).Check(
            health_pb2.HealthCheckRequest(), timeout=SECONDS / 2
        )

        assert answer.status == health_pb2.HealthCheckResponse.SERVING
        assert busy.result(SECONDS)
