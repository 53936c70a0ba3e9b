"""How little a client over HTTP can take that gets, or wants, no answer."""

from __future__ import annotations

import asyncio
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import asynccontextmanager, suppress
from http import HTTPStatus
from typing import TYPE_CHECKING

import numpy as np
import pytest
import riva.client
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from riva_speech.server.http import HttpServer, Paths
from riva_speech.server.http_body import Body, BodyError, Room
from riva_speech.server.http_messages import Answer, Head
from riva_speech.server.websocket import WebSocket
from support.audio import wav
from support.ports import free_port
from support.programs import MODULES, deploying, serving

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

PATIENCE = 60.0


@asynccontextmanager
async def pair() -> AsyncIterator[
    tuple[asyncio.StreamReader, asyncio.StreamWriter, asyncio.StreamReader, asyncio.StreamWriter]
]:
    """Give a server's two ends of a connection, and the client's two."""
    arrived: asyncio.Future[tuple[asyncio.StreamReader, asyncio.StreamWriter]]
    arrived = asyncio.get_running_loop().create_future()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        arrived.set_result((reader, writer))

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    heard, client = await asyncio.open_connection(*server.sockets[0].getsockname())
    reader, writer = await arrived
    try:
        yield reader, writer, heard, client
    finally:
        for one in (client, writer):
            one.transport.abort()
        server.close()


def posted(length: str) -> Head:
    return Head("POST", "/", "", {"content-length": length}, b"")


@pytest.mark.parametrize(
    ("length", "status"),
    [
        ("", HTTPStatus.LENGTH_REQUIRED),
        ("-1", HTTPStatus.LENGTH_REQUIRED),
        ("\u00b2", HTTPStatus.LENGTH_REQUIRED),
        ("10", HTTPStatus.REQUEST_ENTITY_TOO_LARGE),
        ("9" * 5000, HTTPStatus.REQUEST_ENTITY_TOO_LARGE),
        ("9", HTTPStatus.REQUEST_TIMEOUT),
    ],
)
def test_a_body_that_is_not_taken_says_why(length: str, status: HTTPStatus) -> None:
    """A length that is none, or too much, and a body that does not come, each have their answer."""

    async def read() -> HTTPStatus:
        async with pair() as (reader, writer, *_):
            with pytest.raises(BodyError) as caught:
                await Body(posted(length), reader, writer, Room(9, seconds=0.1)).read()
            return caught.value.answer.status

    assert asyncio.run(read()) is status


def test_bodies_have_so_much_room_together() -> None:
    """What does not fit beside the bodies that are held is refused, and fits when they are gone."""
    room = Room(9, PATIENCE)

    async def read(size: int) -> Body:
        async with pair() as (reader, writer, _, client):
            body = Body(posted(str(size)), reader, writer, room)
            client.write(bytes(size))
            assert await body.read() == bytes(size)
            return body

    async def fill() -> HTTPStatus:
        bodies = [await read(9) for _ in range(7)]
        with pytest.raises(BodyError) as caught:
            bodies += [await read(5), await read(5)]
        bodies[0].close()
        await read(9)
        return caught.value.answer.status

    assert asyncio.run(fill()) is HTTPStatus.TOO_MANY_REQUESTS


def leave(client: asyncio.StreamWriter) -> None:
    client.write(b"more than was announced")
    client.close()


@pytest.mark.parametrize(
    "end", [leave, asyncio.StreamWriter.write_eof, lambda client: client.transport.abort()]
)
def test_work_for_a_client_that_has_left_is_given_up(
    end: Callable[[asyncio.StreamWriter], None],
) -> None:
    """Who hangs up, breaks off or ends its side has left: its work is cancelled."""

    async def listen() -> tuple[bool, HTTPStatus]:
        begun, was_cancelled = asyncio.Event(), False

        async def work() -> None:
            nonlocal was_cancelled
            begun.set()
            try:
                await asyncio.sleep(10 * PATIENCE)
            except asyncio.CancelledError:
                was_cancelled = True
                raise

        async with pair() as (reader, writer, _, client):
            body = Body(posted("0"), reader, writer, Room(9, PATIENCE))
            working = asyncio.ensure_future(body.while_there(work()))
            await begun.wait()
            end(client)
            with pytest.raises(BodyError) as caught:
                await asyncio.wait_for(working, PATIENCE)
        return was_cancelled, caught.value.answer.status

    assert asyncio.run(listen()) == (True, HTTPStatus.BAD_REQUEST)


def test_work_for_a_client_that_stays_is_answered() -> None:
    """Its result, or its error, is what the client is told."""

    async def answer() -> int:
        return 42

    async def fail() -> int:
        raise ValueError("no")

    async def stay() -> int:
        async with pair() as (reader, writer, *_):
            body = Body(posted("0"), reader, writer, Room(9, PATIENCE))
            with pytest.raises(ValueError, match="no"):
                await body.while_there(fail())
            return await body.while_there(answer())

    assert asyncio.run(stay()) == 42


def test_a_socket_that_takes_nothing_is_hung_up_on() -> None:
    """A client that stops to read holds nobody for longer than it may, and is then gone."""

    async def send() -> list[str]:
        async with pair() as (reader, writer, *_):
            web = WebSocket(reader, writer, 1 << 20, patience=0.1)
            head = (
                b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
            )
            assert await web.accept(head)
            await web.send("x" * (64 << 20))
            await web.send("and more")
            await web.close()
            return [text async for text in web.messages()]

    assert asyncio.run(asyncio.wait_for(send(), PATIENCE)) == []


def test_a_client_that_lingers_is_hung_up_on_when_its_server_ends() -> None:
    """It was answered and does not leave: its connection ends with the server's loop."""
    client = socket.socket()

    async def answer() -> bytes:
        server, port = HttpServer(Paths({"/": lambda: Answer(b"there")})), free_port()
        await server.start("127.0.0.1", port, "--http_port")
        client.connect(("127.0.0.1", port))
        client.sendall(b"GET / HTTP/1.1\r\n\r\n")
        with client.makefile("rb") as heard:
            told = await asyncio.to_thread(heard.read)
        await server.stop(PATIENCE)
        return told

    def push() -> None:
        for _ in range(100):
            client.sendall(b"more")
            time.sleep(0.1)

    with client:
        assert asyncio.run(answer()).endswith(b"there")
        with pytest.raises(OSError, match=r"Broken pipe|reset"):
            push()


def test_no_body_is_read_before_there_is_a_place(tiny_repository: Path) -> None:
    """Above the limit a recording is refused by its head, and takes no memory."""
    port = free_port()
    with serving(tiny_repository, f"--http_port={port}", "--max_requests=1") as (uri, _):
        asr = riva.client.ASRService(riva.client.Auth(uri=uri))
        wanted = riva.client.StreamingRecognitionConfig(
            config=riva.client.RecognitionConfig(language_code="en-US", sample_rate_hertz=16000)
        )
        held = asr.streaming_response_generator(iter(lambda: bytes(3200), None), wanted)
        next(held)
        with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as client:
            head = "POST /v1/audio/transcriptions HTTP/1.1\r\nContent-Length: 100000000\r\n\r\n"
            client.sendall(head.encode())
            told = client.recv(1000)
        held.close()

    assert told.startswith(b"HTTP/1.1 429 ")


def test_a_recording_that_still_arrives_keeps_nobody_out(tiny_repository: Path) -> None:
    """The only place of a server is another client's until the posted recording is there."""
    port, recording = free_port(), wav(np.zeros(16000, np.float32))
    part = "--x\r\ncontent-disposition: form-data; name="
    form = f'{part}"language"\r\n\r\nen-US\r\n{part}"file"\r\n\r\n'.encode() + recording
    with serving(tiny_repository, f"--http_port={port}", "--max_requests=1") as (uri, _):
        client = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
        with client:
            client.sendall(
                b"POST /v1/audio/transcriptions HTTP/1.1\r\nExpect: 100-continue\r\n"
                b"Content-Type: multipart/form-data; boundary=x\r\n"
                b"Content-Length: %d\r\n\r\n" % len(form)
            )
            assert client.recv(1000).startswith(b"HTTP/1.1 100 ")
            client.sendall(form[:-1])
            asr = riva.client.ASRService(riva.client.Auth(uri=uri))
            wanted = riva.client.RecognitionConfig(language_code="en-US")
            answered = asr.offline_recognize(recording, wanted)
            client.sendall(form[-1:])
            told = client.recv(1000)

    assert len(answered.results) == 1
    assert told.startswith(b"HTTP/1.1 200 ")


def test_an_event_has_a_size_that_holds_nobody_up(tiny_repository: Path) -> None:
    """A socket closes at an event whose reading would keep all others waiting."""
    port = free_port()
    address = f"ws://127.0.0.1:{port}/v1/realtime?intent=transcription"
    with (
        serving(tiny_repository, f"--http_port={port}"),
        connect(address, open_timeout=PATIENCE) as client,
    ):
        client.recv(PATIENCE)
        with suppress(ConnectionClosed):
            client.send("[" + " " * (4 << 20) + "]")
        with pytest.raises(ConnectionClosed) as caught:
            client.recv(PATIENCE)

    assert caught.value.rcvd
    assert caught.value.rcvd.code == 1009


def test_a_server_that_still_loads_ends_at_once(tiny_repository: Path, tmp_path: Path) -> None:
    """SIGTERM waits for no model: here a deploy keeps the server from them for ever."""
    models = tmp_path / "models"
    shutil.copytree(tiny_repository, models)
    options = [f"--riva-uri=127.0.0.1:{free_port()}", f"--model_repository={models}"]
    program = [sys.executable, "-m", MODULES["start-riva"], *options]

    with (
        deploying(models),
        subprocess.Popen(program, stderr=subprocess.PIPE, text=True) as process,
    ):
        assert process.stderr
        listens = any("listening on" in line for line in process.stderr)
        assert listens, f"the server ended by itself, with {process.wait(timeout=PATIENCE)}"
        process.send_signal(signal.SIGTERM)
        try:
            code = process.wait(timeout=PATIENCE)
        finally:
            process.kill()
        rest = process.stderr.read()

    assert code == 0, rest
    assert "Signal (15) received." in rest
    assert "Riva server stopped" in rest
    assert "Traceback" not in rest
