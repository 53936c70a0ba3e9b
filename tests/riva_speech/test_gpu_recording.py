"""Runs on a GPU that are recorded give what plain runs give.

The GPU and ONNX Runtime's sessions on it are stand-ins, which replay as the real ones do.
"""

from __future__ import annotations

import logging
import random
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from riva_speech.asr.cache_aware import StreamingAcousticModel
from riva_speech.asr.gpu_streaming import GpuStreamingModel
from riva_speech.asr.loading import load_recognizers
from riva_speech.batching import BatchLimits
from riva_speech.repository import VERSION, ModelConfig, Tensor
from riva_speech.sessions.opening import GRAPH_FILE
from riva_speech.sessions.recording import recorded_size, recorded_sizes
from support.gpu_at_hand import gpu_at_hand
from support.gpu_runs import RecordingSession

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from riva_speech.asr.cache_aware import EncoderState

MOST = 5


@pytest.fixture(autouse=True)
def _gpu() -> Iterator[None]:
    with gpu_at_hand():
        yield


class Pair:
    """The same streams by a model here and by one whose runs on the GPU are recorded."""

    def __init__(self, repository: Path) -> None:
        self.sessions: list[RecordingSession] = []

        def opened(folder: Path) -> RecordingSession:
            """Open a graph."""
            self.sessions.append(RecordingSession(folder / VERSION / GRAPH_FILE))
            return self.sessions[-1]

        recognizers = load_recognizers(repository, open_session=opened)
        (online,) = (one for one in recognizers if one.config.type == "online")
        assert isinstance(online.acoustic, GpuStreamingModel)
        self.gpu = online.acoustic
        self.bands = online.config.acoustic.features.n_mels
        first, following = self.gpu._first, self.gpu._following
        self.here = StreamingAcousticModel(first, following, self.gpu._config, self.bands)
        self._rng = np.random.default_rng(3)

    @property
    def replayed(self) -> int:
        """How many runs were replayed."""
        return sum(session.runs.replayed for session in self.sessions)

    def start(self, count: int) -> list[tuple[EncoderState, EncoderState]]:
        """Begin streams."""
        return [(self.here.start(), self.gpu.start()) for _ in range(count)]

    def hear(self, chosen: Sequence[tuple[EncoderState, EncoderState]]) -> None:
        """Let some streams, all of which have begun or none, hear a chunk: both hear the same."""
        states, others = [one for one, _ in chosen], [other for _, other in chosen]
        chunks = [self._chunk(self.here.wanted_frames(states[0])) for _ in chosen]
        with (
            self.here.encoding(states, chunks) as expected,
            self.gpu.encoding(others, chunks) as found,
        ):
            for one, other in zip(expected, found, strict=True):
                np.testing.assert_allclose(other, one, atol=1e-4)

    def _chunk(self, frames: int) -> NDArray[np.float32]:
        return self._rng.normal(size=(self.bands, frames)).astype(np.float32)


@pytest.fixture
def pair(tiny_repository: Path) -> Pair:
    return Pair(tiny_repository)


def test_streams_are_heard_alike_by_what_is_replayed(pair: Pair) -> None:
    """Whichever streams share a run, and none of these runs is a plain one."""
    pair.gpu.rehearse(MOST)
    assert pair.replayed == 0
    choice = random.Random(7)
    streams = pair.start(MOST + 2)
    runs = 0

    for _ in range(40):
        began = choice.random() < 0.8
        fit = [one for one in streams if one[0].began == began]
        if fit:
            pair.hear(choice.sample(fit, choice.randint(1, min(MOST, len(fit)))))
            runs += 1

    assert pair.replayed == runs


def test_more_streams_than_were_rehearsed_are_heard_too(pair: Pair) -> None:
    """Their runs are plain ones."""
    pair.gpu.rehearse(2)
    streams = pair.start(MOST)

    pair.hear(streams)
    assert pair.replayed == 0
    pair.hear(streams)
    assert pair.replayed == 0


def test_what_is_recorded_outlasts_a_rest(pair: Pair) -> None:
    """A server that frees memory while nobody speaks replays when somebody does again."""
    pair.gpu.rehearse(MOST)

    pair.gpu.shrink()
    pair.hear(pair.start(3))

    assert pair.replayed == 1


def test_what_is_run_on_tensors_here_is_not_recorded(pair: Pair) -> None:
    """Neither a run whose tensors lie anywhere, nor the one that lets a session's memory shrink."""
    states = [pair.here.start() for _ in range(2)]
    chunk = np.ones((pair.bands, pair.here.wanted_frames(states[0])), np.float32)
    with pair.here.encoding(states, [chunk] * 2):
        pass

    for session in pair.sessions:
        session.shrink()

    assert pair.replayed == 0


def test_a_model_that_cannot_be_recorded_is_run_plainly(
    pair: Pair, caplog: pytest.LogCaptureFixture
) -> None:
    """The log says why, and how long runs take is all that differs."""
    for session in pair.sessions:
        session.runs.refuses = True

    with caplog.at_level(logging.WARNING):
        pair.gpu.rehearse(1)
    streams = pair.start(2)
    pair.hear(streams)
    pair.hear(streams)

    assert "Runs of 1 streams are not recorded" in caplog.text
    assert "at most 32 inputs" in caplog.text


def test_a_gpu_that_is_full_lets_fewer_streams_be_recorded(
    pair: Pair, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rehearsal that does not end well keeps no server from serving."""
    monkeypatch.setenv("STAND_IN_MEMORY", "0")

    with caplog.at_level(logging.WARNING):
        pair.gpu.rehearse(1)

    assert "Runs of 1 streams cannot be recorded" in caplog.text
    assert pair.gpu.live_streams() == 0


def test_runs_that_are_recorded_come_one_at_a_time(pair: Pair) -> None:
    """They are recorded for one place, which a second run at the same time would not have."""
    assert pair.gpu.limits(BatchLimits(runs=2)) == BatchLimits(runs=1)
    assert pair.here.limits(BatchLimits(runs=2)) == BatchLimits(runs=2)


@pytest.mark.parametrize(("frames", "is_one"), [(25, True), (-1, False)])
def test_graphs_of_one_shape_are_known_by_their_configuration(frames: int, *, is_one: bool) -> None:
    """Chunks of streams are of one size; whole utterances are not, and their runs not recorded."""
    heard = Tensor("audio_signal", "FP32", (80, frames))
    length = Tensor("length", "INT64", (1,), per_entry=True)

    assert ModelConfig("model", "onnxruntime", 32, (heard, length), ()).has_one_shape is is_one


@given(st.integers(1, 5000))
def test_sizes_are_few_and_hardly_too_large(count: int) -> None:
    """Each count has one of the sizes, and less than a third of that is in vain."""
    size = recorded_size(count)

    assert count <= size
    assert 3 * (size - count) < size
    assert size in recorded_sizes(count)
    assert recorded_size(size) == size
    assert len(recorded_sizes(count)) <= 2 * count.bit_length()
