from __future__ import annotations

import socket

import grpc
import pytest

from quickstart import client
from quickstart.errors import NotReadyError


def test_every_status_of_grpc_is_translated() -> None:
    """No status falls through the table, and none in it is made up."""
    assert set(client.STATUS) == {code.name for code in grpc.StatusCode} - {"OK"}


@pytest.mark.parametrize("status", client.STATUS)
def test_a_translation_keeps_the_server_s_words(status: str) -> None:
    """The message says where it was asked and what came back."""
    error = client.translate(status, "the details", "host:1")
    assert "host:1" in error.message
    assert "the details" in error.message


@pytest.mark.parametrize(
    ("host", "uri"),
    [
        ("0.0.0.0", "127.0.0.1:1"),
        ("::", "[::1]:1"),
        ("::1", "[::1]:1"),
        ("name", "name:1"),
    ],
)
def test_a_wildcard_is_reached_at_the_loopback(host: str, uri: str) -> None:
    """An address to listen on becomes one to connect to."""
    assert client.reachable(host, 1) == uri


def test_a_closed_port_is_no_service(free_port: int) -> None:
    """A refused connection says so at once, without waiting for the limit."""
    with (
        client.connect(f"127.0.0.1:{free_port}") as server,
        pytest.raises(NotReadyError, match="Connection refused"),
    ):
        server.models(30)


def test_a_port_that_says_nothing_is_no_service() -> None:
    """A program that accepts and stays silent runs into the limit of the question."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        uri = f"127.0.0.1:{listener.getsockname()[1]}"
        with client.connect(uri) as server, pytest.raises(NotReadyError):
            server.serving(0.3)


def test_a_proxy_does_not_stand_between(free_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy of the environment is not asked for a server of this machine."""
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    with (
        client.connect(f"127.0.0.1:{free_port}") as server,
        pytest.raises(NotReadyError, match="Connection refused"),
    ):
        server.models(30)
