"""Sentences: what may be learnt from, and how it is written down."""

from __future__ import annotations

import gzip
import random
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

# Share-alike text would bind the model to its licence.
REFUSED_SOURCES = frozenset({"clinc_wiki_sents"})
# Titles end no sentence by their stop; a sentence begins with a capital, perhaps behind quotes.
_TITLES = re.compile(r"\b(Mr|Mrs|Dr|St|Messrs|Hon|Gen|Col|Capt)\.")
_ENDS = re.compile(
    r"(?<=[.!?])[\"')\N{RIGHT DOUBLE QUOTATION MARK}\N{RIGHT SINGLE QUOTATION MARK}]*"
    r"\s+(?=[\"(]*[A-Z])"
)
# Headings are shorter, tables and lists longer.
_SHORTEST, _LONGEST = 3, 80
_NOT_SPOKEN = re.compile(r"[^a-z' ]+")
_QUOTES = re.compile(r"(?<![a-z])'|'(?![a-z])")
# Marks that change no word; a sentence with any other (digits, currency) is not said as written.
_WRITTEN = re.compile(
    r"[A-Za-z \t.,;:!?\"'()\[\]_*\-"
    "\N{EM DASH}\N{EN DASH}\N{LEFT DOUBLE QUOTATION MARK}\N{RIGHT DOUBLE QUOTATION MARK}"
    "\N{LEFT SINGLE QUOTATION MARK}\N{RIGHT SINGLE QUOTATION MARK}]+"
)


@dataclass(frozen=True)
class Sentence:
    """A sentence as written, and where it is from."""

    source: str
    written: str

    @property
    def spoken(self) -> str:
        """The words alone: lower case and apostrophes."""
        return spoken(self.written)


def spoken(written: str) -> str:
    """Return the words of a sentence in lower case, with the apostrophes within them.

    What has no letter in English, such as digits, is left out, not read.
    """
    plain = written.lower().replace("\N{RIGHT SINGLE QUOTATION MARK}", "'").replace("-", " ")
    return " ".join(_QUOTES.sub(" ", _NOT_SPOKEN.sub(" ", plain)).split())


def readable(written: str) -> bool:
    """Say whether the words of a sentence are all that a voice reads in it."""
    return _WRITTEN.fullmatch(written) is not None


def split(paragraphs: Iterable[str]) -> Iterator[str]:
    """Return the words of each sentence of a running text that is read as it is written."""
    for paragraph in paragraphs:
        for written in _ENDS.split(_TITLES.sub(r"\1", paragraph.strip())):
            words = spoken(written)
            if readable(written) and _SHORTEST <= len(words.split()) <= _LONGEST:
                yield words


def read_sentences(path: Path) -> list[Sentence]:
    """Read ``source<tab>sentence`` lines, all of them, in order."""
    return list(_parse(path))


def _parse(path: Path) -> Iterator[Sentence]:
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        for line in lines:
            source, _, written = line.rstrip("\n").partition("\t")
            yield Sentence(source, written)


def numbered(sentences: list[Sentence]) -> list[Sentence]:
    """Put sentences in the order whose numbers Kokoro's token file uses."""
    order = list(sentences)
    random.Random(0).shuffle(order)
    return order
