"""The problem as flat arrays: units (one CCD of one exposure) one after the other, in an order of their own.

The order does not depend on that of the input, so neither does anything that follows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from spica_imaging.polynomial import terms

from spica_calib.science.astrometry.crossid import StarField
from spica_calib.science.astrometry.kernels import Flags, Index, Singles
from spica_calib.science.astrometry.problem import Exposure, InstrumentModel, Options
from spica_calib.science.astrometry.sky import ARCSEC_PER_RAD, east_north, unit_vectors
from spica_calib.science.stars import CcdField, Floats, Ints, Sources, Stars


@dataclass(frozen=True, slots=True)
class Plane:
    """What one CCD of one instrument context is called, and how its pixels are normalised."""

    context: str
    name: str
    centre: tuple[float, float]
    half: float


@dataclass(frozen=True, slots=True)
class Layout:
    """What stays as it is while solving. Detections: shape (n,); units: (k,); exposures: (e,), in canonical order."""

    exposures: tuple[Exposure, ...]
    order: Index
    """Place of each exposure in the input."""
    contexts: tuple[str, ...]
    planes: tuple[Plane, ...]
    plane_context: Index
    exposure_context: Index
    free: Index
    """Number among the exposures that are not held; -1: held."""
    degree: int
    u: Floats
    v: Floats
    error_px: Singles
    """Per axis, floor included."""
    exposure: Index
    unit: Index
    row: Index
    """Index into the CCD's sources."""
    starts: Ints
    """Shape (k + 1,): detections of unit k are `starts[k] : starts[k + 1]`."""
    spans: Ints
    """Shape (e + 1,): those of exposures."""
    unit_plane: Index
    """-1: held."""
    unit_exposure: Index
    unit_ccd: Index
    """Index into the exposure's CCDs."""
    years: Floats
    """Epoch of each exposure, minus the stars'."""
    stars: StarField
    notes: list[str] = field(default_factory=list)

    @property
    def n_terms(self) -> int:
        """Of the polynomial of a plane."""
        return len(terms(self.degree))

    @property
    def held(self) -> Flags:
        """Per exposure."""
        return (self.free < 0).astype(np.uint8)

    def brightest(self, most: int) -> Layout:
        """The same with at most so many detections per unit: those with the smallest errors."""
        chosen = []
        for k in range(len(self.unit_plane)):
            first, last = int(self.starts[k]), int(self.starts[k + 1])
            error = self.error_px[first:last]
            if len(error) > most:
                chosen.append(first + np.sort(np.argpartition(error, most)[:most]))
            else:
                chosen.append(np.arange(first, last))
        index = np.concatenate(chosen) if chosen else np.empty(0, np.int64)
        return replace(
            self, u=self.u[index], v=self.v[index], error_px=self.error_px[index], exposure=self.exposure[index],
            unit=self.unit[index], row=self.row[index], starts=np.searchsorted(index, self.starts),
            spans=np.searchsorted(index, self.spans), notes=self.notes,
        )  # fmt: skip

    def ccd(self, unit: int) -> CcdField:
        """The CCD of a unit."""
        return self.exposures[self.unit_exposure[unit]].ccds[self.unit_ccd[unit]]


def ccd_names(exposure: Exposure) -> list[str]:
    """Names by which the CCDs of an exposure are known: their own, with the HDU's number where one comes twice."""
    names = [ccd.name for ccd in exposure.ccds]
    return [
        name if name and names.count(name) == 1 else f"{name}#{ccd.hdu}"
        for name, ccd in zip(names, exposure.ccds, strict=True)
    ]


def star_field(stars: Stars, epoch_year: float, floor_arcsec: float) -> StarField:
    """Reference stars at one epoch, as directions; stars that are nowhere are put where nothing is."""
    years = np.where(np.isfinite(stars.epoch_year), epoch_year - stars.epoch_year, 0.0)
    seen = np.isfinite(stars.ra_deg) & np.isfinite(stars.dec_deg)
    ra, dec = np.where(seen, stars.ra_deg, 0.0), np.where(seen, stars.dec_deg, 0.0)
    east, north = east_north(ra, dec)
    per_year = np.nan_to_num(stars.pm_ra_mas_yr)[:, None] * east
    per_year = (per_year + np.nan_to_num(stars.pm_dec_mas_yr)[:, None] * north) / 1000.0 / ARCSEC_PER_RAD
    vectors = unit_vectors(ra, dec) + years[:, None] * per_year
    vectors /= np.sqrt((vectors**2).sum(axis=1, keepdims=True))
    vectors[~seen] = 2.0
    return StarField(vectors, per_year, np.hypot(stars.error_arcsec, floor_arcsec), epoch_year)


def _canonical(exposures: Sequence[Exposure]) -> list[int]:
    def key(number: int) -> tuple[object, ...]:
        exposure = exposures[number]
        size = tuple((ccd.hdu, len(ccd.sources), float(np.nansum(ccd.sources.x))) for ccd in exposure.ccds)
        return exposure.context, exposure.epoch_year, exposure.name, exposure.held, sorted(size)

    return sorted(range(len(exposures)), key=key)


def _planes(
    exposures: Sequence[Exposure], known: Mapping[str, InstrumentModel]
) -> dict[tuple[str, str], Plane]:
    found: dict[tuple[str, str], Plane] = {}
    for exposure in exposures:
        if exposure.held:
            continue
        model = known.get(exposure.context)
        for name, ccd in zip(ccd_names(exposure), exposure.ccds, strict=True):
            key = exposure.context, name
            if key in found:
                continue
            told = model.ccds.get(name) if model is not None else None
            if told is not None:
                found[key] = Plane(*key, told.centre_px, told.half_px)
            else:
                found[key] = Plane(*key, ccd.centre, max(ccd.nx, ccd.ny) / 2.0)
    return dict(sorted(found.items()))


def lay_out(
    exposures: Sequence[Exposure], stars: Stars, options: Options, known: Mapping[str, InstrumentModel]
) -> Layout:
    """Flatten a problem. Sources without a finite position are left out."""
    order = _canonical(exposures)
    sorted_exposures = tuple(exposures[k] for k in order)
    table = _planes(sorted_exposures, known)
    numbers = {key: k for k, key in enumerate(table)}
    contexts = tuple(sorted({key[0] for key in table}))
    degrees = [ccd.degree for c in contexts if c in known for ccd in known[c].ccds.values()]
    u, v, error, rows, sizes, units = [], [], [], [], [], []
    for e, exposure in enumerate(sorted_exposures):
        names = ccd_names(exposure)
        for c in sorted(range(len(names)), key=names.__getitem__):
            s = exposure.ccds[c].sources
            plane = None if exposure.held else numbers[exposure.context, names[c]]
            centre, half = ((0.0, 0.0), 1.0) if plane is None else _normal(table[exposure.context, names[c]])
            good = _worth_while(s, options)
            rows.append(good.astype(np.int32))
            u.append((s.x[good] - centre[0]) / half)
            v.append((s.y[good] - centre[1]) / half)
            measured = np.nan_to_num(s.weight_error_px[good], nan=1.0, posinf=1e3)
            error.append(np.hypot(measured, options.floor_px).astype(np.float32))
            sizes.append(len(good))
            units.append((-1 if plane is None else plane, e, c))
    unit_array = np.array(units, dtype=np.int32).reshape(-1, 3)
    starts = np.concatenate(([0], np.cumsum(sizes, dtype=np.int64))).astype(np.int64)
    unit = np.repeat(np.arange(len(units), dtype=np.int32), sizes)
    per_exposure = np.bincount(unit_array[:, 1], minlength=len(order))
    first = np.concatenate(([0], np.cumsum(per_exposure)))
    free = np.array([not e.held for e in sorted_exposures], dtype=bool)
    epochs = np.array([e.epoch_year for e in sorted_exposures])
    mean_epoch = float(epochs[free].mean() if free.any() else epochs.mean()) if len(epochs) else 2000.0
    return Layout(
        exposures=sorted_exposures,
        order=np.array(order, dtype=np.int32),
        contexts=contexts,
        planes=tuple(table.values()),
        plane_context=np.array([contexts.index(key[0]) for key in table], dtype=np.int32),
        exposure_context=np.array(
            [contexts.index(e.context) if e.context in contexts else -1 for e in sorted_exposures],
            dtype=np.int32,
        ),
        free=np.where(free, np.cumsum(free) - 1, -1).astype(np.int32),
        degree=max([options.degree, *degrees]),
        u=_joined(u),
        v=_joined(v),
        error_px=_joined(error).astype(np.float32),
        exposure=unit_array[unit, 1],
        unit=unit,
        row=_joined(rows).astype(np.int32),
        starts=starts,
        spans=starts[first],
        unit_plane=unit_array[:, 0].copy(),
        unit_exposure=unit_array[:, 1].copy(),
        unit_ccd=unit_array[:, 2].copy(),
        years=epochs - mean_epoch,
        stars=star_field(stars, mean_epoch, options.reference_floor_mas / 1000.0),
    )


def _worth_while(sources: Sources, options: Options) -> Ints:
    """Sources with a place, and those faint ones left out that cost time and tell nothing beside the others."""
    good = np.isfinite(sources.x) & np.isfinite(sources.y) & ~(sources.error_px <= -1.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        snr = sources.star_flux_adu / sources.star_flux_error_adu
    snr = np.where(good, np.where(np.isfinite(snr), snr, np.inf), -np.inf)
    least = options.least_snr
    if len(snr) > options.least_per_ccd:
        least = min(least, float(np.partition(snr, -options.least_per_ccd)[-options.least_per_ccd]))
    else:
        least = -np.inf
    return np.flatnonzero(good & (snr >= least)).astype(np.int64)


def _normal(plane: Plane) -> tuple[tuple[float, float], float]:
    return plane.centre, plane.half


def _joined(parts: Sequence[NDArray[Any]]) -> NDArray[Any]:
    return np.concatenate(parts) if parts else np.empty(0)
