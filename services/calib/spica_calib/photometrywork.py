"""Photometry of solved images, in a worker process: from sources and headers to zero points and flux scales."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
from spica_imaging.profiles import Profile

from spica_calib.science.astrometry.problem import AstrometricSolution, Detections
from spica_calib.science.photometry.anchors import NOMINAL_ZEROPOINT_MAG
from spica_calib.science.photometry.problem import (
    Anchor,
    ColourTerm,
    Illumination,
    Options,
    PhotometricDetections,
    PhotometricExposure,
    PhotometricSolution,
)
from spica_calib.science.photometry.referencing import ReferenceMagnitudes, reference_magnitudes
from spica_calib.science.photometry.solve import solve
from spica_calib.science.photometry.zeropoint import flux_scale
from spica_calib.science.stars import CcdField, Stars

_WORST_ERROR_MAG = 0.1
"""Fainter detections tell little, and are biased: only their upward scatter was detected."""


@dataclass(frozen=True, slots=True)
class Calibrated:
    """The photometric solution and what follows for pixels."""

    solution: PhotometricSolution
    zeropoint_mag: tuple[float, ...]
    """Per exposure, AB magnitude of 1 adu/s; relative where `is_absolute` is not."""
    is_absolute: tuple[bool, ...]
    """Per exposure: whether its scale stands on anything (`anchor` tells on what)."""
    ccd_zeropoint_mag: tuple[tuple[float, ...], ...]
    """Per exposure and CCD, illumination included: MAGZEROP."""
    flux_scale: tuple[tuple[float, ...], ...]
    """Per exposure and CCD: FLXSCALE, which brings counts to zero point 30 and 1 s."""
    offset_mag: tuple[Mapping[str, float], ...]
    """Per exposure: illumination by CCD name; mean 0 over stars."""
    systematic_mag: float
    """How far all zero points may be off together: the transformation from the reference's band."""


def photometric_exposure(
    *,
    name: str,
    context: str,
    filter: str,
    exposure_time_s: float,
    ccds: Sequence[str],
    facts: Any,
    own_zeropoint_mag: float | None = None,
    own_zeropoint_sigma_mag: float | None = None,
    own_anchor: Anchor | None = None,
) -> PhotometricExposure:
    """What is known of an exposure, for the solver.

    `facts` has, as far as they are known, the attributes `airmass`, `mjd_obs`, `header_zeropoint_mag`,
    `header_zeropoint_sigma_mag`, `header_zeropoint_nominal_mag`, `header_airmass_term_mag`, `header_colour_term`,
    `sky_absorption_mag` and `is_photometric`, as the store's table of images has them.
    """

    def fact(key: str) -> Any:
        return getattr(facts, key, None)

    return PhotometricExposure(
        name=name,
        context=context,
        exposure_time_s=exposure_time_s,
        airmass=fact("airmass"),
        mjd_obs=fact("mjd_obs"),
        ccds=tuple(ccds),
        header_zeropoint_mag=fact("header_zeropoint_mag"),
        header_zeropoint_sigma_mag=fact("header_zeropoint_sigma_mag"),
        header_nominal_zeropoint_mag=fact("header_zeropoint_nominal_mag"),
        header_airmass_term_mag=fact("header_airmass_term_mag"),
        header_colour_term=fact("header_colour_term"),
        absorption_mag=fact("sky_absorption_mag"),
        is_photometric=fact("is_photometric"),
        own_zeropoint_mag=own_zeropoint_mag,
        own_zeropoint_sigma_mag=own_zeropoint_sigma_mag,
        own_anchor=own_anchor,
        filter=filter,
    )


def calibrate_exposures(
    exposures: Sequence[PhotometricExposure],
    fields: Sequence[Sequence[CcdField]],
    astrometry: AstrometricSolution | Detections,
    stars: Stars,
    profile: Profile,
    known: Mapping[str, Illumination] | None = None,
    options: Options | None = None,
) -> Calibrated:
    """Photometric solution of exposures together: the members of a stack.

    Args:
        exposures: from `photometric_exposure`, in the order of the astrometric solution.
        fields: their CCDs, as the astrometric solver was given them.
        astrometry: its solution, or the detections of it: which source is which star.
        stars: the reference stars that it was given.
        profile: names the reference band per filter.
        known: illumination by context, as it was found before.
        options: other than the usual; band, colour and airmass terms are filled in here.

    """
    detections = astrometry.detections if isinstance(astrometry, AstrometricSolution) else astrometry
    references = _references(exposures, stars, profile)
    problem = photometric_detections(exposures, fields, detections, references)
    used = {one.band for one in references.values() if one.band is not None}
    terms: dict[str, ColourTerm] = {}
    airmass = {}
    for exposure in exposures:
        term = references[exposure.filter].colour_term
        if term is not None:
            terms[exposure.context] = term
        if (per_airmass := profile.photometry.airmass_term(exposure.filter)) is not None:
            airmass[exposure.context] = per_airmass
    filled = replace(
        options or Options(),
        band=",".join(sorted(used)) or None,
        colour_terms=terms,
        airmass_terms=airmass,
    )
    solution = solve(exposures, problem, options=filled, known=known)
    notes = tuple(dict.fromkeys(note for one in references.values() for note in one.notes))
    systematic = max((one.systematic_mag for one in references.values()), default=0.0)
    return _with_scales(exposures, replace(solution, notes=solution.notes + notes), systematic)


def calibrate_one(
    number: int,
    exposures: Sequence[PhotometricExposure],
    fields: Sequence[Sequence[CcdField]],
    astrometry: AstrometricSolution | Detections,
    stars: Stars,
    profile: Profile,
    known: Mapping[str, Illumination] | None = None,
    options: Options | None = None,
) -> Calibrated:
    """Photometric solution of one image, number `number` of these; the others are of its run and overlap with it.

    Only those of its own filter take part. What comes back is of that image alone: one exposure, its context's
    illumination; residuals are those of all detections of the astrometric solution, NaN for other filters.
    """
    found = astrometry.detections if isinstance(astrometry, AstrometricSolution) else astrometry
    same = [i for i, exposure in enumerate(exposures) if exposure.filter == exposures[number].filter]
    place = np.full(len(exposures), -1, dtype=np.int32)
    place[same] = np.arange(len(same), dtype=np.int32)
    mine = place[found.exposure] >= 0
    cut: dict[str, Any] = {name: getattr(found, name)[mine] for name in Detections.__slots__}
    part = Detections(**(cut | {"exposure": place[found.exposure[mine]]}))
    done = calibrate_exposures(
        [exposures[i] for i in same], [fields[i] for i in same], part, stars, profile, known, options
    )
    which = same.index(number)
    residual, kept = np.full(len(mine), np.nan), np.zeros(len(mine), dtype=bool)
    residual[mine], kept[mine] = done.solution.residual_mag, done.solution.kept
    context = exposures[number].context
    return Calibrated(
        solution=replace(
            done.solution,
            exposures=(done.solution.exposures[which],),
            illumination={context: done.solution.illumination[context]},
            residual_mag=residual,
            kept=kept,
        ),
        zeropoint_mag=(done.zeropoint_mag[which],),
        is_absolute=(done.is_absolute[which],),
        ccd_zeropoint_mag=(done.ccd_zeropoint_mag[which],),
        flux_scale=(done.flux_scale[which],),
        offset_mag=(done.offset_mag[which],),
        systematic_mag=done.systematic_mag,
    )


def photometric_detections(
    exposures: Sequence[PhotometricExposure],
    fields: Sequence[Sequence[CcdField]],
    detections: Detections,
    references: Mapping[str, ReferenceMagnitudes],
) -> PhotometricDetections:
    """The detections of an astrometric solution as the photometric solver takes them, row by row.

    Those that are not clean, not kept by the astrometry, fainter than 10 sigma, or neither starlike nor a reference
    star have no magnitude (NaN). `references`: by filter.
    """
    n = len(detections.exposure)
    mag, error = np.full(n, np.nan), np.full(n, np.nan)
    reference = {name: np.full(n, np.nan) for name in ("mag", "error_mag", "colour_mag")}
    key = detections.exposure.astype(np.int64) << 20 | detections.ccd
    order = np.argsort(key, kind="stable")
    edges = np.flatnonzero(np.diff(key[order], prepend=-1, append=-1))
    for low, high in pairwise(edges):
        rows = order[low:high]
        exposure, ccd = int(detections.exposure[rows[0]]), int(detections.ccd[rows[0]])
        about, sources = exposures[exposure], fields[exposure][ccd].sources
        row, star = detections.row[rows], detections.star[rows]
        flux, flux_error = sources.star_flux_adu[row], sources.star_flux_error_adu[row]
        sound = detections.kept[rows] & sources.clean[row] & (sources.starlike[row] | (star >= 0))
        with np.errstate(invalid="ignore", divide="ignore"):
            one_error = 2.5 / np.log(10.0) * flux_error / flux
            one_mag = -2.5 * np.log10(flux / about.exposure_time_s)
        good = sound & (flux > 0) & (flux_error > 0) & (one_error <= _WORST_ERROR_MAG)
        if about.exposure_time_s <= 0:
            good[:] = False
        mag[rows] = np.where(good, one_mag, np.nan)
        error[rows] = np.where(good, one_error, np.nan)
        told = references[about.filter]
        if len(told.mag):
            for name, values in reference.items():
                values[rows] = np.where(star >= 0, getattr(told, name)[star], np.nan)
    return PhotometricDetections(
        detections.exposure.astype(np.int32),
        detections.ccd.astype(np.int32),
        detections.group.astype(np.int32),
        mag,
        error,
        reference["mag"],
        reference["error_mag"],
        reference["colour_mag"],
    )


def _references(
    exposures: Sequence[PhotometricExposure], stars: Stars, profile: Profile
) -> dict[str, ReferenceMagnitudes]:
    return {
        name: reference_magnitudes(
            profile.photometry.references_for(name), stars.mags, stars.mag_errors, len(stars)
        )
        for name in dict.fromkeys(exposure.filter for exposure in exposures)
    }


def _with_scales(
    exposures: Sequence[PhotometricExposure], solution: PhotometricSolution, systematic_mag: float
) -> Calibrated:
    zeros, absolute, per_ccd, scales, offsets = [], [], [], [], []
    for exposure, found in zip(exposures, solution.exposures, strict=True):
        zero = found.mag if found.mag is not None else found.relative_mag
        zero = zero if zero is not None else NOMINAL_ZEROPOINT_MAG
        illumination = solution.illumination[exposure.context]
        offset = {ccd: illumination.offset_mag.get(ccd, 0.0) for ccd in exposure.ccds}
        ccd_zeros = tuple(zero + offset[ccd] for ccd in exposure.ccds)
        zeros.append(zero)
        absolute.append(found.mag is not None)
        per_ccd.append(ccd_zeros)
        scales.append(tuple(flux_scale(one, exposure.exposure_time_s) for one in ccd_zeros))
        offsets.append(offset)
    return Calibrated(
        solution, tuple(zeros), tuple(absolute), tuple(per_ccd), tuple(scales), tuple(offsets), systematic_mag
    )
