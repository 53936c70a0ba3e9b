"""The two halves of an exchange over HTTP/1.1: how a request begins, and what is answered."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

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
