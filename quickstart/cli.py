"""The command line of riva-qs: the options before the verb, and the verbs of `commands`.

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
from quickstart.commands.bench import bench_app
from quickstart.commands.config import config_app
from quickstart.commands.image import image_app
from quickstart.commands.service import service_app
from quickstart.commands.session import session
from quickstart.commands.store import bundle_app, init, store_app
from quickstart.errors import (
    InterruptionError,
    RivaQsError,
    UsageError,
    from_os_error,
    interrupt_behind,
)

if TYPE_CHECKING:
    from types import FrameType

app = typer.Typer(name="riva-qs", pretty_exceptions_enable=False, rich_markup_mode=None)
app.command()(init)
app.add_typer(service_app)
app.add_typer(config_app, name="config")
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
    session.config, session.overrides = config, overrides or []
    if offline:
        session.overrides.append("offline=true")
    session.json, session.quiet = json, quiet


def main() -> NoReturn:
    """Run the command line and exit with its code."""
    from quickstart.console import print_anything

    print_anything()
    signal.signal(signal.SIGTERM, _terminated)
    arguments = sys.argv[1:] or ["--help"]
    session.json = "--json" in arguments
    try:
        code = app(args=arguments, prog_name="riva-qs", standalone_mode=False) or 0
    except (Exception, KeyboardInterrupt) as error:
        ours = _as_ours(error)
        if not ours:
            raise
        session.console.error(ours)
        code = ours.code
    # What is left goes away with the process: Python would first search it all for garbage, twice.
    gc.freeze()
    sys.exit(code)


class _TerminatedError(KeyboardInterrupt):
    """SIGTERM has come; as an error of ours, who asks a server would take it for its answer."""


def _terminated(_number: int, _frame: FrameType | None) -> NoReturn:
    raise _TerminatedError


def _as_ours(error: BaseException) -> RivaQsError | None:
    """Return the error of our tree that an exception stands for; None for a bug."""
    interrupt = interrupt_behind(error)
    if interrupt or isinstance(error, typer.Abort):  # which is also input that has ended
        terminated = isinstance(interrupt, _TerminatedError)
        return InterruptionError("stopped by SIGTERM" if terminated else "interrupted")
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
    return None
