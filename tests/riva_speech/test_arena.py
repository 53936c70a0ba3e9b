"""Where streams keep their caches, and how utterances share a run."""

from __future__ import annotations

import resource
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from riva_speech.asr.acoustic import OfflineAcousticModel
from riva_speech.asr.arena import Arena, FreedSlotError, Row
from riva_speech.asr.loading import load_recognizers
from riva_speech.asr.offline import OfflineRecognizer
from riva_speech.asr.options import RequestOptions
from riva_speech.asr.streaming import StreamingRecognizer
from support.audio import babble

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from riva_speech.asr.arena import Slot
    from riva_speech.asr.loading import Recognizer
    from riva_speech.asr.streaming import Step, Stream

ROWS = {"caches": Row((2, 3), np.float32), "length": Row((), np.int64)}
STRIDE, MELS = 4, 3


@pytest.fixture(scope="module")
def recognizers(tiny_repository: Path) -> list[Recognizer]:
    return load_recognizers(tiny_repository)


@pytest.fixture
def streaming(recognizers: list[Recognizer]) -> StreamingRecognizer:
    return next(one for one in recognizers if isinstance(one, StreamingRecognizer))


@pytest.fixture
def offline(recognizers: list[Recognizer]) -> OfflineRecognizer:
    return next(one for one in recognizers if isinstance(one, OfflineRecognizer))


def rows_of(arena: Arena, slots: list[Slot]) -> dict[str, NDArray[Any]]:
    """Return what a run would be given of some slots."""
    with arena.using(slots) as rows:
        return {name: array.copy() for name, array in rows.items()}


@given(st.lists(st.integers(-20, 20), max_size=60))
def test_a_slot_holds_what_was_put_there(actions: list[int]) -> None:
    """New slots are zeros, live ones keep their rows, and memory is that of the live ones.

    A positive number takes a slot and writes it there; another drops one of the live slots.
    """
    arena = Arena(ROWS, block_slots=4)
    live: list[tuple[Slot, int]] = []
    for action in actions:
        if action > 0:
            slot = arena.take()
            assert not rows_of(arena, [slot])["caches"].any()
            arena.scatter(
                [slot], {"caches": np.full((1, 2, 3), action), "length": np.array([action])}
            )
            live.append((slot, action))
            del slot
        elif live:
            del live[action % len(live)]

    assert arena.live == len(live)
    assert arena.capacity <= 4 * (len(live) + 1)
    if live:
        rows = rows_of(arena, [slot for slot, _ in live])
        assert rows["length"].tolist() == [value for _, value in live]
        assert (rows["caches"] == rows["length"][:, None, None]).all()


@given(st.lists(st.integers(0, 9), min_size=1, max_size=12), st.integers(0, 2))
def test_what_is_appended_pushes_out_the_oldest(counts: list[int], axis: int) -> None:
    """A row that is appended to holds its newest entries, in order, along any axis.

    It has room to move on in along the last, and along the first none.
    """
    shape = (8, 8, 8)
    arena = Arena({"heard": Row(shape, np.float32, append_axis=axis)})
    slots = [arena.take(), arena.take()]
    history = np.zeros((2, *shape), np.float32)

    for number, count in enumerate(counts):
        size = tuple(count if one == axis else 8 for one in range(3))
        added = np.random.default_rng(number).normal(size=(2, *size)).astype(np.float32)
        arena.scatter(slots, {"heard": added})
        history = np.concatenate([history, added], axis=axis + 1)

    newest = np.take(history, range(-8, 0), axis=axis + 1)
    np.testing.assert_array_equal(rows_of(arena, slots)["heard"], newest)
    for slot, alone in zip(slots, newest, strict=True):
        np.testing.assert_array_equal(rows_of(arena, [slot])["heard"], [alone])


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 4)), max_size=40))
def test_streams_that_have_moved_on_share_no_memory(actions: list[tuple[int, int]]) -> None:
    """Each has its own newest entries behind zeros, whoever began, went on or ended meanwhile.

    A stream goes on by so many entries; by none, it ends, and another begins in its stead.
    """
    shape = (2, 4, 16)
    arena = Arena({"heard": Row(shape, np.float32, append_axis=2)}, block_slots=2)
    slots = [arena.take() for _ in range(6)]
    expected = np.zeros((6, *shape), np.float32)
    for number, (place, count) in enumerate(actions, 1):
        if count:
            added = np.random.default_rng(number).normal(size=(1, 2, 4, count)).astype("f4")
            with arena.using([slots[place]]):
                arena.scatter([slots[place]], {"heard": added})
            moved = np.concatenate([expected[place], added[0]], axis=2)
            expected[place] = moved[..., count:]
        else:
            slots[place].free()
            slots[place], expected[place] = arena.take(), 0

    np.testing.assert_array_equal(rows_of(arena, slots)["heard"], expected)
    for slot, alone in zip(slots, expected, strict=True):
        np.testing.assert_array_equal(rows_of(arena, [slot])["heard"], [alone])


BROKEN: dict[str, dict[str, Any]] = {
    "an axis more": {"length": np.ones((2, 1))},
    "no axis": {"length": np.array(1)},
    "too few": {"length": np.ones(1)},
    "too many": {"length": np.ones(3)},
    "another size": {"heard": np.ones((2, 3, 3))},
    "an axis less": {"heard": np.ones((2, 3))},
    "what would be repeated": {"heard": np.ones((2, 1, 1))},
    "nothing": {"length": None},
}


@pytest.mark.parametrize("broken", BROKEN)
def test_rows_are_put_all_or_none(broken: str) -> None:
    """Where one of a run's outputs has a wrong shape or is missing, nobody's rows move on."""
    arena = Arena({"heard": Row((2, 3), np.float32, append_axis=1), "length": Row((), np.int64)})
    slots = [arena.take(), arena.take()]
    good = {"heard": np.ones((2, 2, 1)), "length": np.array([4, 5])}
    arena.scatter(slots, good)
    before = rows_of(arena, slots)

    values = {**good, **BROKEN[broken]}
    with pytest.raises((ValueError, KeyError)):
        arena.scatter(slots, {name: one for name, one in values.items() if one is not None})

    for name, rows in rows_of(arena, slots).items():
        np.testing.assert_array_equal(rows, before[name])


def test_an_arena_grows_and_shrinks_in_blocks() -> None:
    """A hundred streams take their blocks, and leave one behind."""
    arena = Arena(ROWS, block_slots=8)
    assert arena.capacity == 0

    slots = [arena.take() for _ in range(100)]
    assert (arena.live, arena.capacity) == (100, 104)

    del slots
    assert (arena.live, arena.capacity) == (0, 8)
    assert arena.row_bytes == 2 * 3 * 4 + 8


def test_a_slot_that_is_freed_during_a_run_stays_out_of_it() -> None:
    """A stream that ends while its step is computed gives its slot to nobody before the end."""
    arena = Arena(ROWS, block_slots=4)
    ending, other = arena.take(), arena.take()
    with arena.using([ending, other]):
        ending.free()
        newcomer = arena.take()
        arena.scatter([ending, other], {"caches": np.ones((2, 2, 3)), "length": np.ones(2)})

    assert not rows_of(arena, [newcomer])["caches"].any()
    assert (newcomer.block, newcomer.index) != (ending.block, ending.index)
    assert arena.live == 2
    with pytest.raises(FreedSlotError), arena.using([other, ending]):
        pass
    assert arena.take().index == ending.index


def test_slots_are_given_on_while_others_are_used() -> None:
    """A run that never seems to end keeps its own slots from new streams, and no others."""
    arena = Arena(ROWS, block_slots=4)
    used, ended = arena.take(), arena.take()
    place = ended.index
    with arena.using([used]):
        ended.free()
        used.free()
        assert arena.take().index == place
    assert arena.live == 0


def test_runs_at_once_have_rows_of_their_own() -> None:
    """What one run gathers is not written over by another; a later one uses its memory again."""
    arena = Arena(ROWS)
    slots = [arena.take() for _ in range(4)]
    arena.scatter(slots, {"caches": np.ones((4, 2, 3)), "length": np.arange(4)})

    with arena.using(slots[:2]) as first, arena.using(slots[2:]) as second:
        assert (first["length"].tolist(), second["length"].tolist()) == ([0, 1], [2, 3])
        assert not np.shares_memory(first["caches"], second["caches"])
    with arena.using(slots[1:3]) as again:
        assert any(np.shares_memory(again["caches"], rows["caches"]) for rows in (first, second))
        assert again["length"].tolist() == [1, 2]


def test_a_run_of_one_stream_reads_its_rows_where_they_lie() -> None:
    """Nothing is copied for it: two runs of one slot see the same memory, in one piece."""
    arena = Arena({"heard": Row((3, 100, 4), np.float32, append_axis=1)})
    slot = arena.take()
    arena.scatter([slot], {"heard": np.ones((1, 3, 2, 4), np.float32)})

    with arena.using([slot]) as first:
        pass
    with arena.using([slot]) as second:
        assert np.shares_memory(first["heard"], second["heard"])
        assert second["heard"].flags.c_contiguous


def test_an_arena_that_shrinks_has_memory_for_its_streams_alone() -> None:
    """Rows of streams stay as they are; what further ones find is zeros again."""
    arena = Arena(ROWS, block_slots=2)
    first, *others = [arena.take() for _ in range(6)]
    values = {"caches": np.full((1, 2, 3), 7), "length": np.array([5])}
    for slot in (first, *others):
        arena.scatter([slot], values)
    rows_of(arena, others)
    del slot, others

    arena.shrink()

    assert arena.capacity == 2
    assert rows_of(arena, [first])["length"].tolist() == [5]
    further = [arena.take() for _ in range(3)]
    assert not rows_of(arena, further)["caches"].any()
    assert rows_of(arena, [first])["caches"].all()
    del first, further
    arena.shrink()
    assert arena.capacity == 0


def test_a_new_stream_s_memory_is_there_before_its_steps() -> None:
    """A step meets no page that is not there yet: each such fault interrupts every core."""
    row = Row((4, 1 << 20), np.uint8)
    arena = Arena({"caches": row})
    slots = [arena.take() for _ in range(3)]
    before = resource.getrusage(resource.RUSAGE_THREAD).ru_minflt
    for slot in slots:
        with arena.using([slot]) as rows:
            assert not rows["caches"].any()
        arena.scatter([slot], {"caches": np.broadcast_to(np.uint8(1), (1, *row.shape))})
    faults = resource.getrusage(resource.RUSAGE_THREAD).ru_minflt - before
    pages = len(slots) * row.size // resource.getpagesize()
    assert faults < pages // 10


def test_a_stream_s_slot_is_free_however_it_ends(streaming: StreamingRecognizer) -> None:
    """Streams that are finished, dropped, or fail with a step under way all leave no slot."""
    before = streaming.live_streams()
    streams = [streaming.start() for _ in range(5)]
    for stream in streams:
        stream.accept(babble(1.0))
    assert streaming.live_streams() == before + 5

    streams.pop().finish()
    step = None
    streams[0].push(babble(1.0))
    step = streams[0].next_step()
    assert step
    del stream, streams
    assert streaming.live_streams() == before + 1
    del step

    assert streaming.live_streams() == before


def test_a_failed_run_moves_no_stream_on(streaming: StreamingRecognizer) -> None:
    """A step whose tokens cannot be read may be computed again: its caches are as they were."""
    samples = babble(2.0)
    expected = streaming.recognize(samples)
    stream = streaming.start(RequestOptions(interim=False))
    stream.push(samples)
    broken = StreamingRecognizer(
        streaming.config, streaming.log_mel, streaming.acoustic, Unreadable(), streaming.results
    )
    while step := stream.next_step():
        with pytest.raises(RuntimeError, match="unreadable"):
            broken.run([step])
        (reading,) = streaming.run([step])
        stream.take(reading)

    assert stream.finish().transcript.split() == expected.transcript.split()


class Unreadable:
    """A decoding that fails."""

    name = "unreadable"

    def start(self, boosts: object = ()) -> Any:
        raise NotImplementedError

    def read(self, carries: object, steps: object) -> Any:
        raise RuntimeError(f"unreadable: {carries} {steps}")


def test_streams_in_one_run_hear_what_each_hears_alone(streaming: StreamingRecognizer) -> None:
    """Streams that begin at different times and share every run give the results of each alone."""
    signals = [babble(1.5 + seed / 3, seed=seed) for seed in range(5)]
    alone = [streaming.recognize(signal) for signal in signals]
    streams = [streaming.start_whole() for _ in signals]
    for stream, signal in zip(streams, signals, strict=True):
        stream.push(signal)
        stream.end()

    begun = 1
    while compute_together(streaming, streams[:begun]) or begun < len(streams):
        begun += 1

    for stream, expected in zip(streams, alone, strict=True):
        found = stream.last()
        assert found.transcript == expected.transcript
        for ours, theirs in zip(found.words, expected.words, strict=True):
            assert (ours.start_ms, ours.end_ms) == (theirs.start_ms, theirs.end_ms)
            assert ours.confidence == pytest.approx(theirs.confidence, abs=1e-4)


def compute_together(streaming: StreamingRecognizer, streams: list[Stream]) -> int:
    """Compute the next step of each stream, one run for each kind; return how many."""
    together: dict[object, list[tuple[Stream, Step]]] = {}
    for stream in streams:
        if step := stream.next_step():
            together.setdefault(streaming.kind(step), []).append((stream, step))
    for batch in together.values():
        readings = streaming.run([step for _, step in batch])
        for (stream, _), reading in zip(batch, readings, strict=True):
            stream.take(reading)
    return sum(map(len, together.values()))


def test_utterances_in_one_run_are_encoded_as_alone(offline: OfflineRecognizer) -> None:
    """A model that masks what utterances are filled up with takes several lengths at once."""
    offline.learn_to_join()
    assert offline.acoustic.padding
    assert offline.acoustic.padding.mixed
    heard = [offline.log_mel(babble(seconds)) for seconds in (1.0, 1.33, 2.0, 0.7)]

    together = offline.run(heard)

    for steps, features in zip(together, heard, strict=True):
        alone = offline.acoustic(features)
        assert steps.shape == alone.shape
        np.testing.assert_allclose(steps, alone, atol=1e-3)


class Graph:
    """A graph that sums up each step's frames, and one way in which it may differ from others."""

    def __init__(self, *, masks: bool = True, most: int = 9, extra: int = 0) -> None:
        self.masks = masks
        self.most = most
        self.extra = extra

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        signal, lengths = inputs["audio_signal"], inputs["length"]
        if len(signal) > self.most:
            raise ValueError(f"a batch of at most {self.most}")
        steps = (signal.shape[2] + self.extra) // STRIDE
        padded = np.pad(signal, ((0, 0), (0, 0), (0, STRIDE)))[:, :, : steps * STRIDE]
        sums = padded.reshape(len(signal), MELS, steps, STRIDE).sum(axis=3).transpose(0, 2, 1)
        if not self.masks:
            sums = sums + signal.shape[2]
        assert len(lengths) == len(signal)
        return {"logprobs": sums.astype(np.float32)}


@pytest.mark.parametrize("extra", range(STRIDE))
def test_how_many_steps_an_utterance_gives_is_found_out(extra: int) -> None:
    """Whatever a graph's rounding, an utterance beside a longer one has the steps it has alone."""
    model = OfflineAcousticModel(Graph(extra=extra))
    model.learn_to_join(STRIDE, MELS)
    assert model.padding
    assert model.padding.mixed

    for length in range(8, 30):
        signal = np.ones((MELS, length), np.float32)
        _, beside = model.encode([np.ones((MELS, 30), np.float32), signal])
        np.testing.assert_allclose(beside, model(signal))


def test_a_graph_that_does_not_mask_takes_one_length_at_once() -> None:
    """Utterances of other lengths would be heard differently, so they do not share its runs."""
    model = OfflineAcousticModel(Graph(masks=False))
    model.learn_to_join(STRIDE, MELS)

    assert model.padding
    assert not model.padding.mixed
    assert model.padding.kind(100) != model.padding.kind(101)
    one, other = np.ones((MELS, 20), np.float32), np.zeros((MELS, 20), np.float32)
    for steps, alone in zip(model.encode([one, other]), map(model, (one, other)), strict=True):
        np.testing.assert_array_equal(steps, alone)


def test_a_graph_of_one_utterance_is_given_one() -> None:
    """A graph that refuses batches is run for each utterance alone."""
    model = OfflineAcousticModel(Graph(most=1))
    model.learn_to_join(STRIDE, MELS)

    assert model.padding is None
    assert len(model.encode([np.ones((MELS, 20), np.float32)] * 3)) == 3
