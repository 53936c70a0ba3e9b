"""What the benchmarks of a server share: a port, a client, and recordings as streams of it."""

from __future__ import annotations

import socket
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from riva.client.proto import riva_asr_pb2, riva_asr_pb2_grpc, riva_audio_pb2

from riva_speech.audio.stream import DeclaredFormat, decode_all

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

RATE = 16000
_START_SECONDS = 120


def free_port() -> int:
    """Return a port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def connected(port: int) -> Iterator[Any]:
    """Wait until a server is ready; give a stub of its recognition service."""
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        health = health_pb2_grpc.HealthStub(channel)
        deadline = time.monotonic() + _START_SECONDS
        while not _is_ready(health):
            if time.monotonic() > deadline:
                raise TimeoutError(f"no server became ready on port {port}")
            time.sleep(0.1)
        yield riva_asr_pb2_grpc.RivaSpeechRecognitionStub(channel)


def _is_ready(health: health_pb2_grpc.HealthStub) -> bool:
    try:
        answer = health.Check(health_pb2.HealthCheckRequest(), timeout=1)
    except grpc.RpcError:
        return False
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


def pcm16(recording: Path) -> bytes:
    """Return a recording's samples at ``RATE``, 16 bits each."""
    samples = decode_all(recording.read_bytes(), DeclaredFormat(), RATE)
    return bytes((samples * 32767).astype("<i2").tobytes())


def recognition_config() -> riva_asr_pb2.RecognitionConfig:
    """Return a configuration for bare samples."""
    return riva_asr_pb2.RecognitionConfig(
        encoding=riva_audio_pb2.LINEAR_PCM, sample_rate_hertz=RATE, language_code="en-US"
    )


def stream_of(chunks: Iterable[bytes]) -> Iterator[riva_asr_pb2.StreamingRecognizeRequest]:
    """Return the requests of a stream that wants interim results."""
    yield riva_asr_pb2.StreamingRecognizeRequest(
        streaming_config=riva_asr_pb2.StreamingRecognitionConfig(
            config=recognition_config(), interim_results=True
        )
    )
    for chunk in chunks:
        yield riva_asr_pb2.StreamingRecognizeRequest(audio_content=chunk)
