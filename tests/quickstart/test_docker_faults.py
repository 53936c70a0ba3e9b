"""What an engine that is not there, is forbidden, hangs or complains becomes."""

from __future__ import annotations

import json
import math
import os
import socket
import subprocess
import threading
from contextlib import closing, contextmanager, suppress
from http.client import IncompleteRead
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import pytest
from urllib3.exceptions import ProtocolError

from quickstart.backends import engine, ports
from quickstart.backends.engine import containers
from quickstart.backends.engine.connection import Connection
from quickstart.backends.engine.words import from_words
from quickstart.errors import NotReadyError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from .conftest import CommandLine

VERBS = (["init"], ["start"], ["status"], ["stop"], ["logs"], ["clean", "--yes"], ["image", "list"])


@pytest.fixture
def qs_docker(bare: CommandLine, tmp_path: Path) -> CommandLine:
    """The command line with backend=docker and no engine."""
    (bare.folder / "config.env").write_text("backend=docker\nriva_model_loc=./models-here\n")
    bare.environment["DOCKER_HOST"] = f"unix://{tmp_path}/none.sock"
    return bare


def said(done: subprocess.CompletedProcess[str], code: int) -> str:
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr[done.stderr.index("error: ") :]


@contextmanager
def listening(path: Path, *, answer: bytes = b"") -> Iterator[str]:
    """Accept connections on a socket, and answer nothing or always the same."""
    with closing(socket.socket(socket.AF_UNIX)) as server:
        server.bind(str(path))
        server.listen(16)
        held: list[socket.socket] = []

        def reply(client: socket.socket) -> None:
            with suppress(OSError):
                client.recv(65536)
                client.sendall(answer)

        def accept() -> None:
            with suppress(OSError):
                while True:
                    held.append(server.accept()[0])
                    if answer:
                        reply(held[-1])

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        try:
            yield f"unix://{path}"
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join()
            for each in held:
                each.close()


class Slow(ThreadingHTTPServer):
    """An engine whose container ends after some questions, or that answers none of them."""

    def __init__(self, silences: float) -> None:
        super().__init__(("127.0.0.1", 0), SlowAnswers)
        self.silences, self.over = silences, threading.Event()


class SlowAnswers(BaseHTTPRequestHandler):
    server: Slow

    def do_GET(self) -> None:
        if self.path.endswith("/json") and self.server.silences == math.inf:
            self.server.over.wait(60)
        self.answer({"ApiVersion": "1.41", "Arch": "amd64", "Id": "x"})

    def do_POST(self) -> None:
        self.server.silences -= 1
        if self.server.silences >= 0:
            self.server.over.wait(60)
        self.answer({"StatusCode": 3})

    def answer(self, values: dict[str, object]) -> None:
        body = json.dumps(values).encode()
        with suppress(OSError):
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def slow(silences: float, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with Slow(silences) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("DOCKER_HOST", f"tcp://127.0.0.1:{server.server_port}")
        try:
            yield
        finally:
            server.over.set()
            server.shutdown()


def test_a_container_that_runs_on_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """However long it takes, its exit code is told, as long as the engine answers."""
    monkeypatch.setattr(containers, "GLANCE", 1)
    with slow(2, monkeypatch), closing(engine.connect()) as connected:
        assert connected.wait("x") == 3


def test_an_engine_that_stops_answering_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who waits for a container of an engine that hangs is told so."""
    monkeypatch.setattr(containers, "GLANCE", 1)
    with (
        slow(math.inf, monkeypatch),
        closing(engine.connect()) as connected,
        pytest.raises(NotReadyError, match="does not answer"),
    ):
        connected.wait("x", patience=1)


@pytest.mark.parametrize("verb", VERBS, ids=" ".join)
def test_no_engine(qs_docker: CommandLine, verb: list[str]) -> None:
    """Each verb says where it looked for an engine, and what to do without one."""
    text = said(qs_docker(*verb), 5)
    assert "there is no Docker Engine at unix://" in text
    assert "backend=embedded needs none" in text


def test_no_permission_on_the_socket(qs_docker: CommandLine, tmp_path: Path) -> None:
    """A socket that this user may not open exits 4 and names the group."""
    path = tmp_path / "forbidden.sock"
    with listening(path) as address:
        path.chmod(0)
        text = said(unprivileged(qs_docker, address), 4)
    assert "no permission to talk to the Docker Engine" in text
    assert "usermod -aG docker" in text


def unprivileged(qs: CommandLine, address: str) -> subprocess.CompletedProcess[str]:
    """Run `status` without the right to open whatever root may."""
    qs.environment["DOCKER_HOST"] = address
    drop = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if os.geteuid() == 0 else []
    return subprocess.run(
        [*drop, *qs.command("status")],
        cwd=qs.folder,
        env=qs.environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_an_engine_that_hangs(qs_docker: CommandLine, tmp_path: Path) -> None:
    """An engine that accepts and never answers is given up, with exit code 6."""
    with listening(tmp_path / "hanging.sock") as address:
        text = said(qs_docker("start", DOCKER_HOST=address), 6)
    assert f"does not answer within {engine.PATIENCE} s" in text
    assert "journalctl -u docker" in text


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"SSH-2.0-x\r\n", "cannot talk to the Docker Engine"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]", "is no Docker Engine"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", "is no Docker Engine"),
        (
            b'HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n{"ApiVersion": null}',
            "is no Docker Engine",
        ),
    ],
    ids=["ssh", "a list", "an empty object", "no version"],
)
def test_what_answers_is_no_engine(
    qs_docker: CommandLine, tmp_path: Path, answer: bytes, words: str
) -> None:
    """Another service on the socket is an error for people, not a traceback."""
    with listening(tmp_path / "other.sock", answer=answer) as address:
        assert words in said(qs_docker("status", DOCKER_HOST=address), 5)


def test_nonsense_in_docker_host(qs_docker: CommandLine) -> None:
    """A DOCKER_HOST that is no address says so."""
    assert "DOCKER_HOST" in said(qs_docker("status", DOCKER_HOST="nonsense://x"), 5)


@pytest.mark.parametrize(
    ("words", "code", "hint"),
    [
        ("write /var/lib/docker/x: no space left on device", 7, "docker system df"),
        ("Bind for 127.0.0.1:50051 failed: port is already allocated", 7, "docker ps"),
        ("listen tcp4 0.0.0.0:50051: bind: address already in use", 7, "docker ps"),
        ('could not select device driver "" with capabilities: [[gpu]]', 5, "container_gpu_access"),
        ("unknown or invalid runtime name: nvidia", 5, "container_gpu_access"),
        ("invoking the NVIDIA Container Runtime Hook directly is not supported", 5, "gpus_to_use"),
        ("exec /opt/riva/bin/x: exec format error", 5, "architecture"),
        ('exec: "start-riva": executable file not found in $PATH', 3, "image_speech_api"),
        ("Minimum memory limit allowed is 6MB", 2, "container_memory"),
        ("Get https://nvcr.io/v2/: unauthorized: authentication required", 4, "NGC_API_KEY"),
        ("dial tcp: lookup nvcr.io: no such host", 1, "DNS"),
        ("manifest unknown: manifest unknown", 3, "check the name"),
        ("something else", 1, ""),
    ],
)
def test_an_engines_words_have_a_meaning(words: str, code: int, hint: str) -> None:
    """What an engine says is kept, and gets an exit code and a next step."""
    error = from_words("the Docker Engine could not do it", words, "do it")
    assert error.code == code
    assert words in error.message
    assert hint in error.hint


def test_a_stream_that_breaks_is_an_engine_that_went_away() -> None:
    """What the SDK lets through while it reads a build's or a pull's log is exit code 6."""
    connection = Connection(None, "unix:///x.sock", "amd64")
    with pytest.raises(NotReadyError, match="broke the connection off"), connection.doing("build"):
        raise ProtocolError("Connection broken", IncompleteRead(b""))


@pytest.mark.parametrize(
    ("words", "port"),
    [
        ("Bind for 127.0.0.1:50051 failed: port is already allocated", 50051),
        ("Bind for :::50051 failed: port is already allocated", 50051),
        ("listen tcp4 0.0.0.0:50051: bind: address already in use", 50051),
        ("listen tcp6 [2001:db8:0:1::5]:50051: bind: address already in use", 50051),
        ("no space left on device", 0),
    ],
)
def test_the_port_in_an_engines_words_is_found(words: str, port: int) -> None:
    """It is what stands behind the address, of whichever family that is."""
    assert ports.refused(words) == port


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("a", ("a", "latest")),
        ("nvcr.io/nvidia/riva/riva-speech:2.19.0", ("nvcr.io/nvidia/riva/riva-speech", "2.19.0")),
        ("localhost:5000/a", ("localhost:5000/a", "latest")),
        ("a@sha256:12", ("a", "sha256:12")),
    ],
)
def test_names_of_images_are_split(name: str, parts: tuple[str, str]) -> None:
    """A registry's port is no tag."""
    assert engine.split_name(name) == parts
