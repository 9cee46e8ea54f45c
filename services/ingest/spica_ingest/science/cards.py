"""Header cards: what the standard lets them be (FITS standard 4.0, section 4), and what they say."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

COMMENTARY = frozenset(("", "COMMENT", "HISTORY", "END", "CONTINUE"))
_KEYWORD = re.compile(r"[A-Z0-9_-]{1,8} *")
_NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[ED][+-]?\d+)?"
_VALUE = re.compile(
    rf" *(?:'(?P<text>(?:''|[^'])*)'|(?P<logical>[TF])|(?P<whole>[+-]?\d+)|(?P<real>{_NUMBER})"
    rf"|(?P<complex>\( *{_NUMBER} *, *{_NUMBER} *\)))? *(?:/.*)?"
)
_PRINTABLE = re.compile(r"[ -~]*")


@dataclass(frozen=True, slots=True)
class Card:
    """One card as it was read."""

    keyword: str
    value: Any
    """str, bool, int or float; None where there is no value."""
    fixed: bool = True
    """A logical or whole number ends in column 30, a text begins in column 11: what mandatory keywords must."""


def read_card(image: str) -> Card | str:
    """Read 80 characters that follow the standard; else say what does not."""
    name = image[:8]
    keyword = name.rstrip()
    problem = None
    if not _PRINTABLE.fullmatch(image):
        problem = "has characters that are not printable ASCII"
    elif keyword == "END" and image[8:].strip():
        problem = "END is followed by something"
    elif keyword not in COMMENTARY and not _KEYWORD.fullmatch(name):
        problem = "its keyword has characters other than A-Z, 0-9, - and _"
    elif keyword not in COMMENTARY and image[8] == "=" and image[9] != " ":
        problem = "has no blank after the equals sign"
    if problem is not None:
        return problem
    if keyword in COMMENTARY or image[8:10] != "= ":
        return Card(keyword, None)  # without a value indicator it is commentary, which any keyword may be
    found = _VALUE.fullmatch(image, 10)
    if found is None:
        return "its value cannot be read, or is not parted from the comment by a slash"
    return _valued(keyword, found)


def _valued(keyword: str, found: re.Match[str]) -> Card:
    if (text := found["text"]) is not None:
        return Card(keyword, text.replace("''", "'").rstrip(), found.start("text") == 11)
    if found["logical"]:
        return Card(keyword, found["logical"] == "T", found.end("logical") == 30)
    if found["whole"]:
        return Card(keyword, int(found["whole"]), found.end("whole") == 30)
    if found["real"]:
        return Card(keyword, float(found["real"].replace("D", "E")))
    return Card(keyword, None)


_TEXTS = re.compile(
    "XTENSION|DATE|ORIGIN|TELESCOP|INSTRUME|OBSERVER|OBJECT|AUTHOR|REFERENC|EXTNAME|BUNIT|RADESYS|TIMESYS|DATE-OBS"
    r"|CHECKSUM|DATASUM|ZCMPTYPE|ZQUANTIZ|TTYPE\d+|TFORM\d+|TUNIT\d+|TDISP\d+|TDIM\d+|PTYPE\d+|CTYPE\d+|CUNIT\d+"
)
_WHOLES = re.compile(r"BITPIX|NAXIS\d*|PCOUNT|GCOUNT|TFIELDS|EXTVER|EXTLEVEL|BLANK|THEAP|WCSAXES|TBCOL\d+")
_REALS = re.compile(
    r"EQUINOX|EPOCH|BSCALE|BZERO|DATAMAX|DATAMIN|TSCAL\d+|TZERO\d+|PSCAL\d+|PZERO\d+|CRPIX\d+|CRVAL\d+|CDELT\d+"
    r"|CROTA\d+|CRDER\d+|CSYER\d+|CD\d+_\d+|PC\d+_\d+|PV\d+_\d+|LONPOLE|LATPOLE|MJD-OBS"
)
_LOGICALS = re.compile(r"SIMPLE|EXTEND|GROUPS|BLOCKED|INHERIT|ZIMAGE")
_DATE = re.compile(
    r"\d{4}-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])(T([01]\d|2[0-4]):[0-5]\d:([0-5]\d|60)(\.\d*)?)?"
    r"|(0[1-9]|[12]\d|3[01])/(0[1-9]|1[0-2])/\d\d"
)
_TABLE_ONLY = re.compile(r"(TTYPE|TFORM|TUNIT|TBCOL|TNULL|TSCAL|TZERO|TDISP|TDIM)\d+|TFIELDS|THEAP")
_IMAGE_ONLY = re.compile(r"BSCALE|BZERO|BUNIT|BLANK|DATAMAX|DATAMIN")


def breaks_type(card: Card) -> str | None:
    """What a reserved keyword's value should have been, if it is something else."""
    value, keyword = card.value, card.keyword
    if value is None:
        return None
    if keyword in ("DATE", "DATE-OBS") and isinstance(value, str) and value:
        return None if _DATE.fullmatch(value) else "a date as the standard writes it"
    number = not isinstance(value, bool) and isinstance(value, int | float)
    for names, right, expected in (
        (_TEXTS, isinstance(value, str), "a text"),
        (_LOGICALS, isinstance(value, bool), "T or F"),
        (_WHOLES, number and isinstance(value, int), "a whole number"),
        (_REALS, number, "a number"),
    ):
        if not right and names.fullmatch(keyword):
            return expected
    return None


def out_of_place(keyword: str, *, primary: bool, table: bool, compressed: bool, groups: bool) -> bool:
    """Whether the standard does not allow this keyword in an HDU of this kind."""
    if primary and not groups and keyword in ("PCOUNT", "GCOUNT", "XTENSION"):
        return True
    if not primary and keyword == "SIMPLE":
        return True
    if table:
        return not compressed and bool(_IMAGE_ONLY.fullmatch(keyword))
    return bool(_TABLE_ONLY.fullmatch(keyword))
