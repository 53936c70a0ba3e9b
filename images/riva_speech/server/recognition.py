"""The service ``nvidia.riva.asr.RivaSpeechRecognition``.

Each stream is a coroutine; what computes runs in a pool of threads, so that a slow model never
holds up a health check.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import grpc
from riva.client.proto import riva_asr_pb2, riva_asr_pb2_grpc

from riva_speech.audio.encoding import AudioError
from riva_speech.audio.stream import AudioStream, decode_all
from riva_speech.server import messages, requests
from riva_speech.server.registry import UnavailableModelError
from riva_speech.server.requests import RequestError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from concurrent.futures import Executor

    from riva_speech.asr.results import Result
    from riva_speech.audio.features import Samples
    from riva_speech.server.calls import Call, Journal
    from riva_speech.server.registry import Registry

    Requests = AsyncIterator[riva_asr_pb2.StreamingRecognizeRequest]
    Responses = AsyncIterator[riva_asr_pb2.StreamingRecognizeResponse]

_T = TypeVar("_T")


class RecognitionService(riva_asr_pb2_grpc.RivaSpeechRecognitionServicer):  # type: ignore[misc]  # generated
    """Answers recognition requests, once it has been opened with its models."""

    def __init__(self, executor: Executor, max_requests: int, journal: Journal) -> None:
        self._registry: Registry | None = None
        self._executor = executor
        self._max_requests = max_requests
        self._journal = journal
        self._active = 0

    def open(self, registry: Registry) -> None:
        """Begin to answer: the models are loaded."""
        self._registry = registry

    async def Recognize(  # noqa: N802 - gRPC's name
        self, request: riva_asr_pb2.RecognizeRequest, context: grpc.aio.ServicerContext
    ) -> riva_asr_pb2.RecognizeResponse:
        """Recognise one whole recording."""
        async with self._admitted(context, "Recognize") as (call, registry):
            response = await self._compute(_recognize, registry, request, call)
            self._note_finals(call, response)
            return response

    async def StreamingRecognize(  # noqa: N802 - gRPC's name
        self, requests: Requests, context: grpc.aio.ServicerContext
    ) -> Responses:
        """Recognise a stream: one response for each piece of audio, and one at its end."""
        async with self._admitted(context, "StreamingRecognize") as (call, registry):
            first = await anext(requests, None)
            conversation = _Conversation(registry, first, call)
            async for request in requests:
                yield await self._answer(call, conversation.accept, request)
            yield await self._answer(call, conversation.finish)

    async def GetRivaSpeechRecognitionConfig(  # noqa: N802 - gRPC's name
        self,
        request: riva_asr_pb2.RivaSpeechRecognitionConfigRequest,
        context: grpc.aio.ServicerContext,
    ) -> riva_asr_pb2.RivaSpeechRecognitionConfigResponse:
        """List the models, or the one that is named; an unknown name gives an empty list."""
        configs = [
            messages.model_config(recognizer)
            for recognizer in (await self._opened(context)).recognizers
            if request.model_name in ("", recognizer.config.name)
        ]
        return riva_asr_pb2.RivaSpeechRecognitionConfigResponse(model_config=configs)

    async def _answer(
        self,
        call: Call,
        function: Callable[..., riva_asr_pb2.StreamingRecognizeResponse],
        *arguments: object,
    ) -> riva_asr_pb2.StreamingRecognizeResponse:
        """Compute the answer to a piece of a stream, and note how long that took."""
        began = time.monotonic()
        response = await self._compute(function, *arguments)
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

    async def _compute(self, function: Callable[..., _T], *arguments: object) -> _T:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._executor, partial(function, *arguments))

    async def _opened(self, context: grpc.aio.ServicerContext) -> Registry:
        """Return the models; a server that still loads them answers UNAVAILABLE."""
        if self._registry is None:
            await context.abort(
                grpc.StatusCode.UNAVAILABLE, "Error: the server is still loading its models."
            )
        assert self._registry is not None
        return self._registry

    @asynccontextmanager
    async def _admitted(
        self, context: grpc.aio.ServicerContext, method: str
    ) -> AsyncIterator[tuple[Call, Registry]]:
        """Hold a place for one request, turn its errors into gRPC statuses, and log it."""
        registry = await self._opened(context)
        if self._active >= self._max_requests:
            self._journal.refuse(method, self._max_requests)
            await context.abort(
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                f"Error: the server is at its limit of {self._max_requests} requests.",
            )
        self._active += 1
        call = self._journal.begin(method)
        try:
            yield call, registry
        except (AudioError, RequestError, UnavailableModelError) as error:
            call.status = "INVALID_ARGUMENT"
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        except asyncio.CancelledError:
            call.status = "CANCELLED"
            raise
        except Exception:
            call.status = "INTERNAL"
            raise
        finally:
            self._active -= 1
            self._journal.end(call)


def _recognize(
    registry: Registry, request: riva_asr_pb2.RecognizeRequest, call: Call
) -> riva_asr_pb2.RecognizeResponse:
    recognizer = registry.offline(requests.wanted_model(request.config))
    call.model = recognizer.config.name
    rate = recognizer.config.acoustic.features.sample_rate
    options = requests.options_of(request.config, recognizer.config)
    samples = decode_all(request.audio, requests.declared_format(request.config), rate)
    if not len(samples):
        raise RequestError("empty audio")
    call.audio_seconds = len(samples) / rate
    request_id = request.id if request.HasField("id") else None
    return messages.offline_response(recognizer.recognize(samples, options), options, request_id)


class _Conversation:
    """One streaming call: its configuration, its audio and its recogniser's stream."""

    def __init__(
        self,
        registry: Registry,
        first: riva_asr_pb2.StreamingRecognizeRequest | None,
        call: Call,
    ) -> None:
        if first is None:
            raise RequestError("no messages received")
        if first.WhichOneof("streaming_request") != "streaming_config":
            raise RequestError("first message must contain streaming_config")
        streaming = first.streaming_config
        self._recognizer = registry.online(requests.wanted_model(streaming.config))
        pipeline = self._recognizer.config
        self._options = requests.options_of(
            streaming.config, pipeline, interim=streaming.interim_results
        )
        requests.ends_utterance(first.runtime_config)
        self._id = first.id if first.HasField("id") else None
        self._call = call
        self._rate = pipeline.acoustic.features.sample_rate
        self._audio = AudioStream(requests.declared_format(streaming.config), self._rate)
        self._stream = self._recognizer.start(self._options)
        # Where the audio of the present stream begins in the client's, in samples.
        self._begin = self._heard = 0
        self._had_final = False
        call.model = pipeline.name

    def accept(
        self, request: riva_asr_pb2.StreamingRecognizeRequest
    ) -> riva_asr_pb2.StreamingRecognizeResponse:
        """Take a piece of audio; answer with what is new, which may be nothing."""
        ends = requests.ends_utterance(request.runtime_config)
        if request.WhichOneof("streaming_request") != "audio_content" and not ends:
            raise RequestError("Error: every message after the first must carry audio_content.")
        results = self._hear(self._audio.accept(request.audio_content))
        return self._respond([*_finals(results), self._end_here()] if ends else results)

    def finish(self) -> riva_asr_pb2.StreamingRecognizeResponse:
        """End the stream; answer with what was still to come."""
        finals = _finals(self._hear(self._audio.finish()))
        last = self._late(self._stream.finish())
        nothing_said = not (self._had_final or finals)
        return self._respond([*finals, last] if last.words or nothing_said else finals)

    def _end_here(self) -> Result:
        """End the utterance as if the stream did, and go on with a new stream."""
        last = self._late(self._stream.finish())
        self._stream = self._recognizer.start(self._options)
        self._begin = self._heard
        return last

    def _hear(self, samples: Samples) -> list[Result]:
        self._heard += len(samples)
        self._call.audio_seconds = self._heard / self._rate
        return [self._late(result) for result in self._stream.accept(samples)]

    def _late(self, result: Result) -> Result:
        """Return a result of the present stream with the times of the client's."""
        return result.later(self._begin / self._rate) if self._begin else result

    def _respond(self, results: list[Result]) -> riva_asr_pb2.StreamingRecognizeResponse:
        self._had_final |= any(result.is_final for result in results)
        return riva_asr_pb2.StreamingRecognizeResponse(
            id=self._id,
            results=[messages.streaming_result(result, self._options) for result in results],
        )


def _finals(results: list[Result]) -> list[Result]:
    return [result for result in results if result.is_final]
