"""What a real engine refuses: an exit code and a next step for each; what worked still works."""

from __future__ import annotations

import os
import socket
import subprocess
import tarfile
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from support import engine_proxy
from support.digits import SAID
from support.ports import free_port

from .conftest import ENGINE, ROOT, docker, hear

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from .conftest import Place

pytestmark = pytest.mark.docker


def test_a_port_that_a_process_has(deployed: Place) -> None:
    """The process is named, nothing is left over, and the next start works."""
    with socket.create_server(("127.0.0.1", deployed.port)):
        text = deployed.fails(7, "start")
    assert f"port {deployed.port} is taken by" in text
    assert "riva_speech_api_port" in text
    deployed.ok("start")


def test_a_restart_that_cannot_be(serving: Place) -> None:
    """Where the new server cannot start, the one before runs again."""
    with socket.create_server(("127.0.0.1", free_port())) as taken:
        port = taken.getsockname()[1]
        serving.fails(7, "--set", f"riva_speech_api_port={port}", "start")
    deadline = time.monotonic() + 200
    while not serving.json("status")["ready"]:
        assert time.monotonic() < deadline
    assert serving.json("start")["action"] == "reused"
    assert not docker("ps", "--all", "--quiet", f"--filter=name={serving.name}-before")


def test_a_port_that_a_container_has(serving: Place) -> None:
    """The container is named, and goes on serving."""
    other = f"{serving.name}-deploy"  # removed with the test's own
    text = serving.fails(7, "--set", f"riva_daemon_speech={other}", "start")
    assert f"is taken by the container {serving.name}" in text
    assert serving.json("status")["ready"]


def test_an_image_that_is_not_there(serving: Place) -> None:
    """The next step makes it; the server on the old one goes on."""
    for verb in ("init", "start"):
        text = serving.fails(3, "--set", "image_speech_api=riva-qs-test/none:1", verb)
        assert "has no image riva-qs-test/none:1" in text
        assert "riva-qs image build" in text
    assert serving.json("status")["ready"]


def test_an_image_of_another_architecture(serving: Place, tmp_path: Path) -> None:
    """It is refused by both platforms' names; the server on the old one goes on."""
    empty = tmp_path / "root.tar"
    tarfile.open(empty, "w").close()
    name = "riva-qs-test/foreign:s390x"
    command = [str(ROOT / ".ci" / "docker-archive"), str(empty), "s390x", name]
    docker("load", stdin=subprocess.run(command, capture_output=True, check=True).stdout)
    for verb in ("init", "start"):
        text = serving.fails(5, "--set", f"image_speech_api={name}", verb)
        assert "is for linux/s390x, and this machine is linux/amd64" in text
        assert "image_speech_api" in text
    assert serving.json("status")["ready"]


@pytest.mark.parametrize("access", ["auto", "gpus", "runtime", "cdi"])
def test_a_gpu_that_the_engine_does_not_have(serving: Place, access: str) -> None:
    """Asked for in any way it is refused, with the way out, and the server on the CPU goes on."""
    gpu = ["--set", "gpus_to_use=device=0", "--set", f"container_gpu_access={access}"]
    other = ["--set", f"riva_daemon_speech={serving.name}-deploy"]
    other += ["--set", f"riva_speech_api_port={free_port()}"]
    text = serving.fails(5, *gpu, *other, "start")
    assert "gpus_to_use" in text
    assert serving.json("status")["ready"]
    assert not docker("ps", "--all", "--quiet", f"--filter=name={serving.name}-deploy")


def unprivileged(place: Place, address: str) -> subprocess.CompletedProcess[str]:
    """Run `stop` without the right to open whatever root may."""
    drop = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if os.geteuid() == 0 else []
    return subprocess.run(
        [*drop, *place.command("stop")],
        cwd=place.folder,
        env={**place.environment, "DOCKER_HOST": address},
        capture_output=True,
        text=True,
        check=False,
    )


def test_an_engine_out_of_reach(serving: Place) -> None:
    """No engine, and no right to talk to it, change nothing for the server that runs."""
    text = serving.fails(5, "start", DOCKER_HOST="unix:///nonexistent/docker.sock")
    assert "there is no Docker Engine at unix:///nonexistent/docker.sock" in text
    assert "backend=embedded" in text
    path = serving.folder / "forbidden.sock"
    with engine_proxy.before(ENGINE, path):
        path.chmod(0)
        forbidden = unprivileged(serving, f"unix://{path}")
    assert forbidden.returncode == 4, forbidden.stderr
    assert "usermod -aG docker" in forbidden.stderr
    assert hear(serving.port) == SAID
    assert serving.json("status")["ready"]


@pytest.fixture
def small(place: Place) -> Iterator[Place]:
    """A place whose models lie on a disk of their own."""
    if os.geteuid() != 0:
        pytest.skip("only root mounts a small disk")
    folder = place.folder / "models-here"
    rmir = (folder / "rmir" / "mine.rmir").read_bytes()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=200m", "tmpfs", folder], check=True)
    (folder / "rmir").mkdir()
    (folder / "rmir" / "mine.rmir").write_bytes(rmir)
    yield place
    subprocess.run(["umount", "--lazy", folder], check=True)


def test_a_disk_that_is_full(small: Place) -> None:
    """init says how much is missing, exit code 7; what serves goes on, and with room init works."""
    small.ok("init")
    small.ok("start")
    rmirs = small.folder / "models-here" / "rmir"
    (rmirs / "mine.rmir").rename(rmirs / "renamed.rmir")
    filler = small.folder / "models-here" / "filler"
    with suppress(OSError), filler.open("wb") as file:
        while True:
            file.write(bytes(1 << 20))
    text = small.fails(7, "init")
    assert "riva_model_loc" in text or "space" in text
    assert hear(small.port) == SAID
    assert small.json("status")["ready"]
    filler.unlink()
    small.ok("init")
    small.ok("stop")


def test_a_container_of_somebody_else(deployed: Place) -> None:
    """A container that we did not make is never touched, and the error says how to go on."""
    docker("create", "--name", deployed.name, "riva-qs-test/base:amd64", "true")
    text = deployed.fails(1, "start")
    assert f"a container named {deployed.name} is there that riva-qs did not make" in text
    assert "riva_daemon_speech" in text
    assert "no server has run here yet" in deployed.fails(6, "logs")
    deployed.ok("stop")
    deployed.ok("clean", "--yes")
    assert deployed.inspect()["State"]["Status"] == "created"


def test_a_container_that_never_ran(deployed: Place) -> None:
    """One stuck in Created is told as not running at once, and the next start replaces it."""
    deployed.ok("start")
    deployed.ok("stop")
    labels = deployed.inspect()["Config"]["Labels"]
    docker("rm", deployed.name)
    options = [f"--label={name}={value}" for name, value in labels.items() if "riva-qs" in name]
    docker("create", "--name", deployed.name, *options, "riva-qs-test/base:amd64", "true")
    assert "alive: no" in deployed("status").stdout
    deployed.ok("start")


def test_the_engines_own_error_is_shown(deployed: Place) -> None:
    """What Docker says of a container that it cannot start reaches the user."""
    text = deployed.fails(2, "--set", "riva_speech_api_host=203.0.113.7", "start")
    assert "203.0.113.7" in text
    assert "riva_speech_api_host" in text
