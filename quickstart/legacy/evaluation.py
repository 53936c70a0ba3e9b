"""Statements to variables: assignments, tests and loops over lists are followed, nothing else.

There is no command here that reads, writes or starts anything. What only a shell could know
taints the value it would have become part of, and the taint is told instead of guessed away.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from glob import escape
from typing import TYPE_CHECKING, Any, TypeAlias

from quickstart.legacy import conditions, grammar
from quickstart.legacy.words import (
    Assignment,
    Expansion,
    ScriptError,
    Substitution,
    Text,
    Word,
    tokens,
    word,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from quickstart.legacy.words import Part

Value: TypeAlias = str | list[str] | dict[str, str]

# A script has no NUL in it, so one in a value says: only a shell would know.
TAINT = "\0"
_STEPS = 100_000
_LONGEST = 20_000
_DEEPEST = 20
_INSIDE = re.compile(
    r"(?P<count>#)?(?P<name>[A-Za-z_]\w*|[0-9?!#@*$-])"
    r"(?:\[(?P<index>(?:[^\[\]]|\[[^\[\]]*\])*)\])?(?P<rest>.*)",
    re.DOTALL,
)
_DECLARATIONS = {"export", "declare", "typeset", "local", "readonly"}
_HARMLESS = {"echo", "unset", "set", "shopt", ":", "true", "false"}


class _Ended(Exception):  # noqa: N818 - no error: the script ends here
    """The script says `exit` or `return`."""


class _LoopEnded(Exception):  # noqa: N818 - no error: the loop ends or goes on here
    """The script says `break` or `continue`."""

    def __init__(self, *, goes_on: bool) -> None:
        super().__init__()
        self.goes_on = goes_on


@dataclass
class Outcome:
    """What a script leaves behind.

    Attributes:
        values: Its variables, tainted where only a shell would know.
        lines: Where each variable was last set.
        notes: What was not followed, with its line.
    """

    values: dict[str, Value] = field(default_factory=dict)
    lines: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def evaluate(body: grammar.Body, folder: Path) -> Outcome:
    """Return what the statements assign.

    Args:
        body: The statements.
        folder: The folder of the script, which `pwd` stands for.

    Raises:
        ScriptError: It needs more steps or longer values than any official file.
    """
    run = _Run(folder, Outcome())
    try:
        run.body(body)
    except _Ended:
        said = f": {run.said}" if run.said else ""
        run.note(run.line, f"the script itself ends here{said}; what follows was not read")
    except _LoopEnded:
        pass
    return run.outcome


@dataclass
class _Run:
    """One evaluation."""

    folder: Path
    outcome: Outcome
    said: str = ""
    line: int = 1
    _steps: int = 0
    _depth: int = 0

    def note(self, line: int, text: str) -> None:
        """Remember what was not followed."""
        note = f"line {line}: {text}"
        if note not in self.outcome.notes:
            self.outcome.notes.append(note)

    def body(self, body: grammar.Body) -> bool | None:
        """Follow statements; return whether the last one succeeds, None when nobody can say."""
        status: bool | None = True
        for statement in body:
            status = self._statement(statement)
        return status

    def _spend(self, steps: int = 1) -> None:
        """Count what was done, and end what would never end."""
        self._steps += steps
        if self._steps > _STEPS:
            raise ScriptError(self.line, f"it takes more than {_STEPS} steps")

    def _statement(self, statement: grammar.Statement) -> bool | None:
        """Follow one statement; return whether it succeeds, None when nobody can say."""
        self._spend()
        self.line = statement.line
        handlers: dict[type, Callable[[Any], bool | None]] = {
            grammar.Command: self._command,
            grammar.Test: lambda test: conditions.holds(test.tokens, self.text, self.pattern),
            grammar.Chain: self._chain,
            grammar.Not: self._not,
            grammar.Group: lambda group: self.body(group.body),
            grammar.If: self._if,
            grammar.For: self._for,
            grammar.Case: self._case,
            grammar.Skipped: lambda _: None,
        }
        return handlers[type(statement)](statement)

    def _not(self, statement: grammar.Not) -> bool | None:
        """Follow a statement, and say the opposite of its success."""
        status = self._statement(statement.statement)
        return None if status is None else not status

    def _chain(self, chain: grammar.Chain) -> bool | None:
        """Follow statements joined by && and ||."""
        status: bool | None = True
        for operator, link in chain.links:
            if status is None:
                self.note(chain.line, "it depends on what only a shell knows, and was not followed")
                return None
            if status == (operator == "&&"):
                status = self._statement(link)
        return status

    def _if(self, statement: grammar.If) -> bool | None:
        """Follow the branch whose condition holds."""
        for condition, body in statement.branches:
            status = self.body(condition)
            if status is None:
                self.note(statement.line, "the condition is one that only a shell can decide")
                return None
            if status:
                return self.body(body)
        return self.body(statement.otherwise)

    def _for(self, loop: grammar.For) -> bool | None:
        """Follow a loop over a list."""
        for item in self._fields(loop.words):
            self._set(loop.name, item)
            try:
                self.body(loop.body)
            except _LoopEnded as end:
                if not end.goes_on:
                    break
        return True

    def _case(self, statement: grammar.Case) -> bool | None:
        """Follow the first arm whose pattern fits."""
        text = self.text(statement.word)
        for patterns, body in statement.arms:
            wanted = [self.pattern(pattern) for pattern in patterns]
            if TAINT in text + "".join(wanted):
                self.note(statement.line, "the case is one that only a shell can decide")
                return None
            if any(fnmatchcase(text, pattern) for pattern in wanted):
                return self.body(body)
        return True

    def _command(self, command: grammar.Command) -> bool | None:
        """Follow a simple command: assignments, and the few that change or end them."""
        words = self._fields(command.words)
        name = words[0] if words else ""
        if not name or name in _DECLARATIONS:
            self._declare(words[1:], command.assignments)
            for assignment in command.assignments:
                self._assign(assignment)
            return True
        if name in {"[", "test"}:
            inside = command.words[1:-1] if name == "[" else command.words[1:]
            return conditions.holds(inside, self.text, self.text)
        if name in {"source", "."}:
            self.note(command.line, f"{' '.join(words)}: another file is not read")
            return None
        return self._builtin(name, words[1:])

    def _builtin(self, name: str, words: list[str]) -> bool | None:
        """Follow a command that changes the order of things; no other is known."""
        if name in {"exit", "return"}:
            raise _Ended
        if name in {"break", "continue"}:
            raise _LoopEnded(goes_on=name == "continue")
        if name == "echo":
            self.said = " ".join(words)[:200]
        for variable in words if name == "unset" else ():
            self.outcome.values.pop(variable, None)
        return name != "false" if name in _HARMLESS else None

    def _declare(self, words: list[str], assignments: Iterable[Assignment]) -> None:
        """Begin associative arrays that are declared."""
        if "A" in "".join(each for each in words if each.startswith("-")):
            names = [each for each in words if each.isidentifier()]
            for name in (*names, *(assignment.name for assignment in assignments)):
                self.outcome.values.setdefault(name, {})

    def _assign(self, assignment: Assignment) -> None:
        """Give a variable its value."""
        name, old = assignment.name, self.outcome.values.get(assignment.name)
        self.outcome.lines[name] = assignment.line
        if isinstance(assignment.value, tuple):
            self._set(name, self._array(assignment, old))
        elif assignment.subscript is not None:
            value = self.text(assignment.value)
            self._set(name, _with_item(old, self.text(assignment.subscript), value))
        else:
            value = self.text(assignment.value)
            self._set(name, _first(old) + value if assignment.append else value)

    def _array(self, assignment: Assignment, old: Value | None) -> Value:
        """Return the value that an array in brackets makes."""
        elements = assignment.value if isinstance(assignment.value, tuple) else ()
        if isinstance(old, dict):
            pairs = {self.text(key): self.text(item) for key, item in elements if key is not None}
            return {**old, **pairs} if assignment.append else pairs
        items = [text for _, item in elements for text in self._fields((item,))]
        return [*_items(old), *items] if assignment.append else items

    def _set(self, name: str, value: Value) -> None:
        """Store a value, if it is of a sane size."""
        size = len(value) if isinstance(value, str) else sum(map(len, _items(value))) + len(value)
        if size > _LONGEST:
            raise ScriptError(self.line, f"{name} becomes longer than {_LONGEST} characters")
        self._spend(1 + size // 100)
        self.outcome.values[name] = value

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

    def _fields(self, words: Iterable[Word]) -> list[str]:
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
            self._spend(1 + len(current))
        return fields

    def _part(self, part: Part) -> list[str]:
        """Return the texts that a part of a word stands for: several for a whole array."""
        self._spend()
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
        value = self.outcome.values.get(name)
        if value is None:
            known = {"PWD": str(self.folder), "HOME": "~"}
            # Capitals are what the environment sets, and nobody here knows it.
            return [known.get(name, TAINT if name.isupper() else "")]
        if index in {"@", "*"}:
            return _items(value)
        if index is None:
            return [_first(value)]
        key = self._nested(index, self.text)
        if isinstance(value, dict):
            return [value.get(key, "")]
        items = _items(value)
        return [
            items[int(key)] if key.isascii() and key.isdigit() and int(key) < len(items) else ""
        ]

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
                return value.replace(old, new, -1 if everywhere else 1) if old else value
            return TAINT
        if rest[:1] in {"#", "%"}:
            longest = rest[:2] in {"##", "%%"}
            pattern = self._nested(rest[1 + longest :], self.pattern)
            return _trimmed(value, pattern, at_start=rest[0] == "#", longest=longest)
        return TAINT

    def _substitute(self, command: str) -> str:
        """Return the output of the few commands whose output is data, else a taint."""
        self._spend()
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
        fields = self._fields(inside) if self._depth <= _DEEPEST else []
        self._depth -= 1
        match fields:
            case ["echo", *words] if not re.search(r"[|;&<>\n]", command):
                return " ".join(words)
            case ["echo", *words, "cut", "-d", mark, "-f", number] if (
                command.count("|") == 1 and len(mark) == 1 and re.fullmatch("[1-9]", number)
            ):
                return (" ".join(words).split(mark) + [""] * 9)[int(number) - 1]
        return TAINT


def _items(value: Value | None) -> list[str]:
    """Return the texts of an array; a plain value is an array of one."""
    if value is None:
        return []
    if isinstance(value, dict):
        return list(value.values())
    return [value] if isinstance(value, str) else value


def _first(value: Value | None) -> str:
    """Return what a variable stands for without a subscript."""
    return next(iter(_items(value)), "") if not isinstance(value, dict) else value.get("0", "")


def _with_item(old: Value | None, key: str, item: str) -> Value:
    """Return an array with one more item."""
    if isinstance(old, dict):
        return {**old, key: item}
    items = _items(old)
    position = int(key) if key.isascii() and key.isdigit() else 0
    if position > len(items):
        return [*items, item]
    return [*items[:position], item, *items[position + 1 :]]


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
