from __future__ import annotations

import math
import re
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st
from riva.client.proto import riva_asr_pb2

from riva_speech.asr.loading import load_recognizers
from riva_speech.asr.options import Boost, RequestOptions, VadOptions
from riva_speech.asr.pipeline import TextConfig
from riva_speech.server.custom_configuration import KEYS
from riva_speech.server.requests import (
    RequestError,
    declared_format,
    ends_utterance,
    options_of,
    wanted_model,
)

if TYPE_CHECKING:
    from riva_speech.asr.pipeline import PipelineConfig


@pytest.fixture(scope="module")
def pipeline(tiny_repository: Path) -> PipelineConfig:
    return next(one.config for one in load_recognizers(tiny_repository))


def config(**values: object) -> riva_asr_pb2.RecognitionConfig:
    return riva_asr_pb2.RecognitionConfig(**values)


def test_a_request_that_says_nothing_asks_for_the_defaults(pipeline: PipelineConfig) -> None:
    """The defaults on the wire are those of the options, with the pipeline's endpointing."""
    assert options_of(config(), pipeline, interim=True) == RequestOptions(
        endpointing=pipeline.endpointing
    )


def test_every_field_reaches_the_options(pipeline: PipelineConfig) -> None:
    """What a request sets is what a recogniser is told."""
    asked = options_of(
        config(
            max_alternatives=4,
            profanity_filter=True,
            speech_contexts=[
                {"phrases": ["AntiBERTa", " $MONEY ", ""], "boost": 20},
                {"phrases": ["raps"], "boost": -4},
            ],
            enable_word_time_offsets=True,
            enable_automatic_punctuation=True,
            verbatim_transcripts=True,
            endpointing_config={
                "start_history": 160,
                "start_threshold": 0.5,
                "stop_history": 640,
                "stop_threshold": 0.75,
                "stop_history_eou": 240,
                "stop_threshold_eou": 0.25,
            },
            custom_configuration={
                "enable_vad_endpointing": "true",
                "neural_vad.onset": "0.65",
                "neural_vad.pad_offset": "0.1",
                "get_vad_probabilities": "True",
                "apply_partial_itn": "true",
            },
        ),
        pipeline,
        classes=["$MONEY"],
    )

    assert asked.endpointing
    assert vars(asked.endpointing) == {
        "start_history": 160,
        "start_th": 0.5,
        "stop_history": 640,
        "stop_th": 0.75,
        "stop_history_eou": 240,
        "stop_th_eou": 0.25,
    }
    assert asked == RequestOptions(
        alternatives=4,
        interim=False,
        word_times=True,
        verbatim=True,
        partial_itn=True,
        punctuation=True,
        profanity_filter=True,
        boosts=(Boost("AntiBERTa", 20), Boost("$MONEY", 20), Boost("raps", -4)),
        endpointing=asked.endpointing,
        vad=VadOptions(endpointing=True, onset=0.65, pad_offset=0.1),
        vad_probabilities=True,
    )


def test_minus_one_leaves_endpointing_alone(pipeline: PipelineConfig) -> None:
    """Official clients send -1 for a flag that was not given."""
    minus = dict.fromkeys(("start_history", "stop_history", "stop_history_eou"), -1)
    shares = dict.fromkeys(("start_threshold", "stop_threshold", "stop_threshold_eou"), -1.0)

    asked = options_of(config(endpointing_config={**minus, **shares}), pipeline)

    assert asked.endpointing == pipeline.endpointing


def test_the_first_pass_may_be_set_in_either_place(pipeline: PipelineConfig) -> None:
    """custom_configuration sets its window too; endpointing_config has the last word."""
    custom = {"stop_history_eou": "400"}
    one = options_of(config(custom_configuration=custom), pipeline)
    other = options_of(
        config(custom_configuration=custom, endpointing_config={"stop_history_eou": 80}), pipeline
    )

    assert one.endpointing
    assert one.endpointing.stop_history_eou == 400
    assert other.endpointing
    assert other.endpointing.stop_history_eou == 80


def test_a_phrase_may_name_the_classes_of_its_model(pipeline: PipelineConfig) -> None:
    """Another class is refused with those that there are; an amount of dollars is no class.

    A pipeline with hints that this machine cannot run says what was said, as it was built to.
    """
    hinted = replace(pipeline, text=TextConfig(speech_hints=True))

    def boosted(phrase: str, *classes: str) -> tuple[Boost, ...]:
        contexts = [{"phrases": [phrase], "boost": 1}]
        return options_of(config(speech_contexts=contexts), hinted, classes=classes).boosts

    assert boosted("in $MONTH", "$DAY", "$MONTH") == (Boost("in $MONTH", 1),)
    assert boosted("a $5 $bill", "$DAY")
    assert boosted("in $MONTH")
    with pytest.raises(RequestError, match=r"\$YEAR, .* it has \$DAY, \$MONTH\.$"):
        boosted("in $MONTH $YEAR", "$DAY", "$MONTH")


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"max_alternatives": -1}, "max_alternatives -1"),
        ({"speech_contexts": [{"phrases": ["a"], "boost": math.nan}]}, "boost nan"),
        ({"speech_contexts": [{"phrases": ["a"], "boost": math.inf}]}, "boost inf"),
        ({"speech_contexts": [{"phrases": ["a"], "boost": -1001}]}, "boost -1001"),
        ({"speech_contexts": [{"phrases": ["a" * 1001]}]}, "longer than 1000"),
        ({"speech_contexts": [{"phrases": ["a"] * 10_001}]}, "more than 10000 phrases"),
        ({"speech_contexts": [{"phrases": ["in $TIME"]}]}, "class $TIME, which the model tiny"),
        ({"endpointing_config": {"stop_history": -2}}, "endpointing_config"),
        ({"endpointing_config": {"stop_history": 2**31 - 1}}, "endpointing_config"),
        ({"endpointing_config": {"stop_history_eou": 60_001}}, "endpointing_config"),
        ({"endpointing_config": {"stop_threshold_eou": math.nan}}, "endpointing_config"),
        ({"endpointing_config": {"start_threshold": 1.5}}, "endpointing_config"),
        ({"diarization_config": {"enable_speaker_diarization": True}}, "diarization is not"),
        ({"custom_configuration": {"neural_vad.onset": "2"}}, "a number from 0 to 1"),
        ({"custom_configuration": {"neural_vad.onset": "nan"}}, "a number from 0 to 1"),
        ({"custom_configuration": {"neural_vad.pad_onset": "1e9"}}, "a number from 0 to 60"),
        ({"custom_configuration": {"apply_partial_itn": "yes"}}, "true or false"),
        ({"custom_configuration": {"stop_history_eou": "-5"}}, "milliseconds from 0 to 60000"),
        ({"custom_configuration": {"stop_history_eou": "99999"}}, "a number from 0 to 60000"),
        ({"custom_configuration": {"task": "translate"}}, "no model translates"),
        ({"custom_configuration": {"target_language": "de-DE"}}, "'en-US', the model's language"),
        (
            {"custom_configuration": {"enable_automatic_language_detection": "true"}},
            "each model has one language",
        ),
    ],
)
def test_what_cannot_be_is_told_in_a_sentence(
    pipeline: PipelineConfig, values: dict[str, object], said: str
) -> None:
    """Values out of range, and what there is no model for, are refused by name."""
    with pytest.raises(RequestError) as caught:
        options_of(config(**values), pipeline)

    assert said in str(caught.value)
    assert len(str(caught.value)) < 500


def test_an_unknown_custom_key_is_told_the_known_ones(pipeline: PipelineConfig) -> None:
    """A typing mistake never goes unnoticed."""
    with pytest.raises(RequestError, match="onsett' is not known") as caught:
        options_of(config(custom_configuration={"neural_vad.onsett": "1"}), pipeline)

    assert all(key in str(caught.value) for key in KEYS)


def test_custom_keys_that_ask_for_nothing_new_are_fine(pipeline: PipelineConfig) -> None:
    """Clients of multilingual models name the model's own language and task."""
    same = {
        "source_language": "en-US",
        "target_language": "en-US",
        "task": "transcribe",
        "enable_automatic_language_detection": "false",
    }

    assert options_of(config(custom_configuration=same), pipeline) == options_of(config(), pipeline)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"audio_channel_count": 2}, "Only mono audio supported."),
        ({"enable_separate_recognition_per_channel": True}, "Only mono audio supported."),
        ({"audio_channel_count": -1}, "audio_channel_count -1"),
        ({"sample_rate_hertz": -1}, "sample rate -1"),
        ({"encoding": 99}, "encoding 99"),
    ],
)
def test_formats_that_cannot_be_are_refused(values: dict[str, object], said: str) -> None:
    """More than one channel is refused in the official words."""
    with pytest.raises(RequestError) as caught:
        declared_format(config(**values))

    assert said in str(caught.value)


@pytest.mark.parametrize("field", ["model", "language_code"])
def test_names_have_a_length(field: str) -> None:
    """A name travels back in a header, which must not burst."""
    with pytest.raises(RequestError, match=f"{field} is longer"):
        wanted_model(config(**{field: "x" * 10_000}))


def test_an_utterance_can_be_ended_by_force() -> None:
    """runtime_config has one key; what else it holds is refused by name."""
    assert ends_utterance({"force_eou": "true"})
    assert not ends_utterance({"force_eou": "false"})
    assert not ends_utterance({})
    for wrong in ({"force_eou": "now"}, {"force": "true"}):
        with pytest.raises(RequestError, match="runtime_config"):
            ends_utterance(wrong)


@given(st.binary(max_size=200))
def test_any_bytes_that_parse_are_options_or_an_error(
    pipeline: PipelineConfig, data: bytes
) -> None:
    """Whatever a client sends, a request is understood or refused with a sentence."""
    sent = config()
    with suppress(DecodeError):  # which leaves what was read so far
        sent.ParseFromString(data)
    with suppress(RequestError):
        wanted_model(sent)
        declared_format(sent)
        assert 1 <= options_of(sent, pipeline).alternatives <= 30


API_PAGE = Path(__file__).parents[2] / "docs" / "api.md"
MESSAGES = [
    riva_asr_pb2.RecognitionConfig,
    riva_asr_pb2.StreamingRecognitionConfig,
    riva_asr_pb2.EndpointingConfig,
    riva_asr_pb2.SpeechContext,
    riva_asr_pb2.SpeakerDiarizationConfig,
    riva_asr_pb2.StreamingRecognizeRequest,
    riva_asr_pb2.SpeechRecognitionAlternative,
    riva_asr_pb2.WordInfo,
    riva_asr_pb2.StreamingRecognitionResult,
    riva_asr_pb2.PipelineStates,
]


@pytest.mark.parametrize("message", MESSAGES, ids=lambda one: one.DESCRIPTOR.name)
def test_every_field_is_documented(message: Any) -> None:
    """docs/api.md says of each field that a message has today what it does here."""
    page = API_PAGE.read_text()

    missing = [one.name for one in message.DESCRIPTOR.fields if f"`{one.name}`" not in page]

    assert not missing


def test_every_custom_key_is_documented() -> None:
    """docs/api.md has each key, and no other."""
    section = API_PAGE.read_text().partition("## `custom_configuration`")[2].partition("\n## ")[0]
    cells = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]

    assert {key for cell in cells for key in re.findall("`([^`]+)`", cell)} == set(KEYS)
