"""An arena whose large rows stay in the memory of a GPU.

What a model remembers of a stream is megabytes, which would travel to the GPU and back at every
step. Here it is gathered and put where it is; what is small stays with the processor, as in
``Arena``.
"""

from __future__ import annotations

import math
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from riva_speech.asr.arena import Arena
from riva_speech.sessions.cuda import Buffer, DeviceTensor, Stream, Strided
from riva_speech.sessions.recording import recorded_size

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from riva_speech.asr.arena import Row, Slot


class GpuArena(Arena):
    """Rows of zeros for new streams, some of them on a GPU."""

    def __init__(
        self,
        rows: Mapping[str, Row],
        on_gpu: Mapping[str, Row],
        *,
        is_recorded: bool = False,
    ) -> None:
        """Keep ``rows`` here and those ``on_gpu`` there.

        Args:
            rows: What is small.
            on_gpu: What is large.
            is_recorded: Whether runs are recorded: each gets what is there in a place that stays,
                with as many entries as ``recorded_size`` says.

        Raises:
            UnsupportedError: CUDA's Python binding is not installed.
            SpeechError: CUDA has no GPU here.
        """
        super().__init__(rows)
        self._is_recorded = is_recorded
        self._gpu_rows = {name: _GpuRow(row) for name, row in on_gpu.items()}
        self._gpu_blocks: dict[int, dict[str, int]] = {}
        # Blocks that no stream lies in: to give memory back stops all that a GPU does.
        self._spare: list[dict[str, int]] = []
        # It owns the blocks, and fills rows with zeros.
        self._stream = Stream()
        self._lanes: list[_Lane] = []

    @property
    def row_bytes(self) -> int:
        """What one stream's rows take, without the margins behind them."""
        return super().row_bytes + sum(one.row_bytes for one in self._gpu_rows.values())

    def take(self) -> Slot:
        """Return a slot whose rows are zeros.

        Raises:
            OutOfResourceError: The GPU has not enough memory left.
        """
        slot = super().take()
        for name, row in self._gpu_rows.items():
            self._stream.zero(self._begin(slot, name), row.memory_bytes)
        self._stream.wait()
        return slot

    @contextmanager
    def using(self, slots: Sequence[Slot]) -> Iterator[dict[str, Any]]:
        """Give the rows of slots as ``Arena`` does; of those on the GPU, copies that are there.

        A ``DeviceTensor``, [slots, ...], stands for each, and where the row is split a list of
        them, one for each entry of its first axis. Entries behind those of the slots hold anything.
        """
        with super().using(slots) as kept, self._lane() as lane:
            there = {name: self._gathered(lane, slots, name) for name in self._gpu_rows}
            lane.stream.wait()
            yield kept | there

    def scatter(self, slots: Sequence[Slot], values: Mapping[str, Any]) -> None:
        """Put rows as ``Arena`` does; the values of those on the GPU are there, too.

        Raises:
            ValueError: One of them has another shape; nothing was put anywhere.
        """
        for name, row in self._gpu_rows.items():
            row.here.check(name, len(slots), values[name].shape)
        super().scatter(slots, values)
        with self._lane() as lane:
            for name, row in self._gpu_rows.items():
                for place, slot in enumerate(slots):
                    begin, offset = self._begin(slot, name), slot.offsets.get(name, 0)
                    slot.offsets[name] = row.put(lane, begin, offset, values[name], place)
            lane.stream.wait()

    def shrink(self) -> None:
        """Free all memory that no stream and no run uses."""
        super().shrink()
        with self._lock:
            if not self._is_recorded:
                self._lanes.clear()
            while self._spare:
                for address in self._spare.pop().values():
                    self._stream.free(address)

    def _grow(self) -> int:
        # First, for it may fail: a block has all rows or there is none.
        block = self._spare.pop() if self._spare else self._new_block()
        number = super()._grow()
        self._gpu_blocks[number] = block
        return number

    def _new_block(self) -> dict[str, int]:
        """Allocate memory for as many slots as a block has, of all rows or of none."""
        block: dict[str, int] = {}
        try:
            for name, row in self._gpu_rows.items():
                block[name] = self._stream.allocate(self._block_slots * row.memory_bytes)
        except BaseException:
            for address in block.values():
                self._stream.free(address)
            raise
        return block

    def _drop_empty(self, *, keep: int) -> None:
        super()._drop_empty(keep=keep)
        for number in set(self._gpu_blocks) - set(self._blocks):
            self._spare.append(self._gpu_blocks.pop(number))

    def _begin(self, slot: Slot, name: str) -> int:
        """Return where the memory of a slot's row begins."""
        return self._gpu_blocks[slot.block][name] + slot.index * self._gpu_rows[name].memory_bytes

    @contextmanager
    def _lane(self) -> Iterator[_Lane]:
        """Give memory and a stream that no other run has."""
        with self._lock:
            lane = self._lanes.pop() if self._lanes else None
        lane = lane or _Lane()
        yield lane
        # One whose copies failed is not used again.
        with self._lock:
            self._lanes.append(lane)

    def _gathered(
        self, lane: _Lane, slots: Sequence[Slot], name: str
    ) -> DeviceTensor | list[DeviceTensor]:
        """Copy a row of all slots to where a run takes it from; done once the lane has waited."""
        count = recorded_size(len(slots)) if self._is_recorded else len(slots)
        row = self._gpu_rows[name]
        size = row.row_bytes // row.parts
        address = lane.buffer(name).reserve(count * row.row_bytes)
        for place, slot in enumerate(slots):
            begin = self._begin(slot, name) + slot.offsets.get(name, 0) * row.dtype.itemsize
            target = Strided(address + place * size, count * size)
            lane.stream.copy(Strided(begin, size), target, size, row.parts)
        if not row.is_split:
            return DeviceTensor(address, (count, *row.shape), row.dtype, lane)
        return [
            DeviceTensor(address + part * count * size, (count, *row.shape[1:]), row.dtype, lane)
            for part in range(row.parts)
        ]


class _Lane:
    """What one run at a time gathers with: a stream, and memory for each row."""

    def __init__(self) -> None:
        self.stream = Stream()
        self._buffers: dict[str, Buffer] = {}

    def buffer(self, name: str) -> Buffer:
        """Return the memory for a row."""
        return self._buffers.setdefault(name, Buffer(self.stream))


class _GpuRow:
    """What is kept of one stream under one name; it is appended to as ``here``, a ``Row``, is."""

    def __init__(self, row: Row) -> None:
        self.here = row
        self.shape = row.shape
        self.dtype = np.dtype(row.dtype)
        self.is_split = row.is_split
        self.parts = row.shape[0] if row.is_split else 1
        self.row_bytes = row.size * self.dtype.itemsize
        self.memory_bytes = (row.size + row.margin) * self.dtype.itemsize

    def put(self, lane: _Lane, begin: int, offset: int, values: DeviceTensor, place: int) -> int:
        """Put one entry of ``values`` into the row whose memory begins there.

        Return how far the row has moved on in its memory, as one does that is kept here.
        """
        axis, item = self.here.append_axis, self.dtype.itemsize
        source = values.address + place * values.entry_bytes
        if axis is None:
            _copy(lane, source, begin, self.row_bytes)
            return offset
        step = math.prod(self.shape[axis + 1 :])
        kept, given = self.shape[axis], values.shape[1 + axis]
        count = min(given, kept)
        if count < kept:
            offset = self._moved_on(lane, begin, offset, count * step)
        width, step = count * step * item, step * item
        newest = Strided(source + (given - count) * step, given * step)
        target = Strided(begin + offset * item + (kept - count) * step, kept * step)
        lane.stream.copy(newest, target, width, math.prod(self.shape[:axis]))
        return offset

    def _moved_on(self, lane: _Lane, begin: int, offset: int, step: int) -> int:
        """Return where a row begins a step later: at 0 again, where its memory is at an end."""
        if offset + step <= self.here.margin:
            return offset + step
        item = self.dtype.itemsize
        left = self.row_bytes - step * item
        # The two places overlap, so the way leads by another one.
        aside = lane.buffer("aside").reserve(left)
        _copy(lane, begin + (offset + step) * item, aside, left)
        _copy(lane, aside, begin, left)
        return 0


def _copy(lane: _Lane, source: int, target: int, size: int) -> None:
    """Copy what lies in one piece."""
    lane.stream.copy(Strided(source, size), Strided(target, size), size, 1)
