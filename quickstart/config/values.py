"""Texts become typed values, or an explanation of what is wrong with them."""

from __future__ import annotations

import difflib
import re
import shlex
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from quickstart.config.keys import Setting

LIST = "tuple[str, ...]"


def nearest(word: str, known: Iterable[str]) -> str:
    """Return the question whether a known word was meant, or nothing when none is near."""
    spellings = {each.lower(): each for each in known}
    near = difflib.get_close_matches(word.lower(), spellings, n=1, cutoff=0.6)
    return f"; did you mean {spellings[near[0]]}?" if near else ""


def parse(setting: Setting, text: str, base: Path) -> tuple[Any, str]:
    """Return the typed value of a text that was written in `base`, and what is wrong with it."""
    key = setting.key
    wrong = "" if key.secret else _shell_syntax(setting, text)
    if not wrong and not text.isprintable():
        wrong = "it holds a control character"
    if wrong:
        return None, wrong
    value, wrong = _typed(setting.kind, text)
    if not wrong and key.choices and value not in key.choices:
        valid = ", ".join(choice or "empty" for choice in key.choices)
        wrong = f'"{text}" is not one of {valid}{nearest(text, key.choices)}'
    if not wrong and key.check is not None:
        wrong = key.check(value)
    if key.resolve is not None and not wrong:
        value = key.resolve(text, base)
    return value, wrong


def _typed(kind: str, text: str) -> tuple[Any, str]:
    """Return `text` as a value of the kind that a setting has, and what is wrong with it."""
    if kind == "bool":
        value = {"true": True, "false": False}.get(text.lower())
        return value, "" if value is not None else f'"{text}" is neither true nor false'
    if kind == "int":
        number = re.fullmatch(r"[+-]?[0-9]{1,9}", text)
        return int(text) if number else 0, "" if number else f'"{text}" is not a whole number'
    return tuple(text.split()) if kind == LIST else text, ""


def _shell_syntax(setting: Setting, text: str) -> str:
    """Explain what a shell would have evaluated in a value, since nothing here does."""
    if text.startswith("("):
        return f"{text} is a bash array; write {_without_array(setting, text)}"
    if re.search(r"\$[({\w]|`", text):
        return f"{text} is shell syntax, and this file is not executed; write the value itself"
    return ""


def _without_array(setting: Setting, text: str) -> str:
    """Return the line to write instead of a bash array."""
    try:
        words = shlex.split(text.strip("()"), posix=True) or [""]
    except ValueError:
        words = text.strip("()").replace('"', "").replace("'", "").split() or [""]
    if setting.kind == LIST:
        return f"{setting.name}={' '.join(words)}"
    others = f" (one value; there were {len(words)})" if len(words) > 1 else ""
    return f"{setting.name}={words[0]}{others}"
