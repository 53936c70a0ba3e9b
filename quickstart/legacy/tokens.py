"""The tokens of a shell script: words with their quoting kept, assignments and operators."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias


class ScriptError(ValueError):
    """A script cannot be read; `line` is where."""

    def __init__(self, line: int, message: str) -> None:
        super().__init__(message)
        self.line = line


@dataclass(frozen=True)
class Text:
    """Characters that stand for themselves."""

    text: str
    quoted: bool


@dataclass(frozen=True)
class Expansion:
    """`$name` or `${...}`, by what is inside."""

    inside: str
    quoted: bool


@dataclass(frozen=True)
class Substitution:
    """`$(...)` or backquotes, by the command inside."""

    command: str
    quoted: bool


Part: TypeAlias = Text | Expansion | Substitution


@dataclass(frozen=True)
class Word:
    """One word, in parts that differ in kind or quoting."""

    parts: tuple[Part, ...]
    line: int

    @property
    def plain(self) -> str:
        """The word, where it is one unquoted text; keywords are such words."""
        if len(self.parts) == 1 and isinstance(self.parts[0], Text) and not self.parts[0].quoted:
            return self.parts[0].text
        return ""


@dataclass(frozen=True)
class Assignment:
    """`name=word`, `name[word]=word`, `name=(words)`, each also with `+=`."""

    name: str
    subscript: Word | None
    append: bool
    value: Word | tuple[tuple[Word | None, Word], ...]
    line: int


@dataclass(frozen=True)
class Operator:
    """What stands between words, a line's end included."""

    text: str
    line: int


Token: TypeAlias = Word | Assignment | Operator
