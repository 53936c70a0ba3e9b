"""One image for all tests, built once, and the command line on containers of its own."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import riva.client

import quickstart
from quickstart import images
from quickstart.config import Settings
from quickstart.store import locate
from quickstart.store.volume import Volume
from support.digits import ARCHIVE, SAMPLE
from support.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator

    from quickstart.store import Store

ROOT = Path(quickstart.__file__).parents[1]
HERE = Path(__file__).parent
ENGINE = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock")
# Two checkouts that share an engine must not take each other's image for their own.
TAG = hashlib.sha256(images.context()).hexdigest()[:12]
SPEECH, NVIDIA = f"riva-qs-test/speech:cpu-{TAG}", f"riva-qs-test/nvidia:{TAG}"
PYTHON = "riva-qs-test/python:amd64"
HANGING = f"riva-qs-test/hanging:{TAG}"
PROGRAMS = """
FROM {speech}
USER root
RUN for program in riva-deploy start-riva; do \
    printf '#!/bin/sh\\necho begun\\nexec sleep 600\\n' >/opt/riva/bin/$program; done
USER 10001:10001
"""
BASES = ["--base=riva-qs-test/base:amd64", f"--builder={PYTHON}"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give tests here more time: whichever comes first builds the image that all of them use."""
    for item in items:
        if item.path.parent == HERE and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(1800))


def docker(*arguments: str, stdin: bytes | None = None) -> str:
    """Run Docker's own command line, which must end well."""
    command = ["docker", *arguments]
    done = subprocess.run(command, input=stdin, capture_output=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode().strip()


@dataclass
class Place:
    """A folder with a configuration, a HOME and a container name of its own."""

    folder: Path
    name: str
    port: int

    @property
    def environment(self) -> dict[str, str]:
        """What riva-qs is given of this process's environment."""
        kept = {n: os.environ[n] for n in ("PATH", "DOCKER_HOST") if n in os.environ}
        paths = os.pathsep.join([str(ROOT), str(ROOT / "images")])
        return {**kept, "HOME": str(self.folder / "home"), "PYTHONPATH": paths, "COLUMNS": "100"}

    def command(self, *arguments: str) -> list[str]:
        """Return the command line of a call."""
        return [sys.executable, "-m", "quickstart", *arguments]

    def __call__(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run riva-qs to its end."""
        return subprocess.run(
            self.command(*arguments),
            cwd=self.folder,
            env={**self.environment, **environment},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )

    def ok(self, *arguments: str) -> str:
        """Run riva-qs, which must end well, and return its stdout."""
        done = self(*arguments)
        assert done.returncode == 0, done.stderr
        assert "Traceback" not in done.stderr
        return done.stdout

    def fails(self, code: int, *arguments: str, **environment: str) -> str:
        """Run riva-qs, which must end with a code; return its error and hint."""
        done = self(*arguments, **environment)
        assert done.returncode == code, done.stderr
        assert "Traceback" not in done.stderr
        return done.stderr[done.stderr.index("error: ") :]

    def json(self, *arguments: str) -> Any:
        """Run riva-qs --json and return the one object on stdout."""
        return json.loads(self("--json", *arguments).stdout)

    def popen(self, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        """Start riva-qs and return at once."""
        return subprocess.Popen(
            self.command(*arguments),
            cwd=self.folder,
            env={**self.environment, **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def configure(self, **settings: object) -> None:
        """Set keys of the configuration."""
        path = self.folder / "config.env"
        lines = path.read_text().splitlines() if path.exists() else []
        kept = [line for line in lines if line.partition("=")[0] not in settings]
        kept += [f"{key}={value}" for key, value in settings.items()]
        path.write_text("\n".join(kept) + "\n")

    def bring(self, *names: str) -> None:
        """Put the digits archive into rmir/ under each name, as a user's own."""
        (self.folder / "models-here" / "rmir").mkdir(parents=True, exist_ok=True)
        for name in names:
            shutil.copy(ARCHIVE, self.folder / "models-here" / "rmir" / name)

    def inspect(self) -> dict[str, Any]:
        """Return what the engine tells of the server's container."""
        found: dict[str, Any] = json.loads(docker("inspect", self.name))[0]
        return found


def hear(port: int) -> str:
    """Return what the official client hears in the packaged sample through a port."""
    auth = riva.client.Auth(uri=f"127.0.0.1:{port}")
    config = riva.client.RecognitionConfig(language_code="en-US", max_alternatives=1)
    answer = riva.client.ASRService(auth).offline_recognize(SAMPLE.read_bytes(), config)
    return " ".join(result.alternatives[0].transcript.strip() for result in answer.results)


@contextmanager
def store_on(volume: str, image: str = PYTHON) -> Iterator[Store]:
    """Give a store on a volume, whose agent goes away afterwards."""
    store = locate(Settings(backend="docker", riva_model_loc=volume, image_speech_api=image))
    assert isinstance(store.place, Volume)
    try:
        yield store
    finally:
        store.place.close()


def until_ready(container: str) -> None:
    """Wait until the image's own probe is content with a container."""
    probe = ["docker", "exec", container, "riva-probe", "--timeout=30"]
    deadline = time.monotonic() + 300
    while subprocess.run(probe, capture_output=True, check=False).returncode:
        assert time.monotonic() < deadline, docker("logs", container)
        time.sleep(0.5)


def lines_until(process: subprocess.Popen[str], words: str) -> list[str]:
    """Return what a process says on stderr, up to a line with some words."""
    assert process.stderr is not None
    seen = []
    for line in process.stderr:
        seen.append(line)
        if words in line:
            return seen
    raise AssertionError(f"it never said {words!r}: {''.join(seen)}")


@pytest.fixture(scope="session")
def speech() -> str:
    """Our image for x86_64, built of this checkout through the command line."""
    command = [sys.executable, "-m", "quickstart", "image", "build", *BASES, f"--tag={SPEECH}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return SPEECH


@pytest.fixture(scope="session")
def hanging(speech: str) -> str:
    """Our image with programs that say one word and then nothing."""
    docker("build", f"--tag={HANGING}", "-", stdin=PROGRAMS.format(speech=speech).encode())
    return HANGING


@pytest.fixture(scope="session")
def nvidia(speech: str) -> str:
    """The stand-in for NVIDIA's image."""
    options = [f"--build-arg=SPEECH={speech}", f"--file={HERE}/stand_in.Dockerfile"]
    docker("build", "--quiet", *options, f"--tag={NVIDIA}", str(HERE))
    return NVIDIA


@pytest.fixture
def place(tmp_path: Path, speech: str) -> Iterator[Place]:
    """A place for the user's own archive, on our image; its containers end with the test."""
    made = Place(tmp_path, f"riva-qs-test-{secrets.token_hex(4)}", free_port())
    made.configure(
        backend="docker",
        image_speech_api=speech,
        riva_daemon_speech=made.name,
        riva_speech_api_port=made.port,
        riva_speech_api_http_port=0,
        riva_model_loc="./models-here",
        use_existing_rmirs="true",
        riva_timeout_sec=180,
        readiness_audio=SAMPLE,
    )
    made.bring("mine.rmir")
    names = [made.name, f"{made.name}-deploy"]
    yield made
    subprocess.run(["docker", "rm", "-fv", *names], capture_output=True, check=False)


@pytest.fixture
def volume(place: Place, speech: str) -> Iterator[Place]:
    """A place whose models are in a volume, with the user's own archive."""
    place.configure(riva_model_loc=place.name)
    bring = ["run", "--rm", "--interactive", f"--volume={place.name}:/data", speech]
    docker(*bring, "sh", "-c", "mkdir rmir; cat >rmir/mine.rmir", stdin=ARCHIVE.read_bytes())
    yield place
    subprocess.run(["docker", "rm", "-fv", place.name], capture_output=True, check=False)
    subprocess.run(["docker", "volume", "rm", place.name], capture_output=True, check=False)


@pytest.fixture
def deployed(place: Place) -> Place:
    """A place with models, and no server."""
    place.ok("init")
    return place


@pytest.fixture
def serving(deployed: Place) -> Place:
    """A place whose server answers."""
    deployed.ok("start")
    return deployed
