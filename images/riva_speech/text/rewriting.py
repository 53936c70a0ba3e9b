"""Rewriting words, and knowing which words became which.

A rewriting is a list of ``Word``: each with its text, and the half-open range of the words that it
stands for. So times and confidences find their way through any number of rewritings.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from riva_speech.text.vocabulary import Word

if TYPE_CHECKING:
    from collections.abc import Sequence

Rewriting: TypeAlias = "list[Word]"


def unchanged(words: Sequence[str]) -> Rewriting:
    """Return the rewriting that leaves all words as they are."""
    return [Word(text, place, place + 1) for place, text in enumerate(words)]


def spread(text: str, first: int, last: int) -> Rewriting:
    """Return the words of a text that stands for a range of words.

    Word ``k`` of ``n`` stands for what lies in its part of the range: one word each where there are
    as many as before.
    """
    pieces, count = text.split(), last - first
    return [
        Word(
            piece,
            first + place * count // len(pieces),
            first - (-(place + 1) * count // len(pieces)),
        )
        for place, piece in enumerate(pieces)
    ]
