"""The whole path in containers, on a real engine."""

from __future__ import annotations

import json
import re
import secrets
import shlex
import signal
import subprocess
import time
import urllib.request
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import riva.client

from support.digits import SAID, SAMPLE
from support.ports import free_port

from .conftest import SPEECH as IMAGE
from .conftest import docker, hear, lines_until, until_ready

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .conftest import Place

pytestmark = pytest.mark.docker
_OTHER = r"\(reused\)|riva-qs start \(pid \d+\) is at work"


def test_from_archive_to_words_and_back(place: Place) -> None:
    """init, start, transcribe, status, logs, stop and clean, each in or on containers."""
    assert "deployed" in place.ok("init")
    assert "reused" in place.ok("init")
    assert "is ready at" in place.ok("start")
    assert hear(place.port) == SAID
    status = place.json("status")
    assert status["ready"]
    assert status["image"] == IMAGE
    assert status["image_id"] == docker("image", "inspect", "--format={{.Id}}", IMAGE)
    assert status["uptime_s"] >= 0
    assert status["memory_bytes"] > 10 << 20
    assert len(status["models"]) == 2
    assert f"models: {', '.join(status['models'])}" in place.ok("status")
    assert "Riva server is ready" in place.ok("logs")
    assert "drained" in place.ok("stop")
    assert place("status").returncode == 6
    archive = place.folder / "models-here" / "rmir" / "mine.rmir"
    said = place.ok("clean", "--dry-run")
    assert f"remove the container {place.name}" in said
    assert f"keeps {archive}" in said
    place.ok("clean", "--yes")
    assert archive.is_file()
    assert "No such" in place_inspect(place)


def test_models_in_a_volume(volume: Place) -> None:
    """The same path with a named volume: nothing of it is on this machine's disk."""
    assert "deployed" in volume.ok("init")
    assert "reused" in volume.ok("init")
    assert SAID in volume.ok("start")
    assert hear(volume.port) == SAID
    assert volume.inspect()["Mounts"][0]["Type"] == "volume"
    assert volume.json("status")["ready"]
    assert volume.json("start")["action"] == "reused"
    volume.ok("stop")
    volume.ok("clean", "--yes")
    left = docker(
        "run", "--rm", f"--volume={volume.name}:/data", IMAGE, "find", "/data", "-type", "f"
    )
    assert left == "/data/rmir/mine.rmir"
    assert not (volume.folder / "models-here" / "models").exists()


def test_a_volume_that_somebody_uses(volume: Place) -> None:
    """clean leaves a volume as it is that another container has, names that, and works after it."""
    volume.ok("init")
    volume.ok("start")
    # The second has a name that riva-qs gives, and none of its labels: so have official ones.
    for other in (f"{volume.name}-other", f"{volume.name}-before"):
        docker("create", "--name", other, f"--volume={volume.name}:/x", IMAGE, "true")
        try:
            text = volume.fails(7, "clean", "--yes")
        finally:
            docker("rm", other)
        assert f"in use by the container {other}" in text
    assert hear(volume.port) == SAID
    assert volume.json("status")["ready"]
    volume.ok("clean", "--yes")


def place_inspect(place: Place) -> str:
    with pytest.raises(AssertionError) as caught:
        place.inspect()
    return str(caught.value)


def test_a_server_is_reused_until_its_spec_changes(serving: Place) -> None:
    """The same settings find the same container; any other value of a spec restarts it."""
    first = serving.inspect()["Id"]
    assert serving.json("start")["action"] == "reused"
    assert serving.inspect()["Id"] == first
    serving.configure(container_memory="2g")
    assert serving.json("start")["action"] == "restarted"
    found = serving.inspect()
    assert found["Id"] != first
    assert found["HostConfig"]["Memory"] == 2 << 30


def test_a_server_that_was_killed(serving: Place) -> None:
    """kill -9 inside shows at once; the next start serves, and --previous shows the run before."""
    before = serving.inspect()["Id"]
    docker("exec", serving.name, "python3", "-c", "import os; os.kill(-1, 9)")
    docker("wait", serving.name)
    text = serving("status").stdout
    assert "alive: no" in text
    serving.ok("start")
    assert serving.inspect()["Id"] != before
    assert hear(serving.port) == SAID
    previous = serving.ok("logs", "--previous")
    assert "Riva server is ready" in previous
    assert heard_times(previous) < heard_times(serving.ok("logs"))


def heard_times(text: str) -> str:
    """Return the time of a log's first line."""
    return text.split(maxsplit=1)[0]


def test_http_is_published(deployed: Place) -> None:
    """Health and metrics answer on the port of this machine that the configuration names."""
    deployed.configure(riva_speech_api_http_port=free_port())
    deployed.ok("start")
    port = deployed.json("config", "show")["settings"]["riva_speech_api_http_port"]["value"]
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/v1/health/ready", timeout=60) as ready:
        assert json.loads(ready.read()) == {"status": "ready"}
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/v1/metrics", timeout=60) as metrics:
        assert b"process_resident_memory_bytes" in metrics.read()


def test_a_server_that_dies_while_it_loads(deployed: Place) -> None:
    """A crash is told with its first cause; benchmarks/start_time.py measures how soon."""
    models = deployed.folder / "models-here" / "models"
    for graph in models.resolve().rglob("model.onnx"):
        graph.write_bytes(b"no graph at all")
    text = deployed.fails(9, "start")
    assert "ONNX Runtime cannot load" in text
    assert "ONNX Runtime cannot load" in deployed.ok("logs")


def test_a_server_that_does_not_drain(serving: Place) -> None:
    """A server that hangs is killed after its time to drain, and stop says so."""
    assert docker("exec", serving.name, "riva-probe", "--timeout=30") == ""
    # All of its processes but this one, which ends by itself.
    docker("exec", serving.name, "python3", "-c", "import os; os.kill(-1, 19)")
    assert "killed the server" in serving.ok("stop")
    assert serving("status").returncode == 6


def test_stop_lets_an_open_stream_end(serving: Place) -> None:
    """A stream that is open when stop is asked for goes on to its end, and gets its words."""
    audio, stops = SAMPLE.read_bytes(), list[subprocess.Popen[str]]()

    def chunks() -> Iterator[bytes]:
        for number, start in enumerate(range(0, len(audio), 16384)):
            yield audio[start : start + 16384]
            if number == 1:
                stops.append(serving.popen("stop"))
                time.sleep(2)

    config = riva.client.RecognitionConfig(language_code="en-US", max_alternatives=1)
    service = riva.client.ASRService(riva.client.Auth(uri=f"127.0.0.1:{serving.port}"))
    answers = service.streaming_response_generator(
        chunks(), riva.client.StreamingRecognitionConfig(config=config)
    )
    final = [r for answer in answers for r in answer.results if r.is_final]
    assert " ".join(r.alternatives[0].transcript.strip() for r in final) == SAID
    said, rest = stops[0].communicate(timeout=300)
    assert "it drained first" in said, rest


def test_out_of_memory(deployed: Place) -> None:
    """A server that the kernel kills for its memory is told so, with exit code 7."""
    deployed.configure(container_memory="40m")
    text = deployed.fails(7, "start")
    assert "out of memory" in text
    assert "container_memory" in text


def test_a_deploy_out_of_memory_keeps_what_was(serving: Place) -> None:
    """A deploy that is killed leaves the running server and its models as they are."""
    serving.bring("more.rmir")
    serving.configure(container_memory="40m")
    assert "out of memory" in serving.fails(7, "init")
    assert hear(serving.port) == SAID
    assert serving.json("status")["ready"]


def test_a_key_is_seen_nowhere(place: Place, hanging: str) -> None:
    """A deploy key reaches riva-deploy; no inspect, no log and no command line shows it."""
    key = f"key-{secrets.token_hex(8)}"
    name = f"{place.name}-deploy"
    init = place.popen("--set", f"image_speech_api={hanging}", "init", MODEL_DEPLOY_KEY=key)
    said = lines_until(init, "begun")
    seen = docker("inspect", name) + command_lines()
    assert docker("exec", name, "cat", "/run/secrets/riva-qs/MODEL_DEPLOY_KEY") == key
    init.send_signal(signal.SIGINT)
    said += init.communicate(timeout=300)
    whole = place("init", MODEL_DEPLOY_KEY=key)
    assert whole.returncode == 0, whole.stderr
    kept = (place.folder / "home/.local/state/riva-qs" / place.name / "deploy.log").read_text()
    assert key not in seen + "".join(said) + whole.stdout + whole.stderr + kept
    assert "MODEL_DEPLOY_KEY=" not in seen


def command_lines() -> str:
    """Return the command lines of all processes of this machine, those in containers included."""
    lines = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            lines.append(path.read_text(errors="replace"))
    return "\n".join(lines)


def test_the_line_of_a_dry_run_runs(deployed: Place) -> None:
    """The `docker run` line that is printed gives a server that answers on the published port."""
    line = deployed.json("start", "--dry-run")["details"][0]
    assert line in deployed.ok("start", "--dry-run")
    assert "No such" in place_inspect(deployed)
    subprocess.run(shlex.split(line), capture_output=True, check=True, timeout=200)
    until_ready(deployed.name)
    assert hear(deployed.port) == SAID
    found = deployed.inspect()
    deployed.ok("start")
    ours = deployed.inspect()
    for part in ("Cmd", "Env", "User", "ExposedPorts", "Healthcheck"):
        assert found["Config"][part] == ours["Config"][part], part
    for part in ("Binds", "PortBindings", "CapDrop", "SecurityOpt", "ReadonlyRootfs", "Tmpfs"):
        assert found["HostConfig"][part] == ours["HostConfig"][part], part


def test_interrupting_a_deploy_leaves_nothing(place: Place, hanging: str) -> None:
    """Ctrl-C while a container deploys ends it, and the next init works."""
    init = place.popen("--set", f"image_speech_api={hanging}", "init")
    lines_until(init, "begun")
    init.send_signal(signal.SIGINT)
    init.communicate(timeout=300)
    assert init.returncode == 130
    assert not docker("ps", "--all", "--quiet", f"--filter=name={place.name}-deploy")
    place.ok("init")


def test_two_at_once(deployed: Place) -> None:
    """Of two starts at once one makes the server; the other finds it, or says who is at work."""
    both = [deployed.popen("start") for _ in range(2)]
    outputs = [each.communicate(timeout=200) for each in both]
    ends = [
        "started" if "(started)" in said else "other" if re.search(_OTHER, said + told) else told
        for said, told in outputs
    ]
    assert sorted(ends) == ["other", "started"]
    assert hear(deployed.port) == SAID


def test_ports_are_on_loopback_unless_configured(serving: Place) -> None:
    """What is published is the gRPC port alone, on the address of the settings."""
    bindings = serving.inspect()["HostConfig"]["PortBindings"]
    assert bindings == {"50051/tcp": [{"HostIp": "127.0.0.1", "HostPort": str(serving.port)}]}
