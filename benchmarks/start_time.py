"""How long `riva-qs start` takes on Docker, beside a bare `docker run` of the same container.

    python benchmarks/start_time.py [--image NAME:TAG] [--repeat 7]

From turns that alternate on one engine: how long after the server's readiness `start` returns,
what it adds to `docker run` with the server's own readiness, and how long after it happened it is
told that a container crashed, that the engine refuses to start one, and that one is stuck in the
state Created (behind a door that holds the request to start it).
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path
from threading import Thread

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

sys.path.append(str(Path(__file__).parents[1] / "tests"))
from support import engine_proxy

ARCHIVE = max((Path(__file__).parents[1] / "quickstart" / "artifacts").glob("asr_*.rmir"))
NAME = "riva-qs-benchmark"
ENGINE = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock")
PATIENCE = 120
NOBODY = "203.0.113.7"  # an address for documentation, which no machine has
HELD = r"POST /v[0-9.]+/containers/[^/]+/start"
LIMITS = {
    "start returns after readiness": 0.5,
    "start adds": 0.5,
    "a crash is told after": 2.0,
    "a refusal is told after": 2.0,
    "stuck in Created is told after": 2.0,
}


def docker(*arguments: str) -> str:
    """Run Docker's own command line and return what it says."""
    command = ["docker", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


class Watcher(Thread):
    """Notes when a server first says that it serves."""

    def __init__(self, port: int) -> None:
        super().__init__(daemon=True)
        self._uri = f"127.0.0.1:{port}"
        self.ready = 0.0

    def run(self) -> None:
        """Ask every few milliseconds."""
        while not self.ready:
            with grpc.insecure_channel(self._uri) as channel:
                self._ask(health_pb2_grpc.HealthStub(channel))

    def _ask(self, stub: health_pb2_grpc.HealthStub) -> None:
        for _ in range(50):
            try:
                answer = stub.Check(health_pb2.HealthCheckRequest(), timeout=1)
            except grpc.RpcError:
                time.sleep(0.005)
                return
            if answer.status == health_pb2.HealthCheckResponse.SERVING:
                self.ready = time.time()
                return
            time.sleep(0.005)


class Place:
    """A folder with a deployed model and a port of its own."""

    def __init__(self, folder: Path, image: str) -> None:
        self.folder = folder
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        (folder / "models" / "rmir").mkdir(parents=True)
        shutil.copy(ARCHIVE, folder / "models" / "rmir")
        lines = {
            "backend": "docker",
            "image_speech_api": image,
            "riva_model_loc": "./models",
            "use_existing_rmirs": "true",
            "riva_daemon_speech": NAME,
            "riva_speech_api_port": self.port,
            "riva_speech_api_http_port": 0,
        }
        text = "".join(f"{key}={value}\n" for key, value in lines.items())
        (folder / "config.env").write_text(text)
        self.qs("init")

    def qs(self, *arguments: str, check: bool = True) -> str:
        """Run riva-qs and return its stdout."""
        command = [sys.executable, "-m", "quickstart", *arguments]
        done = subprocess.run(command, cwd=self.folder, capture_output=True, text=True, check=False)
        if check and done.returncode:
            sys.exit(done.stderr)
        return done.stdout

    def started(self) -> tuple[float, float]:
        """Start by riva-qs; return how long it took, and how long after readiness it returned."""
        watcher = Watcher(self.port)
        watcher.start()
        began = time.time()
        self.qs("start")
        ended = time.time()
        watcher.join()
        self.qs("stop")
        return ended - began, ended - watcher.ready

    def bare(self) -> float:
        """Start the same container by `docker run`; return how long until it serves."""
        plan = json.loads(self.qs("--json", "start", "--dry-run"))["details"][0]
        docker("rm", "--force", NAME)
        watcher = Watcher(self.port)
        watcher.start()
        began = time.time()
        subprocess.run(shlex.split(plan), capture_output=True, check=True)
        watcher.join(PATIENCE)
        if not watcher.ready:
            sys.exit("the container that `docker run` made does not serve")
        docker("rm", "--force", NAME)
        return watcher.ready - began

    def crashed(self) -> float:
        """Start on a damaged model; return how long after the container's end that is reported."""
        for graph in (self.folder / "models").rglob("model.onnx"):
            graph.write_bytes(b"damaged")
        self.qs("start", check=False)
        ended = time.time()
        told = docker("inspect", "--format", "{{.State.FinishedAt}}", NAME)
        stamp = told[:26].rstrip("Z") + "+00:00"
        return ended - datetime.fromisoformat(stamp).timestamp()

    def refused(self) -> float:
        """Start on an address that is not there; return how long after its making that is told."""
        began = time.time()
        self.qs("--set", f"riva_speech_api_host={NOBODY}", "start", check=False)
        return time.time() - created(began)

    def stuck(self) -> float:
        """Start through a door that holds that; return how long after its making that is told."""
        door = self.folder / "engine.sock"
        began = time.time()
        with engine_proxy.before(ENGINE, door, HELD):
            command = [sys.executable, "-m", "quickstart", "start"]
            environment = {**os.environ, "DOCKER_HOST": f"unix://{door}"}
            with subprocess.Popen(
                command, cwd=self.folder, env=environment, stderr=subprocess.PIPE, text=True
            ) as start:
                assert start.stderr is not None
                for line in start.stderr:
                    if "stuck in the state Created" in line:
                        break
                told = time.time()
                start.kill()
        door.unlink()
        seconds = told - created(began)
        docker("rm", "--force", NAME)
        return seconds


def created(since: float) -> float:
    """Return when the newest of our containers was made."""
    window = [f"--since={since:.3f}", f"--until={time.time():.3f}"]
    which = ["--filter=event=create", f"--filter=container={NAME}", "--format={{.TimeNano}}"]
    return int(docker("events", *window, *which).splitlines()[-1]) / 1e9


def show(title: str, values: list[float]) -> bool:
    """Print a row, and say whether it is within its limit."""
    middle, limit = statistics.median(values), LIMITS[title]
    spread = f"{min(values):.2f} to {max(values):.2f}"
    print(f"{title:32} {middle:5.2f} s ({spread}), limit {limit} s")
    return middle <= limit


def main() -> None:
    """Measure in turns, print, and end with 1 where a limit is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--image", default="", help="the image (default: the one for this machine)")
    parser.add_argument("--repeat", type=int, default=7)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        place = Place(Path(folder), chosen.image)
        place.bare()
        turns = [(*place.started(), place.bare()) for _ in range(chosen.repeat)]
        refusals = [place.refused() for _ in range(chosen.repeat)]
        stuck = [place.stuck() for _ in range(chosen.repeat)]
        crashes = [place.crashed() for _ in range(chosen.repeat)]
        place.qs("clean", "--yes")
    whole, after, bare = (list(column) for column in zip(*turns, strict=True))
    ours, theirs = statistics.median(whole), statistics.median(bare)
    print(f"riva-qs start {ours:.2f} s, docker run and its readiness {theirs:.2f} s")
    added = [one - other for one, other in zip(whole, bare, strict=True)]
    rows = dict(zip(LIMITS, (after, added, crashes, refusals, stuck), strict=True))
    met = [show(title, values) for title, values in rows.items()]
    sys.exit(0 if all(met) else 1)


if __name__ == "__main__":
    main()
