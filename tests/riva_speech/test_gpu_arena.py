"""An arena on a GPU holds what one here holds, and streams on it are heard alike.

The GPU is a stand-in: its memory is this machine's, and it copies when it is waited for.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from riva_speech.asr.arena import Arena, Row
from riva_speech.asr.cache_aware import StreamingAcousticModel
from riva_speech.asr.gpu_arena import GpuArena
from riva_speech.asr.gpu_streaming import GpuStreamingModel
from riva_speech.asr.loading import load_recognizers
from riva_speech.errors import OutOfResourceError
from riva_speech.repository import VERSION
from riva_speech.sessions.cuda import DeviceTensor, load_runtime
from riva_speech.sessions.opening import GRAPH_FILE
from support.gpu_at_hand import gpu_at_hand
from support.gpu_runs import GpuSession, here, there

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from riva_speech.asr.cache_aware import EncoderState

ROWS = {
    "split": Row((3, 2, 40, 2), np.float32, append_axis=2, is_split=True),
    "appended": Row((2, 70, 3), np.float32, append_axis=1),
    "replaced": Row((4, 3), np.float32),
}
SMALL = {"length": Row((), np.int64)}


@pytest.fixture(scope="module", autouse=True)
def _gpu() -> Iterator[None]:
    with gpu_at_hand():
        yield


def rows_of(kept: dict[str, Any]) -> dict[str, NDArray[Any]]:
    """Return gathered rows as an arena here gives them."""
    return {
        name: value
        if isinstance(value, np.ndarray)
        else here(value)
        if isinstance(value, DeviceTensor)
        else np.stack([here(part) for part in value], axis=1)
        for name, value in kept.items()
    }


def value_for(row: Row, count: int, added: int, rng: np.random.Generator) -> NDArray[Any]:
    shape = list(row.shape)
    if row.append_axis is not None:
        shape[row.append_axis] = added
    return rng.normal(size=(count, *shape)).astype(row.dtype)


@given(seed=st.integers(0, 1 << 30), steps=st.integers(1, 40))
def test_rows_are_those_of_an_arena_here(seed: int, steps: int) -> None:
    """Whatever is taken, put, appended and given back, in runs of any streams."""
    choice, rng = random.Random(seed), np.random.default_rng(seed)
    ours, gpu = Arena({**ROWS, **SMALL}, 4), GpuArena(SMALL, on_gpu=ROWS)
    slots = [(ours.take(), gpu.take()) for _ in range(6)]

    for _ in range(steps):
        chosen = choice.sample(slots, choice.randint(1, len(slots)))
        pairs = ([one for one, _ in chosen], [other for _, other in chosen])
        with ours.using(pairs[0]) as kept, gpu.using(pairs[1]) as kept_there:
            found = rows_of(kept_there)
            for name, rows in kept.items():
                assert np.array_equal(rows, found[name]), name
        added = choice.choice([1, 1, 2, 3, 90])
        values = {
            name: value_for(row, len(chosen), added, rng) for name, row in {**ROWS, **SMALL}.items()
        }
        ours.scatter(pairs[0], values)
        gpu.scatter(pairs[1], {n: there(v) if n in ROWS else v for n, v in values.items()})
        if choice.random() < 0.3:
            for slot in slots.pop(choice.randrange(len(slots))):
                slot.free()
            slots.append((ours.take(), gpu.take()))

    assert gpu.row_bytes == ours.row_bytes
    assert gpu.live == len(slots)


def test_values_of_another_shape_move_nobody_on() -> None:
    """The error names the row, and what was there stays."""
    arena = GpuArena(SMALL, on_gpu=ROWS)
    slots = [arena.take(), arena.take()]
    rng = np.random.default_rng(0)
    values = {name: there(value_for(row, 2, 1, rng)) for name, row in ROWS.items()}
    values["replaced"] = there(np.ones((2, 4, 4), np.float32))

    with pytest.raises(ValueError, match=r"replaced of 2 streams is \(2, 4, 4\)"):
        arena.scatter(slots, {**values, "length": np.zeros(2, np.int64)})

    with arena.using(slots) as kept:
        assert not any(value.any() for value in rows_of(kept).values())


def test_memory_goes_back_once_no_stream_is_left() -> None:
    """`shrink` frees all that streams and runs took of the GPU."""
    arena = GpuArena(SMALL, on_gpu=ROWS)
    before = free()
    slots = [arena.take() for _ in range(40)]
    with arena.using(slots):
        pass
    assert free() < before - 40 * arena.row_bytes

    for slot in slots:
        slot.free()
    arena.shrink()

    assert free() == before


def test_a_gpu_that_is_full_refuses_a_stream_and_serves_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What was allocated for the one that is refused is free again."""
    arena = GpuArena(SMALL, on_gpu=ROWS)
    slots = [arena.take() for _ in range(16)]
    left = free()
    block = 16 * arena.row_bytes
    total = load_runtime().cudaMemGetInfo()[2]
    monkeypatch.setenv("STAND_IN_MEMORY", str(total - left + block // 2))

    with pytest.raises(OutOfResourceError, match="not enough memory"):
        arena.take()

    monkeypatch.setenv("STAND_IN_MEMORY", str(total))
    assert free() == left
    assert arena.live == 16
    with arena.using(slots[:1]) as kept:
        assert len(kept) == len(ROWS) + len(SMALL)


def free() -> int:
    """Return how many bytes the GPU has left."""
    left: int = load_runtime().cudaMemGetInfo()[1]
    return left


def opened(folder: Path) -> GpuSession:
    return GpuSession(folder / VERSION / GRAPH_FILE)


@pytest.fixture(scope="module")
def models(tiny_repository: Path) -> tuple[StreamingAcousticModel, GpuStreamingModel, int]:
    """The same sessions with caches here, and on the GPU; and how many bands they hear."""
    recognizers = load_recognizers(tiny_repository, open_session=opened)
    (online,) = (one for one in recognizers if one.config.type == "online")
    ours = online.acoustic
    assert isinstance(ours, StreamingAcousticModel)
    bands = online.config.acoustic.features.n_mels
    return ours, GpuStreamingModel(ours._first, ours._following, ours._config, bands), bands


def test_streams_are_heard_alike(
    models: tuple[StreamingAcousticModel, GpuStreamingModel, int],
) -> None:
    """Steps of any streams together give the same numbers, bit for bit, and the same caches."""
    ours, gpu, bands = models
    choice, rng = random.Random(5), np.random.default_rng(5)
    streams = [(ours.start(), gpu.start()) for _ in range(7)]

    for _ in range(60):
        began = choice.random() < 0.8
        fit = [pair for pair in streams if pair[0].began == began]
        if fit:
            chosen = choice.sample(fit, choice.randint(1, len(fit)))
            assert_heard_alike(ours, gpu, chosen, bands, rng)

    assert all(state.began for state, _ in streams)
    for state, other in streams:
        ours.end(state)
        gpu.end(other)


def assert_heard_alike(
    ours: StreamingAcousticModel,
    gpu: GpuStreamingModel,
    chosen: Sequence[tuple[EncoderState, EncoderState]],
    bands: int,
    rng: np.random.Generator,
) -> None:
    states, others = [state for state, _ in chosen], [other for _, other in chosen]
    shape = (bands, ours.wanted_frames(states[0]))
    chunks = [rng.normal(size=shape).astype(np.float32) for _ in chosen]
    with ours.encoding(states, chunks) as expected, gpu.encoding(others, chunks) as found:
        for one, other in zip(expected, found, strict=True):
            assert np.array_equal(one, other)
