"""How uneven the sky is: the plane through its level, over a CCD and over the focal plane."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from spica_imaging.stats import robust_sigma

from spica_quality.science.metrics.figures import Figures, Row, number, plain
from spica_quality.science.metrics.summary import WITHOUT_SIGNAL

Floats = NDArray[np.float64]
Pixels = NDArray[np.float32]

_CLIP_SIGMA = 4.0
_LEAST_NODES = 4
_LEAST_EXTENT = 0.05
"""Of the longer side: CCDs in one row tell nothing of the other direction."""


@dataclass(frozen=True, slots=True)
class Plane:
    """The plane that fits a level best."""

    rise: float
    """From the lowest to the highest point of the area."""
    angle_deg: float
    """Direction in which it rises, from the first axis towards the second."""
    residual: float
    """Standard deviation of the level about it, robust."""

    def figures(self) -> Figures:
        """As they stand among the figures."""
        return {
            "background_gradient_adu": plain(self.rise),
            "background_gradient_angle_deg": plain(self.angle_deg),
            "background_residual_adu": plain(self.residual),
        }


UNKNOWN = Plane(float("nan"), float("nan"), float("nan"))


def fit_plane(x: Floats, y: Floats, level: Floats, extent: tuple[float, float]) -> Plane:
    """Fit level = a + b x + c y, nodes farther than 4 σ from it left out.

    Args:
        x: positions along the first axis, shape (n,).
        y: along the second.
        level: NaN is left out; boxes in bright galaxies stand out and are clipped.
        extent: size of the area along both axes, over which the rise counts.

    Returns:
        `UNKNOWN` with fewer than 4 nodes, or where they lie in a line.

    """
    kept = np.isfinite(level)
    if np.count_nonzero(kept) < _LEAST_NODES:
        return UNKNOWN
    design = np.stack([np.ones_like(x), x, y], axis=1)
    spread = np.linalg.svd(design[kept, 1:] - design[kept, 1:].mean(axis=0), compute_uv=False)
    if not spread[1] > _LEAST_EXTENT * spread[0]:
        return UNKNOWN
    residual: Floats = np.zeros_like(level)
    plane: Floats = np.zeros(3)
    for _ in range(5):
        plane = np.asarray(np.linalg.lstsq(design[kept], level[kept], rcond=None)[0], np.float64)
        residual = level - design @ plane
        limit = _CLIP_SIGMA * robust_sigma(residual[kept])
        inside = np.isfinite(level) & (np.abs(residual) <= max(limit, 1e-12))
        if np.count_nonzero(inside) < _LEAST_NODES or np.array_equal(inside, kept):
            break
        kept = inside
    slope_x, slope_y = float(plane[1]), float(plane[2])
    return Plane(
        rise=abs(slope_x) * extent[0] + abs(slope_y) * extent[1],
        angle_deg=float(np.degrees(np.arctan2(slope_y, slope_x))),
        residual=robust_sigma(residual[np.isfinite(level)]),
    )


def ccd_gradient(level_mesh: Pixels, shape: tuple[int, int]) -> Plane:
    """Plane through the sky of a CCD.

    Args:
        level_mesh: level in boxes that divide the frame evenly, adu, shape (my, mx).
        shape: (ny, nx) of the frame.

    """
    my, mx = level_mesh.shape
    ny, nx = shape
    y, x = np.mgrid[:my, :mx].astype(np.float64)
    nodes_x, nodes_y = (x.ravel() + 0.5) * nx / mx, (y.ravel() + 0.5) * ny / my
    return fit_plane(nodes_x, nodes_y, level_mesh.astype(np.float64).ravel(), (nx, ny))


def focal_plane_gradient(rows: Sequence[Row], centres_deg: Sequence[tuple[float, float]]) -> Plane:
    """Plane through the sky levels of all CCDs that saw it; its direction counts from north towards east.

    Args:
        rows: figures of the CCDs.
        centres_deg: RA and Dec of their centres, in the same order; NaN where not known.

    """
    if len(rows) < _LEAST_NODES:
        return UNKNOWN
    level = np.array([number(row, "background_adu") for row in rows])
    ra, dec = np.array(centres_deg, np.float64).T
    level[~(np.isfinite(ra) & np.isfinite(dec))] = np.nan
    level[[row.get("condition") in WITHOUT_SIGNAL for row in rows]] = np.nan
    known = np.isfinite(level)
    if np.count_nonzero(known) < _LEAST_NODES:
        return UNKNOWN
    first = int(np.flatnonzero(known)[0])
    away = (ra - ra[first] + 180.0) % 360.0 - 180.0
    east = away * np.cos(np.radians(dec))
    north = dec - dec[first]
    extent = (float(np.ptp(north[known])), float(np.ptp(east[known])))
    return fit_plane(np.where(known, north, 0.0), np.where(known, east, 0.0), level, extent)
