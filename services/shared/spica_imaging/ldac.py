"""FITS_LDAC catalogues, as source-extractor writes them and SCAMP and PSFEx read them.

A catalogue of one exposure is a FITS file with, per CCD, a pair of binary tables: LDAC_IMHEAD, one
row with one column 'Field Header Card' that holds the CCD's FITS header as text, and LDAC_OBJECTS,
one row per source.

The file is written byte by byte here. SCAMP walks through the header text in steps of 80 characters
until it meets END; libraries that trim blanks from strings leave NULs there and lead it astray.
"""

from __future__ import annotations

import warnings
from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from astropy.io import fits
from astropy.io.fits.verify import VerifyWarning
from numpy.typing import NDArray

from spica_imaging.bintables import NotPlainError, plain_tables
from spica_imaging.columns import COLUMNS, Column

Columns = Mapping[str, NDArray[Any]]

_BLOCK = 2880
_CARD = 80
_UNKNOWN = Column("", "")
_FORMATS = {"i2": "I", "i4": "J", "i8": "K", "f4": "E", "f8": "D", "u1": "B"}


@dataclass(frozen=True, slots=True)
class LdacTable:
    """The sources of one CCD, and the CCD's header."""

    header: fits.Header
    columns: dict[str, NDArray[Any]]
    """Column name to array; the first axis counts sources. All columns have the same length."""

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()))) if self.columns else 0


def write_ldac(path: Path, tables: Iterable[LdacTable]) -> None:
    """Write one LDAC_IMHEAD and LDAC_OBJECTS pair per CCD, in the order given.

    Columns may be of type int16, int32, int64, uint8, float32, float64 (or bool, written as int16),
    and may have more axes than one (VIGNET of PSFEx: shape (n, ny, nx)).
    """
    with path.open("wb") as file:
        _write_cards(file, [("SIMPLE", True), ("BITPIX", 8), ("NAXIS", 0), ("EXTEND", True)])
        for version, table in enumerate(tables, start=1):
            _write_header_table(file, table.header, version)
            _write_objects(file, table.columns, version)


def read_ldac(path: Path, wanted: Container[str] | None = None) -> list[LdacTable]:
    """Read what `write_ldac`, source-extractor or others wrote; native byte order, owned arrays.

    Args:
        path: the file.
        wanted: names of the columns to be read; None: all.

    Raises:
        ValueError: where the file is not a FITS_LDAC catalogue.

    """
    try:
        tables = _read_plain(path, wanted)
    except NotPlainError:
        tables = _read_any(path, wanted)
    if not tables:
        raise ValueError(f"{path} has no LDAC_OBJECTS table: not a FITS_LDAC catalogue")
    return tables


def _read_plain(path: Path, wanted: Container[str] | None) -> list[LdacTable]:
    tables: list[LdacTable] = []
    header = fits.Header()
    for table in plain_tables(path):
        if table.name == "LDAC_IMHEAD":
            header = _parse_header(table.rows.tobytes())
        elif table.name == "LDAC_OBJECTS":
            tables.append(LdacTable(header, table.columns(lambda name: wanted is None or name in wanted)))
    return tables


def _read_any(path: Path, wanted: Container[str] | None) -> list[LdacTable]:
    tables: list[LdacTable] = []
    header = fits.Header()
    with warnings.catch_warnings(), fits.open(path, memmap=False) as hdus:
        # Older LDAC tools write TDISP and TDIM cards that FITS does not know; the data are sound.
        warnings.simplefilter("ignore", VerifyWarning)
        for hdu in hdus[1:]:
            if hdu.name == "LDAC_IMHEAD":
                header = _parse_header(hdu.data.tobytes())
            elif hdu.name == "LDAC_OBJECTS":
                columns = {
                    name: np.array(hdu.data[name], dtype=hdu.data[name].dtype.newbyteorder("="))
                    for name in hdu.columns.names
                    if wanted is None or name in wanted
                }
                tables.append(LdacTable(header, columns))
    return tables


def image_cards(header: fits.Header) -> fits.Header:
    """The header as that of a plain primary image, which is what readers of LDAC expect.

    Cards on how the array was stored (XTENSION, PCOUNT, compression, scaling, checksums) go: they
    say nothing of the catalogue, and XTENSION in front would make readers look for an extension.
    """
    plain = fits.Header(
        [("SIMPLE", True), ("BITPIX", -32), ("NAXIS", 2)]
        + [(key, int(header.get(key, 0))) for key in ("NAXIS1", "NAXIS2")]
    )
    storage = {"SIMPLE", "XTENSION", "BITPIX", "NAXIS", "NAXIS1", "NAXIS2", "PCOUNT", "GCOUNT", "EXTEND"}
    storage |= {"BZERO", "BSCALE", "BLANK", "CHECKSUM", "DATASUM", "NEXTEND", "INHERIT", "TFIELDS", "THEAP"}
    for card in header.cards:
        if card.keyword in storage or card.keyword in ("", "COMMENT", "HISTORY", "CONTINUE"):
            continue
        plain.append(card, end=True)
    return plain


def _parse_header(raw: bytes) -> fits.Header:
    text = raw.replace(b"\0", b" ").decode("ascii", errors="replace")
    cards: list[fits.Card] = []
    for start in range(0, len(text), _CARD):
        card = text[start : start + _CARD]
        if card.rstrip() == "END":
            break
        cards.append(fits.Card.fromstring(card))
    return fits.Header(cards)


def _pad(file: BinaryIO, size: int, filler: bytes) -> None:
    file.write(filler * (-size % _BLOCK))


def _write_cards(file: BinaryIO, cards: list[tuple[Any, ...]]) -> None:
    text = fits.Header(cards).tostring(sep="", endcard=True, padding=True).encode("ascii")
    file.write(text)


def _table_cards(row_bytes: int, rows: int, fields: int, name: str, version: int) -> list[tuple[Any, ...]]:
    return [
        ("XTENSION", "BINTABLE"),
        ("BITPIX", 8),
        ("NAXIS", 2),
        ("NAXIS1", row_bytes),
        ("NAXIS2", rows),
        ("PCOUNT", 0),
        ("GCOUNT", 1),
        ("TFIELDS", fields),
        ("EXTNAME", name),
        ("EXTVER", version),
    ]


def _write_header_table(file: BinaryIO, header: fits.Header, version: int) -> None:
    with warnings.catch_warnings():
        # Comments that do not fit into a card any more are cut: nothing a catalogue's reader needs.
        warnings.simplefilter("ignore", VerifyWarning)
        text = image_cards(header).tostring(sep="", endcard=True, padding=True).encode("ascii", "replace")
    cards = _table_cards(len(text), 1, 1, "LDAC_IMHEAD", version)
    cards += [
        ("TTYPE1", "Field Header Card"),
        ("TFORM1", f"{len(text)}A"),
        ("TDIM1", f"({_CARD}, {len(text) // _CARD})"),
    ]
    _write_cards(file, cards)
    file.write(text)
    _pad(file, len(text), b"\0")


def _big_endian(columns: Columns) -> Iterator[tuple[str, NDArray[Any]]]:
    lengths = {len(column) for column in columns.values()}
    if len(lengths) > 1:
        raise ValueError(f"columns differ in length: {sorted(lengths)}")
    for name, column in columns.items():
        array = column.astype(np.int16) if column.dtype == np.bool_ else column
        if array.dtype.str[1:] not in _FORMATS:
            raise ValueError(f"column {name} is of type {array.dtype}, which LDAC tables do not have")
        yield name, np.ascontiguousarray(array, dtype=array.dtype.newbyteorder(">"))


def _write_objects(file: BinaryIO, columns: Columns, version: int) -> None:
    ready = dict(_big_endian(columns))
    fields: list[tuple[str, str, tuple[int, ...]]] = [
        (name, column.dtype.str, column.shape[1:]) for name, column in ready.items()
    ]
    rows = len(next(iter(ready.values()))) if ready else 0
    record = np.empty(rows, dtype=np.dtype(fields))  # packed: no padding between fields
    cards = _table_cards(record.dtype.itemsize, rows, len(ready), "LDAC_OBJECTS", version)
    for number, (name, column) in enumerate(ready.items(), start=1):
        record[name] = column
        count = int(np.prod(column.shape[1:], dtype=np.int64))
        known = COLUMNS.get(name, _UNKNOWN)
        cards.append((f"TTYPE{number}", name, known.meaning))
        cards.append((f"TFORM{number}", f"{count}{_FORMATS[column.dtype.str[1:]]}"))
        # One further axis is told by TFORM, as source-extractor does.
        if column.ndim > 2:
            axes = ",".join(str(size) for size in reversed(column.shape[1:]))
            cards.append((f"TDIM{number}", f"({axes})"))
        if known.unit:
            cards.append((f"TUNIT{number}", known.unit))
    _write_cards(file, cards)
    data = record.tobytes()
    file.write(data)
    _pad(file, len(data), b"\0")
