"""A home of its own for every test, and the command line as a process."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
import wave
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import quickstart
from support import fetching, ports
from support.ngc import Ngc

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

STAND_IN = Path(__file__).parent / "stand_in"
INSTALLED = Path(quickstart.__file__).parents[1]


@dataclass
class CommandLine:
    """Runs `riva-qs` as a process, in a folder and with a HOME of its own."""

    folder: Path
    environment: dict[str, str]
    options: list[str] = field(default_factory=list)

    def command(self, *arguments: str) -> list[str]:
        """Return the command line of a call."""
        return [sys.executable, "-m", "quickstart", *self.options, *arguments]

    def __call__(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run riva-qs to its end."""
        return subprocess.run(
            self.command(*arguments),
            cwd=self.folder,
            env={**self.environment, **environment},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=280,
            check=False,
        )

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

    def json(self, *arguments: str, **environment: str) -> Any:
        """Run riva-qs --json and return the one object on stdout."""
        return json.loads(self("--json", *arguments, **environment).stdout)

    @property
    def location(self) -> Path:
        """Where models live."""
        return self.folder / "models-here"

    def server(self) -> dict[str, Any]:
        """Return what is noted of the running server."""
        noted: dict[str, Any] = json.loads((self.location / "run" / "server.json").read_text())
        return noted


@pytest.fixture
def free_port() -> int:
    """A port that nobody listens on."""
    return ports.free_port()


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    """A WAV file with a tenth of a second of silence."""
    path = tmp_path / "recording.wav"
    with wave.open(str(path), "wb") as sink:
        sink.setnchannels(1)
        sink.setsampwidth(2)
        sink.setframerate(16000)
        sink.writeframes(bytes(3200))
    return path


@pytest.fixture
def bare(tmp_path: Path) -> CommandLine:
    """The command line with the engine's stand-in and nothing configured."""
    environment = {
        "HOME": str(tmp_path / "home"),
        "PATH": os.environ["PATH"],
        "PYTHONPATH": os.pathsep.join([str(STAND_IN), str(INSTALLED)]),
        "PYTHONDONTWRITEBYTECODE": "1",
        "COLUMNS": "100",
    }
    return CommandLine(tmp_path, environment)


@pytest.fixture
def qs(bare: CommandLine, free_port: int, recording: Path) -> Iterator[CommandLine]:
    """The command line, configured for the user's own archive; its server ends with the test."""
    (bare.folder / "config.env").write_text(
        f"riva_model_loc=./models-here\nuse_existing_rmirs=true\nriva_timeout_sec=60\n"
        f"riva_speech_api_port={free_port}\nriva_speech_api_http_port=0\n"
        f"readiness_audio={recording.name}\n"
    )
    (bare.location / "rmir").mkdir(parents=True)
    (bare.location / "rmir" / "mine.rmir").write_bytes(b"an archive")
    yield bare
    bare("stop")


class Package:
    """A copy of the package, whose one artefact is what a test says."""

    def __init__(self, folder: Path) -> None:
        shutil.copytree(Path(quickstart.__file__).parent, folder / "quickstart")
        self.artifacts = folder / "quickstart" / "artifacts"
        self.offer(b"version one")

    def offer(self, data: bytes, version: str = "1") -> None:
        """Put an artefact and its row into the package."""
        row = {"service": "asr", "language": "en-US", "model": "english", "name": "test"}
        file = {"file": "test.rmir", "size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        table = {"artifacts": [{**row, **file, "version": version, "source": "embedded"}]}
        (self.artifacts / "catalog.json").write_text(json.dumps(table))
        (self.artifacts / "test.rmir").write_bytes(data)

    def claim(self, size: int) -> None:
        """Say in the catalogue that the artefact is another one, of some size."""
        table = json.loads((self.artifacts / "catalog.json").read_text())
        table["artifacts"][0] |= {"size": size, "sha256": "0" * 64}
        (self.artifacts / "catalog.json").write_text(json.dumps(table))


@pytest.fixture
def package(qs: CommandLine) -> Package:
    """A package of its own, that the command line of the test runs."""
    site = qs.folder / "site"
    qs.environment["PYTHONPATH"] = os.pathsep.join([str(site), qs.environment["PYTHONPATH"]])
    qs.options = ["--set", "use_existing_rmirs=false"]
    (qs.location / "rmir" / "mine.rmir").unlink()
    return Package(site)


@pytest.fixture
def wait_until() -> Callable[[Callable[[], object]], None]:
    """Waits until something is true, or fails the test."""

    def wait(condition: Callable[[], object]) -> None:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            with suppress(OSError, ValueError):
                if condition():
                    return
            time.sleep(0.02)
        pytest.fail("it did not come true within 120 s")

    return wait


@pytest.fixture(scope="session")
def ngc_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ngc]:
    """The stand-in for NGC, one for all tests: ngcsdk reads its address once."""
    with Ngc(tmp_path_factory.mktemp("ngc")).running() as server:
        yield server


@pytest.fixture
def ngc(ngc_server: Ngc, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Ngc]:
    """The stand-in, fresh, with an environment that leads there and a home of its own.

    At the end no thread of a transfer is left that could ask it for something in the next test.
    """
    ngc_server.reset()
    home = tmp_path / "ngc-home"
    home.mkdir()
    for name in ("NGC_API_KEY", "NGC_CLI_API_KEY", "NGC_API_KEY_FILE", "NGC_CLI_API_KEY_FILE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {**ngc_server.environment, "HOME": str(home)}.items():
        monkeypatch.setenv(name, value)
    yield ngc_server
    fetching.settle()
