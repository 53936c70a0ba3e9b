"""From the messages of a request to what this project's own types ask."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from riva.client.proto import riva_audio_pb2

from riva_speech.asr.options import Boost, RequestOptions
from riva_speech.audio.encoding import MONO_ONLY, Encoding
from riva_speech.audio.stream import DeclaredFormat
from riva_speech.server.custom_configuration import RequestError, read_custom
from riva_speech.server.registry import Wanted
from riva_speech.text.hints import classes_in

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from riva.client.proto import riva_asr_pb2

    from riva_speech.asr.pipeline import EndpointingConfig, PipelineConfig
    from riva_speech.server.custom_configuration import Custom

__all__ = ["RequestError", "declared_format", "ends_utterance", "options_of", "wanted_model"]

# Clients that ask for more get this many.
_MOST_ALTERNATIVES = 30
_LARGEST_BOOST = 1000.0
_MOST_PHRASES = 10_000
_MOST_LETTERS = 50_000
_LONGEST_PHRASE = 1000
# Names go back to the client in errors, which travel in headers.
_LONGEST_NAME = 256
# The endpointing of a request, and of a pipeline.
_ENDPOINTING = {
    "start_history": "start_history",
    "start_threshold": "start_th",
    "stop_history": "stop_history",
    "stop_threshold": "stop_th",
    "stop_history_eou": "stop_history_eou",
    "stop_threshold_eou": "stop_th_eou",
}
_FORCE_END = "force_eou"


def wanted_model(config: riva_asr_pb2.RecognitionConfig) -> Wanted:
    """Return what a request says about its model.

    Raises:
        RequestError: A name is too long to be one.
    """
    for field in ("model", "language_code"):
        if len(getattr(config, field)) > _LONGEST_NAME:
            raise RequestError(f"Error: {field} is longer than {_LONGEST_NAME} characters.")
    return Wanted(config.model, config.language_code, config.sample_rate_hertz)


def declared_format(config: riva_asr_pb2.RecognitionConfig) -> DeclaredFormat:
    """Return what a request says about its audio.

    Raises:
        RequestError: It asks for an encoding or for channels that are not supported.
    """
    if config.audio_channel_count < 0:
        raise RequestError(f"Error: invalid audio_channel_count {config.audio_channel_count}.")
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


def options_of(
    config: riva_asr_pb2.RecognitionConfig,
    pipeline: PipelineConfig,
    *,
    classes: Sequence[str] = (),
    interim: bool = False,
) -> RequestOptions:
    """Return what a request asks of a pipeline that has these classes for its phrases.

    ``interim`` stands in a stream's configuration.

    Raises:
        RequestError: A value is out of range, or asks for what there is not.
    """
    if config.diarization_config.enable_speaker_diarization:
        raise RequestError("Error: speaker diarization is not supported: there is no model for it.")
    custom = read_custom(config.custom_configuration, pipeline.language_code)
    boosts = tuple(_boosts(config))
    _check_classes(boosts, pipeline, classes)
    return RequestOptions(
        alternatives=_alternatives(config.max_alternatives),
        interim=interim,
        word_times=config.enable_word_time_offsets,
        verbatim=config.verbatim_transcripts,
        partial_itn=custom.partial_itn,
        punctuation=config.enable_automatic_punctuation,
        profanity_filter=config.profanity_filter,
        boosts=boosts,
        endpointing=_endpointing(config, custom, pipeline.endpointing),
        vad=custom.vad,
        vad_probabilities=custom.vad_probabilities,
    )


def _alternatives(asked: int) -> int:
    if asked < 0:
        raise RequestError(f"Error: invalid max_alternatives {asked}.")
    return min(max(1, asked), _MOST_ALTERNATIVES)


def _boosts(config: riva_asr_pb2.RecognitionConfig) -> Iterator[Boost]:
    letters = sum(len(one) for context in config.speech_contexts for one in context.phrases)
    if letters > _MOST_LETTERS:
        raise RequestError(f"Error: speech_contexts has more than {_MOST_LETTERS} characters.")
    if sum(len(context.phrases) for context in config.speech_contexts) > _MOST_PHRASES:
        raise RequestError(f"Error: speech_contexts has more than {_MOST_PHRASES} phrases.")
    for context in config.speech_contexts:
        # Written so that NaN, which compares as false, is refused too.
        if not abs(context.boost) <= _LARGEST_BOOST:
            raise RequestError(
                f"Error: speech_contexts boost {context.boost:g} is out of range: "
                f"{-_LARGEST_BOOST:g} to {_LARGEST_BOOST:g}."
            )
        for phrase in context.phrases:
            if len(phrase) > _LONGEST_PHRASE:
                raise RequestError(
                    f"Error: a phrase to boost is longer than {_LONGEST_PHRASE} characters."
                )
            if phrase.strip():
                yield Boost(phrase.strip(), context.boost)


def _check_classes(
    boosts: Iterable[Boost], pipeline: PipelineConfig, classes: Sequence[str]
) -> None:
    """Refuse phrases with a class that nothing could write.

    A pipeline whose classes nobody can run here was built to do without: see ``wfst_fallback``.
    """
    if pipeline.text.speech_hints and not classes:
        return
    named = (one for boost in boosts for one in classes_in(boost.phrase))
    unknown = next((one for one in named if one not in classes), None)
    if unknown is None:
        return
    known = f"it has {', '.join(classes)}" if classes else "it was built without speech hints"
    raise RequestError(
        f"Error: a phrase to boost names the class {unknown[:_LONGEST_NAME]}, which the model "
        f"{pipeline.name} does not have: {known}."
    )


def _endpointing(
    config: riva_asr_pb2.RecognitionConfig, custom: Custom, default: EndpointingConfig
) -> EndpointingConfig:
    """Return the endpointing of a request: what it sets, over the pipeline's.

    Clients send -1 for a value they leave alone.
    """
    sent = config.endpointing_config
    given = {
        ours: getattr(sent, theirs)
        for theirs, ours in _ENDPOINTING.items()
        if sent.HasField(theirs) and getattr(sent, theirs) != -1
    }
    if custom.stop_history_eou is not None:
        given.setdefault("stop_history_eou", custom.stop_history_eou)
    try:
        return replace(default, **given)
    except ValueError as error:
        raise RequestError(f"Error: endpointing_config is out of range: {error}.") from error


def ends_utterance(runtime_config: Mapping[str, str]) -> bool:
    """Whether a message of a stream asks to end the utterance now.

    Raises:
        RequestError: It asks for something else.
    """
    if not runtime_config:
        return False
    for key, value in runtime_config.items():
        if key != _FORCE_END:
            raise RequestError(
                f"Error: runtime_config key {key[:_LONGEST_NAME]!r} is not known: {_FORCE_END} is."
            )
        if value.lower() not in ("true", "false"):
            raise RequestError(f"Error: runtime_config {_FORCE_END} is true or false.")
    return runtime_config.get(_FORCE_END, "").lower() == "true"
