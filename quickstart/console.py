"""All output: results to stdout, everything else to stderr.

On a terminal, what takes longer than a second gets a progress bar; without one, plain lines say
the same. `--json` puts one object on stdout and, if all fails, one on stderr, and nothing else.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import sys
import threading
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from quickstart.errors import ReaderGoneError, RivaQsError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

SCHEMA_VERSION = 1
_SHOWN_ON_FAILURE = 20
_ROOM_FOR_TIME = 16
_WIDEST = 200
_SECONDS_BETWEEN_LINES = 5.0
_RED, _YELLOW, _PLAIN = "\x1b[31m", "\x1b[33m", "\x1b[0m"


@dataclass(frozen=True)
class Console:
    """Where results, notes, progress and errors go."""

    json: bool = False
    quiet: bool = False

    @property
    def interactive(self) -> bool:
        """Whether a person watches: stderr is a terminal and nobody asked for silence."""
        return sys.stderr.isatty() and not (self.json or self.quiet)

    def result(self, text: str, data: dict[str, Any]) -> None:
        """Print a command's result: `text`, or `data` as JSON."""
        if self.json:
            text = json.dumps({"schema_version": SCHEMA_VERSION, **data}, indent=2)
        if text:
            self.line(text)

    def line(self, text: str) -> None:
        """Print one line of a result."""
        try:
            sys.stdout.write(f"{text}\n")
            sys.stdout.flush()
        except BrokenPipeError as error:
            # Python would complain once more when it flushes what is left at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise ReaderGoneError("nobody reads the output any more") from error

    def table(self, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
        """Return a table as text, as wide as it needs: a pipe has no width."""
        from rich.box import SIMPLE_HEAD
        from rich.console import Console as Rich
        from rich.table import Table

        drawn = Table(box=SIMPLE_HEAD, pad_edge=False)
        for column in columns:
            drawn.add_column(column, justify="right", no_wrap=True)
        for row in rows:
            drawn.add_row(*row)
        text = io.StringIO()
        Rich(file=text, width=_WIDEST, color_system=None).print(drawn)
        return "\n".join(line.rstrip() for line in text.getvalue().strip("\n").splitlines())

    def note(self, text: str) -> None:
        """Tell the reader what happens, on stderr."""
        if not (self.quiet or self.json):
            _to_stderr(text)

    def warn(self, text: str) -> None:
        """Say what deserves attention even when the reader asked for silence."""
        if not self.json:
            _to_stderr(f"{_coloured('warning:', _YELLOW)} {text}")

    def error(self, error: RivaQsError) -> None:
        """Print an error with its hint, on stderr."""
        if isinstance(error, ReaderGoneError):
            return
        if self.json:
            _to_stderr(json.dumps({"schema_version": SCHEMA_VERSION, "error": _as_data(error)}))
            return
        _to_stderr(f"{_coloured('error:', _RED)} {error.message}")
        if error.hint:
            _to_stderr(f"{_coloured('hint:', _YELLOW)} {error.hint}")

    def confirm(self, question: str) -> bool:
        """Ask a person yes or no; where nobody can answer, that is an error."""
        if self.json or not (sys.stdin.isatty() and sys.stderr.isatty()):
            raise UsageError(f"nobody is here to answer: {question}", "pass --yes to agree")
        sys.stderr.write(f"{question} [y/N] ")
        sys.stderr.flush()
        return sys.stdin.readline().strip().lower() in {"y", "yes"}

    @contextmanager
    def bytes_progress(self, title: str, total: int) -> Iterator[Callable[[int], None]]:
        """Show how many of `total` bytes are done, at which rate, and how long the rest takes.

        The body calls what it is given with more bytes, from any thread.
        """
        if not self.interactive:
            now = time.monotonic()
            yield _Milestones(title, total, self.note, now, now).add
            return
        from rich.console import Console as Rich
        from rich.progress import (
            BarColumn,
            DownloadColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
            TransferSpeedColumn,
        )

        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=Rich(stderr=True), transient=True) as progress:
            task = progress.add_task(title, total=total)
            yield lambda more: progress.advance(task, more)

    @contextmanager
    def activity(self, title: str) -> Iterator[Callable[[str], None]]:
        """Show that something goes on; the body reports what it sees, repeats are not shown."""
        if self.interactive:
            with _spinner(title) as report:
                yield report
            return
        self.note(title)
        seen = ""

        def report_line(text: str) -> None:
            """Print what is new, a line each."""
            nonlocal seen
            if text != seen:
                self.note(f"  {text}")
            seen = text

        yield report_line


@dataclass
class _Milestones:
    """Says in plain lines, every so often, how far something is."""

    title: str
    total: int
    say: Callable[[str], None]
    began: float
    said: float
    done: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, more: int) -> None:
        """Count bytes, and say where we are when it is time."""
        with self.lock:
            self.done += more
            now = time.monotonic()
            if now - self.said < _SECONDS_BETWEEN_LINES or self.done >= self.total:
                return
            self.said = now
            rate = self.done / (now - self.began)
            left = (self.total - self.done) / rate if rate else 0.0
            self.say(
                f"{self.title}: {100 * self.done // self.total}% of {self.total / 1e6:.0f} MB,"
                f" {rate / 1e6:.1f} MB/s, {left:.0f} s left"
            )


@contextmanager
def _spinner(title: str) -> Iterator[Callable[[str], None]]:
    """Show a title, the time since it began and the newest report in one moving line."""
    from rich.console import Console as Rich
    from rich.markup import escape
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    seen: list[str] = []
    try:
        with Progress(*columns, console=Rich(stderr=True), transient=True) as progress:
            task = progress.add_task(escape(title), total=None)

            def report(text: str) -> None:
                """Show it behind the title, as far as the line has room."""
                seen.append(text)
                room = shutil.get_terminal_size().columns - _ROOM_FOR_TIME
                progress.update(task, description=escape(f"{title}: {text}"[:room]))

            yield report
    except RivaQsError:
        # The moving line is gone; what it showed may tell why it failed.
        for text in dict.fromkeys(seen[-_SHOWN_ON_FAILURE:]):
            _to_stderr(f"  {text}")
        raise


def print_anything() -> None:
    """Make stdout escape what its encoding lacks, as stderr does, instead of failing."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def _as_data(error: RivaQsError) -> dict[str, Any]:
    """Return an error as the object that `--json` prints."""
    kind = type(error).__name__
    return {"code": error.code, "type": kind, "message": error.message, "hint": error.hint}


def _coloured(text: str, colour: str) -> str:
    """Return `text` in a colour where colours are wanted."""
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    return text if plain or not sys.stderr.isatty() else f"{colour}{text}{_PLAIN}"


def _to_stderr(text: str) -> None:
    """Print one line on stderr; work goes on when nobody reads it."""
    with suppress(BrokenPipeError):
        sys.stderr.write(f"{text}\n")
        sys.stderr.flush()
