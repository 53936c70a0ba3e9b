"""The batcher alone: what it promises of every item, whatever the function does."""

from __future__ import annotations

import math
import queue
import threading
import time
import weakref
from concurrent.futures import CancelledError, Future
from contextlib import contextmanager
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from riva_speech.batching import (
    Batcher,
    BatcherClosedError,
    BatchLimits,
    DeadlinePassedError,
    QueueFullError,
    UnavailableError,
    Watch,
)
from support.memory import without_collector

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

SECONDS = 60


class Gate:
    """A function that waits at a gate, and notes what it was given."""

    def __init__(self) -> None:
        self.runs: list[list[int]] = []
        self._open = threading.Event()
        self.busy = threading.Event()

    def __call__(self, items: Sequence[int]) -> list[int]:
        """Negative numbers cannot be computed; a run with one fails as a whole."""
        self.busy.set()
        self._open.wait(SECONDS)
        self.runs.append(list(items))
        if any(item < 0 for item in items):
            raise ValueError(f"one of {items}")
        return [item * 2 for item in items]

    def open(self) -> None:
        self._open.set()


@contextmanager
def gated(limits: BatchLimits | None = None, **options: Any) -> Iterator[tuple[Gate, Batcher]]:  # type: ignore[type-arg]  # of integers
    """Give a batcher whose thread is busy with a first item, 0, until the gate is opened."""
    gate = Gate()
    batcher: Batcher[int, int] = Batcher(gate, limits, **options)
    batcher.submit(0)
    assert gate.busy.wait(SECONDS)
    try:
        yield gate, batcher
    finally:
        gate.open()
        batcher.close()


def test_what_waits_is_run_together_the_oldest_first() -> None:
    """Items that arrive during a run share the next ones, in their order."""
    with gated(BatchLimits(max_batch=3)) as (gate, batcher):
        futures = [batcher.submit(item) for item in range(1, 6)]
        gate.open()

        assert [future.result(SECONDS) for future in futures] == [2, 4, 6, 8, 10]
    assert gate.runs == [[0], [1, 2, 3], [4, 5]]
    assert (batcher.traffic.runs, batcher.traffic.items) == (3, 6)


def test_patient_items_let_later_ones_go_first() -> None:
    """They wait no longer than their patience: what comes after that goes behind them."""
    with gated(BatchLimits(max_batch=1)) as (gate, batcher):
        futures = [
            batcher.submit(item, patience=patience)
            for item, patience in ((1, 1000.0), (2, 0.0), (3, 2000.0), (4, 0.0))
        ]
        gate.open()
        for future in futures:
            future.result(SECONDS)

    assert gate.runs == [[0], [2], [4], [1], [3]]


def test_futures_of_one_run_are_told_of_together() -> None:
    """Whether they have answers or errors: once they have ended, and each once."""
    told: list[list[Future[int]]] = []
    with gated(watch=Watch(ended=lambda futures: told.append(list(futures)))) as (gate, batcher):
        good = [batcher.submit(item) for item in (1, 2)]
        late = batcher.submit(3, deadline=time.monotonic() - 1)
        gate.open()
        for future in (*good, late):
            future.exception(SECONDS)

    assert told[1:] == [[late], good]
    assert all(future.done() for futures in told for future in futures)


@pytest.mark.parametrize("fault", [ValueError, SystemExit])
def test_a_watcher_that_fails_leaves_nobody_waiting(fault: type[BaseException]) -> None:
    """Neither who was taken with those that it is told of; an error of its own harms none."""

    def fail_of_late(futures: Sequence[Future[int]]) -> None:
        if isinstance(futures[0].exception(), DeadlinePassedError):
            raise fault

    with gated(watch=Watch(ended=fail_of_late)) as (gate, batcher):
        late = batcher.submit(1, deadline=time.monotonic() - 1)
        good = [batcher.submit(item) for item in (2, 3)]
        gate.open()

        assert isinstance(late.exception(SECONDS), DeadlinePassedError)
        if fault is ValueError:
            assert [future.result(SECONDS) for future in good] == [4, 6]
        else:
            errors = [future.exception(SECONDS) for future in good]
            assert list(map(type, errors)) == [BatcherClosedError] * 2


def test_a_run_that_cannot_be_counted_is_made_once() -> None:
    """Its items have been heard: a stream's must not be heard again."""

    def fail(*_: object) -> None:
        raise ValueError("a counter's")

    with gated(watch=Watch(ran=fail)) as (gate, batcher):
        futures = [batcher.submit(item) for item in (1, 2)]
        gate.open()

        assert [future.result(SECONDS) for future in futures] == [2, 4]
    assert gate.runs == [[0], [1, 2]]


def test_a_fault_of_the_handing_over_leaves_nobody_waiting() -> None:
    """Who is chosen for a run is told, too, when the thread ends before there is one."""
    with gated() as (gate, batcher):
        futures = [batcher.submit(item) for item in (1, 2)]
        # Only the batcher may do that: it cannot begin this one.
        futures[1].set_running_or_notify_cancel()
        gate.open()

        for future in futures:
            with pytest.raises(BatcherClosedError, match="has died"):
                future.result(SECONDS)


def test_a_stream_has_one_item_in_a_run() -> None:
    """A stream that sends faster than the others holds nobody up, and keeps its order."""
    with gated() as (gate, batcher):
        futures = [
            batcher.submit(item, stream=stream)
            for item, stream in ((1, "a"), (2, "a"), (3, "b"), (4, "a"))
        ]
        gate.open()
        for future in futures:
            future.result(SECONDS)

    assert gate.runs == [[0], [1, 3], [2], [4]]


def test_runs_at_once_are_of_different_streams() -> None:
    """Two runs meet, and a stream's next item waits for the one before, whoever else is free."""
    meeting, order = threading.Barrier(2), []

    def run(items: Sequence[int]) -> Sequence[int]:
        if items[0] < 10:
            meeting.wait(SECONDS)
        order.append(items[0])
        return items

    batcher: Batcher[int, int] = Batcher(run, BatchLimits(max_batch=1, runs=2))
    futures = [
        batcher.submit(item, stream=stream) for item, stream in ((1, "a"), (11, "a"), (2, "b"))
    ]

    assert [future.result(SECONDS) for future in futures] == [1, 11, 2]
    batcher.close()
    assert order.index(1) < order.index(11)


def test_only_items_of_one_kind_share_a_run() -> None:
    """The oldest item decides what is run; a later item of its stream waits behind it."""
    with gated(kind=lambda item: item % 2) as (gate, batcher):
        futures = [
            batcher.submit(item, stream=stream)
            for item, stream in ((1, "a"), (2, "b"), (3, "b"), (5, "c"))
        ]
        gate.open()
        for future in futures:
            future.result(SECONDS)

    assert gate.runs == [[0], [1, 5], [2], [3]]


def test_a_run_costs_no_more_than_it_may() -> None:
    """Items join while their cost allows it; one that alone costs more runs alone."""
    with gated(BatchLimits(max_cost=10), cost=float) as (gate, batcher):
        futures = [batcher.submit(item) for item in (20, 6, 4, 1)]
        gate.open()
        for future in futures:
            future.result(SECONDS)

    assert gate.runs == [[0], [20], [6, 4], [1]]


def test_one_broken_item_harms_no_other() -> None:
    """When a run fails, each of its items gets what it gives alone."""
    with gated() as (gate, batcher):
        good, bad, other = (batcher.submit(item) for item in (1, -1, 2))
        gate.open()

        assert (good.result(SECONDS), other.result(SECONDS)) == (2, 4)
        with pytest.raises(ValueError, match=r"one of \[-1\]"):
            bad.result(SECONDS)


def test_what_is_unavailable_is_not_tried_one_by_one() -> None:
    """An error that is no item's fault is told to all at once."""
    runs = []

    def away(items: Sequence[int]) -> list[int]:
        runs.append(len(items))
        raise UnavailableError("the server is away")

    batcher: Batcher[int, int] = Batcher(away, BatchLimits(delay=SECONDS, max_batch=5))
    futures = [batcher.submit(item) for item in range(5)]

    for future in futures:
        with pytest.raises(UnavailableError, match="away"):
            future.result(SECONDS)
    batcher.close()
    assert runs == [5]


def test_cancelled_items_and_late_ones_are_not_computed() -> None:
    """Nobody's answer is not worked out, and a passed deadline is said."""
    with gated() as (gate, batcher):
        cancelled = batcher.submit(1)
        late = batcher.submit(2, deadline=time.monotonic() - 1)
        wanted = batcher.submit(3, deadline=time.monotonic() + 100)
        assert cancelled.cancel()
        gate.open()

        assert wanted.result(SECONDS) == 6
        with pytest.raises(DeadlinePassedError):
            late.result(SECONDS)
        with pytest.raises(CancelledError):
            cancelled.result(SECONDS)
    assert gate.runs == [[0], [3]]


class Thing:
    """An item that can be watched."""


def test_a_thread_that_waits_keeps_no_item_alive() -> None:
    """Items that were computed, failed, cancelled or late are gone when their futures are."""
    gate = threading.Event()

    def run(items: Sequence[Thing]) -> list[None]:
        gate.wait(SECONDS)
        return [None] * len(items)

    batcher: Batcher[Thing, None] = Batcher(run, BatchLimits(max_batch=1))
    futures = [
        batcher.submit(Thing(), deadline=deadline)
        for deadline in (math.inf, time.monotonic() - 1, math.inf)
    ]
    things = [weakref.ref(Thing())]
    for deadline in (math.inf, math.inf):
        thing = Thing()
        things.append(weakref.ref(thing))
        futures.append(batcher.submit(thing, deadline=deadline))
        del thing
    for future in futures[-2:]:
        assert future.cancel()
    gate.set()
    for future in futures[:3]:
        future.exception(SECONDS)
    del future, futures

    deadline = time.monotonic() + SECONDS
    while any(thing() for thing in things) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not any(thing() for thing in things)
    batcher.close()


@pytest.mark.parametrize("error", [ValueError, UnavailableError])
@pytest.mark.parametrize("count", [1, 3])
def test_what_failed_is_gone_without_the_collector(error: type[Exception], count: int) -> None:
    """Nobody may want to know why: an item that has failed lives no longer than its future."""

    def fail(items: Sequence[Thing]) -> list[None]:
        raise error(len(items))

    batcher: Batcher[Thing, None] = Batcher(fail, BatchLimits(max_batch=count, delay=SECONDS))
    things = [Thing() for _ in range(count)]
    watched = [weakref.ref(thing) for thing in things]
    with without_collector():
        futures = [batcher.submit(thing) for thing in things]
        for future in futures:
            assert isinstance(future.exception(SECONDS), error)
        things.clear()
        # The loops' variables, too.
        del futures, future

        until = time.monotonic() + SECONDS / 10
        while any(thing() for thing in watched) and time.monotonic() < until:
            time.sleep(0.01)
        assert not any(thing() for thing in watched)
    batcher.close()


def test_a_full_queue_refuses_at_once() -> None:
    """The queue is bounded, and has room again after a run."""
    with gated(BatchLimits(max_waiting=2)) as (gate, batcher):
        futures = [batcher.submit(item) for item in (1, 2)]
        assert batcher.waiting == 2
        with pytest.raises(QueueFullError):
            batcher.submit(3)
        gate.open()
        for future in futures:
            future.result(SECONDS)

        assert batcher.submit(3).result(SECONDS) == 6


def test_items_wait_for_company_when_they_are_told_to() -> None:
    """A delay fills batches; a full one does not wait."""
    gate = Gate()
    gate.open()
    batcher: Batcher[int, int] = Batcher(gate, BatchLimits(max_batch=2, delay=SECONDS))

    futures = [batcher.submit(item) for item in (1, 2)]

    assert [future.result(SECONDS / 2) for future in futures] == [2, 4]
    assert gate.runs == [[1, 2]]
    batcher.close()


class Runs:
    """A function whose runs begin, are counted, and end once they are let go."""

    def __init__(self) -> None:
        self.begun: queue.Queue[list[int]] = queue.Queue()
        self.let_go = threading.Event()

    def __call__(self, items: Sequence[int]) -> list[int]:
        self.begun.put(list(items))
        self.let_go.wait(SECONDS)
        return list(items)


@pytest.mark.parametrize(
    ("overlap", "waiting"),
    [(SECONDS, 3), (SECONDS, 4), (0.0, 1)],
    ids=["too few wait for the run's end", "half a batch is enough", "nobody is told to wait"],
)
def test_what_comes_during_a_run_waits_for_company(overlap: float, waiting: int) -> None:
    """Beside a run another one begins with half a batch, or once an item has waited long enough."""
    runs, joined = Runs(), waiting >= 4 or not overlap
    limits = BatchLimits(max_batch=8, runs=2, overlap=overlap)
    batcher: Batcher[int, int] = Batcher(runs, limits)
    futures = [batcher.submit(0)]
    assert runs.begun.get(timeout=SECONDS) == [0]

    futures += [batcher.submit(item) for item in range(1, 1 + waiting)]
    if joined:
        assert runs.begun.get(timeout=SECONDS)[0] == 1
    else:
        with pytest.raises(queue.Empty):
            runs.begun.get(timeout=0.2)
    runs.let_go.set()

    assert [future.result(SECONDS) for future in futures] == list(range(1 + waiting))
    if not joined:
        assert runs.begun.get(timeout=SECONDS) == list(range(1, 1 + waiting))
    batcher.close()


def test_closing_fails_what_waits() -> None:
    """A closed batcher ends the run in progress, leaves nobody waiting, and takes no more."""
    with gated() as (gate, batcher):
        waiting = batcher.submit(1)
        closer = threading.Thread(target=batcher.close)
        closer.start()
        until = time.monotonic() + SECONDS
        while not batcher._closed and time.monotonic() < until:
            time.sleep(0.01)
        gate.open()
        closer.join(SECONDS)

        with pytest.raises(BatcherClosedError, match="no longer run"):
            waiting.result(SECONDS)
        with pytest.raises(BatcherClosedError):
            batcher.submit(2)


def test_a_dead_thread_is_an_error_for_all() -> None:
    """Whatever ends the thread, those in the run, those behind it and later ones are told."""

    all_wait = threading.Event()

    def die(items: Sequence[int]) -> list[int]:
        all_wait.wait(SECONDS)
        raise SystemExit(len(items))

    batcher: Batcher[int, int] = Batcher(die, BatchLimits(max_batch=1))
    futures = [batcher.submit(item) for item in (1, 2)]
    all_wait.set()

    for future in futures:
        with pytest.raises(BatcherClosedError, match="has died: SystemExit"):
            future.result(SECONDS)
    with pytest.raises(BatcherClosedError):
        batcher.submit(3)


def test_too_few_answers_are_an_error() -> None:
    """A function that forgets an item fails it, and nobody waits for ever."""
    batcher: Batcher[int, int] = Batcher(lambda items: list(items)[1:])

    with pytest.raises(RuntimeError, match="1 items were run, and 0 answers came"):
        batcher.submit(1).result(SECONDS)
    batcher.close()


@pytest.mark.parametrize(
    "values",
    [
        {"max_batch": 0},
        {"max_waiting": 0},
        {"runs": 0},
        {"delay": -1.0},
        {"overlap": -1.0},
        {"max_cost": math.nan},
    ],
)
def test_limits_under_which_nothing_runs_are_refused(values: dict[str, float]) -> None:
    """Impossible limits are an error where they are made."""
    with pytest.raises(ValueError, match=r"at least one item|above 0"):
        BatchLimits(**values)  # type: ignore[arg-type]  # wrong on purpose


@settings(deadline=None, max_examples=60)
@given(
    items=st.lists(
        st.tuples(st.integers(-2, 9), st.integers(0, 3), st.booleans(), st.booleans()), max_size=30
    ),
    most=st.integers(1, 6),
)
def test_every_item_ends(items: list[tuple[int, int, bool, bool]], most: int) -> None:
    """Whatever fails, is late or is cancelled: each item has its answer, its error or its end."""
    with gated(BatchLimits(max_batch=most), kind=lambda item: item % 3) as (gate, batcher):
        submitted = []
        for item, stream, cancelled, late in items:
            deadline = time.monotonic() + (-1 if late else 1000)
            future = batcher.submit(item, stream=stream or None, deadline=deadline)
            submitted.append((item, stream, future, late))
            if cancelled:
                assert future.cancel()
        gate.open()
        ended = [future.exception(SECONDS) for *_, future, _ in submitted if not future.cancelled()]
        kept = [one for one in submitted if not one[2].cancelled()]

    for (item, _, future, late), error in zip(kept, ended, strict=True):
        if late:
            assert isinstance(error, DeadlinePassedError)
        elif item < 0:
            assert isinstance(error, ValueError)
        else:
            assert future.result(0) == item * 2
    assert all(len(run) <= most for run in gate.runs)
    good = [run for run in gate.runs if min(run) >= 0]
    for stream in (1, 2, 3):
        sent = [item for item, its, _, late in kept if its == stream and item >= 0 and not late]
        order = [item for run in good for item in run]
        assert _is_subsequence(sent, order)


@settings(deadline=None, max_examples=30)
@given(
    items=st.lists(st.tuples(st.integers(-2, 9), st.integers(0, 3)), max_size=30),
    runs=st.integers(2, 3),
)
def test_every_item_ends_in_one_of_several_runs(items: list[tuple[int, int]], runs: int) -> None:
    """Each item has its answer or its error, and each stream's are computed in their order."""
    gate = Gate()
    gate.open()
    limits = BatchLimits(max_batch=2, runs=runs)
    batcher: Batcher[int, int] = Batcher(gate, limits, kind=lambda item: item % 3)
    futures = [batcher.submit(item, stream=stream or None) for item, stream in items]
    errors = [future.exception(SECONDS) for future in futures]
    batcher.close()

    for (item, _), future, error in zip(items, futures, errors, strict=True):
        assert isinstance(error, ValueError) if item < 0 else future.result(0) == item * 2
    order = [item for run in gate.runs if min(run) >= 0 for item in run]
    for stream in (1, 2, 3):
        assert _is_subsequence([item for item, its in items if its == stream and item >= 0], order)


def _is_subsequence(part: list[int], whole: list[int]) -> bool:
    rest = iter(whole)
    return all(item in rest for item in part)


def test_what_comes_alone_is_run_by_the_thread_that_ran_last() -> None:
    """Its core's caches are warm: idle threads do not take turns."""
    runs = 20
    batcher: Batcher[int, int] = Batcher(
        lambda items: [threading.get_ident() for _ in items], BatchLimits(runs=2)
    )
    ran_by = []
    for item in range(runs):
        ran_by.append(batcher.submit(item).result(SECONDS))
        time.sleep(0.01)
    batcher.close()
    assert sum(one != before for before, one in pairwise(ran_by)) < runs / 2
