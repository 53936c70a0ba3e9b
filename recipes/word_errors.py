"""Counting word errors."""

from __future__ import annotations


def distance(said: list[str], heard: list[str]) -> int:
    """Count the words to change, drop or add to turn one into the other."""
    row = list(range(len(heard) + 1))
    for place, word in enumerate(said, start=1):
        diagonal, row[0] = row[0], place
        for column, other in enumerate(heard, start=1):
            change = diagonal + (word != other)
            diagonal, row[column] = row[column], min(change, row[column] + 1, row[column - 1] + 1)
    return row[-1]
