"""Inverse text normalisation: from words as they are spoken to how one writes them.

A tagger turns "twenty dollars" into ``tokens { money { integer_part: "20" currency: "$" } }``, and
a verbaliser each token into text. Which order of a token's fields a verbaliser wants is its own
affair, so all of them are tried. This is what Sparrowhawk and NeMo do with the same grammars.
"""

from __future__ import annotations

import re
from itertools import islice, permutations, product
from typing import TYPE_CHECKING, Any, TypeAlias

from riva_speech.errors import DamagedArchiveError
from riva_speech.text import grammars
from riva_speech.text.rewriting import spread

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from riva_speech.text.rewriting import Rewriting

Fields: TypeAlias = "list[tuple[str, Any]]"

TAGGER = "TOKENIZE_AND_CLASSIFY"
VERBALISER = "ALL"

_ORDERED = "preserve_order"
# Where a token of the tagger begins.
_OPENING = "tokens {"
# A value ends with a quotation mark before a space, for it may hold others.
_PART = re.compile(r'\s*(?:(?P<name>\w+)\s*(?:\{|:\s*(?:"(?P<value>.*?)"(?=\s)|true))|(?P<end>\}))')
# No token of any grammar has so many fields that more orders would have to be tried.
_MOST_ORDERS = 720


class InverseNormaliser:
    """Writes words as one would: numbers in digits, amounts, dates. Safe to share."""

    def __init__(self, tagger: Path, verbaliser: Path) -> None:
        """Load the grammars.

        Args:
            tagger: The FAR file ``tokenize_and_classify.far``.
            verbaliser: The FAR file ``verbalize.far``.

        Raises:
            UnsupportedError: pynini is not installed.
            DamagedArchiveError: A file is no FAR, or lacks its grammar.
        """
        self._tagger = _grammar(tagger, TAGGER)
        self._verbaliser = _grammar(verbaliser, VERBALISER)

    def __call__(self, words: Sequence[str]) -> Rewriting:
        """Return the written form of words; a token that nothing can write stays as it was."""
        rewriting: Rewriting = []
        for tagged, first, last in self._tokens(words):
            text = self._written(tagged) or " ".join(words[first:last])
            rewriting += spread(text, first, last)
        return rewriting

    def _tokens(self, words: Sequence[str]) -> Iterator[tuple[str, int, int]]:
        """Yield each token, as the tagger writes it, and the range of its words."""
        path = grammars.best_path(" ".join(words), self._tagger) if words else None
        if path is None:
            for place, word in enumerate(words):
                yield f'{_OPENING} name: "{word}" }} ', place, place + 1
            return
        begins = _begins(path)
        places = [sum(pair.read == ord(" ") for pair in path[:begin]) for begin in begins]
        ends = [*begins[1:], len(path)]
        for begin, end, first, last in zip(
            begins, ends, places, [*places[1:], len(words)], strict=True
        ):
            if last > first:
                yield grammars.written(path[begin:end]), first, last

    def _written(self, tagged: str) -> str:
        for fields in _parse(tagged):
            if fields[0] == "name":
                return str(fields[1])
            for order in islice(_orders([fields]), _MOST_ORDERS):
                path = grammars.best_path(order, self._verbaliser)
                if path is not None:
                    return grammars.written(path).strip()
        return ""


def _grammar(path: Path, name: str) -> Any:  # noqa: ANN401 - pynini has no types
    found = grammars.read_far(path)
    if name not in found:
        raise DamagedArchiveError(
            f"{path} holds {', '.join(found)}, and not {name}",
            hint="export it with NeMo's text processing for Sparrowhawk",
        )
    return found[name]


def _begins(path: Sequence[grammars.Pair]) -> list[int]:
    """Return the steps of a path at which tokens begin to be written; the first is 0."""
    steps = [step for step, pair in enumerate(path) if pair.written]
    text = bytes(path[step].written for step in steps)
    begins = [steps[found.start()] for found in re.finditer(re.escape(_OPENING.encode()), text)]
    return [0, *begins[1:]]


def _parse(tagged: str) -> Fields:
    """Return the fields of a token, ``tokens { ... }``; a value is a text or fields."""
    outer: Fields = []
    stack = [outer]
    for part in _PART.finditer(tagged):
        if part["end"]:
            if len(stack) > 1:
                stack.pop()
        elif part[0].endswith("{"):
            inner: Fields = []
            stack[-1].append((part["name"], inner))
            stack.append(inner)
        else:
            value = "true" if part["value"] is None else part["value"]
            stack[-1].append((part["name"], value))
    return list(outer[0][1]) if outer and isinstance(outer[0][1], list) else []


def _orders(fields: Fields) -> Iterator[str]:
    """Yield fields as text, in each order that they may have, their own first."""
    keeps_order = any(name == _ORDERED for name, _ in fields)
    for order in [fields] if keeps_order else permutations(fields):
        for texts in product(*(list(islice(_field(*one), _MOST_ORDERS)) for one in order)):
            yield " ".join(texts)


def _field(name: str, value: Any) -> Iterator[str]:  # noqa: ANN401 - text or fields
    if isinstance(value, list):
        yield from (f"{name} {{ {text} }}" for text in _orders(value))
    elif name == _ORDERED:
        yield f"{name}: true"
    else:
        yield f'{name}: "{value}"'
