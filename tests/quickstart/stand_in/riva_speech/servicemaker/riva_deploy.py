"""Deploys archives of any content: one model an archive."""

# ruff: noqa: T201 - it logs by print

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

ENGINE = {"riva_speech": "0.1.0", "onnxruntime": "0"}


def fail(code: int, *lines: str) -> None:
    """End as the real program does when it fails."""
    for line in lines:
        print(line, file=sys.stderr)
    sys.exit(code)


def model_of(archive: Path, repository: Path) -> dict[str, object]:
    """Deploy one archive and return its row of the report."""
    directory = f"{archive.stem}-streaming"
    (repository / directory / "1").mkdir(parents=True)
    (repository / directory / "config.pbtxt").write_text(f"# {archive.read_bytes()[:40]!r}\n")
    row = {"name": f"{archive.stem}-asr-streaming", "service": "asr", "type": "online"}
    return {**row, "language_code": "en-US", "rmir": archive.name, "directories": [directory]}


def main() -> None:
    """Deploy, or show the fault that was asked for."""
    parser = argparse.ArgumentParser()
    parser.add_argument("-f", action="store_true")
    parser.add_argument("--report", type=Path)
    parser.add_argument("paths", type=Path, nargs="+")
    arguments = parser.parse_args()
    *archives, repository = arguments.paths
    fault = os.environ.get("STAND_IN_DEPLOY", "")
    print("2026-01-31T12:00:00.000Z INFO deploying", file=sys.stderr, flush=True)
    if fault == "key":
        seen = os.environ.get("MODEL_DEPLOY_KEY", "")
        fail(9, f"error: the key {len(seen)} does not fit", "hint: set MODEL_DEPLOY_KEY")
    if fault == "crash":
        raise ValueError("unforeseen")
    repository.mkdir(parents=True)
    rows = [model_of(archive, repository) for archive in archives]
    if fault == "hang":
        time.sleep(600)
    if fault == "held":
        # Holds this program's output, and outlives it.
        subprocess.Popen(["sleep", "60"])
    if fault == "lie":
        (repository / str(rows[0]["directories"][0])).rename(repository / "elsewhere")  # type: ignore[index]  # a list
    if fault != "silent":
        report = {"schema_version": 1, "engine": ENGINE, "models": rows}
        arguments.report.write_text(json.dumps(report))


if __name__ == "__main__":
    main()
