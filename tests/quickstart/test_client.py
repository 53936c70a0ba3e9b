from __future__ import annotations

import socket
from concurrent import futures
from typing import Any

import grpc
import pytest
from riva.client.proto import riva_asr_pb2_grpc

from quickstart import client
from quickstart.errors import NotReadyError, UsageError


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


class WithoutAList(riva_asr_pb2_grpc.RivaSpeechRecognitionServicer):  # type: ignore[misc] # untyped
    """A service that knows no model, and does not say which there are."""

    def Recognize(self, _request: Any, context: Any) -> None:  # noqa: N802 - the stubs name it
        """Refuse."""
        context.abort(grpc.StatusCode.INVALID_ARGUMENT, "Error: Unavailable model requested")


def test_a_refusal_is_told_by_a_server_that_lists_no_models() -> None:
    """What the server said of the request is the error, not that it has no list to help with."""
    server = grpc.server(futures.ThreadPoolExecutor(1))
    riva_asr_pb2_grpc.add_RivaSpeechRecognitionServicer_to_server(WithoutAList(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    request = client.Request(b"RIFF", "en-US", streaming=False)
    with (
        client.connect(f"127.0.0.1:{port}") as asked,
        pytest.raises(UsageError, match="Unavailable model requested") as caught,
    ):
        asked.transcribe(request, 30)
    server.stop(None).wait()
    assert "--model" in caught.value.hint


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
