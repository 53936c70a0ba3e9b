"""Joining what waits for one model into one run.

A ``Batcher`` knows nothing of models: it is given a function that turns a list of items into as
many answers, and calls it from threads of its own. Every item that is submitted is answered or
fails, and nothing that nobody waits for any more is computed.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import deque
from concurrent.futures import Future
from dataclasses import dataclass, field
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from riva_speech.errors import NotReadyError

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Sequence

_log = logging.getLogger(__name__)

_Item = TypeVar("_Item")
_Answer = TypeVar("_Answer")


class BatcherError(Exception):
    """An item was not computed, for a reason that lies not in the item."""


class QueueFullError(BatcherError):
    """As many items wait as may."""


class DeadlinePassedError(BatcherError):
    """The item's turn came after its deadline."""


class BatcherClosedError(BatcherError):
    """The batcher is closed, or its thread has died; the cause is the error's cause."""


class UnavailableError(NotReadyError):
    """Raised by a function that cannot run anything now: its items are not tried one by one."""


@dataclass(frozen=True)
class BatchLimits:
    """How much goes into one run, and how much may wait.

    A run has at most ``max_batch`` items, which cost ``max_cost`` together unless one alone costs
    more. ``delay`` is how many seconds an item waits for company when the model is free. There are
    as many ``runs`` at once; while one computes, an item waits up to ``overlap`` seconds for others
    to fill half of the next one, for many small runs compute longer than few large ones.
    """

    max_batch: int = 32
    max_cost: float = math.inf
    max_waiting: int = 4096
    delay: float = 0.0
    runs: int = 1
    overlap: float = 0.0

    def __post_init__(self) -> None:
        """Refuse, with a ValueError, limits under which nothing would run."""
        if min(self.max_batch, self.max_waiting, self.runs) < 1:
            raise ValueError("a batch, a queue and what runs at once have at least one item")
        # Written so that NaN, which compares as false, is refused too.
        delays = (self.delay, self.overlap)
        if not (self.max_cost > 0 and all(0 <= one < math.inf for one in delays)):
            raise ValueError("costs are above 0, and delays are not negative")


@dataclass
class Traffic:
    """What a batcher has done: runs, the items in them, and the seconds that they took."""

    runs: int = 0
    items: int = 0
    seconds: float = 0.0


@dataclass(eq=False)
class _Entry(Generic[_Item, _Answer]):
    """An item in the queue; nothing of it changes, but a frozen one takes longer to make."""

    item: _Item
    stream: Hashable
    deadline: float
    kind: Hashable
    cost: float
    arrived: float
    due: float
    future: Future[_Answer] = field(default_factory=Future)


def _alike(item: object) -> Hashable:
    del item
    return None


def _unit(item: object) -> float:
    del item
    return 1.0


def _ignore(*_: object) -> None:
    pass


@dataclass(frozen=True)
class Watch:
    """What a batcher's thread calls: ``ran`` after each run, ``ended`` when futures have ended.

    ``ran`` is told how many seconds each of the run's items waited, and how many it took; ``ended``
    which futures have their answers or errors now, all of a run at once. What they raise is logged:
    it is nothing to those who wait.
    """

    ran: Callable[[list[float], float], None] = _ignore
    ended: Callable[[Sequence[Future[Any]]], None] = _ignore


_due = attrgetter("due")


class Batcher(Generic[_Item, _Answer]):
    """Runs a function on what waits: the oldest first, patient items behind less patient ones.

    Items of one run are of one ``kind``, and of different streams: a stream's items are computed
    one after the other, in the order in which they came. If a run fails, its items are tried one by
    one, so that one that cannot be computed harms no other.
    """

    def __init__(
        self,
        run: Callable[[Sequence[_Item]], Sequence[_Answer]],
        limits: BatchLimits | None = None,
        *,
        name: str = "batcher",
        kind: Callable[[_Item], Hashable] = _alike,
        cost: Callable[[_Item], float] = _unit,
        watch: Watch | None = None,
    ) -> None:
        """Start a thread for each run at once; the function is only ever called from these."""
        self.traffic = Traffic()
        self._watch = watch or Watch()
        self._run = run
        self._limits = limits or BatchLimits()
        self._kind = kind
        self._cost = cost
        self._queue: deque[_Entry[_Item, _Answer]] = deque()
        # The streams whose items are being computed.
        self._running: set[Hashable] = set()
        # How many runs there are at this moment.
        self._computing = 0
        self._lock = threading.RLock()
        # What idle threads wait for: each for its own, the last to begin stands last.
        self._idle: list[threading.Condition] = []
        self._closed = False
        self._failure: BaseException | None = None
        self._threads = [
            threading.Thread(target=self._work, name=name, daemon=True)
            for _ in range(self._limits.runs)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def waiting(self) -> int:
        """How many items wait; cancelled ones count until their turn."""
        return len(self._queue)

    def submit(
        self,
        item: _Item,
        *,
        stream: Hashable = None,
        deadline: float = math.inf,
        patience: float = 0.0,
    ) -> Future[_Answer]:
        """Queue an item; return its future, which may be cancelled until its run begins.

        Args:
            item: What the function takes.
            stream: Whose it is; of one stream, one item is in a run. None belongs to none.
            deadline: The ``time.monotonic()`` from which on nobody wants the answer.
            patience: For how many seconds items that come later, and have none, may go before.

        Raises:
            QueueFullError: There are too many already.
            BatcherClosedError: The batcher is closed, or its thread has died.
        """
        now = time.monotonic()
        entry: _Entry[_Item, _Answer] = _Entry(
            item, stream, deadline, self._kind(item), self._cost(item), now, now + patience
        )
        with self._lock:
            if self._closed:
                raise self._closed_error()
            if len(self._queue) >= self._limits.max_waiting:
                raise QueueFullError(f"{len(self._queue)} items wait, and no more may")
            self._queue.append(entry)
            self._wake()
        return entry.future

    def close(self) -> None:
        """Let the runs in progress end, fail what waits, and end the threads."""
        with self._lock:
            self._closed = True
            self._wake_all()
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join()

    def _work(self) -> None:
        """Run batches until closed. However this ends, nobody is left waiting."""
        batch: list[_Entry[_Item, _Answer]] = []
        late: list[_Entry[_Item, _Answer]] = []
        try:
            while True:
                batch, late = self._next_batch()
                if not (batch or late):
                    return
                self._fail(late, DeadlinePassedError("its turn came after its deadline"))
                if batch:
                    self._compute(list(batch))
                    self._release(batch)
                # While it waits for the next one, the thread keeps nothing of this one alive.
                batch, late = [], []
        except BaseException as error:  # noqa: BLE001 - told to everybody who waits
            self._failure = error
        finally:
            with self._lock:
                self._closed = True
                left = [*batch, *late, *self._queue]
                self._queue.clear()
                self._wake_all()
            self._fail(left, self._closed_error())

    def _next_batch(self) -> tuple[list[_Entry[_Item, _Answer]], list[_Entry[_Item, _Answer]]]:
        """Wait for items that somebody wants.

        Return those of the next run and those for which it is too late: none when closed.
        """
        batch: list[_Entry[_Item, _Answer]] = []
        late: list[_Entry[_Item, _Answer]] = []
        with self._lock:
            while not (batch or late):
                while not (self._closed or self._has_turn()):
                    self._wait()
                self._wait_for_company()
                if self._closed:
                    break
                batch, late = self._take()
        return batch, late

    def _wait(self, seconds: float | None = None) -> None:
        """Wait until woken, or so long; the lock is held before and after."""
        mine = threading.Condition(self._lock)
        self._idle.append(mine)
        mine.wait(seconds)
        # One that was woken just as its time was over is not there any more.
        if mine in self._idle:
            self._idle.remove(mine)

    def _wake(self) -> None:
        """Wake the thread that became idle last: its core's caches still hold the most of use."""
        if self._idle:
            self._idle.pop().notify()

    def _wake_all(self) -> None:
        while self._idle:
            self._wake()

    def _has_turn(self) -> bool:
        return any(entry.stream not in self._running for entry in self._queue)

    def _take(self) -> tuple[list[_Entry[_Item, _Answer]], list[_Entry[_Item, _Answer]]]:
        """Take the items of the next run out of the queue, and those for which it is too late.

        They leave it when all the rest is done: whatever fails before finds them there.
        """
        chosen, others = self._choose()
        now = time.monotonic()
        late = [entry for entry in chosen if entry.deadline <= now]
        batch = [entry for entry in chosen if entry.deadline > now and _begin(entry)]
        self._running.update(_streams(batch))
        self._computing += bool(batch)
        if others:
            # What is left may be another thread's.
            self._wake()
        self._queue = others
        return batch, late

    def _release(self, batch: Sequence[_Entry[_Item, _Answer]]) -> None:
        """Let the next items of a run's streams have their turn."""
        with self._lock:
            self._running.difference_update(_streams(batch))
            self._computing -= 1

    def _wait_for_company(self) -> None:
        """Give the oldest item's batch its time to fill up."""
        while not self._closed and (patience := self._longest_wait()):
            free = (entry for entry in self._queue if entry.stream not in self._running)
            oldest = min((entry.arrived for entry in free), default=-math.inf)
            left = oldest + patience - time.monotonic()
            if left <= 0:
                return
            self._wait(left)

    def _longest_wait(self) -> float:
        """Return how long an item waits for company: a full batch does not."""
        if len(self._queue) >= self._limits.max_batch:
            return 0.0
        joins = self._computing and len(self._queue) < self._limits.max_batch // 2
        return max(self._limits.delay, self._limits.overlap if joins else 0.0)

    def _choose(self) -> tuple[list[_Entry[_Item, _Answer]], deque[_Entry[_Item, _Answer]]]:
        """Return the item that is due first with what may be run with it, and all others."""
        chosen: list[_Entry[_Item, _Answer]] = []
        others: deque[_Entry[_Item, _Answer]] = deque()
        streams = set(self._running)
        cost = 0.0
        for entry in sorted(self._queue, key=_due):
            if entry.future.cancelled():
                continue
            fits = not chosen or (
                len(chosen) < self._limits.max_batch
                and entry.kind == chosen[0].kind
                and cost + entry.cost <= self._limits.max_cost
            )
            is_next = entry.stream is None or entry.stream not in streams
            (chosen if fits and is_next else others).append(entry)
            # What comes later of a stream waits, whether this one was chosen or not.
            streams.add(entry.stream)
            cost += entry.cost if fits and is_next else 0.0
        return chosen, others

    def _compute(self, batch: list[_Entry[_Item, _Answer]]) -> None:
        """Answer a run's items, or tell why not; the list is empty then.

        An error keeps the frames that it came through, and those that had called them. So none of
        these refers to a future in the end: one that holds the error would make a circle of all,
        which stays, if nobody takes the error out, until the collector finds it.
        """
        items = [entry.item for entry in batch]
        alone: list[list[_Entry[_Item, _Answer]]] = []
        began = time.monotonic()
        try:
            answers = self._answers(items)
        except Exception as error:  # noqa: BLE001 - told to those who wait
            if len(batch) == 1 or isinstance(error, UnavailableError):
                self._fail(batch, error)
            else:
                alone = [[entry] for entry in batch]
        else:
            self._count(batch, began)
            for entry, answer in zip(batch, answers, strict=True):
                entry.future.set_result(answer)
            self._tell_ended([entry.future for entry in batch])
        batch.clear()
        # Each by itself, after an error that is forgotten: it would be the others' context.
        for one in alone:
            self._compute(one)

    def _answers(self, items: Sequence[_Item]) -> list[_Answer]:
        answers = list(self._run(items))
        if len(answers) != len(items):
            raise RuntimeError(f"{len(items)} items were run, and {len(answers)} answers came")
        return answers

    def _count(self, batch: Sequence[_Entry[_Item, _Answer]], began: float) -> None:
        """Count a run that has ended."""
        took = time.monotonic() - began
        with self._lock:
            self.traffic.runs += 1
            self.traffic.items += len(batch)
            self.traffic.seconds += took
        try:
            self._watch.ran([began - entry.arrived for entry in batch], took)
        except Exception:  # noqa: BLE001 - logged; the items are answered
            _log.exception("A run could not be counted")

    def _tell_ended(self, futures: Sequence[Future[_Answer]]) -> None:
        """Tell that futures have ended, to who watches them."""
        try:
            self._watch.ended(futures)
        except Exception:  # noqa: BLE001 - as above
            _log.exception("It could not be told that %d futures have ended", len(futures))

    def _fail(self, entries: Iterable[_Entry[_Item, _Answer]], error: BaseException) -> None:
        failed = [entry.future for entry in entries if entry.future.running() or _begin(entry)]
        for future in failed:
            future.set_exception(error)
        if failed:
            self._tell_ended(failed)

    def _closed_error(self) -> BatcherClosedError:
        error = BatcherClosedError(
            f"the thread that runs the model has died: {self._failure!r}"
            if self._failure
            else "the model is no longer run"
        )
        error.__cause__ = self._failure
        return error


def _streams(batch: Iterable[_Entry[Any, Any]]) -> set[Hashable]:
    """Return whose items these are; None is nobody, and holds nobody up."""
    return {entry.stream for entry in batch} - {None}


def _begin(entry: _Entry[Any, Any]) -> bool:
    """Mark an item as being computed, which cannot be cancelled; tell whether it is wanted."""
    return not entry.future.done() and entry.future.set_running_or_notify_cancel()
