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
from typing import TYPE_CHECKING

from quickstart.errors import InterruptionError, NetworkError
from quickstart.patience import Patience

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from hashlib import _Hash

    from quickstart.catalog import Artifact
    from quickstart.partial import Partial
    from quickstart.sources import Body, Source

_MIB = 1 << 20
_TICK = 0.1
_FAREWELL = 1.0
THREAD = "riva-qs transfer"


@dataclass(frozen=True)
class Limits:
    """How a transfer is split, and what it puts up with.

    Attributes:
        connections: How many ranges move at a time, over all files.
        smallest: The shortest range, in bytes.
        largest: The longest range, in bytes.
        chunk: How much is read at a time, in bytes.
        slowest: Who gives fewer bytes a second than this counts as one that gives nothing.
        window: Over how many seconds that is measured.
        worthwhile: A try that brought so many bytes starts the count of failures anew.
        patience: How often, and after which pauses, a range is tried again.
    """

    connections: int = 8
    smallest: int = 16 * _MIB
    largest: int = 64 * _MIB
    chunk: int = _MIB
    slowest: float = 10_000.0
    window: float = 15.0
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
class Pace:
    """Watches that a connection gives enough."""

    slowest: float
    window: float
    _since: float = field(default_factory=time.monotonic)
    _got: int = 0

    def add(self, count: int) -> None:
        """Count bytes; raise NetworkError when there were too few of them in a window."""
        self._got += count
        elapsed = time.monotonic() - self._since
        if elapsed < self.window:
            return
        if self._got < self.slowest * elapsed:
            raise NetworkError(
                f"the connection gives only {self._got / elapsed:.0f} bytes a second",
                "try again later: what has arrived is kept",
            )
        self._since, self._got = time.monotonic(), 0


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
    _open: dict[int, Body] = field(default_factory=dict)
    _failure: BaseException | None = None
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
        threads = [self._thread(work) for work in (self._follow, *works)]
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
            if self._failure:
                raise self._failure
            if not self._digest:
                raise InterruptionError("interrupted")
            return self._digest

    def _end(self, threads: list[threading.Thread]) -> None:
        """Make all threads end; none may touch the file once it is closed."""
        with self._changed:
            self._failure = self._failure or _StoppedError()
            bodies = list(self._open.values())
            self._changed.notify_all()
        for body in bodies:
            body.abort()
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
            self._changed.wait_for(lambda: self._todo or self._digest or self._over())
            return None if self._digest or self._over() else self._todo.popleft()

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
        with self._opened(0, self.partial.file.size) as body:
            pace = Pace(self.limits.slowest, self.limits.window)
            for index in self.partial.ranges:
                start, stop = self.partial.bounds(index)
                known = index in self.partial.arrived
                self._copy(body, _Part(start, stop, start, known), pace)
                self._count(index)

    def _rest(self, seconds: float) -> None:
        """Wait, but not when all is over."""
        with self._changed:
            if self._changed.wait_for(self._over, seconds):
                raise _StoppedError

    def _stream(self, part: _Part) -> None:
        """Write what one request for the rest of a range gives."""
        with self._opened(part.position, part.stop) as body:
            self._copy(body, part, Pace(self.limits.slowest, self.limits.window))

    @contextmanager
    def _opened(self, start: int, stop: int) -> Iterator[Body]:
        """Give the bytes [start, stop), so that `_end` can end the waiting for them."""
        me, file = threading.get_ident(), self.partial.file
        with self.source.open(self.artifact, file, start, stop) as body:
            if body.start != start:
                raise RangesIgnoredError
            self._open[me] = body
            try:
                yield body
            finally:
                del self._open[me]

    def _copy(self, body: Body, part: _Part, pace: Pace) -> None:
        """Write a range as it comes."""
        while part.position < part.stop:
            data = body.read(min(self.limits.chunk, part.stop - part.position))
            if self._over():
                raise _StoppedError
            if not data:
                raise NetworkError("the other side broke off before the end", "try again")
            if not part.known:
                self.partial.write(data, part.position)
            part.position += len(data)
            self.ledger.reach(part.start, part.position - part.start)
            pace.add(len(data))

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
        with self._changed:
            self._digest = digest.hexdigest()
            self._changed.notify_all()

    def _hashed(self, before: _Hash, index: int, buffer: memoryview) -> _Hash:
        """Return the hash up to a range's end; bring the range again that the disk has lost."""
        while True:
            self._await(index)
            digest = before.copy()
            whole = self._read(digest, index, buffer)
            if whole and self.partial.arrived[index] in {"", digest.hexdigest()}:
                return digest
            with self._changed:
                self.partial.distrust(index)
                self._done.discard(index)
                self._todo.append(index)
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
