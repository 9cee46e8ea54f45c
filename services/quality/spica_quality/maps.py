"""Weight maps and flag maps: written CCD by CCD, zeroed where the policy lets a CCD out, whole or not at all.

Both files are an empty primary HDU and one RICE-compressed extension per CCD, in the order of the image, with the CCD's
EXTNAME and its WCS. The same pixels give the same bytes: nothing in them tells the time.
"""

from __future__ import annotations

import io
import re
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray
from spica_imaging.wcs_headers import real_card
from spica_runtime.storage import whole_file

from spica_quality.science.background.weighting import weight_steps
from spica_quality.science.flags import MEANINGS, Bit, Noise, bands

Flags = NDArray[np.uint16]

STEPS = 2000
"""Weights are whole numbers times BSCALE; this many is the weight of a pixel of typical noise."""

_TILE_ROWS = 16
_BLOCK = 2880
_WCS = re.compile(
    r"(WCSAXES|CTYPE[12]|CUNIT[12]|CRVAL[12]|CRPIX[12]|CDELT[12]|CROTA[12]|CD[12]_[12]|PC[12]_[12]|PV[12]_\d{1,2}"
    r"|(A|B|AP|BP)_(ORDER|\d_\d)|LONPOLE|LATPOLE|RADESYS|EQUINOX)$"
)


class FlatRows(Protocol):
    """A flat field relative to its surroundings, rows at a time."""

    def relative_rows(self, y0: int, y1: int) -> NDArray[np.float32]:
        """Rows from y0 to y1, shape (y1 - y0, nx); 1 where the pixel is like those around it, NaN where not known."""


@dataclass(frozen=True, slots=True)
class CcdMaps:
    """The maps of one CCD, each encoded as a whole FITS extension; some MB."""

    name: str
    shape: tuple[int, int]
    wcs: fits.Header
    weight: bytes
    flags: bytes


def encode_ccd(
    name: str,
    header: fits.Header,
    flags: Flags,
    noise: Noise,
    *,
    flat: FlatRows | None = None,
    detector_noise_adu: float = 0.0,
) -> CcdMaps:
    """Encode the maps of one CCD. Takes the memory of `flags` for its work: afterwards they mean nothing.

    Args:
        name: as in EXTNAME.
        header: the CCD's; its WCS cards go into the maps.
        flags: flag map, shape (ny, nx), contiguous.
        noise: the sky's noise; a median of zero gives weight zero everywhere.
        flat: the flat field, where there is one.
        detector_noise_adu: part of the noise that is not photons' (read noise): see `weight_steps`.

    """
    wcs = _wcs_cards(header)
    encoded = _extension(flags.view(np.int16), name, wcs, _flag_cards())
    steps, typical = flags.view(np.int16), noise.median_rms
    if not typical > 0 or not np.isfinite(typical):
        steps[:] = 0
        typical = 1.0
    else:
        for y0, y1 in bands(flags.shape[0]):
            relative = None if flat is None else flat.relative_rows(y0, y1)
            weight_steps(
                flags[y0:y1], noise.rms_rows(y0, y1), relative, steps[y0:y1],
                typical_rms=typical, steps=STEPS, detector_noise=detector_noise_adu,
            )  # fmt: skip
    shape = (flags.shape[0], flags.shape[1])
    weight = _extension(steps, name, wcs, _weight_cards(1.0 / (STEPS * typical**2)))
    return CcdMaps(name, shape, wcs, weight, encoded)


class MapWriter:
    """Gathers the maps of the CCDs as they are measured, and writes both files at the end."""

    def __init__(self, weight: Path, flags: Path, spool: Path) -> None:
        self._weight, self._flags = weight, flags
        self._file = spool.open("w+b")
        self._parts: dict[int, tuple[CcdMaps, int, int, int]] = {}
        self.finished = False

    def add(self, index: int, maps: CcdMaps) -> None:
        """Take the maps of one CCD; `index`: its place in the image. CCDs may come in any order."""
        start = self._file.seek(0, io.SEEK_END)
        self._file.write(maps.weight)
        self._file.write(maps.flags)
        # What is large waits on the disk.
        self._parts[index] = (
            CcdMaps(maps.name, maps.shape, maps.wcs, b"", b""),
            start,
            len(maps.weight),
            len(maps.flags),
        )

    def finish(self, out: Collection[int] = ()) -> None:
        """Write both files; CCDs at these places in the image (names may be there twice) get weight 0 and CCD_OUT."""
        with self._weight.open("wb") as weight, self._flags.open("wb") as flags:
            for file, content in ((weight, "weight: 1 / variance"), (flags, "flags: see FLAGnn")):
                file.write(_primary(content))
            for index, (maps, start, weight_size, flag_size) in sorted(self._parts.items()):
                self._file.seek(start)
                weight_part, flag_part = self._file.read(weight_size), self._file.read(flag_size)
                if index in out:
                    weight_part, flag_part = _left_out(maps, flag_part)
                weight.write(weight_part)
                flags.write(flag_part)
        self._file.close()
        self.finished = True


@contextmanager
def map_files(weight: Path, flags: Path) -> Iterator[MapWriter]:
    """Write a weight map and a flag map, which appear whole when the block ends; within it call `add` and `finish`."""
    with ExitStack() as stack:
        parts = stack.enter_context(whole_file(weight)), stack.enter_context(whole_file(flags))
        writer = MapWriter(*parts, parts[0].with_suffix(".spool"))
        yield writer
        if not writer.finished:
            raise RuntimeError(
                "The maps were not finished: call `finish`, with the places of CCDs that are out."
            )


def _left_out(maps: CcdMaps, flags: bytes) -> tuple[bytes, bytes]:
    """The maps of a CCD that is not to be used: what is known of its pixels stays known."""
    with fits.open(io.BytesIO(_primary("") + flags)) as hdus:
        known = np.ascontiguousarray(hdus[1].data, dtype=np.int16)
    known |= np.int16(Bit.CCD_OUT)
    zero = np.zeros(maps.shape, np.int16)
    return (
        _extension(zero, maps.name, maps.wcs, _weight_cards(1.0)),
        _extension(known, maps.name, maps.wcs, _flag_cards()),
    )


def _primary(content: str) -> bytes:
    header = fits.Header([("SIMPLE", True), ("BITPIX", 8), ("NAXIS", 0), ("EXTEND", True)])
    if content:
        header["CONTENT"] = content
    return bytes(header.tostring(padding=True).encode("ascii"))


def _wcs_cards(header: fits.Header) -> fits.Header:
    """The WCS of a CCD, numbers written so that SWarp reads them (`2E-05` it does not)."""
    cards = fits.Header()
    for card in header.cards:
        keyword, value = card.keyword, card.value
        if keyword == "RADECSYS" and "RADESYS" not in header:
            keyword = "RADESYS"
        if not _WCS.match(keyword) or keyword in cards:
            continue
        if isinstance(value, float):
            if np.isfinite(value):
                cards.append(real_card(keyword, value))
        elif isinstance(value, str | int):
            cards.append((keyword, value))
    return cards


def _weight_cards(scale: float) -> list[fits.Card]:
    return [
        real_card("BSCALE", scale, "weight of one step"),
        real_card("BZERO", 0.0),
        fits.Card("BUNIT", "adu-2", "1 / variance of a pixel; 0: not to be used"),
    ]


def _flag_cards() -> list[fits.Card]:
    return [fits.Card(f"FLAG{1 << bit:04d}", name, meaning) for bit, name, meaning in MEANINGS]


def _extension(pixels: NDArray[np.int16], name: str, wcs: fits.Header, cards: list[fits.Card]) -> bytes:
    """One compressed extension, header and data."""
    tile = (min(_TILE_ROWS, pixels.shape[0]), pixels.shape[1])
    hdu: Any = fits.CompImageHDU(pixels, compression_type="RICE_1", tile_shape=tile)
    hdu.header["EXTNAME"] = name  # as a card: the argument `name` would turn it into capitals
    for card in (*cards, *wcs.cards):
        hdu.header.append(card, end=True)
    buffer = io.BytesIO()
    fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(buffer)
    content = buffer.getvalue()[_BLOCK:]
    # These astropy writes anew, in its own way.
    for card in cards:
        place = content.find(f"{card.keyword:<8}= ".encode("ascii"))
        if card.keyword == "BSCALE" and place >= 0:
            content = content[:place] + str(card).encode("ascii") + content[place + 80 :]
    return content
