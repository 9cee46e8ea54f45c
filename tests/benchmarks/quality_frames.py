"""A simulated MegaCam exposure as a file: real layout and cards, simulated CCDs with everything that is found on them."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray

from tests.support.ccdsim import MEGACAM_SHAPE, VARYING, Recipe, simulate
from tests.support.megaframe import CCD_SHAPE, ccd_header, primary_header

CACHE = Path("var/bench/quality")
_VERSION = 1
_RECIPE = Recipe(psf=replace(VARYING, fwhm_px=4.0), n_cosmics=1000)
_RECIPES = (
    replace(_RECIPE, bad_columns=(300, 301, 1500), trails=1),
    replace(_RECIPE, bad_columns=(900,)),
    replace(_RECIPE, n_stars=3000),
)
_MARGIN_PX = 32
"""Overscan left, right and above."""
_EXPOSURE_S = 300.175


def exposure(n_ccds: int, shape: tuple[int, int] = MEGACAM_SHAPE) -> Path:
    """An exposure of so many CCDs, each `shape` without overscan, Rice-compressed row by row; made once and kept."""
    size = "" if shape == MEGACAM_SHAPE else f"-{shape[1]}x{shape[0]}"
    path = CACHE / f"v{_VERSION}-{n_ccds}{size}" / "800001p.fits.fz"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(f".{os.getpid()}.part")
        with part.open("wb") as file:
            for piece in _pieces(n_ccds, shape):
                file.write(piece)
        part.replace(path)
    return path


def _pieces(n_ccds: int, shape: tuple[int, int]) -> Iterator[bytes]:
    primary = primary_header(n_ccds)
    primary["PHOT_C"] = _RECIPE.zeropoint_mag - 2.5 * np.log10(_EXPOSURE_S)
    content = io.BytesIO()
    fits.HDUList([fits.PrimaryHDU(header=primary)]).writeto(content)
    yield content.getvalue()
    skies = [_sky(number) for number in range(min(n_ccds, len(_RECIPES)))]
    for number in range(n_ccds):
        # No two CCDs hold the same pixels in the same places.
        sky = np.roll(skies[number % len(skies)], (97 * number, 31 * number), axis=(0, 1))
        yield _extension(number, sky[: shape[0], : shape[1]])


def _extension(number: int, sky: NDArray[np.uint16]) -> bytes:
    ny, nx = sky.shape
    pixels = np.zeros((ny + CCD_SHAPE[0] - MEGACAM_SHAPE[0], nx + 2 * _MARGIN_PX), np.uint16)
    pixels[:ny, _MARGIN_PX:-_MARGIN_PX] = sky
    header = ccd_header(number, pixels.shape)
    header["DATASEC"] = f"[{_MARGIN_PX + 1}:{_MARGIN_PX + nx},1:{ny}]"
    hdu = fits.CompImageHDU(pixels, header=header, compression_type="RICE_1", tile_shape=(1, pixels.shape[1]))
    one = io.BytesIO()
    fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(one)
    return one.getvalue()[2880:]


def _sky(number: int) -> NDArray[np.uint16]:
    """One simulated CCD; made once and kept."""
    path = CACHE / f"sky-v{_VERSION}-{number}.npy"
    if not path.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        pixels = np.clip(simulate(_RECIPES[number], 11 + number).data, 0, 65535).astype(np.uint16)
        part = path.with_suffix(f".{os.getpid()}.part.npy")
        np.save(part, pixels)
        part.replace(path)
    return np.asarray(np.load(path))
