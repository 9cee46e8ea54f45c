"""Ways in which a tile-compressed mosaic frame goes wrong on disks, on lines and in programs."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass

from astropy.io import fits

BLOCK = 2880
CARD = 80


@dataclass(frozen=True, slots=True)
class Place:
    """Where one HDU lies in a file."""

    header: int
    data: int
    end: int
    table_bytes: int


def places_of(content: bytes) -> list[Place]:
    """Places of all HDUs of a sound file."""
    found = []
    with fits.open(io.BytesIO(content), disable_image_compression=True) as hdus:
        for hdu in hdus:
            at = hdu.fileinfo()
            rows = hdu.header.get("NAXIS1", 0) * hdu.header.get("NAXIS2", 0) if hdu.header["NAXIS"] else 0
            found.append(Place(at["hdrLoc"], at["datLoc"], at["datLoc"] + at["datSpan"], rows))
    return found


class Frame:
    """A sound file, and what can be done to it. HDU 6 is the one that suffers, unless it is said otherwise."""

    def __init__(self, content: bytes, hdu: int = 6) -> None:
        self.content = content
        self.places = places_of(content)
        self.at = self.places[hdu]
        self.heap = self.at.data + self.at.table_bytes

    def flip(self, place: int, bit: int = 0) -> bytes:
        changed = bytearray(self.content)
        changed[place] ^= 1 << bit
        return bytes(changed)

    def put(self, place: int, new: bytes) -> bytes:
        return self.content[:place] + new + self.content[place + len(new) :]

    def card(self, keyword: str, hdu: int | None = 6) -> int:
        at = self.at if hdu is None else self.places[hdu]
        for place in range(at.header, at.data, CARD):
            if self.content[place : place + 8].rstrip() == keyword.encode():
                return place
        raise KeyError(keyword)

    def value(self, keyword: str, text: str, hdu: int = 6) -> bytes:
        """Put another value onto a card, right-justified as numbers are, or a text from column 11."""
        place = self.card(keyword, hdu)
        image = f"{keyword:<8}= {text:<20}" if text.startswith("'") else f"{keyword:<8}= {text:>20}"
        return self.put(place, image.ljust(CARD).encode())

    def without_card(self, keyword: str, hdu: int = 6) -> bytes:
        return self.put(self.card(keyword, hdu), b" " * CARD)

    def hdu(self, index: int) -> bytes:
        return self.content[self.places[index].header : self.places[index].end]

    def of_hdus(self, *indices: int) -> bytes:
        return b"".join(self.hdu(index) for index in indices)


Corruption = Callable[[Frame], bytes]
_ALL = range(37)


def _swap_blocks(frame: Frame) -> bytes:
    a, b = frame.heap, frame.heap + BLOCK
    first, second = frame.content[a : a + 1000], frame.content[b : b + 1000]
    changed = bytearray(frame.content)
    changed[a : a + 1000], changed[b : b + 1000] = second, first
    return bytes(changed)


def _constant(frame: Frame, indices: range) -> bytes:
    """All tiles of these HDUs say: every pixel is as the first."""
    changed = bytearray(frame.content)
    for index in indices:
        at = frame.places[index]
        with fits.open(io.BytesIO(frame.content), disable_image_compression=True) as hdus:
            rows, nx = hdus[index].header["NAXIS2"], hdus[index].header["ZNAXIS1"]
        tile = (1000).to_bytes(2, "big") + bytes(-(-(-(-nx // 32) * 4) // 8))
        for row in range(rows):
            start = at.data + 8 * row
            changed[start : start + 8] = len(tile).to_bytes(4, "big") + (row * len(tile)).to_bytes(4, "big")
            heap = at.data + at.table_bytes + row * len(tile)
            changed[heap : heap + len(tile)] = tile
    return bytes(changed)


CORRUPTIONS: dict[str, Corruption] = {
    # One bit in a header
    "bit in SIMPLE": lambda f: f.flip(0),
    "bit in the value of SIMPLE": lambda f: f.flip(29, 1),
    "bit in the name of BITPIX": lambda f: f.flip(f.card("BITPIX")),
    "bit in the value of BITPIX": lambda f: f.flip(f.card("BITPIX") + 29),
    "bit in NAXIS2": lambda f: f.flip(f.card("NAXIS2") + 29),
    "bit in PCOUNT": lambda f: f.flip(f.card("PCOUNT") + 26),
    "bit in ZNAXIS1": lambda f: f.flip(f.card("ZNAXIS1") + 29),
    "bit in ZNAXIS2": lambda f: f.flip(f.card("ZNAXIS2") + 29, 1),
    "bit in ZCMPTYPE": lambda f: f.flip(f.card("ZCMPTYPE") + 11),
    "bit in TFORM1": lambda f: f.flip(f.card("TFORM1") + 13),
    "bit in TTYPE1": lambda f: f.flip(f.card("TTYPE1") + 12),
    "bit in XTENSION": lambda f: f.flip(f.card("XTENSION") + 12),
    "bit in END": lambda f: f.flip(f.card("END") + 1),
    "bit in the name of EXTNAME": lambda f: f.flip(f.card("EXTNAME") + 2),
    "bit in the value of EXTNAME": lambda f: f.flip(f.card("EXTNAME") + 15),
    "bit in EXTVER": lambda f: f.flip(f.card("EXTVER") + 29),
    "bit in the year of DATE-OBS": lambda f: f.flip(f.card("DATE-OBS", 1) + 14),
    "bit in the first digits of MJD-OBS": lambda f: f.flip(f.card("MJD-OBS", 1) + 21),
    "bit in the exponent of CD1_1": lambda f: f.flip(f.card("CD1_1") + 29),
    "bit in the sign of CD2_2": lambda f: f.value("CD2_2", "5.14E-05"),
    "bit in a quote of FILTER": lambda f: f.flip(f.card("FILTER", 1) + 10),
    "bit in a comment": lambda f: f.flip(f.card("BITPIX") + 40),
    "high bit in a header": lambda f: f.flip(f.card("OBJECT", 1) + 12, 7),
    # One bit or more in the data
    "bit in a tile's length": lambda f: f.flip(f.at.data + 8 * 40 + 3),
    "bit in a tile's place": lambda f: f.flip(f.at.data + 8 * 40 + 6),
    "high bit in a tile's place": lambda f: f.flip(f.at.data + 8 * 40 + 4, 7),
    "bit in a tile's first pixel": lambda f: f.flip(f.heap + 1),
    "bit in a block's code": lambda f: f.flip(f.heap + 2, 7),
    "bit amid a tile": lambda f: f.flip(f.heap + 60, 3),
    "256 zeros in the tiles": lambda f: f.put(f.heap + 500, bytes(256)),
    "256 ones in the tiles": lambda f: f.put(f.heap + 500, b"\xff" * 256),
    "two parts of the tiles swapped": _swap_blocks,
    "a byte lost": lambda f: f.content[: f.heap + 700] + f.content[f.heap + 701 :],
    "a byte too many": lambda f: f.content[: f.heap + 700] + b"U" + f.content[f.heap + 700 :],
    "a block lost": lambda f: f.content[: f.heap + 960] + f.content[f.heap + 960 + BLOCK :],
    "a block twice": lambda f: f.content[: f.heap + BLOCK] + f.content[f.heap :],
    "text mode: every line end changed": lambda f: f.content.replace(b"\n", b"\r\n"),
    # Cut
    "cut in the primary header": lambda f: f.content[:1000],
    "cut behind the primary header": lambda f: f.content[: f.places[0].end],
    "cut in an extension's header": lambda f: f.content[: f.at.header + 100],
    "cut behind a block of an extension's header": lambda f: f.content[: f.at.header + BLOCK],
    "cut behind an extension's header": lambda f: f.content[: f.at.data],
    "cut in the table": lambda f: f.content[: f.at.data + 100],
    "cut in the tiles": lambda f: f.content[: f.heap + 1234],
    "cut in the tiles of the last HDU": lambda f: f.content[: f.places[-1].end - 2 * BLOCK - 100],
    "cut behind an HDU": lambda f: f.content[: f.at.end],
    "cut before the last HDU": lambda f: f.content[: f.places[-1].header],
    "the last byte lost": lambda f: f.content[:-1],
    "the last block zeroed": lambda f: f.content[:-BLOCK] + bytes(BLOCK),
    # Wrong sizes, HDUs mixed up
    "an HDU lost": lambda f: f.of_hdus(*(n for n in _ALL if n != 9)),
    "an HDU twice": lambda f: f.of_hdus(*_ALL, 9),
    "an HDU in place of another": lambda f: f.of_hdus(*(8 if n == 9 else n for n in _ALL)),
    "two HDUs swapped": lambda f: f.of_hdus(*({8: 9, 9: 8}.get(n, n) for n in _ALL)),
    "the file twice": lambda f: f.content * 2,
    "another file's CCD size": lambda f: f.value("ZNAXIS2", "48"),
    # Headers that make no sense
    "WCS: not a number": lambda f: f.value("CRVAL1", "'NaN'"),
    "WCS: bare NaN": lambda f: f.value("CRVAL1", "NaN"),
    "WCS: infinite": lambda f: f.value("CD1_1", "1.0E400"),
    "WCS: zero": lambda f: f.value("CD1_1", "0.0"),
    "WCS: elsewhere": lambda f: f.value("CRVAL2", "12.68"),
    "WCS: where another CCD is": lambda f: f.put(f.card("CRPIX1"), f.content[f.card("CRPIX1", 5) :][:CARD]),
    "WCS: gone": lambda f: f.without_card("CTYPE1"),
    "EXPTIME gone": lambda f: f.put(f.card("EXPTIME", 0), b" " * CARD).replace(b"EXPTIME =", b"EXPTIMX ="),
    "FILTER not known": lambda f: f.content.replace(b"'r.MP9601'", b"'Null    '"),
    "a CCD of another exposure": lambda f: f.value("EXPNUM", "800002"),
    # Pixels
    "a CCD constant": lambda f: _constant(f, range(6, 7)),
    "all CCDs constant": lambda f: _constant(f, range(1, 37)),
    # What is harmless
    "bytes behind the end": lambda f: f.content + b"0" * 500,
    "blocks of zeros behind the end": lambda f: f.content + bytes(3 * BLOCK),
}
