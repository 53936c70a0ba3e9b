"""The HTTP side of a server: fixed paths that are asked, posted to, or upgraded to something else.

It speaks just enough HTTP/1.1 for probes, Prometheus and clients of recognition: one request a
connection. It lives on the loop that answers gRPC, so a live answer means that loop turns.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import closing, suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING, TypeAlias

from riva_speech.errors import OutOfResourceError
from riva_speech.server.http_body import Body, BodyError, Room, until_end
from riva_speech.server.http_messages import Answer, Head, json_answer, read_head, written
from riva_speech.server.metrics import CONTENT_TYPE
from riva_speech.server.state import ServerState

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from riva_speech.server.metrics import Metrics
    from riva_speech.server.state import Health

_log = logging.getLogger("riva_speech.server")

_LARGEST_HEAD = 8192
_PATIENCE_SECONDS = 5.0
_BODY_SECONDS = 60.0
_LINGER_SECONDS = 2.0


def _told(code: HTTPStatus, **values: str) -> Answer:
    return json_answer(values, code)


def routes(health: Health, metrics: Metrics) -> dict[str, Callable[[], Answer]]:
    """Return the paths of the HTTP service that are only asked."""

    def ready() -> Answer:
        """Answer 200 when recordings are answered, and until then 503 with the server's state."""
        if health.state is ServerState.READY:
            return _told(HTTPStatus.OK, status="ready")
        return _told(HTTPStatus.SERVICE_UNAVAILABLE, status=health.state.value)

    return {
        "/v1/health/live": lambda: _told(HTTPStatus.OK, status="live"),
        "/v1/health/ready": ready,
        "/v1/metrics": lambda: _exposition(metrics),
    }


def metrics_routes(metrics: Metrics) -> dict[str, Callable[[], Answer]]:
    """Return the paths of the port that is for metrics alone."""
    return {"/metrics": lambda: _exposition(metrics)}


def _exposition(metrics: Metrics) -> Answer:
    return Answer(metrics.exposition(), CONTENT_TYPE)


Post: TypeAlias = "Callable[[Head, Body], Awaitable[Answer]]"
Upgrade: TypeAlias = "Callable[[Head, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]"


@dataclass(frozen=True)
class Paths:
    """What each path does: answers GET, answers POST, or takes the connection over.

    A body that is posted has at most ``largest_body`` bytes.
    """

    get: Mapping[str, Callable[[], Answer]]
    post: Mapping[str, Post] = field(default_factory=dict)
    upgrade: Mapping[str, Upgrade] = field(default_factory=dict)
    largest_body: int = 0

    def __str__(self) -> str:
        """Return the paths, for people to read."""
        return " ".join([*self.get, *self.post, *self.upgrade])


class HttpServer:
    """Answers requests for some paths, on one port."""

    def __init__(self, paths: Paths, body_seconds: float = _BODY_SECONDS) -> None:
        """Serve paths to clients whose bodies arrive within so many seconds."""
        self._paths = paths
        self._room = Room(paths.largest_body, body_seconds)
        self._server: asyncio.Server | None = None
        self._running: set[asyncio.Task[None]] = set()

    async def start(self, host: str, port: int, option: str) -> None:
        """Listen; ``option`` is how the command line names the port.

        Raises:
            OutOfResourceError: The address is taken.
        """
        try:
            self._server = await asyncio.start_server(
                self._converse, host, port, limit=_LARGEST_HEAD
            )
        except OSError as error:
            raise OutOfResourceError(
                f"cannot listen on {host}:{port}: {error.strerror or error}",
                hint=f"stop what listens there, or choose another port with {option}",
            ) from None
        _log.info("HTTP service listening on %s:%s: %s", host, port, self._paths)

    async def stop(self, patience: float = 0.0) -> None:
        """Listen no more, and let what is being answered end within so many seconds."""
        if self._server:
            self._server.close()
        if self._running:
            await asyncio.wait(self._running, timeout=patience)

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one request, and hang up on whoever dawdles or leaves."""
        task = asyncio.current_task()
        assert task
        self._running.add(task)
        try:
            with suppress(asyncio.TimeoutError, asyncio.IncompleteReadError, OSError):
                await self._exchange(reader, writer)
            self._running.discard(task)
            with suppress(asyncio.TimeoutError, OSError):
                await asyncio.wait_for(_linger(reader, writer), self._room.seconds)
        except asyncio.CancelledError:
            # The loop ends: nobody is left who could send the rest.
            writer.transport.abort()
            raise
        finally:
            self._running.discard(task)
            writer.close()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await asyncio.wait_for(self._read_head(reader), _PATIENCE_SECONDS)
        if (
            isinstance(head, Head)
            and "upgrade" in head.headers
            and head.path in self._paths.upgrade
        ):
            await self._paths.upgrade[head.path](head, reader, writer)
            return
        answer = head if isinstance(head, Answer) else await self._answer(head, reader, writer)
        with_body = not (isinstance(head, Head) and head.method == "HEAD")
        writer.write(written(answer, with_body=with_body))
        await asyncio.wait_for(writer.drain(), _PATIENCE_SECONDS)

    async def _read_head(self, reader: asyncio.StreamReader) -> Head | Answer:
        try:
            raw = await reader.readuntil(b"\r\n\r\n")
        except asyncio.LimitOverrunError:
            return _told(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, detail="too large")
        return read_head(raw) or _told(HTTPStatus.BAD_REQUEST, detail="this is not HTTP/1")

    async def _answer(
        self, head: Head, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> Answer:
        if head.method == "POST" and head.path in self._paths.post:
            with closing(Body(head, reader, writer, self._room)) as body:
                try:
                    return await self._paths.post[head.path](head, body)
                except BodyError as error:
                    return error.answer
        if head.method not in ("GET", "HEAD"):
            return _told(HTTPStatus.METHOD_NOT_ALLOWED, detail="only GET and HEAD")
        if head.path in self._paths.get:
            return self._paths.get[head.path]()
        return _told(HTTPStatus.NOT_FOUND, detail=f"there are: {self._paths}")


async def _linger(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Wait for the client to hang up, or to fall silent.

    Closing while it still sends would undo what it was told.
    """
    if writer.can_write_eof():
        writer.write_eof()
    await until_end(reader, _LINGER_SECONDS)
