"""`riva-qs bench asr` against the real server, on a short ladder."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from support.audio import babble, wav
from support.programs import serving

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    """Half a second of sound."""
    path = tmp_path / "babble.wav"
    path.write_bytes(wav(babble(0.5)))
    return path


def bench(*options: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "quickstart", *map(str, options)]
    return subprocess.run(command, capture_output=True, text=True, timeout=280, check=False)


def measured(*options: object) -> Any:
    done = bench("--json", "bench", "asr", *options)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_short_ladder(tiny_repository: Path, recording: Path, tmp_path: Path) -> None:
    """Each step has its latencies, every chunk is paired, and the picture is there."""
    options = ["--streams=1,2", "--trials=2", "--parallel=2", f"--plot={tmp_path / 'a.svg'}"]
    with serving(tiny_repository) as (uri, _):
        found = measured(recording, f"--uri={uri}", *options, "--keep-going")
        table = bench("bench", "asr", recording, f"--uri={uri}", "--streams=1", "--trials=1")

    assert [step["streams"] for step in found["steps"]] == [1, 2]
    for step in found["steps"]:
        assert (step["errors"], step["shed"], step["unpaired"]) == ({}, 0, 0)
        assert 0 < step["latency_ms"]["p50"]["min"] <= step["latency_ms"]["p99"]["max"]
        assert step["finalisation_ms"]["p50"]["median"] > 0
    assert (found["throughput"]["answered"], found["throughput"]["errors"]) == (12, {})
    assert found["throughput"]["rtfx"]["min"] > 0
    assert (tmp_path / "a.svg").read_text().startswith("<svg")
    assert table.returncode == 0, table.stderr
    assert "p99 ms" in table.stdout
    assert "most streams" in table.stdout


def test_streams_that_find_no_room_are_counted(tiny_repository: Path, recording: Path) -> None:
    """Above the server's limit streams are shed: the step does not hold, and the ladder ends."""
    with serving(tiny_repository, "--max_requests=1") as (uri, _):
        found = measured(recording, f"--uri={uri}", "--streams=4,8", "--trials=1", "--parallel=0")

    (step,) = found["steps"]
    assert step["shed"] > 0
    assert step["errors"] == {}
    assert not step["holds"]
    assert (found["most_streams"], found["throughput"]) == (0, None)


def test_what_the_server_refuses_is_told(tiny_repository: Path, recording: Path) -> None:
    """A model that is not there is told with the server's words before anything is measured."""
    with serving(tiny_repository) as (uri, _):
        done = bench("bench", "asr", recording, f"--uri={uri}", "--model=none-such")

    assert done.returncode == 2
    assert "Unavailable model requested" in done.stderr
    assert "Traceback" not in done.stderr
