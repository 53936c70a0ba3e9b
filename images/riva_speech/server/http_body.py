"""What a client posts over HTTP."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from http import HTTPStatus
from typing import TYPE_CHECKING, TypeVar

from riva_speech.server.http_messages import json_answer

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from riva_speech.server.http_messages import Head

_LONGEST_LENGTH = 12  # digits
_PIECE_BYTES = 8192
# Clients take any number of these before their answer.
_GO_ON = b"HTTP/1.1 100 Continue\r\n\r\n"
_PROBE_SECONDS = 1.0
_T = TypeVar("_T")


class BodyError(Exception):
    """A body that is not taken; ``answer`` says why."""

    def __init__(self, status: HTTPStatus, sentence: str) -> None:
        super().__init__(sentence)
        self.answer = json_answer({"detail": sentence}, status)


class Body:
    """What a client posts. It is read once somebody asks for it: until then it takes no memory."""

    def __init__(
        self,
        head: Head,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        largest: int,
        seconds: float,
    ) -> None:
        """Expect a body of at most ``largest`` bytes, within so many seconds."""
        self._head = head
        self._reader = reader
        self._writer = writer
        self._largest = largest
        self._seconds = seconds

    async def read(self) -> bytes:
        """Return the body.

        Raises:
            BodyError: It is too large or too slow, or does not say how large it is.
        """
        length = self._length()
        if self._head.headers.get("expect", "").lower() == "100-continue":
            self._writer.write(_GO_ON)
        try:
            return await asyncio.wait_for(self._reader.readexactly(length), self._seconds)
        except asyncio.TimeoutError:
            limit = f"a body comes within {self._seconds:g} s"
            raise BodyError(HTTPStatus.REQUEST_TIMEOUT, limit) from None

    def _length(self) -> int:
        length = self._head.headers.get("content-length", "")
        if not (length.isascii() and length.isdecimal()):
            raise BodyError(HTTPStatus.LENGTH_REQUIRED, "Content-Length is needed")
        if len(length) > _LONGEST_LENGTH or int(length) > self._largest:
            limit = f"a body has at most {self._largest} bytes"
            raise BodyError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, limit)
        return int(length)

    async def while_there(self, work: Coroutine[None, None, _T]) -> _T:
        """Do some work for a client whose body was read, and give it up when the client leaves.

        Raises:
            ConnectionResetError: The client has left.
        """
        working = asyncio.ensure_future(work)
        leaving = asyncio.ensure_future(self._until_left())
        try:
            await asyncio.wait((working, leaving), return_when=asyncio.FIRST_COMPLETED)
            if not working.done():
                raise ConnectionResetError("the client has left")
            return working.result()
        finally:
            leaving.cancel()
            working.cancel()
            await asyncio.wait((working, leaving))

    async def _until_left(self) -> None:
        """Wait until a client neither sends nor listens.

        One that has ended what it sends may still wait for its answer: only writing tells.
        """
        with suppress(OSError):
            await until_end(self._reader)
        while not self._writer.is_closing():
            self._writer.write(_GO_ON)
            await asyncio.sleep(_PROBE_SECONDS)


async def until_end(reader: asyncio.StreamReader, patience: float | None = None) -> None:
    """Wait until a client sends no more; what it sends until then is nothing to anybody.

    Raises:
        OSError: The connection broke.
        asyncio.TimeoutError: Nothing came for ``patience`` seconds.
    """
    while await asyncio.wait_for(reader.read(_PIECE_BYTES), patience):
        pass
