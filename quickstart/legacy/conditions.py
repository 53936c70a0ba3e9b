"""What stands in `[[ ... ]]`: true, false, or None where only a shell could say."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from quickstart.legacy.tokens import Operator, Token, Word

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Read = Callable[[Word], str]

_DEEPEST = 50
_EQUAL = {"=", "==", "!="}
_NUMBERS = {"-eq", "-ne", "-lt", "-le", "-gt", "-ge"}


def holds(tokens: Sequence[Token], text: Read, pattern: Read) -> bool | None:
    """Say whether a test holds.

    Args:
        tokens: What stands between the brackets.
        text: Returns a word as one text; a NUL in it means that only a shell knows it.
        pattern: Returns a word as a pattern.
    """
    test = _Test(tokens, text, pattern)
    result = test.either()
    return result if test.at == len(tokens) else None


@dataclass
class _Test:
    """One test, read from left to right."""

    tokens: Sequence[Token]
    text: Read
    pattern: Read
    at: int = 0
    depth: int = 0

    def either(self) -> bool | None:
        """Read tests joined by ||."""
        result = self._both()
        while self._next() in {"||", "-o"}:
            self.at += 1
            other = self._both()
            result = (
                True if True in (result, other) else _unless_unknown(result, other, known=False)
            )
        return result

    def _both(self) -> bool | None:
        """Read tests joined by &&."""
        result = self._negated()
        while self._next() in {"&&", "-a"}:
            self.at += 1
            other = self._negated()
            result = (
                False if False in (result, other) else _unless_unknown(result, other, known=True)
            )
        return result

    def _negated(self) -> bool | None:
        """Read one test with the negations before it."""
        negations = 0
        while self._next() == "!":
            self.at += 1
            negations += 1
        result = self._one()
        return result if result is None or negations % 2 == 0 else not result

    def _one(self) -> bool | None:
        """Read one test, or several in brackets."""
        if self._next() == "(":
            self.at += 1
            self.depth += 1
            result = self.either() if self.depth <= _DEEPEST else None
            self.at += self._next() == ")"
            return result
        left = self._word()
        if left is None:
            return None
        if left.plain in {"-z", "-n"}:
            return self._length(left.plain)
        if self._next() in _EQUAL | _NUMBERS:
            operator = self._next()
            self.at += 1
            return self._compared(left, operator, self._word())
        return _known(self.text(left)) and bool(self.text(left))

    def _length(self, operator: str) -> bool | None:
        """Say whether a text is empty, or is not; without one it is."""
        word = self._word()
        text = self.text(word) if word else ""
        return _known(text) and (operator == "-z") == (not text)

    def _compared(self, left: Word, operator: str, right: Word | None) -> bool | None:
        """Say how two words compare."""
        one = self.text(left)
        other = self.pattern(right) if right else ""
        if not (_known(one) and _known(other)):
            return None
        if operator in _NUMBERS:
            return _compared_numbers(one, operator, other)
        return fnmatchcase(one, other) == (operator != "!=")

    def _next(self) -> str:
        """Return the operator or the plain word that comes next."""
        token = self.tokens[self.at] if self.at < len(self.tokens) else None
        if isinstance(token, Operator):
            return token.text
        return token.plain if isinstance(token, Word) else ""

    def _word(self) -> Word | None:
        """Return the next word, and step over it."""
        token = self.tokens[self.at] if self.at < len(self.tokens) else None
        self.at += isinstance(token, Word)
        return token if isinstance(token, Word) else None


def _known(text: str) -> bool | None:
    """Return None for a text that only a shell knows."""
    return None if "\0" in text else True


def _unless_unknown(*results: bool | None, known: bool) -> bool | None:
    """Return what follows from results that are all known, else None."""
    return None if None in results else known


def _compared_numbers(one: str, operator: str, other: str) -> bool | None:
    """Say how two numbers compare; None where one is none."""
    try:
        difference = int(one) - int(other)
    except ValueError:
        return None
    signs = {"-eq": (0,), "-ne": (-1, 1), "-lt": (-1,), "-le": (-1, 0), "-gt": (1,), "-ge": (0, 1)}
    return (difference > 0) - (difference < 0) in signs[operator]
