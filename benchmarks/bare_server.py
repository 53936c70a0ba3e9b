"""The least that a server in Python computes: it reads a message, runs the model, and answers.

Each message of a stream is one step of a model's graph, on the inputs of a stream that has heard a
second of noise, in a thread beside the loop. There is nothing else: no audio is decoded, nothing
is remembered or decoded to words, and every answer has the same text.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import grpc
import numpy as np
from grpc_health.v1 import health_pb2_grpc
from riva.client.proto import riva_asr_pb2, riva_asr_pb2_grpc

from benchmarks.server_client import RATE
from riva_speech.asr.loading import load_recognizers
from riva_speech.asr.streaming import StreamingRecognizer
from riva_speech.server.state import Health, ServerState

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from concurrent.futures import Executor
    from pathlib import Path

    from numpy.typing import NDArray

    from riva_speech.sessions import Session, SessionOpener

_TEXT = "what somebody may have said in the seconds of one utterance so far"


class _Step:
    """Runs the step that was run last, once more."""

    def __init__(self, models: Path, open_session: SessionOpener) -> None:
        def opened(folder: Path) -> Session:
            """Open a graph whose inputs are kept."""
            return _Kept(open_session(folder), self)

        for recognizer in load_recognizers(models, open_session=opened):
            if isinstance(recognizer, StreamingRecognizer):
                noise = np.random.default_rng(0).normal(0, 0.01, RATE)
                recognizer.recognize(noise.astype(np.float32))
                return
        raise SystemExit(f"{models} holds no streaming model")

    def keep(self, session: Session, inputs: Mapping[str, NDArray[Any]]) -> None:
        """Remember a run of the graph that hears; a transducer's search runs others behind it."""
        if "audio_signal" in inputs:
            self._session = session
            self._inputs = {name: value.copy() for name, value in inputs.items()}

    def __call__(self) -> None:
        """Run it."""
        self._session.run(self._inputs)


class _Kept:
    """A session that tells a step what it is given."""

    def __init__(self, session: Session, step: _Step) -> None:
        self._session = session
        self._step = step

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Run the model."""
        self._step.keep(self._session, inputs)
        return self._session.run(inputs)


class _Service(riva_asr_pb2_grpc.RivaSpeechRecognitionServicer):  # type: ignore[misc]  # generated
    """Answers each message of a stream once the model has run."""

    def __init__(self, step: _Step, executor: Executor) -> None:
        self._step = step
        self._executor = executor

    async def StreamingRecognize(  # noqa: N802 - gRPC's name
        self,
        requests: AsyncIterator[riva_asr_pb2.StreamingRecognizeRequest],
        context: grpc.aio.ServicerContext,
    ) -> None:
        """Answer the messages behind the first."""
        loop = asyncio.get_running_loop()
        await anext(requests)
        async for _ in requests:
            await loop.run_in_executor(self._executor, self._step)
            await context.write(_answer())


def _answer() -> riva_asr_pb2.StreamingRecognizeResponse:
    alternative = riva_asr_pb2.SpeechRecognitionAlternative(transcript=_TEXT)
    result = riva_asr_pb2.StreamingRecognitionResult(alternatives=[alternative], stability=0.1)
    return riva_asr_pb2.StreamingRecognizeResponse(results=[result])


async def serve(
    uri: str, models: Path, executor: Executor, open_session: SessionOpener, stopping: asyncio.Event
) -> None:
    """Serve until ``stopping`` is set."""
    health = Health()
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    service = _Service(_Step(models, open_session), executor)
    riva_asr_pb2_grpc.add_RivaSpeechRecognitionServicer_to_server(service, server)
    health_pb2_grpc.add_HealthServicer_to_server(health.servicer, server)
    server.add_insecure_port(uri)
    await server.start()
    await health.enter(ServerState.READY)
    await stopping.wait()
    await server.stop(0)
