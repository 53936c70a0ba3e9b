"""The service ``nvidia.riva.asr.RivaSpeechRecognition``.

Each request is a coroutine; models run in their own threads, and whatever else may take long in a
pool, so that a slow model never holds up a health check.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from contextlib import aclosing, asynccontextmanager, closing, contextmanager
from typing import TYPE_CHECKING

import grpc
from riva.client.proto import riva_asr_pb2

from riva_speech.audio.encoding import AudioError
from riva_speech.audio.stream import decode_all
from riva_speech.batching import (
    BatcherClosedError,
    DeadlinePassedError,
    QueueFullError,
    UnavailableError,
)
from riva_speech.errors import OutOfResourceError
from riva_speech.server import messages, requests
from riva_speech.server.conversation import opened
from riva_speech.server.memory import Reclaimer
from riva_speech.server.registry import UnavailableModelError, Wanted
from riva_speech.server.requests import RequestError
from riva_speech.server.scheduling import deadline_of
from riva_speech.server.state import ASR_SERVICE

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Iterable, Iterator

    from riva_speech.server.calls import Call, Journal
    from riva_speech.server.memory import Shrink
    from riva_speech.server.registry import Registry
    from riva_speech.server.scheduling import Scheduler

    Requests = AsyncIterator[riva_asr_pb2.StreamingRecognizeRequest]

_log = logging.getLogger("riva_speech.server")


class RefusedError(Exception):
    """A request that is not answered: its gRPC status, and the sentence for its client."""

    def __init__(self, status: grpc.StatusCode, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status
        self.sentence = sentence


class RecognitionService:
    """Answers recognition requests, once it has been opened with its models."""

    def __init__(self, max_requests: int, journal: Journal) -> None:
        self._models: tuple[Registry, Scheduler] | None = None
        self._max_requests = max_requests
        self._journal = journal
        self._active = 0
        self._memory = Reclaimer()
        self._is_closed = False

    def open(
        self, registry: Registry, scheduler: Scheduler, keepers: Iterable[Shrink] = ()
    ) -> None:
        """Begin to answer: the models are loaded. ``keepers`` free at rest what they keep."""
        self._models = registry, scheduler
        self._memory.add(*keepers)

    def close(self) -> None:
        """Admit no more requests; those in progress go on."""
        self._is_closed = True

    async def Recognize(  # noqa: N802 - gRPC's name
        self, request: riva_asr_pb2.RecognizeRequest, context: grpc.aio.ServicerContext
    ) -> None:
        """Recognise one whole recording."""
        async with _told(context):
            await context.write(await self.recognize("Recognize", request, deadline_of(context)))

    async def StreamingRecognize(  # noqa: N802 - gRPC's name
        self, requests: Requests, context: grpc.aio.ServicerContext
    ) -> None:
        """Recognise a stream: one response for each piece of audio, and one at its end.

        The next piece is read once the one before is answered: a client that is faster is held up
        by gRPC's flow control, and a call that is cancelled ends here at once.
        """
        async with _told(context):
            answers = self.converse("StreamingRecognize", requests, deadline_of(context))
            async with aclosing(answers):
                async for answer in answers:
                    await context.write(answer)

    async def recognize(
        self, method: str, request: riva_asr_pb2.RecognizeRequest, deadline: float = math.inf
    ) -> riva_asr_pb2.RecognizeResponse:
        """Answer for one recording, whichever way it came; ``method`` names the way.

        Raises:
            RefusedError: There is no answer.
        """
        with self._admitted(method) as (call, registry, scheduler):
            response = await _recognize(registry, scheduler, request, call, deadline)
            self._note_finals(call, response)
            return response

    async def converse(
        self, method: str, requests: Requests, deadline: float = math.inf
    ) -> AsyncGenerator[riva_asr_pb2.StreamingRecognizeResponse, None]:
        """Answer the messages of a stream; the errors are those of ``recognize``."""
        with self._admitted(method) as (call, registry, scheduler):
            first = await anext(requests, None)
            opening = opened(registry, scheduler, first, call, deadline)
            with closing(await opening) as conversation:
                async for request in requests:
                    yield await self._timed(call, conversation.accept(request))
                yield await self._timed(call, conversation.finish())

    async def GetRivaSpeechRecognitionConfig(  # noqa: N802 - gRPC's name
        self,
        request: riva_asr_pb2.RivaSpeechRecognitionConfigRequest,
        context: grpc.aio.ServicerContext,
    ) -> None:
        """List the models, or the one that is named; an unknown name gives an empty list."""
        wanted = Wanted(request.model_name, language_code="", sample_rate=0)
        async with _told(context):
            registry, _ = self._opened()
            fitting = [one for one in registry.recognizers if wanted.fits(one)]
            configs = [messages.model_config(one) for one in fitting]
            answer = riva_asr_pb2.RivaSpeechRecognitionConfigResponse(model_config=configs)
            await context.write(answer)

    async def _timed(
        self, call: Call, answer: Awaitable[riva_asr_pb2.StreamingRecognizeResponse]
    ) -> riva_asr_pb2.StreamingRecognizeResponse:
        """Await the answer to a piece of a stream, and note how long that took."""
        began = time.monotonic()
        response = await answer
        self._journal.chunk(call, time.monotonic() - began)
        self._note_finals(call, response)
        return response

    def _note_finals(
        self,
        call: Call,
        response: riva_asr_pb2.RecognizeResponse | riva_asr_pb2.StreamingRecognizeResponse,
    ) -> None:
        if self._journal.keeps_transcripts:
            self._journal.heard(call, messages.final_text(response))

    def _opened(self) -> tuple[Registry, Scheduler]:
        """Return the models; a server that still loads them, or stops, answers UNAVAILABLE."""
        if self._is_closed:
            raise RefusedError(grpc.StatusCode.UNAVAILABLE, "Error: the server is stopping.")
        if self._models is None:
            raise RefusedError(
                grpc.StatusCode.UNAVAILABLE, "Error: the server is still loading its models."
            )
        return self._models

    def check_place(self, method: str) -> None:
        """Check that one request more would be admitted.

        Raises:
            RefusedError: It would not.
        """
        self._opened()
        if self._active >= self._max_requests:
            self._journal.refuse(method, self._max_requests)
            raise RefusedError(
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                f"Error: the server is at its limit of {self._max_requests} requests.",
            )

    @contextmanager
    def _admitted(self, method: str) -> Iterator[tuple[Call, Registry, Scheduler]]:
        """Hold a place for one request, turn its errors into gRPC statuses, and log it."""
        self.check_place(method)
        registry, scheduler = self._opened()
        self._active += 1
        self._memory.work()
        call = self._journal.begin(method)
        try:
            yield call, registry, scheduler
        except (AudioError, RequestError, UnavailableModelError) as error:
            call.status = "INVALID_ARGUMENT"
            raise RefusedError(grpc.StatusCode.INVALID_ARGUMENT, str(error)) from error
        except (asyncio.CancelledError, GeneratorExit):
            # Whoever wanted the answers is gone; the latter tells it to a stream between two.
            call.status = "CANCELLED"
            raise
        except Exception as error:
            status, sentence = _failure(error)
            call.status = status.name
            raise RefusedError(status, sentence) from error
        finally:
            self._active -= 1
            if not self._active:
                self._memory.rest()
            self._journal.end(call)


def handler(service: RecognitionService) -> grpc.GenericRpcHandler:
    """Return what a gRPC server needs to know of the service.

    Where a method has one response, it is the only one of a stream, which is the same to clients:
    of a method that is registered with one, gRPC sends an empty response before an error.
    """
    pb2 = riva_asr_pb2
    one, several = grpc.unary_stream_rpc_method_handler, grpc.stream_stream_rpc_method_handler
    methods = {
        method.__name__: make(method, request.FromString, response.SerializeToString)
        for make, method, request, response in (
            (one, service.Recognize, pb2.RecognizeRequest, pb2.RecognizeResponse),
            (
                several,
                service.StreamingRecognize,
                pb2.StreamingRecognizeRequest,
                pb2.StreamingRecognizeResponse,
            ),
            (
                one,
                service.GetRivaSpeechRecognitionConfig,
                pb2.RivaSpeechRecognitionConfigRequest,
                pb2.RivaSpeechRecognitionConfigResponse,
            ),
        )
    }
    return grpc.method_handlers_generic_handler(ASR_SERVICE, methods)


@asynccontextmanager
async def _told(context: grpc.aio.ServicerContext) -> AsyncIterator[None]:
    """Tell a gRPC client why its request is refused; its method then writes nothing.

    ``abort`` would do it by an error that holds on to the call, which holds on to the error: so the
    request, a whole recording maybe, would stay until the collector of such circles finds it.
    """
    try:
        yield
    except RefusedError as error:
        context.set_code(error.status)
        context.set_details(error.sentence)


async def _recognize(
    registry: Registry,
    scheduler: Scheduler,
    request: riva_asr_pb2.RecognizeRequest,
    call: Call,
    deadline: float,
) -> riva_asr_pb2.RecognizeResponse:
    recognizer = registry.offline(requests.wanted_model(request.config))
    call.model = recognizer.config.name
    rate = recognizer.config.acoustic.features.sample_rate
    classes = recognizer.results.classes
    options = requests.options_of(request.config, recognizer.config, classes=classes)
    declared = requests.declared_format(request.config)
    samples = await scheduler.compute(decode_all, request.audio, declared, rate)
    if not len(samples):
        raise RequestError("empty audio")
    call.audio_seconds = len(samples) / rate
    request_id = request.id if request.HasField("id") else None
    result = await scheduler.recognize(recognizer, samples, options, deadline)
    return messages.offline_response(result, options, request_id)


def _failure(error: Exception) -> tuple[grpc.StatusCode, str]:
    """Return what a client is told of a failure that is not its own."""
    if isinstance(error, DeadlinePassedError):
        return grpc.StatusCode.DEADLINE_EXCEEDED, "Error: the deadline passed before its turn came."
    if isinstance(error, (QueueFullError, OutOfResourceError)):
        return grpc.StatusCode.RESOURCE_EXHAUSTED, f"Error: the server is too busy: {error}."
    if isinstance(error, (BatcherClosedError, UnavailableError)):
        return grpc.StatusCode.UNAVAILABLE, f"Error: the model cannot be run: {error}."
    _log.error("A request failed", exc_info=error)
    return grpc.StatusCode.INTERNAL, "Error: the server failed on this request; its log says why."
