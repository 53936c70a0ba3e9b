"""RNN-T and TDT against NeMo itself: the same checkpoint must give the same steps and words."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from riva_speech.archive import open_archive
from riva_speech.asr.ctc import read
from support.audio import babble
from support.checkpoints import TRANSDUCERS, save_checkpoint
from support.nemo import (
    BUFFERED_CHUNK,
    BUFFERED_PADDING,
    NO_ENDPOINTING,
    Pair,
    as_nemo_writes,
    hear_in_pieces,
    make_pair,
    nemo_buffered_transducer_text,
    nemo_encoded,
    nemo_stream,
    nemo_texts,
)
from support.programs import succeed
from support.triton_configs import check, configured, models

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

pytestmark = pytest.mark.nemo

TOLERANCE = 1e-3
CACHE_AWARE = [name for name, one in TRANSDUCERS.items() if one.cache_aware]
# NeMo's buffered streaming has no models over characters.
BUFFERED = [name for name, one in TRANSDUCERS.items() if one.bpe and not one.cache_aware]
UTTERANCES = [babble(seconds, seed=seed) for seed, seconds in enumerate((0.7, 2.0, 3.21, 7.6))]


@pytest.fixture(scope="module", params=TRANSDUCERS)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    folder = tmp_path_factory.mktemp(request.param)
    save_checkpoint(TRANSDUCERS[request.param], folder / "model.nemo")
    return make_pair(folder / "model.nemo", folder, head="rnnt")


def test_triton_is_told_what_the_graphs_take(pair: Pair) -> None:
    """Names, types and sizes of every tensor are such as Triton's own backend loads.

    The prediction network and joint leaves batches to its caller, and declares all it takes.
    """
    check(pair.repository)

    joint = [path for path in models(pair.repository) if path.name.endswith("-decoder-joint")]
    assert {configured(path).max_batch_size for path in joint} == {0}


@pytest.mark.parametrize("samples", UTTERANCES, ids=len)
def test_encoder_steps_equal_nemo_s(pair: Pair, samples: NDArray[np.float32]) -> None:
    """What the joint network gets is what NeMo's encoder gives."""
    recognizer = pair.offline()

    steps = recognizer.log_probs(recognizer.log_mel(samples))

    np.testing.assert_allclose(steps, nemo_encoded(pair.nemo, samples), atol=TOLERANCE)


def test_offline_texts_equal_transcribe(pair: Pair, tmp_path: Path) -> None:
    """Greedy decoding finds the words that NeMo's finds."""
    texts = [pair.offline().recognize(samples).transcript for samples in UTTERANCES]

    assert list(map(as_nemo_writes, texts)) == nemo_texts(pair.nemo, UTTERANCES, tmp_path)
    assert any(texts)


def test_a_batch_decodes_as_its_utterances_do(pair: Pair) -> None:
    """Utterances of different lengths, searched together, give the tokens that each gives alone."""
    recognizer = pair.offline()
    search = recognizer.decoding.search  # type: ignore[attr-defined]  # a transducer's
    encoded = [recognizer.log_probs(recognizer.log_mel(samples)) for samples in UTTERANCES]

    together = search.advance(search.start(len(encoded)), encoded)

    for tokens, steps in zip(together, encoded, strict=True):
        (alone,) = search.advance(search.start(), [steps])
        assert tokens.ids.tolist() == alone.ids.tolist()
        assert tokens.steps.tolist() == alone.steps.tolist()
        np.testing.assert_allclose(tokens.probabilities, alone.probabilities, atol=TOLERANCE)


@pytest.mark.parametrize("size", [1, 3, 7, 8, 50])
def test_pieces_decode_as_the_whole_does(pair: Pair, size: int) -> None:
    """However the steps of a stream are grouped, tokens, times and posteriors are the same."""
    recognizer = pair.offline()
    decoding = recognizer.decoding
    steps = recognizer.log_probs(recognizer.log_mel(UTTERANCES[-1]))
    whole, pieces = decoding.start(), decoding.start()
    whole.accept(read(decoding, whole, steps))

    for begin in range(0, len(steps), size):
        piece = read(decoding, pieces, steps[begin : begin + size])
        assert len(piece) == len(piece.blanks) == len(piece.log_probs)
        pieces.accept(piece.cut(0, 1))
        pieces.accept(piece.cut(1, len(piece)))

    expected, found = whole.best().tokens, pieces.best().tokens
    assert found.ids.tolist() == expected.ids.tolist()
    assert found.steps.tolist() == expected.steps.tolist()


def test_streams_are_searched_together_as_alone(pair: Pair) -> None:
    """Streams at different places, read in one search, get the tokens that each gets alone."""
    decoding = pair.offline().decoding
    encoded = [pair.offline().log_probs(pair.offline().log_mel(one)) for one in UTTERANCES]
    decoders = [decoding.start() for _ in encoded]

    for begin in range(0, max(map(len, encoded)), 9):
        going = [i for i, steps in enumerate(encoded) if begin < len(steps)]
        pieces = [encoded[i][begin : begin + 9] for i in going]
        readings = decoding.read([decoders[i].carry for i in going], pieces)
        for i, reading in zip(going, readings, strict=True):
            decoders[i].accept(reading)

    for decoder, steps in zip(decoders, encoded, strict=True):
        alone = decoding.start()
        alone.accept(read(decoding, alone, steps))
        found, expected = decoder.best().tokens, alone.best().tokens
        assert found.ids.tolist() == expected.ids.tolist()
        assert found.steps.tolist() == expected.steps.tolist()


def test_a_checkpoint_is_built_and_checked_on_the_way(tmp_path: Path) -> None:
    """A .nemo in place of a .riva is converted; the conversion says what it found and chose."""
    checkpoint, riva = tmp_path / "model.nemo", tmp_path / "model.riva"
    save_checkpoint(TRANSDUCERS["tdt-offline-bpe"], checkpoint)

    checks = ("--runtime-check", "--validate", "--format", "nemo")
    done = succeed("nemo2riva", checkpoint, "--out", riva, *checks)
    succeed("riva-build", "speech_recognition", tmp_path / "a.rmir", checkpoint, "--offline")
    succeed("riva-build", "speech_recognition", tmp_path / "b.rmir", riva, "--offline")

    assert "Chosen for it: nemo2riva model.nemo --format ONNX" in done.stderr
    assert "8x subsampling (80 ms a step), tdt head, sentencepiece vocabulary" in done.stderr
    assert "model_graph.onnx agrees with NeMo within" in done.stderr
    pipelines = []
    for name in ("a.rmir", "b.rmir"):
        with open_archive(tmp_path / name, kind="rmir") as archive:
            pipelines.append(archive.metadata["pipelines"])
    assert pipelines[0] == pipelines[1]
    assert pipelines[0][0]["decoder"]["type"] == "nemo"


@pytest.mark.parametrize("pair", CACHE_AWARE, indirect=True)
@pytest.mark.parametrize("samples", UTTERANCES, ids=len)
def test_streamed_texts_equal_nemo_s(pair: Pair, samples: NDArray[np.float32]) -> None:
    """What a stream in uneven pieces has heard before its end is how NeMo's text begins."""
    for recognizer in pair.streaming():
        right = recognizer.config.streaming.att_context_size[1]
        _, expected = nemo_stream(pair.nemo, samples, right)
        stream = recognizer.start(NO_ENDPOINTING)

        heard = hear_in_pieces(stream, samples, seed=right)

        assert expected.startswith(as_nemo_writes(heard))


@pytest.mark.parametrize("pair", BUFFERED, indirect=True)
@pytest.mark.parametrize("samples", UTTERANCES, ids=len)
def test_buffered_texts_equal_nemo_s(pair: Pair, samples: NDArray[np.float32]) -> None:
    """A transducer for whole utterances streams in NeMo's buffers, searched one after the other.

    The ends differ as for CTC: NeMo fills its last buffer up with numbers that are no sound.
    """
    (recognizer,) = pair.streaming()
    expected = nemo_buffered_transducer_text(
        pair.nemo, samples, chunk=BUFFERED_CHUNK, padding=BUFFERED_PADDING
    )
    stream = recognizer.start(NO_ENDPOINTING)

    heard = hear_in_pieces(stream, samples, seed=0)

    assert expected.startswith(as_nemo_writes(heard))
    last = stream.finish().transcript
    assert last.startswith(heard)
    # A model with random weights may say so little that all of it comes at the end.
    assert last or len(samples) < 4 * 16000


def test_a_buffered_stream_is_heard_to_its_end(pair: Pair) -> None:
    """Streams of models for whole utterances run too, and their times lie within the audio."""
    for recognizer in pair.streaming():
        if not recognizer.config.is_buffered:
            continue
        result = recognizer.recognize(UTTERANCES[-1])

        ends = [word.end_ms for word in result.words]
        assert ends == sorted(ends)
        assert all(0 <= end <= 7600 for end in ends)
