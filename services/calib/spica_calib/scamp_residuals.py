"""A solution that somebody else found, told in our terms: which detections are one source, and what is left of them.

Pure: arrays in, arrays out. Association is done on the unit sphere, so that exposures may lie anywhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import KDTree
from spica_imaging.stats import SIGMA_PER_MAD
from spica_imaging.wcs import TpvWcs, tan_project

from spica_calib.science.astrometry.problem import (
    AstrometricSolution,
    Detections,
    Exposure,
    ExposureSolution,
    InstrumentModel,
    MergedSources,
    Options,
)
from spica_calib.science.matching.geometry import field_centre, unit_vectors
from spica_calib.science.stars import Bools, Floats, Stars

Ints = NDArray[np.int64]
_CLIP_ROUNDS, _FEWEST = 3, 3
_NONE = (float("nan"), float("nan"))


def mutual_nearest(a: Floats, b: Floats, radius: float) -> tuple[Ints, Ints]:
    """Indices of points that are each other's nearest, within a distance. Shapes (n, k), (m, k)."""
    if not len(a) or not len(b):
        return np.empty(0, np.int64), np.empty(0, np.int64)
    distance, nearest = (np.asarray(part) for part in KDTree(b).query(a, distance_upper_bound=radius))
    i = np.flatnonzero(np.isfinite(distance))
    back = np.asarray(KDTree(a).query(b[nearest[i]])[1])
    i = i[back == i]
    return i.astype(np.int64), nearest[i].astype(np.int64)


def sources_on_sky(place: Floats, exposure: Ints, radius: float) -> Ints:
    """Number of the source that each detection shows, shape (n,); at most one detection per exposure and source.

    Exposure by exposure, detections join the source whose mean place is their mutual nearest within `radius`
    (radians); the others are new sources. `place`: unit vectors, shape (n, 3).
    """
    source = np.full(len(place), -1, dtype=np.int64)
    total, count = np.empty((0, 3)), np.empty(0)
    for number in np.unique(exposure):
        index = np.flatnonzero(exposure == number)
        i, j = mutual_nearest(place[index], total / count[:, None], radius)
        source[index[i]] = j
        total[j] += place[index[i]]
        count[j] += 1
        new = index[source[index] < 0]
        source[new] = len(count) + np.arange(len(new))
        total, count = np.concatenate((total, place[new])), np.append(count, np.ones(len(new)))
    return source


@dataclass(slots=True)
class _Flat:
    """All detections one after another."""

    exposure: Ints
    ccd: Ints
    row: Ints
    ra: Floats
    dec: Floats
    field: Floats
    sigma_mas: Floats


def _flatten(exposures: Sequence[Exposure], wcs: Sequence[Sequence[TpvWcs]], options: Options) -> _Flat:
    parts: list[tuple[Ints, Ints, Ints, Floats, Floats, Floats, Floats]] = []
    for e, (exposure, ccds) in enumerate(zip(exposures, wcs, strict=True)):
        pointing = field_centre(exposure.ccds)
        for c, (ccd, solved) in enumerate(zip(exposure.ccds, ccds, strict=True)):
            n = len(ccd.sources)
            ra, dec = solved.pixel_to_sky(ccd.sources.x, ccd.sources.y)
            error_px = np.hypot(ccd.sources.weight_error_px, options.floor_px)
            parts.append(
                (
                    np.full(n, e, np.int64),
                    np.full(n, c, np.int64),
                    np.arange(n, dtype=np.int64),
                    ra,
                    dec,
                    np.column_stack(tan_project(ra, dec, *pointing)),
                    1000.0 * solved.scale_at(*ccd.centre) * error_px,
                )
            )
    joined = [np.concatenate(column) for column in zip(*parts, strict=True)]
    return _Flat(*joined)


def _offsets_mas(ra: Floats, dec: Floats, ra0: Floats, dec0: Floats) -> Floats:
    """From (ra0, dec0) to (ra, dec), along RA*cos(Dec) and Dec; shape (n, 2)."""
    d_ra = np.mod(ra - ra0 + 180.0, 360.0) - 180.0
    return 3.6e6 * np.column_stack((d_ra * np.cos(np.radians(dec0)), dec - dec0))


def _spread(values: Floats) -> tuple[float, float]:
    """Robust standard deviation per axis; NaN with fewer than three."""
    if len(values) < _FEWEST:
        return _NONE
    spread = SIGMA_PER_MAD * np.median(np.abs(values - np.median(values, axis=0)), axis=0)
    return float(spread[0]), float(spread[1])


def _chi2(values: Floats, sigma: Floats, n_free: int) -> float:
    return (
        float(np.sum((values / sigma[:, None]) ** 2) / max(2 * len(values) - n_free, 1))
        if len(values)
        else np.nan
    )


class _Residuals:
    """Groups, stars and what is left, with outliers cut."""

    def __init__(
        self, exposures: Sequence[Exposure], wcs: Sequence[Sequence[TpvWcs]], stars: Stars, options: Options
    ) -> None:
        self.flat = flat = _flatten(exposures, wcs, options)
        self.place = unit_vectors(flat.ra, flat.dec)
        radius = float(np.radians(options.crossid_arcsec / 3600.0))
        self.group = sources_on_sky(self.place, flat.exposure, radius)
        self.n_groups = int(self.group.max()) + 1 if len(self.group) else 0
        self.star = np.full(len(flat.ra), -1, dtype=np.int64)
        self.external = np.full((len(flat.ra), 2), np.nan)
        self.star_sigma = np.full(len(flat.ra), np.nan)
        for number, exposure in enumerate(exposures):
            self._meet(number, stars.at_epoch(exposure.epoch_year), radius, options)
        self.kept = np.ones(len(flat.ra), dtype=bool)
        self.internal = np.full((len(flat.ra), 2), np.nan)
        for _ in range(_CLIP_ROUNDS):
            self._average()
            self._cut(options.clip_sigma)
        self._average()

    def _meet(self, number: int, stars: Stars, radius: float, options: Options) -> None:
        flat, index = self.flat, np.flatnonzero(self.flat.exposure == number)
        i, j = mutual_nearest(self.place[index], unit_vectors(stars.ra_deg, stars.dec_deg), radius)
        seen = index[i]
        self.star[seen] = j
        self.external[seen] = _offsets_mas(stars.ra_deg[j], stars.dec_deg[j], flat.ra[seen], flat.dec[seen])
        self.star_sigma[seen] = np.hypot(1000.0 * stars.error_arcsec[j], options.reference_floor_mas)

    def _average(self) -> None:
        """Weighted means of groups, in the plane about each group's first member."""
        flat = self.flat
        first = np.full(self.n_groups, -1, dtype=np.int64)
        first[self.group[::-1]] = np.arange(len(self.group))[::-1]
        origin = first[self.group]
        place = _offsets_mas(flat.ra, flat.dec, flat.ra[origin], flat.dec[origin])
        weight = self.kept / flat.sigma_mas**2
        self.weight = np.bincount(self.group, weight, self.n_groups)
        self.count = np.bincount(self.group, self.kept, self.n_groups).astype(np.int64)
        total = np.where(self.weight > 0, self.weight, np.nan)
        mean = np.column_stack(
            [np.bincount(self.group, weight * place[:, axis], self.n_groups) / total for axis in (0, 1)]
        )
        self.mean_ra = flat.ra[first] + mean[:, 0] / 3.6e6 / np.cos(np.radians(flat.dec[first]))
        self.mean_dec = flat.dec[first] + mean[:, 1] / 3.6e6
        several = self.count[self.group] >= 2
        self.internal = np.where(several[:, None], mean[self.group] - place, np.nan)

    def _cut(self, clip_sigma: float) -> None:
        """Cut detections far from their star or their group, in units of what is usual in their exposure.

        An exposure that is off as a whole is thus not cut, but seen in its numbers.
        """
        far = np.zeros(len(self.kept), dtype=bool)
        for values, sigma in (
            (self.external, np.hypot(self.flat.sigma_mas, self.star_sigma)),
            (self.internal, self.flat.sigma_mas),
        ):
            normal = np.abs(values / sigma[:, None]).max(axis=1)
            known = np.isfinite(normal)
            for number in np.unique(self.flat.exposure[known]):
                here = known & (self.flat.exposure == number)
                if np.count_nonzero(here & self.kept) >= _FEWEST:
                    # The larger of two normal deviates has its median at 1.05.
                    usual = max(float(np.median(normal[here & self.kept])) / 1.05, 1.0)
                    far |= here & (normal > clip_sigma * usual)
        self.kept = ~far

    def detections(self) -> Detections:
        flat = self.flat
        return Detections(
            exposure=flat.exposure.astype(np.int32),
            ccd=flat.ccd.astype(np.int32),
            row=flat.row.astype(np.int32),
            group=self.group.astype(np.int32),
            star=self.star.astype(np.int32),
            kept=self.kept,
            field_deg=flat.field,
            external_mas=self.external,
            internal_mas=self.internal,
            sigma_mas=flat.sigma_mas,
        )

    def numbers(self, of: Bools) -> tuple[int, int, tuple[float, float], tuple[float, float], float, float]:
        """Stars, sources in common, spreads and reduced chi² of these detections."""
        external = of & self.kept & np.isfinite(self.external[:, 0])
        internal = of & self.kept & np.isfinite(self.internal[:, 0])
        n_internal = len(np.unique(self.group[internal]))
        # Sources are means of their members: each takes the share 1 / count of a detection's freedom.
        free = float((2.0 / np.maximum(self.count[self.group[internal]], 1)).sum())
        sigma = np.hypot(self.flat.sigma_mas, self.star_sigma)
        return (
            int(external.sum()),
            n_internal,
            _spread(self.external[external]),
            _spread(self.internal[internal]),
            _chi2(self.external[external], sigma[external], 0),
            _chi2(self.internal[internal], self.flat.sigma_mas[internal], round(free)),
        )

    def merged(self) -> MergedSources:
        good = np.flatnonzero(self.count > 0)
        variance = 1.0 / self.weight[good]
        return MergedSources(
            ra_deg=np.mod(self.mean_ra[good], 360.0),
            dec_deg=self.mean_dec[good],
            covariance_mas2=np.column_stack((variance, np.zeros(len(good)), variance)),
            n_detections=self.count[good].astype(np.int32),
            group=good.astype(np.int32),
        )


def as_solution(
    exposures: Sequence[Exposure],
    wcs: Sequence[tuple[TpvWcs, ...]],
    stars: Stars,
    options: Options,
    *,
    models: Mapping[str, InstrumentModel],
    rounds: int,
    notes: tuple[str, ...],
) -> AstrometricSolution:
    """An `AstrometricSolution` of WCS that were found elsewhere, with residuals by our own association.

    Args:
        exposures: with their sources.
        wcs: per exposure and CCD.
        stars: reference stars, at any epoch; they are moved to each exposure's.
        options: `crossid_arcsec`, `clip_sigma`, floors and `with_positions` are used; `degree` is what was fitted.
        models: handed through.
        rounds: of the fit, handed through.
        notes: handed through.

    `model_error_mas` is NaN: the covariance of the fit is not known.

    """
    left = _Residuals(exposures, wcs, stars, options)
    everything = np.ones(len(left.kept), dtype=bool)
    solved = []
    for number, ccds in enumerate(wcs):
        n_external, n_internal, external, internal, chi2_e, chi2_i = left.numbers(
            left.flat.exposure == number
        )
        solved.append(
            ExposureSolution(
                tuple(ccds),
                options.degree,
                n_external,
                n_internal,
                external,
                internal,
                chi2_e,
                chi2_i,
                np.nan,
            )
        )
    n_external, n_internal, external, internal, chi2_e, chi2_i = left.numbers(everything)
    return AstrometricSolution(
        exposures=tuple(solved),
        models=models,
        detections=left.detections(),
        n_external=n_external,
        n_internal=n_internal,
        external_mas=external,
        internal_mas=internal,
        chi2_external=chi2_e,
        chi2_internal=chi2_i,
        rounds=rounds,
        sources=left.merged() if options.with_positions else None,
        notes=notes,
    )
