"""Every option of ``riva-build speech_recognition`` as a table, made of what the program declares.

python -m riva_speech.servicemaker.reference
"""

from __future__ import annotations

import argparse
import re
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from riva_speech.servicemaker.pipelines import speech_recognition
from riva_speech.servicemaker.pipelines.effects import Effect, effect_of, only_value

if TYPE_CHECKING:
    from collections.abc import Iterable

_DEFAULT = re.compile(r"(?P<text>.*?)\s*\(default: (?P<default>.*)\)", re.DOTALL)
_TITLES = {
    Effect.WORKS: ("What works", "does"),
    Effect.ONE_VALUE: ("What takes one value only", "because"),
    Effect.NONE: ("What has no effect", "because"),
    Effect.REFUSED: ("What is refused", "because"),
}


@dataclass(frozen=True)
class Option:
    """An option: ``usage`` is how it is written, ``text`` what its help says of it."""

    name: str
    usage: str
    effect: Effect
    text: str
    default: str


class _Listing(argparse.ArgumentParser):
    """Keeps what is declared."""

    def __init__(self) -> None:
        self.declared: list[argparse.Action] = []
        super().__init__(add_help=False)

    def add_argument(self, *names: str, **settings: Any) -> argparse.Action:  # noqa: ANN401 - argparse's own
        """Declare an option."""
        action = super().add_argument(*names, **settings)
        self.declared.append(action)
        return action


def options() -> list[Option]:
    """Return the options of the pipeline, in the order in which they are declared."""
    listing = _Listing()
    speech_recognition.add_arguments(listing)
    return [_option(action) for action in listing.declared]


def _option(action: argparse.Action) -> Option:
    text = (action.help or "") % vars(action)
    found = _DEFAULT.fullmatch(text)
    shown, default = (found["text"], found["default"]) if found else (text, "")
    (name,) = action.option_strings
    return Option(name, _usage(name, action, text), effect_of(text), shown, default)


def _usage(name: str, action: argparse.Action, text: str) -> str:
    """Return an option with the values that it takes, where there are any to choose."""
    effect = effect_of(text)
    if effect is Effect.ONE_VALUE:
        return f"{name}={only_value(text)}"
    if action.nargs == 0 or effect is not Effect.WORKS:
        return name
    value = action.metavar or action.dest.upper()
    if action.choices:
        value = "{" + ",".join(action.choices) + "}"
    return f"{name}[={value}]" if action.nargs == "?" else f"{name}={value}"


def table() -> str:
    """Return all options as Markdown: a table for each effect."""
    listed = options()
    return "\n\n".join(
        _section(effect, [one for one in listed if one.effect is effect]) for effect in _TITLES
    )


def _section(effect: Effect, listed: Iterable[Option]) -> str:
    title, column = _TITLES[effect]
    if effect is Effect.WORKS:
        head = ["option", column, "default"]
        rows = [[f"`{one.usage}`", one.text, one.default] for one in listed]
    else:
        # The title says already what stands before the reason.
        head = ["option", column]
        rows = [[f"`{one.usage}`", one.text.partition(": ")[2]] for one in listed]
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join([f"## {title}", "", *map(_line, lines)])


def _line(cells: Iterable[str]) -> str:
    # A word in angle brackets would be taken for HTML.
    shown = (" ".join(cell.split()).replace("<", "&lt;") for cell in cells)
    return f"| {' | '.join(shown)} |"


if __name__ == "__main__":
    sys.stdout.write(f"{table()}\n")
