"""Residuals over the field, their distribution in two dimensions, and how they go with magnitude."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from spica_imaging.stats import SIGMA_PER_MAD, median, median_sigma

from spica_calib.science.diagnostics.plane import FieldDetections, FocalPlane
from spica_calib.science.stars import Bools, Floats

MOST_SINGLE = 260
"""Up to so many vectors are drawn one by one."""
_MOST_CELLS, _PER_CELL, _LEAST_IN_CELL = 420, 6.0, 3
_MEDIAN = 1.2533141373155001
"""Standard error of a median over that of a mean, normal distribution: sqrt(pi / 2)."""
SIGNIFICANT = 4.0
"""Length of a mean vector in its standard errors (per axis) that chance makes once in 3,000: exp(-8)."""


@dataclass(frozen=True, slots=True)
class VectorMap:
    """Residual vectors over the focal plane. Arrays have shape (n,) or (n, 2)."""

    place_arcmin: Floats
    vector_mas: Floats
    n: NDArray[np.int32]
    """Stars in the cell (internal: detections)."""
    significance: Floats
    """Length over the standard error per axis, as the scatter within cells tells it."""
    ccd: NDArray[np.int32]
    kept: Bools
    """False: a single detection that was cut."""
    binned: bool
    cell_arcmin: float
    """Side of a cell, or typical distance of single vectors."""
    sigma_mas: float
    """Robust standard deviation per axis of single detections."""
    n_detections: int

    @property
    def strong(self) -> Bools:
        """Cells that are off by more than chance; never single detections."""
        return (self.significance > SIGNIFICANT) & (self.n >= _LEAST_IN_CELL)

    @property
    def excess(self) -> float:
        """Mean square of the cells' vectors over what chance makes; 1 where there is nothing but noise."""
        some = self.significance[self.n >= _LEAST_IN_CELL]
        return float(0.5 * np.mean(np.minimum(some, 10.0) ** 2)) if some.size else 1.0

    def systematic_mas(self, among: Bools) -> float:
        """Standard deviation per axis of what is not noise, in the cells `among`; 0 where noise explains all."""
        some = among & (self.n >= _LEAST_IN_CELL)
        if not some.any():
            return 0.0
        length2 = np.sum(self.vector_mas[some] ** 2, axis=1)
        noise2 = 2.0 * length2 / np.maximum(self.significance[some] ** 2, 1e-12)
        return float(np.sqrt(max(0.5 * float(np.mean(length2 - noise2)), 0.0)))


def axis_sigma(residual: Floats) -> tuple[float, float]:
    """Robust standard deviation about zero of each column of shape (n, 2); NaN where there is nothing."""
    return (SIGMA_PER_MAD * median(np.abs(residual[:, 0])), SIGMA_PER_MAD * median(np.abs(residual[:, 1])))


def vector_map(plane: FocalPlane, kind: str) -> VectorMap | None:
    """Residuals over the field, one by one where they are few, else medians in cells of each CCD; None without any.

    `kind`: external or internal. Stars of which all was cut take part in medians: they tell where a CCD is wrong.
    """
    d = plane.detections
    residual = d.residual_mas(kind)
    here = np.flatnonzero(np.isfinite(residual).all(axis=1))
    if not here.size:
        return None
    kept = here[d.kept[here]]
    sigma = float(np.mean(axis_sigma(residual[kept if kept.size else here])))
    if here.size <= MOST_SINGLE:
        places = d.place_arcmin[here]
        area = float(np.prod(np.ptp(places, axis=0))) if here.size > 1 else 1.0
        length = np.hypot(*residual[here].T) / max(sigma, 1e-9)
        side = max(np.sqrt(area / here.size), 1e-3)
        ones = np.ones(here.size, np.int32)
        return VectorMap(
            places, residual[here], ones, length, d.ccd[here], d.kept[here], False, side, sigma, here.size
        )
    return _binned(plane, kind, here, sigma)


def _binned(plane: FocalPlane, kind: str, here: NDArray[np.intp], sigma: float) -> VectorMap:
    d = plane.detections
    residual = d.residual_mas(kind)
    n_alone = len(np.unique(d.star[here])) if kind == "external" else here.size
    wanted = min(_MOST_CELLS, n_alone / _PER_CELL) / max(len(plane.ccds), 1)
    rows, sides, within = [], [], [np.empty(0)]
    for c, ccd in enumerate(plane.ccds):
        own = here[d.ccd[here] == c]
        nx = max(1, round(np.sqrt(wanted * ccd.nx / ccd.ny)))
        ny = max(1, round(wanted / nx))
        sides.append(np.sqrt(ccd.nx / nx * ccd.ny / ny) * plane.wcs[c].scale_at(*ccd.centre) / 60.0)
        column = np.clip((d.x_px[own] - 0.5) * nx / ccd.nx, 0, nx - 1).astype(int)
        line = np.clip((d.y_px[own] - 0.5) * ny / ccd.ny, 0, ny - 1).astype(int)
        cell = line * nx + column
        for value in np.unique(cell):
            inside = own[cell == value]
            values = _per_star(d, inside) if kind == "external" else residual[inside]
            n = len(values)
            if n < _LEAST_IN_CELL:
                continue
            vector = np.median(values, axis=0)
            # A sample's own median takes some of its scatter away.
            within.append(np.abs(values - vector).ravel() * np.sqrt(n / (n - 1.0)))
            x, y = (value % nx + 0.5) * ccd.nx / nx + 0.5, (value // nx + 0.5) * ccd.ny / ny + 0.5
            place = plane.place_arcmin(c, np.array([x]), np.array([y]))[0]
            rows.append((*place, *vector, n, c))
    table = np.array(rows, dtype=np.float64).reshape(-1, 6)
    alone = SIGMA_PER_MAD * median(np.concatenate(within))
    error = _MEDIAN * max(alone, 1e-9) / np.sqrt(table[:, 4])
    significance = np.hypot(table[:, 2], table[:, 3]) / error
    return VectorMap(
        table[:, :2], table[:, 2:4], table[:, 4].astype(np.int32), significance, table[:, 5].astype(np.int32),
        np.ones(len(table), np.bool_), True, float(np.median(sides)), sigma, here.size,
    )  # fmt: skip


def _per_star(d: FieldDetections, inside: NDArray[np.intp]) -> Floats:
    """Mean residual of each star, shape (stars, 2): seen in many exposures, its catalogue's error stays one error.

    Detections that were cut count where the star has no other.
    """
    names, number = np.unique(d.star[inside], return_inverse=True)
    kept = d.kept[inside]
    used = np.where(np.bincount(number[kept], minlength=len(names))[number] > 0, kept, True).astype(
        np.float64
    )
    total = np.bincount(number, used)
    return np.stack(
        [np.bincount(number, used * d.external_mas[inside, axis]) / total for axis in (0, 1)], axis=1
    )


@dataclass(frozen=True, slots=True)
class Cloud:
    """Residuals of two axes against each other, those kept."""

    residual_mas: Floats
    """Shape (n, 2)."""
    centre_mas: tuple[float, float]
    """Medians."""
    sigma_mas: tuple[float, float]
    """Robust, about the medians."""
    covariance_mas2: Floats
    """Shape (2, 2), of the ellipse: scaled to the robust standard deviations."""
    limit_mas: float
    """A round limit that shows nearly all."""
    n_outside: int

    @property
    def axes(self) -> tuple[float, float, float]:
        """Half axes of the 1-sigma ellipse (long, short; mas) and its angle from RA towards Dec, degrees."""
        values, vectors = np.linalg.eigh(self.covariance_mas2)
        long, short = np.sqrt(np.maximum(values[::-1], 0.0))
        return float(long), float(short), float(np.degrees(np.arctan2(vectors[1, 1], vectors[0, 1])))


def cloud(plane: FocalPlane, kind: str) -> Cloud | None:
    """Residuals in two dimensions; None with fewer than three."""
    d = plane.detections
    residual = d.residual_mas(kind)
    residual = residual[np.isfinite(residual).all(axis=1) & d.kept]
    if len(residual) < 3:
        return None
    (cx, sx), (cy, sy) = median_sigma(residual[:, 0]), median_sigma(residual[:, 1])
    inner = (np.abs(residual - (cx, cy)) <= 3.0 * np.maximum((sx, sy), 1e-9)).all(axis=1)
    rho = _correlation(residual[inner] - (cx, cy)) if np.count_nonzero(inner) > 3 else 0.0
    covariance = np.array([[sx * sx, rho * sx * sy], [rho * sx * sy, sy * sy]])
    limit = _round_up(max(4.0 * max(sx, sy) + max(abs(cx), abs(cy)), 1e-3))
    outside = int(np.count_nonzero((np.abs(residual) > limit).any(axis=1)))
    return Cloud(residual, (cx, cy), (sx, sy), covariance, limit, outside)


def _correlation(off: Floats) -> float:
    variance = float(np.prod(np.mean(off**2, axis=0)))
    return float(np.mean(off[:, 0] * off[:, 1])) / float(np.sqrt(variance)) if variance > 0 else 0.0


def _round_up(value: float) -> float:
    power = 10.0 ** np.floor(np.log10(value))
    return float(
        next(power * nice for nice in (1, 1.5, 2, 3, 4, 5, 6, 8, 10) if power * nice >= 0.999 * value)
    )


@dataclass(frozen=True, slots=True)
class Running:
    """A quantity in bins of another. Arrays have shape (n,)."""

    x: Floats
    """Medians of the bins."""
    median: Floats
    sigma: Floats
    """Robust standard deviation."""
    error: Floats
    """Of the median."""
    n: NDArray[np.int32]


def running(x: Floats, y: Floats, *, least: int = 12, most_bins: int = 14) -> Running:
    """Medians and robust scatter of y in bins of x of equal numbers; empty where there are fewer than `least`."""
    known = np.isfinite(x) & np.isfinite(y)
    x, y = x[known], y[known]
    order = np.argsort(x, kind="stable")
    n_bins = min(most_bins, len(x) // least)
    parts = np.array_split(order, n_bins) if n_bins else []
    rows = []
    for part in parts:
        centre, sigma = median_sigma(y[part])
        rows.append((median(x[part]), centre, sigma, _MEDIAN * sigma / np.sqrt(part.size), part.size))
    table = np.array(rows, dtype=np.float64).reshape(-1, 5)
    return Running(table[:, 0], table[:, 1], table[:, 2], table[:, 3], table[:, 4].astype(np.int32))


@dataclass(frozen=True, slots=True)
class AgainstMagnitude:
    """How residuals of one kind go with magnitude. Arrays have shape (n,), per bin."""

    mag: Floats
    scatter_mas: Floats
    """Robust standard deviation per axis, of both axes."""
    expected_mas: Floats
    """Median standard error that went into the fit."""
    chi2: Floats
    """Robust reduced chi²: squared robust standard deviation of residual over error."""
    n: NDArray[np.int32]


def against_magnitude(plane: FocalPlane, kind: str, *, least: int = 10) -> AgainstMagnitude | None:
    """Scatter and chi² in bins of magnitude of equal numbers; None with fewer than two bins."""
    d = plane.detections
    residual = d.residual_mas(kind)
    error = d.error_mas(kind)
    here = np.flatnonzero(np.isfinite(residual).all(axis=1) & d.kept & np.isfinite(d.mag) & (error > 0))
    n_bins = min(14, here.size // least)
    if n_bins < 2:
        return None
    rows = []
    for part in np.array_split(here[np.argsort(d.mag[here], kind="stable")], n_bins):
        sigma = error[part]
        rows.append((
            median(d.mag[part]),
            SIGMA_PER_MAD * median(np.abs(residual[part])),
            median(sigma),
            (SIGMA_PER_MAD * median(np.abs(residual[part] / sigma[:, None]))) ** 2,
            part.size,
        ))  # fmt: skip
    table = np.array(rows, dtype=np.float64)
    return AgainstMagnitude(table[:, 0], table[:, 1], table[:, 2], table[:, 3], table[:, 4].astype(np.int32))
