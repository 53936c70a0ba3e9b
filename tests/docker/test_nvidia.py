"""image=riva, on a stand-in for NVIDIA's image that has its places, its habits and its faults."""

from __future__ import annotations

import json
import re
import subprocess
from functools import cache
from typing import TYPE_CHECKING

import grpc
import pytest

from support.digits import SAID, SAMPLE

from .conftest import docker, hear

if TYPE_CHECKING:
    from pathlib import Path

    from .conftest import Place

pytestmark = pytest.mark.docker


@cache
def may_raise_limits() -> bool:
    """Say whether this engine may give a container the official limits; a sandbox's may not."""
    command = ["docker", "run", "--rm", "--ulimit=memlock=-1", "riva-qs-test/base:amd64", "true"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


@pytest.fixture
def riva(place: Place, nvidia: str) -> Place:
    """A place that uses NVIDIA's image, whose own archive is there."""
    (place.folder / "config.env").write_text(
        f"image=riva\nimage_speech_api={nvidia}\nriva_daemon_speech={place.name}\n"
        f"riva_speech_api_port={place.port}\nriva_speech_api_http_port={place.port + 1}\n"
        "riva_model_loc=./models-here\nuse_existing_rmirs=true\ngpus_to_use=none\n"
        "service_enabled_tts=false\nservice_enabled_nlp=false\nriva_timeout_sec=60\n"
        f"riva_target_gpu_family=non-tegra\ncontainer_ulimits={str(may_raise_limits()).lower()}\n"
        f"readiness_audio={SAMPLE}\n"
    )
    return place


def test_the_whole_path(riva: Place) -> None:
    """Its models are found where it writes them, and its server answers with the official flags."""
    said = riva.ok("init")
    assert "asr-bls-ensemble" in said
    assert SAID in riva.ok("start")
    found = riva.inspect()
    assert found["HostConfig"]["IpcMode"] == "host"
    assert found["HostConfig"]["Init"]
    assert "RIVA_EULA=" in found["Config"]["Env"]
    limits = {each["Name"]: each["Hard"] for each in found["HostConfig"]["Ulimits"] or ()}
    assert limits == ({"memlock": -1, "stack": 67108864} if may_raise_limits() else {})
    assert set(found["HostConfig"]["PortBindings"]) == {
        f"{port}/tcp" for port in (riva.port, riva.port + 1, 8000, 8001, 8002)
    }
    assert f"HTTP port {riva.port + 1}" in riva.ok("logs")
    riva.ok("stop")
    riva.ok("clean", "--yes")


def test_limits_that_the_engine_may_not_raise(riva: Place) -> None:
    """Where the official limits are refused, that is one error, with the key that omits them."""
    riva.configure(container_ulimits="true")
    riva.ok("init")
    if may_raise_limits():
        riva.ok("start")
        return
    text = riva.fails(5, "start")
    assert "error setting rlimit" in text
    assert "container_ulimits=false" in text
    assert not docker("ps", "--all", "--quiet", f"--filter=name={riva.name}")
    riva.ok("--set", "container_ulimits=false", "start")


def test_the_enterprise_key_reaches_the_server_alone(riva: Place) -> None:
    """RIVA_API_KEY is an environment variable of the program, and of nothing that can be seen."""
    riva.ok("init")
    done = riva("start", RIVA_API_KEY="a-key-of-26-characters-abc")
    assert done.returncode == 0, done.stderr
    assert "the Riva Enterprise key has 26 characters" in riva.ok("logs")
    assert "a-key-of-26" not in json.dumps(riva.inspect()) + docker("logs", riva.name)
    assert "a-key-of-26" not in done.stdout + done.stderr
    again = riva("start", RIVA_API_KEY="another-key")
    assert "(restarted)" in again.stdout
    mode = docker("exec", riva.name, "stat", "-c", "%a %u", "/run/secrets/riva-qs/RIVA_API_KEY")
    assert mode == "400 0"


@pytest.fixture
def certificate(tmp_path: Path) -> dict[str, str]:
    """Settings for mutual TLS with a certificate that signed itself."""
    made = {"ssl_server_cert": str(tmp_path / "a.crt"), "ssl_server_key": str(tmp_path / "a.key")}
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2"
    name = ["-subj", "/CN=riva", "-addext", "subjectAltName=IP:127.0.0.1"]
    files = ["-out", made["ssl_server_cert"], "-keyout", made["ssl_server_key"]]
    subprocess.run([*command.split(), *name, *files], capture_output=True, check=True)
    return {**made, "ssl_root_cert": made["ssl_server_cert"], "ssl_use_mutual_auth": "true"}


@pytest.mark.parametrize("image", ["open", "riva"])
def test_mutual_tls(riva: Place, speech: str, certificate: dict[str, str], image: str) -> None:
    """Readiness and transcribe speak TLS as the settings say; who speaks without it is refused."""
    if image == "open":
        riva.configure(image="open", backend="docker", image_speech_api=speech)
    riva.configure(**certificate)
    riva.ok("init")
    assert SAID in riva.ok("start")
    assert SAID in riva.ok("transcribe", str(SAMPLE))
    with pytest.raises(grpc.RpcError):
        hear(riva.port)
    text = riva.fails(6, "--set", "ssl_use_mutual_auth=false", "transcribe", str(SAMPLE))
    assert "no server answers" in text


@pytest.mark.parametrize(
    ("archive", "others", "words"),
    [
        ("lost.rmir", ["mine.rmir"], r"of lost\.rmir, mine\.rmir only 1 became a model"),
        ("half.rmir", [], r"has no 1/model\.onnx"),
    ],
)
def test_a_deploy_that_lies(riva: Place, archive: str, others: list[str], words: str) -> None:
    """An exit status of 0 hides nothing: what worked goes on, and the error says what lacks."""
    riva.ok("init")
    riva.ok("start")
    before = riva.json("status")
    (riva.folder / "models-here" / "rmir" / "mine.rmir").unlink()
    riva.bring(archive, *others)
    text = riva.fails(1, "init")
    assert re.search(words, text), text
    after = riva.json("status")
    assert after["ready"]
    assert after["uri"] == before["uri"]
    riva.ok("start")


def test_an_image_that_is_to_be_pulled(riva: Place) -> None:
    """--dry-run says that the image will be pulled; where it cannot be, init says why."""
    missing = ["--set", "image_speech_api=riva.invalid/nvidia/riva-speech:2.19.0"]
    assert "would pull the image riva.invalid" in riva.ok(*missing, "init", "--dry-run")
    text = riva.fails(1, *missing, "init")
    assert "cannot pull" in text or "could not pull" in text
    assert "DNS" in text
