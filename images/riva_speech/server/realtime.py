"""Riva's realtime transcription: JSON events over a WebSocket, turned into a stream's messages.

A client posts for a session, opens the socket, updates the session, and appends audio in base64;
each ``commit`` is one message of a stream.
"""

from __future__ import annotations

import base64
import json
import uuid
from contextlib import aclosing
from dataclasses import replace
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

from riva.client.proto import riva_asr_pb2

from riva_speech.server.http_messages import Answer, Head, json_answer, written
from riva_speech.server.realtime_session import SHOWN, new_session, streaming_config, updated
from riva_speech.server.recognition import RefusedError
from riva_speech.server.requests import RequestError, ends_utterance
from riva_speech.server.session_keys import CHALLENGE, SUBPROTOCOL, SessionKeys
from riva_speech.server.websocket import WebSocket

if TYPE_CHECKING:
    import asyncio
    from collections.abc import AsyncIterator

    from riva_speech.server.http_body import Body
    from riva_speech.server.recognition import RecognitionService

SESSIONS_PATH = "/v1/realtime/transcription_sessions"
SOCKET_PATH = "/v1/realtime"
_INTENT = "transcription"
_METHOD = "Realtime"
_ITEM = "conversation.item.input_audio_transcription"
# Bytes of one event, which is read on the loop that all others are answered on: more than a minute
# of audio, and a tenth of a second at worst.
_LARGEST_EVENT = 4 << 20
# Brackets and commas of one event: reading a million takes seconds, in which nobody is answered.
_MOST_PARTS = 100_000


class Realtime:
    """Serves realtime transcription by a recognition service."""

    def __init__(self, service: RecognitionService, largest: int, key: str = "") -> None:
        """Serve who has the key, if there is one; a commit has at most ``largest`` bytes."""
        self._service = service
        self._largest = largest
        self._keys = SessionKeys(key)

    def health(self) -> Answer:
        """Answer who asks whether sockets are served."""
        return json_answer({"status": "healthy"})

    async def mint(self, head: Head, _: Body) -> Answer:
        """Answer who posts for a session; what it shall be is said over the socket."""
        if not self._keys.may_mint(head.headers):
            refusal = json_answer({"detail": "the key is not right"}, HTTPStatus.UNAUTHORIZED)
            return replace(refusal, headers=(f"WWW-Authenticate: {CHALLENGE}",))
        secret = {"value": self._keys.mint()} if self._keys.are_needed else None
        return json_answer({**new_session(), "client_secret": secret})

    async def converse(
        self, head: Head, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Hold a conversation with one client."""
        if refusal := self._refusal(head):
            writer.write(written(json_answer({"detail": refusal}, HTTPStatus.FORBIDDEN)))
            await writer.drain()
            return
        spoken = SUBPROTOCOL if self._keys.are_needed else ""
        largest = min(self._largest, _LARGEST_EVENT)
        socket = WebSocket(reader, writer, largest, subprotocol=spoken)
        if not await socket.accept(head.raw):
            return
        await _Dialogue(self._service, socket, self._largest).run()
        await socket.close()

    def _refusal(self, head: Head) -> str:
        """Return why a request may open no socket; empty where it may."""
        if parse_qs(head.query).get("intent") != [_INTENT]:
            return f"the intent of {SOCKET_PATH} is {_INTENT}"
        if not self._keys.may_open(head.headers):
            return f"post to {SESSIONS_PATH} for a secret, and offer it as a subprotocol"
        return ""


class _Dialogue:
    """One client's events, and the answers to them."""

    def __init__(self, service: RecognitionService, socket: WebSocket, largest: int) -> None:
        self._service = service
        self._socket = socket
        self._largest = largest
        self._session = new_session()
        self._audio = bytearray()
        self._runtime: dict[str, str] = {}
        self._finals: list[riva_asr_pb2.SpeechRecognitionAlternative] = []
        self._is_done = False

    async def run(self) -> None:
        """Answer until the client is done, leaves, or asks for what cannot be."""
        await self._tell("conversation.created", conversation={"id": f"conv_{uuid.uuid4()}"})
        try:
            answers = self._service.converse(_METHOD, self._requests())
            async with aclosing(answers):
                async for answer in answers:
                    await self._report(answer)
        except RefusedError as error:
            await self._tell("error", error={"type": error.status.name, "message": error.sentence})
            return
        if self._is_done:
            await self._complete(self._finals, is_last=True)

    async def _requests(self) -> AsyncIterator[riva_asr_pb2.StreamingRecognizeRequest]:
        """Give the messages of the stream that the client's events stand for."""
        kind, configured = riva_asr_pb2.StreamingRecognizeRequest, False
        async for text in self._socket.messages():
            event = _read(text)
            name = event.get("type")
            if name == "transcription_session.update":
                await self._update(event, is_too_late=configured)
                continue
            if not configured:
                configured = True
                yield kind(streaming_config=streaming_config(self._session))
            if name == "input_audio_buffer.append":
                self._append(event)
            elif name in ("input_audio_buffer.commit", "input_audio_buffer.done"):
                if self._audio or self._runtime:
                    yield kind(audio_content=bytes(self._audio), runtime_config=self._runtime)
                self._audio.clear()
                self._runtime.clear()
                self._is_done = name == "input_audio_buffer.done"
                if self._is_done:
                    return
            else:
                raise RequestError(f"Error: event {str(name)[:SHOWN]!r} is not known.")

    async def _update(self, event: dict[str, Any], *, is_too_late: bool) -> None:
        if is_too_late:
            raise RequestError("Error: the session cannot change once there is audio.")
        wanted = event.get("session")
        if not isinstance(wanted, dict):
            raise RequestError("Error: an update has a session.")
        self._session = updated(self._session, wanted)
        await self._tell("transcription_session.updated", session=self._session)

    def _append(self, event: dict[str, Any]) -> None:
        runtime = event.get("runtime_config") or {}
        try:
            # A text that is not ASCII is a ValueError, and so is one that is not base64.
            self._audio += base64.b64decode(event.get("audio", ""), validate=True)
            self._runtime |= {str(key): str(value) for key, value in runtime.items()}
        except (AttributeError, TypeError, ValueError):
            raise RequestError("Error: audio is base64, and runtime_config an object.") from None
        # Now, not with the commit: what may stand there is little, and so it does not pile up.
        ends_utterance(self._runtime)
        if len(self._audio) > self._largest:
            raise RequestError(f"Error: more than {self._largest} bytes wait for a commit.")

    async def _report(self, answer: riva_asr_pb2.StreamingRecognizeResponse) -> None:
        for result in answer.results:
            if result.is_final:
                best = list(result.alternatives[:1])
                self._finals += best
                await self._complete(best, is_last=False)
            elif result.alternatives:
                await self._tell(f"{_ITEM}.delta", delta=result.alternatives[0].transcript)

    async def _complete(
        self, heard: list[riva_asr_pb2.SpeechRecognitionAlternative], *, is_last: bool
    ) -> None:
        words = [_word(word) for one in heard for word in one.words]
        await self._tell(
            f"{_ITEM}.completed",
            transcript="".join(one.transcript for one in heard).strip(),
            is_last_result=is_last,
            words_info={"words": words},
        )

    async def _tell(self, name: str, **values: object) -> None:
        event = {"event_id": f"event_{uuid.uuid4()}", "type": name, **values}
        await self._socket.send(json.dumps(event))


def _word(word: riva_asr_pb2.WordInfo) -> dict[str, object]:
    return {
        "word": word.word,
        "start_time": word.start_time,
        "end_time": word.end_time,
        "confidence": word.confidence,
        "speaker_tag": word.speaker_tag,
    }


def _read(text: str) -> dict[str, Any]:
    if sum(map(text.count, "[{,")) > _MOST_PARTS:
        raise RequestError(f"Error: an event has at most {_MOST_PARTS} brackets and commas.")
    try:
        event = json.loads(text)
    except (ValueError, RecursionError):
        event = None
    if not isinstance(event, dict):
        raise RequestError("Error: an event is an object of JSON.")
    return event
