"""One folder of a repository on its way there: what it took, and how near its source it is."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import Any

from riva_speech.servicemaker.usage import Usage

_log = logging.getLogger("riva_speech.riva_deploy")

_MIB = 1 << 20


@dataclass
class StagedModel:
    """A model that is written, or stands for one that stays.

    ``difference`` is None until it was compared. An engine has not run itself: the graph that it
    was built of has.
    """

    directory: str
    is_new: bool
    tolerance: float
    has_run: bool
    usage: Usage = field(default_factory=Usage)
    difference: float | None = None

    def entry(self) -> dict[str, Any]:
        """Return what the report says."""
        values: dict[str, Any] = {
            "directory": self.directory,
            "deployed": self.is_new,
            "seconds": round(self.usage.seconds, 3),
            "peak_memory_bytes": self.usage.peak_memory_bytes,
        }
        if self.difference is not None:
            values |= {
                "has_run": self.has_run,
                "largest_difference": self.difference,
                "tolerance": self.tolerance,
            }
        return values

    def tell(self) -> None:
        """Say how near its source it is, and what it took."""
        _log.info(
            "%s %s agrees with its source within %.1e (%.1e is allowed); it took %.1f s and "
            "%.0f MiB of memory at most",
            "Model" if self.has_run else "The graph of the engine, which has not run,",
            self.directory,
            self.difference,
            self.tolerance,
            self.usage.seconds,
            self.usage.peak_memory_bytes / _MIB,
        )
