"""Keep what the development lists say out of what is learnt."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

RUN = 6


@dataclass(frozen=True)
class Heldout:
    """What is said in the development lists, in a form that is quick to look up."""

    texts: frozenset[str]
    runs: frozenset[tuple[str, ...]]

    @classmethod
    def of(cls, texts: Iterable[str]) -> Heldout:
        """Remember texts, and every run of six words in them."""
        whole = frozenset(texts)
        return cls(whole, frozenset(run for text in whole for run in runs(text)))

    def shares(self, text: str) -> bool:
        """Say whether a text is one of these, or shares six words in a row with one."""
        return text in self.texts or any(run in self.runs for run in runs(text))


def runs(text: str) -> Iterator[tuple[str, ...]]:
    """Return every run of six words of a text."""
    words = text.split()
    return (tuple(words[start : start + RUN]) for start in range(len(words) - RUN + 1))
