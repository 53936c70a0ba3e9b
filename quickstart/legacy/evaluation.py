"""Statements to variables: assignments, tests and loops over lists are followed, nothing else.

There is no command here that reads, writes or starts anything: what a statement would need one for
is told instead.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from quickstart.legacy import conditions, statements
from quickstart.legacy.arrays import Value, first, items, with_item
from quickstart.legacy.expansion import TAINT, Expander
from quickstart.legacy.tokens import Assignment, ScriptError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

_LONGEST = 20_000
_DECLARATIONS = {"export", "declare", "typeset", "local", "readonly"}
_HARMLESS = {"echo", "unset", "set", "shopt", ":", "true", "false"}

_SETTING = {"eval", "exec", "let", "mapfile", "printf", "read", "readarray", "trap"}


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


def evaluate(body: statements.Body, folder: Path) -> Outcome:
    """Return what the statements assign.

    Args:
        body: The statements.
        folder: The folder of the script, which `pwd` stands for.

    Raises:
        ScriptError: It needs more steps or longer values than any official file.
    """
    outcome = Outcome()
    run = _Run(Expander(folder, outcome.values), outcome)
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

    words: Expander
    outcome: Outcome
    said: str = ""

    @property
    def line(self) -> int:
        """The line that is being followed."""
        return self.words.line

    def note(self, line: int, text: str) -> None:
        """Remember what was not followed."""
        note = f"line {line}: {text}"
        if note not in self.outcome.notes:
            self.outcome.notes.append(note)

    def body(self, body: statements.Body) -> bool | None:
        """Follow statements; return whether the last one succeeds, None when nobody can say."""
        status: bool | None = True
        for statement in body:
            status = self._statement(statement)
        return status

    def _statement(self, statement: statements.Statement) -> bool | None:
        """Follow one statement; return whether it succeeds, None when nobody can say."""
        self.words.spend()
        self.words.line = statement.line
        handlers: dict[type, Callable[[Any], bool | None]] = {
            statements.Command: self._command,
            statements.Test: lambda test: conditions.holds(
                test.tokens, self.words.text, self.words.pattern
            ),
            statements.Chain: self._chain,
            statements.Not: self._not,
            statements.Group: lambda group: self.body(group.body),
            statements.If: self._if,
            statements.For: self._for,
            statements.Case: self._case,
            statements.Skipped: lambda _: None,
        }
        return handlers[type(statement)](statement)

    def _not(self, statement: statements.Not) -> bool | None:
        """Follow a statement, and say the opposite of its success."""
        status = self._statement(statement.statement)
        return None if status is None else not status

    def _chain(self, chain: statements.Chain) -> bool | None:
        """Follow statements joined by && and ||."""
        status: bool | None = True
        for operator, link in chain.links:
            if status is None:
                self.note(chain.line, "it depends on what only a shell knows, and was not followed")
                return None
            if status == (operator == "&&"):
                status = self._statement(link)
        return status

    def _if(self, statement: statements.If) -> bool | None:
        """Follow the branch whose condition holds."""
        for condition, body in statement.branches:
            status = self.body(condition)
            if status is None:
                self.note(statement.line, "the condition is one that only a shell can decide")
                return None
            if status:
                return self.body(body)
        return self.body(statement.otherwise)

    def _for(self, loop: statements.For) -> bool | None:
        """Follow a loop over a list."""
        for item in self.words.fields(loop.words):
            self._set(loop.name, item)
            try:
                self.body(loop.body)
            except _LoopEnded as end:
                if not end.goes_on:
                    break
        return True

    def _case(self, statement: statements.Case) -> bool | None:
        """Follow the first arm whose pattern fits."""
        text = self.words.text(statement.word)
        for patterns, body in statement.arms:
            wanted = [self.words.pattern(pattern) for pattern in patterns]
            if TAINT in text + "".join(wanted):
                self.note(statement.line, "the case is one that only a shell can decide")
                return None
            if any(fnmatchcase(text, pattern) for pattern in wanted):
                return self.body(body)
        return True

    def _command(self, command: statements.Command) -> bool | None:
        """Follow a simple command: assignments, and the few that change or end them."""
        words = self.words.fields(command.words)
        name = words[0] if words else ""
        if not name or name in _DECLARATIONS:
            self._declare(words[1:], command.assignments)
            for assignment in command.assignments:
                self._assign(assignment)
            return True
        if name in {"[", "test"}:
            inside = command.words[1:-1] if name == "[" else command.words[1:]
            return conditions.holds(inside, self.words.text, self.words.text)
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
            self.words.values.pop(variable, None)
        if name in _HARMLESS:
            return name != "false"
        if name in _SETTING:
            self.note(self.line, f"{name}: it may set variables, and no command is run")
        return None

    def _declare(self, words: list[str], assignments: Iterable[Assignment]) -> None:
        """Begin associative arrays that are declared."""
        if "A" in "".join(each for each in words if each.startswith("-")):
            names = [each for each in words if each.isidentifier()]
            for name in (*names, *(assignment.name for assignment in assignments)):
                self.words.values.setdefault(name, {})

    def _assign(self, assignment: Assignment) -> None:
        """Give a variable its value."""
        name, old = assignment.name, self.words.values.get(assignment.name)
        self.outcome.lines[name] = assignment.line
        if isinstance(assignment.value, tuple):
            self._set(name, self._array(assignment, old))
        elif assignment.subscript is not None:
            value = self.words.text(assignment.value)
            self._set(name, with_item(old, self.words.text(assignment.subscript), value))
        else:
            value = self.words.text(assignment.value)
            self._set(name, first(old) + value if assignment.append else value)

    def _array(self, assignment: Assignment, old: Value | None) -> Value:
        """Return the value that an array in brackets makes."""
        elements = assignment.value if isinstance(assignment.value, tuple) else ()
        if isinstance(old, dict):
            pairs = {
                self.words.text(key): self.words.text(item)
                for key, item in elements
                if key is not None
            }
            return {**old, **pairs} if assignment.append else pairs
        texts = [text for _, item in elements for text in self.words.fields((item,))]
        return [*items(old), *texts] if assignment.append else texts

    def _set(self, name: str, value: Value) -> None:
        """Store a value, if it is of a sane size."""
        size = len(value) if isinstance(value, str) else sum(map(len, items(value))) + len(value)
        if size > _LONGEST:
            raise ScriptError(self.line, f"{name} becomes longer than {_LONGEST} characters")
        self.words.spend(1 + size // 100)
        self.words.values[name] = value
