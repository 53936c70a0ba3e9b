"""How a transfer is split, and what it puts up with."""

from __future__ import annotations

from dataclasses import dataclass, field

from quickstart.transfer.patience import Patience

_MIB = 1 << 20


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
