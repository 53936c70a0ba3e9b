"""Moves a file in parallel ranges into its `.partial` file.

Workers fetch the ranges in order, straight from the socket into a buffer of their own and from
there to the file; a hasher follows them. All are daemon threads: whoever waits for them can be
interrupted at any moment, and what is finished is in the journal by then.
"""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from quickstart.errors import NetworkError
from quickstart.transfer.course import Course, StoppedError
from quickstart.transfer.hashing import Hasher

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from quickstart.catalog import Artifact
    from quickstart.sources import Body, Source
    from quickstart.transfer.limits import Limits
    from quickstart.transfer.partial import Partial

_FAREWELL = 1.0
THREAD = "riva-qs transfer"
_SLOW = NetworkError("the other side gives next to nothing", "try again later: what came is kept")


class RangesIgnoredError(Exception):
    """The other side gives only whole files."""


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
    _course: Course = field(init=False)
    _open: dict[int, _Reading] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Begin with nothing counted."""
        self._course = Course(self.partial, self.limits.ahead, self.stop)

    def move(self, *, whole: bool = False) -> str:
        """Bring all ranges that are missing, and return the SHA-256 of the whole.

        Args:
            whole: Ask for the file from its beginning and in one go.

        Raises:
            RangesIgnoredError: The other side cannot do otherwise than `whole`.
            NetworkError: It failed too often.
            InterruptionError: `stop` was set.
        """
        workers = min(self.limits.connections, len(self.partial.ranges))
        works = [self._work_whole] if whole else [self._work] * workers
        hasher = Hasher(self._course)
        threads = [self._thread(work) for work in (hasher.follow, hasher.flush, *works)]
        try:
            return self._course.outcome(self._watch)
        finally:
            self._end(threads)

    def _thread(self, work: Callable[[], None]) -> threading.Thread:
        """Start a thread whose failure becomes that of the transfer."""

        def run() -> None:
            """Do the work; keep what it raises for `outcome`."""
            try:
                work()
            except StoppedError:
                pass
            except BaseException as error:  # noqa: BLE001 - whatever it is, `outcome` raises it
                self._course.fail(error)

        thread = threading.Thread(target=run, name=THREAD, daemon=True)
        thread.start()
        return thread

    def _watch(self) -> None:
        """Break connections off that give too little."""
        limit = time.monotonic() - self.limits.window
        for reading in list(self._open.values()):
            if reading.since < limit and not reading.slow:
                reading.slow = True
                reading.body.abort()

    def _end(self, threads: list[threading.Thread]) -> None:
        """Make all threads end; none may touch the file once it is closed."""
        self._course.fail(StoppedError())
        for reading in list(self._open.values()):
            reading.body.abort()
        deadline = time.monotonic() + _FAREWELL
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    def _buffer(self) -> memoryview:
        """Return the buffer of one connection."""
        return memoryview(bytearray(self.limits.chunk))

    def _work(self) -> None:
        """Bring ranges until all are hashed."""
        buffer = self._buffer()
        while (index := self._course.next()) is not None:
            if index not in self.partial.arrived:
                with self.slots:
                    self._fetch(index, buffer)
            self._count(index)

    def _count(self, index: int) -> None:
        """Count a range as there."""
        start, stop = self.partial.bounds(index)
        self._course.arrive(index)
        self.ledger.reach(start, stop - start)

    def _fetch(self, index: int, buffer: memoryview) -> None:
        """Fetch one range, as often as patience permits."""
        start, stop = self.partial.bounds(index)
        part = _Part(start, stop, start)
        failures = 0
        while part.position < stop:
            before = part.position
            try:
                with self._opened(part.position, part.stop) as reading:
                    self._copy(reading, part, buffer)
            except NetworkError as error:
                worthwhile = part.position - before >= self.limits.worthwhile
                failures = 1 if worthwhile else failures + 1
                self._course.rest(self.limits.patience.pause(failures, error))

    def _work_whole(self) -> None:
        """Bring the file from its beginning, as often as patience permits."""
        failures, buffer = 0, self._buffer()
        while self._course.next() is not None:
            self._course.take_all()
            before = self._course.done
            try:
                with self.slots:
                    self._fetch_whole(buffer)
            except NetworkError as error:
                failures = 1 if self._course.done > before else failures + 1
                self._course.rest(self.limits.patience.pause(failures, error))
                self._course.put_back(0)

    def _fetch_whole(self, buffer: memoryview) -> None:
        """Write what one request for all gives, where it is missing."""
        with self._opened(0, self.partial.file.size) as reading:
            for index in self.partial.ranges:
                start, stop = self.partial.bounds(index)
                known = index in self.partial.arrived
                self._copy(reading, _Part(start, stop, start, known), buffer)
                self._count(index)

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

    def _copy(self, reading: _Reading, part: _Part, buffer: memoryview) -> None:
        """Write a range as it comes."""
        while part.position < part.stop:
            reading.since = time.monotonic()
            count = reading.body.readinto(buffer[: part.stop - part.position])
            self._course.check()
            if not count:
                raise NetworkError("the other side broke off before the end", "try again")
            if not part.known:
                self.partial.write(buffer[:count], part.position)
            part.position += count
            self.ledger.reach(part.start, part.position - part.start)
