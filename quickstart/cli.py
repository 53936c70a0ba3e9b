"""The commands of riva-qs: each loads settings, calls one function and shows its result.

Everything heavy is imported inside the commands, so that `--help` and completion stay quick.
`main` is the one place that turns errors into exit codes.
"""

from __future__ import annotations

import gc
import signal
import sys
from pathlib import Path  # noqa: TC003 - typer looks at the signatures
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from quickstart import __version__
from quickstart.bench_cli import bench_app
from quickstart.errors import InterruptionError, RivaQsError, UsageError, from_os_error
from quickstart.session import DryRun, Yes
from quickstart.session import session as _session
from quickstart.store_cli import bundle_app, init, store_app

if TYPE_CHECKING:
    from types import FrameType

_PLAIN: dict[str, Any] = {"rich_markup_mode": None}
app = typer.Typer(name="riva-qs", pretty_exceptions_enable=False, **_PLAIN)
app.command()(init)
config_app = typer.Typer(help="Look at the configuration, or make one.", **_PLAIN)
app.add_typer(config_app, name="config")
image_app = typer.Typer(help="Build and list our images.", **_PLAIN)
app.add_typer(image_app, name="image")
app.add_typer(store_app)
app.add_typer(bundle_app, name="bundle")
app.add_typer(bench_app, name="bench")

# What Typer raises for a wrong command line: its own class, or in older versions Click's.
_TYPERS_OWN: Any = typer.BadParameter.__mro__[-4]


def _print_version(value: bool) -> None:
    if value:
        typer.echo(f"riva-qs {__version__}")
        raise typer.Exit


@app.callback()
def _global_options(
    config: Annotated[
        Path | None,
        typer.Option(
            "--config", "-c", help="The configuration file [./config.env].", metavar="FILE"
        ),
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", help="Override one setting; may be repeated.", metavar="KEY=VALUE"),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Print results and errors only.")
    ] = False,
    offline: Annotated[
        bool, typer.Option("--offline", help="Ask nothing of the network: --set offline=true.")
    ] = False,
    version: Annotated[  # noqa: ARG001 - its callback does the work
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    """From one configuration file to a speech service that answers."""
    _session.config, _session.overrides = config, overrides or []
    if offline:
        _session.overrides.append("offline=true")
    _session.json, _session.quiet = json, quiet


@app.command()
def start(dry_run: DryRun = False) -> None:
    """Start the service, and return when it answers."""
    from quickstart import lifecycle

    _session.show(lifecycle.start(_session.suite(), dry_run=dry_run))


@app.command()
def status() -> None:
    """Say whether the service answers: exit code 0 if so, else 6."""
    from quickstart import lifecycle

    _session.show(lifecycle.status(_session.suite()))


@app.command()
def stop(dry_run: DryRun = False) -> None:
    """Stop the service, after it has ended what it is doing."""
    from quickstart import lifecycle

    _session.show(lifecycle.stop(_session.suite(), dry_run=dry_run))


@app.command()
def clean(dry_run: DryRun = False, yes: Yes = False) -> None:
    """Remove what riva-qs made; archives that you put into rmir/ stay."""
    from quickstart import lifecycle

    _session.show(lifecycle.clean(_session.suite(), dry_run=dry_run, yes=yes))


@app.command()
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

    if follow and _session.json:
        raise UsageError("--json prints one object, and --follow never ends", "drop one of them")
    query = LogQuery(tail, log.parse_since(since) if since else None, follow, previous)
    lines = _session.suite().backend.logs(query)
    if _session.json:
        _session.console.result("", {"verb": "logs", "lines": list(lines)})
        return
    for line in lines:
        _session.console.line(line)


@app.command()
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
    settings = _session.load().settings
    language = language_code or settings.asr_language_code[0]
    request = client.Request(recording, language, model, streaming, word_times)
    uri = client.reachable(settings.riva_speech_api_host, settings.riva_speech_api_port)
    with client.connect(uri, client.tls_of(settings)) as server:
        heard = server.transcribe(request)
    words = [word.as_data() for word in heard.words]
    data = {"verb": "transcribe", "file": str(file), "transcript": heard.text, "words": words}
    times = [f"{w['start_ms']:>7} {w['end_ms']:>7}  {w['word']}" for w in words]
    _session.console.result("\n".join([heard.text, *times]), data)
    _session.console.note("next: riva-qs logs -f shows the server's log, riva-qs stop ends it")


@config_app.command("show")
def config_show(
    origin: Annotated[
        bool, typer.Option("--origin", help="Say where each value came from.")
    ] = False,
) -> None:
    """Print the values that hold."""
    loaded = _session.load()
    lines = [
        f"{name}={loaded.shown(name)}" + (f"  # {loaded.origins[name]}" if origin else "")
        for name in loaded.origins
    ]
    rows = {n: {"value": loaded.data(n), "origin": o} for n, o in loaded.origins.items()}
    _session.console.result(
        "\n".join(lines), {"verb": "config show", "file": str(loaded.file or ""), "settings": rows}
    )


@config_app.command("validate")
def config_validate() -> None:
    """Read the configuration and report every problem in it, the models it asks for included."""
    from quickstart import catalog

    loaded = _session.load()
    models = [artifact.reference for artifact in catalog.wanted(loaded.settings)]
    for text in catalog.cautions(loaded.settings):
        _session.console.warn(text)
    given = list(loaded.given)
    source = str(loaded.file) if loaded.file else "no configuration file"
    data = {
        "verb": "config validate",
        "valid": True,
        "file": str(loaded.file or ""),
        "given": given,
        "models": models,
    }
    _session.console.result(f"{source}: no problem; {len(given)} keys are set", data)


@config_app.command("diff")
def config_diff(
    other: Annotated[
        Path | None, typer.Argument(help="Another configuration file.", metavar="[FILE]")
    ] = None,
) -> None:
    """Print how the values differ from the defaults, or from those of another file."""
    from quickstart.config import differences, load

    loaded = _session.load()
    found = differences(loaded, load(other, environ={}) if other else None)
    lines = [line for each in found for line in each.lines()]
    rows = {d.name: {"value": d.value, "other": d.other, "origin": d.origin} for d in found}
    data = {"verb": "config diff", "against": str(other or "default"), "differences": rows}
    _session.console.result("\n".join(lines), data)


@config_app.command("schema")
def config_schema() -> None:
    """Print a JSON Schema of all keys, for editors and programs."""
    import json

    from quickstart import reference

    schema = reference.schema()
    text = json.dumps(schema, indent=2)
    _session.console.result(text, {"verb": "config schema", "schema": schema})


@config_app.command("import")
def config_import(
    file: Annotated[Path, typer.Argument(help="An official config.sh.", metavar="CONFIG.SH")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write it here.", metavar="FILE")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace FILE.")] = False,
) -> None:
    """Print an official config.sh as a config.env; the file is read, never executed."""
    from quickstart import legacy

    imported = legacy.import_config(file)
    for note in imported.notes:
        _session.console.warn(f"not taken over: {note}")
    if output:
        legacy.write(output, imported, replace=force)
        _session.console.note(f"next: riva-qs -c {output} config validate")
    data = {"verb": "config import", "file": str(output or ""), **vars(imported)}
    _session.console.result("" if output else imported.text, data)


@config_app.command("example")
def config_example() -> None:
    """Print a configuration file with every key, its meaning and its default."""
    from quickstart import reference

    _session.console.result(
        reference.example(), {"verb": "config example", "text": reference.example()}
    )


@image_app.command("build")
def image_build(
    variant: Annotated[
        str, typer.Option(help="cpu, cuda, jetpack6 or jetpack7 [by --platform].")
    ] = "",
    platform: Annotated[
        str, typer.Option(help="linux/amd64 or linux/arm64 [the engine's].", metavar="OS/ARCH")
    ] = "",
    base: Annotated[
        str, typer.Option(help="The image to stand on, instead of the table's.", metavar="IMAGE")
    ] = "",
    builder: Annotated[
        str, typer.Option(help="The image to install in, instead of the table's.", metavar="IMAGE")
    ] = "",
    tag: Annotated[str, typer.Option(help="The name of the image.", metavar="NAME:TAG")] = "",
    dry_run: DryRun = False,
) -> None:
    """Build the image that deploys and serves."""
    from quickstart import images

    bases = images.Bases(builder, base)
    _session.show(images.build(_session.console, variant, platform, bases, tag, dry_run=dry_run))


@image_app.command("list")
def image_list() -> None:
    """Print the images that can be built, and those that the engine has."""
    from quickstart import images

    _session.show(images.listing())


def main() -> NoReturn:
    """Run the command line and exit with its code."""
    from quickstart.console import print_anything

    print_anything()
    signal.signal(signal.SIGTERM, _terminated)
    arguments = sys.argv[1:] or ["--help"]
    _session.json = "--json" in arguments
    try:
        code = app(args=arguments, prog_name="riva-qs", standalone_mode=False) or 0
    except (
        RivaQsError,
        OSError,
        UnicodeEncodeError,
        KeyboardInterrupt,
        typer.Abort,
        _TYPERS_OWN,
    ) as error:
        ours = _as_ours(error)
        _session.console.error(ours)
        code = ours.code
    # What is left goes away with the process: Python would first search it all for garbage, twice.
    gc.freeze()
    sys.exit(code)


class _TerminatedError(KeyboardInterrupt):
    """SIGTERM has come; as an error of ours, who asks a server would take it for its answer."""


def _terminated(_number: int, _frame: FrameType | None) -> NoReturn:
    raise _TerminatedError


def _as_ours(error: BaseException) -> RivaQsError:
    """Return the error of our tree that an exception stands for."""
    if isinstance(error, RivaQsError):
        return error
    if isinstance(error, OSError):
        return from_os_error(error)
    if isinstance(error, UnicodeEncodeError):
        # Arguments may hold any bytes; neither JSON nor a server takes those that are no text.
        return UsageError(f"{error.object!a} is no text in UTF-8", "check the arguments")
    if isinstance(error, _TYPERS_OWN):
        command = getattr(getattr(error, "ctx", None), "command_path", "riva-qs")
        return UsageError(error.format_message(), f"{command} --help")
    terminated = isinstance(error, _TerminatedError) or isinstance(
        error.__cause__, _TerminatedError
    )
    return InterruptionError("stopped by SIGTERM" if terminated else "interrupted")
