"""From results to the messages of an answer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from riva.client.proto import riva_asr_pb2

if TYPE_CHECKING:
    from riva.client.proto import riva_common_pb2

    from riva_speech.asr.loading import Recognizer
    from riva_speech.asr.options import RequestOptions
    from riva_speech.asr.results import RecognisedWord, Result

# What NVIDIA's server sends for an ordinary partial result, and where an utterance seems over.
_PARTIAL_STABILITY = 0.1
_FIRST_PASS_STABILITY = 1.0
_CHANNEL_TAG = 1


def alternatives(
    result: Result, options: RequestOptions
) -> list[riva_asr_pb2.SpeechRecognitionAlternative]:
    """Return a result's readings; audio without words has none.

    Final transcripts end with a space, as those of NVIDIA's server do: clients join them as they
    come. Confidence belongs to finals, and word times to their best reading.
    """
    kind = riva_asr_pb2.SpeechRecognitionAlternative
    if not result.transcript:
        return []
    if not result.is_final:
        return [kind(transcript=result.transcript)]
    found = [
        kind(transcript=f"{one.transcript} ", confidence=one.confidence)
        for one in result.alternatives
    ]
    if options.word_times:
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
    result: Result, options: RequestOptions, request_id: riva_common_pb2.RequestId | None
) -> riva_asr_pb2.RecognizeResponse:
    """Return the answer to ``Recognize``."""
    return riva_asr_pb2.RecognizeResponse(
        id=request_id,
        results=[
            riva_asr_pb2.SpeechRecognitionResult(
                alternatives=alternatives(result, options),
                channel_tag=_CHANNEL_TAG,
                audio_processed=result.audio_processed,
            )
        ],
    )


def streaming_result(
    result: Result, options: RequestOptions
) -> riva_asr_pb2.StreamingRecognitionResult:
    """Return one result of a stream."""
    return riva_asr_pb2.StreamingRecognitionResult(
        alternatives=alternatives(result, options),
        is_final=result.is_final,
        stability=_stability(result),
        channel_tag=_CHANNEL_TAG,
        audio_processed=result.audio_processed,
        pipeline_states=_pipeline_states(result),
    )


def _pipeline_states(result: Result) -> riva_asr_pb2.PipelineStates | None:
    if not result.vad_probabilities:
        return None
    return riva_asr_pb2.PipelineStates(vad_probabilities=result.vad_probabilities)


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
