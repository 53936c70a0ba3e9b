from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROGRAMS = sorted(
    path.stem
    for path in (ROOT / "benchmarks").glob("*.py")
    if '__name__ == "__main__"' in path.read_text()
)
MARKS = {"peer_models": pytest.mark.nemo}


@pytest.mark.parametrize(
    "program", [pytest.param(name, marks=MARKS.get(name, ())) for name in PROGRAMS]
)
def test_every_benchmark_says_how_it_is_called(program: str) -> None:
    """`--help` prints a program's options, and measures nothing."""
    command = [sys.executable, "-m", f"benchmarks.{program}", "--help"]
    told = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert told.returncode == 0, told.stderr
    assert told.stdout.startswith("usage:")
