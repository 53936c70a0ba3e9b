"""Boosted words in a recording that is hard to hear, through the server and its official client."""

from __future__ import annotations

import numpy as np
import pytest
import riva.client

from riva_speech.audio.stream import DeclaredFormat, decode_all
from support.audio import wav
from support.digits import SAID, SAMPLE


@pytest.fixture(params=["offline", "streaming"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def heard(asr: riva.client.ASRService, kind: str, noise: float, **boosts: float) -> str:
    """Return what is heard of the sample behind noise; ``boosts`` name words and their scores."""
    samples = decode_all(SAMPLE.read_bytes(), DeclaredFormat(), 16000)
    samples = samples + np.random.default_rng(1).normal(0, noise, len(samples)).astype(np.float32)
    audio = wav(samples)
    config = riva.client.RecognitionConfig(language_code="en-US")
    for phrase, score in boosts.items():
        riva.client.add_word_boosting_to_config(config, [phrase.replace("_", " ")], score)
    if kind == "offline":
        results = asr.offline_recognize(audio, config).results
    else:
        wanted = riva.client.StreamingRecognitionConfig(config=config, interim_results=False)
        chunks = [audio[at : at + 3200] for at in range(0, len(audio), 3200)]
        answers = asr.streaming_response_generator(chunks, wanted)
        results = [result for answer in answers for result in answer.results]
    return "".join(one.alternatives[0].transcript for one in results if one.alternatives).strip()


def test_a_boosted_phrase_wins_where_noise_hides_it(
    digits_asr: riva.client.ASRService, kind: str
) -> None:
    """What noise made of it gives way to what was said, and other words stay."""
    assert heard(digits_asr, kind, 0.06) == "four one seven four nine seven"
    assert heard(digits_asr, kind, 0.06, two=2.0) == "four one seven two nine seven"
    assert heard(digits_asr, kind, 0.06, two_nine_six=3.0) == SAID


def test_a_suppressed_word_loses_and_a_boost_adds_nothing_to_clear_speech(
    digits_asr: riva.client.ASRService, kind: str
) -> None:
    """A negative boost takes a word away that was heard well; other requests still hear it."""
    without = heard(digits_asr, kind, 0.0, two=-8.0, six=-8.0).split()

    assert not {"two", "six"} & set(without)
    assert without[:3] == ["four", "one", "seven"]
    assert heard(digits_asr, kind, 0.0, eight=2.0, three_zero=2.0) == SAID
    assert heard(digits_asr, kind, 0.0) == SAID
