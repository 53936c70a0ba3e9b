"""From results to the messages of an answer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from riva.client.proto import riva_asr_pb2

if TYPE_CHECKING:
    from collections.abc import Iterable

    from riva.client.proto import riva_common_pb2

    from riva_speech.asr.loading import Recognizer
    from riva_speech.asr.options import RequestOptions
    from riva_speech.asr.results import RecognisedWord, Result

# What NVIDIA's server sends for an ordinary partial result, and where an utterance seems over.
_PARTIAL_STABILITY = 0.1
_FIRST_PASS_STABILITY = 1.0
_CHANNEL_TAG = 1


def _tell(
    told: riva_asr_pb2.SpeechRecognitionResult | riva_asr_pb2.StreamingRecognitionResult,
    result: Result,
    options: RequestOptions,
) -> None:
    """Write what results of both kinds have into one; audio without words has no readings.

    Final transcripts end with a space, as those of NVIDIA's server do: clients join them as they
    come. Confidence belongs to finals, and word times to their best reading.
    """
    told.channel_tag = _CHANNEL_TAG
    told.audio_processed = result.audio_processed
    if not result.transcript:
        return
    if not result.is_final:
        told.alternatives.add(transcript=result.transcript)
        return
    for one in result.alternatives:
        told.alternatives.add(transcript=f"{one.transcript} ", confidence=one.confidence)
    if options.word_times:
        told.alternatives[0].words.extend(map(_word, result.words))


def _word(word: RecognisedWord) -> riva_asr_pb2.WordInfo:
    return riva_asr_pb2.WordInfo(
        word=word.text,
        start_time=word.start_ms,
        end_time=word.end_ms,
        confidence=word.confidence,
    )


def offline_response(
    result: Result, options: RequestOptions, request_id: riva_common_pb2.RequestId | None
) -> riva_asr_pb2.RecognizeResponse:
    """Return the answer to ``Recognize``."""
    response = riva_asr_pb2.RecognizeResponse(id=request_id)
    _tell(response.results.add(), result, options)
    return response


def streaming_response(
    results: Iterable[Result], options: RequestOptions, request_id: riva_common_pb2.RequestId | None
) -> riva_asr_pb2.StreamingRecognizeResponse:
    """Return the answer to a piece of a stream.

    Each result is made in its place: one that is put there is written out and read again for it.
    """
    response = riva_asr_pb2.StreamingRecognizeResponse(id=request_id)
    for result in results:
        told = response.results.add(is_final=result.is_final, stability=_stability(result))
        _tell(told, result, options)
        if result.vad_probabilities:
            told.pipeline_states.vad_probabilities.extend(result.vad_probabilities)
    return response


def final_text(
    response: riva_asr_pb2.RecognizeResponse | riva_asr_pb2.StreamingRecognizeResponse,
) -> str:
    """Return the best final transcripts of a response; those of ``Recognize`` all are final."""
    return "".join(
        result.alternatives[0].transcript
        for result in response.results
        if result.alternatives and getattr(result, "is_final", True)
    )


def _stability(result: Result) -> float:
    if result.is_final:
        return 0.0
    return _FIRST_PASS_STABILITY if result.first_pass else _PARTIAL_STABILITY


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
