"""The programs that are measured, as processes of their own."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

sys.path.append(str(Path(__file__).parents[1] / "tests"))
from riva_speech.server.memory import KEPT_BLOCKS, TUNABLES
from support.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_PATIENCE_SECONDS = 120.0
THREADS = 2
AS_SERVED = {"OPENBLAS_NUM_THREADS": "1", TUNABLES: KEPT_BLOCKS}
"""The environment that start-riva gives itself."""


@dataclass(frozen=True)
class Running:
    """A server: its address and its process."""

    uri: str
    pid: int

    def cpu_seconds(self) -> float:
        """Return the time that all its threads have computed."""
        fields = (
            Path(f"/proc/{self.pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        )
        user, system = fields[11:13]
        return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


@contextmanager
def running(command: Sequence[object]) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program, and end it with the body."""
    words = [str(word) for word in command]
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextmanager
def our_server(repository: Path) -> Iterator[Running]:
    """Run start-riva on a repository until it is ready."""
    uri = f"127.0.0.1:{free_port()}"
    program = [sys.executable, "-m", "riva_speech.server.start_riva", f"--riva-uri={uri}"]
    options = [f"--model_repository={repository}", f"--threads={THREADS}", "--max_requests=2000"]
    with running([*program, *options]) as process:
        _wait(process, lambda: serves(uri))
        yield Running(uri, process.pid)


def serves(uri: str) -> bool:
    """Say whether a server at an address is ready."""
    with grpc.insecure_channel(uri) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        try:
            answer = stub.Check(health_pb2.HealthCheckRequest(), timeout=5)
        except grpc.RpcError:
            return False
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


@contextmanager
def sherpa_server(folder: Path) -> Iterator[Running]:
    """Run sherpa-onnx's own websocket server on NeMo's streaming graph."""
    port = free_port()
    program = Path(sys.executable).with_name("sherpa-onnx-online-websocket-server")
    if not program.exists():
        raise SystemExit(f"there is no {program}: pip install -e '.[engine,bench]'")
    options = {
        "port": port,
        "nemo-ctc-model": folder / "model.onnx",
        "tokens": folder / "tokens.txt",
        "num-threads": THREADS,
        "num-work-threads": THREADS,
        "max-batch-size": 32,
        "log-file": "/dev/null",
    }
    with running([program, *(f"--{name}={value}" for name, value in options.items())]) as process:
        _wait(process, lambda: _listens(port))
        yield Running(f"ws://127.0.0.1:{port}", process.pid)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _wait(process: subprocess.Popen[bytes], is_up: object) -> None:
    """Wait until a program answers.

    Raises:
        SystemExit: It ended, or takes too long.
    """
    assert callable(is_up)
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while not is_up():
        if process.poll() is not None or time.monotonic() > deadline:
            raise SystemExit(f"{process.args!r} does not serve (exit code {process.returncode})")
        time.sleep(0.1)
