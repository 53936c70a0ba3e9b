"""Moves a file in parallel ranges into its `.partial` file, and hashes it on the way.

Workers fetch the ranges in order; a follower hashes what is there without a gap, reading it back
from where the kernel still has it in memory. All are daemon threads: whoever waits for them can be
interrupted at any moment, and what is finished is in the journal by then.
"""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections import deque
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from quickstart.errors import InterruptionError, NetworkError, RivaQsError
from quickstart.transfer.patience import Patience

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from hashlib import _Hash

    from quickstart.catalog import Artifact
    from quickstart.sources import Body, Source
    from quickstart.transfer.partial import Partial

_MIB = 1 << 20
_TICK = 0.1
_FAREWELL = 1.0
_FLUSHED = 4
THREAD = "riva-qs transfer"
_SLOW = NetworkError("the other side gives next to nothing", "try again later: what came is kept")


@dataclass(frozen=True)
class Limits:
    """How a transfer is split, and what it puts up with.

    Attributes:
        connections: How many ranges move at a time, over all files.
        smallest: The shortest range, in bytes.
        largest: The longest range, in bytes.
        ahead: How many ranges may be there or on their way before the hashing of the first ends.
        chunk: How much is read at a time, in bytes.
        window: Who takes longer than this for a chunk, in seconds, counts as one that gives
            nothing: with eight connections, a network below 0.8 Mbit/s.
        worthwhile: A try that brought so many bytes starts the count of failures anew.
        patience: How often, and after which pauses, a range is tried again.
    """

    connections: int = 8
    smallest: int = 16 * _MIB
    largest: int = 64 * _MIB
    ahead: int = 12
    chunk: int = _MIB // 2
    window: float = 45.0
    worthwhile: int = _MIB
    patience: Patience = field(default_factory=Patience)

    def step(self, size: int) -> int:
        """Return the length of the ranges of a file: short, so that hashing begins soon."""
        wanted = -(-size // (16 * self.connections))
        return max(self.smallest, min(self.largest, -(-wanted // _MIB) * _MIB))


class RangesIgnoredError(Exception):
    """The other side gives only whole files."""


class _StoppedError(Exception):
    """Somebody else failed, or was interrupted."""


@dataclass
class _Reading:
    """A connection that is read from, since when, and whether that took too long."""

    body: Body
    since: float = field(default_factory=time.monotonic)
    slow: bool = False


@dataclass
class Ledger:
    """Reports every byte once, however often it had to be fetched."""

    progress: Callable[[int], None]
    _reached: dict[int, int] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def reach(self, start: int, count: int) -> None:
        """Report that `count` bytes of the range that begins at `start` are there."""
        with self._lock:
            more = count - self._reached.get(start, 0)
            if more > 0:
                self._reached[start] = count
                self.progress(more)


@dataclass
class _Part:
    """A range that is being fetched, and how far it is."""

    start: int
    stop: int
    position: int
    known: bool = False


@dataclass
class Mover:
    """One file on its way.

    Attributes:
        stop: Set from outside to end it.
        slots: The connections that all files share.
    """

    source: Source
    artifact: Artifact
    partial: Partial
    ledger: Ledger
    limits: Limits
    stop: threading.Event
    slots: threading.Semaphore
    _todo: deque[int] = field(default_factory=deque)
    _done: set[int] = field(default_factory=set)
    _open: dict[int, _Reading] = field(default_factory=dict)
    _failure: BaseException | None = None
    _followed: int = 0
    _digest: str = ""
    _changed: threading.Condition = field(default_factory=threading.Condition)

    def move(self, *, whole: bool = False) -> str:
        """Bring all ranges that are missing, and return the SHA-256 of the whole.

        Args:
            whole: Ask for the file from its beginning and in one go.

        Raises:
            RangesIgnoredError: The other side cannot do otherwise than `whole`.
            NetworkError: It failed too often.
            InterruptionError: `stop` was set.
        """
        self._todo = deque(self.partial.ranges)
        workers = min(self.limits.connections, len(self._todo))
        works = [self._work_whole] if whole else [self._work] * workers
        threads = [self._thread(work) for work in (self._follow, self._flush, *works)]
        try:
            return self._outcome()
        finally:
            self._end(threads)

    def _thread(self, work: Callable[[], None]) -> threading.Thread:
        """Start a thread whose failure becomes that of the transfer."""

        def run() -> None:
            try:
                work()
            except _StoppedError:
                pass
            except BaseException as error:  # noqa: BLE001 - whatever it is, `_outcome` raises it
                self._fail(error)

        thread = threading.Thread(target=run, name=THREAD, daemon=True)
        thread.start()
        return thread

    def _fail(self, error: BaseException) -> None:
        with self._changed:
            self._failure = self._failure or error
            self._changed.notify_all()

    def _outcome(self) -> str:
        """Wait for the end and return the hash, or raise what went wrong."""
        with self._changed:
            while not (self._digest or self._failure or self.stop.is_set()):
                self._changed.wait(_TICK)
                self._watch()
            if self._failure:
                raise self._failure
            if not self._digest:
                raise InterruptionError("interrupted")
            return self._digest

    def _watch(self) -> None:
        """Break connections off that give too little."""
        limit = time.monotonic() - self.limits.window
        for reading in list(self._open.values()):
            if reading.since < limit and not reading.slow:
                reading.slow = True
                reading.body.abort()

    def _end(self, threads: list[threading.Thread]) -> None:
        """Make all threads end; none may touch the file once it is closed."""
        with self._changed:
            self._failure = self._failure or _StoppedError()
            readings = list(self._open.values())
            self._changed.notify_all()
        for reading in readings:
            reading.body.abort()
        deadline = time.monotonic() + _FAREWELL
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    def _over(self) -> bool:
        return self._failure is not None or self.stop.is_set()

    def _work(self) -> None:
        """Bring ranges until all are hashed."""
        while (index := self._next()) is not None:
            if index not in self.partial.arrived:
                with self.slots:
                    self._fetch(index)
            self._count(index)

    def _next(self) -> int | None:
        """Return a range to bring; None when all is over."""
        with self._changed:
            self._changed.wait_for(self._may_go_on)
            return None if self._digest or self._over() else self._todo.popleft()

    def _may_go_on(self) -> bool:
        """Say whether a worker has something to do; it must not leave the hashing far behind."""
        if self._digest or self._over():
            return True
        return bool(self._todo) and self._todo[0] < self._followed + self.limits.ahead

    def _count(self, index: int) -> None:
        """Count a range as there, and journal it where it is new."""
        start, stop = self.partial.bounds(index)
        with self._changed:
            if self._over():
                raise _StoppedError
            if index not in self.partial.arrived:
                self.partial.note(index)
            self._done.add(index)
            self._changed.notify_all()
        self.ledger.reach(start, stop - start)

    def _fetch(self, index: int) -> None:
        """Fetch one range, as often as patience permits."""
        start, stop = self.partial.bounds(index)
        part = _Part(start, stop, start)
        failures = 0
        while part.position < stop:
            before = part.position
            try:
                self._stream(part)
            except NetworkError as error:
                worthwhile = part.position - before >= self.limits.worthwhile
                failures = 1 if worthwhile else failures + 1
                self._rest(self.limits.patience.pause(failures, error))

    def _work_whole(self) -> None:
        """Bring the file from its beginning, as often as patience permits."""
        failures = 0
        while self._next() is not None:
            self._todo.clear()
            before = len(self._done)
            try:
                with self.slots:
                    self._stream_whole()
            except NetworkError as error:
                failures = 1 if len(self._done) > before else failures + 1
                self._rest(self.limits.patience.pause(failures, error))
                self._todo.append(0)

    def _stream_whole(self) -> None:
        """Write what one request for all gives, where it is missing."""
        with self._opened(0, self.partial.file.size) as reading:
            for index in self.partial.ranges:
                start, stop = self.partial.bounds(index)
                known = index in self.partial.arrived
                self._copy(reading, _Part(start, stop, start, known))
                self._count(index)

    def _rest(self, seconds: float) -> None:
        """Wait, but not when all is over."""
        with self._changed:
            if self._changed.wait_for(self._over, seconds):
                raise _StoppedError

    def _stream(self, part: _Part) -> None:
        """Write what one request for the rest of a range gives."""
        with self._opened(part.position, part.stop) as reading:
            self._copy(reading, part)

    @contextmanager
    def _opened(self, start: int, stop: int) -> Iterator[_Reading]:
        """Give the bytes [start, stop), in a way that the waiting for them can be ended."""
        me, file = threading.get_ident(), self.partial.file
        with self.source.open(self.artifact, file, start, stop) as body:
            if body.start != start:
                raise RangesIgnoredError
            reading = self._open[me] = _Reading(body)
            try:
                yield reading
            except NetworkError as error:
                raise (_SLOW if reading.slow else error) from None
            finally:
                del self._open[me]

    def _copy(self, reading: _Reading, part: _Part) -> None:
        """Write a range as it comes."""
        while part.position < part.stop:
            reading.since = time.monotonic()
            data = reading.body.read(min(self.limits.chunk, part.stop - part.position))
            if self._over():
                raise _StoppedError
            if not data:
                raise NetworkError("the other side broke off before the end", "try again")
            if not part.known:
                self.partial.write(data, part.position)
            part.position += len(data)
            self.ledger.reach(part.start, part.position - part.start)

    def _follow(self) -> None:
        """Hash the ranges in their order, each when it is there."""
        digest = hashlib.sha256()
        buffer = memoryview(bytearray(self.limits.chunk))
        for index in self.partial.ranges:
            digest = self._hashed(digest, index, buffer)
            with self._changed:
                if self._over():
                    raise _StoppedError
                self.partial.note(index, digest.hexdigest())
                self._followed = index + 1
                self._changed.notify_all()
        with self._changed:
            self._digest = digest.hexdigest()
            self._changed.notify_all()

    def _flush(self) -> None:
        """Let the disk write what is hashed, so that little is left to wait for at the end."""
        flushed = 0
        while True:
            with self._changed:
                self._changed.wait_for(partial(self._must_flush, flushed))
                if self._digest or self._over():
                    return
                flushed = self._followed
            os.fdatasync(self.partial.descriptor)

    def _must_flush(self, flushed: int) -> bool:
        """Say whether enough is hashed since, or all is over."""
        return bool(self._digest) or self._over() or self._followed >= flushed + _FLUSHED

    def _hashed(self, before: _Hash, index: int, buffer: memoryview) -> _Hash:
        """Return the hash up to a range's end; bring the range again that the disk has lost."""
        while True:
            self._await(index)
            digest = before.copy()
            whole = self._read(digest, index, buffer)
            if whole and self.partial.arrived[index] in {"", digest.hexdigest()}:
                return digest
            if index not in self.partial.old:
                raise RivaQsError(
                    f"the disk does not keep what is written to {self.partial.target.parent}",
                    "look at the system's log, and set riva_model_loc to another disk",
                )
            with self._changed:
                self.partial.distrust(index)
                self._done.discard(index)
                self._todo.appendleft(index)
                self._changed.notify_all()

    def _read(self, digest: _Hash, index: int, buffer: memoryview) -> bool:
        """Hash a range as it is on the disk; say whether all of it is there."""
        position, stop = self.partial.bounds(index)
        while position < stop:
            if self._over():
                raise _StoppedError
            room = buffer[: min(len(buffer), stop - position)]
            count = os.preadv(self.partial.descriptor, [room], position)
            digest.update(room[:count])
            position += count
            if not count:
                return False
        return True

    def _await(self, index: int) -> None:
        with self._changed:
            self._changed.wait_for(lambda: index in self._done or self._over())
            if index not in self._done:
                raise _StoppedError
