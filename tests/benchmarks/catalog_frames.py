"""The frames on which catalogues are compared: simulated CCDs with their truth, and a real one with its mask."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from tests.support.ccdsim import VARYING, PsfField, Recipe, simulate

CACHE = Path("var/bench/catalog")
_VERSION = 1
REAL = Path(__file__).parents[3] / "shared" / "data" / "decam" / "DECam_00241238_01.fits.fz"

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Truth:
    """What is on a simulated frame. Zero-based positions, arrays of shape (n,), brightest first."""

    x: Floats
    y: Floats
    mag: Floats
    is_star: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class BenchFrame:
    """A frame on disk, and what both programs are told of it."""

    name: str
    path: Path
    fwhm_px: float
    gain: float
    saturation: float
    zeropoint: float
    mask: Path | None = None
    """Not 0 where a pixel must not be used."""
    weight: Path | None = None
    """The mask as the peer takes it: 0 where a pixel must not be used, else 1."""
    truth: Truth | None = None


RECIPES: dict[str, tuple[Recipe, int]] = {
    "deep": (Recipe(psf=VARYING), 1),
    "sharp": (Recipe(psf=replace(VARYING, fwhm_px=3.0)), 2),
    "crowded": (Recipe(psf=PsfField(fwhm_px=4.0), n_stars=15_000), 3),
}


def simulated(name: str) -> BenchFrame:
    """One of `RECIPES`, drawn once and kept."""
    recipe, seed = RECIPES[name]
    path = CACHE / f"{name}-v{_VERSION}.fits"
    known = path.with_suffix(".npz")
    if not (path.exists() and known.exists()):
        CACHE.mkdir(parents=True, exist_ok=True)
        drawn = simulate(recipe, seed)
        truth = drawn.truth
        np.savez(known, x=truth.x, y=truth.y, mag=truth.mag, is_star=truth.is_star)
        part = path.with_suffix(f".{os.getpid()}.part")
        fits.PrimaryHDU(drawn.data).writeto(part)
        part.replace(path)
    with np.load(known) as kept:
        truth_kept = Truth(kept["x"], kept["y"], kept["mag"], kept["is_star"])
    return BenchFrame(
        name, path, recipe.psf.fwhm_px, recipe.gain_e_per_adu, recipe.saturation_adu, recipe.zeropoint_mag,
        truth=truth_kept,
    )  # fmt: skip


def real() -> BenchFrame | None:
    """The DECam CCD, unpacked once; None where it is not at hand."""
    if not REAL.exists():
        return None
    path, mask, weight = (CACHE / f"decam-v{_VERSION}{part}.fits" for part in ("", ".mask", ".weight"))
    with fits.open(REAL) as hdus:
        header = hdus[1].header
        if not (path.exists() and mask.exists() and weight.exists()):
            CACHE.mkdir(parents=True, exist_ok=True)
            bad = (np.asarray(hdus[2].data).astype(np.int32) & 0x7FFF) != 0
            fits.PrimaryHDU(hdus[1].data.astype(np.float32)).writeto(path, overwrite=True)
            fits.PrimaryHDU(bad.astype(np.uint8)).writeto(mask, overwrite=True)
            fits.PrimaryHDU((~bad).astype(np.float32)).writeto(weight, overwrite=True)
        return BenchFrame(
            "decam", path, float(header.get("FWHM", 4.0)), float(header["GAINA"]), float(header["SATURATE"]),
            30.0, mask, weight,
        )  # fmt: skip


def matches(x: Floats, y: Floats, truth: Truth, radius_px: float) -> NDArray[np.intp]:
    """For each true source the detection that is its own, or -1: the nearest one that no brighter source has."""
    taken = np.zeros(len(x), np.bool_)
    result = np.full(len(truth.x), -1, np.intp)
    if not len(x):
        return result
    tree = cKDTree(np.stack([x, y], axis=1))
    places = np.stack([truth.x, truth.y], axis=1)
    for index in np.argsort(truth.mag, kind="stable"):
        near = tree.query_ball_point(places[index], radius_px)
        free = [k for k in near if not taken[k]]
        if free:
            result[index] = min(free, key=lambda k: np.hypot(x[k] - truth.x[index], y[k] - truth.y[index]))
            taken[result[index]] = True
    return result
