"""Memory for what a model remembers of each stream.

A cache-aware model has some numbers to keep of a stream from one step to the next. An ``Arena``
keeps them for all streams in arrays whose first dimension is the stream's slot: a run takes the
rows of its streams out, and puts what follows them back. So a stream costs its rows and no more.
"""

from __future__ import annotations

import heapq
import threading
from collections import deque
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import DTypeLike, NDArray

    Arrays = Mapping[str, NDArray[Any]]

_BLOCK_SLOTS = 16


@dataclass(frozen=True)
class Row:
    """What is kept of one stream under one name.

    Where there is an ``append_axis``, an axis of ``shape``, what is put into the row goes behind
    what is there along it and pushes out as much of the oldest; else it replaces the row. Where it
    ``is_split``, each entry of the first axis of ``shape`` is gathered into memory of its own.
    """

    shape: tuple[int, ...]
    dtype: DTypeLike
    append_axis: int | None = None
    is_split: bool = False

    def room(self, count: int) -> NDArray[Any]:
        """Return memory for some rows, [count, *shape]."""
        if not self.is_split:
            return np.empty((count, *self.shape), self.dtype)
        parts, *rest = self.shape
        return np.moveaxis(np.empty((parts, count, *rest), self.dtype), 1, 0)


class FreedSlotError(Exception):
    """A run was asked for with a slot that its stream has given back."""


class Slot:
    """A stream's place. It is free again once it is freed, or nothing refers to it."""

    __slots__ = ("_arena", "begins", "block", "index", "is_free")

    def __init__(self, arena: Arena, block: int, index: int) -> None:
        """Take a place that the arena has chosen."""
        self._arena = arena
        self.block = block
        self.index = index
        self.is_free = False
        # Where the oldest entry of each row that is appended to lies: such rows are rings.
        self.begins: dict[str, int] = {}

    def free(self) -> None:
        """Give the place back; once is enough, and more do no harm."""
        if not self.is_free:
            self.is_free = True
            self._arena.give_back(self.block, self.index)

    def __del__(self) -> None:
        """Give the place back, however the stream has ended."""
        self.free()


class Arena:
    """Rows of zeros for new streams, in blocks that are made when needed and freed when empty.

    Slots may be taken and dropped from any thread; ``scatter`` belongs to a thread that is
    ``using`` the slots. Runs at the same time are of different slots.
    """

    def __init__(self, rows: Mapping[str, Row], block_slots: int = _BLOCK_SLOTS) -> None:
        """Keep such rows; nothing is allocated yet."""
        self._rows = dict(rows)
        self._block_slots = block_slots
        self._blocks: dict[int, dict[str, NDArray[Any]]] = {}
        self._live: dict[int, int] = {}
        # The slots of each block that were ever taken: the others' rows are zeros as they are.
        self._used: dict[int, set[int]] = {}
        self._free: list[tuple[int, int]] = []
        self._given_back: deque[tuple[int, int]] = deque()
        # The slots that runs use at this moment.
        self._busy: set[tuple[int, int]] = set()
        self._lock = threading.Lock()
        # What runs have gathered rows in: fresh memory costs more than the rows' copying.
        self._rooms: list[_Room] = []

    @property
    def row_bytes(self) -> int:
        """What one stream's rows take."""
        return sum(
            int(np.prod(row.shape)) * np.dtype(row.dtype).itemsize for row in self._rows.values()
        )

    @property
    def live(self) -> int:
        """How many slots are taken."""
        with self._lock:
            self._settle()
            return sum(self._live.values()) - len(self._given_back)

    @property
    def capacity(self) -> int:
        """How many slots there is memory for."""
        return len(self._blocks) * self._block_slots

    def take(self) -> Slot:
        """Return a slot whose rows are zeros; the lowest, so that the highest blocks empty."""
        with self._lock:
            self._settle()
            if not self._free:
                self._grow()
            block, index = heapq.heappop(self._free)
            self._live[block] += 1
            if index in self._used[block]:
                for array in self._blocks[block].values():
                    array[index] = 0
            self._used[block].add(index)
        return Slot(self, block, index)

    @contextmanager
    def using(self, slots: Sequence[Slot]) -> Iterator[dict[str, NDArray[Any]]]:
        """Keep slots from being given to others while a run uses them; give their rows.

        A stream may end while its step is computed. What it gives back meanwhile is free only
        after the run: else that would write into what is another stream's by then. The rows are
        copies, [slots, ...] under each name, the oldest first, and the run's only as long as it
        lasts.

        Raises:
            FreedSlotError: One of them is free already.
        """
        with self._lock:
            if any(slot.is_free for slot in slots):
                raise FreedSlotError("the stream has ended")
            places = {(slot.block, slot.index) for slot in slots}
            self._busy |= places
            room = self._rooms.pop() if self._rooms else None
        try:
            if room is None or room.size < len(slots):
                # One that is too small is let go.
                room = _Room(self._rows, len(slots))
            yield self._gather(slots, room)
        finally:
            with self._lock:
                if room is not None:
                    self._rooms.append(room)
                self._busy -= places
                self._settle()

    def give_back(self, block: int, index: int) -> None:
        """Free a slot; for ``Slot`` alone.

        An interpreter may drop an object at any place, that of the lock's holder among them: who
        does not get the lock leaves the rest to the holder.
        """
        self._given_back.append((block, index))
        if self._lock.acquire(blocking=False):
            try:
                self._settle()
            finally:
                self._lock.release()

    def _gather(self, slots: Sequence[Slot], room: _Room) -> dict[str, NDArray[Any]]:
        rows = room.of(len(slots))
        for name, row in self._rows.items():
            for place, slot in enumerate(slots):
                ring, begin = self._row(slot, name), slot.begins.get(name, 0)
                _unroll(ring, begin, row.append_axis, rows[name][place, ...])
        return rows

    def scatter(self, slots: Sequence[Slot], values: Arrays) -> None:
        """Put rows, [slots, ...] under each name, or what is to be appended, into the slots."""
        for name, row in self._rows.items():
            for slot, value in zip(slots, values[name], strict=True):
                if row.append_axis is None:
                    self._blocks[slot.block][name][slot.index] = value
                else:
                    begin = slot.begins.get(name, 0)
                    ring = self._row(slot, name)
                    slot.begins[name] = _append(ring, begin, row.append_axis, value)

    def _row(self, slot: Slot, name: str) -> NDArray[Any]:
        row: NDArray[Any] = self._blocks[slot.block][name][slot.index, ...]
        return row

    def _grow(self) -> None:
        number = next(n for n in range(len(self._blocks) + 1) if n not in self._blocks)
        # Zeros that nobody has written to take no memory yet, and no time.
        self._blocks[number] = {
            name: np.zeros((self._block_slots, *row.shape), row.dtype)
            for name, row in self._rows.items()
        }
        self._live[number] = 0
        self._used[number] = set()
        for index in range(self._block_slots):
            heapq.heappush(self._free, (number, index))

    def _settle(self) -> None:
        """Take up what was given back and no run uses; free blocks that are empty, but for one."""
        for _ in range(len(self._given_back)):
            place = self._given_back.popleft()
            if place in self._busy:
                self._given_back.append(place)
                continue
            self._live[place[0]] -= 1
            heapq.heappush(self._free, place)
        empty = sorted(number for number, live in self._live.items() if not live)
        if len(empty) < 2:  # noqa: PLR2004 - one stays for the next stream
            return
        for number in empty[1:]:
            del self._blocks[number], self._live[number], self._used[number]
        self._free = [place for place in self._free if place[0] in self._blocks]
        heapq.heapify(self._free)


class _Room:
    """Memory for the rows of the streams of one run."""

    def __init__(self, rows: Mapping[str, Row], count: int) -> None:
        # One more often comes soon after one.
        self.size = 1 << (count - 1).bit_length()
        self._arrays = {name: row.room(self.size) for name, row in rows.items()}

    def of(self, count: int) -> dict[str, NDArray[Any]]:
        """Return room for the rows of so many streams, [count, ...] under each name."""
        return {name: array[:count] for name, array in self._arrays.items()}


def _unroll(ring: NDArray[Any], begin: int, axis: int | None, target: NDArray[Any]) -> None:
    """Copy a ring whose oldest entry lies at ``begin`` along an axis, the oldest first."""
    if axis is None or not begin:
        target[...] = ring
        return
    source, ordered = np.moveaxis(ring, axis, 0), np.moveaxis(target, axis, 0)
    ordered[: len(source) - begin] = source[begin:]
    ordered[len(source) - begin :] = source[:begin]


def _append(ring: NDArray[Any], begin: int, axis: int, added: NDArray[Any]) -> int:
    """Write over a ring's oldest entries along an axis; return where the oldest lies then."""
    target, source = np.moveaxis(ring, axis, 0), np.moveaxis(added, axis, 0)
    source = source[-len(target) :]
    first = min(len(source), len(target) - begin)
    target[begin : begin + first] = source[:first]
    target[: len(source) - first] = source[first:]
    return (begin + len(source)) % len(target)
