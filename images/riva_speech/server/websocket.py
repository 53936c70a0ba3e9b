"""WebSockets (RFC 6455) on a connection that HTTP has begun; nothing else imports websockets."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

from websockets.exceptions import WebSocketException
from websockets.frames import Opcode
from websockets.http11 import Request
from websockets.server import ServerProtocol

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

_READ_BYTES = 1 << 16
_DATA = (Opcode.TEXT, Opcode.CONT, Opcode.BINARY)
_QUIET_SECONDS = 60.0
_SEND_SECONDS = 30.0
_DONE = 1000  # the code of a closing that everybody is content with


class WebSocket:
    """Sends and receives messages of text; pings and closing look after themselves."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        largest: int,
        *,
        subprotocol: str = "",
        patience: float = _SEND_SECONDS,
    ) -> None:
        """Speak over a connection; a message has at most ``largest`` bytes.

        A client that does not take what is sent within ``patience`` seconds has left.
        """
        self._patience = patience
        self._reader = reader
        self._writer = writer
        spoken = [subprotocol] if subprotocol else None
        self._protocol = ServerProtocol(max_size=largest, subprotocols=spoken)

    async def accept(self, head: bytes) -> bool:
        """Answer the head of a request; return whether it began a conversation."""
        self._protocol.receive_data(head)
        for event in self._protocol.events_received():
            if isinstance(event, Request):
                self._protocol.send_response(self._protocol.accept(event))
        await self._flush()
        return self._protocol.handshake_exc is None and self._protocol.parser_exc is None

    async def messages(self) -> AsyncIterator[str]:
        """Give the client's messages until it closes or breaks the rules."""
        parts: list[bytes] = []
        while data := await self._read():
            self._protocol.receive_data(data)
            await self._flush()
            for frame in self._protocol.events_received():
                opcode = getattr(frame, "opcode", None)
                if opcode in _DATA:
                    parts.append(bytes(frame.data))
                    if frame.fin:
                        yield b"".join(parts).decode(errors="replace")
                        parts.clear()
            if self._protocol.close_expected():
                return

    async def _read(self) -> bytes:
        """Return the next bytes; none where the client has gone, or answers no ping."""
        with suppress(OSError, asyncio.TimeoutError):
            return await asyncio.wait_for(self._reader.read(_READ_BYTES), _QUIET_SECONDS)
        with suppress(OSError, asyncio.TimeoutError, WebSocketException):
            self._protocol.send_ping(b"")
            await self._flush()
            return await asyncio.wait_for(self._reader.read(_READ_BYTES), _QUIET_SECONDS)
        return b""

    async def send(self, text: str) -> None:
        """Send a message, unless the client has gone."""
        with suppress(WebSocketException):
            self._protocol.send_text(text.encode())
            await self._flush()

    async def close(self) -> None:
        """Say that nothing more comes."""
        with suppress(WebSocketException):
            self._protocol.send_close(_DONE)
            await self._flush()

    async def _flush(self) -> None:
        """Send what there is to send; a client that does not take it is hung up on.

        Whoever reads from it then finds that it has gone.
        """
        for data in self._protocol.data_to_send():
            if data:
                self._writer.write(data)
        try:
            await asyncio.wait_for(self._writer.drain(), self._patience)
        except (OSError, asyncio.TimeoutError):
            self._writer.transport.abort()
