from __future__ import annotations

import json
import os
import signal
import subprocess
from typing import TYPE_CHECKING

import pytest

from quickstart.backends import life

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from .conftest import CommandLine


def tree(folder: Path) -> list[tuple[str, bytes]]:
    """Return every file of a folder with its content."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return [(str(path.relative_to(folder)), path.read_bytes()) for path in files]


@pytest.fixture
def started(qs: CommandLine) -> CommandLine:
    """A service that answers."""
    assert qs("init").returncode == 0
    done = qs("start")
    assert done.returncode == 0, done.stderr
    return qs


def test_from_nothing_to_a_transcript_and_back(qs: CommandLine, recording: Path) -> None:
    """init, start, status, transcribe, logs, stop and clean do what they say, in this order."""
    assert "deployed" in qs("init").stdout
    begun = qs("start")
    assert "ready at 127.0.0.1" in begun.stdout
    assert f"next: riva-qs transcribe {recording}" in begun.stderr
    assert qs("status").returncode == 0
    for how in ("--streaming", "--offline"):
        heard = qs("transcribe", how, str(recording))
        assert heard.stdout == "one two three\n"
        assert heard.stderr.startswith("next: ")
    assert "received" in qs("logs").stdout
    assert "drained first" in qs("stop").stdout
    assert qs("status").returncode == 6
    assert "keeps" in qs("clean", "--yes").stdout
    assert [path.name for path in qs.location.iterdir()] == ["rmir"]


def test_init_twice_reuses(qs: CommandLine) -> None:
    """A second init deploys nothing, says so, and is quick."""
    first, second = qs.json("init"), qs.json("init")
    assert (first["reused"], second["reused"]) == (False, True)
    assert first["generation"] == second["generation"]
    assert "reused" in qs("init").stdout


def test_init_notices_another_archive(qs: CommandLine) -> None:
    """A changed or added archive is deployed, and the generation before is kept."""
    first = qs.json("init")["generation"]
    (qs.location / "rmir" / "other.rmir").write_bytes(b"x")
    second = qs.json("init")
    assert [model["rmir"] for model in second["models"]] == ["mine.rmir", "other.rmir"]
    (qs.location / "rmir" / "mine.rmir").write_bytes(b"changed")
    third = qs.json("init")["generation"]
    kept = {path.name for path in (qs.location / "generations").iterdir()}
    assert kept == {second["generation"], third}
    assert first not in kept


def test_init_repairs_a_damaged_generation(qs: CommandLine) -> None:
    """When parts of the deployed models are gone, init deploys again."""
    qs("init")
    (qs.location / "models" / "mine-streaming" / "config.pbtxt").unlink()
    (qs.location / "models" / "mine-streaming" / "1").rmdir()
    (qs.location / "models" / "mine-streaming").rmdir()
    assert qs("start").returncode == 3
    assert qs.json("init")["reused"] is False


def test_start_twice_reuses_the_server(started: CommandLine) -> None:
    """A second start finds the server that fits and says so."""
    before = started.server()
    done = started("start")
    assert done.returncode == 0
    assert "already running" in done.stderr
    assert started.server() == before


@pytest.mark.parametrize("change", ["host", "models"])
def test_start_restarts_what_no_longer_fits(started: CommandLine, change: str) -> None:
    """Other settings or models need another server; start stops the old one and says so."""
    before = started.server()
    if change == "models":
        (started.location / "rmir" / "mine.rmir").write_bytes(b"changed")
        assert "riva-qs start restarts it" in started("init").stdout
    else:
        started.options = ["--set", "riva_speech_api_host=127.0.0.2"]
    done = started("start")
    assert done.returncode == 0, done.stderr
    assert "have changed" in done.stderr
    assert started.server()["pid"] != before["pid"]
    assert (started.location / "run" / "server.previous.log").exists()


@pytest.fixture
def killed(started: CommandLine, wait_until: Callable[..., None]) -> CommandLine:
    """A location whose server was killed, and is dead by now."""
    os.kill(started.server()["pid"], signal.SIGKILL)
    wait_until(lambda: not life.is_held(started.location / "run" / "server.lock"))
    return started


def test_status_sees_a_killed_server_at_once(killed: CommandLine) -> None:
    """The first status after the server's death says no, and start brings it back."""
    done = killed("status")
    assert done.returncode == 6
    assert "alive: no" in done.stdout
    assert killed("start").returncode == 0


def test_status_sees_a_server_that_hangs(started: CommandLine) -> None:
    """A stopped process is alive, but does not answer."""
    pid = started.server()["pid"]
    os.kill(pid, signal.SIGSTOP)
    data = started.json("status")
    os.kill(pid, signal.SIGCONT)
    assert (data["ready"], data["alive"]["ok"], data["loaded"]["ok"]) == (False, True, False)


def test_another_process_with_the_pid_is_not_the_server(killed: CommandLine) -> None:
    """A recycled process id is neither taken for the server nor killed in its place."""
    with subprocess.Popen(["sleep", "60"]) as bystander:
        noted = {**killed.server(), "pid": bystander.pid}
        (killed.location / "run" / "server.json").write_text(json.dumps(noted))
        assert killed("status").returncode == 6
        assert "nothing to stop" in killed("stop").stdout
        assert bystander.poll() is None
        bystander.kill()


def test_a_server_without_notes_is_found_all_the_same(started: CommandLine) -> None:
    """When whoever started it was killed before it could take notes, stop finds the server."""
    pid = started.server()["pid"]
    (started.location / "run" / "server.json").unlink()
    assert started("status").returncode == 6
    assert f"(pid {pid})" in started("stop").stdout


def test_dry_runs_change_nothing(qs: CommandLine) -> None:
    """Every --dry-run tells its steps and leaves every file as it is."""
    before = tree(qs.folder)
    for verb in ("init", "stop", "clean"):
        assert qs(verb, "--dry-run").returncode == 0
    assert tree(qs.folder) == before
    qs("init")
    before = tree(qs.folder)
    assert qs.json("start", "--dry-run")["steps"]
    assert "would remove" in qs("clean", "--dry-run").stdout
    assert qs("init", "--dry-run").stdout == "nothing to do: all is deployed\n"
    assert tree(qs.folder) == before


def test_clean_keeps_the_user_s_archives(started: CommandLine) -> None:
    """clean asks; agreed to, it stops the server and removes all but what the user put there."""
    refused = started("clean")
    assert refused.returncode == 2
    assert "--yes" in refused.stderr
    assert started("status").returncode == 0
    done = started("clean", "--yes")
    assert "drained first" in done.stderr
    assert tree(started.location) == [("rmir/mine.rmir", b"an archive")]
    assert "nothing to clean" in started("clean", "--yes").stdout


def test_words_come_with_times_on_request(started: CommandLine, recording: Path) -> None:
    """--word-times adds a line for each word, and JSON has them as numbers."""
    done = started("transcribe", "--word-times", str(recording))
    assert done.stdout.splitlines()[1].split() == ["0", "80", "one"]
    data = started.json("transcribe", "--word-times", str(recording))
    assert data["words"][1] == {"word": "two", "start_ms": 100, "end_ms": 180, "confidence": 0.5}


def test_a_model_that_is_not_there_is_the_server_s_word(
    started: CommandLine, recording: Path
) -> None:
    """What the server says about a wrong request reaches the user."""
    done = started("transcribe", "--offline", "--model", "unknown", str(recording))
    assert done.returncode == 2
    assert "Unavailable model requested" in done.stderr


def test_logs_follow_until_the_server_ends(started: CommandLine, recording: Path) -> None:
    """`logs -f` shows lines as they come, and ends with the server."""
    with started.popen("logs", "-f", "--since", "1h", "--tail", "1") as follower:
        started("transcribe", str(recording))
        started("stop")
        out, _ = follower.communicate(timeout=120)
    assert follower.returncode == 0
    assert "INFO drained" in out.splitlines()[-1]


def test_interrupting_a_follower_is_130(started: CommandLine) -> None:
    """Ctrl-C ends `logs -f` with exit code 130 and without a traceback."""
    follower = started.popen("logs", "-f")
    assert follower.stdout is not None
    follower.stdout.readline()
    follower.send_signal(signal.SIGINT)
    _, err = follower.communicate(timeout=120)
    assert follower.returncode == 130
    assert "Traceback" not in err


def test_quiet_leaves_results_and_errors(qs: CommandLine) -> None:
    """With --quiet stderr is empty unless something is wrong."""
    qs.options = ["--quiet"]
    done = qs("init")
    assert done.stderr == ""
    assert "deployed" in done.stdout


def test_json_is_one_object_with_a_schema(started: CommandLine, recording: Path) -> None:
    """Every verb prints one object with schema_version and its name, and nothing on stderr."""
    for arguments in (
        ["init"],
        ["start"],
        ["status"],
        ["transcribe", str(recording)],
        ["logs"],
        ["config", "show"],
        ["config", "validate"],
        ["config", "example"],
        ["stop"],
        ["clean", "--yes"],
    ):
        done = started("--json", *arguments)
        data = json.loads(done.stdout)
        assert done.stderr == ""
        assert data["schema_version"] == 1
        assert data["verb"] == " ".join(word for word in arguments[:2] if word.isalpha())


def test_two_starts_at_once_make_one_server(qs: CommandLine) -> None:
    """Of two starts at the same time, one starts the server and both return when it answers."""
    qs("init")
    both = [qs.popen("start"), qs.popen("start")]
    outputs = [one.communicate(timeout=120) for one in both]
    assert [one.returncode for one in both] == [0, 0], outputs
    assert sorted("reused" in out for out, _ in outputs) == [False, True]
