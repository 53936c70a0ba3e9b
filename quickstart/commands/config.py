"""The commands that look at the configuration, or make one."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 - typer looks at the signatures
from typing import Annotated

import typer

from quickstart.commands.session import session

config_app = typer.Typer(help="Look at the configuration, or make one.", rich_markup_mode=None)


@config_app.command("show")
def config_show(
    origin: Annotated[
        bool, typer.Option("--origin", help="Say where each value came from.")
    ] = False,
) -> None:
    """Print the values that hold."""
    loaded = session.load()
    lines = [
        f"{name}={loaded.shown(name)}" + (f"  # {loaded.origins[name]}" if origin else "")
        for name in loaded.origins
    ]
    rows = {n: {"value": loaded.data(n), "origin": o} for n, o in loaded.origins.items()}
    session.console.result(
        "\n".join(lines), {"verb": "config show", "file": str(loaded.file or ""), "settings": rows}
    )


@config_app.command("validate")
def config_validate() -> None:
    """Read the configuration and report every problem in it, the models it asks for included."""
    from quickstart import catalog

    loaded = session.load()
    models = [artifact.reference for artifact in catalog.wanted(loaded.settings)]
    for text in catalog.cautions(loaded.settings):
        session.console.warn(text)
    given = list(loaded.given)
    source = str(loaded.file) if loaded.file else "no configuration file"
    data = {
        "verb": "config validate",
        "valid": True,
        "file": str(loaded.file or ""),
        "given": given,
        "models": models,
    }
    session.console.result(f"{source}: no problem; {len(given)} keys are set", data)


@config_app.command("diff")
def config_diff(
    other: Annotated[
        Path | None, typer.Argument(help="Another configuration file.", metavar="[FILE]")
    ] = None,
) -> None:
    """Print how the values differ from the defaults, or from those of another file."""
    from quickstart.config import differences, load

    loaded = session.load()
    found = differences(loaded, load(other, environ={}) if other else None)
    lines = [line for each in found for line in each.lines()]
    rows = {d.name: {"value": d.value, "other": d.other, "origin": d.origin} for d in found}
    data = {"verb": "config diff", "against": str(other or "default"), "differences": rows}
    session.console.result("\n".join(lines), data)


@config_app.command("schema")
def config_schema() -> None:
    """Print a JSON Schema of all keys, for editors and programs."""
    import json

    from quickstart import reference

    schema = reference.schema()
    text = json.dumps(schema, indent=2)
    session.console.result(text, {"verb": "config schema", "schema": schema})


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
        session.console.warn(f"not taken over: {note}")
    if output:
        legacy.write(output, imported, replace=force)
        session.console.note(f"next: riva-qs -c {output} config validate")
    data = {"verb": "config import", "file": str(output or ""), **vars(imported)}
    session.console.result("" if output else imported.text, data)


@config_app.command("example")
def config_example() -> None:
    """Print a configuration file with every key, its meaning and its default."""
    from quickstart import reference

    session.console.result(
        reference.example(), {"verb": "config example", "text": reference.example()}
    )
