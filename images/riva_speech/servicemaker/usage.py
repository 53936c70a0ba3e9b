"""What a piece of work costs: time and memory."""

from __future__ import annotations

import resource
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_STATUS = Path("/proc/self/status")
_RESET = Path("/proc/self/clear_refs")
_RESET_PEAK = "5"  # proc(5): resets VmHWM to what is used now
_KIB = 1024


@dataclass
class Usage:
    """Seconds of wall-clock time, and the most memory of the process meanwhile, in bytes."""

    seconds: float = 0.0
    peak_memory_bytes: int = 0

    @contextmanager
    def measured(self) -> Iterator[None]:
        """Add the time that the block takes, and let the peak rise to its own."""
        _reset_peak()
        began = time.perf_counter()
        try:
            yield
        finally:
            self.seconds += time.perf_counter() - began
            self.peak_memory_bytes = max(self.peak_memory_bytes, peak_memory())


def peak_memory() -> int:
    """Return the largest resident size of the process, in bytes, since it was last reset."""
    try:
        lines = _STATUS.read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) * _KIB
    except (OSError, StopIteration):  # not Linux, or a kernel that does not count it
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _KIB


def _reset_peak() -> None:
    try:
        _RESET.write_text(_RESET_PEAK)
    except OSError:
        return  # the peak is that of the process so far
