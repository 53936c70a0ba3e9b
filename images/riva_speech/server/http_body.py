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
_PIECE_BYTES = 1 << 18
_GO_ON = b"HTTP/1.1 100 Continue\r\n\r\n"
# All bodies together hold no more than so many of the largest.
_LARGEST_AT_ONCE = 8
_T = TypeVar("_T")


class BodyError(Exception):
    """A body that is not taken; ``answer`` says why."""

    def __init__(self, status: HTTPStatus, sentence: str) -> None:
        super().__init__(sentence)
        self.answer = json_answer({"detail": sentence}, status)


class Room:
    """What the bodies of a server's clients may take.

    Attributes:
        largest: The most bytes of one.
        seconds: How long one may take to arrive.
        left: How many bytes more all of them may hold.
    """

    def __init__(self, largest: int, seconds: float) -> None:
        self.largest = largest
        self.seconds = seconds
        self.left = _LARGEST_AT_ONCE * largest


class Body:
    """What a client posts. It is read once somebody asks for it, and takes memory as it arrives."""

    def __init__(
        self, head: Head, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, room: Room
    ) -> None:
        """Expect a body, which holds its part of a room until it is closed."""
        self._head = head
        self._reader = reader
        self._writer = writer
        self._room = room
        self._held = 0

    def close(self) -> None:
        """Give back what the body holds; once is enough, and more do no harm."""
        self._room.left += self._held
        self._held = 0

    async def read(self) -> bytes:
        """Return the body.

        Raises:
            BodyError: It is too large or too slow, does not say how large it is, or there is no
                room for it.
            asyncio.IncompleteReadError: The client ends it before its end.
        """
        length = self._length()
        if self._head.headers.get("expect", "").lower() == "100-continue":
            self._writer.write(_GO_ON)
        try:
            return await asyncio.wait_for(self._receive(length), self._room.seconds)
        except asyncio.TimeoutError:
            limit = f"a body comes within {self._room.seconds:g} s"
            raise BodyError(HTTPStatus.REQUEST_TIMEOUT, limit) from None

    async def _receive(self, length: int) -> bytes:
        received = bytearray()
        while len(received) < length:
            piece = await self._reader.read(min(_PIECE_BYTES, length - len(received)))
            if not piece:
                raise asyncio.IncompleteReadError(b"", length)
            self._hold(len(piece))
            received += piece
        return bytes(received)

    def _hold(self, count: int) -> None:
        if count > self._room.left:
            full = "too much is posted at once: try again once others have their answers"
            raise BodyError(HTTPStatus.TOO_MANY_REQUESTS, full)
        self._room.left -= count
        self._held += count

    def _length(self) -> int:
        length = self._head.headers.get("content-length", "")
        if not (length.isascii() and length.isdecimal()):
            raise BodyError(HTTPStatus.LENGTH_REQUIRED, "Content-Length is needed")
        if len(length) > _LONGEST_LENGTH or int(length) > self._room.largest:
            limit = f"a body has at most {self._room.largest} bytes"
            raise BodyError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, limit)
        return int(length)

    async def while_there(self, work: Coroutine[None, None, _T]) -> _T:
        """Do some work for a client whose body was read, and give it up when the client leaves.

        One that ends its side has left: whether it still listens cannot be known.

        Raises:
            BodyError: The client has left.
        """
        working = asyncio.ensure_future(work)
        leaving = asyncio.ensure_future(self._until_left())
        try:
            await asyncio.wait((working, leaving), return_when=asyncio.FIRST_COMPLETED)
            if not working.done():
                sentence = "the client ended its side of the connection before its answer"
                raise BodyError(HTTPStatus.BAD_REQUEST, sentence)
            return working.result()
        finally:
            leaving.cancel()
            working.cancel()
            await asyncio.wait((working, leaving))

    async def _until_left(self) -> None:
        with suppress(OSError):
            await until_end(self._reader)


async def until_end(reader: asyncio.StreamReader, patience: float | None = None) -> None:
    """Wait until a client sends no more; what it sends until then is nothing to anybody.

    Raises:
        OSError: The connection broke.
        asyncio.TimeoutError: Nothing came for ``patience`` seconds.
    """
    while await asyncio.wait_for(reader.read(_PIECE_BYTES), patience):
        pass
