"""The engine against NeMo itself: the same checkpoint must give the same numbers and words."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from riva_speech.asr.acoustic import step
from support.audio import babble
from support.checkpoints import ARCHITECTURES, age, save_checkpoint
from support.nemo import (
    BUFFERED_CHUNK,
    BUFFERED_PADDING,
    NO_ENDPOINTING,
    Pair,
    as_nemo_writes,
    deploy,
    hear_in_pieces,
    make_pair,
    nemo_buffered_text,
    nemo_features,
    nemo_log_probs,
    nemo_stream,
    nemo_texts,
)
from support.triton_configs import check

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

pytestmark = pytest.mark.nemo

TOLERANCE = 1e-3
CACHE_AWARE = [name for name, one in ARCHITECTURES.items() if one.cache_aware]
# NeMo's buffered streaming has no models over characters.
BUFFERED = [name for name, one in ARCHITECTURES.items() if not one.cache_aware and one.bpe]
UTTERANCES = [babble(seconds, seed=seed) for seed, seconds in enumerate((0.7, 2.0, 3.21, 7.6))]


@pytest.fixture(scope="module", params=ARCHITECTURES)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    folder = tmp_path_factory.mktemp(request.param)
    save_checkpoint(ARCHITECTURES[request.param], folder / "model.nemo")
    return make_pair(folder / "model.nemo", folder, head="ctc")


def test_triton_is_told_what_the_graphs_take(pair: Pair) -> None:
    """Names, types and sizes of every tensor are such as Triton's own backend loads."""
    check(pair.repository)


@pytest.mark.parametrize("samples", UTTERANCES, ids=len)
def test_features_equal_nemo_s(pair: Pair, samples: NDArray[np.float32]) -> None:
    """The features are those of NeMo's preprocessor, frame for frame."""
    expected = nemo_features(pair.nemo, samples)

    features = pair.offline().log_mel(samples)

    np.testing.assert_allclose(features, expected, atol=TOLERANCE)


@pytest.mark.parametrize("samples", UTTERANCES, ids=len)
def test_offline_log_probabilities_equal_nemo_s(pair: Pair, samples: NDArray[np.float32]) -> None:
    """An offline pipeline's log-probabilities are NeMo's."""
    recognizer = pair.offline()

    log_probs = recognizer.log_probs(recognizer.log_mel(samples))

    np.testing.assert_allclose(log_probs, nemo_log_probs(pair.nemo, samples), atol=TOLERANCE)


def test_offline_texts_equal_transcribe(pair: Pair, tmp_path: Path) -> None:
    """An offline pipeline hears the words that NeMo's transcribe hears."""
    texts = [pair.offline().recognize(samples).transcript for samples in UTTERANCES]

    assert list(map(as_nemo_writes, texts)) == nemo_texts(pair.nemo, UTTERANCES, tmp_path)
    assert all(texts)


@pytest.mark.parametrize("pair", CACHE_AWARE, indirect=True)
@pytest.mark.parametrize("samples", UTTERANCES, ids=len)
def test_streamed_log_probabilities_equal_nemo_s(pair: Pair, samples: NDArray[np.float32]) -> None:
    """Each step of a stream gives the log-probabilities of NeMo's step on the same features."""
    for recognizer in pair.streaming():
        right = recognizer.config.streaming.att_context_size[1]
        expected, _ = nemo_stream(pair.nemo, samples, right)
        # NeMo's simulation streams one frame more: a masked one at the end.
        features = np.pad(recognizer.log_mel(samples), ((0, 0), (0, 1)))
        state, steps = recognizer.acoustic.start(), []

        while features.shape[1]:
            size = recognizer.acoustic.wanted_frames(state)
            steps.append(step(recognizer.acoustic, state, features[:, :size]))
            features = features[:, size:]

        assert len(steps) >= len(expected)
        for ours, theirs in zip(steps, expected, strict=False):
            np.testing.assert_allclose(ours, theirs, atol=TOLERANCE)


@pytest.mark.parametrize("pair", CACHE_AWARE, indirect=True)
@pytest.mark.parametrize("samples", UTTERANCES, ids=len)
def test_streamed_texts_equal_nemo_s(pair: Pair, samples: NDArray[np.float32]) -> None:
    """What a stream in uneven pieces has heard before its end is how NeMo's text begins.

    The ends differ on nonsense: this engine hears a stream out with silence, and NeMo's simulation
    leaves out what does not fill a last chunk. On speech, test_digits.py compares whole texts.
    """
    for recognizer in pair.streaming():
        right = recognizer.config.streaming.att_context_size[1]
        _, expected = nemo_stream(pair.nemo, samples, right)
        rng = np.random.default_rng(right)
        cuts = np.sort(rng.integers(0, len(samples), 20))
        stream, heard = recognizer.start(NO_ENDPOINTING), ""

        for piece in np.split(samples, cuts):
            for result in stream.accept(piece):
                heard = result.transcript

        assert heard
        assert expected.startswith(as_nemo_writes(heard))


@pytest.mark.parametrize("beta", [False, True])
@pytest.mark.parametrize("name", ["quartznet-char", "conformer-offline-char"])
def test_checkpoints_of_nemo_1_are_read(tmp_path: Path, name: str, *, beta: bool) -> None:
    """A checkpoint as older NeMo wrote it gives what the same model gives today."""
    new, old = tmp_path / "new.nemo", tmp_path / "old.nemo"
    save_checkpoint(ARCHITECTURES[name], new)
    age(new, old, beta=beta)
    for folder in ("now", "then"):
        (tmp_path / folder).mkdir()

    now = deploy(new, tmp_path / "now", look_aheads=[])
    then = deploy(old, tmp_path / "then", look_aheads=[])

    for one, other in zip(now, then, strict=True):
        assert one.recognize(UTTERANCES[2]).transcript
        assert one.recognize(UTTERANCES[2]) == other.recognize(UTTERANCES[2])


@pytest.mark.parametrize("pair", BUFFERED, indirect=True)
@pytest.mark.parametrize("samples", UTTERANCES, ids=len)
def test_buffered_texts_equal_nemo_s(pair: Pair, samples: NDArray[np.float32]) -> None:
    """A model for whole utterances streams in overlapping buffers, as in NeMo.

    The ends differ as above: NeMo fills its last buffer up with numbers that are no sound.
    """
    (recognizer,) = pair.streaming()
    expected = nemo_buffered_text(
        pair.nemo, samples, chunk=BUFFERED_CHUNK, padding=BUFFERED_PADDING
    )
    stream = recognizer.start(NO_ENDPOINTING)

    heard = hear_in_pieces(stream, samples, seed=0)

    assert expected.startswith(heard)
    assert stream.finish().transcript.startswith(heard)
