"""Small frames for tests of ingest, good and bad."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from spica_ingest.verification.reading import Limits

LIMITS = Limits(max_bytes=10**8, max_pixels=10**7)

PRIMARY: dict[str, Any] = {
    "INSTRUME": "MegaSim",
    "QRUNID": "25BQ07",
    "OBJECT": "D3",
    "FILTER": "r.SIM",
    "EXPTIME": 120.0,
    "DATE-OBS": "2025-11-01",
    "UTC-OBS": "06:00:00.00",
    "MJD-OBS": 60980.25,
    "AIRMASS": 1.2,
    "RA_DEG": 214.85,
    "DEC_DEG": 52.65,
}
WCS: dict[str, Any] = {
    "CTYPE1": "RA---TAN",
    "CTYPE2": "DEC--TAN",
    "CRVAL1": 214.85,
    "CRVAL2": 52.65,
    "CRPIX1": 24.5,
    "CRPIX2": 20.5,
    "CD1_1": -0.186 / 3600,
    "CD1_2": 0.0,
    "CD2_1": 0.0,
    "CD2_2": 0.186 / 3600,
}
PIXELS = np.random.default_rng(1).poisson(300, (40, 48)).astype(np.uint16)


def frame(
    *,
    primary: Mapping[str, Any] | None = None,
    ccds: int = 2,
    wcs: Mapping[str, Any] | None = None,
    compressed: bool = False,
    checksum: bool = True,
    pixels: np.ndarray[Any, np.dtype[Any]] = PIXELS,
) -> bytes:
    """A multi-extension frame; None as a value leaves the keyword out."""
    cards = {**PRIMARY, **(primary or {})}
    hdus = fits.HDUList([fits.PrimaryHDU(header=_header(cards))])
    for number in range(ccds):
        header = _header({"EXTNAME": f"ccd{number:02d}", **(WCS if wcs is None else wcs)})
        hdu = fits.CompImageHDU if compressed else fits.ImageHDU
        hdus.append(hdu(np.roll(pixels, number, axis=1), header=header))  # no two CCDs hold the same pixels
    plain = io.BytesIO()
    hdus.writeto(plain, checksum=checksum)
    return plain.getvalue()


def _header(values: Mapping[str, Any]) -> fits.Header:
    return fits.Header([(key, value) for key, value in values.items() if value is not None])


def write(path: Path, content: bytes) -> Path:
    """Write and return the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path
