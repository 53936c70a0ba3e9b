"""Short ways to ask a server through the official client."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, TypeAlias

import grpc
import pytest
import riva.client
from riva.client.proto import riva_asr_pb2

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

CHUNK = 3200  # bytes: 100 ms of 16-bit samples at 16 kHz
INVALID = grpc.StatusCode.INVALID_ARGUMENT

Response: TypeAlias = riva_asr_pb2.StreamingRecognizeResponse
Request: TypeAlias = riva_asr_pb2.StreamingRecognizeRequest
Result: TypeAlias = riva_asr_pb2.StreamingRecognitionResult


def config(**values: object) -> riva.client.RecognitionConfig:
    """Return a request's configuration."""
    return riva.client.RecognitionConfig(
        **{"language_code": "en-US", "max_alternatives": 1, **values}
    )


def streaming_config(**values: object) -> riva.client.StreamingRecognitionConfig:
    """Return a stream's configuration; ``interim`` asks for interim results."""
    interim = bool(values.pop("interim", False))
    return riva.client.StreamingRecognitionConfig(config=config(**values), interim_results=interim)


def stream(
    asr: riva.client.ASRService, chunks: Iterable[bytes], **values: object
) -> list[Response]:
    """Stream pieces of audio and return every response."""
    return list(asr.streaming_response_generator(chunks, streaming_config(**values)))


def hold_a_stream(asr: riva.client.ASRService, audio: bytes, seconds: float = 300) -> grpc.Call:
    """Open a stream, see its audio answered, and leave it open."""

    def requests() -> Iterator[Request]:
        yield Request(streaming_config=riva_asr_pb2.StreamingRecognitionConfig(config=config()))
        yield Request(audio_content=audio)
        time.sleep(seconds)

    call = asr.stub.StreamingRecognize(requests())
    next(call)
    return call


def cut(data: bytes, size: int = CHUNK) -> list[bytes]:
    """Return bytes in pieces."""
    return [data[i : i + size] for i in range(0, len(data), size)]


def results(responses: Iterable[Response], *, final: bool) -> list[Result]:
    """Return the results of all responses that are final, or that are not."""
    return [one for each in responses for one in each.results if one.is_final == final]


def final_text(responses: Iterable[Response]) -> str:
    """Return the final transcripts, joined as clients join them."""
    finals = [one for one in results(responses, final=True) if one.alternatives]
    return "".join(one.alternatives[0].transcript for one in finals)


def offline_text(asr: riva.client.ASRService, audio: bytes) -> str:
    """Send a recording whole; return what was heard."""
    heard = asr.offline_recognize(audio, config()).results
    return "".join(one.alternatives[0].transcript for one in heard if one.alternatives)


def streamed_text(asr: riva.client.ASRService, audio: bytes) -> str:
    """Send a recording in pieces; return what was heard."""
    return final_text(stream(asr, cut(audio)))


def refusal(call: object) -> tuple[grpc.StatusCode, str]:
    """Return the status and text with which a call fails."""
    with pytest.raises(grpc.RpcError) as caught:
        call()  # type: ignore[operator]  # a callable
    return caught.value.code(), caught.value.details()
