"""Hashes a file while it comes, range by range, as its disk gives it back."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from quickstart.errors import RivaQsError

if TYPE_CHECKING:
    from hashlib import _Hash

    from quickstart.transfer.course import Course

# Read from the page cache into what stays in a core's own cache.
_CHUNK = 1 << 18
_FLUSHED = 4


@dataclass(frozen=True)
class Hasher:
    """Follows the workers of one file."""

    course: Course

    def follow(self) -> None:
        """Hash the ranges in their order, each when it is there."""
        digest = hashlib.sha256()
        buffer = memoryview(bytearray(_CHUNK))
        for index in self.course.partial.ranges:
            digest = self._hashed(digest, index, buffer)
            self.course.follow(index, digest.hexdigest())
        self.course.finish(digest.hexdigest())

    def flush(self) -> None:
        """Let the disk write what is hashed, so that little is left to wait for at the end."""
        flushed = 0
        while self.course.await_followed(flushed + _FLUSHED):
            flushed = self.course.followed
            os.fdatasync(self.course.partial.descriptor)

    def _hashed(self, before: _Hash, index: int, buffer: memoryview) -> _Hash:
        """Return the hash up to a range's end; bring the range again that the disk has lost."""
        partial = self.course.partial
        while True:
            self.course.await_range(index)
            digest = before.copy()
            whole = self._read(digest, index, buffer)
            if whole and partial.arrived[index] in {"", digest.hexdigest()}:
                return digest
            if index not in partial.old:
                raise RivaQsError(
                    f"the disk does not keep what is written to {partial.target.parent}",
                    "look at the system's log, and set riva_model_loc to another disk",
                )
            self.course.distrust(index)

    def _read(self, digest: _Hash, index: int, buffer: memoryview) -> bool:
        """Hash a range as it is on the disk; say whether all of it is there."""
        position, stop = self.course.partial.bounds(index)
        while position < stop:
            self.course.check()
            room = buffer[: min(len(buffer), stop - position)]
            count = os.preadv(self.course.partial.descriptor, [room], position)
            digest.update(room[:count])
            position += count
            if not count:
                return False
        return True
