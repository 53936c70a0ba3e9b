from __future__ import annotations

import io
import json

import pytest

from quickstart.console import Console
from quickstart.errors import ConfigError, UsageError


class Terminal(io.StringIO):
    """A stream that calls itself a terminal."""

    def isatty(self) -> bool:
        return True


def on_terminal(monkeypatch: pytest.MonkeyPatch, answer: str = "") -> Terminal:
    """Put stdin and stderr on a terminal, where a person gives an answer."""
    stream = Terminal()
    monkeypatch.setattr("sys.stderr", stream)
    monkeypatch.setattr("sys.stdin", Terminal(answer))
    monkeypatch.setenv("TERM", "xterm")
    return stream


def test_results_and_notes_go_apart(capsys: pytest.CaptureFixture[str]) -> None:
    """Results go to stdout and everything else to stderr."""
    console = Console()
    console.result("result", {})
    console.note("note")
    assert capsys.readouterr() == ("result\n", "note\n")


def test_json_is_the_only_output(capsys: pytest.CaptureFixture[str]) -> None:
    """Under --json stdout is one object, and notes are not printed."""
    console = Console(json=True)
    console.note("note")
    console.result("text", {"verb": "x"})
    out, err = capsys.readouterr()
    assert json.loads(out) == {"schema_version": 1, "verb": "x"}
    assert err == ""


def test_errors_have_their_hint(capsys: pytest.CaptureFixture[str]) -> None:
    """An error is two lines, or one without a hint, also in silence."""
    console = Console(quiet=True)
    console.error(UsageError("wrong", "right"))
    console.error(ConfigError(["one", "two"]))
    assert capsys.readouterr().err == (
        "error: wrong\nhint: right\nerror: 2 problems:\n  one\n  two\n"
    )


def test_without_a_terminal_progress_is_lines(capsys: pytest.CaptureFixture[str]) -> None:
    """What takes long is told in plain lines, each once."""
    console = Console()
    with console.activity("waiting") as report:
        for text in ("loading", "loading", "done"):
            report(text)
    with console.bytes_progress("fetching", 10) as progress:
        progress(10)
    assert capsys.readouterr().err == "waiting\n  loading\n  done\n"


def test_without_a_terminal_a_long_fetch_says_how_far_it_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every few seconds a line tells share, rate and the time left."""
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    with Console().bytes_progress("fetching a", 200_000_000) as progress:
        for _ in range(20):
            now[0] += 1
            progress(10_000_000)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "fetching a: 25% of 200 MB, 10.0 MB/s, 15 s left"
    assert len(lines) == 3


def test_on_a_terminal_progress_is_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal a bar shows bytes, a moving line shows the newest report, markup is text."""
    terminal = on_terminal(monkeypatch)
    console = Console()
    with console.bytes_progress("fetching", 10) as progress:
        progress(10)
    with console.activity("waiting") as report:
        report("[bold]loading")
    assert "fetching" in terminal.getvalue()
    assert "10/10 bytes" in terminal.getvalue()
    assert "waiting: [bold]loading" in terminal.getvalue()


def test_a_failure_shows_what_the_moving_line_showed(monkeypatch: pytest.MonkeyPatch) -> None:
    """When something fails on a terminal, the last reports stay to be read."""
    terminal = on_terminal(monkeypatch)
    console = Console()
    with pytest.raises(UsageError):
        _fail_in(console)
    assert terminal.getvalue().endswith("  first\n  second\n")


def _fail_in(console: Console) -> None:
    """Report twice, and fail."""
    with console.activity("working") as report:
        report("first")
        report("second")
        raise UsageError("wrong")


def test_silence_holds_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """--quiet shows no bar."""
    terminal = on_terminal(monkeypatch)
    with Console(quiet=True).activity("waiting") as report:
        report("loading")
    assert terminal.getvalue() == ""


@pytest.mark.parametrize("answer", ["y\n", "YES\n"])
def test_a_person_may_agree(monkeypatch: pytest.MonkeyPatch, answer: str) -> None:
    """Yes means yes, in any case."""
    terminal = on_terminal(monkeypatch, answer)
    assert Console().confirm("Really?")
    assert "Really? [y/N]" in terminal.getvalue()


@pytest.mark.parametrize("answer", ["\n", "", "no\n", "yeah\n"])
def test_anything_else_is_no(monkeypatch: pytest.MonkeyPatch, answer: str) -> None:
    """Only yes means yes."""
    on_terminal(monkeypatch, answer)
    assert not Console().confirm("Really?")


def test_nobody_is_asked_without_a_terminal() -> None:
    """Without a terminal a question is an error that names --yes, never a hang."""
    with pytest.raises(UsageError) as caught:
        Console().confirm("Really?")
    assert "--yes" in caught.value.hint
