"""How a stream begins and is left, inside a server."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING

from riva.client.proto import riva_asr_pb2
from riva.client.proto.riva_asr_pb2 import StreamingRecognizeRequest as Request

from riva_speech.asr.recognizer import StreamingRecognizer
from riva_speech.batching import BatchLimits
from riva_speech.server.calls import Journal
from riva_speech.server.metrics import Metrics
from riva_speech.server.recognition import RecognitionService
from riva_speech.server.registry import Registry
from riva_speech.server.scheduling import Scheduler
from support.audio import babble, wav

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from riva_speech.asr.loading import Recognizer
    from riva_speech.asr.options import RequestOptions
    from riva_speech.asr.recognizer import Stream

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


def watched(recognizers: dict[str, Recognizer]) -> Watched:
    online = recognizers["online"]
    assert isinstance(online, StreamingRecognizer)
    return Watched(**{one.name: getattr(online, one.name) for one in fields(StreamingRecognizer)})


async def messages() -> AsyncIterator[Request]:
    """Ask for a stream with an utterance that is ended, and another."""
    config = riva_asr_pb2.RecognitionConfig(language_code="en-US")
    yield Request(streaming_config=riva_asr_pb2.StreamingRecognitionConfig(config=config))
    yield Request(audio_content=SAMPLES, runtime_config={"force_eou": "true"})
    yield Request(audio_content=SAMPLES[44:])


def served(recognizer: Watched, *, whole: bool, answers: int) -> str:
    """Take so many answers of a stream, or one for a recording; return the metrics then."""
    metrics = Metrics()
    service = RecognitionService(1, Journal(metrics))
    config = riva_asr_pb2.RecognitionConfig(language_code="en-US")

    async def ask() -> None:
        if whole:
            request = riva_asr_pb2.RecognizeRequest(config=config, audio=SAMPLES)
            await service.recognize("Recognize", request)
            return
        stream = service.converse("StreamingRecognize", messages())
        for _ in range(answers):
            await anext(stream)
        await stream.aclose()

    with (
        ThreadPoolExecutor(1) as executor,
        closing(Scheduler([recognizer], executor, BatchLimits(), metrics)) as scheduler,
    ):
        service.open(Registry([recognizer]), scheduler)
        asyncio.run(ask())
    return metrics.exposition().decode()


def test_streams_are_not_opened_on_the_loop(recognizers: dict[str, Recognizer]) -> None:
    """Making ten thousand phrases ready takes a second, in which the loop answers others."""
    recognizer = watched(recognizers)

    served(recognizer, whole=False, answers=3)
    served(recognizer, whole=True, answers=0)

    assert len(recognizer.threads) == 3
    assert threading.current_thread() not in recognizer.threads


def test_a_stream_that_is_left_was_not_ok(recognizers: dict[str, Recognizer]) -> None:
    """Whoever goes between two answers is counted as one who cancelled."""
    told = served(watched(recognizers), whole=False, answers=1)

    assert 'status="CANCELLED"' in told
    assert 'status="OK"' not in told
