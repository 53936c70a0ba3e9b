"""What the benchmarks of a server share: a client, and recordings as streams of it."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import grpc
from riva.client.proto import riva_asr_pb2, riva_asr_pb2_grpc, riva_audio_pb2

from benchmarks.processes import serves
from riva_speech.audio.stream import DeclaredFormat, decode_all

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

RATE = 16000
_START_SECONDS = 120


@contextmanager
def connected(port: int) -> Iterator[Any]:
    """Wait until a server is ready; give a stub of its recognition service."""
    uri = f"127.0.0.1:{port}"
    with grpc.insecure_channel(uri) as channel:
        deadline = time.monotonic() + _START_SECONDS
        while not serves(uri):
            if time.monotonic() > deadline:
                raise TimeoutError(f"no server became ready on port {port}")
            time.sleep(0.1)
        yield riva_asr_pb2_grpc.RivaSpeechRecognitionStub(channel)


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
