"""Instrument models beside each other: how far apart they are, and two lessons taken together.

The focal plane of a context is known up to an affine map, since every exposure has one of its own (pointing, rotation,
refraction, flexure). Models are therefore compared, and put together, after the affine map between them is taken out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from spica_imaging.polynomial import design, terms

from spica_calib.science.astrometry.problem import CcdPlane, InstrumentModel

Floats = NDArray[np.float64]

_GRID = 7
"""Places per axis of a CCD at which models are compared."""


def difference_mas(first: InstrumentModel, second: InstrumentModel) -> float | None:
    """Largest distance (mas) between two models over the CCDs that both know, an affine map apart.

    None: they know no CCD in common.
    """
    names = _common(first, second)
    if not names:
        return None
    a, b = _places(first, names), _places(second, names)
    return float(np.hypot(*(_moved(b, _affine(b, a)) - a).T).max()) * 1000.0


def merged(
    newest: InstrumentModel, taught: InstrumentModel, parent: InstrumentModel | None
) -> InstrumentModel:
    """Two models that both started from `parent`, as one that knows what each of them learnt besides it.

    Coefficients are means weighted by the numbers of detections: `newest`, and of `taught` what it has more than
    `parent`. In `newest`'s gauge; CCDs that only one of them knows are taken from that one. Covariances shrink as the
    numbers rise.
    """
    n_parent = parent.n_detections if parent else 0
    gained = taught.n_detections - n_parent
    if gained <= 0:
        return newest
    names = _common(newest, taught)
    affine = _between(taught, newest, names)
    parent_affine = _between(parent, newest, _common(newest, parent)) if parent else None
    total = newest.n_detections + gained
    ccds: dict[str, CcdPlane] = dict(newest.ccds)
    for name, ccd in taught.ccds.items():
        own = newest.ccds.get(name)
        if own is None:
            ccds[name] = _turned(ccd, affine)
            continue
        parts = [(newest.n_detections, own), (taught.n_detections, _turned(ccd, affine))]
        if parent is not None and name in parent.ccds and parent_affine is not None:
            parts.append((-n_parent, _turned(parent.ccds[name], parent_affine)))
        else:
            parts[1] = (gained, parts[1][1])
        ccds[name] = _mean(parts, newest.n_detections / total)
    return InstrumentModel(
        context=newest.context,
        ccds=ccds,
        n_exposures=newest.n_exposures + max(0, taught.n_exposures - (parent.n_exposures if parent else 0)),
        n_detections=total,
        repeat_mas=math.sqrt(
            (newest.n_detections * newest.repeat_mas**2 + gained * taught.repeat_mas**2) / total
        ),
    )


def _common(first: InstrumentModel, second: InstrumentModel) -> list[str]:
    """CCDs that both know in the same pixels."""
    return [
        name
        for name, ccd in first.ccds.items()
        if name in second.ccds
        and (ccd.centre_px, ccd.half_px) == (second.ccds[name].centre_px, second.ccds[name].half_px)
    ]


def _places(model: InstrumentModel, names: Sequence[str]) -> Floats:
    """Where a grid over each CCD lies in the focal plane, arcsec. Shape: (n, 2)."""
    places = []
    for name in names:
        ccd = model.ccds[name]
        # As far as the CCD's edges: half its size over half_px.
        far_u, far_v = (max(0.0, centre - 0.5) / ccd.half_px for centre in ccd.centre_px)
        u, v = np.meshgrid(np.linspace(-far_u, far_u, _GRID), np.linspace(-far_v, far_v, _GRID))
        places.append(design(u.ravel(), v.ravel(), ccd.degree) @ ccd.coefficients)
    return np.concatenate(places)


def _affine(from_: Floats, to: Floats) -> Floats:
    """The affine map that brings one set of places nearest to another. Shape: (3, 2), for (1, x, y)."""
    solved = np.asarray(np.linalg.lstsq(_with_one(from_), to, rcond=None)[0], dtype=np.float64)
    return solved


def _with_one(places: Floats) -> Floats:
    return np.column_stack([np.ones(len(places)), places])


def _moved(places: Floats, affine: Floats) -> Floats:
    moved: Floats = _with_one(places) @ affine
    return moved


def _between(first: InstrumentModel, second: InstrumentModel, names: Sequence[str]) -> Floats:
    """The affine map from one model's focal plane to another's; none at all where they have nothing in common."""
    if not names:
        return np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    return _affine(_places(first, names), _places(second, names))


def _turned(ccd: CcdPlane, affine: Floats) -> CcdPlane:
    coefficients: Floats = ccd.coefficients @ affine[1:]
    coefficients[0] += affine[0]
    return replace(ccd, coefficients=coefficients)


def _mean(parts: Sequence[tuple[int, CcdPlane]], shrink: float) -> CcdPlane:
    """Weighted mean of planes of one CCD, of the highest degree among them."""
    first = parts[0][1]
    highest = max((plane for _, plane in parts), key=lambda plane: plane.degree)
    n_terms = len(terms(highest.degree))
    total = sum(weight for weight, _ in parts)
    coefficients = np.zeros((n_terms, 2))
    for weight, plane in parts:
        if (plane.centre_px, plane.half_px) != (first.centre_px, first.half_px):
            return first
        coefficients[: len(plane.coefficients)] += weight / total * plane.coefficients
    # A plane of a higher degree than the other brings its own.
    scale = shrink if first.degree == highest.degree else 1.0
    known = first if first.degree == highest.degree else highest
    return replace(highest, coefficients=coefficients, covariance=scale * known.covariance)
