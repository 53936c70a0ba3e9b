"""A small trained model on real recordings: as good as it claims to be, and the same as in NeMo."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pytest

from recipes.word_errors import distance
from riva_speech.audio.stream import DeclaredFormat, decode_all
from support.audio import wav
from support.client import offline_text, streamed_text
from support.digits import CHECKPOINT, SAID, SAMPLE
from support.nemo import Pair, make_pair, nemo_stream, nemo_texts

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import riva.client
    from numpy.typing import NDArray

# What the model card promises for takes that were never trained on.
LARGEST_WORD_ERROR_RATE = 0.08


@dataclass(frozen=True)
class Take:
    """One recorded digit."""

    path: Path
    text: str

    def samples(self) -> NDArray[np.float32]:
        return decode_all(self.path.read_bytes(), DeclaredFormat(), 16000)


@pytest.fixture(scope="module")
def test_takes(recordings: Path) -> list[Take]:
    folder = recordings / "digits"
    rows = map(json.loads, (folder / "manifest.jsonl").read_text().splitlines())
    return [Take(folder / r["audio_filepath"], r["text"]) for r in rows if r["split"] == "test"]


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return make_pair(CHECKPOINT, tmp_path_factory.mktemp("pair"))


@pytest.mark.parametrize("recognise", [offline_text, streamed_text])
def test_the_sample_is_understood(
    digits_asr: riva.client.ASRService, recognise: Callable[[riva.client.ASRService, bytes], str]
) -> None:
    """The recording that other tests use gives its words, both ways."""
    assert recognise(digits_asr, SAMPLE.read_bytes()).split() == SAID.split()


@pytest.mark.recordings
@pytest.mark.parametrize("recognise", [offline_text, streamed_text])
def test_recordings_are_understood(
    digits_asr: riva.client.ASRService,
    test_takes: list[Take],
    recognise: Callable[[riva.client.ASRService, bytes], str],
) -> None:
    """Through the server, at most 8 % of the words of the test takes are wrong."""
    with ThreadPoolExecutor(4) as pool:
        texts = list(
            pool.map(lambda take: recognise(digits_asr, take.path.read_bytes()), test_takes)
        )

    wrong = sum(
        distance(take.text.split(), text.split())
        for take, text in zip(test_takes, texts, strict=True)
    )
    assert wrong / len(test_takes) <= LARGEST_WORD_ERROR_RATE


@pytest.mark.nemo
@pytest.mark.recordings
def test_whole_recordings_give_nemo_s_words(
    digits_asr: riva.client.ASRService, pair: Pair, test_takes: list[Take], tmp_path: Path
) -> None:
    """For every test take the official client is given what NeMo's transcribe hears."""
    samples = [take.samples() for take in test_takes]

    texts = [offline_text(digits_asr, take.path.read_bytes()).strip() for take in test_takes]

    assert texts == nemo_texts(pair.nemo, samples, tmp_path)


@pytest.fixture(scope="module")
def strings(test_takes: list[Take]) -> list[NDArray[np.float32]]:
    """Strings of five takes.

    A second of silence follows each: NeMo's simulation leaves out what does not fill a last chunk.
    """
    silence = np.zeros(16000, np.float32)
    groups = [test_takes[i : i + 5] for i in range(0, len(test_takes), 5)]
    return [np.concatenate([*(take.samples() for take in group), silence]) for group in groups]


@pytest.mark.nemo
@pytest.mark.recordings
def test_a_client_s_streams_give_nemo_s_words(
    digits_asr: riva.client.ASRService, pair: Pair, strings: list[NDArray[np.float32]]
) -> None:
    """The official client is given the words of NeMo's cache-aware streaming."""
    _, right = pair.nemo.encoder.att_context_size_all[0]

    for samples in strings:
        expected = nemo_stream(pair.nemo, samples, right)[1]
        assert streamed_text(digits_asr, wav(samples)).split() == expected.split()


@pytest.mark.nemo
@pytest.mark.recordings
def test_each_look_ahead_gives_nemo_s_words(pair: Pair, strings: list[NDArray[np.float32]]) -> None:
    """At every look-ahead of the checkpoint, streams have the words of NeMo's streaming."""
    for recognizer in pair.streaming():
        right = recognizer.config.streaming.att_context_size[1]
        ours = [recognizer.recognize(samples).transcript for samples in strings]

        assert ours == [nemo_stream(pair.nemo, one, right)[1] for one in strings]
