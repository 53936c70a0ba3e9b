"""What memory a further stream costs a server, as a multiple of the caches that it must keep.

Streams are opened in steps and left open, each with some audio heard; the server's resident memory
is read after each step. What is printed is the slope of a line through the later half of these, so
that what the first streams make the server allocate for all does not count.

    python -m benchmarks.stream_memory MODELS RECORDING [--streams 256]
"""

from __future__ import annotations

import argparse
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.server_client import pcm16, stream_of
from benchmarks.soak import serving
from riva_speech.asr.cache_aware import StreamingAcousticModel
from riva_speech.asr.loading import load_recognizers

if TYPE_CHECKING:
    from collections.abc import Iterator

_STEP = 16
_CHUNK_BYTES = 5120  # 160 ms
_SETTLE_SECONDS = 0.5


def cache_bytes(models: Path) -> int:
    """Return the caches of one stream, by the model's own description."""
    for recognizer in load_recognizers(models):
        if isinstance(recognizer.acoustic, StreamingAcousticModel):
            return recognizer.acoustic.arena.row_bytes
    raise SystemExit(f"{models} holds no cache-aware streaming model")


def held_open(stub: Any, audio: bytes, close: threading.Event) -> Any:
    """Open a stream, let it hear the audio, and leave it open until ``close``."""
    pieces = [audio[begin : begin + _CHUNK_BYTES] for begin in range(0, len(audio), _CHUNK_BYTES)]

    def chunks() -> Iterator[bytes]:
        """Yield all audio, and then stay open."""
        yield from pieces
        close.wait()

    call = stub.StreamingRecognize(stream_of(chunks()))
    for _ in pieces:
        next(call)
    return call


def main() -> None:
    """Open streams, and print what a further one costs."""
    parser = argparse.ArgumentParser(description="What memory a further stream costs.")
    parser.add_argument("models", type=Path)
    parser.add_argument("recording", type=Path)
    parser.add_argument("--streams", type=int, default=256)
    options = parser.parse_args()
    caches, audio, close = cache_bytes(options.models), pcm16(options.recording), threading.Event()
    counts, memory = [], []
    with (
        serving(options.models, f"--max_requests={options.streams}") as subject,
        ExitStack() as end,
    ):
        end.callback(close.set)
        calls = []
        for number in range(1, options.streams + 1):
            calls.append(held_open(subject.stub, audio, close))
            if number % _STEP == 0:
                time.sleep(_SETTLE_SECONDS)
                counts.append(number)
                memory.append(subject.rss())
        half = len(counts) // 2
        slope = float(np.polyfit(counts[half:], memory[half:], 1)[0])
    print(
        f"a further stream costs {slope / 1024:.0f} KiB, {slope / caches:.2f} times its caches "
        f"({caches / 1024:.0f} KiB)"
    )


if __name__ == "__main__":
    main()
