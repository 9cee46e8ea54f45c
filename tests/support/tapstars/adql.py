"""Enough ADQL for a catalogue of stars: SELECT columns or COUNT(*) of one table, conditions joined by AND.

It is as strict as the services are: unknown tables and columns are refused, names without quotes are matched without
regard to capitals, and refused where that fits two columns; values that are not there fit no condition.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from spica_imaging.references import separation_deg

from tests.support.cadc.adql import BadQuery, Token, tokens_of

Columns = Mapping[str, NDArray[np.generic]]
Values = NDArray[np.float64]

_COMPARE = {
    "<": np.less, "<=": np.less_equal, ">": np.greater, ">=": np.greater_equal,
    "=": np.equal, "<>": np.not_equal, "!=": np.not_equal,
}  # fmt: skip


@dataclass(frozen=True)
class Found:
    """Rows of a query, in the table's order."""

    columns: dict[str, NDArray[np.generic]]


def run(query: str, tables: Mapping[str, Columns]) -> Found:
    """Answer to a query. Raises BadQuery."""
    return _Query(tokens_of(query), tables).answer()


class _Query:
    def __init__(self, tokens: list[Token], tables: Mapping[str, Columns]) -> None:
        self._tokens = tokens
        self._at = 0
        self._tables = tables
        self._table: Columns = {}

    def answer(self) -> Found:
        self._expect("SELECT")
        selected = self._until("FROM")
        name = self._table_name()
        if name not in self._tables:
            raise BadQuery(f"unknown table {name}")
        self._table = self._tables[name]
        keep = np.ones(len(next(iter(self._table.values()))), dtype=bool)
        if self._peek().word == "WHERE":
            self._next()
            keep &= self._condition()
            while self._peek().word == "AND":
                self._next()
                keep &= self._condition()
        if self._at < len(self._tokens):
            raise BadQuery(f"did not expect {self._peek().text!r}")
        if [token.text.upper() for token in selected[:4]] == ["COUNT", "(", "*", ")"]:
            alias = selected[-1].text if len(selected) == 6 else "count"
            return Found({alias: np.array([int(keep.sum())])})
        if selected[::2] and any(token.text != "," for token in selected[1::2]):
            raise BadQuery("columns stand apart by commas")
        return Found({self._name(token): self._table[self._name(token)][keep] for token in selected[::2]})

    def _peek(self) -> Token:
        return self._tokens[self._at] if self._at < len(self._tokens) else Token("", "")

    def _next(self) -> Token:
        token = self._peek()
        self._at += 1
        return token

    def _expect(self, text: str) -> None:
        token = self._next()
        if token.text.upper() != text:
            raise BadQuery(f"expected {text}, not {token.text!r}")

    def _until(self, word: str) -> list[Token]:
        found = []
        while self._peek().word != word:
            if not self._peek().text:
                raise BadQuery(f"expected {word}")
            found.append(self._next())
        self._next()
        return found

    def _table_name(self) -> str:
        token = self._next()
        if token.kind == "quoted":
            return token.text.strip('"')
        name = token.text
        while self._peek().text == ".":
            self._next()
            name += f".{self._next().text}"
        return name

    def _name(self, token: Token) -> str:
        if token.kind == "quoted":
            name = token.text.strip('"')
            if name in self._table:
                return name
        elif token.kind == "word":
            fitting = [name for name in self._table if name.upper() == token.word]
            if len(fitting) == 1:
                return fitting[0]
            if fitting:
                raise BadQuery(f"{token.text} is ambiguous: {fitting}")
        raise BadQuery(f"unknown column {token.text}")

    def _condition(self) -> NDArray[np.bool_]:
        if self._peek().text == "1" and self._tokens[self._at + 2].word == "CONTAINS":
            self._at += 2
            return self._contains()
        left = self._value()
        token = self._next()
        if token.word == "IS":
            negated = self._peek().word == "NOT"
            if negated:
                self._next()
            self._expect("NULL")
            missing = np.isnan(left)
            return ~missing if negated else missing
        if token.word == "IN":
            self._expect("(")
            allowed = [self._number()]
            while self._next().text == ",":
                allowed.append(self._number())
            return np.isin(left, allowed)
        if token.text not in _COMPARE:
            raise BadQuery(f"expected a comparison, not {token.text!r}")
        right = self._value()
        with np.errstate(invalid="ignore"):
            return np.asarray(_COMPARE[token.text](left, right)) & ~np.isnan(left + right)

    def _value(self) -> Values:
        value = self._term()
        while self._peek().text in ("+", "-"):
            sign = 1.0 if self._next().text == "+" else -1.0
            value = value + sign * self._term()
        return value

    def _term(self) -> Values:
        if self._peek().kind == "number" or self._peek().text == "-":
            return np.array(self._number())
        return np.asarray(self._table[self._name(self._next())], dtype=np.float64)

    def _number(self) -> float:
        sign = 1.0
        if self._peek().text == "-":
            self._next()
            sign = -1.0
        token = self._next()
        if token.kind != "number":
            raise BadQuery(f"expected a number, not {token.text!r}")
        return sign * float(token.text)

    def _contains(self) -> NDArray[np.bool_]:
        for text in ("CONTAINS", "(", "POINT", "(", "'ICRS'", ","):
            self._expect(text)
        ra = self._term()
        self._expect(",")
        dec = self._term()
        for text in (")", ",", "CIRCLE", "(", "'ICRS'", ","):
            self._expect(text)
        numbers = [self._number()]
        while self._peek().text == ",":
            self._next()
            numbers.append(self._number())
        self._expect(")")
        self._expect(")")
        if len(numbers) != 3:
            raise BadQuery("a circle has three numbers")
        return np.asarray(separation_deg(ra, dec, numbers[0], numbers[1]) <= numbers[2])
