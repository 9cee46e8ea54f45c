"""Where the CCDs lie and what the optics do: distortion, and the geometry against the instrument's model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from spica_imaging.polynomial import design

from spica_calib.science.astrometry.problem import CcdPlane, InstrumentModel
from spica_calib.science.diagnostics.plane import FocalPlane
from spica_calib.science.stars import CcdField, Floats

_FITS = 12
"""Rounds of reweighting of the affine map between model and exposure."""


@dataclass(frozen=True, slots=True)
class Distortion:
    """The distortion on a grid of each CCD."""

    shape: tuple[int, int]
    """Cells of a CCD: rows, columns."""
    scale_arcsec: tuple[Floats, ...]
    """Per CCD, shape (rows, columns): pixel scale in the middle of the cell."""
    place_arcmin: tuple[Floats, ...]
    """Per CCD, shape (rows × columns, 2): the cells' middles."""
    bend_arcsec: tuple[Floats, ...]
    """Per CCD, shape (rows × columns, 2): WCS less the best linear map of that CCD."""

    @property
    def scale_range_arcsec(self) -> tuple[float, float]:
        """Least and largest pixel scale."""
        every = np.concatenate([part.ravel() for part in self.scale_arcsec])
        return float(every.min()), float(every.max())

    @property
    def largest_bend_arcsec(self) -> float:
        """Longest of the vectors."""
        return max(float(np.hypot(*part.T).max()) for part in self.bend_arcsec)


def grid_px(ccd: CcdField, rows: int, columns: int) -> tuple[Floats, Floats]:
    """Middles of the cells, FITS pixels, shape (rows × columns,) each."""
    x = (np.arange(columns) + 0.5) * ccd.nx / columns + 0.5
    y = (np.arange(rows) + 0.5) * ccd.ny / rows + 0.5
    return np.tile(x, rows), np.repeat(y, columns)


def distortion(plane: FocalPlane) -> Distortion | None:
    """Pixel scale and bend of each CCD; None without CCDs. Cells are as square as can be, some 600 in all."""
    if not plane.ccds:
        return None
    first = plane.ccds[0]
    wanted = np.clip(600.0 / len(plane.ccds), 6.0, 150.0)
    columns = int(max(2, round(np.sqrt(wanted * first.nx / first.ny))))
    rows = int(max(2, round(wanted / columns)))
    scales, places, bends = [], [], []
    for index, (ccd, wcs) in enumerate(zip(plane.ccds, plane.wcs, strict=True)):
        x, y = grid_px(ccd, rows, columns)
        place = plane.place_arcmin(index, x, y)
        linear = np.stack([np.ones_like(x), x - x.mean(), y - y.mean()], axis=1)
        best = np.linalg.lstsq(linear, 60.0 * place, rcond=None)[0]
        places.append(place)
        bends.append(60.0 * place - linear @ best)
        scales.append(
            np.array([wcs.scale_at(a, b) for a, b in zip(x, y, strict=True)]).reshape(rows, columns)
        )
    return Distortion((rows, columns), tuple(scales), tuple(places), tuple(bends))


def model_place_arcsec(plane: CcdPlane, x: Floats, y: Floats) -> Floats:
    """Where pixels lie in the focal plane of the model, shape (n, 2)."""
    return design(*_normalised(plane, x, y), plane.degree) @ plane.coefficients


def model_error_mas(plane: CcdPlane, x: Floats, y: Floats) -> Floats:
    """Standard error per axis of `model_place_arcsec`, shape (n,)."""
    rows = design(*_normalised(plane, x, y), plane.degree)
    variance = np.einsum("ni,ij,nj->n", rows, plane.covariance, rows)
    return 1000.0 * np.sqrt(np.maximum(variance, 0.0))


def _normalised(plane: CcdPlane, x: Floats, y: Floats) -> tuple[Floats, Floats]:
    return (x - plane.centre_px[0]) / plane.half_px, (y - plane.centre_px[1]) / plane.half_px


@dataclass(frozen=True, slots=True)
class Placement:
    """How a CCD lies against where the model has it, the whole camera's shift, turn and stretch taken off."""

    offset_arcsec: tuple[float, float]
    """Towards east and north."""
    turn_arcsec: float
    """East of north."""
    stretch: float
    """Its scale over the model's, less 1."""
    edge_arcsec: float
    """Largest displacement that all this makes on the CCD."""


def placements(plane: FocalPlane, model: InstrumentModel) -> dict[str, Placement]:
    """Per CCD the exposure's WCS against the model; empty with fewer than three CCDs in both.

    Common to all CCDs is an affine map, found robustly: CCDs that moved do not pull it.
    """
    shared = [index for index, ccd in enumerate(plane.ccds) if ccd.name in model.ccds]
    if len(shared) < 3:
        return {}
    thought, seen = [], []
    for index in shared:
        ccd = plane.ccds[index]
        x, y = grid_px(ccd, 3, 3)
        thought.append(model_place_arcsec(model.ccds[ccd.name], x, y))
        seen.append(60.0 * plane.place_arcmin(index, x, y))
    rests = _less_affine(thought, seen)
    found = {}
    for index, there, rest in zip(shared, seen, rests, strict=True):
        about = there - there.mean(axis=0)
        slope = np.linalg.lstsq(about, rest - rest.mean(axis=0), rcond=None)[0].T
        offset = rest.mean(axis=0)
        found[plane.ccds[index].name] = Placement(
            (float(offset[0]), float(offset[1])),
            float(np.degrees(0.5 * (slope[0, 1] - slope[1, 0])) * 3600.0),
            float(0.5 * (slope[0, 0] + slope[1, 1])),
            float(np.hypot(*rest.T).max()),
        )
    return found


def _less_affine(before: Sequence[Floats], after: Sequence[Floats]) -> list[Floats]:
    """What an affine map common to all parts leaves, per part; parts that stand out weigh little (Cauchy)."""
    rows = np.concatenate([np.column_stack([np.ones(len(part)), part]) for part in before])
    values = np.concatenate(list(after))
    ends = np.cumsum([len(part) for part in before])[:-1]
    weight = np.ones(len(rows))
    rest = values
    for _ in range(_FITS):
        fit = np.linalg.lstsq(rows * weight[:, None], values * weight[:, None], rcond=None)[0]
        rest = values - rows @ fit
        sizes = np.array([np.sqrt(np.mean(part**2)) for part in np.split(rest, ends)])
        scale = max(float(np.median(sizes)), 1e-6)
        per_part = 1.0 / np.sqrt(1.0 + (sizes / (2.0 * scale)) ** 2)
        weight = np.concatenate([np.full(len(part), w) for part, w in zip(before, per_part, strict=True)])
    return np.split(rest, ends)


@dataclass(frozen=True, slots=True)
class ModelChange:
    """How a model differs from the one before; an affine map, which exposures have for themselves, is taken off."""

    place_arcmin: Floats
    """Shape (n, 2), on the focal plane of the exposure."""
    change_mas: Floats
    """Shape (n, 2)."""
    error_mas: Floats
    """Shape (n,): standard error per axis of both models together."""
    rms_mas: float
    """Per axis."""
    largest_mas: float


def model_change(plane: FocalPlane, now: InstrumentModel, before: InstrumentModel) -> ModelChange | None:
    """Compare two versions of a model on a grid of each CCD they share; None where they share none."""
    new, old, places, errors = [], [], [], []
    for index, ccd in enumerate(plane.ccds):
        if ccd.name not in now.ccds or ccd.name not in before.ccds:
            continue
        x, y = grid_px(ccd, 3, 2)
        one, other = now.ccds[ccd.name], before.ccds[ccd.name]
        new.append(model_place_arcsec(one, x, y))
        old.append(model_place_arcsec(other, x, y))
        places.append(plane.place_arcmin(index, x, y))
        errors.append(np.hypot(model_error_mas(one, x, y), model_error_mas(other, x, y)))
    if not new:
        return None
    change = 1000.0 * np.concatenate(_less_affine(old, new))
    length = np.hypot(*change.T)
    return ModelChange(
        np.concatenate(places), change, np.concatenate(errors),
        float(np.sqrt(0.5 * np.mean(length**2))), float(length.max()),
    )  # fmt: skip
