"""What a TAP service answers: a VOTable of numbers, or an error in one."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_HEAD_BYTES = 4096


class Malformed(ValueError):
    """An answer that is not what a TAP service answers to what was asked."""


class WrongColumns(Malformed):
    """A table of something else: asking again brings the same."""


class Refused(ValueError):
    """The service says that it will not, or could not, answer this."""


@dataclass(frozen=True, slots=True)
class Table:
    """Columns by the names that were asked for; NaN where there is no value."""

    columns: dict[str, NDArray[np.float64]]
    n_rows: int
    overflow: bool
    """There is more than was sent."""


def read_table(body: bytes, names: Sequence[str]) -> Table:
    """The numbers of a VOTable whose columns must be these, in this order.

    Raises `Refused` for an error that is told in a VOTable, `Malformed` for anything that is no VOTable, that is
    cut off, or that holds other columns.
    """
    if not _looks_like_votable(body):
        raise Malformed(_what_it_is(body))
    status = _parse(body)
    for value, text in status.infos:
        if value == "ERROR":
            raise Refused(_one_line(text) or "it gives no reason")
    if status.fields is None:
        raise Malformed("a VOTable without a table")
    found = [name.casefold() for name in status.fields]
    if found != [name.casefold() for name in names]:
        raise WrongColumns(f"a table with columns {status.fields[:30]} instead of {list(names)}")
    columns = {name: _numbers(name, status.array, index) for index, name in enumerate(names)}
    return Table(columns, len(status.array), any(value == "OVERFLOW" for value, _ in status.infos))


def read_error(body: bytes) -> str:
    """What a service says with an error's status: the message of its VOTable, or the first words of its text."""
    if _looks_like_votable(body):
        try:
            texts = [text for value, text in _parse(body).infos if value == "ERROR"]
        except Malformed:
            texts = []
        if texts and texts[0]:
            return _one_line(texts[0])
    return _what_it_is(body)


@dataclass(frozen=True, slots=True)
class _Parsed:
    infos: list[tuple[str, str]]
    """Value and text of each QUERY_STATUS."""
    fields: list[str] | None
    array: np.ma.MaskedArray


def _parse(body: bytes) -> _Parsed:
    from astropy.io import votable

    try:
        tree = votable.parse(io.BytesIO(body), verify="ignore")
    except Exception as error:  # astropy raises whatever its parsers come upon
        raise Malformed(f"a VOTable that cannot be read ({_one_line(str(error))})") from error
    infos = list(tree.infos)
    tables = []
    for resource in tree.resources:
        infos += resource.infos
        tables += resource.tables
    for table in tables:
        infos += table.infos
    statuses = [
        (str(info.value).upper(), str(info.content or "")) for info in infos if info.name == "QUERY_STATUS"
    ]
    if not tables:
        return _Parsed(statuses, None, np.ma.MaskedArray([]))
    return _Parsed(statuses, [str(field.name) for field in tables[0].fields], tables[0].array)


def _numbers(name: str, array: np.ma.MaskedArray, index: int) -> NDArray[np.float64]:
    if not len(array):
        return np.empty(0)
    values = array[(array.dtype.names or ())[index]]
    if values.dtype.kind not in "fiub" or values.ndim != 1:
        raise WrongColumns(f"a table whose column {name} does not hold one number per star")
    return np.asarray(np.ma.filled(np.ma.asarray(values, dtype=np.float64), np.nan))


def _looks_like_votable(body: bytes) -> bool:
    return b"<VOTABLE" in body[:_HEAD_BYTES].upper()


def _what_it_is(body: bytes) -> str:
    head = body[:_HEAD_BYTES].lstrip()
    if b"<HTML" in head.upper():
        return "a page for browsers instead of a table"
    return f"no table but {_one_line(head.decode('latin-1'))!r}" if head else "nothing"


def _one_line(text: str) -> str:
    line = " ".join(text.split())
    shown = "".join(character for character in line if character.isprintable())
    return shown if len(shown) <= 300 else f"{shown[:299]}…"
