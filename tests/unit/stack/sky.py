"""Small skies with known truth: stars of known flux at known places, seen through a known WCS."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import erf
from spica_imaging.wcs import TpvWcs
from spica_stack.science.grid import TanGrid, Wcs
from spica_stack.science.parameters import Kernel
from spica_stack.science.pixels import Patch
from spica_stack.science.resampling import Mesh, make_mesh, resample_into

Image = NDArray[np.float32]
Floats = NDArray[np.float64]

CENTRE = (214.0, 52.5)


def wcs_at(
    shape: tuple[int, int],
    *,
    scale: float = 0.2,
    rotation: float = 0.0,
    flipped: bool = False,
    shift: tuple[float, float] = (0.0, 0.0),
    centre: tuple[float, float] = CENTRE,
) -> TpvWcs:
    """TAN WCS of a frame whose middle is `shift` pixels away from the centre. rotation: degrees."""
    ny, nx = shape
    step = scale / 3600.0
    angle = np.radians(rotation)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    cd = turn @ np.diag([step if flipped else -step, step])
    return TpvWcs(
        crval=centre,
        crpix=(0.5 * (nx + 1) + shift[0], 0.5 * (ny + 1) + shift[1]),
        cd=((cd[0, 0], cd[0, 1]), (cd[1, 0], cd[1, 1])),
    )


def grid_of(side: int, scale: float = 0.2, centre: tuple[float, float] = CENTRE) -> TanGrid:
    """Square output grid around the centre."""
    return TanGrid(*centre, 0.5 * (side + 1), 0.5 * (side + 1), scale, side, side)


@dataclass(frozen=True)
class Stars:
    """Positions (deg) and total fluxes."""

    ra: Floats
    dec: Floats
    flux: Floats


def scattered_stars(
    rng: np.random.Generator,
    n: int,
    reach_px: float,
    *,
    scale: float = 0.2,
    flux: tuple[float, float] = (2e3, 5e4),
    centre: tuple[float, float] = CENTRE,
) -> Stars:
    """Stars on a jittered lattice (so that none overlap) within `reach_px` of the centre."""
    per_side = int(np.ceil(np.sqrt(n)))
    step = 2 * reach_px / per_side
    places = np.stack(np.meshgrid(np.arange(per_side), np.arange(per_side)), -1).reshape(-1, 2)[:n]
    offsets = -reach_px + (places + 0.5 + rng.uniform(-0.15, 0.15, places.shape)) * step
    probe = TanGrid(*centre, 0.0, 0.0, scale, 1, 1)
    ra, dec = probe.pixel_to_sky(offsets[:, 0], offsets[:, 1])
    return Stars(ra, dec, np.exp(rng.uniform(np.log(flux[0]), np.log(flux[1]), n)))


def render(shape: tuple[int, int], wcs: Wcs, stars: Stars, fwhm_px: float) -> Floats:
    """Gaussian stars integrated over pixels. Shape (ny, nx)."""
    ny, nx = shape
    image = np.zeros(shape)
    sigma = fwhm_px / 2.3548200450309493
    x, y = wcs.sky_to_pixel(stars.ra, stars.dec)
    half = int(np.ceil(6 * sigma)) + 1
    for cx, cy, flux in zip(x - 1, y - 1, stars.flux, strict=True):
        if not (-half < cx < nx + half and -half < cy < ny + half):
            continue
        columns = np.arange(max(int(cx) - half, 0), min(int(cx) + half + 2, nx))
        rows = np.arange(max(int(cy) - half, 0), min(int(cy) + half + 2, ny))
        if len(columns) and len(rows):
            image[np.ix_(rows, columns)] += flux * np.outer(
                _share(rows - cy, sigma), _share(columns - cx, sigma)
            )
    return image


def _share(offset: Floats, sigma: float) -> Floats:
    """Share of a unit Gaussian within each pixel."""
    root = np.sqrt(2.0) * sigma
    return 0.5 * (erf((offset + 0.5) / root) - erf((offset - 0.5) / root))


def measure(image: Floats, x: float, y: float, radius: float) -> tuple[float, float, float]:
    """Flux within a generous square aperture, and the centroid found there (zero-based)."""
    x0, x1 = round(x - radius), round(x + radius) + 1
    y0, y1 = round(y - radius), round(y + radius) + 1
    cut = np.asarray(image[y0:y1, x0:x1], dtype=np.float64)
    flux = float(cut.sum())
    columns, rows = np.arange(x0, x1), np.arange(y0, y1)
    return flux, float((cut.sum(0) * columns).sum() / flux), float((cut.sum(1) * rows).sum() / flux)


def patch_of(data: NDArray, weight: NDArray, box: tuple[int, int, int, int] | None = None) -> Patch:
    """A copy of the pixels in a box of a CCD (all of it by default)."""
    ny, nx = data.shape
    x0, x1, y0, y1 = box or (0, nx, 0, ny)
    return Patch(data[y0:y1, x0:x1].astype(np.float32), weight[y0:y1, x0:x1].astype(np.float32), x0, y0)


def fill(
    mesh: Mesh | None, data: NDArray, weight: NDArray, width: int, height: int, tile: int | None = None
) -> tuple[Image, Image]:
    """Value and weight of the whole output; in square tiles, each from no more pixels than it needs, if so wished."""
    value, weights = np.zeros((height, width), np.float32), np.zeros((height, width), np.float32)
    side = tile or max(height, width)
    for y0 in range(0, height, side):
        for x0 in range(0, width, side):
            box = (x0, min(x0 + side, width), y0, min(y0 + side, height))
            needed = mesh.needs(box) if mesh is not None else None
            if mesh is None or needed is None:
                continue
            part = np.zeros((2, box[3] - y0, box[1] - x0), np.float32)
            patch = patch_of(data, weight, needed if tile else None)
            resample_into(patch, mesh, (x0, y0), part[0], part[1])
            value[y0 : box[3], x0 : box[1]], weights[y0 : box[3], x0 : box[1]] = part
    return value, weights


def resampled(
    data: NDArray,
    weight: NDArray,
    grid: TanGrid,
    wcs: Wcs,
    flux_scale: float = 1.0,
    *,
    kernel: Kernel = "lanczos3",
    oversampling: int | None = None,
    tile: int | None = None,
) -> tuple[Image, Image]:
    """One CCD on the grid: value and weight."""
    mesh = make_mesh(
        grid, wcs, (data.shape[0], data.shape[1]), flux_scale, kernel=kernel, oversampling=oversampling
    )
    return fill(mesh, data, weight, grid.width, grid.height, tile)
