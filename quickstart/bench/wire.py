"""Speaks gRPC to the service that is measured, many streams over one loop."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from quickstart import client

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from quickstart.errors import RivaQsError

_LARGEST_MESSAGE = 64 << 20
# One connection carries at most a hundred streams with many servers.
_STREAMS_A_CHANNEL = 32
# How long the status of a call may follow the failure of its last write.
_STATUS_SECONDS = 5.0


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
        call = stub.StreamingRecognize(timeout=self._patience)
        writing = _Writing(call, self._requests(chunks))
        try:
            async for _ in call:
                yield
        except grpc.RpcError:
            await writing.settle()
            status = await call.code()
            if status is not grpc.StatusCode.OK:
                raise RefusedError(status.name, await call.details() or "") from None
        finally:
            writing.cancel()
            call.cancel()

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


class _Writing:
    """Writes the requests of one call, and leaves the call the status that the service gave it.

    Where a service ends a call whose client still writes, the write fails, and gRPC's client puts
    an INTERNAL of its own in the place of the service's status, whichever of the two is first.
    """

    def __init__(self, call: Any, requests: AsyncIterator[Any]) -> None:  # noqa: ANN401 - no types
        """Begin to write."""
        self._call = call
        self._has_failed = False
        # Each status that the call is given releases it once.
        self._statuses = asyncio.Semaphore(0)
        self._task = asyncio.ensure_future(self._write(requests))
        call.add_done_callback(self._end)

    async def settle(self) -> None:
        """Wait, now that the call has a status, until it is the service's."""
        if self._has_failed:
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._both_statuses(), _STATUS_SECONDS)

    def cancel(self) -> None:
        """Write no more."""
        self._task.cancel()

    def _end(self, _: object) -> None:
        """Stop at the service's status, so that a write that fails after it is never told."""
        self._statuses.release()
        self._task.cancel()

    async def _both_statuses(self) -> None:
        await self._statuses.acquire()
        await self._statuses.acquire()

    async def _write(self, requests: AsyncIterator[Any]) -> None:
        import grpc

        try:
            async for request in requests:
                await self._call.write(request)
            await self._call.done_writing()
        except grpc.RpcError:
            self._has_failed = True
        except (grpc.aio.InternalError, asyncio.InvalidStateError):
            pass  # the call has ended: its status says why


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
