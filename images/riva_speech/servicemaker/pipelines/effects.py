"""What an option does that this riva-build does not need: nothing, one value only, or an error.

Its help text begins with it, so that readers of ``-h`` see it first, and ``reference`` makes tables
of all options by it.
"""

from __future__ import annotations

import argparse
import re
from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class Effect(Enum):
    """What happens to an option that is given."""

    WORKS = "works"
    ONE_VALUE = "one value"
    NONE = "no effect"
    REFUSED = "refused"


_ONE_VALUE = re.compile(r"(\S+) only: ")


def no_effect(reason: str) -> str:
    """Return the help text of an option that is taken and changes nothing."""
    return f"{Effect.NONE.value}: {reason}"


def refused(reason: str) -> str:
    """Return the help text of an option that is an error."""
    return f"{Effect.REFUSED.value}: {reason}"


def only(value: str, reason: str) -> str:
    """Return the help text of an option that may be given with one value."""
    return f"{value} only: {reason}"


def exactly(number: int, reason: str) -> Callable[[str], int]:
    """Return what reads an option that may be this number only, and tells why of any other."""

    def read(text: str) -> int:
        """Return the number; any other is an ``ArgumentTypeError``."""
        if text != str(number):
            raise argparse.ArgumentTypeError(f"{text} is not supported: {reason}")
        return number

    return read


def only_value(text: str) -> str:
    """Return the one value that an option takes, by its help text; empty where it takes more."""
    found = _ONE_VALUE.match(text)
    return found[1] if found else ""


def effect_of(text: str) -> Effect:
    """Tell what happens to an option, by its help text."""
    if only_value(text):
        return Effect.ONE_VALUE
    named = (one for one in (Effect.NONE, Effect.REFUSED) if text.startswith(f"{one.value}: "))
    return next(named, Effect.WORKS)


def add_refused(parser: argparse.ArgumentParser, option: str, reason: str) -> None:
    """Declare an option of the official tool that is an error here."""

    def refuse(_: str) -> str:
        """Raise an ``ArgumentTypeError``, whatever the value."""
        raise argparse.ArgumentTypeError(f"not supported: {reason}")

    parser.add_argument(option, type=refuse, nargs="?", const="", metavar="X", help=refused(reason))
