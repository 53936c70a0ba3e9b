"""Speaks gRPC to the service that is measured, many streams over one loop."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from quickstart import client

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from quickstart.errors import RivaQsError

_LARGEST_MESSAGE = 64 << 20
# One connection carries at most a hundred streams with many servers.
_STREAMS_A_CHANNEL = 32


class RefusedError(Exception):
    """A request that the service ended with an error.

    Attributes:
        status: The name of the gRPC status.
        details: What the service said.
    """

    def __init__(self, status: str, details: str) -> None:
        super().__init__(f"{status}: {details}")
        self.status = status
        self.details = details

    def translated(self, uri: str) -> RivaQsError:
        """Return it as an error of our tree."""
        return client.translate(self.status, self.details, uri)


@dataclass(frozen=True)
class Wanted:
    """What every request asks for: an empty model or language leaves the choice to the service.

    A request ends with DEADLINE_EXCEEDED after `patience` seconds; None waits for ever.
    """

    rate: int
    language_code: str = ""
    model: str = ""
    patience: float | None = None


class Wire:
    """Connections to one service."""

    def __init__(self, channels: list[Any], wanted: Wanted) -> None:
        from riva.client.proto import riva_asr_pb2, riva_asr_pb2_grpc, riva_audio_pb2

        self._messages, self._patience = riva_asr_pb2, wanted.patience
        self._stubs = [riva_asr_pb2_grpc.RivaSpeechRecognitionStub(one) for one in channels]
        self._config = riva_asr_pb2.RecognitionConfig(
            encoding=riva_audio_pb2.LINEAR_PCM,
            sample_rate_hertz=wanted.rate,
            language_code=wanted.language_code,
            model=wanted.model,
            max_alternatives=1,
        )

    async def stream(self, number: int, chunks: AsyncIterator[bytes]) -> AsyncIterator[None]:
        """Send chunks as they come, and yield once for every response.

        Raises:
            RefusedError: The service ended the stream with an error.
        """
        import grpc

        stub = self._stubs[number // _STREAMS_A_CHANNEL % len(self._stubs)]
        try:
            requests = self._requests(chunks)
            async for _ in stub.StreamingRecognize(requests, timeout=self._patience):
                yield
        except grpc.RpcError as error:
            raise RefusedError(error.code().name, error.details() or "") from error

    async def recognize(self, audio: bytes) -> None:
        """Send bare samples whole, and wait for the answer.

        Raises:
            RefusedError: The service answered with an error.
        """
        import grpc

        try:
            await self._stubs[0].Recognize(
                self._messages.RecognizeRequest(config=self._config, audio=audio),
                timeout=self._patience,
            )
        except grpc.RpcError as error:
            raise RefusedError(error.code().name, error.details() or "") from error

    async def _requests(self, chunks: AsyncIterator[bytes]) -> AsyncIterator[Any]:
        request = self._messages.StreamingRecognizeRequest
        yield request(
            streaming_config=self._messages.StreamingRecognitionConfig(
                config=self._config, interim_results=False
            )
        )
        async for chunk in chunks:
            yield request(audio_content=chunk)


@asynccontextmanager
async def connect(
    uri: str, wanted: Wanted, streams: int, tls: client.Tls | None = None
) -> AsyncIterator[Wire]:
    """Give connections enough for a number of streams at once."""
    import grpc.aio

    options = [
        ("grpc.enable_http_proxy", 0),
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.max_send_message_length", _LARGEST_MESSAGE),
        ("grpc.max_receive_message_length", _LARGEST_MESSAGE),
    ]
    channels = [
        grpc.aio.secure_channel(uri, tls.credentials(), options=options)
        if tls
        else grpc.aio.insecure_channel(uri, options=options)
        for _ in range(0, streams, _STREAMS_A_CHANNEL)
    ]
    try:
        yield Wire(channels, wanted)
    finally:
        for channel in channels:
            await channel.close()
