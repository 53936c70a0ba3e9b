"""Speech hints: phrases with classes, such as "my number is $FULLPHONENUM".

What is said of a class is written as its grammar says, where the words of the phrase stand around
it. Classes come from a FAR file, by names that begin with a dollar sign.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from riva_speech.errors import DamagedArchiveError
from riva_speech.text import grammars
from riva_speech.text.rewriting import spread, unchanged

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from riva_speech.text.rewriting import Rewriting

# Clients send the same phrases again and again; each set of them becomes a transducer once.
_REMEMBERED = 4
_MOST_PHRASES = 100
# Each mention of a class in a phrase is a copy of its grammar, which may have megabytes.
_MOST_CLASSES = 4
# The parts that other programs put around phrases; no classes.
_HELPERS = "$__"


# How classes are called; NVIDIA's are.
_CLASS = re.compile(r"\$[A-Z][A-Z0-9_]*")


def classes_in(phrase: str) -> list[str]:
    """Return the classes that a phrase names, known or not."""
    return [word for word in phrase.split() if _CLASS.fullmatch(word)]


def literal_parts(phrase: str) -> list[str]:
    """Return the runs of plain words between the classes of a phrase."""
    runs: list[list[str]] = [[]]
    for word in phrase.split():
        if word.startswith("$"):
            runs.append([])
        else:
            runs[-1].append(word)
    return [" ".join(run) for run in runs if run]


class SpeechHints:
    """Writes what belongs to a class as its grammar says. Safe to share."""

    def __init__(self, path: Path) -> None:
        """Load the classes of a FAR file.

        Raises:
            UnsupportedError: pynini is not installed.
            DamagedArchiveError: The file is no FAR, or holds no class.
        """
        found = grammars.read_far(path)
        self._classes = {
            name: grammars.without_margins(fst)
            for name, fst in found.items()
            if name.startswith("$") and not name.startswith(_HELPERS)
        }
        if not self._classes:
            raise DamagedArchiveError(f"{path} holds no class: names of classes begin with $")
        self._rewriter = lru_cache(_REMEMBERED)(self._compile)

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes."""
        return tuple(sorted(self._classes))

    def relevant(self, phrases: Sequence[str]) -> tuple[str, ...]:
        """Return the phrases that hold a class of this model, each once.

        Clients choose them, so no more than a hundred are, and none with more than four classes or
        with a byte that ends strings.
        """
        found = dict.fromkeys(one for one in phrases if self._is_relevant(one))
        return tuple(found)[:_MOST_PHRASES]

    def _is_relevant(self, phrase: str) -> bool:
        mentions = sum(word in self._classes for word in phrase.split())
        return 0 < mentions <= _MOST_CLASSES and "\0" not in phrase

    def __call__(self, words: Sequence[str], phrases: Sequence[str]) -> Rewriting:
        """Return words with what the phrases' classes cover as one writes it."""
        relevant = self.relevant(phrases)
        path = None
        if words and relevant:
            path = grammars.best_path(" ".join(words), self._rewriter(relevant))
        return _read(path, len(words)) if path else unchanged(words)

    def _compile(self, phrases: tuple[str, ...]) -> Any:  # noqa: ANN401 - pynini has no types
        return grammars.phrase_rewriter(phrases, self._classes)


def _read(path: Sequence[grammars.Pair], count: int) -> Rewriting:
    """Split a path at the spaces that are read and written: what lies between is one unit."""
    rewriting: Rewriting = []
    begin = first = place = 0
    for step, pair in enumerate(path):
        if pair.read == ord(" "):
            place += 1
            if pair.written == pair.read:
                rewriting += spread(grammars.written(path[begin:step]), first, place)
                begin, first = step + 1, place
    return [*rewriting, *spread(grammars.written(path[begin:]), first, count)]
