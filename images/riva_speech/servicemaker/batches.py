"""How many requests a deployed model takes at once: what riva-build was told, or what suits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from riva_speech.asr.pipeline import ONLINE
from riva_speech.errors import DamagedArchiveError
from riva_speech.repository import Batching

if TYPE_CHECKING:
    from collections.abc import Mapping

# Where riva-build was told nothing. A run of whole utterances is as long as its longest, so few are
# joined; an engine has memory set aside for the most that it takes, so it takes one.
_STREAMS, _UTTERANCES, _ENGINE = 32, 8, 1
# No machine runs as many at once, and Triton's field has 32 bits.
_MOST = 1 << 16


@dataclass(frozen=True)
class Range:
    """How many of something a model takes: its least, its usual and its largest number."""

    least: int
    usual: int
    most: int

    @property
    def batching(self) -> Batching:
        """What Triton is told: it joins what waits, up to the usual number where that is known."""
        return Batching(() if self.usual == self.most else (self.usual,))


def of_engine(options: Mapping[str, object]) -> Range:
    """Return the batches that an engine is built for.

    Raises:
        DamagedArchiveError: What riva-build noted are no counts, or the usual one is above the
            largest.
    """
    return _range(options, _ENGINE)


def of_graph(options: Mapping[str, object], kind: str) -> Range:
    """Return the batches of a graph for streams or whole utterances; errors as ``of_engine``."""
    return _range(options, _unsaid(kind))


def of_pipeline(options: Mapping[str, object], kind: str) -> Range:
    """Return the batches of the pipeline around a graph; errors as ``of_engine``."""
    most = _count(options, "max_batch_size", _count(options, "nn.max_batch_size", _unsaid(kind)))
    return Range(1, most, most)


def _unsaid(kind: str) -> int:
    return _STREAMS if kind == ONLINE else _UTTERANCES


def _range(options: Mapping[str, object], unsaid: int) -> Range:
    unsaid = max(unsaid, _count(options, "nn.opt_batch_size", unsaid))
    most = _count(options, "nn.max_batch_size", _count(options, "max_batch_size", unsaid))
    usual = _count(options, "nn.opt_batch_size", most)
    if usual > most:
        raise DamagedArchiveError(f"batch sizes of {usual} usually and {most} at most are none")
    return Range(1, usual, most)


def _count(options: Mapping[str, object], name: str, unsaid: int) -> int:
    value = options.get(name, unsaid)
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= _MOST:
        raise DamagedArchiveError(f"{name} is {value!r}, which is no batch size")
    return value
