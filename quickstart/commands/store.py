"""The commands that fill a model location and keep it in order."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 - typer looks at the signatures
from typing import Annotated, Any

import typer

from quickstart.commands.session import DryRun, Yes, session

store_app = typer.Typer()
bundle_app = typer.Typer(
    help="Carry archives, models and images to hosts with no network.", rich_markup_mode=None
)


def init(
    dry_run: DryRun = False,
    locked: Annotated[
        bool, typer.Option("--locked", help="Reproduce the location's lock file, or fail.")
    ] = False,
    lock_file: Annotated[
        Path | None, typer.Option(help="Reproduce this lock file, or fail.", metavar="FILE")
    ] = None,
    yes: Yes = False,  # noqa: ARG001 - nothing asks yet
) -> None:
    """Fetch the models that the settings ask for, and deploy them."""
    from quickstart import deployment
    from quickstart import lock_file as locks

    suite = session.suite()
    lock: dict[str, Any] | None = None
    if lock_file or locked:
        lock = locks.read_lock(suite, lock_file)
    session.show(deployment.init(suite, dry_run=dry_run, lock=lock))


@store_app.command()
def rollback(
    generation: Annotated[
        str, typer.Argument(help="[the one before]", metavar="[GENERATION]", show_default=False)
    ] = "",
    listing: Annotated[bool, typer.Option("--list", help="Print the generations.")] = False,
    dry_run: DryRun = False,
) -> None:
    """Go back to the generation of models before, or to a named one."""
    from quickstart import upkeep

    suite = session.suite()
    if listing:
        session.show(upkeep.generations(suite))
    session.show(upkeep.rollback(suite, generation, dry_run=dry_run))


@store_app.command()
def verify(
    repair: Annotated[
        bool, typer.Option("--repair", help="Fetch and deploy again what is damaged.")
    ] = False,
) -> None:
    """Hash every archive and every deployed file; exit code 9 when one is damaged."""
    from quickstart import upkeep

    session.show(upkeep.verify(session.suite(), repair=repair))


@store_app.command()
def gc(
    keep: Annotated[
        int | None,
        typer.Option(help="Older generations to keep [keep_generations].", min=0, metavar="N"),
    ] = None,
    dry_run: DryRun = False,
) -> None:
    """Remove older generations, and what interrupted runs left."""
    from quickstart import upkeep

    session.show(upkeep.gc(session.suite(), keep, dry_run=dry_run))


@bundle_app.command("export")
def bundle_export(
    file: Annotated[Path, typer.Argument(help="The bundle to write.", metavar="FILE")],
    what: Annotated[
        str,
        typer.Option(help="rmirs,models,images, or some of them [all there are].", metavar="KINDS"),
    ] = "",
    force: Annotated[bool, typer.Option("--force", help="Replace FILE.")] = False,
) -> None:
    """Write archives, deployed models and images into one file."""
    from quickstart import bundle

    kinds = [kind.strip() for kind in what.split(",") if kind.strip()]
    session.show(bundle.export(session.suite(), file, kinds, force=force))


@bundle_app.command("import")
def bundle_import(
    file: Annotated[Path, typer.Argument(help="A bundle.", metavar="FILE")],
    dry_run: DryRun = False,
) -> None:
    """Verify a bundle, and take over what it holds."""
    from quickstart import bundle

    session.show(bundle.import_bundle(session.suite(), file, dry_run=dry_run))
