"""The two halves together: the real engine, the packaged model and the packaged sample."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import quickstart
from quickstart import catalog
from quickstart.backends import life

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .conftest import CommandLine


@pytest.fixture
def real(bare: CommandLine, free_port: int) -> Iterator[CommandLine]:
    """The command line as a user has it: nothing configured but the port."""
    bare.environment["PYTHONPATH"] = os.environ.get("PYTHONPATH", "")
    bare.options = ["--set", f"riva_speech_api_port={free_port}"]
    yield bare
    bare("stop")


def test_two_commands_lead_to_a_transcript(real: CommandLine) -> None:
    """With an empty HOME, init and start serve the packaged model, which hears the sample."""
    first = real("init")
    assert first.returncode == 0, first.stderr
    begun = real("start")
    assert begun.returncode == 0, begun.stderr
    assert real("status").returncode == 0
    sample = str(catalog.sample())
    for how in ("--streaming", "--offline"):
        heard = real("transcribe", how, sample)
        assert heard.returncode == 0, heard.stderr
        assert heard.stdout.split()
    timed = real.json("transcribe", "--word-times", sample)
    assert [word["word"] for word in timed["words"]] == timed["transcript"].split()
    again = real("init")
    assert "reused" in again.stdout
    assert "reused" in real("start").stdout
    assert "drained first" in real("stop").stdout


@pytest.fixture
def tiny(real: CommandLine) -> CommandLine:
    """The real engine with an archive of the user's own: a tiny model of random weights."""
    archive = real.folder / "here" / "rmir" / "tiny.rmir"
    archive.parent.mkdir(parents=True)
    build = [sys.executable, "-m", "riva_speech.servicemaker.riva_build", "speech_recognition"]
    options = ["--name=tiny", "--offline", "--streaming=true"]
    model = f"{Path(__file__).parents[1] / 'data' / 'tiny.riva'}"
    command = [*build, f"{archive}:sesame", model, *options]
    subprocess.run(command, check=True, capture_output=True)
    (real.folder / "config.env").write_text("riva_model_loc=./here\nuse_existing_rmirs=true\n")
    return real


def test_an_archive_of_the_user_is_served(tiny: CommandLine) -> None:
    """Both models of an encrypted archive are deployed with its key, loaded and asked."""
    wrong = tiny("init")
    assert wrong.returncode == 9, wrong.stderr
    models = tiny.json("init", MODEL_DEPLOY_KEY="sesame")["models"]
    assert [model["type"] for model in models] == ["online", "offline"]
    begun = tiny("start")
    assert begun.returncode == 0, begun.stderr
    sample = str(catalog.sample())
    for model in models:
        how = "--streaming" if model["type"] == "online" else "--offline"
        heard = tiny("transcribe", how, "--model", model["name"], sample)
        assert heard.returncode == 0, heard.stderr
    unknown = tiny("transcribe", "--language-code", "ru-RU", sample)
    assert unknown.returncode == 2
    assert "Unavailable model requested. Lang: ru-RU, Type: online" in unknown.stderr
    for model in models:
        assert f"{model['name']} (en-US, {model['type']})" in unknown.stderr


def test_killing_the_real_server_is_seen(
    tiny: CommandLine, wait_until: Callable[..., None]
) -> None:
    """What is asked after the server's death is answered with no."""
    tiny("init", MODEL_DEPLOY_KEY="sesame")
    pid = tiny.json("start")["pid"]
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not life.is_held(tiny.folder / "here" / "run" / "server.lock"))
    assert tiny("status").returncode == 6


def test_the_engine_s_failure_is_told_as_its_own(real: CommandLine) -> None:
    """What is no archive fails the real deploy with its error, and its exit code."""
    location = real.folder / "here"
    (location / "rmir").mkdir(parents=True)
    (location / "rmir" / "x.rmir").write_bytes(b"no archive")
    done = real("--set", f"riva_model_loc={location}", "--set", "use_existing_rmirs=true", "init")
    assert done.returncode == 9, done.stderr
    assert "error: the deploy failed: " in done.stderr
    assert "Traceback" not in done.stderr


def test_both_halves_have_one_version() -> None:
    """The engine that is installed beside the host half is of the same version."""
    script = "import riva_speech; print(riva_speech.__version__)"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == quickstart.__version__
