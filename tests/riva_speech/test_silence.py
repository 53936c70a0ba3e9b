"""The silence that is heard before what a client sends, and behind it."""

from __future__ import annotations

import shutil
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import soundfile
import yaml

from riva_speech.archive import open_archive
from riva_speech.asr.loading import PIPELINE_FILE, load_recognizers
from riva_speech.asr.offline import OfflineRecognizer
from riva_speech.asr.pipeline import OFFLINE, ONLINE, PipelineConfig
from riva_speech.asr.streaming import StreamingRecognizer
from riva_speech.errors import DamagedArchiveError
from support.audio import babble
from support.digits import SAID, SAMPLE
from support.programs import run, succeed

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from riva_speech.asr.loading import Recognizer

RATE = 16000
STEP_MS = 80
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


@pytest.fixture(scope="module")
def plain(digits_repository: Path) -> dict[str, Recognizer]:
    """Recognisers that know digits."""
    return {one.config.type: one for one in load_recognizers(digits_repository)}


@pytest.fixture(scope="module")
def led(digits_repository: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Recognizer]:
    """The same with five steps of silence before all they hear."""
    repository = tmp_path_factory.mktemp("led") / "models"
    shutil.copytree(digits_repository, repository)
    for path in repository.rglob(PIPELINE_FILE):
        values = yaml.safe_load(path.read_text())
        path.write_text(yaml.safe_dump(values | {"leading_silence": 5 * STEP_MS / 1000}))
    return {one.config.type: one for one in load_recognizers(repository)}


@pytest.fixture(scope="module")
def speech() -> NDArray[np.float32]:
    """The digits, cut where the first of them begins."""
    samples, _ = soundfile.read(SAMPLE, dtype="float32")
    begin = int(np.flatnonzero(np.abs(samples) > 0.02)[0])
    return np.asarray(samples[begin:], np.float32)


@pytest.mark.parametrize("kind", [OFFLINE, ONLINE])
def test_what_is_heard_begins_with_silence(
    kind: str,
    plain: dict[str, Recognizer],
    led: dict[str, Recognizer],
    speech: NDArray[np.float32],
) -> None:
    """Words and certainty are those of samples behind zeros; times are the samples' own."""
    behind = np.pad(speech, (5 * STEP_MS * RATE // 1000, 0))

    heard = led[kind].recognize(speech)
    expected = plain[kind].recognize(behind)

    assert " ".join(word.text for word in heard.words) == SAID
    assert heard.audio_processed == pytest.approx(len(speech) / RATE)
    moved = [
        (w.text, max(0, w.start_ms - 5 * STEP_MS), w.end_ms - 5 * STEP_MS, w.confidence)
        for w in expected.words
    ]
    assert [tuple(word) for word in heard.words] == moved


def test_a_stream_begins_with_silence_however_it_is_cut(
    led: dict[str, Recognizer], speech: NDArray[np.float32]
) -> None:
    """The silence comes once, before the first sample."""
    recognizer = led[ONLINE]
    assert isinstance(recognizer, StreamingRecognizer)
    stream = recognizer.start_whole()
    stream.accept(speech[:0])
    for piece in np.array_split(speech, 37):
        stream.accept(piece)

    assert stream.finish() == recognizer.recognize(speech)


@pytest.mark.parametrize("kind", [OFFLINE, ONLINE])
def test_nothing_behind_silence_is_nothing(
    kind: str, plain: dict[str, Recognizer], led: dict[str, Recognizer]
) -> None:
    """No samples give no words."""
    nothing = np.zeros(0, np.float32)

    assert led[kind].recognize(nothing) == plain[kind].recognize(nothing)


def test_riva_build_gives_them_to_pipelines(tmp_path: Path, tiny_riva: Path) -> None:
    """Streams are heard out with silence in any case, and begin with as much as was asked for."""
    rmir = tmp_path / "tiny.rmir"
    both = ("--offline", "--streaming=True", "--leading_silence=0.4", "--trailing_silence=0.3")
    succeed(*BUILD, rmir, tiny_riva, *both)

    with open_archive(rmir, kind="rmir") as archive:
        described = [PipelineConfig.from_mapping(one) for one in archive.metadata["pipelines"]]

    assert {one.type: (one.leading_silence, one.trailing_silence) for one in described} == {
        "offline": (0.4, 0.3),
        "online": (0.4, 0.0),
    }


@pytest.mark.parametrize("option", ["leading_silence", "trailing_silence"])
@pytest.mark.parametrize("seconds", ["-0.1", "11", "nan"])
def test_a_silence_that_cannot_be_is_refused(
    tmp_path: Path, tiny_riva: Path, option: str, seconds: str
) -> None:
    """The option says its bounds, and nothing is written."""
    rmir = tmp_path / "tiny.rmir"

    done = run(*BUILD, rmir, tiny_riva, "--offline", f"--{option}={seconds}")

    assert done.returncode == 2
    assert f"--{option}={seconds} is not 0 to 10 s" in done.stderr
    assert not rmir.exists()


def test_silence_that_moves_words_is_whole_steps(tmp_path: Path, tiny_riva: Path) -> None:
    """The times of words are counted in steps."""
    done = run(*BUILD, tmp_path / "tiny.rmir", tiny_riva, "--leading_silence=0.33")

    assert done.returncode == 2
    assert "--leading_silence=0.33 is not a multiple" in done.stderr


@pytest.mark.parametrize("key", ["leading_silence", "trailing_silence"])
@pytest.mark.parametrize("value", [-1, 1e9, float("nan"), "long", None])
def test_a_malformed_silence_is_refused(
    recognizer: OfflineRecognizer, key: str, value: object
) -> None:
    """A hostile archive cannot ask for more than a moment."""
    values = recognizer.config.to_mapping() | {key: value}

    with pytest.raises(DamagedArchiveError):
        PipelineConfig.from_mapping(values)


@pytest.mark.parametrize("key", ["leading_silence", "trailing_silence"])
def test_older_archives_have_none(recognizer: OfflineRecognizer, key: str) -> None:
    """What does not say it is heard as it is."""
    values = recognizer.config.to_mapping()
    del values[key]

    assert getattr(PipelineConfig.from_mapping(values), key) == 0.0
