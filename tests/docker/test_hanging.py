"""What hangs is told, limited and ended: deploys, servers, starts, and the engine itself."""

from __future__ import annotations

import re
import signal
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from quickstart.backends import engine as engines
from quickstart.backends.container import ContainerSpec
from quickstart.backends.docker import starting
from quickstart.errors import NotReadyError
from support import engine_proxy
from support.digits import SAID

from .conftest import ENGINE, docker, hear, lines_until

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator
    from pathlib import Path

    from .conftest import Place

pytestmark = pytest.mark.docker
HELD = r"POST /v[0-9.]+/containers/[^/]+/start"


@contextmanager
def door(place: Place, pattern: str = "") -> Iterator[subprocess.Popen[bytes]]:
    """Let a place reach the engine through a door only."""
    path = place.folder / "engine.sock"
    with engine_proxy.before(ENGINE, path, pattern) as process, pytest.MonkeyPatch.context() as env:
        env.setenv("DOCKER_HOST", f"unix://{path}")
        yield process


def test_a_deploy_that_falls_silent(serving: Place, hanging: str) -> None:
    """The silence is told and limited, nothing is left of the deploy, and what serves goes on."""
    serving.bring("more.rmir")
    given = ["--set", f"image_speech_api={hanging}", "--set", "deploy_silence_sec=3"]
    done = serving(*given, "init")
    assert done.returncode == 6, done.stderr
    assert "begun" in done.stderr
    assert re.search(r"the deploy has said nothing for \d+ s", done.stderr)
    assert "and was ended" in done.stderr
    assert "deploy_silence_sec" in done.stderr
    assert not docker("ps", "--all", "--quiet", f"--filter=name={serving.name}-deploy")
    assert hear(serving.port) == SAID
    assert serving.json("status")["ready"]


def test_a_server_that_never_answers(deployed: Place, hanging: str) -> None:
    """Waiting for it ends with the time that was set; stop ends it, and the next start serves."""
    given = ["--set", f"image_speech_api={hanging}"]
    text = deployed.fails(6, *given, "--set", "riva_timeout_sec=2", "start")
    assert "not ready after" in text
    assert "riva_timeout_sec" in text
    deployed.ok(*given, "stop")
    deployed.ok("start")


def test_an_engine_that_stops_during_a_deploy(place: Place, hanging: str) -> None:
    """It is given up, not waited for; once it answers again, the next init clears up and works."""
    given = ["--set", f"image_speech_api={hanging}", "--set", "deploy_silence_sec=9"]
    with door(place) as process:
        init = place.popen(*given, "init")
        lines_until(init, "begun")
        process.send_signal(signal.SIGSTOP)
        _, rest = init.communicate(timeout=300)
        assert init.returncode == 6, rest
        assert "does not answer within" in rest
        assert docker(*(f"--host={ENGINE}", "ps", "--quiet", f"--filter=name={place.name}-deploy"))
        process.send_signal(signal.SIGCONT)
        place.ok("init")


def test_an_engine_that_stops_during_a_start(deployed: Place, hanging: str) -> None:
    """start says within seconds that the engine is gone; its server is found once it is back."""
    with door(deployed) as process:
        start = deployed.popen("--set", f"image_speech_api={hanging}", "start")
        lines_until(start, "waiting for")
        process.send_signal(signal.SIGSTOP)
        _, rest = start.communicate(timeout=300)
        assert start.returncode == 6, rest
        assert "does not answer within" in rest
        process.send_signal(signal.SIGCONT)
        deployed.ok("stop")
        deployed.ok("start")


def test_a_start_that_is_slow(deployed: Place) -> None:
    """A container that stays in Created is told at once; when it runs in the end, it serves."""
    with door(deployed, HELD) as process:
        start = deployed.popen("start")
        assert "stuck in the state Created" in lines_until(start, "stuck")[-1]
        assert deployed.inspect()["State"]["Status"] == "created"
        process.send_signal(signal.SIGUSR1)
        said, rest = start.communicate(timeout=300)
        assert start.returncode == 0, rest
        assert "(started)" in said


def test_an_interrupted_start_leaves_all_as_it_was(serving: Place) -> None:
    """Ctrl-C between two servers gives the one before its name again, and nothing is left over."""
    serving.ok("stop")
    before = serving.inspect()["Id"]
    with door(serving, HELD):
        start = serving.popen("start")
        lines_until(start, "stuck in the state Created")
        start.send_signal(signal.SIGINT)
        _, rest = start.communicate(timeout=300)
    assert start.returncode == 130, rest
    assert serving.inspect()["Id"] == before
    assert not docker("ps", "--all", "--quiet", f"--filter=name={serving.name}-before")
    serving.ok("start")


@pytest.mark.parametrize(
    ("meanwhile", "state"),
    [
        ((), "is stuck in the state Created"),
        (("start",), "is in the state Running"),
        (("rm",), "is gone"),
    ],
)
def test_a_start_that_is_never_answered(
    place: Place,
    speech: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    meanwhile: tuple[str, ...],
    state: str,
) -> None:
    """The engine is given its time, then the container's state is the error, whatever it is."""
    monkeypatch.setattr(starting, "LIMIT", 3)
    monkeypatch.setattr(starting, "SUSPICIOUS_AFTER", 0.1)
    path, told = tmp_path / "held.sock", list[str]()

    def report(text: str) -> None:
        told.append(text)
        for verb in meanwhile:
            docker(f"--host={ENGINE}", verb, place.name)

    with engine_proxy.before(ENGINE, path, HELD):
        monkeypatch.setenv("DOCKER_HOST", f"unix://{path}")
        engine = engines.connect()
        try:
            engine.create(ContainerSpec(place.name, speech, ("sleep", "600")), {})
            with pytest.raises(NotReadyError, match=f"{place.name} {state}") as caught:
                starting.start(engine, place.name, report)
        finally:
            engine.close()
    assert "journalctl -u docker" in caught.value.hint
    (first,) = told
    assert "is stuck in the state Created" in first
