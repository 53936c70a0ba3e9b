"""Running this project's programs as a user does: as processes."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from support.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MODULES = {
    "deploy_all_models": "riva_speech.servicemaker.deploy_all_models",
    "nemo2riva": "riva_speech.servicemaker.nemo2riva",
    "riva-build": "riva_speech.servicemaker.riva_build",
    "riva-deploy": "riva_speech.servicemaker.riva_deploy",
    "start-riva": "riva_speech.server.start_riva",
}


def run(
    program: str, *arguments: object, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a program to its end and capture what it says."""
    return subprocess.run(
        [sys.executable, "-m", MODULES[program], *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=1000,
        check=False,
        env=env,
    )


def succeed(program: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run a program that must end well."""
    done = run(program, *arguments)
    assert done.returncode == 0, done.stderr
    return done


@contextmanager
def serving(
    repository: Path, *options: str, quiet: bool = False
) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Run start-riva until it is ready; give its address and process, and stop it at the end.

    One that many tests share must be quiet: nobody reads its pipe, and a full one stops it.
    """
    uri = f"127.0.0.1:{free_port()}"
    command = [sys.executable, "-m", MODULES["start-riva"], f"--riva-uri={uri}"]
    command += [f"--model_repository={repository}", "--asr_service=true", *options]
    process = subprocess.Popen(
        command, stderr=subprocess.DEVNULL if quiet else subprocess.PIPE, text=True
    )
    try:
        wait_until_serving(uri, process)
        yield uri, process
    finally:
        end(process)


def end(process: subprocess.Popen[Any]) -> None:
    """Ask a program to end; one that does not is killed, and an error."""
    process.terminate()
    try:
        process.communicate(timeout=120)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        raise


def wait_until_serving(uri: str, process: subprocess.Popen[str], seconds: float = 180) -> None:
    """Wait for the health service to say SERVING."""
    deadline = time.monotonic() + seconds
    with grpc.insecure_channel(uri) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        while time.monotonic() < deadline:
            assert process.poll() is None, process.stderr.read() if process.stderr else ""
            try:
                answer = stub.Check(health_pb2.HealthCheckRequest(), timeout=5)
            except grpc.RpcError:
                time.sleep(0.05)
                continue
            if answer.status == health_pb2.HealthCheckResponse.SERVING:
                return
            time.sleep(0.02)
    raise TimeoutError("the server did not become ready")


@contextmanager
def deploying(repository: Path) -> Iterator[None]:
    """Keep servers from a repository's models, as a deploy does that is under way."""
    folder = os.open(repository, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)
