"""The model that the distribution brings along, on real recordings of people it never heard."""

from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import riva.client
import soxr

from recipes.word_errors import distance
from riva_speech.asr.ctc import read
from riva_speech.asr.flashlight import FlashlightDecoding
from riva_speech.asr.greedy import GreedyDecoding
from riva_speech.asr.loading import load_recognizers
from riva_speech.asr.options import NOTHING_ASKED
from riva_speech.asr.pipeline import OFFLINE, ONLINE
from riva_speech.audio.stream import DeclaredFormat, decode_all
from riva_speech.servicemaker import agreement
from support.client import offline_text, streamed_text
from support.nemo import nemo_log_probs, restored
from support.programs import serving, succeed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from riva_speech.asr.ctc import Decoding
    from riva_speech.asr.loading import Recognizer

    Recognise = Callable[[riva.client.ASRService, bytes], str]

TESTS = Path(__file__).parents[1]
QUICKSTART = TESTS.parent / "quickstart"
ARCHIVE = QUICKSTART / "artifacts" / "asr_english_en_us.rmir"
SAMPLE = QUICKSTART / "samples" / "en-US_sample.wav"
CHECKPOINT = QUICKSTART.parent / "recipes" / "english" / "english.nemo"
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


def test_minutes_are_understood(repository: Path) -> None:
    """A recording of several windows, the longest that there may be, is heard from end to end."""
    (recognizer,) = [one for one in load_recognizers(repository) if one.config.type == OFFLINE]
    samples = decode_all(SAMPLE.read_bytes(), DeclaredFormat(), 16000)
    count = 150 * 16000 // len(samples)

    heard = greedily(recognizer).recognize(np.tile(samples, count)).transcript.split()

    assert distance(SAID.split() * count, heard) <= 2 * count


def greedily(recognizer: Recognizer) -> Recognizer:
    """Return a pipeline that searches with the language model, without that search."""
    assert isinstance(recognizer.decoding, FlashlightDecoding)
    return replace(recognizer, decoding=GreedyDecoding(recognizer.decoding.vocabulary))


def test_both_pipelines_search_with_the_language_model(repository: Path) -> None:
    """Both decode by words, and the same weights serve greedily: most words are those said."""
    for recognizer in load_recognizers(repository):
        samples = decode_all(SAMPLE.read_bytes(), DeclaredFormat(), 16000)
        heard = greedily(recognizer).recognize(samples).transcript
        assert distance(SAID.split(), heard.split()) <= 2


def variations(samples: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    """Return a recording as it is, noisy, faster and slower."""
    noise = np.random.default_rng(0).normal(0, 0.003, len(samples)).astype(np.float32)
    faster, slower = (soxr.resample(samples, 16000, rate) for rate in (14500, 17500))
    return [samples, samples + noise, faster, slower]


SPEAK_ON = """
import sys
from pathlib import Path

from riva_speech.asr.loading import load_recognizers
from riva_speech.asr.pipeline import ONLINE
from riva_speech.audio.stream import DeclaredFormat, decode_all
from riva_speech.server.memory import give_back
from support.memory import resident

models, sample = map(Path, sys.argv[1:])
(recognizer,) = [one for one in load_recognizers(models) if one.config.type == ONLINE]
samples = decode_all(sample.read_bytes(), DeclaredFormat(), 16000)
streams = [recognizer.start_whole() for _ in range(16)]
for times in (2, 6):
    for stream in streams:
        for _ in range(times):
            stream.accept(samples)
    give_back()
    print(resident())
"""


def test_a_stream_takes_no_more_memory_the_longer_somebody_speaks(repository: Path) -> None:
    """What 9 s without a pause take is nearly all that 37 take; settled late, it was a third."""
    arguments = (str(repository), str(SAMPLE))
    command = [sys.executable, "-c", SPEAK_ON, *arguments]
    done = subprocess.run(command, cwd=TESTS, capture_output=True, text=True, check=True)
    before, after = map(int, done.stdout.split())
    assert (after - before) / 16 < 1 << 19


def test_words_that_are_settled_early_are_those_that_would_be_settled_late(
    repository: Path,
) -> None:
    """A stream of which two readings are wanted has them settled late, and the same words.

    Processors round integers differently: where they do, a word may differ.
    """
    (recognizer,) = [one for one in load_recognizers(repository) if one.config.type == ONLINE]
    early, late = (
        [
            recognizer.recognize(np.tile(samples, 4), replace(NOTHING_ASKED, alternatives=count))
            for samples in variations(decode_all(SAMPLE.read_bytes(), DeclaredFormat(), 16000))
        ]
        for count in (1, 2)
    )

    for one, other in zip(early, late, strict=True):
        assert len(other.alternatives) == 2
        assert distance(one.transcript.split(), other.transcript.split()) <= 1


@pytest.mark.nemo
def test_it_hears_as_its_checkpoint_does_in_nemo(repository: Path) -> None:
    """Rounding to integers changes no more best tokens than a build tolerates, and few words.

    A best token that changes may make two words of one.
    """
    (recognizer,) = [one for one in load_recognizers(repository) if one.config.type == OFFLINE]
    decoding = greedily(recognizer).decoding
    sounds = variations(decode_all(SAMPLE.read_bytes(), DeclaredFormat(), 16000))
    model = restored(CHECKPOINT)
    assert recognizer.config.acoustic.offline_context
    model.encoder.set_default_att_context_size(list(recognizer.config.acoustic.offline_context))

    theirs = [nemo_log_probs(model, samples) for samples in sounds]
    ours = [agreement.encoded(recognizer, samples) for samples in sounds]

    assert agreement.compare(theirs, ours).changed <= agreement.TOLERANCE
    said, heard = ([words(decoding, one) for one in each] for each in (theirs, ours))
    assert all(said)
    assert distance(said[0], heard[0]) <= 2
    assert sum(map(distance, said, heard)) <= 0.1 * sum(map(len, said))


def words(decoding: Decoding, log_probs: NDArray[np.float32]) -> list[str]:
    """Return the words of the best tokens."""
    decoder = decoding.start()
    decoder.accept(read(decoding, decoder, log_probs))
    return [word.text for word in decoder.best().words]


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
