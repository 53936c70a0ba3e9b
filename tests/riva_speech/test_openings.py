"""How a stream begins and is left, inside a server."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from riva.client.proto import riva_asr_pb2
from riva.client.proto.riva_asr_pb2 import StreamingRecognizeRequest as Request

from riva_speech.asr.pipeline import VadConfig
from riva_speech.asr.results import Alternative, RecognisedWord, Result
from riva_speech.asr.streaming import StreamingRecognizer
from riva_speech.asr.vad import VoiceActivity
from riva_speech.batching import BatchLimits
from riva_speech.server.calls import Journal
from riva_speech.server.conversation import results_of_end
from riva_speech.server.metrics import Metrics
from riva_speech.server.recognition import RecognitionService
from riva_speech.server.registry import Registry
from riva_speech.server.scheduling import Scheduler, Waiting
from support.audio import babble, wav

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Mapping

    from numpy.typing import NDArray

    from riva_speech.asr.loading import Recognizer
    from riva_speech.asr.options import RequestOptions
    from riva_speech.asr.streaming import Stream

SAMPLES = wav(babble(1.2))


@dataclass(frozen=True)
class Watched(StreamingRecognizer):
    """A recogniser that notes which threads open its streams."""

    threads: list[threading.Thread] = field(default_factory=list)

    def start(self, options: RequestOptions) -> Stream:  # type: ignore[override]  # servers say it all
        """Open a stream."""
        self.threads.append(threading.current_thread())
        return super().start(options)

    def start_whole(self, options: RequestOptions) -> Stream:  # type: ignore[override]  # as above
        """Open a stream for one utterance."""
        self.threads.append(threading.current_thread())
        return super().start_whole(options)


class Listener:
    """Takes everything for speech, and so has one probability for each step."""

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Answer as Silero's model does."""
        return {"output": np.ones((1, 1), np.float32), "stateN": inputs["state"]}


def watched(recognizers: dict[str, Recognizer]) -> Watched:
    online = recognizers["online"]
    assert isinstance(online, StreamingRecognizer)
    return Watched(**{one.name: getattr(online, one.name) for one in fields(StreamingRecognizer)})


async def messages(*phrases: str, **custom: str) -> AsyncIterator[Request]:
    """Ask for a stream with an utterance that is ended, and another."""
    config = riva_asr_pb2.RecognitionConfig(language_code="en-US", custom_configuration=custom)
    if phrases:
        config.speech_contexts.add(phrases=phrases, boost=1.0)
    streaming = riva_asr_pb2.StreamingRecognitionConfig(config=config, interim_results=True)
    yield Request(streaming_config=streaming)
    yield Request(audio_content=SAMPLES, runtime_config={"force_eou": "true"})
    yield Request(audio_content=SAMPLES[44:])


@contextmanager
def service(recognizer: Watched) -> Iterator[tuple[RecognitionService, Metrics]]:
    """Serve one recogniser, and no gRPC."""
    metrics = Metrics()
    served = RecognitionService(1, Journal(metrics))
    with (
        ThreadPoolExecutor(1) as executor,
        closing(Scheduler([recognizer], executor, BatchLimits(), metrics)) as scheduler,
    ):
        served.open(Registry([recognizer]), scheduler)
        yield served, metrics


async def heard(
    served: RecognitionService, answers: int, *phrases: str, **custom: str
) -> list[Any]:
    """Take so many answers of a stream, and leave it."""
    stream = served.converse("StreamingRecognize", messages(*phrases, **custom))
    taken = [await anext(stream) for _ in range(answers)]
    await stream.aclose()
    return taken


def test_phrases_are_not_made_ready_on_the_loop(recognizers: dict[str, Recognizer]) -> None:
    """Ten thousand take a second, in which the loop answers others; so may a whole recording."""
    recognizer = watched(recognizers)
    config = riva_asr_pb2.RecognitionConfig(language_code="en-US")
    request = riva_asr_pb2.RecognizeRequest(config=config, audio=SAMPLES)

    with service(recognizer) as (served, _):
        asyncio.run(heard(served, 3, "a phrase"))
        asyncio.run(served.recognize("Recognize", request))

    assert len(recognizer.threads) == 3
    assert threading.current_thread() not in recognizer.threads


def test_who_waits_hears_of_what_ended_before() -> None:
    """Also the first thing that a server computes may be done before the loop has its turn."""
    waiting = Waiting()

    def submit() -> Future[int]:
        future: Future[int] = Future()
        future.set_result(7)
        waiting.wake([future])
        return future

    assert asyncio.run(asyncio.wait_for(waiting.wait(submit), 60)) == 7


def test_a_stream_that_is_left_was_not_ok(recognizers: dict[str, Recognizer]) -> None:
    """Whoever goes between two answers is counted as one who cancelled."""
    with service(watched(recognizers)) as (served, metrics):
        asyncio.run(heard(served, 1))
    told = metrics.exposition().decode()

    assert 'status="CANCELLED"' in told
    assert 'status="OK"' not in told


def test_every_probability_of_speech_is_told(recognizers: dict[str, Recognizer]) -> None:
    """Those of the audio with which an utterance is ended are in its final."""
    activity = VoiceActivity(Listener(), VadConfig(), 16000)
    recognizer = replace(watched(recognizers), activity=activity)

    with service(recognizer) as (served, _):
        (answer,) = asyncio.run(heard(served, 1, get_vad_probabilities="true"))

    told = [one for result in answer.results for one in result.pipeline_states.vad_probabilities]
    assert len(told) == -(-len(SAMPLES[44:]) // 2 // 512)


def final(text: str, *probabilities: float) -> Result:
    words = tuple(RecognisedWord(word, 0, 1, 1.0) for word in text.split())
    return Result((Alternative(words, 1.0),), True, 1.0, vad_probabilities=probabilities)  # noqa: FBT003 - a final


def test_a_wordless_end_is_told_once() -> None:
    """Alone it is a result; behind a final that comes with it, its probabilities are that one's."""
    one, two, silence = final("one", 0.9), final("two", 0.8), final("", 0.1, 0.2)

    assert results_of_end([], silence, had_final=False) == [silence]
    assert results_of_end([], silence, had_final=True) == []
    assert results_of_end([one], two, had_final=True) == [one, two]
    assert results_of_end([one, two], silence, had_final=False) == [
        one,
        final("two", 0.8, 0.1, 0.2),
    ]
