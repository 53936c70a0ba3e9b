"""What was measured, as data and as tables."""

from __future__ import annotations

import os
import platform
from collections import Counter
from typing import TYPE_CHECKING, Any

from quickstart.bench.figures import NAMES, over_trials, spread

if TYPE_CHECKING:
    from quickstart.bench.ladder import Measured, Step
    from quickstart.bench.load import Rush

COLUMNS = (
    "streams",
    *(f"{name} ms" for name in NAMES),
    "final p50 ms",
    "RTFX",
    "shed",
    "errors",
    "holds",
)


def data(measured: Measured) -> dict[str, Any]:
    """Return all figures, rounded to what can be told apart."""
    plan = measured.plan
    return {
        "machine": {
            "processor": _processor(),
            "cores": os.cpu_count(),
            "python": platform.python_version(),
        },
        "audio_seconds": round(measured.audio_seconds, 3),
        "chunk_ms": plan.chunk_ms,
        "trials": plan.trials,
        "most_streams": measured.most_streams,
        "steps": [_step(step, plan.chunk_ms) for step in measured.steps],
        "throughput": _throughput(measured) if measured.rushes else None,
    }


def _step(step: Step, chunk_ms: int) -> dict[str, Any]:
    trials = step.trials
    return {
        "streams": step.streams,
        "holds": step.holds(chunk_ms),
        "latency_ms": _rounded(over_trials([one.latency for one in trials])),
        "finalisation_ms": _rounded(over_trials([one.finalisation for one in trials])),
        "rtfx": _rounded(spread([one.rtfx for one in trials])),
        "shed": sum(one.shed for one in trials),
        "errors": dict(sum((Counter(one.errors) for one in trials), Counter())),
        "unpaired": sum(one.unpaired for one in trials),
        "client_late_ms": round(max(one.late for one in trials), 1),
    }


def _throughput(measured: Measured) -> dict[str, Any]:
    rushes = measured.rushes
    return {
        "parallel": measured.plan.parallel,
        "answered": sum(rush.answered for rush in rushes),
        "rtfx": _rounded(spread([_rtfx(rush, measured.audio_seconds) for rush in rushes])),
        "errors": dict(sum((Counter(rush.errors) for rush in rushes), Counter())),
    }


def _rtfx(rush: Rush, audio_seconds: float) -> float:
    return rush.answered * audio_seconds / rush.seconds


def rows(measured: Measured) -> list[list[str]]:
    """Return a row for each step, with the median of every figure."""
    return [_row(_step(step, measured.plan.chunk_ms)) for step in measured.steps]


def _row(step: dict[str, Any]) -> list[str]:
    latency, final = step["latency_ms"], step["finalisation_ms"]
    return [
        str(step["streams"]),
        *(f"{latency[name]['median']:.1f}" if latency else "-" for name in NAMES),
        f"{final['p50']['median']:.1f}" if final else "-",
        f"{step['rtfx']['median']:.1f}",
        str(step["shed"]),
        str(sum(step["errors"].values()) + step["unpaired"]),
        "yes" if step["holds"] else "no",
    ]


def sentences(measured: Measured) -> list[str]:
    """Return what the table does not show."""
    plan = measured.plan
    found = [
        f"most streams with p99 under {plan.chunk_ms} ms, all answered: {measured.most_streams}",
    ]
    if measured.rushes:
        told = _throughput(measured)
        rate, errors = told["rtfx"], sum(told["errors"].values())
        found.append(
            f"throughput, {plan.parallel} requests at once: RTFX {rate['median']:.1f} "
            f"({rate['min']:.1f} to {rate['max']:.1f}), {errors} errors"
        )
    late = max((one.late for step in measured.steps for one in step.trials), default=0.0)
    if late > plan.chunk_ms / 4:
        found.append(
            f"this client itself sent up to {late:.0f} ms late: the figures are worse than the"
            " service is; measure from another machine"
        )
    return found


def _rounded(value: Any) -> Any:  # noqa: ANN401 - figures in whatever nesting
    if isinstance(value, dict):
        return {name: _rounded(each) for name, each in value.items()}
    return round(value, 2)


def _processor() -> str:
    """Return the name of the processor, or at least its kind."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:  # noqa: PTH123 - a stream of lines
            names = (line.partition(":")[2].strip() for line in lines if "model name" in line)
            return next(names, platform.machine())
    except OSError:
        return platform.processor() or platform.machine()
