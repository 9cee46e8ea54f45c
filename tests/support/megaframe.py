"""MegaCam-like frames: real layout and cards, a sky of noise and a few stars."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray

CCD_SHAPE = (4644, 2112)
"""Rows and columns of a MegaCam CCD, overscan and all."""
ROW_COUNTS = (9, 9, 9, 9)
_SCALE_DEG = 0.185 / 3600


def sky(shape: tuple[int, int], seed: int, *, level: float = 1000.0, rms: float = 25.0) -> NDArray[np.uint16]:
    """A sky of noise with some stars, adu."""
    rng = np.random.default_rng(seed)
    pixels = rng.standard_normal(shape, np.float32) * np.float32(rms) + np.float32(level)
    ny, nx = shape
    half = 8
    y, x = np.mgrid[-half : half + 1, -half : half + 1]
    star = np.exp(-(x**2 + y**2) / 8.0) / 25.0
    for _ in range(max(1, ny * nx // 7000)):
        row, column = rng.integers(half, ny - half), rng.integers(half, nx - half)
        flux = 10 ** rng.uniform(2.5, 5.5)
        pixels[row - half : row + half + 1, column - half : column + half + 1] += flux * star
    return np.clip(np.rint(pixels), 0, 65535).astype(np.uint16)


def primary_header(n_ccds: int) -> fits.Header:
    """Cards of the primary HDU as CFHT writes them."""
    header = fits.Header()
    header["NEXTEND"] = n_ccds
    for keyword, value in (
        ("OBJECT", "D3"), ("OBSTYPE", "OBJECT"), ("RUNID", "05AL01"), ("QRUNID", "05AQ03"),
        ("CRUNID", "05Am03"), ("EXPNUM", 800001), ("INSTRUME", "MegaPrime"), ("DETECTOR", "MegaCam"),
        ("TELESCOP", "CFHT 3.6m"), ("FILTER", "r.MP9601"), ("EXPTIME", 300.175),
        ("DATE-OBS", "2005-03-12"), ("UTC-OBS", "12:34:56.78"), ("MJD-OBS", 53441.5242683),
        ("MJDEND", 53441.5281000), ("AIRMASS", 1.234), ("EQUINOX", 2000.0), ("RADECSYS", "FK5"),
        ("RA_DEG", 214.87), ("DEC_DEG", 52.68), ("RA", "14:19:28.80"), ("DEC", "52:40:48.0"),
    ):  # fmt: skip
        header[keyword] = value
    return header


def ccd_header(number: int, shape: tuple[int, int] = CCD_SHAPE) -> fits.Header:
    """Cards of one CCD: nine in a row, the upper two rows upside down."""
    ny, nx = shape
    row, column = divmod(number, 9)
    upper = row < 2
    sign = 1 if upper else -1
    # Centre of the CCD in the mosaic, pixels from the tangent point; east is left.
    x, y = (column - 4) * nx * 1.02, (1.5 - row) * ny * 1.02
    header = fits.Header()
    header["EXTNAME"] = f"ccd{number:02d}"
    header["EXTVER"] = number
    header["INHERIT"] = False
    for card in primary_header(36).cards:
        if card.keyword != "NEXTEND":
            header.append(card)
    x0, y0 = column * nx, (3 - row) * ny
    columns, rows = (x0 + 1, x0 + nx), (y0 + 1, y0 + ny)
    if upper:
        columns, rows = columns[::-1], rows[::-1]
    header["DETSEC"] = f"[{columns[0]}:{columns[1]},{rows[0]}:{rows[1]}]"
    header["CCDNICK"] = f"nick{number:02d}"
    header["DATASEC"] = f"[{max(1, nx // 64)}:{nx - nx // 64},1:{ny - ny // 64}]"
    header["GAIN"] = 1.62
    header["RDNOISE"] = 4.5
    header["SATURATE"] = 65535
    for keyword, value in (
        ("CTYPE1", "RA---TAN"), ("CTYPE2", "DEC--TAN"), ("CRVAL1", 214.87), ("CRVAL2", 52.68),
        ("CRPIX1", (nx + 1) / 2 - (-sign) * x), ("CRPIX2", (ny + 1) / 2 - (-sign) * y),
        ("CD1_1", sign * _SCALE_DEG), ("CD1_2", 0.0), ("CD2_1", 0.0), ("CD2_2", -sign * _SCALE_DEG),
    ):  # fmt: skip
        header[keyword] = value
    return header


def megacam_like(
    *, n_ccds: int = 36, shape: tuple[int, int] = CCD_SHAPE, checksum: bool = False, seed: int = 1
) -> bytes:
    """A whole Rice-compressed frame."""
    headers = [ccd_header(number, shape) for number in range(n_ccds)]
    return compressed(primary_header(n_ccds), headers, shape, checksum=checksum, seed=seed)


def compressed(
    primary: fits.Header,
    ccds: Sequence[fits.Header],
    shape: tuple[int, int],
    *,
    checksum: bool = False,
    seed: int = 1,
) -> bytes:
    """A frame of these headers and a random sky, each row a Rice tile as fpack has it."""
    content = io.BytesIO()
    hdus = fits.HDUList([fits.PrimaryHDU(header=primary)])
    hdus.writeto(content, checksum=checksum)
    one_sky = sky(shape, seed)
    for number, header in enumerate(ccds):
        pixels = np.roll(one_sky, 31 * number, axis=1)  # no two CCDs hold the same pixels
        hdu = fits.CompImageHDU(pixels, header=header, compression_type="RICE_1", tile_shape=(1, shape[1]))
        one = io.BytesIO()
        fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(one, checksum=checksum)
        content.write(one.getvalue()[2880:])
    return content.getvalue()


def dumped_headers(path: Path) -> list[fits.Header]:
    """Headers of a dump as archives serve them: one card a line, END after each, titles between."""
    headers: list[fits.Header] = []
    for block in re.split(r"^END *$", path.read_text(encoding="latin-1"), flags=re.MULTILINE):
        cards = [line[:80].ljust(80) for line in block.split("\n") if line.strip() and line[0] != "#"]
        if cards:
            headers.append(fits.Header.fromstring("\n".join(cards), sep="\n"))
    return headers
