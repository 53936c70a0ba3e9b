"""All models of a deployment are in a repository, or none, whatever is killed and whenever."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from riva_speech import staging
from riva_speech.errors import SpeechError
from riva_speech.repository import list_models
from support.killing import Killer
from support.programs import MODULES, succeed

if TYPE_CHECKING:
    from pathlib import Path

NAMES = ("one", "two", "three")
# Deploys the three models with the text in argv[3], and kills itself before the n-th change of the
# disk.
KILLED = """
import os, pathlib, signal, sys
from riva_speech import staging
left, repository, text = int(sys.argv[1]), pathlib.Path(sys.argv[2]), sys.argv[3]
changes = {"os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.symlink"}
def hook(event, arguments):
    global left
    if event in changes:
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(hook)
with staging.staging(repository) as folder:
    for name in ("one", "two", "three"):
        (folder / staging.MODELS / name).mkdir()
        (folder / staging.MODELS / name / "config.pbtxt").write_text(text)
    staging.move_in(folder, repository, {})
"""


def deploy(repository: Path, text: str, change: int = 1000) -> int:
    """Deploy in a process that is killed at a change; return its exit code."""
    command = [sys.executable, "-c", KILLED, str(change), str(repository), text]
    return subprocess.run(command, check=False).returncode


def texts(repository: Path) -> list[str]:
    """Return what the models say, read as the server reads them."""
    with staging.reading(repository):
        return [(repository / name / "config.pbtxt").read_text() for name in NAMES]


def test_a_deployment_may_be_killed_anywhere(tmp_path: Path) -> None:
    """After a kill at any change, a reader finds the old models or the new ones, and no rest."""
    deploy(tmp_path, "0")
    before, change, code, finished = "0", 0, -signal.SIGKILL, 0
    while code:
        change += 1
        assert not list(tmp_path.glob(".*"))
        code = deploy(tmp_path, str(change), change - 1)
        assert code in (0, -signal.SIGKILL)
        (now,) = set(texts(tmp_path))
        assert now in (before, str(change))
        finished += now != before
        before = now

    assert now == str(change), "it was let through in the end"
    assert 5 < finished < change - 5, "some kills came before all were ready, and some after"


@pytest.mark.parametrize(
    ("change", "left", "text"), [(4, ".deploying", "old"), (9, ".moving", "new")]
)
def test_the_next_deployment_ends_what_was_interrupted(
    tmp_path: Path, change: int, left: str, text: str
) -> None:
    """It moves in what was complete and throws away what was not, before it begins its own."""
    deploy(tmp_path, "old")
    assert deploy(tmp_path, "new", change) == -signal.SIGKILL
    assert [path.name.split("-")[0] for path in tmp_path.glob(".*")] == [left]

    with staging.staging(tmp_path):
        assert [(tmp_path / name / "config.pbtxt").read_text() for name in NAMES] == [text] * 3

    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(NAMES)


def test_what_a_living_deployment_writes_is_left_alone(tmp_path: Path) -> None:
    """Neither a reader nor another deployment sweeps it."""
    with staging.staging(tmp_path) as mine:
        with staging.reading(tmp_path):
            assert mine.is_dir()
        with staging.staging(tmp_path) as other:
            assert mine.is_dir()
            assert mine != other


def test_a_deployment_waits_for_a_reader(tmp_path: Path) -> None:
    """No model is replaced while a server opens its files."""
    deploy(tmp_path, "old")
    command = [sys.executable, "-c", KILLED, "1000", str(tmp_path), "new"]
    with staging.reading(tmp_path), subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(timeout=1)
        assert (tmp_path / "one" / "config.pbtxt").read_text() == "old"
        process.send_signal(signal.SIGINT)


def test_a_repository_that_changed_meanwhile_is_left_as_it_is(tmp_path: Path) -> None:
    """Of two deployments of one model at once, the second to end says what happened."""
    found = staging.seen(tmp_path, NAMES)
    with staging.staging(tmp_path) as folder:
        for name in NAMES:
            (folder / staging.MODELS / name).mkdir()
        deploy(tmp_path, "theirs")

        with pytest.raises(SpeechError, match="another riva-deploy has changed one, two, three"):
            staging.move_in(folder, tmp_path, found)

    assert texts(tmp_path) == ["theirs"] * 3
    assert not list(tmp_path.glob(".*"))


def test_riva_deploy_may_be_killed_at_any_moment(tmp_path: Path, tiny_rmir: Path) -> None:
    """The models of an RMIR are all there or none is, and the next deploy needs no help."""
    repository = tmp_path / "models"
    program = [sys.executable, "-m", MODULES["riva-deploy"]]
    killer = Killer([*program, str(tiny_rmir), str(repository)], tmp_path, dict(os.environ))
    killer.whole()
    everything = list_models(repository)
    for number in range(40):
        for name in list_models(repository):
            (repository / name).rename(tmp_path / f"old-{name}-{number}")
        killer.once()
        with staging.reading(repository):
            assert list_models(repository) in ([], everything)
        if killer.killed == 4:
            break

    succeed("riva-deploy", tiny_rmir, repository)

    assert sorted(path.name for path in repository.iterdir()) == everything
    assert killer.killed == 4, "some were killed"


def test_two_deploys_at_once_do_not_meet(tmp_path: Path, tiny_riva: Path) -> None:
    """Two processes deploy two models into one repository, and both are there."""
    repository, commands = tmp_path / "models", []
    for name in ("one", "two"):
        rmir = tmp_path / f"{name}.rmir"
        succeed("riva-build", "speech_recognition", rmir, tiny_riva, f"--name={name}")
        commands.append(["-m", MODULES["riva-deploy"], str(rmir), str(repository)])

    running = [subprocess.Popen([sys.executable, *command]) for command in commands]

    assert [one.wait(timeout=250) for one in running] == [0, 0]
    assert len(list_models(repository)) == 6
    assert not list(repository.glob(".*"))
