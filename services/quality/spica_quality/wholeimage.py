"""From what was measured on the CCDs to the figures of the image: counts, offset, gradient, condition."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import nan

import numpy as np
from astropy import units as u
from astropy.coordinates import SkyCoord
from spica_imaging.references import Stars, julian_year, separation_deg
from spica_imaging.stats import finite, median
from spica_proto.base import Product

from spica_quality.ccdwork import CcdResult
from spica_quality.reference import NoReference, ReferenceFile, stars_around
from spica_quality.science.metrics.conditions import (
    Circumstances,
    among_others,
    frame_condition,
    missing_ccds,
)
from spica_quality.science.metrics.counts import Census, band_of, census, ratios
from spica_quality.science.metrics.figures import Figures, number, row
from spica_quality.science.metrics.gradients import focal_plane_gradient
from spica_quality.science.metrics.offset import find_offset
from spica_quality.science.metrics.summary import summarise

_MJD_2000 = 51544.5
_MARGIN_DEG = 0.15
"""The header may be off: reference stars are taken from further around."""
_STAR_LIKE = 0.5
_PEAK_TO_FLUX = 1.3
"""Flux of a star over its peak times FWHM², for profiles with wings."""


@dataclass(frozen=True, slots=True)
class Observed:
    """What is known of an image or stack besides its pixels."""

    filter: str
    n_expected_ccds: tuple[int, ...] = ()
    """Numbers of CCDs that the instrument's files may have; empty: any."""
    is_stack: bool = False


@dataclass(frozen=True, slots=True)
class Place:
    """Where an image lies on the sky."""

    ra_deg: float
    dec_deg: float
    radius_deg: float
    """From the middle to the farthest corner."""
    galactic_deg: tuple[float, float]


def place_of(results: Sequence[CcdResult], pointing_deg: tuple[float, float] | None) -> Place | None:
    """Middle and radius of the CCDs, as far as they have a WCS; else the pointing. None: nobody knows."""
    corners = np.array([corner for result in results for corner in result.corners_deg])
    if len(corners):
        # The mean of unit vectors: an image may lie across RA 0.
        vectors = SkyCoord(*corners.T, unit="deg").cartesian.mean()
        middle = SkyCoord(vectors, representation_type="cartesian").spherical
        ra, dec = float(middle.lon.deg), float(middle.lat.deg)
        radius = float(np.max(separation_deg(corners[:, 0], corners[:, 1], ra, dec)))
    elif pointing_deg is not None:
        (ra, dec), radius = pointing_deg, nan
    else:
        return None
    galactic = SkyCoord(ra * u.deg, dec * u.deg).galactic
    return Place(ra, dec, radius, (float(galactic.l.deg), float(galactic.b.deg)))


@dataclass(frozen=True, slots=True)
class Known:
    """The reference stars around an image."""

    stars: Stars | None
    used: tuple[Product, ...] = ()
    """The catalogue that they are from."""
    told: str = "none is set"
    """Which catalogue that is, or why there is none: for the report."""
    notes: tuple[str, ...] = ()
    """Why a catalogue that was asked for is not used: for the log."""


def known_stars(
    reference: ReferenceFile | None, why_none: str, place: Place | None, mjd_obs: float | None
) -> Known:
    """Reference stars around an image at its epoch. `why_none`: why there is no catalogue; empty: none was asked for."""
    if reference is None:
        return Known(None, told=why_none, notes=(why_none,)) if why_none else Known(None)
    try:
        if place is None or not np.isfinite(place.radius_deg):
            raise NoReference(
                "No astrometric offset is measured: the headers have no WCS that could be compared."
            )
        stars = stars_around(
            reference,
            place.ra_deg,
            place.dec_deg,
            place.radius_deg + _MARGIN_DEG,
            julian_year(_MJD_2000 if mjd_obs is None else mjd_obs),
        )
    except NoReference as reason:
        return Known(None, told=str(reason), notes=(str(reason),))
    return Known(stars, (reference.product(),), f"{reference.path.name}, sha256 {reference.sha256}")


def image_figures(
    observed: Observed, results: Sequence[CcdResult], place: Place | None, known: Stars | None = None
) -> tuple[list[Figures], Figures]:
    """Figures of the CCDs, with what only the others tell of them, and of the image. `known`: reference stars."""
    rows = [result.figures for result in results]
    if not observed.is_stack:
        rows = among_others(rows)
    if known is not None:
        rows = [_with_offset(one, result, known) for one, result in zip(rows, results, strict=True)]
    band = band_of(observed.filter)
    counted = [_census(one, result, band, place) for one, result in zip(rows, results, strict=True)]
    of_image: Figures = {
        "n_ccds_missing": missing_ccds(len(rows), observed.n_expected_ccds),
        **ratios(counted, _area_square_deg(rows)),
    }
    if len(rows) > 1 and all(result.corners_deg for result in results):
        centres = [result.corners_deg[0] for result in results]
        of_image |= focal_plane_gradient(rows, centres).figures()
    figures = summarise(rows, of_image)
    about = Circumstances(
        gain_e_per_adu=median([result.gain_e_per_adu for result in results]) if results else 0.0,
        read_noise_e=median([result.read_noise_e for result in results]) if results else 0.0,
        n_expected_ccds=observed.n_expected_ccds,
        is_stack=observed.is_stack,
    )
    return rows, figures | frame_condition(figures, about).figures()


def _area_square_deg(rows: Sequence[Figures]) -> float:
    areas = finite(
        [number(one, "n_usable") * (number(one, "pixel_scale_arcsec") / 3600.0) ** 2 for one in rows]
    )
    return float(areas.sum()) if areas.size else nan


def _with_offset(figures: Figures, result: CcdResult, known: Stars) -> Figures:
    """The row with the offset of the CCD's stars from the reference stars, where one is found."""
    stars, scale = result.stars, number(figures, "pixel_scale_arcsec")
    if stars is None or not stars.ra_deg.size:
        return figures
    found = find_offset(
        stars.ra_deg,
        stars.dec_deg,
        stars.flux,
        known.ra_deg,
        known.dec_deg,
        known.brightness(None),
        precision_arcsec=2.0 * scale if scale > 0 else 2.0,
    )
    return figures if found is None else row({**figures, **found.figures()})


def _census(figures: Figures, result: CcdResult, band: str | None, place: Place | None) -> Census | None:
    columns = result.table.columns
    if place is None or not columns or "CLASS_STAR" not in columns:
        return None
    scale, width = number(figures, "pixel_scale_arcsec"), number(figures, "fwhm_with_pixel_px")
    peak = number(figures, "saturation_adu") - number(figures, "background_adu")
    return census(
        columns["FLUX_AUTO"].astype(np.float64),
        columns["CLASS_STAR"] > _STAR_LIKE,
        zeropoint_mag=number(figures, "zeropoint_mag"),
        limiting_flux_adu=number(figures, "limiting_flux_adu"),
        brightest_adu=peak * _PEAK_TO_FLUX * width**2,
        area_square_deg=number(figures, "n_usable") * (scale / 3600.0) ** 2,
        band=band,
        galactic_deg=place.galactic_deg,
    )
