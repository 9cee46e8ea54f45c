"""Query results as the archive writes them: VOTable, CSV, TSV."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from typing import Any
from xml.sax.saxutils import escape, quoteattr

from tests.support.cadc.caom import type_of

MEDIA_TYPES = {
    "votable": "application/x-votable+xml",
    "csv": "text/csv; header=present",
    "tsv": "text/tab-separated-values",
}
NAMES = {
    "votable": "votable",
    "application/x-votable+xml": "votable",
    "text/xml": "votable",
    "csv": "csv",
    "text/csv": "csv",
    "tsv": "tsv",
    "text/tab-separated-values": "tsv",
}
"""What may be asked for, and what is meant."""

_FIELDS = {
    "char": 'datatype="char" arraysize="*"',
    "int": 'datatype="int"',
    "long": 'datatype="long"',
    "double": 'datatype="double"',
    "time": 'datatype="char" arraysize="*" xtype="timestamp"',
    "shape": 'datatype="char" arraysize="*"',
}
_MICROSECONDS = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3})\d{3}")
_HEAD = (
    '<?xml version="1.0" encoding="UTF-8"?>\n'
    '<VOTABLE xmlns="http://www.ivoa.net/xml/VOTable/v1.3" '
    'xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" version="1.3">\n<RESOURCE type="results">\n'
)
_TAIL = "</RESOURCE>\n</VOTABLE>\n"


def render(
    form: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], *, overflow: bool, query: str
) -> bytes:
    """A result. Only a VOTable can say that there would have been more."""
    cells = [[_cell(value) for value in row] for row in rows]
    if form == "votable":
        kinds = [type_of(column, [row[index] for row in rows]) for index, column in enumerate(columns)]
        return _votable(columns, kinds, cells, overflow=overflow, query=query)
    text = io.StringIO()
    writer = csv.writer(text, delimiter="\t" if form == "tsv" else ",", lineterminator="\n")
    writer.writerows([columns, *cells])
    return text.getvalue().encode()


def render_error(form: str, message: str) -> tuple[str, bytes]:
    """Media type and body of an error."""
    if form != "votable":
        return "text/plain", f"{message}\n".encode()
    body = f'<INFO name="QUERY_STATUS" value="ERROR">{escape(message)}</INFO>\n'
    return MEDIA_TYPES["votable"], (_HEAD + body + _TAIL).encode()


def _votable(
    columns: Sequence[str],
    kinds: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    overflow: bool,
    query: str,
) -> bytes:
    fields = [
        f"<FIELD name={quoteattr(column)} {_FIELDS[kind]}/>\n"
        for column, kind in zip(columns, kinds, strict=True)
    ]
    lines = ["<TR>" + "".join(f"<TD>{escape(cell)}</TD>" for cell in row) + "</TR>\n" for row in rows]
    parts = [
        _HEAD,
        '<INFO name="QUERY_STATUS" value="OK"/>\n',
        f'<INFO name="QUERY" value={quoteattr(query)}/>\n',
        "<TABLE>\n",
        *fields,
        "<DATA>\n<TABLEDATA>\n",
        *lines,
        "</TABLEDATA>\n</DATA>\n</TABLE>\n",
        '<INFO name="QUERY_STATUS" value="OVERFLOW"/>\n' if overflow else "",
        _TAIL,
    ]
    return "".join(parts).encode()


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, str) and (time := _MICROSECONDS.fullmatch(value)):
        return time[1]  # milliseconds, cut and not rounded; no zone
    return repr(value) if isinstance(value, float) else str(value)
