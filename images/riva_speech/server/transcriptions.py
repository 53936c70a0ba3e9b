"""Recordings that are posted as a form over HTTP."""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import TYPE_CHECKING

import grpc
from riva.client.proto import riva_asr_pb2

from riva_speech.server.http_messages import Answer, json_answer
from riva_speech.server.recognition import RefusedError

if TYPE_CHECKING:
    from riva_speech.server.http_body import Body
    from riva_speech.server.http_messages import Head
    from riva_speech.server.recognition import RecognitionService

TRANSCRIPTIONS_PATH = "/v1/audio/transcriptions"
_METHOD = "Transcriptions"
_FORM = re.compile(r'multipart/form-data\s*;.*?boundary="?([^";]+)"?', re.IGNORECASE)
# Tied to the beginning of a line: a body that repeats it on one would take hours to be searched.
_NAME = re.compile(rb'(?im)^content-disposition:[^\r\n]*?;[ \t]*name="([^"]*)"')
# Forms have a handful; each costs more time than its bytes.
_MOST_PARTS = 1000
_END_OF_HEAD = b"\r\n\r\n"
_STATUS = {
    grpc.StatusCode.INVALID_ARGUMENT: HTTPStatus.BAD_REQUEST,
    grpc.StatusCode.RESOURCE_EXHAUSTED: HTTPStatus.TOO_MANY_REQUESTS,
    grpc.StatusCode.UNAVAILABLE: HTTPStatus.SERVICE_UNAVAILABLE,
}


def read_form(content_type: str, body: bytes) -> dict[str, bytes]:
    """Return the fields of a form of several parts; none where it is no such form."""
    found = _FORM.match(content_type)
    if not found:
        return {}
    mark = b"\r\n--" + found.group(1).encode("latin-1")
    fields = {}
    for part in (b"\r\n" + body).split(mark, _MOST_PARTS)[1:]:
        head, separator, value = part.partition(_END_OF_HEAD)
        if separator and (name := _NAME.search(head)):
            fields[name.group(1).decode("latin-1")] = value
    return fields


class Transcriptions:
    """Answers posted recordings by a recognition service."""

    def __init__(self, service: RecognitionService) -> None:
        self._service = service

    async def answer(self, head: Head, body: Body) -> Answer:
        """Answer with the text of a recording, or say why there is none."""
        try:
            # Nothing is read for who would be refused. Who still sends keeps nobody out.
            self._service.check_place(_METHOD)
            return await self._answer(head, body)
        except RefusedError as error:
            status = _STATUS.get(error.status, HTTPStatus.INTERNAL_SERVER_ERROR)
            return json_answer({"detail": error.sentence}, status)

    async def _answer(self, head: Head, body: Body) -> Answer:
        form = read_form(head.headers.get("content-type", ""), await body.read())
        texts = {
            name: form.get(name, b"").decode(errors="replace").strip()
            for name in ("language", "model", "response_format")
        }
        if problem := _problem(form, texts):
            return json_answer({"detail": problem}, HTTPStatus.BAD_REQUEST)
        config = riva_asr_pb2.RecognitionConfig(
            language_code=texts["language"], model=texts["model"]
        )
        request = riva_asr_pb2.RecognizeRequest(config=config, audio=form.pop("file"))
        response = await body.while_there(self._service.recognize(_METHOD, request))
        best = [one.alternatives[0].transcript for one in response.results if one.alternatives]
        text = "".join(best).strip()
        if texts["response_format"] == "text":
            return Answer(text.encode(), kind="text/plain; charset=utf-8")
        return json_answer({"text": text})


def _problem(form: dict[str, bytes], texts: dict[str, str]) -> str:
    """Return what is wrong with a form; empty where nothing is."""
    if "file" not in form:
        return "the form (multipart/form-data) has no field 'file' with a recording"
    if not (texts["language"] or texts["model"]):
        return "the form needs a field 'language' or 'model'"
    if texts["response_format"] not in ("", "json", "text"):
        return f"response_format {texts['response_format'][:60]!r} is not known: json and text are"
    return ""
