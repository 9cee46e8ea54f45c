"""ADQL made into SQLite's SQL, and refused where the archive would refuse it."""

from __future__ import annotations

import re
from dataclasses import dataclass

_TOKENS = re.compile(
    r"""(?P<space>\s+|--[^\n]*)|(?P<text>'(?:[^']|'')*')|(?P<quoted>"[^"]+")|(?P<number>\d+\.?\d*(?:[eE][-+]?\d+)?|\.\d+)
    |(?P<word>[A-Za-z_][A-Za-z0-9_]*)|(?P<mark><>|!=|<=|>=|\|\||[-+*/=<>(),.])""",
    re.VERBOSE,
)


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_FUNCTIONS = _words(
    "COUNT SUM MIN MAX AVG ABS CEILING FLOOR ROUND POWER SQRT MOD LOWER UPPER COALESCE CAST SPLIT_PART "
    "POINT CIRCLE POLYGON CONTAINS INTERSECTS DISTANCE COORD1 COORD2"
)
_BEFORE_PARENTHESIS = _words(
    "IN AND OR NOT WHERE ON EXISTS BETWEEN LIKE SELECT FROM JOIN HAVING WHEN THEN ELSE CASE AS BY USING"
)
_NOT_ADQL = _words("LIMIT OFFSET ILIKE GLOB REGEXP MATCH RETURNING INSERT UPDATE DELETE PRAGMA ATTACH")


class BadQuery(ValueError):
    """What the archive answers with status 400."""


@dataclass(frozen=True, slots=True)
class Token:
    """One piece of a query."""

    kind: str
    text: str

    @property
    def word(self) -> str:
        """In capitals, if it is a bare word."""
        return self.text.upper() if self.kind == "word" else ""


def tokens_of(query: str) -> list[Token]:
    """The pieces, without space and comments."""
    found, at = [], 0
    while at < len(query):
        match = _TOKENS.match(query, at)
        if match is None:
            raise BadQuery(f"cannot parse the query at {query[at : at + 20]!r}")
        if match.lastgroup != "space":
            found.append(Token(str(match.lastgroup), match.group()))
        at = match.end()
    return found


def to_sqlite(query: str) -> str:
    """One SELECT, ready for SQLite."""
    tokens = tokens_of(query)
    if not tokens or tokens[0].word != "SELECT":
        raise BadQuery("only SELECT is possible")
    _check(tokens)
    limit, tokens = _take_top(tokens)
    words = []
    for index, token in enumerate(tokens):
        following = tokens[index + 1].kind if index + 1 < len(tokens) else ""
        if token.word == "TIMESTAMP" and following == "text":
            continue
        # One schema here: a view cannot reach into another.
        words.append("caom2" if token.word == "IVOA" else token.text)
    return " ".join(words).replace(" . ", ".") + (f" LIMIT {limit}" if limit is not None else "")


def _take_top(tokens: list[Token]) -> tuple[int | None, list[Token]]:
    at = 2 if len(tokens) > 1 and tokens[1].word in ("DISTINCT", "ALL") else 1
    limit = None
    if len(tokens) > at + 1 and tokens[at].word == "TOP" and tokens[at + 1].kind == "number":
        limit = int(tokens[at + 1].text)
        tokens = tokens[:at] + tokens[at + 2 :]
    if any(token.word == "TOP" for token in tokens):
        raise BadQuery("TOP stands after SELECT, and a number after it")
    return limit, tokens


def _check(tokens: list[Token]) -> None:
    """Refuse what SQLite would take and ADQL does not know."""
    inside: list[str] = []
    for index, token in enumerate(tokens):
        before = tokens[index - 1] if index else Token("", "")
        after = tokens[index + 1] if index + 1 < len(tokens) else Token("", "")
        if token.word in _NOT_ADQL:
            raise BadQuery(f"{token.text} is not ADQL")
        if token.text == "(":
            called = before.kind == "word" and before.word not in _BEFORE_PARENTHESIS
            if called and before.word not in _FUNCTIONS:
                raise BadQuery(f"unknown function {before.text}")
            listing = called or before.word == "IN" or after.word == "SELECT"
            inside.append("list" if listing else "group")
        elif token.text == ")":
            if not inside:
                raise BadQuery("a parenthesis too many")
            inside.pop()
        elif token.text == "," and inside and inside[-1] == "group":
            raise BadQuery("ADQL has no row values")
    if inside:
        raise BadQuery("a parenthesis is open")
