"""Memory for what a model remembers of each stream.

A cache-aware model has some numbers to keep of a stream from one step to the next. An ``Arena``
keeps them for all streams in arrays whose first dimension is the stream's slot: a run takes the
rows of its streams out, and puts what follows them back. So a stream costs its rows and little
more; and a run of one stream alone is given the rows where they lie.
"""

from __future__ import annotations

import heapq
import math
import mmap
import threading
from collections import deque
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import DTypeLike, NDArray

    Arrays = Mapping[str, NDArray[Any]]

_BLOCK_SLOTS = 16
# Behind a row that is appended to lies memory of its size over this, for it to move on into.
_MARGIN_PART = 64


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

    @cached_property
    def size(self) -> int:
        """How many numbers a row has."""
        return math.prod(self.shape)

    @cached_property
    def margin(self) -> int:
        """How many numbers of memory lie behind it."""
        return 0 if self.append_axis is None else self.size // _MARGIN_PART

    @cached_property
    def lanes(self) -> int:
        """How many pieces its entries along the append axis are cut into by the axes before it."""
        return math.prod(self.shape[: self.append_axis])

    def fits(self, shape: tuple[int, ...]) -> bool:
        """Tell whether a value of that shape may be put: along the append axis, of any size."""
        axis = self.append_axis
        if axis is None or len(shape) != len(self.shape):
            return shape == self.shape
        return (*shape[:axis], self.shape[axis], *shape[axis + 1 :]) == self.shape

    def check(self, name: str, count: int, shape: tuple[int, ...]) -> None:
        """Raise ValueError unless a tensor of a shape has a value for each of ``count`` rows."""
        if shape[:1] != (count,) or not self.fits(shape[1:]):
            raise ValueError(f"{name} of {count} streams is {shape}, not {self.shape} each")

    def room(self, count: int) -> NDArray[Any]:
        """Return memory for some rows, [count, *shape]."""
        if not self.is_split:
            return np.empty((count, *self.shape), self.dtype)
        parts, *rest = self.shape
        return np.moveaxis(np.empty((parts, count, *rest), self.dtype), 1, 0)


class _Kept:
    """What is kept of one stream under one name; ``now`` is what a run is given of it."""

    def __init__(self, row: Row, memory: NDArray[Any]) -> None:
        """Keep it in such memory, [size + margin], of zeros."""
        self._row = row
        self._memory = memory
        self._begin_at(0)

    def clear(self) -> None:
        """Write zeros, even where they are already.

        A page that is read before anything was written to it is one that all share, until the first
        write replaces it and interrupts every core that runs a thread of the server: one by one, in
        the steps that follow.
        """
        self._memory[...] = 0
        self._begin_at(0)

    def put(self, value: NDArray[Any]) -> None:
        """Let a value replace what is there, or go behind it.

        Nothing moves but the place where the row begins: by what is added, so that every entry
        that stays is found where the one before it was. What is pushed out makes room, between two
        lanes that lie one behind the other, for what is added to the first of them.
        """
        if self._row.append_axis is None:
            self.now[...] = value
            return
        lanes = self._row.lanes
        width = self._row.size // lanes
        newest = value.reshape(lanes, value.size // lanes)[:, -width:]
        added = newest.shape[1]
        if added < width:
            self._move_on(added)
        self.now.reshape(lanes, width)[:, width - added :] = newest

    def _move_on(self, step: int) -> None:
        """Begin a step later: at 0 again, where the memory is at an end."""
        begin = self._begin + step
        if begin > self._row.margin:
            left = self._row.size - step
            self._memory[:left] = self._memory[begin : begin + left]
            begin = 0
        self._begin_at(begin)

    def _begin_at(self, begin: int) -> None:
        self._begin = begin
        self.now = self._memory[begin : begin + self._row.size].reshape(self._row.shape)


class FreedSlotError(Exception):
    """A run was asked for with a slot that its stream has given back."""


class Slot:
    """A stream's place. It is free again once it is freed, or nothing refers to it."""

    __slots__ = ("_arena", "block", "index", "is_free", "offsets")

    def __init__(self, arena: Arena, block: int, index: int) -> None:
        """Take a place that the arena has chosen."""
        self._arena = arena
        self.block = block
        self.index = index
        self.is_free = False
        # How far each row on a GPU that is appended to has moved on in its memory.
        self.offsets: dict[str, int] = {}

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
        # What is kept in each slot of a block.
        self._blocks: dict[int, list[dict[str, _Kept]]] = {}
        self._live: dict[int, int] = {}
        self._free: list[tuple[int, int]] = []
        self._given_back: deque[tuple[int, int]] = deque()
        # The slots that runs use at this moment.
        self._busy: set[tuple[int, int]] = set()
        self._lock = threading.Lock()
        # What runs have gathered rows in: fresh memory costs more than the rows' copying.
        self._rooms: list[_Room] = []

    @property
    def row_bytes(self) -> int:
        """What one stream's rows take, without the margins behind them."""
        return sum(row.size * np.dtype(row.dtype).itemsize for row in self._rows.values())

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
            for kept in self._blocks[block][index].values():
                kept.clear()
        return Slot(self, block, index)

    @contextmanager
    def using(self, slots: Sequence[Slot]) -> Iterator[dict[str, NDArray[Any]]]:
        """Keep slots from being given to others while a run uses them; give their rows.

        A stream may end while its step is computed. What it gives back meanwhile is free only
        after the run: else that would write into what is another stream's by then. The rows,
        [slots, ...] under each name, the oldest first, are the run's as long as it lasts, and to be
        read only: those of one slot are the stream's own memory, those of several are copies.

        Raises:
            FreedSlotError: One of them is free already.
        """
        with self._lock:
            if any(slot.is_free for slot in slots):
                raise FreedSlotError("the stream has ended")
            places = {(slot.block, slot.index) for slot in slots}
            self._busy |= places
        try:
            if len(slots) == 1:
                kept = self._kept(slots[0])
                yield {name: one.now[np.newaxis] for name, one in kept.items()}
            else:
                with self._room(len(slots)) as room:
                    self._gather(slots, room)
                    yield room
        finally:
            with self._lock:
                self._busy -= places
                self._settle()

    @contextmanager
    def _room(self, count: int) -> Iterator[dict[str, NDArray[Any]]]:
        """Give memory for the rows of so many slots, which is kept for another run."""
        with self._lock:
            room = self._rooms.pop() if self._rooms else None
        if room is None or room.size < count:
            # One that is too small is let go.
            room = _Room(self._rows, count)
        try:
            yield room.of(count)
        finally:
            with self._lock:
                self._rooms.append(room)

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

    def shrink(self) -> None:
        """Free all memory that no stream and no run uses: what is kept for the next ones."""
        with self._lock:
            self._settle()
            self._drop_empty(keep=0)
            self._rooms.clear()

    def _gather(self, slots: Sequence[Slot], room: dict[str, NDArray[Any]]) -> None:
        for place, slot in enumerate(slots):
            for name, one in self._kept(slot).items():
                room[name][place] = one.now

    def _kept(self, slot: Slot) -> dict[str, _Kept]:
        """Return what is kept of a slot's stream."""
        return self._blocks[slot.block][slot.index]

    def scatter(self, slots: Sequence[Slot], values: Arrays) -> None:
        """Put rows, [slots, ...] under each name, or what is to be appended, into the slots.

        Raises:
            ValueError: One of them has another shape; nothing was put anywhere.
        """
        for name, row in self._rows.items():
            row.check(name, len(slots), values[name].shape)
        for place, slot in enumerate(slots):
            for name, one in self._kept(slot).items():
                one.put(values[name][place])

    def _grow(self) -> int:
        """Make another block, and return its number."""
        number = next(n for n in range(len(self._blocks) + 1) if n not in self._blocks)
        memory = {
            name: _zeros((self._block_slots, row.size + row.margin), row.dtype)
            for name, row in self._rows.items()
        }
        self._blocks[number] = [
            {name: _Kept(row, memory[name][index]) for name, row in self._rows.items()}
            for index in range(self._block_slots)
        ]
        self._live[number] = 0
        for index in range(self._block_slots):
            heapq.heappush(self._free, (number, index))
        return number

    def _settle(self) -> None:
        """Take up what was given back and no run uses; free blocks that are empty, but for one."""
        if not self._given_back:
            return
        for _ in range(len(self._given_back)):
            place = self._given_back.popleft()
            if place in self._busy:
                self._given_back.append(place)
                continue
            self._live[place[0]] -= 1
            heapq.heappush(self._free, place)
        # One stays for the next stream.
        self._drop_empty(keep=1)

    def _drop_empty(self, *, keep: int) -> None:
        """Free the blocks that no stream lies in, but for so many."""
        dropped = sorted(number for number, live in self._live.items() if not live)[keep:]
        for number in dropped:
            del self._blocks[number], self._live[number]
        if dropped:
            self._free = [place for place in self._free if place[0] in self._blocks]
            heapq.heapify(self._free)


def _zeros(shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
    """Return zeros in pages of their own, which take memory once they are written to.

    Those of the C library may be what others have freed, which is filled with zeros at once. Large
    pages are asked for: a stream's caches are hundreds of small ones.
    """
    size = math.prod(shape) * np.dtype(dtype).itemsize
    pages = mmap.mmap(-1, max(size, 1), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    # A kernel may know of no large pages.
    with suppress(OSError):
        pages.madvise(mmap.MADV_HUGEPAGE)
    return np.frombuffer(pages, dtype, math.prod(shape)).reshape(shape)


class _Room:
    """Memory for the rows of the streams of one run."""

    def __init__(self, rows: Mapping[str, Row], count: int) -> None:
        # One more often comes soon after one.
        self.size = 1 << (count - 1).bit_length()
        self._arrays = {name: row.room(self.size) for name, row in rows.items()}

    def of(self, count: int) -> dict[str, NDArray[Any]]:
        """Return room for the rows of so many streams, [count, ...] under each name."""
        return {name: array[:count] for name, array in self._arrays.items()}
