"""Masking profane words: the first letter stays, and asterisks stand for the rest."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

_LETTERS = re.compile(r"\w[\w'\u2019-]*")


class ProfanityFilter:
    """Knows profane words, and phrases of several. Safe to share."""

    def __init__(self, entries: Iterable[str]) -> None:
        phrases = (tuple(map(_plain, entry.split())) for entry in entries)
        self._phrases = frozenset(phrase for phrase in phrases if any(phrase))
        self._longest = max(map(len, self._phrases), default=0)

    @classmethod
    def load(cls, path: Path) -> ProfanityFilter:
        """Read one word or phrase a line; what is not UTF-8 matches nothing."""
        return cls(path.read_text(encoding="utf-8", errors="replace").splitlines())

    def __len__(self) -> int:
        """Return the number of different words and phrases."""
        return len(self._phrases)

    def __call__(self, words: Sequence[str]) -> list[str]:
        """Return as many words, the profane ones masked; case and punctuation do not count."""
        plain = [_plain(word) for word in words]
        profane: set[int] = set()
        for size in range(1, self._longest + 1):
            for begin in range(len(words) - size + 1):
                if tuple(plain[begin : begin + size]) in self._phrases:
                    profane.update(range(begin, begin + size))
        return [_mask(word) if place in profane else word for place, word in enumerate(words)]


def _plain(word: str) -> str:
    """Return a word as it is compared: without case and the punctuation around it."""
    found = _LETTERS.search(word)
    return found[0].casefold() if found else ""


def _mask(word: str) -> str:
    return _LETTERS.sub(lambda found: found[0][0] + "*" * (len(found[0]) - 1), word, count=1)
