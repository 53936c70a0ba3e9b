"""From what clients saw to figures, and from several trials to one with its spread."""

from __future__ import annotations

import statistics
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from quickstart.bench.load import SHED

if TYPE_CHECKING:
    from collections.abc import Sequence

    from quickstart.bench.load import Seen

PERCENTILES = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99}
NAMES = ("avg", *PERCENTILES)


def percentile(ordered: Sequence[float], share: float) -> float:
    """Return the value at index floor(share * n) of ascending values, as Riva's clients do."""
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)]


def summary(seconds: Sequence[float]) -> dict[str, float]:
    """Return average and percentiles in milliseconds; nothing of nothing."""
    if not seconds:
        return {}
    ordered = sorted(1000 * value for value in seconds)
    shares = {name: percentile(ordered, share) for name, share in PERCENTILES.items()}
    return {"avg": statistics.fmean(ordered), **shares}


def latencies(seen: Seen) -> list[float]:
    """Return how long each chunk waited for its response, paired by index.

    Empty where the counts differ by more than one: then nothing says which belongs to which.
    """
    if abs(len(seen.sent) - len(seen.received)) > 1:
        return []
    return [came - sent for sent, came in zip(seen.sent, seen.received, strict=False)]


@dataclass(frozen=True)
class Trial:
    """One trial of one step.

    Attributes:
        latency: Chunk latencies in milliseconds, by name of the figure.
        finalisation: From the last sample to the last response, likewise.
        errors: How many streams ended with each status, those that were shed apart.
        shed: How many streams found no room.
        unpaired: Streams whose responses cannot be told to their chunks.
        late: How far behind its pace the client itself was at worst, in milliseconds.
        rtfx: Seconds of audio answered a second.
    """

    latency: dict[str, float]
    finalisation: dict[str, float]
    errors: dict[str, int]
    shed: int
    unpaired: int
    late: float
    rtfx: float

    @property
    def went_well(self) -> bool:
        """Whether every stream was answered."""
        return bool(self.latency) and not (self.errors or self.shed or self.unpaired)


def trial(streams: Sequence[Seen], audio_seconds: float) -> Trial:
    """Return the figures of one trial; each stream held `audio_seconds`."""
    whole = [one for one in streams if not one.error and one.sent and one.received]
    paired = [latencies(one) for one in whole]
    errors = Counter(one.error for one in streams if one.error)
    shed = errors.pop(SHED, 0)
    took = max((one.received[-1] for one in whole), default=0.0) - min(
        (one.sent[0] for one in whole), default=0.0
    )
    return Trial(
        latency=summary([value for each in paired for value in each]),
        finalisation=summary([one.received[-1] - one.sent[-1] for one in whole]),
        errors=dict(errors),
        shed=shed,
        unpaired=sum(not each for each in paired),
        late=1000 * max((one.late for one in streams), default=0.0),
        rtfx=len(whole) * audio_seconds / took if took > 0 else 0.0,
    )


def spread(values: Sequence[float]) -> dict[str, float]:
    """Return median, least and most of several trials."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def over_trials(rows: Sequence[dict[str, float]]) -> dict[str, dict[str, float]]:
    """Return each figure's median and spread over the trials that have it."""
    found: dict[str, Any] = {}
    for name in NAMES:
        values = [row[name] for row in rows if name in row]
        if values:
            found[name] = spread(values)
    return found
