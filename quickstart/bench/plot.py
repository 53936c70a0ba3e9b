"""The ladder as a picture: an SVG written by hand, since nothing else here draws."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING
from xml.sax.saxutils import escape

from quickstart.bench.figures import NAMES, over_trials

if TYPE_CHECKING:
    from quickstart.bench.ladder import Measured

_WIDTH, _HEIGHT = 640, 400
_LEFT, _TOP, _RIGHT, _BOTTOM = 60, 40, 90, 50
_COLOURS = {
    "avg": "#888888",
    "p50": "#1b7837",
    "p90": "#2166ac",
    "p95": "#e08214",
    "p99": "#b2182b",
}
_TICKS = 5


class _Axes:
    """Where streams and milliseconds lie in the picture; streams on a logarithmic axis."""

    def __init__(self, most_streams: int, most_ms: float) -> None:
        self._most_streams = max(2, most_streams)
        self.most_ms = most_ms

    def x(self, streams: float) -> float:
        """Return where a number of streams stands, in pixels from the left, by its logarithm."""
        share = math.log2(streams) / math.log2(self._most_streams)
        return _LEFT + share * (_WIDTH - _LEFT - _RIGHT)

    def y(self, milliseconds: float) -> float:
        """Return where a latency stands, in pixels from the top; none is above the frame."""
        share = min(1.0, milliseconds / self.most_ms)
        return _HEIGHT - _BOTTOM - share * (_HEIGHT - _TOP - _BOTTOM)


def svg(measured: Measured, title: str) -> str:
    """Return the latencies over the number of streams as an SVG document."""
    chunk = measured.plan.chunk_ms
    curves = _curves(measured)
    highest = max((ms for points in curves.values() for _, ms in points), default=0.0)
    axes = _Axes(measured.steps[-1].streams, max(1.2 * chunk, min(1.1 * highest, 4.0 * chunk)))
    parts = [
        _text(_WIDTH / 2, 22, title, "middle"),
        *_grid(axes, [step.streams for step in measured.steps]),
        _line(axes.y(chunk), "#000000", dashes="6 4"),
        _text(_WIDTH - _RIGHT + 6, axes.y(chunk) + 4, f"{chunk} ms", "start"),
        *(_curve(axes, name, points) for name, points in curves.items()),
        *_legend(curves),
    ]
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" '
        'font-family="sans-serif" font-size="12">'
    )
    background = f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="#ffffff"/>'
    return "\n".join([head, background, *parts, "</svg>", ""])


def _curves(measured: Measured) -> dict[str, list[tuple[int, float]]]:
    """Return streams and milliseconds of each figure, where there are any."""
    curves: dict[str, list[tuple[int, float]]] = {name: [] for name in NAMES}
    for step in measured.steps:
        for name, values in over_trials([one.latency for one in step.trials]).items():
            curves[name].append((step.streams, values["median"]))
    return {name: points for name, points in curves.items() if points}


def _grid(axes: _Axes, streams: list[int]) -> list[str]:
    """Return the lines and the numbers of both axes."""
    parts = []
    for tick in range(_TICKS + 1):
        milliseconds = axes.most_ms * tick / _TICKS
        parts.append(_line(axes.y(milliseconds), "#dddddd"))
        parts.append(_text(_LEFT - 6, axes.y(milliseconds) + 4, f"{milliseconds:.0f}", "end"))
    parts += [_text(axes.x(n), _HEIGHT - _BOTTOM + 18, str(n), "middle") for n in streams]
    parts.append(_text(_WIDTH / 2, _HEIGHT - 10, "streams at once", "middle"))
    parts.append(_text(8, _TOP - 10, "chunk latency, ms", "start"))
    return parts


def _curve(axes: _Axes, name: str, points: list[tuple[int, float]]) -> str:
    """Return one figure over the steps."""
    where = " ".join(f"{axes.x(n):.1f},{axes.y(ms):.1f}" for n, ms in points)
    dots = "".join(
        f'<circle cx="{axes.x(n):.1f}" cy="{axes.y(ms):.1f}" r="3"/>' for n, ms in points
    )
    colour = _COLOURS[name]
    line = f'<polyline points="{where}" fill="none" stroke="{colour}" stroke-width="2"/>'
    return f'<g fill="{colour}">{line}{dots}</g>'


def _legend(names: dict[str, list[tuple[int, float]]]) -> list[str]:
    """Return the names of the curves in their colours."""
    return [
        f'<g fill="{_COLOURS[name]}">{_text(_WIDTH - _RIGHT + 6, _TOP + 16 * i, name, "start")}</g>'
        for i, name in enumerate(names)
    ]


def _line(y: float, colour: str, dashes: str = "") -> str:
    dashed = f' stroke-dasharray="{dashes}"' if dashes else ""
    right = _WIDTH - _RIGHT
    return f'<line x1="{_LEFT}" y1="{y:.1f}" x2="{right}" y2="{y:.1f}" stroke="{colour}"{dashed}/>'


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'
