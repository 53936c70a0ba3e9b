"""The silence that whole utterances are heard with behind them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from riva_speech.archive import open_archive
from riva_speech.asr.offline import OfflineRecognizer
from riva_speech.asr.pipeline import OFFLINE, PipelineConfig
from riva_speech.errors import DamagedArchiveError
from support.audio import babble
from support.programs import run, succeed

if TYPE_CHECKING:
    from pathlib import Path

    from riva_speech.asr.loading import Recognizer

RATE = 16000
BUILD = ("riva-build", "speech_recognition")


@pytest.fixture
def recognizer(recognizers: dict[str, Recognizer]) -> OfflineRecognizer:
    """The recogniser for whole utterances."""
    found = recognizers[OFFLINE]
    assert isinstance(found, OfflineRecognizer)
    return found


def silent(recognizer: OfflineRecognizer, seconds: float) -> OfflineRecognizer:
    """Return the same with another silence."""
    return replace(recognizer, config=replace(recognizer.config, trailing_silence=seconds))


def test_an_utterance_is_heard_as_if_silence_followed(recognizer: OfflineRecognizer) -> None:
    """The words and their certainty are those of samples with zeros behind them."""
    samples = babble(2.0)
    padded = np.pad(samples, (0, RATE // 2))

    heard = silent(recognizer, 0.5).recognize(samples)
    expected = recognizer.recognize(padded)

    assert [word.text for word in heard.alternatives[0].words] == [
        w.text for w in expected.alternatives[0].words
    ]
    assert heard.alternatives[0].confidence == expected.alternatives[0].confidence


def test_silence_is_no_audio_of_the_client(recognizer: OfflineRecognizer) -> None:
    """What was processed is what was sent, and no word ends later."""
    samples = babble(2.0)

    heard = silent(recognizer, 5.0).recognize(samples)

    assert heard.audio_processed == 2.0
    assert all(word.end_ms <= 2000 for word in heard.alternatives[0].words)


def test_nothing_followed_by_silence_is_nothing(recognizer: OfflineRecognizer) -> None:
    """No samples give no words."""
    nothing = np.zeros(0, np.float32)

    assert silent(recognizer, 0.5).recognize(nothing) == recognizer.recognize(nothing)


def test_riva_build_gives_it_to_pipelines_for_whole_utterances(
    tmp_path: Path, tiny_riva: Path
) -> None:
    """Streams are heard out with silence in any case."""
    rmir = tmp_path / "tiny.rmir"
    both = ("--offline", "--streaming=True", "--trailing_silence=0.3")
    succeed(*BUILD, rmir, tiny_riva, *both)

    with open_archive(rmir, kind="rmir") as archive:
        described = [PipelineConfig.from_mapping(one) for one in archive.metadata["pipelines"]]

    assert {one.type: one.trailing_silence for one in described} == {"offline": 0.3, "online": 0.0}


@pytest.mark.parametrize("seconds", ["-0.1", "11", "nan"])
def test_a_silence_that_cannot_be_is_refused(tmp_path: Path, tiny_riva: Path, seconds: str) -> None:
    """The option says its bounds, and nothing is written."""
    rmir = tmp_path / "tiny.rmir"

    done = run(*BUILD, rmir, tiny_riva, "--offline", f"--trailing_silence={seconds}")

    assert done.returncode == 2
    assert "0 to 10 s" in done.stderr
    assert not rmir.exists()


@pytest.mark.parametrize("value", [-1, 1e9, float("nan"), "long", None])
def test_a_malformed_silence_is_refused(recognizer: OfflineRecognizer, value: object) -> None:
    """A hostile archive cannot ask for more than a moment."""
    values = recognizer.config.to_mapping() | {"trailing_silence": value}

    with pytest.raises(DamagedArchiveError):
        PipelineConfig.from_mapping(values)


def test_older_archives_have_none(recognizer: OfflineRecognizer) -> None:
    """What does not say it is heard as it is."""
    values = recognizer.config.to_mapping()
    del values["trailing_silence"]

    assert PipelineConfig.from_mapping(values).trailing_silence == 0.0
