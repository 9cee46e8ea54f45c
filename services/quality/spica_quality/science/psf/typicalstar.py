"""The typical star of a CCD, what a model says of the same stars, and what is left. For pictures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from spica_quality.science.flags import Flags

Pixels = NDArray[np.float32]
Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]

_MOST_STARS = 40
_MOST_REACH_PX = 24


class Psf(Protocol):
    """A model of the point spread function."""

    def at(self, x: float, y: float) -> Pixels:
        """Stamp (k, k), k odd, of a star of flux 1 at (x, y), zero-based; its middle pixel is the nearest."""


@dataclass(frozen=True, slots=True)
class TypicalStar:
    """Medians over stars, pixel by pixel, each star divided by its flux; shape (k, k)."""

    star: Pixels
    model: Pixels
    residual: Pixels
    """Median of star - model."""
    n_stars: int


@dataclass(frozen=True, slots=True)
class Moffat:
    """One elliptical Moffat profile for the whole CCD, integrated over the pixels by 4 × 4 points."""

    fwhm_px: float
    """With the pixel's own width left out."""
    beta: float
    ellipticity: float
    angle_deg: float

    def at(self, x: float, y: float) -> Pixels:
        """See `Psf`."""
        reach = int(np.clip(np.ceil(3.0 * self.fwhm_px), 4, _MOST_REACH_PX))
        side = 2 * reach + 1
        fine = (np.arange(side * 4) + 0.5) / 4.0 - 0.5 - reach
        dx, dy = fine[None, :] - (x - nearest(x)), fine[:, None] - (y - nearest(y))
        angle, q = np.radians(self.angle_deg), max(1.0 - self.ellipticity, 0.05)
        along = np.cos(angle) * dx + np.sin(angle) * dy
        across = -np.sin(angle) * dx + np.cos(angle) * dy
        scale2 = (0.5 * self.fwhm_px) ** 2 / (2.0 ** (1.0 / self.beta) - 1.0)
        values = (1.0 + (q * along**2 + across**2 / q) / scale2) ** -self.beta
        stamp = values.reshape(side, 4, side, 4).sum(axis=(1, 3))
        return np.asarray(stamp / stamp.sum(), dtype=np.float32)


def nearest(place: float) -> int:
    """The pixel whose centre is nearest; the upper one of two."""
    return int(np.floor(place + 0.5))


def moffat_psf(fwhm_px: float, beta: float, ellipticity: float, angle_deg: float) -> Moffat | None:
    """A Moffat profile by its figures; None where the width was not measured. No beta: as good as Gaussian."""
    if not isfinite(fwhm_px) or fwhm_px <= 0:
        return None
    steep = min(beta, 20.0) if isfinite(beta) and beta > 1.0 else 20.0
    return Moffat(fwhm_px, steep, *(value if isfinite(value) else 0.0 for value in (ellipticity, angle_deg)))


def typical_star(
    data: Pixels, flags: Flags, bad: int, columns: Mapping[str, NDArray[Any]], stars: Mask, psf: Psf
) -> TypicalStar | None:
    """Medians of the brightest stars and of the model at their places: neighbours are in few stamps only.

    Each star's flux is the one that the model fits best.

    Args:
        data: pixels above the sky, shape (ny, nx).
        flags: why pixels are not to be trusted, same shape; pixels with a bit of `bad` are not used.
        bad: these bits.
        columns: catalogue with X_IMAGE, Y_IMAGE (FITS convention; the windowed ones where there are), FLUX_AUTO.
        stars: which of its sources are stars, shape (n,).
        psf: the model.

    Returns:
        None where no star can be used.

    """
    names = ("XWIN_IMAGE", "YWIN_IMAGE") if "XWIN_IMAGE" in columns else ("X_IMAGE", "Y_IMAGE")
    x, y = (np.asarray(columns[name], dtype=np.float64) - 1.0 for name in names)
    flux = np.asarray(columns["FLUX_AUTO"], dtype=np.float64)
    chosen = np.flatnonzero(stars & np.isfinite(x) & np.isfinite(y) & (flux > 0))
    chosen = chosen[np.argsort(-flux[chosen], kind="stable")][:_MOST_STARS]
    pairs = [_one(data, flags, bad, float(x[k]), float(y[k]), psf) for k in chosen]
    known = [pair for pair in pairs if pair is not None]
    if not known:
        return None
    every = np.stack(known)  # (n, 2, k, k)
    star, model = np.median(every, axis=0).astype(np.float32)
    residual = np.asarray(np.median(every[:, 0] - every[:, 1], axis=0), dtype=np.float32)
    return TypicalStar(star, model, residual, len(known))


def _one(data: Pixels, flags: Flags, bad: int, x: float, y: float, psf: Psf) -> Floats | None:
    """A star over its flux, and the model; shape (2, k, k). None where too little of it can be used."""
    model = np.asarray(psf.at(x, y), dtype=np.float64)
    middle = model.shape[0] // 2
    reach = min(middle, _MOST_REACH_PX)
    model = model[middle - reach : middle + reach + 1, middle - reach : middle + reach + 1]
    j, i = nearest(y), nearest(x)
    ny, nx = data.shape
    if not (reach <= j < ny - reach and reach <= i < nx - reach):
        return None
    window = np.s_[j - reach : j + reach + 1, i - reach : i + reach + 1]
    good = (flags[window] & np.uint16(bad)) == 0
    if not good[reach, reach] or np.mean(good) < 0.9:
        return None
    star = np.where(good, data[window], 0.0).astype(np.float64)
    flux = float(np.sum(star * model) / np.sum((model * model)[good]))
    if not flux > 0:
        return None
    # Where a pixel is missing the model stands in: it leaves no residual.
    return np.stack([np.where(good, star / flux, model), model])
