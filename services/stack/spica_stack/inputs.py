"""The members of a stack as they come from the data folder: pixels, weights, solved headers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray
from spica_imaging.frame import Ccd, ccd_name, is_image, iter_ccds, merged_header
from spica_imaging.head import parse_head
from spica_imaging.profiles import Profile
from spica_imaging.wcs import TpvWcs, WcsError

from spica_stack.errors import head_does_not_fit, input_unreadable, weight_does_not_fit

Image = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class CcdSize:
    """Name and size of one CCD, as the store knows it."""

    name: str
    nx: int
    ny: int


@dataclass(frozen=True, slots=True)
class SolvedCcd:
    """One CCD with its pixels, its weights and its solution. Arrays are cut to the light-sensitive part."""

    ccd: Ccd
    data: Image
    weight: Image
    wcs: TpvWcs
    origin: tuple[int, int]
    """Zero-based pixel (x, y) of the CCD at which the arrays begin."""
    flux_scale: float | None


def read_head(path: Path) -> list[fits.Header]:
    """Header blocks of a `.head` file; an unreadable one is told by name."""
    try:
        return parse_head(path.read_text(encoding="ascii"))
    except (OSError, ValueError) as error:
        raise input_unreadable(path, error) from error


def head_for(heads: Sequence[fits.Header], names: Sequence[str], path: Path) -> list[fits.Header | None]:
    """Put header blocks to CCDs: by EXTNAME where all blocks have one, else by their order.

    A CCD without a block was not solved: None.
    """
    by_name = {str(head["EXTNAME"]).strip(): head for head in heads if "EXTNAME" in head}
    if len(by_name) == len(heads) and set(by_name) <= set(names):
        return [by_name.get(name) for name in names]
    if len(heads) != len(names):
        raise head_does_not_fit(path, len(heads), len(names))
    return list(heads)


def wcs_of(head: fits.Header, path: Path) -> TpvWcs:
    """World coordinates of one header block."""
    try:
        return TpvWcs.from_header(head)
    except WcsError as error:
        raise input_unreadable(path, error) from error


@contextmanager
def _opened(path: Path) -> Iterator[fits.HDUList]:
    """Open a FITS file; one that cannot be opened is told by its own name."""
    try:
        hdus = fits.open(path, memmap=False, lazy_load_hdus=True)
    except OSError as error:
        raise input_unreadable(path, error) from error
    with hdus:
        yield hdus


def read_member(
    image: Path, profile: Profile, weight: Path, head: Path
) -> Iterator[tuple[str, SolvedCcd | None]]:
    """Read one exposure CCD by CCD: name, and the CCD, or None where it has no solution or no weight.

    Raises `NotRetriable` (`input_unreadable`, `header_does_not_fit`) for files that cannot be used.
    """
    heads = read_head(head)
    try:
        with _opened(image) as hdus:
            names = [_name(hdus, index) for index in range(len(hdus)) if is_image(hdus[index])]
        blocks = dict(zip(names, head_for(heads, names, head), strict=True))
        with _opened(weight) as weights:
            places = {
                ccd_name(hdu.header, index): index for index, hdu in enumerate(weights) if is_image(hdu)
            }
            for order, ccd in enumerate(iter_ccds(image, profile)):
                place = places.get(ccd.name)
                if place is None and len(places) == len(names):
                    place = list(places.values())[order]
                block = blocks.get(ccd.name)
                if block is None or place is None:
                    yield ccd.name, None
                    continue
                pixels = weights[place].data
                if pixels is None or pixels.shape != ccd.data.shape:
                    raise weight_does_not_fit(weight, ccd.name, np.shape(pixels), ccd.data.shape)
                yield ccd.name, _cut(ccd, pixels, block, head)
    except (OSError, TypeError) as error:
        raise input_unreadable(image, error) from error


def _name(hdus: fits.HDUList, index: int) -> str:
    """Name of the CCD in one HDU (see `iter_ccds`: an extension's cards over the primary's)."""
    return ccd_name(merged_header(hdus[0].header, hdus[index].header), index)


def _cut(ccd: Ccd, weight: NDArray[Any], block: fits.Header, head: Path) -> SolvedCcd:
    """Keep the light-sensitive part, so that no interpolation reaches into the overscan."""
    rows, columns = ccd.section.slices
    scale = block.get("FLXSCALE")
    return SolvedCcd(
        ccd=ccd,
        data=np.ascontiguousarray(ccd.data[rows, columns], np.float32),
        weight=np.ascontiguousarray(weight[rows, columns], np.float32),
        wcs=wcs_of(block, head),
        origin=(ccd.section.x0, ccd.section.y0),
        flux_scale=None if scale is None else float(scale),
    )
