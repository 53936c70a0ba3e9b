"""The server's log as a file: read, filtered by age, followed.

A line that is an entry's first begins with an ISO-8601 time in UTC; lines without one, such as
those of a traceback, belong to the entry before.
"""

from __future__ import annotations

import re
import time
from collections import deque
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING

from quickstart.errors import NotReadyError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path
    from typing import TextIO

    from quickstart.backends.base import LogQuery

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_STAMP = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")
_POLL = 0.2


def parse_since(text: str, now: datetime | None = None) -> float:
    """Return the POSIX time that `10m`, `2h` or an ISO-8601 time stands for."""
    age = re.fullmatch(r"(\d{1,6})([smhd])", text)
    if age:
        now = now or datetime.now(timezone.utc)
        return (now - timedelta(**{_UNITS[age[2]]: int(age[1])})).timestamp()
    try:
        return _posix_time(text)
    except ValueError:
        message = f'--since: "{text}" is neither an age such as 10m nor a time'
        raise UsageError(message, "write 90s, 10m, 2h, 1d or 2026-01-31T12:00:00Z") from None


def _posix_time(text: str) -> float:
    """Return the POSIX time of an ISO-8601 one; without a zone it is local."""
    whole, point, fraction = text.removesuffix("Z").partition(".")
    zone = "+00:00" if text.endswith("Z") else ""
    return datetime.fromisoformat(whole + zone).timestamp() + float(f"0{point}{fraction}")


def message(line: str) -> str:
    """Return a log line without its time and its level, where that is INFO."""
    return re.sub(rf"^{_STAMP.pattern} (INFO )?", "", line)


def read(path: Path) -> list[str]:
    """Return the lines of a log; none where there is no log."""
    try:
        return path.read_text("utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return []


def show(path: Path, query: LogQuery, alive: Callable[[], bool]) -> Iterator[str]:
    """Yield the lines that a query asks for; following ends when the server does."""
    try:
        stream = path.open(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        message = f"no server has run here yet: there is no {path}"
        raise NotReadyError(message, "riva-qs start") from None
    with stream:
        lines: Iterable[str] = _since(_complete(stream), query.since)
        if query.tail is not None:
            lines = deque(lines, maxlen=query.tail)
        yield from lines
        if query.follow:
            yield from _follow(stream, alive)
        yield from stream


def _complete(stream: TextIO) -> Iterator[str]:
    """Yield the lines that are written to their ends."""
    while True:
        start, line = stream.tell(), stream.readline()
        if not line.endswith("\n"):
            stream.seek(start)
            return
        yield line.rstrip("\n")


def _follow(stream: TextIO, alive: Callable[[], bool]) -> Iterator[str]:
    """Yield lines as they come, until the server is gone and all it wrote was shown."""
    while True:
        running = alive()
        yield from _complete(stream)
        if not running:
            return
        time.sleep(_POLL)


def _since(lines: Iterable[str], since: float | None) -> Iterator[str]:
    """Yield the entries that are not older than a POSIX time."""
    wanted = since is None
    for line in lines:
        stamp = _STAMP.match(line)
        if since is not None and stamp:
            wanted = parse_since(stamp[0]) >= since
        if wanted:
            yield line
