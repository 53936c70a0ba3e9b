"""What is in our images, and what is not."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from quickstart import __version__, images

from .conftest import BASES, ENGINE, ROOT, docker

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.docker
PROGRAMS = ["nemo2riva", "riva-build", "riva-deploy", "start-riva", "deploy_all_models"]


def inside(image: str, *command: str) -> str:
    return docker("run", "--rm", image, *command)


def test_programs_are_where_nvidias_are(speech: str) -> None:
    """Servicemaker and server are in one image, on the path and in /opt/riva/bin."""
    for program in PROGRAMS:
        assert f"/opt/riva/bin/{program}" == inside(speech, "sh", "-c", f"command -v {program}")
        assert inside(speech, program, "--version").startswith(program)


def test_nobody_is_root_and_something_reaps(speech: str) -> None:
    """Programs run as a user of their own, below an init that reaps their children."""
    assert inside(speech, "id", "-u") == "10001"
    assert inside(speech, "cat", "/proc/1/comm") == "tini"


def test_nothing_is_left_of_the_build(speech: str) -> None:
    """No compiler, no pip, no package lists, and nothing of the machine that built it."""
    tools = "gcc cc c++ make ld as pip pip3"
    assert not inside(speech, "sh", "-c", f"for t in {tools}; do command -v $t; done; true")
    assert not inside(speech, "sh", "-c", "find /var/lib/apt/lists /etc/pip.conf -type f; true")
    certificates = "ls /etc/ssl/certs/ca-certificates.crt 2>/dev/null; env | grep PIP; true"
    assert not inside(speech, "sh", "-c", certificates)
    history = docker("history", "--no-trunc", "--format={{.CreatedBy}}", speech)
    assert "PIP_CERT" not in history


def test_labels_and_health_check(speech: str) -> None:
    """The image says what it is, and how to ask whether it serves; loading gets time."""
    config = json.loads(docker("inspect", speech))[0]["Config"]
    labels = config["Labels"]
    assert labels["org.opencontainers.image.version"] == __version__
    assert labels["org.opencontainers.image.base.name"] == "riva-qs-test/base:amd64"
    assert labels[images.LABEL] == "cpu"
    assert config["Healthcheck"]["Test"] == ["CMD", "riva-probe"]
    assert config["Healthcheck"]["StartPeriod"] >= 60 * 10**9


def test_code_is_a_small_layer_of_its_own(speech: str) -> None:
    """A change of our code sends megabytes, not the packages below."""
    rows = docker("history", "--format={{.Size}} {{.CreatedBy}}", speech).splitlines()
    copies = [row.split()[0] for row in rows if " COPY " in row]
    assert len(copies) == 2
    assert copies[0].endswith("kB") or float(copies[0].rstrip("MB")) < 5


def test_an_installed_wheel_builds_the_same(speech: str, tmp_path: Path) -> None:
    """A wheel in a fresh environment builds the image of its checkout: the engine's cache holds."""
    pip = [sys.executable, "-m", "pip", "--quiet"]
    subprocess.run([*pip, "wheel", "--no-deps", f"--wheel-dir={tmp_path}", str(ROOT)], check=True)
    fresh = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(fresh)], check=True)
    (wheel,) = tmp_path.glob("*.whl")
    subprocess.run([*pip, "--python", str(fresh), "install", str(wheel)], check=True, timeout=300)
    name = "riva-qs-test/of-a-wheel:1"
    done = subprocess.run(
        [str(fresh / "bin" / "riva-qs"), "image", "build", *BASES, f"--tag={name}"],
        env={"DOCKER_HOST": ENGINE, "HOME": str(tmp_path)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    layers = ("inspect", "--format={{.RootFS.Layers}}")
    assert docker(*layers, name) == docker(*layers, speech)


def test_listing_shows_what_is_built(speech: str) -> None:
    """riva-qs image list names the variants, and what the engine has."""
    command = [sys.executable, "-m", "quickstart", "--json", "image", "list"]
    told = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    assert {row["name"] for row in told["variants"]} == set(images.variants())
    assert speech in {row["name"] for row in told["images"]}


def test_a_build_that_fails_says_why() -> None:
    """The engine's own words reach the user, with an exit code."""
    options = [BASES[0], "--builder=riva-qs-test/none:1", "--tag=riva-qs-test/never:1"]
    command = [sys.executable, "-m", "quickstart", "image", "build", *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode in {1, 3, 4}
    assert "error: " in done.stderr
    assert "Traceback" not in done.stderr
