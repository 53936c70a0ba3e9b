"""How far a file on its way is: what its threads share, and what they wait for."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from quickstart.errors import InterruptionError

if TYPE_CHECKING:
    from collections.abc import Callable

    from quickstart.transfer.partial import Partial

_TICK = 0.1


class StoppedError(Exception):
    """Somebody else failed, or was interrupted."""


@dataclass
class Course:
    """How far a file on its way is; every method may be called from any thread.

    Attributes:
        partial: The file and its journal.
        ahead: How many ranges may be there or on their way before the hashing of the first ends.
        stop: Set from outside to end it.
        followed: How many ranges are hashed.
        digest: The SHA-256 of the whole, once it is known.
    """

    partial: Partial
    ahead: int
    stop: threading.Event
    followed: int = 0
    digest: str = ""
    _todo: deque[int] = field(default_factory=deque)
    _done: set[int] = field(default_factory=set)
    _failure: BaseException | None = None
    _changed: threading.Condition = field(default_factory=threading.Condition)

    def __post_init__(self) -> None:
        """Begin with all ranges to do: those that are there are only counted."""
        self._todo = deque(self.partial.ranges)

    @property
    def over(self) -> bool:
        """Whether somebody failed or was interrupted."""
        return self._failure is not None or self.stop.is_set()

    @property
    def done(self) -> int:
        """How many ranges are there."""
        return len(self._done)

    def check(self) -> None:
        """Raise StoppedError when it is over."""
        if self.over:
            raise StoppedError

    def fail(self, error: BaseException) -> None:
        """End it; the first failure is the one that is told."""
        with self._changed:
            self._failure = self._failure or error
            self._changed.notify_all()

    def outcome(self, watch: Callable[[], None]) -> str:
        """Wait for the end and return the hash, or raise what went wrong.

        Args:
            watch: Called again and again meanwhile.
        """
        with self._changed:
            while not (self.digest or self._failure or self.stop.is_set()):
                self._changed.wait(_TICK)
                watch()
            if self._failure:
                raise self._failure
            if not self.digest:
                raise InterruptionError("interrupted")
            return self.digest

    def rest(self, seconds: float) -> None:
        """Wait, but not when all is over."""
        with self._changed:
            if self._changed.wait_for(lambda: self.over, seconds):
                raise StoppedError

    def next(self) -> int | None:
        """Return a range to bring; None when all is over."""
        with self._changed:
            self._changed.wait_for(self._may_go_on)
            return None if self.digest or self.over else self._todo.popleft()

    def _may_go_on(self) -> bool:
        """Say whether a worker has something to do; it must not leave the hashing far behind."""
        if self.digest or self.over:
            return True
        return bool(self._todo) and self._todo[0] < self.followed + self.ahead

    def take_all(self) -> None:
        """Leave nothing to do for others: one request is for all of it."""
        self._todo.clear()

    def put_back(self, index: int) -> None:
        """Let a range be brought again."""
        with self._changed:
            self._done.discard(index)
            self._todo.appendleft(index)
            self._changed.notify_all()

    def arrive(self, index: int) -> None:
        """Count a range as there, and journal it where it is new."""
        with self._changed:
            self.check()
            if index not in self.partial.arrived:
                self.partial.note(index)
            self._done.add(index)
            self._changed.notify_all()

    def await_range(self, index: int) -> None:
        """Wait until a range is there."""
        with self._changed:
            self._changed.wait_for(lambda: index in self._done or self.over)
            if index not in self._done:
                raise StoppedError

    def follow(self, index: int, prefix: str) -> None:
        """Journal the hash of all up to a range's end; after the last one it is that of all."""
        with self._changed:
            self.check()
            self.partial.note(index, prefix)
            self.followed = index + 1
            self._changed.notify_all()

    def finish(self, digest: str) -> None:
        """Say that all is there and hashed."""
        with self._changed:
            self.digest = digest
            self._changed.notify_all()

    def await_followed(self, count: int) -> bool:
        """Wait until so many ranges are hashed; say False when it ends before that."""
        with self._changed:
            self._changed.wait_for(lambda: self.digest or self.over or self.followed >= count)
            return not (self.digest or self.over)

    def distrust(self, index: int) -> None:
        """Let a range that an earlier run brought, and the disk lost, be brought again."""
        with self._changed:
            self.partial.distrust(index)
            self.put_back(index)
