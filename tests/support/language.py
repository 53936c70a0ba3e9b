"""Small language models, written as text, and what they say of a sentence."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

BEGIN, END, UNKNOWN = "<s>", "</s>", "<unk>"


@dataclass(frozen=True)
class Bigrams:
    """A bigram model with back-off; all numbers are logarithms to the base of ten."""

    unigrams: dict[str, float]
    backoffs: dict[str, float]
    bigrams: dict[tuple[str, str], float]

    def save(self, path: Path) -> Path:
        """Write it as an ARPA file."""
        words = [UNKNOWN, BEGIN, END, *self.unigrams]
        known = {UNKNOWN: -9.0, BEGIN: -99.0, END: -1.0, **self.unigrams}
        lines = [
            "\\data\\",
            f"ngram 1={len(words)}",
            f"ngram 2={len(self.bigrams)}",
            "",
            "\\1-grams:",
        ]
        lines += [f"{known[word]}\t{word}\t{self.backoffs.get(word, 0.0)}" for word in words]
        lines += ["", "\\2-grams:"]
        lines += [f"{score}\t{' '.join(pair)}" for pair, score in self.bigrams.items()]
        path.write_text("\n".join([*lines, "", "\\end\\", ""]))
        return path

    def score(self, sentence: list[str]) -> float:
        """Return the logarithm of a sentence's probability, its end included."""
        total = 0.0
        for before, word in zip([BEGIN, *sentence], [*sentence, END], strict=True):
            alone = self.unigrams.get(word, -1.0 if word == END else -9.0)
            backed_off = self.backoffs.get(before, 0.0) + alone
            total += self.bigrams.get((before, word), backed_off)
        return total
