"""The commands of `riva-qs bench`."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from quickstart.commands.session import session
from quickstart.errors import RivaQsError, UsageError, from_os_error

if TYPE_CHECKING:
    from quickstart.bench.ladder import Measured

bench_app = typer.Typer(help="Measure a service as its clients see it.", rich_markup_mode=None)
_SAMPLE = Path(__file__).parents[1] / "samples" / "en-US_sample.wav"
_MOST_STREAMS = 10_000
# A request is given up that takes so many seconds more than all that are sent at once hold.
_PATIENCE_SECONDS = 60


@bench_app.callback()
def _bench() -> None:
    """Measure a service as its clients see it."""


@bench_app.command("asr")
def bench_asr(
    file: Annotated[
        Path, typer.Argument(help="A mono WAV recording of 16 bits.", metavar="[FILE]")
    ] = _SAMPLE,
    *,
    uri: Annotated[
        str, typer.Option(help="Any Riva server [the configured one].", metavar="HOST:PORT")
    ] = "",
    streams: Annotated[
        str, typer.Option(help="The steps of the ladder.", metavar="N,N,...")
    ] = "1,2,4,8,16,32,64",
    chunk_ms: Annotated[int, typer.Option(min=10, max=10_000, help="Length of a chunk.")] = 160,
    trials: Annotated[int, typer.Option(min=1, help="How often each step is tried.")] = 3,
    parallel: Annotated[
        int,
        typer.Option(
            min=0, max=_MOST_STREAMS, help="Requests at once for throughput; 0: not measured."
        ),
    ] = 32,
    keep_going: Annotated[
        bool, typer.Option("--keep-going", help="Go on after a step that does not hold.")
    ] = False,
    language_code: Annotated[str, typer.Option(help="[asr_language_code]")] = "",
    model: Annotated[str, typer.Option(help="A model by name; else the server chooses.")] = "",
    plot: Annotated[
        Path | None, typer.Option(help="Draw the ladder, as SVG.", metavar="FILE.svg")
    ] = None,
) -> None:
    """Measure latency over the number of streams, and throughput."""
    from quickstart import client
    from quickstart.bench import ladder, recording
    from quickstart.bench.wire import Wanted

    client.require()
    plan = ladder.Plan(_steps(streams), chunk_ms, trials, parallel, keep_going)
    _check_plot(plot)
    heard = recording.read(file)
    settings = session.load().settings
    language = language_code or settings.asr_language_code[0]
    patience = _PATIENCE_SECONDS + heard.seconds * max(*plan.streams, parallel, 1)
    wanted = Wanted(heard.rate, language, model, patience)
    where = uri or client.reachable(settings.riva_speech_api_host, settings.riva_speech_api_port)
    with session.console.activity(f"measuring {where}") as report:
        found = ladder.measure(
            where, heard, wanted, plan, tls=client.tls_of(settings), report=report
        )
    _show(found, where, file, plot)


def _show(found: Measured, uri: str, file: Path, plot: Path | None) -> None:
    from quickstart.bench import report

    if plot:
        _draw(found, uri, plot)
    text = [session.console.table(report.COLUMNS, report.rows(found)), *report.sentences(found)]
    data = {"verb": "bench asr", "uri": uri, "file": str(file), "plot": str(plot or "")}
    session.console.result("\n".join(text), {**data, **report.data(found)})


def _draw(found: Measured, uri: str, path: Path) -> None:
    from quickstart.bench.plot import svg

    try:
        path.write_text(svg(found, f"{uri}, chunks of {found.plan.chunk_ms} ms"), encoding="utf-8")
    except OSError as error:
        raise from_os_error(error) from error


def _check_plot(path: Path | None) -> None:
    """Raise an error before anything is measured for a picture that could not be written."""
    if path is None:
        return
    if path.suffix.lower() != ".svg":
        raise UsageError(f"{path} is not drawn: only SVG is", "name a file that ends with .svg")
    folder = path.absolute().parent
    if not folder.is_dir():
        raise RivaQsError(f"{path} cannot be written: its folder does not exist", "make it first")
    if path.is_dir() or not os.access(path if path.exists() else folder, os.W_OK):
        raise RivaQsError(f"{path} cannot be written", "name a file that you may write")


def _steps(text: str) -> tuple[int, ...]:
    """Return the steps of the ladder, in ascending order.

    Raises:
        UsageError: They are not numbers, or not of a size that makes sense.
    """
    words = [word.strip() for word in text.split(",")]
    if not all(
        re.fullmatch("[0-9]{1,9}", word) and 0 < int(word) <= _MOST_STREAMS for word in words
    ):
        message = f"--streams {text}: numbers from 1 to {_MOST_STREAMS} are wanted"
        raise UsageError(message, "separate them by commas: --streams 1,2,4")
    return tuple(sorted({int(word) for word in words}))
