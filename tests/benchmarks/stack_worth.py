"""What a stack's stars say: fluxes and places, against another stack's and against the truth.

Bright stars that no input saturates, away from edges, dead columns and neighbours that could carry them along. Flux:
a disc of 8 px over the mean of a ring around it (not the median: what fainter sources add to a median depends on the
noise); what of a star's light falls into that is taken from a picture of the
same sky without noise, each source with the mean profile of the inputs, measured in the same way. Places: weighted by a
round Gaussian, iterated (as source-extractor's XWIN, YWIN), against where the star truly is. Lengths in output pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numba
import numpy as np
from astropy.io import fits
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from spica_stack.science.grid import Grid

from tests.benchmarks.stack_frames import GRID_SCALE_ARCSEC, Floats, Pixels, Scene, draw, fwhm_of

_MAGS = (18.4, 21.0)
_APART_PX, _MOST_OF_A_NEIGHBOUR = 16.0, 0.003
_RADIUS_PX, _RING_PX, _WINDOW_PX = 8.0, (20.0, 30.0), 2.0
_EDGE_PX = 40.0
_MIN_STARS = 300


@dataclass(frozen=True)
class Stars:
    """Stars to be measured, with the truth. Arrays of shape (n,), positions zero-based on the grid."""

    x: Floats
    y: Floats
    flux: Floats
    """As the disc sees it on the picture without noise."""


@dataclass(frozen=True)
class Measured:
    """What was found there; NaN where a star has pixels without value."""

    flux: Floats
    x: Floats
    y: Floats


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _measure(image: Pixels, x: Floats, y: Floats, out: Floats) -> None:
    ny, nx = image.shape
    for k in range(x.size):
        x0, y0 = int(x[k]) - 32, int(y[k]) - 32
        out[k] = np.nan
        if x0 < 0 or y0 < 0 or x0 + 65 > nx or y0 + 65 > ny:
            continue
        n, ring, total, area = 0, 0.0, 0.0, 0.0
        for j in range(y0, y0 + 65):
            for i in range(x0, x0 + 65):
                r = np.hypot(i - x[k], j - y[k])
                if r < 8.0 + 1.0:
                    # The edge's pixels count by how far they lie inside.
                    share = min(max(8.5 - r, 0.0), 1.0)
                    total += share * image[j, i]
                    area += share
                elif r >= 20.0 and r < 30.0:
                    ring += image[j, i]
                    n += 1
        sky = ring / n
        cx, cy = x[k], y[k]
        for _ in range(12):
            sx, sy, s = 0.0, 0.0, 0.0
            for j in range(int(cy) - 8, int(cy) + 10):
                for i in range(int(cx) - 8, int(cx) + 10):
                    dx, dy = i - cx, j - cy
                    w = np.exp(-0.125 * (dx * dx + dy * dy)) * (image[j, i] - sky)
                    s += w
                    sx += w * dx
                    sy += w * dy
            cx += 2.0 * sx / s
            cy += 2.0 * sy / s
            if not (abs(cx - x[k]) < 3.0 and abs(cy - y[k]) < 3.0):
                cx, cy = np.nan, np.nan
                break
        out[k, 0], out[k, 1], out[k, 2] = total - area * sky, cx, cy


def measure(image: Pixels, stars: Stars) -> Measured:
    """Measure the stars on an image of the grid."""
    out = np.empty((stars.x.size, 3))
    _measure(image, stars.x, stars.y, out)
    return Measured(out[:, 0], out[:, 1], out[:, 2])


def picture(scene: Scene, grid: Grid, weights: Floats) -> Pixels:
    """The sky on the grid without noise, under the mean of the seeings with these weights."""
    sky = scene.sky
    x, y = (c - 1.0 for c in grid.sky_to_pixel(sky.ra, sky.dec))
    near = (x > -60) & (x < grid.width + 60) & (y > -60) & (y < grid.height + 60)
    image = np.zeros((grid.height, grid.width), np.float32)
    for shot, weight in zip(scene.shots, weights / weights.sum(), strict=True):
        fwhm = fwhm_of(sky, shot.fwhm_arcsec)[near] / grid.scale_arcsec
        draw(image, x[near], y[near], weight * sky.flux[near], fwhm, 1e-4)
    return image


def mean_weights(scene: Scene) -> Floats:
    """Weights of the exposures in a weighted mean: 1 / variance in the stack's unit."""
    noise = [np.mean([shot.noise_adu(ccd) for ccd in range(len(shot.wcs))]) for shot in scene.shots]
    scale = [1.0 / shot.adu_per_count for shot in scene.shots]
    return 1.0 / (np.array(noise) * np.array(scale)) ** 2


def chosen(scene: Scene, grid: Grid, weight: Pixels) -> Stars:
    """Stars that may be measured on stacks of all exposures, `weight` being one of them's."""
    sky = scene.sky
    x, y = (c - 1.0 for c in grid.sky_to_pixel(sky.ra, sky.dec))
    mag = 30.0 - 2.5 * np.log10(sky.flux)
    good = (sky.size_arcsec == 0) & (mag > _MAGS[0]) & (mag < _MAGS[1])
    good &= (x > _EDGE_PX) & (x < grid.width - _EDGE_PX) & (y > _EDGE_PX) & (y < grid.height - _EDGE_PX)
    full = 0.75 * float(np.median(weight[weight > 0]))
    places = np.column_stack((x, y))
    tree = cKDTree(places)
    for k in np.flatnonzero(good):
        around = tree.query_ball_point(places[k], _APART_PX)
        others = sky.flux[[i for i in around if i != k]].sum()
        box = weight[int(y[k]) - 32 : int(y[k]) + 33, int(x[k]) - 32 : int(x[k]) + 33]
        near = weight[int(y[k]) - 12 : int(y[k]) + 13, int(x[k]) - 12 : int(x[k]) + 13]
        good[k] = others < _MOST_OF_A_NEIGHBOUR * sky.flux[k] and near.min() > full and box.min() > 0
    if good.sum() < _MIN_STARS:
        raise RuntimeError(f"Only {good.sum()} stars can be measured; {_MIN_STARS} are wanted.")
    stars = Stars(x[good], y[good], np.empty(0))
    seen = measure(picture(scene, grid, mean_weights(scene)), stars)
    return Stars(stars.x, stars.y, seen.flux)


@dataclass(frozen=True)
class Offsets:
    """How one set of fluxes and places lies beside another: robust means and scatters over n stars."""

    n: int
    flux_percent: float
    flux_scatter_percent: float
    x_mas: float
    y_mas: float
    scatter_mas: float
    """Per axis."""
    flux_error_percent: float
    """Of the mean."""
    place_error_mas: float

    def __str__(self) -> str:
        return (
            f"flux {self.flux_percent:+.4f} ± {self.flux_error_percent:.4f} % (scatter {self.flux_scatter_percent:.3f} %), "
            f"x {self.x_mas:+.3f} y {self.y_mas:+.3f} ± {self.place_error_mas:.3f} mas (scatter {self.scatter_mas:.2f} mas)"
        )


def _robust(values: Floats) -> tuple[float, float]:
    kept = values
    for _ in range(5):
        middle = np.median(kept)
        sigma = 1.4826 * np.median(np.abs(kept - middle))
        kept = kept[np.abs(kept - middle) <= 3.0 * max(sigma, 1e-12)]
    return float(np.mean(kept)), float(np.std(kept))


def offsets(one: Measured, other: Measured | Stars, scale_arcsec: float = GRID_SCALE_ARCSEC) -> Offsets:
    """`one` minus `other`."""
    ratio = one.flux / other.flux - 1.0
    dx, dy = one.x - other.x, one.y - other.y
    good = np.isfinite(ratio) & np.isfinite(dx) & np.isfinite(dy)
    n = int(good.sum())
    flux, flux_scatter = _robust(100.0 * ratio[good])
    mas = 1000.0 * scale_arcsec
    (x, x_scatter), (y, y_scatter) = _robust(mas * dx[good]), _robust(mas * dy[good])
    scatter = float(np.hypot(x_scatter, y_scatter) / np.sqrt(2.0))
    root = float(np.sqrt(max(n, 1)))
    return Offsets(n, flux, flux_scatter, x, y, scatter, flux_scatter / root, scatter / root)


def plane(path: Path) -> Pixels:
    """Pixels of a stack's file."""
    data: NDArray[np.float32] = fits.getdata(path).astype(np.float32)
    return data
