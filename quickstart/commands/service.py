"""The commands that run the service and use it."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 - typer looks at the signatures
from typing import Annotated

import typer

from quickstart.commands.session import DryRun, Yes, session
from quickstart.errors import UsageError

service_app = typer.Typer()


@service_app.command()
def start(dry_run: DryRun = False) -> None:
    """Start the service, and return when it answers."""
    from quickstart import lifecycle

    session.show(lifecycle.start(session.suite(), dry_run=dry_run))


@service_app.command()
def status() -> None:
    """Say whether the service answers: exit code 0 if so, else 6."""
    from quickstart import lifecycle

    session.show(lifecycle.status(session.suite()))


@service_app.command()
def stop(dry_run: DryRun = False) -> None:
    """Stop the service, after it has ended what it is doing."""
    from quickstart import lifecycle

    session.show(lifecycle.stop(session.suite(), dry_run=dry_run))


@service_app.command()
def clean(dry_run: DryRun = False, yes: Yes = False) -> None:
    """Remove what riva-qs made; archives that you put into rmir/ stay."""
    from quickstart import lifecycle

    session.show(lifecycle.clean(session.suite(), dry_run=dry_run, yes=yes))


@service_app.command()
def logs(
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on while the server runs.")
    ] = False,
    since: Annotated[
        str | None, typer.Option("--since", help="Only what is newer: an age (10m) or a time.")
    ] = None,
    tail: Annotated[
        int | None, typer.Option("--tail", "-n", min=0, help="Only the last lines.", metavar="N")
    ] = None,
    previous: Annotated[
        bool, typer.Option("--previous", help="Of the run before this one.")
    ] = False,
) -> None:
    """Print the log of the server."""
    from quickstart import log
    from quickstart.backends.base import LogQuery

    if follow and session.json:
        raise UsageError("--json prints one object, and --follow never ends", "drop one of them")
    query = LogQuery(tail, log.parse_since(since) if since else None, follow, previous)
    lines = session.suite().backend.logs(query)
    if session.json:
        session.console.result("", {"verb": "logs", "lines": list(lines)})
        return
    for line in lines:
        session.console.line(line)


@service_app.command()
def transcribe(
    file: Annotated[
        Path, typer.Argument(help="A WAV, FLAC or Ogg Opus recording.", metavar="FILE")
    ],
    streaming: Annotated[
        bool, typer.Option("--streaming/--offline", help="How the recording is sent.")
    ] = True,
    language_code: Annotated[str, typer.Option(help="[asr_language_code]")] = "",
    model: Annotated[str, typer.Option(help="A model by name; else the server chooses.")] = "",
    word_times: Annotated[
        bool, typer.Option("--word-times", help="Print when each word is said.")
    ] = False,
) -> None:
    """Print what is said in a recording."""
    from quickstart import audio, client

    recording = audio.read_recording(file)
    settings = session.load().settings
    language = language_code or settings.asr_language_code[0]
    request = client.Request(recording, language, model, streaming, word_times)
    uri = client.reachable(settings.riva_speech_api_host, settings.riva_speech_api_port)
    with client.connect(uri, client.tls_of(settings)) as server:
        heard = server.transcribe(request)
    words = [word.as_data() for word in heard.words]
    data = {"verb": "transcribe", "file": str(file), "transcript": heard.text, "words": words}
    times = [f"{w['start_ms']:>7} {w['end_ms']:>7}  {w['word']}" for w in words]
    session.console.result("\n".join([heard.text, *times]), data)
    session.console.note("next: riva-qs logs -f shows the server's log, riva-qs stop ends it")
