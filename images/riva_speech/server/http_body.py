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
            self._writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
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
        leaving = asyncio.ensure_future(until_end(self._reader))
        try:
            await asyncio.wait((working, leaving), return_when=asyncio.FIRST_COMPLETED)
            if not working.done():
                raise ConnectionResetError("the client has left")
            return working.result()
        finally:
            leaving.cancel()
            working.cancel()
            await asyncio.wait((working, leaving))


async def until_end(reader: asyncio.StreamReader) -> None:
    """Wait until a client sends no more; what it sends until then is nothing to anybody."""
    with suppress(OSError):
        while await reader.read(_PIECE_BYTES):
            pass
