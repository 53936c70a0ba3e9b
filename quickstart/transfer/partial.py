"""A file that is on its way: `NAME.partial`, and beside it `NAME.partial.state`.

The state is a journal: what the file is to become, then a line for each range that has arrived, and
one with the SHA-256 of everything up to the range's end once that is known. After any interruption,
a power cut included, ranges are trusted as far as the bytes on the disk have these hashes; what the
disk lost is found by them and fetched again. Whoever holds the lock on the `.partial` file has both
alone.
"""

from __future__ import annotations

import json
import os
import re
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from quickstart.store import locking

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from quickstart.sources import SourceFile

PARTIAL = ".partial"
STATE = ".partial.state"
_FORMAT = 1
_UNKNOWN = "-"


_LINE = re.compile(r"(?P<index>\d+) (?P<prefix>-|[0-9a-f]{64})\n")


def _line(index: int, prefix: str) -> bytes:
    """Return a range's line of the journal."""
    return f"{index} {prefix or _UNKNOWN}\n".encode()


def beside(target: Path, suffix: str) -> Path:
    """Return the path of what lies beside a target."""
    return target.with_name(target.name + suffix)


@dataclass
class Partial:
    """An open `.partial` file, with its ranges.

    Attributes:
        target: The path that it will have.
        file: What it is to become.
        step: The length of its ranges in bytes; the last may be shorter.
        arrived: The ranges that the journal says are there, each with the SHA-256 of the file up
            to its end, empty where that is not known.
        old: Those of them that an earlier run brought.
        proven: Those of the old ones for which a hash in the journal speaks.
    """

    target: Path
    file: SourceFile
    step: int
    descriptor: int
    arrived: dict[int, str] = field(default_factory=dict)
    old: set[int] = field(default_factory=set)
    proven: set[int] = field(default_factory=set)
    _journal: int = -1

    @property
    def ranges(self) -> range:
        """The numbers of all ranges."""
        return range(-(-self.file.size // self.step))

    def bounds(self, index: int) -> tuple[int, int]:
        """Return where a range begins, and the offset behind its end."""
        return index * self.step, min((index + 1) * self.step, self.file.size)

    def missing(self) -> int:
        """Return how many bytes the journal does not say are there."""
        return self.file.size - sum(b - a for a, b in map(self.bounds, self.arrived))

    def write(self, data: memoryview, offset: int) -> None:
        """Write all of `data` at an offset."""
        while data:
            written = os.pwrite(self.descriptor, data, offset)
            data, offset = data[written:], offset + written

    def note(self, index: int, prefix: str = "") -> None:
        """Write into the journal that a range is there, and the hash up to its end."""
        if self.arrived.get(index) != prefix:
            self.arrived[index] = prefix
            os.write(self._journal, _line(index, prefix))

    def distrust(self, index: int) -> None:
        """Take a range that an earlier run brought for not there."""
        self.arrived.pop(index, None)
        self.old.discard(index)

    def distrust_unproven(self) -> bool:
        """Distrust the ranges for which no hash speaks; say whether there were any."""
        unproven = list(self.old - self.proven)
        for index in unproven:
            self.distrust(index)
        for index in self.arrived if unproven else ():
            self.arrived[index] = ""
        return bool(unproven)

    def resume(self) -> None:
        """Read the journal; one that is about another file begins anew."""
        path = beside(self.target, STATE)
        header = json.dumps({"format": _FORMAT, "step": self.step, **vars(self.file)}) + "\n"
        self._journal = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        first, *lines = path.read_text("ascii", errors="replace").splitlines(keepends=True) or [""]
        if first == header:
            self.arrived = dict(entry for line in lines if (entry := self._entry(line)))
        else:
            os.ftruncate(self.descriptor, 0)
        length = os.fstat(self.descriptor).st_size
        for index in [i for i in self.arrived if self.bounds(i)[1] > length]:
            self.distrust(index)
        self.old = set(self.arrived)
        self.proven = {index for index, prefix in self.arrived.items() if prefix}
        os.ftruncate(self._journal, 0)
        entries = [_line(index, prefix) for index, prefix in self.arrived.items()]
        os.write(self._journal, b"".join([header.encode(), *entries]))

    def _entry(self, line: str) -> tuple[int, str] | None:
        """Return a range and its hash; None for a line that a cut left unfinished."""
        match = _LINE.fullmatch(line)
        if match is None or int(match["index"]) not in self.ranges:
            return None
        return int(match["index"]), match["prefix"].replace(_UNKNOWN, "")

    def publish(self) -> None:
        """Let the file take its name, in one step, when its bytes are on the disk."""
        os.fsync(self.descriptor)
        beside(self.target, PARTIAL).replace(self.target)
        beside(self.target, STATE).unlink(missing_ok=True)

    def discard(self) -> None:
        """Remove what has arrived."""
        beside(self.target, STATE).unlink(missing_ok=True)
        beside(self.target, PARTIAL).unlink(missing_ok=True)

    def close(self) -> None:
        """Let others have it; a thread that is late must not write into what gets its numbers."""
        journal, self._journal = self._journal, -1
        descriptor, self.descriptor = self.descriptor, -1
        if journal >= 0:
            os.close(journal)
        os.close(descriptor)


@contextmanager
def held(target: Path, file: SourceFile, step: int) -> Iterator[Partial]:
    """Give the `.partial` file of a target, as soon as no other process or thread has it."""
    partial = Partial(target, file, step, locking.wait(beside(target, PARTIAL)))
    try:
        yield partial
    finally:
        partial.close()
