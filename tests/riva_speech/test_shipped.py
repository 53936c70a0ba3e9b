"""The model that the distribution brings along, on real recordings of people it never heard."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import riva.client

from recipes.word_errors import distance
from riva_speech.asr.flashlight import FlashlightDecoding
from riva_speech.asr.greedy import GreedyDecoding
from riva_speech.asr.loading import load_recognizers
from riva_speech.audio.stream import DeclaredFormat, decode_all
from support.client import offline_text, streamed_text
from support.programs import serving, succeed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Recognise = Callable[[riva.client.ASRService, bytes], str]

QUICKSTART = Path(__file__).parents[2] / "quickstart"
ARCHIVE = QUICKSTART / "artifacts" / "asr_english_en_us.rmir"
SAMPLE = QUICKSTART / "samples" / "en-US_sample.wav"
SAID = "the lower case being in fact invented in the early middle ages"
LARGEST_ARCHIVE, LARGEST_SAMPLE = 16_000_000, 160_000
WAYS = pytest.mark.parametrize("recognise", [offline_text, streamed_text])


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("english") / "models"
    succeed("riva-deploy", ARCHIVE, folder)
    return folder


@pytest.fixture(scope="module")
def asr(repository: Path) -> Iterator[riva.client.ASRService]:
    with serving(repository, quiet=True) as (uri, _):
        yield riva.client.ASRService(riva.client.Auth(uri=uri))


def test_it_fits_into_the_distribution() -> None:
    """Archive and sample are no larger than a package may carry."""
    assert ARCHIVE.stat().st_size <= LARGEST_ARCHIVE
    assert SAMPLE.stat().st_size <= LARGEST_SAMPLE


@WAYS
def test_the_sample_is_understood(asr: riva.client.ASRService, recognise: Recognise) -> None:
    """The recording that the README transcribes gives its words, both ways.

    Processors round integers differently: where they do, a word may differ.
    """
    assert distance(SAID.split(), recognise(asr, SAMPLE.read_bytes()).split()) <= 2


def test_both_pipelines_search_with_the_language_model(repository: Path) -> None:
    """Both decode by words, and the same weights serve greedily: most words are those said."""
    for recognizer in load_recognizers(repository):
        assert isinstance(recognizer.decoding, FlashlightDecoding)
        greedy = replace(recognizer, decoding=GreedyDecoding(recognizer.decoding.vocabulary))
        samples = decode_all(SAMPLE.read_bytes(), DeclaredFormat(), 16000)
        heard = greedy.recognize(samples).transcript
        assert distance(SAID.split(), heard.split()) <= 2


@pytest.mark.recordings
@WAYS
@pytest.mark.parametrize(
    ("name", "count", "most"), [("ljspeech", 16, 0.35), ("librispeech", 8, 0.45)]
)
def test_strangers_are_understood(
    asr: riva.client.ASRService,
    recordings: Path,
    recognise: Recognise,
    name: str,
    count: int,
    most: float,
) -> None:
    """Of the first recordings of a development list hardly more words are wrong than of all."""
    folder = recordings / "dev" / name
    rows = list(map(json.loads, (folder / "manifest.jsonl").read_text().splitlines()[:count]))
    audio = [(folder / row["audio_filepath"]).read_bytes() for row in rows]
    with ThreadPoolExecutor(2) as pool:
        heard = list(pool.map(lambda one: recognise(asr, one).split(), audio))
    said = [row["text"].split() for row in rows]
    wrong = sum(map(distance, said, heard))
    assert wrong / sum(map(len, said)) <= most
