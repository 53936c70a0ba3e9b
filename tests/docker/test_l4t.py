"""The image for Jetson, built and run by an emulator: what can be known of it without a Jetson."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from support.digits import ARCHIVE, SAID
from support.ports import free_port

from .conftest import ROOT, TAG, docker, hear, until_ready

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.docker, pytest.mark.emulation, pytest.mark.timeout(1800)]
IMAGE = f"riva-qs-test/speech:arm64-{TAG}"
BASES = ["--base=riva-qs-test/base:arm64", "--builder=riva-qs-test/python:arm64"]
PLATFORM = "--platform=linux/arm64"


@pytest.fixture(scope="module")
def l4t() -> str:
    """The variant for JetPack 6, on a base of this machine's making."""
    options = ["--variant=jetpack6", *BASES, f"--tag={IMAGE}"]
    command = [sys.executable, "-m", "quickstart", "image", "build", *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return IMAGE


@pytest.fixture
def served(l4t: str, tmp_path: Path) -> Iterator[int]:
    """The port of a server on a model that the image itself deployed."""
    tmp_path.chmod(0o777)
    (tmp_path / "digits.rmir").write_bytes(ARCHIVE.read_bytes())
    run = ["run", PLATFORM, f"--volume={tmp_path}:/data"]
    docker(*run, "--rm", l4t, "deploy_all_models", "/data", "/data/models")
    port = free_port()
    server = docker(*run, "--detach", f"--publish=127.0.0.1:{port}:50051", l4t)
    try:
        until_ready(server)
        yield port
    finally:
        docker("rm", "--force", server)


def test_it_is_for_jetson(l4t: str) -> None:
    """The image is of the architecture, and asks NVIDIA's runtime for what computing needs."""
    found = json.loads(docker("inspect", l4t))[0]
    assert found["Architecture"] == "arm64"
    assert "NVIDIA_VISIBLE_DEVICES=all" in found["Config"]["Env"]
    assert docker("run", "--rm", PLATFORM, l4t, "uname", "-m") == "aarch64"


def test_it_serves_an_utterance(served: int) -> None:
    """deploy_all_models, start-riva, and words through the published port."""
    assert hear(served) == SAID
