"""What a model's output tokens mean."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from riva_speech.errors import DamagedArchiveError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_SENTENCEPIECE_SPACE = "\N{LOWER ONE EIGHTH BLOCK}"
_CONTROL = ("<s>", "</s>", "<pad>")
_UNKNOWN = "\N{DOUBLE QUESTION MARK}"


class VocabularyType(str, Enum):
    """How tokens mark where words begin."""

    CHARACTER = "character"  # a space is a token
    SENTENCEPIECE = "sentencepiece"  # a piece that begins a word begins with U+2581
    WORDPIECE = "wordpiece"  # a piece that continues a word begins with ##


@dataclass(frozen=True)
class Word:
    """A word and the half-open range of positions of its tokens in the decoded sequence."""

    text: str
    first: int
    last: int


@dataclass(frozen=True)
class Vocabulary:
    """The tokens of a CTC model in the order of its outputs; the blank follows the last one."""

    tokens: tuple[str, ...]
    type: VocabularyType

    @classmethod
    def load(cls, path: Path, kind: VocabularyType) -> Vocabulary:
        """Read one token a line.

        Raises:
            DamagedArchiveError: The file is no text.
        """
        try:
            lines = path.read_text(encoding="utf-8").split("\n")
        except UnicodeDecodeError as error:
            raise DamagedArchiveError(f"{path} cannot be read: {error}") from error
        return cls(tuple(lines[:-1] if lines[-1] == "" else lines), kind)

    def save(self, path: Path) -> None:
        """Write one token a line."""
        path.write_text("".join(f"{token}\n" for token in self.tokens), encoding="utf-8")

    @property
    def blank(self) -> int:
        """The index of the CTC blank."""
        return len(self.tokens)

    def words(self, ids: Sequence[int], begin: int = 0) -> list[Word]:
        """Split decoded tokens, whose positions are counted from ``begin``, into words."""
        words: list[Word] = []
        text, first = "", begin
        for position, index in enumerate(ids, begin):
            begins, piece = self._read(self.tokens[index])
            if begins:
                if text:
                    words.append(Word(text, first, position))
                text, first = "", position
            if not text:
                first = position
            text += piece
        if text:
            words.append(Word(text, first, begin + len(ids)))
        return words

    def begins_word(self, piece: str) -> bool:
        """Whether no word goes on with this token: it begins one, or stands between two."""
        return piece in _CONTROL or self._read(piece)[0]

    def _read(self, piece: str) -> tuple[bool, str]:
        """Return whether a token begins a word, and the text that it adds to one."""
        if piece in ("<unk>", "[UNK]"):
            return True, _UNKNOWN
        if piece in _CONTROL:
            return False, ""
        if self.type is VocabularyType.CHARACTER:
            return piece == " ", piece.strip(" ")
        if self.type is VocabularyType.SENTENCEPIECE:
            return piece.startswith(_SENTENCEPIECE_SPACE), piece.strip(_SENTENCEPIECE_SPACE)
        return not piece.startswith("##"), piece.removeprefix("##")
