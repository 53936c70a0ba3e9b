"""How words are spelt with a model's tokens, by the model's own tokenizer where it has one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from riva_speech.errors import DamagedArchiveError
from riva_speech.text.lexicon import word_pieces
from riva_speech.text.vocabulary import VocabularyType

if TYPE_CHECKING:
    from pathlib import Path

    from riva_speech.text.vocabulary import Vocabulary

    Spelling = tuple[int, ...]

# What begins a word in SentencePiece's tokens.
_BEGIN = "\N{LOWER ONE EIGHTH BLOCK}"


class Speller:
    """Spells words with the tokens of a vocabulary. Safe to share.

    The spaces between the words of a character vocabulary are no part of a spelling.
    """

    def __init__(self, vocabulary: Vocabulary, tokenizer: Path | None = None) -> None:
        """Load the tokenizer.

        Args:
            vocabulary: The model's tokens.
            tokenizer: SentencePiece's own file. Without it, or without its library, words are
                spelt with as few tokens as possible.

        Raises:
            DamagedArchiveError: The file is no tokenizer.
        """
        self._numbers = {token: number for number, token in enumerate(vocabulary.tokens)}
        self._type = vocabulary.type
        self._count = len(vocabulary.tokens)
        self._longest = max(map(len, vocabulary.tokens), default=0)
        self._pieces = word_pieces(vocabulary)
        is_pieces = vocabulary.type is VocabularyType.SENTENCEPIECE
        self._tokenizer = _load(tokenizer) if tokenizer and is_pieces else None

    def spell(self, word: str, count: int = 1) -> list[Spelling]:
        """Return at most ``count`` spellings of a word, its own first; none if it has none.

        A word that the tokens cannot spell is tried in lower case too.
        """
        for form in dict.fromkeys((word, word.lower())):
            if found := self._spell(form, count):
                return found
        return []

    def _spell(self, word: str, count: int) -> list[Spelling]:
        own = self.own(word)
        found = dict.fromkeys([own] if own else [])
        if not own or count > len(found):
            found.update(dict.fromkeys(self._shortest(word, count)))
        return list(found)[:count]

    def own(self, word: str) -> Spelling:
        """Return what the model's own tokenizer makes of a word; () where there is none."""
        if self._type is not VocabularyType.SENTENCEPIECE:
            return self._pieces(word)
        if self._tokenizer is None:
            return ()
        tokens = self._tokenizer.encode(word)
        is_spelt = self._tokenizer.unk_id() not in tokens
        # A tokenizer of another model may have more tokens than this one.
        return tuple(tokens) if is_spelt and max(tokens, default=0) < self._count else ()

    def _shortest(self, word: str, count: int) -> list[Spelling]:
        """Return the spellings of the fewest tokens, at most ``count`` of them."""
        if not word or self._type is VocabularyType.CHARACTER:
            return []
        best: list[list[Spelling]] = [[()], *([] for _ in word)]
        for end in range(1, len(word) + 1):
            found = [
                (*before, token)
                for begin in range(max(0, end - self._longest), end)
                if (token := self._numbers.get(self._written(word, begin, end))) is not None
                for before in best[begin]
            ]
            best[end] = sorted(found, key=len)[:count]
        return best[-1]

    def _written(self, word: str, begin: int, end: int) -> str:
        if self._type is VocabularyType.SENTENCEPIECE:
            return word[begin:end] if begin else _BEGIN + word[:end]
        return f"##{word[begin:end]}" if begin else word[:end]


def _load(tokenizer: Path) -> Any:  # noqa: ANN401 - sentencepiece has no types
    try:
        from sentencepiece import SentencePieceProcessor  # noqa: PLC0415 - optional
    except ImportError:
        return None
    try:
        return SentencePieceProcessor(model_file=str(tokenizer))
    except (OSError, RuntimeError) as error:
        raise DamagedArchiveError(
            f"{tokenizer} is no tokenizer that SentencePiece reads: {error}"
        ) from error
