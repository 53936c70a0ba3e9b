"""Text to tokens: a shell script is split as a shell would split it, and nothing is expanded."""

from __future__ import annotations

import re
from bisect import bisect_right
from typing import TYPE_CHECKING

from quickstart.legacy.tokens import (
    Assignment,
    Expansion,
    Operator,
    ScriptError,
    Substitution,
    Text,
    Word,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from quickstart.legacy.tokens import Part, Token

_BLANK = re.compile(r"(?:[ \t]|\\\n|#[^\n]*)*")
_OPERATOR = re.compile(r";;&?|;&|&&|\|\||<<<|<<-?|&>>?|>>|>&|<&|[;&|()<>\n]")
_PLAIN = re.compile(r"[^ \t\n;&|()<>'\"\\$`]+")
_PLAIN_IN_SUBSCRIPT = re.compile(r"[^ \t\n;&|()<>'\"\\$`\]]+")
_PLAIN_IN_QUOTES = re.compile(r"[^\"\\$`]+")
_NAME = re.compile(r"[A-Za-z_]\w*")
_EQUALS = re.compile(r"\+?=")
_SIMPLE_EXPANSION = re.compile(r"[A-Za-z_]\w*|[0-9?!#@*$-]")
_SINGLE_QUOTED = re.compile(r"'[^']*'")
_BACKQUOTED = re.compile(r"`((?:[^`\\]|\\.)*)`", re.DOTALL)
_NESTING = re.compile(r"\\.|'[^']*'|\"(?:[^\"\\]|\\.)*\"|[{}()]", re.DOTALL)
_MOST_DOCUMENTS = 100


def tokens(text: str) -> list[Token]:
    """Return the tokens of a script.

    Raises:
        ScriptError: A quote, a bracket or a brace is never closed.
    """
    return list(_Lexer(text).tokens())


def word(text: str) -> Word:
    """Return a text as one word, blanks included, as if it stood inside an expansion."""
    return _Lexer(text).whole()


class _Lexer:
    """Walks over a script once."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._documents = 0
        self._lines = [match.start() for match in re.finditer("\n", text)]

    def tokens(self) -> Iterator[Token]:
        """Yield every token; the bodies of here-documents are left out."""
        expects_mark, marks = False, list[str]()
        while self._skip(_BLANK) < len(self._text):
            token = self._token()
            yield token
            if isinstance(token, Word) and expects_mark:
                marks.append("".join(p.text for p in token.parts if isinstance(p, Text)))
            expects_mark = isinstance(token, Operator) and token.text in {"<<", "<<-"}
            if isinstance(token, Operator) and token.text == "\n":
                while marks:
                    self._skip_document(marks.pop(0))

    def whole(self) -> Word:
        """Return all of the text as one word."""
        parts: list[Part] = []
        while self._at < len(self._text):
            plain = self._match(_PLAIN)
            if not plain and self._text[self._at] == '"':
                parts.extend(self._quoted())
            else:
                parts.append(Text(plain, quoted=False) if plain else self._part())
        return Word(tuple(parts), 1)

    def _token(self) -> Token:
        """Return the token that begins here."""
        line = self._line()
        operator = self._match(_OPERATOR)
        if operator:
            return Operator(operator, line)
        return self._assignment(line) or self._word(line)

    def _assignment(self, line: int) -> Assignment | None:
        """Return the assignment that begins here, or nothing where there is none."""
        start = self._at
        name = self._match(_NAME)
        subscript = self._subscript(line) if name else None
        equals = self._match(_EQUALS) if name else ""
        if not equals:
            self._at = start
            return None
        append = equals == "+="
        if self._text.startswith("(", self._at):
            self._at += 1
            return Assignment(name, subscript, append, tuple(self._elements(line)), line)
        return Assignment(name, subscript, append, self._word(line), line)

    def _subscript(self, line: int) -> Word | None:
        """Return the word in the brackets that begin here; without them, nothing is read."""
        start = self._at
        if self._text.startswith("[", self._at):
            self._at += 1
            inside = self._word(line, _PLAIN_IN_SUBSCRIPT)
            if inside.parts and self._text.startswith("]", self._at):
                self._at += 1
                return inside
        self._at = start
        return None

    def _elements(self, line: int) -> Iterator[tuple[Word | None, Word]]:
        """Yield the elements of an array, with their subscripts, to its closing bracket."""
        while True:
            while self._skip(_BLANK) < len(self._text) and self._text[self._at] == "\n":
                self._at += 1
            if self._at >= len(self._text):
                raise ScriptError(line, "the array that begins here is never closed")
            if self._match(_OPERATOR) == ")":
                return
            start = self._at
            subscript = self._subscript(line)
            if subscript is None or not self._match(_EQUALS):
                subscript, self._at = None, start
            element = self._word(self._line())
            if not element.parts and subscript is None:
                self._at += 1  # an operator has no meaning here; step over it
                continue
            yield subscript, element

    def _word(self, line: int, plain: re.Pattern[str] = _PLAIN) -> Word:
        """Return the word that begins here; it may be empty."""
        parts: list[Part] = []
        while self._at < len(self._text):
            text = self._match(plain)
            if text:
                parts.append(Text(text, quoted=False))
            elif self._text[self._at] in "'\"\\$`":
                parts.extend(self._quoted() if self._text[self._at] == '"' else [self._part()])
            else:
                break
        return Word(tuple(parts), line)

    def _part(self) -> Part:
        """Return the part that begins here with a character that is not plain."""
        character = self._text[self._at]
        if character == "$":
            return self._dollar(quoted=False)
        if character == "`":
            return self._backquoted(quoted=False)
        if character == "'":
            return Text(self._closed(_SINGLE_QUOTED)[1:-1], quoted=True)
        escaped = self._text[self._at + 1 : self._at + 2] if character == "\\" else character
        self._at += 2 if character == "\\" else 1
        return Text("" if escaped == "\n" else escaped, quoted=True)

    def _quoted(self) -> list[Part]:
        """Return the parts between double quotes."""
        line = self._line()
        self._at += 1
        parts: list[Part] = [Text("", quoted=True)]
        while self._at < len(self._text):
            text = self._match(_PLAIN_IN_QUOTES)
            if text:
                parts.append(Text(text, quoted=True))
                continue
            character = self._text[self._at]
            if character == '"':
                self._at += 1
                return parts
            parts.append(self._part_in_quotes(character))
        raise ScriptError(line, "the quote that begins here is never closed")

    def _part_in_quotes(self, character: str) -> Part:
        """Return the part that begins here between double quotes."""
        if character == "$":
            return self._dollar(quoted=True)
        if character == "`":
            return self._backquoted(quoted=True)
        following = self._text[self._at + 1 : self._at + 2]
        self._at += 2
        kept = "" if following == "\n" else following
        return Text(kept if following in '"\\$`\n' else f"\\{following}", quoted=True)

    def _dollar(self, *, quoted: bool) -> Part:
        """Return the expansion that begins here."""
        following = self._text[self._at + 1 : self._at + 2]
        if following == "{":
            return Expansion(self._nested("{", "}"), quoted)
        if following == "(":
            return Substitution(self._nested("(", ")"), quoted)
        self._at += 1
        name = self._match(_SIMPLE_EXPANSION)
        return Expansion(name, quoted) if name else Text("$", quoted)

    def _backquoted(self, *, quoted: bool) -> Part:
        """Return the command between backquotes."""
        return Substitution(self._closed(_BACKQUOTED)[1:-1], quoted)

    def _nested(self, opening: str, closing: str) -> str:
        """Return what is between two brackets, of which the first comes after the next one."""
        start, depth = self._at + 2, 0
        for match in _NESTING.finditer(self._text, self._at + 1):
            depth += (match[0] == opening) - (match[0] == closing)
            if depth == 0 and match[0] == closing:
                self._at = match.end()
                return self._text[start : match.start()]
        raise ScriptError(self._line(), f"the ${opening} that begins here is never closed")

    def _closed(self, pattern: re.Pattern[str]) -> str:
        """Return what a pattern of quotes matches here."""
        found = self._match(pattern)
        if not found:
            raise ScriptError(self._line(), "the quote that begins here is never closed")
        return found

    def _skip_document(self, mark: str) -> None:
        """Step over a here-document; one that is never closed is no document."""
        self._documents += 1
        if self._documents > _MOST_DOCUMENTS:
            raise ScriptError(self._line(), f"it has more than {_MOST_DOCUMENTS} here-documents")
        end = re.compile(rf"^\t*{re.escape(mark)}$", re.MULTILINE).search(self._text, self._at)
        if end:
            self._at = end.end()

    def _skip(self, pattern: re.Pattern[str]) -> int:
        """Step over what a pattern matches here, and return where that leads."""
        self._match(pattern)
        return self._at

    def _match(self, pattern: re.Pattern[str]) -> str:
        """Return what a pattern matches here, and step over it."""
        match = pattern.match(self._text, self._at)
        if match is None:
            return ""
        self._at = match.end()
        return match[0]

    def _line(self) -> int:
        """Return the number of the line that is being read."""
        return bisect_right(self._lines, self._at - 1) + 1
