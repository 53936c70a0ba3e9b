"""Proxies: those that lead on, and those that refuse, whatever digits are in an address."""

from __future__ import annotations

import socket
import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import pytest

from quickstart.errors import NetworkError, NotAuthorisedError, RivaQsError
from quickstart.sources.network import Network
from quickstart.transfer.patience import Patience
from support import fetching
from support.ngc import Model, Ngc

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

DATA = bytes(range(256)) * 1000


@contextmanager
def proxy() -> Iterator[tuple[str, list[str]]]:
    """Give the address of a proxy that tunnels, and the tunnels that it was asked for."""
    asked: list[str] = []

    def tunnel(client: socket.socket) -> None:
        with client:
            head = client.recv(65536).decode()
            if not head:
                return
            asked.append(head)
            host, _, port = head.split()[1].rpartition(":")
            with socket.create_connection((host, int(port))) as there:
                client.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
                back = threading.Thread(target=pump, args=(there, client), daemon=True)
                back.start()
                pump(client, there)
                back.join()

    with listening(tunnel) as address:
        yield address, asked


@contextmanager
def listening(serve: Callable[[socket.socket], None], port: int = 0) -> Iterator[str]:
    """Serve each client in a thread of its own; one that leaves early is nobody's fault."""

    def answer(client: socket.socket) -> None:
        with suppress(OSError):
            serve(client)

    def accept() -> None:
        with suppress(OSError):
            while True:
                client, _ = listener.accept()
                threading.Thread(target=answer, args=(client,), daemon=True).start()

    with socket.create_server(("127.0.0.1", port)) as listener:
        accepting = threading.Thread(target=accept, daemon=True)
        accepting.start()
        try:
            yield f"http://user:secret@127.0.0.1:{listener.getsockname()[1]}"
        finally:
            # Closing alone would leave who waits for clients waiting, and the port taken.
            listener.shutdown(socket.SHUT_RDWR)
            accepting.join()


def pump(source: socket.socket, sink: socket.socket) -> None:
    """Copy bytes until one side ends, and tell the other."""
    with suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
    with suppress(OSError):
        sink.shutdown(socket.SHUT_WR)


def test_a_proxy_is_used(ngc: Ngc, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """HTTPS_PROXY leads API and downloads through a proxy; NO_PROXY leads around it."""
    ngc.offer(Model({"a.rmir": DATA}))
    with proxy() as (url, asked):
        monkeypatch.setenv("HTTPS_PROXY", url)
        monkeypatch.setenv("NO_PROXY", "")
        fetching.fetch(tmp_path / "a.rmir")
        hosts = {head.split()[1].split(":")[0] for head in asked}
        assert hosts == {"127.0.0.1", "localhost"}
        assert all("Authorization: Bearer" not in head for head in asked)
        before = len(asked)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
        fetching.fetch(tmp_path / "b.rmir")
        assert len(asked) == before


@contextmanager
def refusing(answer: str, port: int = 0) -> Iterator[str]:
    """Give the address of a proxy that gives one answer to everything."""

    def refuse(client: socket.socket) -> None:
        with client:
            client.recv(65536)
            client.sendall(f"HTTP/1.1 {answer}\r\nContent-Length: 0\r\n\r\n".encode())

    with listening(refuse, port) as address:
        yield address


def port_with_407() -> int:
    """Return a port that nobody listens on and whose digits have a status code in them."""
    for port in (4407, 14070, 24079, 34073, *range(40700, 40710)):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    pytest.fail("no such port is free")


def asked(url: str, monkeypatch: pytest.MonkeyPatch, proxy_url: str) -> RivaQsError:
    """Return the error of asking for an address through a proxy."""
    for name in ("HTTPS_PROXY", "HTTP_PROXY", "https_proxy", "http_proxy"):
        monkeypatch.setenv(name, proxy_url)
    monkeypatch.setenv("NO_PROXY", "")
    monkeypatch.setenv("no_proxy", "")
    network = Network(silence=60, patience=Patience(tries=1))
    with pytest.raises(RivaQsError) as caught:
        network.size_of(url)
    return caught.value


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize(
    ("answer", "kind", "words"),
    [
        ("407 Proxy Authentication Required", NotAuthorisedError, "password into HTTPS_PROXY"),
        ("403 Forbidden", NotAuthorisedError, ""),
        ("503 Service Unavailable 407", NetworkError, ""),
    ],
)
def test_a_refusal_is_told_by_its_status(
    monkeypatch: pytest.MonkeyPatch, scheme: str, answer: str, kind: type[RivaQsError], words: str
) -> None:
    """The proxy's status decides, for tunnels and for plain requests; its password is not told."""
    with refusing(answer) as url:
        error = asked(f"{scheme}://example.invalid/a.rmir", monkeypatch, url)
    assert type(error) is kind
    assert answer[:3] in error.message
    assert words in (error.hint or "")
    assert "secret" not in f"{error.message} {error.hint}"


def test_a_port_is_no_status(monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy that is not there is no proxy that wants a password, whatever its port is."""
    port = port_with_407()
    error = asked("https://example.invalid:4407/a.rmir", monkeypatch, f"http://127.0.0.1:{port}")
    assert type(error) is NetworkError
    assert "cannot be used" in error.message


def test_digits_of_a_proxy_s_port_do_not_hide_its_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy at a port with 407 in it that answers 502 is told as that."""
    with refusing("502 Bad Gateway", port_with_407()) as url:
        error = asked("https://example.invalid/407/a.rmir", monkeypatch, url)
    assert type(error) is NetworkError
    assert "502" in error.message
