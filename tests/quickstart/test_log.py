from __future__ import annotations

from datetime import datetime, timezone
from typing import TYPE_CHECKING

import pytest

from quickstart import log
from quickstart.backends.base import LogQuery
from quickstart.errors import NotReadyError, UsageError

if TYPE_CHECKING:
    from pathlib import Path

NOW = datetime(2026, 1, 31, 12, 0, 0, tzinfo=timezone.utc)
LINES = [
    "starting",
    "2026-01-31T11:00:00.000Z INFO old",
    "2026-01-31T11:55:00.500Z ERROR failed",
    "Traceback",
    "2026-01-31T11:59:00.000Z INFO new",
]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "server.log"
    path.write_text("\n".join(LINES) + "\n")
    return path


def shown(path: Path, query: LogQuery) -> list[str]:
    return list(log.show(path, query, lambda: False))


@pytest.mark.parametrize(("text", "age"), [("90s", 90), ("10m", 600), ("2h", 7200), ("1d", 86400)])
def test_ages_count_back_from_now(text: str, age: int) -> None:
    """`10m` is ten minutes ago."""
    assert log.parse_since(text, NOW) == NOW.timestamp() - age


@pytest.mark.parametrize("text", ["2026-01-31T12:00:00Z", "2026-01-31T13:00:00+01:00"])
def test_times_are_absolute(text: str) -> None:
    """An ISO-8601 time means itself, in any zone."""
    assert log.parse_since(text) == NOW.timestamp()


@pytest.mark.parametrize("text", ["", "yesterday", "10", "10x", "-5m", "2026-13-01T00:00:00Z"])
def test_other_texts_are_no_time(text: str) -> None:
    """What is neither an age nor a time is refused with examples."""
    with pytest.raises(UsageError, match="neither an age"):
        log.parse_since(text)


def test_lines_without_a_time_belong_to_the_entry_before(path: Path) -> None:
    """A traceback is as old as the line that it follows."""
    since = log.parse_since("10m", NOW)
    assert shown(path, LogQuery(since=since)) == LINES[2:]


def test_a_message_is_what_follows_time_and_level() -> None:
    """Progress shows what a program says, and not when; levels above INFO stay."""
    assert [log.message(line) for line in LINES] == [
        "starting",
        "old",
        "ERROR failed",
        "Traceback",
        "new",
    ]


def test_tail_counts_after_the_age_filter(path: Path) -> None:
    """The last lines are the last of those that are new enough."""
    assert shown(path, LogQuery(tail=1)) == LINES[-1:]
    assert shown(path, LogQuery(tail=0)) == []
    assert shown(path, LogQuery(tail=99, since=log.parse_since("10m", NOW))) == LINES[2:]


def test_a_last_line_without_an_end_is_shown(path: Path) -> None:
    """What a killed server wrote last is shown though its line never ended."""
    path.write_text("one\ntw")
    assert shown(path, LogQuery()) == ["one", "tw"]


def test_following_shows_what_comes_and_ends_with_the_server(path: Path) -> None:
    """A followed log yields whole lines as they come, and ends after the last one."""
    parts = ["fir", "st\nsec", "ond\n"]

    def alive() -> bool:
        """Write the next part, as a server does that lives as long as it has any."""
        with path.open("a") as sink:
            sink.write(parts.pop(0))
        return bool(parts)

    lines = list(log.show(path, LogQuery(tail=0, follow=True), alive))
    assert lines == ["first", "second"]


def test_no_log_means_no_server_has_run(tmp_path: Path) -> None:
    """Asking for a log that is not there says how to get one."""
    with pytest.raises(NotReadyError, match="no server has run"):
        shown(tmp_path / "server.log", LogQuery())
