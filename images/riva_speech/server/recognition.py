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
from riva_speech.server import messages
from riva_speech.server.messages import RequestError
from riva_speech.server.registry import UnavailableModelError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from concurrent.futures import Executor

    from riva_speech.asr.recognizer import Stream
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
                if request.WhichOneof("streaming_request") != "audio_content":
                    raise RequestError(
                        "Error: every message after the first must carry audio_content."
                    )
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
    recognizer = registry.offline(messages.wanted_model(request.config))
    call.model = recognizer.config.name
    rate = recognizer.config.acoustic.features.sample_rate
    samples = decode_all(request.audio, messages.declared_format(request.config), rate)
    if not len(samples):
        raise RequestError("Error: the request holds no audio.")
    call.audio_seconds = len(samples) / rate
    wanted = messages.alternatives_wanted(request.config)
    return messages.offline_response(recognizer.recognize(samples, alternatives=wanted), request)


class _Conversation:
    """One streaming call: its configuration, its audio and its recogniser's stream."""

    def __init__(
        self,
        registry: Registry,
        first: riva_asr_pb2.StreamingRecognizeRequest | None,
        call: Call,
    ) -> None:
        if first is None or first.WhichOneof("streaming_request") != "streaming_config":
            raise RequestError("Error: the first message must contain streaming_config.")
        streaming = first.streaming_config
        recognizer = registry.online(messages.wanted_model(streaming.config))
        self._config = streaming.config
        self._interim = streaming.interim_results
        self._id = first.id if first.HasField("id") else None
        self._call = call
        self._rate = recognizer.config.acoustic.features.sample_rate
        self._audio = AudioStream(messages.declared_format(streaming.config), self._rate)
        self._stream: Stream = recognizer.start(
            messages.endpointing(streaming.config, recognizer.config.endpointing),
            alternatives=messages.alternatives_wanted(streaming.config),
        )
        self._had_final = False
        call.model = recognizer.config.name

    def accept(
        self, request: riva_asr_pb2.StreamingRecognizeRequest
    ) -> riva_asr_pb2.StreamingRecognizeResponse:
        """Take a piece of audio; answer with what is new, which may be nothing."""
        results = self._hear(self._audio.accept(request.audio_content))
        return self._respond([one for one in results if one.is_final or self._interim])

    def finish(self) -> riva_asr_pb2.StreamingRecognizeResponse:
        """End the stream; answer with what was still to come."""
        finals = [one for one in self._hear(self._audio.finish()) if one.is_final]
        last = self._stream.finish()
        nothing_said = not (self._had_final or finals)
        return self._respond([*finals, last] if last.words or nothing_said else finals)

    def _hear(self, samples: Samples) -> list[Result]:
        self._call.audio_seconds += len(samples) / self._rate
        return self._stream.accept(samples)

    def _respond(self, results: list[Result]) -> riva_asr_pb2.StreamingRecognizeResponse:
        self._had_final |= any(result.is_final for result in results)
        return riva_asr_pb2.StreamingRecognizeResponse(
            id=self._id,
            results=[messages.streaming_result(result, self._config) for result in results],
        )
