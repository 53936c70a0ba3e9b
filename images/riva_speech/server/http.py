"""The HTTP side of a server: fixed paths that are asked, posted to, or upgraded to something else.

It speaks just enough HTTP/1.1 for probes, Prometheus and clients of recognition: one request a
connection. It lives on the loop that answers gRPC, so a live answer means that loop turns.
"""

from __future__ import annotations

import asyncio
import json
import logging
from contextlib import suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING, TypeAlias

from riva_speech.errors import OutOfResourceError
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
_LONGEST_LENGTH = 12  # digits
_JSON = "application/json"


@dataclass(frozen=True)
class Answer:
    """What a path answers; ``headers`` are further lines of its head."""

    body: bytes
    kind: str = _JSON
    status: HTTPStatus = HTTPStatus.OK
    headers: tuple[str, ...] = ()


def json_answer(values: object, status: HTTPStatus = HTTPStatus.OK) -> Answer:
    """Return an answer of JSON."""
    return Answer(json.dumps(values).encode(), status=status)


def _json(code: HTTPStatus, **values: str) -> Answer:
    return json_answer(values, code)


def routes(health: Health, metrics: Metrics) -> dict[str, Callable[[], Answer]]:
    """Return the paths of the HTTP service that are only asked."""

    def ready() -> Answer:
        if health.state is ServerState.READY:
            return _json(HTTPStatus.OK, status="ready")
        return _json(HTTPStatus.SERVICE_UNAVAILABLE, status=health.state.value)

    return {
        "/v1/health/live": lambda: _json(HTTPStatus.OK, status="live"),
        "/v1/health/ready": ready,
        "/v1/metrics": lambda: _exposition(metrics),
    }


def metrics_routes(metrics: Metrics) -> dict[str, Callable[[], Answer]]:
    """Return the paths of the port that is for metrics alone."""
    return {"/metrics": lambda: _exposition(metrics)}


def _exposition(metrics: Metrics) -> Answer:
    return Answer(metrics.exposition(), CONTENT_TYPE)


@dataclass(frozen=True)
class Head:
    """What a request begins with; ``raw`` are its bytes, and names of headers in lower case."""

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    raw: bytes = field(repr=False)


def read_head(raw: bytes) -> Head | None:
    """Read the head of a request, or return None where it is not HTTP/1."""
    first, *lines = raw.decode("latin-1").split("\r\n")
    method, _, rest = first.partition(" ")
    target, _, version = rest.partition(" ")
    path, _, query = target.partition("?")
    fields = (line.partition(":") for line in lines if line)
    headers = {name.strip().lower(): value.strip() for name, _, value in fields}
    return Head(method, path, query, headers, raw) if version.startswith("HTTP/1.") else None


Post: TypeAlias = "Callable[[Head, bytes], Awaitable[Answer]]"
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
        self._body_seconds = body_seconds
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
        finally:
            self._running.discard(task)
            with suppress(asyncio.TimeoutError, OSError):
                await asyncio.wait_for(_linger(reader, writer), _LINGER_SECONDS)
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
            return _json(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, detail="too large")
        return read_head(raw) or _json(HTTPStatus.BAD_REQUEST, detail="this is not HTTP/1")

    async def _answer(
        self, head: Head, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> Answer:
        if head.method == "POST" and head.path in self._paths.post:
            body = await self._read_body(head, reader, writer)
            return (
                body if isinstance(body, Answer) else await self._paths.post[head.path](head, body)
            )
        if head.method not in ("GET", "HEAD"):
            return _json(HTTPStatus.METHOD_NOT_ALLOWED, detail="only GET and HEAD")
        if head.path in self._paths.get:
            return self._paths.get[head.path]()
        return _json(HTTPStatus.NOT_FOUND, detail=f"there are: {self._paths}")

    async def _read_body(
        self, head: Head, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bytes | Answer:
        length = head.headers.get("content-length", "")
        if not (length.isascii() and length.isdecimal()):
            return _json(HTTPStatus.LENGTH_REQUIRED, detail="Content-Length is needed")
        if len(length) > _LONGEST_LENGTH or int(length) > self._paths.largest_body:
            limit = f"a body has at most {self._paths.largest_body} bytes"
            return _json(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, detail=limit)
        if head.headers.get("expect", "").lower() == "100-continue":
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        try:
            return await asyncio.wait_for(reader.readexactly(int(length)), self._body_seconds)
        except asyncio.TimeoutError:
            limit = f"a body comes within {self._body_seconds:g} s"
            return _json(HTTPStatus.REQUEST_TIMEOUT, detail=limit)


async def _linger(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Wait for the client to hang up: closing while it still sends would undo what it was told."""
    if writer.can_write_eof():
        writer.write_eof()
    while await reader.read(_LARGEST_HEAD):
        pass


def written(answer: Answer, *, with_body: bool = True) -> bytes:
    """Return the bytes of an answer."""
    allow = ("Allow: GET, HEAD",) if answer.status is HTTPStatus.METHOD_NOT_ALLOWED else ()
    further = "".join(f"{line}\r\n" for line in (*allow, *answer.headers))
    head = (
        f"HTTP/1.1 {answer.status.value} {answer.status.phrase}\r\n"
        f"Content-Type: {answer.kind}\r\nContent-Length: {len(answer.body)}\r\n{further}"
        "Cache-Control: no-store\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + (answer.body if with_body else b"")
