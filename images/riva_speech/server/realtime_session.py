"""The session of a realtime transcription: as it begins, is updated, and configures a stream."""

from __future__ import annotations

import json
import uuid
from typing import Any

from google.protobuf import json_format
from riva.client.proto import riva_asr_pb2

from riva_speech.server.requests import RequestError

_MIN_CHUNK_SECONDS = 0.08
# Characters of what a client sent, in an error that names it.
SHOWN = 200
_PCM = "pcm16"
_FORMATS = ("none", _PCM)
# Characters that a session may have, once it is written down: more than 10,000 phrases take.
_LARGEST_SESSION = 1 << 20


def new_session() -> dict[str, Any]:
    """Return a session as it is before its client updates it."""
    return {
        "id": f"sess_{uuid.uuid4()}",
        "object": "realtime.transcription_session",
        "modalities": ["text"],
        "input_audio_format": "none",
        "input_audio_transcription": {"language": "", "model": "", "prompt": ""},
        "input_audio_params": {"sample_rate_hz": 16000, "num_channels": 1},
        "recognition_config": {
            "max_alternatives": 1,
            "enable_automatic_punctuation": False,
            "enable_word_time_offsets": False,
            "enable_profanity_filter": False,
            "enable_verbatim_transcripts": True,
            "custom_configuration": "",
        },
        "speaker_diarization": {"enable_speaker_diarization": False, "max_speaker_count": 8},
        "word_boosting": {"enable_word_boosting": False, "word_boosting_list": []},
        "endpointing_config": {},
        "input_min_chunk_seconds": _MIN_CHUNK_SECONDS,
        "client_secret": None,
    }


def streaming_config(session: dict[str, Any]) -> riva_asr_pb2.StreamingRecognitionConfig:
    """Return what a session asks for, as the first message of a stream says it.

    Raises:
        RequestError: A value is not of its kind.
    """
    wanted = _merged(new_session(), session)
    chosen, params = wanted["input_audio_transcription"], wanted["input_audio_params"]
    recognition, boosting = wanted["recognition_config"], wanted["word_boosting"]
    config = {
        "language_code": chosen["language"],
        "model": chosen["model"],
        "audio_channel_count": params["num_channels"],
        "max_alternatives": recognition["max_alternatives"],
        "enable_automatic_punctuation": recognition["enable_automatic_punctuation"],
        "enable_word_time_offsets": recognition["enable_word_time_offsets"],
        "profanity_filter": recognition["enable_profanity_filter"],
        "verbatim_transcripts": recognition["enable_verbatim_transcripts"],
        "custom_configuration": _custom(recognition["custom_configuration"]),
        "diarization_config": wanted["speaker_diarization"],
        "endpointing_config": wanted["endpointing_config"],
    }
    if boosting["enable_word_boosting"]:
        config["speech_contexts"] = boosting["word_boosting_list"]
    # Files say themselves what they are; what a client adds of its microphone is not of them.
    if wanted["input_audio_format"] not in _FORMATS:
        raise RequestError(f"Error: input_audio_format is one of {', '.join(_FORMATS)}.")
    if wanted["input_audio_format"] == _PCM:
        config |= {"encoding": "LINEAR_PCM", "sample_rate_hertz": params["sample_rate_hz"]}
    sent = riva_asr_pb2.StreamingRecognitionConfig(interim_results=True)
    try:
        json_format.ParseDict(config, sent.config)
    except (json_format.ParseError, AttributeError, TypeError, ValueError) as error:
        raise RequestError(f"Error: the session cannot be: {str(error)[:SHOWN]}") from None
    return sent


def updated(session: dict[str, Any], wanted: dict[str, Any]) -> dict[str, Any]:
    """Return a session with a client's update in it, which a stream could be configured by.

    Raises:
        RequestError: A value is not of its kind, or the session has become too large.
    """
    merged = _merged(session, wanted)
    _check_size(merged)
    streaming_config(merged)
    return merged


def _merged(defaults: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """Return defaults with what is given in their place, each section by itself."""
    merged = dict(defaults)
    for key, value in given.items():
        if isinstance(merged.get(key), dict):
            if not isinstance(value, dict):
                raise RequestError(f"Error: the session's {key[:SHOWN]} is not an object.")
            merged[key] = {**merged[key], **value}
        elif value is not None:
            merged[key] = value
    return merged


def _custom(given: object) -> object:
    """Return custom configuration as a mapping; clients send it as ``key:value,key:value``."""
    if not isinstance(given, str):
        return given
    pairs = [pair.partition(":") for pair in given.replace(" ", "").split(",") if pair]
    return {key: value for key, _, value in pairs}


def _check_size(session: dict[str, Any]) -> None:
    """Refuse a session that updates have made too large, or that is nested too deeply to tell."""
    try:
        is_too_large = len(json.dumps(session)) > _LARGEST_SESSION
    except RecursionError:
        is_too_large = True
    if is_too_large:
        raise RequestError(f"Error: a session has at most {_LARGEST_SESSION} characters.")
