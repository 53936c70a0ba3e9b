"""Lexicons: the words that a decoder may give, each with its spellings in tokens.

The file has one spelling a line, ``word<TAB>token token ...``; a word may have several.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from riva_speech.text.vocabulary import VocabularyType

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from riva_speech.text.vocabulary import Vocabulary

# A word of a hundred tokens is no word, and would only make the search slow.
_MAX_TOKENS = 100


@dataclass(frozen=True)
class Lexicon:
    """Spellings as (word, tokens) pairs, in the order of the file.

    The spaces between the words of a character vocabulary are no part of a spelling.
    """

    entries: tuple[tuple[str, tuple[int, ...]], ...]

    @property
    def words(self) -> list[str]:
        """Each word once, in the order of its first spelling."""
        return list(dict.fromkeys(word for word, _ in self.entries))

    @classmethod
    def load(cls, path: Path, vocabulary: Vocabulary) -> Lexicon:
        """Read a lexicon.

        Raises:
            ValueError: A line is malformed or names a token that the model does not have.
        """
        numbers = {token: number for number, token in enumerate(vocabulary.tokens)}
        return cls(tuple(_parse(path.read_text(encoding="utf-8").splitlines(), numbers)))

    def save(self, path: Path, vocabulary: Vocabulary) -> None:
        """Write a lexicon."""
        lines = [
            f"{word}\t{' '.join(vocabulary.tokens[token] for token in tokens)}\n"
            for word, tokens in self.entries
        ]
        path.write_text("".join(lines), encoding="utf-8")


def _parse(lines: Iterable[str], numbers: dict[str, int]) -> Iterator[tuple[str, tuple[int, ...]]]:
    for place, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        word, _, spelling = line.partition("\t")
        tokens = spelling.split()
        if not word.strip() or not 0 < len(tokens) <= _MAX_TOKENS:
            raise ValueError(f"line {place} is not word<TAB>token token ...")
        if unknown := [token for token in tokens if token not in numbers]:
            raise ValueError(
                f"line {place} spells {word!r} with {unknown[0]!r}, no token of the model"
            )
        yield word.strip(), tuple(numbers[token] for token in tokens)


def word_pieces(vocabulary: Vocabulary) -> Callable[[str], tuple[int, ...]]:
    """Return what spells words with a character or word-piece vocabulary; () where it cannot.

    Word pieces are the longest that fit, from the left, as BERT's tokenizer takes them.
    """
    numbers = {token: number for number, token in enumerate(vocabulary.tokens)}
    continues = "" if vocabulary.type is VocabularyType.CHARACTER else "##"
    longest = 1 if vocabulary.type is VocabularyType.CHARACTER else _MAX_TOKENS

    def spell(word: str) -> tuple[int, ...]:
        """Return the tokens of a word, the longest first; none where it cannot be spelt."""
        tokens: list[int] = []
        begin = 0
        while begin < len(word):
            prefix = continues if begin else ""
            ends = range(min(len(word), begin + longest), begin, -1)
            end = next((one for one in ends if prefix + word[begin:one] in numbers), None)
            if end is None:
                return ()
            tokens.append(numbers[prefix + word[begin:end]])
            begin = end
        return tuple(tokens)

    return spell
