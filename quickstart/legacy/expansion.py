"""Words to texts: variables, `${...}` and the few commands whose output is data.

There is no command here that reads, writes or starts anything. What only a shell could know
taints the value it would have become part of, and the taint is told instead of guessed away.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from glob import escape
from typing import TYPE_CHECKING

from quickstart.legacy.arrays import Value, first, items, position
from quickstart.legacy.lexer import tokens, word
from quickstart.legacy.tokens import Expansion, ScriptError, Substitution, Text, Word

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from quickstart.legacy.tokens import Part

# A script has no NUL in it, so one in a value says: only a shell would know.
TAINT = "\0"
_STEPS = 100_000
_DEEPEST = 20
_INSIDE = re.compile(
    r"(?P<count>#)?(?P<name>[A-Za-z_]\w*|[0-9?!#@*$-])"
    r"(?:\[(?P<index>(?:[^\[\]]|\[[^\[\]]*\])*)\])?(?P<rest>.*)",
    re.DOTALL,
)


@dataclass
class Expander:
    """Knows the variables of a script, and what words stand for with them.

    Attributes:
        folder: The folder of the script, which `pwd` stands for.
        values: The variables, tainted where only a shell would know.
        line: The line that is being followed.
    """

    folder: Path
    values: dict[str, Value] = field(default_factory=dict)
    line: int = 1
    _steps: int = 0
    _depth: int = 0

    def spend(self, steps: int = 1) -> None:
        """Count what was done, and end what would never end, or fill the memory."""
        self._steps += steps
        if self._steps > _STEPS:
            raise ScriptError(self.line, f"it takes more than {_STEPS} steps")

    def text(self, found: Word) -> str:
        """Return a word as one text, as an assignment takes it."""
        return "".join(" ".join(self._part(part)) for part in found.parts)

    def pattern(self, found: Word) -> str:
        """Return a word as a pattern, in which what was quoted stands for itself."""
        texts = []
        for part in found.parts:
            text = " ".join(self._part(part))
            texts.append(escape(text) if part.quoted else text)
        return "".join(texts)

    def fields(self, words: Iterable[Word]) -> list[str]:
        """Return words as a command or a list takes them: unquoted values split at blanks."""
        fields: list[str] = []
        for found in words:
            current: list[str] = []
            for part in found.parts:
                texts = self._part(part)
                if not isinstance(part, Text) and not part.quoted:
                    texts = " ".join(texts).split()
                # What stands side by side is joined; what was split stays apart.
                current[-1:] = ["".join((*current[-1:], *texts[:1]))] if texts or current else []
                current += texts[1:]
            fields += [text for text in current if text or any(p.quoted for p in found.parts)]
            self.spend(1 + len(current))
        return fields

    def _part(self, part: Part) -> list[str]:
        """Return the texts that a part of a word stands for: several for a whole array."""
        texts = self._texts(part)
        self.spend(1 + sum(map(len, texts)) // 100)
        return texts

    def _texts(self, part: Part) -> list[str]:
        """Return the texts of a part, however long they are."""
        match part:
            case Text():
                return [part.text]
            case Substitution():
                return [self._substitute(part.command)]
            case Expansion():
                return self._expand(part.inside)

    def _expand(self, inside: str) -> list[str]:
        """Return what `${...}` stands for."""
        match = _INSIDE.fullmatch(inside)
        if match is None or not match["name"][0].isidentifier():
            return [TAINT]
        values = self._read(match["name"], match["index"])
        if match["count"]:
            whole = match["index"] in {"@", "*"}
            return [str(len(values) if whole else len("".join(values)))]
        rest = match["rest"]
        if rest.startswith((":-", "-", ":=", "=")):
            return values if any(values) else [self._nested(rest.lstrip(":")[1:], self.text)]
        return [self._changed(value, rest) for value in values] if rest else values

    def _read(self, name: str, index: str | None) -> list[str]:
        """Return the texts of a variable; one that is not set is empty, as in a shell."""
        value = self.values.get(name)
        if value is None:
            known = {"PWD": str(self.folder), "HOME": "~"}
            # Capitals are what the environment sets, and nobody here knows it.
            return [known.get(name, TAINT if name.isupper() else "")]
        if index in {"@", "*"}:
            return items(value)
        if index is None:
            return [first(value)]
        key = self._nested(index, self.text)
        if isinstance(value, dict):
            return [value.get(key, "")]
        texts = items(value)
        at = position(key)
        return [texts[at] if at is not None and at < len(texts) else ""]

    def _nested(self, text: str, read: Callable[[Word], str]) -> str:
        """Return what a text inside an expansion stands for."""
        self._depth += 1
        if self._depth > _DEEPEST:
            raise ScriptError(self.line, f"expansions are nested more than {_DEEPEST} deep")
        try:
            return read(word(text))
        except ScriptError as error:
            # Inside an expansion lines are counted from its own beginning.
            raise ScriptError(self.line, str(error)) from error
        finally:
            self._depth -= 1

    def _changed(self, value: str, rest: str) -> str:
        """Return a value as an operator inside `${...}` changes it."""
        if rest in {",,", "^^"}:
            return value.lower() if rest == ",," else value.upper()
        if rest.startswith("/"):
            everywhere = rest.startswith("//")
            old, _, new = rest.lstrip("/").partition("/")
            if old and not re.search(r"[*?\[\\]", old):
                old, new = self._nested(old, self.text), self._nested(new, self.text)
                self.spend(value.count(old) * len(new) // 100)
                return value.replace(old, new, -1 if everywhere else 1) if old else value
            return TAINT
        if rest[:1] in {"#", "%"}:
            longest = rest[:2] in {"##", "%%"}
            pattern = self._nested(rest[1 + longest :], self.pattern)
            return _trimmed(value, pattern, at_start=rest[0] == "#", longest=longest)
        return TAINT

    def _substitute(self, command: str) -> str:
        """Return the output of the few commands whose output is data, else a taint."""
        self.spend()
        if re.search(r"\bdirname\b", command) and re.search(r"\bpwd\s*$", command):
            return str(self.folder)
        if command.strip() == "pwd":
            return str(self.folder)
        return self._echoed(command)

    def _echoed(self, command: str) -> str:
        """Return the output of `echo words`, or of `echo words | cut -d X -f N`."""
        try:
            inside = [token for token in tokens(command) if isinstance(token, Word)]
        except ScriptError:
            return TAINT
        self._depth += 1
        fields = self.fields(inside) if self._depth <= _DEEPEST else []
        self._depth -= 1
        match fields:
            case ["echo", *words] if not re.search(r"[|;&<>\n]", command):
                return " ".join(words)
            case ["echo", *words, "cut", "-d", mark, "-f", number] if (
                command.count("|") == 1 and len(mark) == 1 and re.fullmatch("[1-9]", number)
            ):
                return (" ".join(words).split(mark) + [""] * 9)[int(number) - 1]
        return TAINT


def _trimmed(value: str, pattern: str, *, at_start: bool, longest: bool) -> str:
    """Return a value without the shortest or longest part at one end that fits a pattern."""
    if len(value) > 200 or TAINT in value + pattern:  # noqa: PLR2004 - names are shorter
        return TAINT
    lengths = range(len(value), -1, -1) if longest else range(len(value) + 1)
    for length in lengths:
        part = value[:length] if at_start else value[len(value) - length :]
        if fnmatchcase(part, pattern):
            return value[length:] if at_start else value[: len(value) - length]
    return value
