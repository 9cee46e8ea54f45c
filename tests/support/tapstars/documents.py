"""Tables of stars as VOTable, and what a TAP service says when it says no."""

from __future__ import annotations

import io
from xml.sax.saxutils import escape

import numpy as np
from astropy.io.votable import from_table
from astropy.table import MaskedColumn, Table
from numpy.typing import NDArray

_HEAD = """<?xml version="1.0" encoding="UTF-8"?>
<VOTABLE version="1.3" xmlns="http://www.ivoa.net/xml/VOTable/v1.3">
<RESOURCE type="results">
"""
_TAIL = "</RESOURCE>\n</VOTABLE>\n"


def error(message: str) -> bytes:
    """An error as services tell it."""
    return f'{_HEAD}<INFO name="QUERY_STATUS" value="ERROR">{escape(message)}</INFO>\n{_TAIL}'.encode()


def table(columns: dict[str, NDArray[np.generic]], overflow: bool, form: str = "tabledata") -> bytes:
    """Rows; after them, whether there are more. `form`: tabledata, binary, binary2."""
    if form != "tabledata":
        return _by_astropy(columns, overflow, form)
    fields = "".join(
        f'<FIELD name="{name}" datatype="{_kind(values)}"/>\n' for name, values in columns.items()
    )
    cells = [_cells(values) for values in columns.values()]
    rows = "".join(f"<TR>{''.join(row)}</TR>\n" for row in zip(*cells, strict=True))
    return (
        f'{_HEAD}<INFO name="QUERY_STATUS" value="OK"/>\n<TABLE>\n{fields}<DATA><TABLEDATA>\n{rows}</TABLEDATA></DATA>\n'
        f"</TABLE>\n{_overflow(overflow)}{_TAIL}"
    ).encode()


def _overflow(overflow: bool) -> str:
    return '<INFO name="QUERY_STATUS" value="OVERFLOW"/>\n' if overflow else ""


def _kind(values: NDArray[np.generic]) -> str:
    if values.dtype.kind in "US":
        return 'char" arraysize="*'
    return {"i": "long", "u": "long", "b": "boolean"}.get(values.dtype.kind, "double")


def _cells(values: NDArray[np.generic]) -> list[str]:
    return ["<TD/>" if str(value) == "nan" else f"<TD>{value}</TD>" for value in values.tolist()]


def _by_astropy(columns: dict[str, NDArray[np.generic]], overflow: bool, form: str) -> bytes:
    whole = Table()
    for number, (_, values) in enumerate(columns.items()):
        missing = np.isnan(values) if values.dtype.kind == "f" else np.zeros(len(values), dtype=bool)
        whole[f"c{number}"] = MaskedColumn(values, mask=missing)
    tree = from_table(whole)
    # Names that differ in capitals alone are no names for astropy's own tables.
    for field, name in zip(tree.get_first_table().fields, columns, strict=True):
        field.name = name
    out = io.BytesIO()
    tree.to_xml(out, tabledata_format=form)
    return out.getvalue().replace(b"</RESOURCE>", f"{_overflow(overflow)}</RESOURCE>".encode(), 1)
