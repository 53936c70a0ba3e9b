"""What every command has: the global options of this call, and where its result goes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from pathlib import Path

    from quickstart.config import Loaded
    from quickstart.console import Console
    from quickstart.lifecycle import Result, Suite

DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


@dataclass
class Session:
    """The global options of this call."""

    config: Path | None = None
    overrides: list[str] = field(default_factory=list)
    json: bool = False
    quiet: bool = False

    @property
    def console(self) -> Console:
        """Where output goes."""
        from quickstart.console import Console

        return Console(json=self.json, quiet=self.quiet)

    def load(self) -> Loaded:
        """Return the settings, or raise all their problems."""
        from quickstart.config import load

        return load(self.config, self.overrides)

    def suite(self) -> Suite:
        """Return what the verbs work on."""
        from quickstart.lifecycle import Suite

        return Suite(self.load().settings, self.console)

    def show(self, result: Result) -> None:
        """Print a result and end with its exit code."""
        self.console.result("\n".join(result.lines), result.data)
        if result.next_step:
            self.console.note(result.next_step)
        raise typer.Exit(result.code)


session = Session()
