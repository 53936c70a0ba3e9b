"""Between protobuf messages and this project's own types."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from riva.client.proto import riva_asr_pb2, riva_audio_pb2

from riva_speech.audio.encoding import MONO_ONLY, Encoding
from riva_speech.audio.stream import DeclaredFormat
from riva_speech.server.registry import Wanted

if TYPE_CHECKING:
    from riva_speech.asr.loading import Recognizer
    from riva_speech.asr.pipeline import EndpointingConfig
    from riva_speech.asr.results import RecognisedWord, Result

# What NVIDIA's server sends for an ordinary partial result.
_PARTIAL_STABILITY = 0.1
_CHANNEL_TAG = 1
# Clients that ask for more get this many.
_MOST_ALTERNATIVES = 30


class RequestError(ValueError):
    """A request that cannot be right; the message is what the client is told."""


def wanted_model(config: riva_asr_pb2.RecognitionConfig) -> Wanted:
    """Return what a request says about its model."""
    return Wanted(config.model, config.language_code, config.sample_rate_hertz)


def declared_format(config: riva_asr_pb2.RecognitionConfig) -> DeclaredFormat:
    """Return what a request says about its audio.

    Raises:
        RequestError: It asks for an encoding or for channels that are not supported.
    """
    if config.audio_channel_count > 1 or config.enable_separate_recognition_per_channel:
        raise RequestError(MONO_ONLY)
    if config.sample_rate_hertz < 0:
        raise RequestError(f"Error: invalid sample rate {config.sample_rate_hertz}.")
    return DeclaredFormat(_encoding(config.encoding), config.sample_rate_hertz)


def _encoding(number: int) -> Encoding | None:
    if number == riva_audio_pb2.ENCODING_UNSPECIFIED:
        return None
    try:
        return Encoding[riva_audio_pb2.AudioEncoding.Name(number)]
    except (KeyError, ValueError):
        raise RequestError(f"Error: audio encoding {number} is not supported.") from None


def endpointing(
    config: riva_asr_pb2.RecognitionConfig, default: EndpointingConfig
) -> EndpointingConfig:
    """Return the endpointing of a request: what it sets, over the model's.

    Clients send -1 for a value they leave alone.

    Raises:
        RequestError: A window or threshold is out of range.
    """
    names = {
        "start_history": "start_history",
        "start_threshold": "start_th",
        "stop_history": "stop_history",
        "stop_threshold": "stop_th",
    }
    sent = config.endpointing_config
    given = {
        ours: getattr(sent, theirs)
        for theirs, ours in names.items()
        if sent.HasField(theirs) and getattr(sent, theirs) != -1
    }
    try:
        return replace(default, **given)
    except ValueError as error:
        raise RequestError(f"Error: endpointing_config is out of range: {error}.") from error


def alternatives_wanted(config: riva_asr_pb2.RecognitionConfig) -> int:
    """Return how many readings a request wants; 0 stands for one."""
    return min(max(1, config.max_alternatives), _MOST_ALTERNATIVES)


def alternatives(
    result: Result, config: riva_asr_pb2.RecognitionConfig
) -> list[riva_asr_pb2.SpeechRecognitionAlternative]:
    """Return a result's readings; audio without words has none.

    Final transcripts end with a space, as those of NVIDIA's server do: clients join them as they
    come. Confidence belongs to finals, and word times to their best reading.
    """
    kind = riva_asr_pb2.SpeechRecognitionAlternative
    if not result.words:
        return []
    if not result.is_final:
        return [kind(transcript=result.transcript)]
    found = [
        kind(transcript=f"{one.transcript} ", confidence=one.confidence)
        for one in result.alternatives
    ]
    if config.enable_word_time_offsets:
        found[0].words.extend(map(_word, result.words))
    return found


def _word(word: RecognisedWord) -> riva_asr_pb2.WordInfo:
    return riva_asr_pb2.WordInfo(
        word=word.text,
        start_time=word.start_ms,
        end_time=word.end_ms,
        confidence=word.confidence,
    )


def offline_response(
    result: Result, request: riva_asr_pb2.RecognizeRequest
) -> riva_asr_pb2.RecognizeResponse:
    """Return the answer to ``Recognize``."""
    return riva_asr_pb2.RecognizeResponse(
        id=request.id if request.HasField("id") else None,
        results=[
            riva_asr_pb2.SpeechRecognitionResult(
                alternatives=alternatives(result, request.config),
                channel_tag=_CHANNEL_TAG,
                audio_processed=result.audio_processed,
            )
        ],
    )


def streaming_result(
    result: Result, config: riva_asr_pb2.RecognitionConfig
) -> riva_asr_pb2.StreamingRecognitionResult:
    """Return one result of a stream."""
    return riva_asr_pb2.StreamingRecognitionResult(
        alternatives=alternatives(result, config),
        is_final=result.is_final,
        stability=0.0 if result.is_final else _PARTIAL_STABILITY,
        channel_tag=_CHANNEL_TAG,
        audio_processed=result.audio_processed,
    )


def final_text(
    response: riva_asr_pb2.RecognizeResponse | riva_asr_pb2.StreamingRecognizeResponse,
) -> str:
    """Return the best final transcripts of a response; those of ``Recognize`` all are final."""
    return "".join(
        result.alternatives[0].transcript
        for result in response.results
        if result.alternatives and getattr(result, "is_final", True)
    )


def model_config(
    recognizer: Recognizer,
) -> riva_asr_pb2.RivaSpeechRecognitionConfigResponse.Config:
    """Return how a model is listed; clients read ``type`` and ``language_code``."""
    config = recognizer.config
    return riva_asr_pb2.RivaSpeechRecognitionConfigResponse.Config(
        model_name=config.name,
        parameters={
            "type": config.type,
            "language_code": config.language_code,
            "sample_rate_hertz": str(config.acoustic.features.sample_rate),
            "streaming": str(config.type == "online"),
            "decoder_type": recognizer.decoding.name,
        },
    )
