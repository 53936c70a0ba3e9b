"""The statements of a shell script, as far as official files are made of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from quickstart.legacy.tokens import Assignment, Token, Word


@dataclass(frozen=True)
class Command:
    """A simple command: its assignments and its words."""

    assignments: tuple[Assignment, ...]
    words: tuple[Word, ...]
    line: int


@dataclass(frozen=True)
class Test:
    """`[[ ... ]]`, by the tokens inside."""

    tokens: tuple[Token, ...]
    line: int


@dataclass(frozen=True)
class Chain:
    """Statements joined by && and ||; the first one's operator is &&."""

    links: tuple[tuple[str, Statement], ...]
    line: int


@dataclass(frozen=True)
class Not:
    """`! statement`."""

    statement: Statement
    line: int


@dataclass(frozen=True)
class Group:
    """`{ ...; }`."""

    body: Body
    line: int


@dataclass(frozen=True)
class If:
    """`if`, with a body for each condition and one for none."""

    branches: tuple[tuple[Body, Body], ...]
    otherwise: Body
    line: int


@dataclass(frozen=True)
class For:
    """`for name in words`."""

    name: str
    words: tuple[Word, ...]
    body: Body
    line: int


@dataclass(frozen=True)
class Case:
    """`case word in`, with a body for each list of patterns."""

    word: Word
    arms: tuple[tuple[tuple[Word, ...], Body], ...]
    line: int


@dataclass(frozen=True)
class Skipped:
    """What is not followed: functions, `while`, subshells and pipelines."""

    line: int


Statement: TypeAlias = Command | Test | Chain | Not | Group | If | For | Case | Skipped
Body: TypeAlias = tuple[Statement, ...]
