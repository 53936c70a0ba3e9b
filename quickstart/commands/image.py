"""The commands that build and list our images."""

from __future__ import annotations

from typing import Annotated

import typer

from quickstart.commands.session import DryRun, session

image_app = typer.Typer(help="Build and list our images.", rich_markup_mode=None)


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
    session.show(images.build(session.console, variant, platform, bases, tag, dry_run=dry_run))


@image_app.command("list")
def image_list() -> None:
    """Print the images that can be built, and those that the engine has."""
    from quickstart import images

    session.show(images.listing())
