"""The HTTP side of a server: health checks and metrics, nothing that takes audio.

It speaks just enough HTTP/1.1 for probes and Prometheus: GET and HEAD of fixed paths, one request
a connection. It lives on the loop that answers gRPC, so a live answer means that loop turns.
"""

from __future__ import annotations

import asyncio
import json
import logging
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING

from riva_speech.errors import OutOfResourceError
from riva_speech.server.metrics import CONTENT_TYPE
from riva_speech.server.state import ServerState

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from riva_speech.server.metrics import Metrics
    from riva_speech.server.state import Health

_log = logging.getLogger("riva_speech.server")

_LARGEST_HEAD = 8192
_PATIENCE_SECONDS = 5.0
_JSON = "application/json"


@dataclass(frozen=True)
class Answer:
    """What a path answers."""

    body: bytes
    kind: str = _JSON
    status: HTTPStatus = HTTPStatus.OK


def _json(code: HTTPStatus, **values: str) -> Answer:
    return Answer(json.dumps(values).encode(), status=code)


def routes(health: Health, metrics: Metrics) -> dict[str, Callable[[], Answer]]:
    """Return the paths of the HTTP service."""

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


class HttpServer:
    """Answers GET for some paths, on one port."""

    def __init__(self, paths: Mapping[str, Callable[[], Answer]]) -> None:
        self._paths = paths
        self._server: asyncio.Server | None = None

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
        _log.info("HTTP service listening on %s:%s: %s", host, port, " ".join(self._paths))

    async def stop(self) -> None:
        """Listen no more."""
        if self._server:
            self._server.close()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one request, and hang up on whoever dawdles or leaves."""
        try:
            with suppress(asyncio.TimeoutError, asyncio.IncompleteReadError, OSError):
                await asyncio.wait_for(self._exchange(reader, writer), _PATIENCE_SECONDS)
        finally:
            writer.close()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await self._respond(reader))
        await writer.drain()

    async def _respond(self, reader: asyncio.StreamReader) -> bytes:
        """Read the head of a request and return the whole response."""
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.LimitOverrunError:
            return _response(_json(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, detail="too large"))
        method, _, rest = head.partition(b"\r\n")[0].partition(b" ")
        path, _, version = rest.partition(b" ")
        if not version.startswith(b"HTTP/1."):
            return _response(_json(HTTPStatus.BAD_REQUEST, detail="this is not HTTP/1"))
        if method not in (b"GET", b"HEAD"):
            return _response(_json(HTTPStatus.METHOD_NOT_ALLOWED, detail="only GET and HEAD"))
        answer = self._answer(path.partition(b"?")[0].decode("latin-1"))
        return _response(answer, with_body=method == b"GET")

    def _answer(self, path: str) -> Answer:
        if path in self._paths:
            return self._paths[path]()
        return _json(HTTPStatus.NOT_FOUND, detail=f"there are: {' '.join(self._paths)}")


def _response(answer: Answer, *, with_body: bool = True) -> bytes:
    allow = "Allow: GET, HEAD\r\n" if answer.status is HTTPStatus.METHOD_NOT_ALLOWED else ""
    head = (
        f"HTTP/1.1 {answer.status.value} {answer.status.phrase}\r\n"
        f"Content-Type: {answer.kind}\r\nContent-Length: {len(answer.body)}\r\n{allow}"
        "Cache-Control: no-store\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + (answer.body if with_body else b"")
