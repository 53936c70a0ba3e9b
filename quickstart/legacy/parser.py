"""Tokens to statements: what official files are made of; everything else is stepped over."""

from __future__ import annotations

from typing import TYPE_CHECKING

from quickstart.legacy.lexer import tokens
from quickstart.legacy.statements import (
    Case,
    Chain,
    Command,
    For,
    Group,
    If,
    Not,
    Skipped,
    Test,
)
from quickstart.legacy.tokens import Assignment, Operator, ScriptError, Word

if TYPE_CHECKING:
    from quickstart.legacy.statements import Body, Statement
    from quickstart.legacy.tokens import Token

_DEEPEST = 50
_ENDS = {"\n", ";", ";;", ";&", ";;&", "&", "&&", "||", "|", ")"}
_REDIRECTIONS = {"<", ">", ">>", "<<", "<<-", "<<<", "&>", "&>>", ">&", "<&"}


def parse(text: str) -> Body:
    """Return the statements of a script.

    Raises:
        ScriptError: It is not a shell script, or nested beyond reason.
    """
    return _Parser(tokens(text)).script()


class _Parser:
    """Walks over the tokens once."""

    def __init__(self, found: list[Token]) -> None:
        self._tokens = found
        self._at = 0
        self._depth = 0

    def script(self) -> Body:
        """Return all statements."""
        body = self._body(frozenset())
        if self._at < len(self._tokens):
            raise ScriptError(self._line, f'"{self._described()}" has nothing to end here')
        return body

    @property
    def _line(self) -> int:
        """The line of the token that comes next, or of the last one."""
        return self._tokens[min(self._at, len(self._tokens) - 1)].line if self._tokens else 1

    def _described(self) -> str:
        """Return the next token as error messages name it."""
        return self._operator() or self._keyword() or "a word"

    def _operator(self) -> str:
        """Return the operator that comes next, or nothing."""
        token = self._tokens[self._at] if self._at < len(self._tokens) else None
        return token.text if isinstance(token, Operator) else ""

    def _keyword(self) -> str:
        """Return the plain word that comes next, or nothing."""
        token = self._tokens[self._at] if self._at < len(self._tokens) else None
        return token.plain if isinstance(token, Word) else ""

    def _skip_lines(self) -> None:
        """Step over ends of lines."""
        while self._operator() == "\n":
            self._at += 1

    def _expect(self, keyword: str, since: int) -> None:
        """Step over a keyword that must come next."""
        if self._keyword() != keyword:
            raise ScriptError(since, f'what begins here lacks its "{keyword}"')
        self._at += 1

    def _body(self, ends: frozenset[str]) -> Body:
        """Return the statements up to one of the keywords, which is left to be read."""
        statements: list[Statement] = []
        while self._at < len(self._tokens):
            if self._operator() in {"\n", ";", "&"}:
                self._at += 1
            elif self._operator() in _ENDS or self._keyword() in ends:
                break
            else:
                statements.append(self._chain())
        return tuple(statements)

    def _chain(self) -> Statement:
        """Return statements joined by && and ||."""
        line = self._line
        links = [("&&", self._pipeline())]
        while self._operator() in {"&&", "||"}:
            operator = self._operator()
            self._at += 1
            self._skip_lines()
            links.append((operator, self._pipeline()))
        return links[0][1] if len(links) == 1 else Chain(tuple(links), line)

    def _pipeline(self) -> Statement:
        """Return one statement; of several joined by | nothing stays in the shell."""
        line, negated = self._line, self._keyword() == "!"
        self._at += negated
        statement = self._statement()
        while self._operator() == "|":
            self._at += 1
            self._skip_lines()
            self._statement()
            statement = Skipped(line)
        return Not(statement, line) if negated else statement

    def _statement(self) -> Statement:
        """Return the statement that begins here, which may hold others."""
        self._depth += 1
        if self._depth > _DEEPEST:
            raise ScriptError(self._line, f"statements are nested more than {_DEEPEST} deep")
        statement = self._read()
        self._depth -= 1
        return statement

    def _read(self) -> Statement:
        """Return the statement that begins here."""
        line, keyword = self._line, self._keyword()
        readers = {
            "if": self._if,
            "for": self._for,
            "select": self._loop,
            "while": self._loop,
            "until": self._loop,
            "case": self._case,
            "function": self._function,
            "{": self._group,
            "[[": self._test,
        }
        if self._operator() == "(":
            return self._brackets(line)
        if keyword in readers:
            self._at += 1
            return readers[keyword](line)
        return self._command(line)

    def _if(self, line: int) -> Statement:
        """Return an `if`, whose keyword has been read."""
        branches = []
        while True:
            condition = self._body(frozenset({"then"}))
            self._expect("then", line)
            branches.append((condition, self._body(frozenset({"elif", "else", "fi"}))))
            if self._keyword() != "elif":
                break
            self._at += 1
        otherwise: Body = ()
        if self._keyword() == "else":
            self._at += 1
            otherwise = self._body(frozenset({"fi"}))
        self._expect("fi", line)
        return If(tuple(branches), otherwise, line)

    def _for(self, line: int) -> Statement:
        """Return a loop over a list; the arithmetic kind is stepped over."""
        name = self._keyword()
        self._at += 1
        if not name or self._keyword() != "in":
            return self._loop(line)
        self._at += 1
        words = []
        while self._at < len(self._tokens) and self._operator() not in {"\n", ";"}:
            token = self._tokens[self._at]
            words += [token] if isinstance(token, Word) else []
            self._at += 1
        body = self._do(line)
        return For(name, tuple(words), body, line)

    def _do(self, line: int) -> Body:
        """Return the body of a loop."""
        while self._operator() in {"\n", ";"}:
            self._at += 1
        self._expect("do", line)
        body = self._body(frozenset({"done"}))
        self._expect("done", line)
        return body

    def _loop(self, line: int) -> Statement:
        """Step over a loop that is not over a list."""
        while self._at < len(self._tokens) and self._keyword() != "do":
            self._at += 1
        self._do(line)
        return Skipped(line)

    def _case(self, line: int) -> Statement:
        """Return a `case`, whose keyword has been read."""
        token = self._tokens[self._at] if self._at < len(self._tokens) else None
        self._at += 1
        self._skip_lines()
        self._expect("in", line)
        arms = []
        while True:
            while self._operator() in {"\n", ";;", ";&", ";;&"}:
                self._at += 1
            if self._keyword() == "esac" or self._at >= len(self._tokens):
                break
            arms.append((self._patterns(line), self._body(frozenset({"esac"}))))
        self._expect("esac", line)
        return Case(token, tuple(arms), line) if isinstance(token, Word) else Skipped(line)

    def _patterns(self, line: int) -> tuple[Word, ...]:
        """Return the patterns of one arm, up to its bracket."""
        patterns = []
        while self._at < len(self._tokens):
            token = self._tokens[self._at]
            self._at += 1
            if isinstance(token, Word):
                patterns.append(token)
            elif isinstance(token, Operator) and token.text == ")":
                return tuple(patterns)
            elif isinstance(token, Operator) and token.text not in {"(", "|"}:
                break
        raise ScriptError(line, 'what begins here has an arm without its ")"')

    def _function(self, line: int) -> Statement:
        """Step over a function, whose keyword has been read."""
        self._at += 1
        if self._operator() == "(":
            self._brackets(line)
        self._skip_lines()
        self._statement()
        return Skipped(line)

    def _group(self, line: int) -> Statement:
        """Return a group, whose brace has been read."""
        body = self._body(frozenset({"}"}))
        self._expect("}", line)
        return Group(body, line)

    def _test(self, line: int) -> Statement:
        """Return a test, whose brackets have been read."""
        start = self._at
        while self._at < len(self._tokens) and self._keyword() != "]]":
            self._at += 1
        inside = self._tokens[start : self._at]
        self._expect("]]", line)
        kept = (t for t in inside if not (isinstance(t, Operator) and t.text == "\n"))
        return Test(tuple(kept), line)

    def _brackets(self, line: int) -> Statement:
        """Step over what is between brackets: a subshell or arithmetic."""
        depth = 0
        while self._at < len(self._tokens):
            depth += (self._operator() == "(") - (self._operator() == ")")
            self._at += 1
            if depth == 0:
                return Skipped(line)
        raise ScriptError(line, "the bracket that begins here is never closed")

    def _command(self, line: int) -> Statement:
        """Return a simple command; a name with brackets begins a function."""
        assignments: list[Assignment] = []
        words: list[Word] = []
        while self._at < len(self._tokens) and self._operator() not in _ENDS:
            token = self._tokens[self._at]
            self._at += 1
            if isinstance(token, Assignment):
                assignments.append(token)
            elif isinstance(token, Word):
                words.append(token)
            elif token.text == "(":
                self._at -= 1
                return self._called(line)
            elif token.text in _REDIRECTIONS:
                self._at += not self._operator()
        return Command(tuple(assignments), tuple(words), line)

    def _called(self, line: int) -> Statement:
        """Step over the brackets after a word, and over the function that follows `()`."""
        empty = self._tokens[self._at + 1 : self._at + 2]
        self._brackets(line)
        if empty and isinstance(empty[0], Operator) and empty[0].text == ")":
            self._skip_lines()
            self._statement()
        return Skipped(line)
