"""What goes wrong, each with its exit code and the words that help."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from quickstart.backends.embedded import Embedded
from quickstart.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from .conftest import CommandLine


@pytest.fixture
def deployed(qs: CommandLine) -> CommandLine:
    """A location with models, and no server."""
    assert qs("init").returncode == 0
    return qs


def said(done: subprocess.CompletedProcess[str], code: int) -> str:
    """Return the error of a call that ended with a code, checked to be for people."""
    assert done.returncode == code, done.stderr
    assert "Traceback (most recent call last)\n  File" not in done.stderr
    return done.stderr[done.stderr.index("error: ") :]


def test_no_archive_to_deploy(qs: CommandLine) -> None:
    """use_existing_rmirs without an archive says where to put one."""
    (qs.location / "rmir" / "mine.rmir").unlink()
    for arguments in (["init"], ["init", "--dry-run"]):
        text = said(qs(*arguments), 3)
        assert str(qs.location / "rmir") in text
        assert "put yours there" in text


def test_start_before_init(qs: CommandLine) -> None:
    """start without deployed models says to run init."""
    assert "riva-qs init" in said(qs("start"), 3)


def test_a_verb_that_needs_a_server(qs: CommandLine, recording: Path) -> None:
    """Without a server transcribe and logs exit 6 and name the command that starts one."""
    assert "riva-qs start" in said(qs("transcribe", str(recording)), 6)
    assert "riva-qs start" in said(qs("logs"), 6)


@pytest.mark.parametrize(
    ("fault", "code", "words"),
    [
        ("key", 9, "the key 6 does not fit\nhint: set MODEL_DEPLOY_KEY"),
        ("crash", 1, "ValueError: unforeseen"),
        ("lie", 1, "did not make mine-streaming"),
        ("silent", 1, "no readable report"),
    ],
)
def test_a_deploy_that_fails(qs: CommandLine, fault: str, code: int, words: str) -> None:
    """A failed deploy exits as its program did, with its cause, and changes nothing."""
    first = qs.json("init")["generation"]
    (qs.location / "rmir" / "mine.rmir").write_bytes(b"changed")
    text = said(qs("init", STAND_IN_DEPLOY=fault, MODEL_DEPLOY_KEY="sesame"), code)
    assert words in text
    generations = qs.location / "generations"
    assert [path.name for path in generations.iterdir()] == [first]
    assert (qs.location / "models").resolve().parent.name == first
    assert qs("start").returncode == 0


@pytest.mark.parametrize(
    ("fault", "code", "words"),
    [
        ("exit", 3, "no model can be loaded\nhint: deploy again"),
        ("crash", 1, "ValueError: unforeseen"),
        ("killed", 1, "was ended by SIGKILL"),
    ],
)
def test_a_server_that_ends_while_starting(
    deployed: CommandLine, fault: str, code: int, words: str
) -> None:
    """start returns at once with the first cause when the server ends."""
    began = time.monotonic()
    text = said(deployed("start", STAND_IN_SERVE=fault), code)
    assert time.monotonic() - began < 120  # the limit is 300
    assert words in text
    assert "consequence" not in text


@pytest.mark.parametrize(
    ("fault", "limit", "words"),
    [
        ("mute", 1, "does not answer at 127.0.0.1"),
        ("loading", 10, "the server loads its models"),
    ],
)
def test_a_server_that_never_gets_ready(
    deployed: CommandLine, fault: str, limit: int, words: str
) -> None:
    """At the limit start exits 6 with the last state, and the server can still be looked at."""
    text = said(deployed("--set", f"riva_timeout_sec={limit}", "start", STAND_IN_SERVE=fault), 6)
    assert words in text
    assert "riva-qs logs" in text
    assert deployed("status").returncode == 6


def test_a_server_that_hears_nothing(deployed: CommandLine) -> None:
    """An empty transcript is not readiness; start gives up early and names readiness_audio."""
    began = time.monotonic()
    text = said(deployed("start", STAND_IN_SERVE="deaf"), 6)
    assert time.monotonic() - began < 120  # the limit is 300
    assert "readiness_audio" in text


def test_a_port_in_use(deployed: CommandLine, free_port: int) -> None:
    """A taken port is told with the process that has it, before anything is started."""
    script = (
        "import socket, sys, time; s = socket.create_server(('127.0.0.1', int(sys.argv[1])));"
        "print('listening', flush=True); time.sleep(60)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(free_port)], stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        other.stdout.readline()
        text = said(deployed("start"), 7)
        other.kill()
    assert f"port {free_port} is taken by python" in text
    assert f"(pid {other.pid})" in text
    assert "riva_speech_api_port" in text
    assert not (deployed.location / "run" / "server.json").exists()


@pytest.mark.parametrize("key", ["riva_speech_api_http_port", "server_metrics_port"])
def test_a_taken_port_of_http(deployed: CommandLine, key: str) -> None:
    """Each further port of the server is looked at beforehand, and the hint names its key."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        text = said(deployed("--set", f"{key}={other.getsockname()[1]}", "start"), 7)
    assert f"set {key} to a free port" in text


def test_an_address_of_another_machine(deployed: CommandLine) -> None:
    """An address that this machine does not have is a mistake in the settings."""
    for host in ("192.0.2.1", "no-such-host.invalid"):
        text = said(deployed("--set", f"riva_speech_api_host={host}", "start"), 2)
        assert host in text


def test_a_server_that_does_not_drain(deployed: CommandLine) -> None:
    """A server that ignores the request to end is killed, and stop says so."""
    assert deployed("start", STAND_IN_SERVE="stubborn").returncode == 0
    backend = Embedded(Store(deployed.location), drain=0.5)
    assert "killed the server" in backend.stop()
    assert "alive: no" in deployed("status").stdout


def test_the_status_of_a_server_whose_models_are_damaged(deployed: CommandLine) -> None:
    """It is alive, and what is known of its models is what is wrong with them."""
    assert deployed("start").returncode == 0
    (stamp,) = deployed.location.glob("generations/*/stamp.json")
    whole = stamp.read_bytes()
    stamp.write_bytes(whole[:20])

    found = deployed("--json", "status")

    assert found.returncode == 6, found.stderr
    told = json.loads(found.stdout)
    assert (told["alive"]["ok"], told["ready"], told["models"]) == (True, False, [])
    assert "no readable stamp" in told["loaded"]["detail"]
    stamp.write_bytes(whole)


def test_interrupting_start_stops_the_server(
    deployed: CommandLine, wait_until: Callable[..., None]
) -> None:
    """Ctrl-C, or SIGTERM, while start waits leaves no half-started server behind."""
    for number in (signal.SIGINT, signal.SIGTERM):
        begun = deployed.popen("start", STAND_IN_SERVE="loading")
        wait_until(lambda: "listening" in (deployed.location / "run/server.log").read_text())
        wait_until(deployed.server)
        begun.send_signal(number)
        _, err = begun.communicate(timeout=120)
        assert begun.returncode == 130, err
        assert "Traceback" not in err
        assert deployed.json("status")["alive"]["ok"] is False
        (deployed.location / "run/server.log").unlink()


def test_interrupting_init_leaves_what_was_there(
    qs: CommandLine, wait_until: Callable[..., None]
) -> None:
    """Ctrl-C during a deploy ends its program and leaves no draft."""
    begun = qs.popen("init", STAND_IN_DEPLOY="hang")
    wait_until(lambda: list(qs.location.glob("generations/.partial*/models/*/*.pbtxt")))
    begun.send_signal(signal.SIGINT)
    _, err = begun.communicate(timeout=120)
    assert begun.returncode == 130, err
    assert not list((qs.location / "generations").iterdir())


def test_a_deploy_ends_when_its_program_does(qs: CommandLine) -> None:
    """What the program has left behind may hold its output: nobody waits for that."""
    done = qs("--set", "deploy_silence_sec=3", "init", STAND_IN_DEPLOY="held")

    assert done.returncode == 0, done.stderr


def test_a_deploy_that_says_nothing_is_ended(qs: CommandLine) -> None:
    """A deploy is ended when it is silent for longer than the settings say; no draft is left."""
    done = qs("--set", "deploy_silence_sec=2", "init", STAND_IN_DEPLOY="hang")
    assert "has said nothing for" in done.stderr
    assert "deploy_silence_sec" in said(done, 6)
    assert not list((qs.location / "generations").iterdir())


def test_two_inits_at_once(qs: CommandLine, wait_until: Callable[..., None]) -> None:
    """While one init works, a second one is told which process is at work."""
    begun = qs.popen("init", STAND_IN_DEPLOY="hang")
    wait_until(lambda: list(qs.location.glob("generations/.partial*/models/*/*.pbtxt")))
    text = said(qs("init"), 1)
    begun.send_signal(signal.SIGINT)
    begun.communicate(timeout=120)
    assert f"riva-qs init (pid {begun.pid}) is at work" in text


def test_models_of_somebody_else(qs: CommandLine) -> None:
    """A real folder in the place of `models` is named, and never touched."""
    (qs.location / "models").mkdir()
    (qs.location / "models" / "precious").write_text("x")
    for arguments in (["init"], ["start"]):
        assert "was not made by riva-qs" in said(qs(*arguments), 1)
    qs("clean", "--yes")
    assert (qs.location / "models" / "precious").read_text() == "x"


def test_a_location_that_is_a_file(qs: CommandLine) -> None:
    """A location that cannot be a folder is an error with its path."""
    (qs.folder / "file").write_text("")
    text = said(qs("--set", "riva_model_loc=./file", "init"), 1)
    assert str(qs.folder / "file") in text


def test_a_location_that_no_one_may_write(qs: CommandLine) -> None:
    """A place where not even root may write is an error with its path and a way out."""
    text = said(qs("--set", "riva_model_loc=/sys/riva", "init"), 1)
    assert "/sys/riva" in text
    assert "set riva_model_loc to a folder that you may write to" in text


def test_services_that_are_not_there(qs: CommandLine) -> None:
    """A service without models is refused by init and start, with its key."""
    for verb in ("init", "start"):
        text = said(qs("--set", "service_enabled_tts=true", verb), 5)
        assert "service_enabled_tts=false" in text


def test_readiness_audio_that_is_none(deployed: CommandLine) -> None:
    """A readiness recording that is missing or no audio is told before a server starts."""
    (deployed.folder / "notes.txt").write_text("hello\n")
    for name in ("missing.wav", "notes.txt"):
        assert name in said(deployed("--set", f"readiness_audio=./{name}", "start"), 2)
    assert not (deployed.location / "run").exists()


def test_an_audio_file_that_is_none(deployed: CommandLine) -> None:
    """transcribe says what a file looks like when it is no recording."""
    (deployed.folder / "notes.wav").write_text("hello\n")
    assert "looks like text" in said(deployed("transcribe", "notes.wav"), 2)


def test_secrets_stay_where_they_are_needed(deployed: CommandLine) -> None:
    """The server is given no key, and no command line has one."""
    secrets = {"MODEL_DEPLOY_KEY": "sesame", "NGC_API_KEY": "nvapi-x", "RIVA_TIMEOUT_SEC": "50"}
    assert deployed("start", **secrets).returncode == 0
    assert "secrets: []" in deployed("logs").stdout
    with open(f"/proc/{deployed.server()['pid']}/environ", "rb") as stream:  # noqa: PTH123 - /proc
        assert b"sesame" not in stream.read()


def test_a_listener_of_another_service(deployed: CommandLine, recording: Path) -> None:
    """A port that does not speak gRPC is no service, and transcribe says so."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        listener.close()
        option = ["--set", f"riva_speech_api_port={port}"]
        assert f"127.0.0.1:{port}" in said(deployed(*option, "transcribe", str(recording)), 6)
