"""Mixed load at a server's limit, for as long as is asked for.

Twice as many clients as the server takes send whole recordings, streams in pieces of any size,
streams that are dropped, broken audio and calls whose deadline is too short. Every call must end
with the right words or with an error that is due; at the end no stream may be left, and memory
must be what it was after two equal loads before.

    python -m benchmarks.soak MODELS RECORDING [--minutes 30]
"""

from __future__ import annotations

import argparse
import random
import re
import sys
import threading
import time
import urllib.request
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
from riva.client.proto import riva_asr_pb2

from benchmarks.processes import running
from benchmarks.server_client import connected, pcm16, recognition_config, stream_of
from riva_speech.server.memory import REST_SECONDS
from support.memory import resident
from support.ports import free_port

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator

LIMIT = 8
_CALL_SECONDS = 120
_DRAIN_SECONDS = 60
_GROWTH = 1.05
# How any call may end that is no answer, and how those may that ask for it.
_AT_THE_LIMIT = "RESOURCE_EXHAUSTED"
_DUE = {
    "_dropped": ["CANCELLED"],
    "_broken": ["INVALID_ARGUMENT"],
    "_hurried": ["DEADLINE_EXCEEDED", "CANCELLED"],  # by whose clock the time is over first
}


@dataclass(frozen=True)
class Subject:
    """A running server: its stub, its process, its port and that of its metrics."""

    stub: Any
    port: int
    process: subprocess.Popen[bytes]
    http: int

    def rss(self) -> int:
        """Return its resident memory in bytes."""
        return resident(self.process.pid)

    def rested(self) -> int:
        """Return its resident memory in bytes once it has given back what it does not need."""
        time.sleep(2 * REST_SECONDS)
        return self.rss()

    def live(self) -> float:
        """Return how many streams hold caches, and how many calls hold a place."""
        url = f"http://127.0.0.1:{self.http}/v1/metrics"
        with urllib.request.urlopen(url, timeout=60) as answer:
            text = answer.read().decode()
        counts = re.findall(r"^riva_(?:live_slots|active_requests)\{.*\} (.*)$", text, re.MULTILINE)
        return sum(map(float, counts))

    def drained(self) -> bool:
        """Wait for the last call to be gone; tell whether it went."""
        deadline = time.monotonic() + _DRAIN_SECONDS
        while time.monotonic() < deadline:
            if not self.live():
                return True
            time.sleep(0.1)
        return False


@contextmanager
def serving(models: Path, *options: str) -> Iterator[Subject]:
    """Run start-riva with its metrics, and end it with the body."""
    port, http = free_port(), free_port()
    command = [sys.executable, "-m", "riva_speech.server.start_riva"]
    command += [f"--riva-uri=127.0.0.1:{port}", f"--http_port={http}"]
    command += [f"--model_repository={models}", f"--max_requests={LIMIT}", *options]
    with running(command) as process, connected(port) as stub:
        yield Subject(stub, port, process, http)


@dataclass
class Load:
    """Calls of many threads, and how they ended."""

    subject: Subject
    audio: bytes
    ends: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    _expected: dict[str, str] = field(default_factory=dict)

    def run(self, seconds: float, clients: int = 2 * LIMIT, seed: int = 0) -> None:
        """Let so many clients call for so many seconds."""
        until = time.monotonic() + seconds
        threads = [
            threading.Thread(target=self._client, args=(random.Random(seed + number), until))
            for number in range(clients)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def learn(self) -> None:
        """Ask for the right words while nothing else does."""
        for call in (self._whole, self._stream):
            self._expected[call.__name__] = call(random.Random(0))

    def _client(self, rng: random.Random, until: float) -> None:
        calls = (self._whole, self._stream, self._dropped, self._broken, self._hurried)
        while time.monotonic() < until:
            call = rng.choices(calls, weights=(2, 4, 4, 1, 1))[0]
            try:
                text = call(rng)
            except grpc.RpcError as error:
                self._note(call.__name__, error.code().name, str(error.details()))
                if error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED:
                    time.sleep(0.05)
                continue
            expected = self._expected.get(call.__name__, text)
            self._note(call.__name__, "OK" if text == expected else "WRONG", text)

    def _note(self, call: str, end: str, text: str) -> None:
        self.ends[end] += 1
        if end not in ("OK", _AT_THE_LIMIT, *_DUE.get(call, [])):
            self.wrong.append(f"{call} ended in {end}: {text}")

    def _whole(self, rng: random.Random) -> str:
        del rng
        request = riva_asr_pb2.RecognizeRequest(config=recognition_config(), audio=self.audio)
        answer = self.subject.stub.Recognize(request, timeout=_CALL_SECONDS)
        return "".join(one.alternatives[0].transcript for one in answer.results)

    def _stream(self, rng: random.Random) -> str:
        requests = stream_of(self._pieces(rng))
        answers = self.subject.stub.StreamingRecognize(requests, timeout=_CALL_SECONDS)
        return "".join(
            result.alternatives[0].transcript
            for answer in answers
            for result in answer.results
            if result.is_final and result.alternatives
        )

    def _dropped(self, rng: random.Random) -> str:
        """Leave a stream after some of its answers, or before any."""
        requests = stream_of(self._pieces(rng))
        call = self.subject.stub.StreamingRecognize(requests, timeout=_CALL_SECONDS)
        for _ in range(rng.randrange(6)):
            next(call, None)
        call.cancel()
        return ""

    def _broken(self, rng: random.Random) -> str:
        beginning = rng.choice([b"RIFF", b"fLaC", b"OggS", b""])
        pieces = [beginning, rng.randbytes(rng.randrange(300)), b"", self.audio[:999]]
        list(self.subject.stub.StreamingRecognize(stream_of(pieces), timeout=_CALL_SECONDS))
        return ""

    def _hurried(self, rng: random.Random) -> str:
        request = riva_asr_pb2.RecognizeRequest(config=recognition_config(), audio=self.audio)
        self.subject.stub.Recognize(request, timeout=rng.uniform(0.001, 0.1))
        return ""

    def _pieces(self, rng: random.Random) -> Iterator[bytes]:
        begin = 0
        while begin < len(self.audio):
            size = rng.choice([0, 201, 3200, 5120, 40_000])
            yield self.audio[begin : begin + size]
            begin += size


def main() -> None:
    """Run the load; the exit code is 1 if anything was wrong."""
    parser = argparse.ArgumentParser(description="Mixed load at a server's limit.")
    parser.add_argument("models", type=Path)
    parser.add_argument("recording", type=Path)
    parser.add_argument("--minutes", type=float, default=30.0)
    options = parser.parse_args()
    seconds = 60 * options.minutes
    with serving(options.models) as subject:
        load = Load(subject, pcm16(options.recording))
        load.learn()
        for _ in range(2):
            load.run(min(60.0, seconds / 4))
        drained, before = subject.drained(), subject.rested()
        load.run(seconds)
        drained &= subject.drained()
        growth = subject.rested() / before
        alive = subject.process.poll() is None
    print(f"ends: {dict(load.ends)}")
    print(f"memory grew {growth:.3f} times; alive: {alive}; no stream left: {drained}")
    print("\n".join(load.wrong[:20]))
    sys.exit(int(bool(load.wrong) or not alive or not drained or growth > _GROWTH))


if __name__ == "__main__":
    main()
