"""How many stars and galaxies a field should show, and how many it did.

Both models are coarse, good to a third; they are there to tell a clouded or wrongly calibrated exposure, and one
full of false detections, from a sound one.

Stars: the fit that Bahcall & Soneira (1980, ApJS 44, 73, appendix B) give for the integral counts of their Galaxy of
disc and spheroid in V; good to 15 % of the model, for galactic latitudes above 20 degrees, without extinction.
Other bands are reached with the mean colour of field stars.

Galaxies: a curve through measured counts in i: 92 per square degree at r < 17.77 (Strauss et al. 2002, AJ 124,
1810), 90,729 on 1.2 square degrees at 18 < I < 24 (McCracken et al. 2003, A&A 410, 17), d log N / dm = 0.35 at
20 < I < 24 (McCracken et al. 2001, A&A 376, 756) and 0.33 beyond (Metcalfe et al. 2001, MNRAS 323, 795). Other bands
with the mean colour of faint galaxies.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import cos, log10, nan, radians, sin, sqrt, tan

import numpy as np
from numpy.typing import NDArray

from spica_quality.science.metrics.figures import Figures, plain

Floats = NDArray[np.float64]

LEAST_LATITUDE_DEG = 20.0
"""Nearer to the plane of the Galaxy dust and crowding make the model of the stars useless."""

_STAR_MODEL_ERROR = 0.35
_GALAXY_MODEL_ERROR = 0.30
_LEAST_EXPECTED = 5.0
_SEPARABLE_SNR = 20.0
"""From here on stars and galaxies are told apart by size, and hardly anything is missed."""

# Band: magnitude of a field star (AB) less its V; magnitude of a galaxy less its i.
_BANDS: dict[str, tuple[float, float]] = {
    "u": (1.7, 1.9), "b": (0.6, 1.4), "g": (0.4, 1.0), "v": (0.0, 0.8), "r": (-0.3, 0.4), "i": (-0.65, 0.0),
    "z": (-0.8, -0.25), "y": (-0.9, -0.35),
}  # fmt: skip

# (i, log10 of galaxies per square degree and magnitude), straight lines between, and beyond with these slopes.
_GALAXY_NODES = ((17.37, 2.05), (20.0, 3.33), (22.0, 4.07), (24.0, 4.78))
_BRIGHT_SLOPE, _FAINT_SLOPE = 0.55, 0.33


def band_of(filter_name: str | None) -> str | None:
    """The band (u, b, g, v, r, i, z, y) that a filter's name begins with, as in r.MP9601, `r DECam SDSS c0001`, V.

    None for filters that none of these describes: Clear, H-alpha, [O III].
    """
    found = re.match(r"([ubgvrizyUBVRI])(?![A-Za-z])['*]?", filter_name or "")
    return found.group(1).lower() if found else None


def stars_per_square_degree(v_mag: float, longitude_deg: float, latitude_deg: float) -> float:
    """Stars brighter than V; Bahcall & Soneira's fit, 5 < V < 30, |latitude| > 20 degrees.

    Args:
        v_mag: limit in V.
        longitude_deg: galactic longitude.
        latitude_deg: galactic latitude; only its size counts.

    """
    bright, faint = min(max(v_mag, 12.0), 20.0), v_mag
    mu = 0.03 + 0.0075 * (bright - 12.0)
    gamma = 0.36 - 0.04 * (bright - 12.0)
    b, cos_l = radians(abs(latitude_deg)), cos(radians(longitude_deg))
    disc = 925.0 * 10.0 ** (0.035 * (faint - 15.75)) / (1.0 + 10.0 ** (-0.132 * (faint - 15.75))) ** 3.0
    disc /= (sin(b) * (1.0 - mu * cos_l / tan(b))) ** (3.0 - 5.0 * gamma)
    spheroid = 1050.0 * 10.0 ** (0.087 * (faint - 17.5)) / (1.0 + 10.0 ** (-0.18 * (faint - 17.5))) ** 2.5
    spheroid /= (1.0 - cos(b) * cos_l) ** (1.45 - 0.2 * cos(b) * cos_l)
    return disc + spheroid


def galaxies_per_square_degree(i_mag: float) -> float:
    """Galaxies brighter than i (AB)."""
    (first, low), (last, high) = _GALAXY_NODES[0], _GALAXY_NODES[-1]
    total = 10.0 ** (low + _BRIGHT_SLOPE * min(i_mag - first, 0.0)) / (_BRIGHT_SLOPE * np.log(10.0))
    nodes = (*_GALAXY_NODES, (last + 10.0, high + 10.0 * _FAINT_SLOPE))
    for (m0, n0), (m1, n1) in pairwise(nodes):
        if i_mag <= m0:
            break
        slope = (n1 - n0) / (m1 - m0)
        stop = min(i_mag, m1)
        total += 10.0**n0 * (10.0 ** (slope * (stop - m0)) - 1.0) / (slope * np.log(10.0))
    return float(total)


@dataclass(frozen=True, slots=True)
class Census:
    """Stars and galaxies of one CCD between two limits, and how many the models expect on its area."""

    stars: int
    stars_expected: float
    """NaN where the model does not hold."""
    galaxies: int
    galaxies_expected: float
    faint_mag: float


def census(
    flux_adu: Floats,
    is_star: NDArray[np.bool_],
    *,
    zeropoint_mag: float,
    limiting_flux_adu: float,
    brightest_adu: float,
    area_square_deg: float,
    band: str | None,
    galactic_deg: tuple[float, float] | None,
) -> Census | None:
    """Count the sources of one CCD that are bright enough to be told apart.

    Args:
        flux_adu: total fluxes of the sources, shape (n,).
        is_star: whether each is as large as a star.
        zeropoint_mag: AB magnitude of 1 adu.
        limiting_flux_adu: flux of a point source at 5 sigma; counted is from four times that on.
        brightest_adu: flux at which stars saturate; stars brighter than that are left out.
        area_square_deg: area of the usable pixels.
        band: as `band_of` names it.
        galactic_deg: longitude and latitude.

    Returns:
        None where something needed is not known.

    """
    known = np.isfinite([zeropoint_mag, limiting_flux_adu, brightest_adu, area_square_deg]).all()
    if not known or band not in _BANDS or galactic_deg is None or area_square_deg <= 0:
        return None
    faintest = limiting_flux_adu * _SEPARABLE_SNR / 5.0
    if not 0.0 < faintest < 0.5 * brightest_adu:
        return None
    faint, bright = (zeropoint_mag - 2.5 * log10(flux) for flux in (faintest, brightest_adu))
    star_colour, galaxy_colour = _BANDS[band]
    counted = flux_adu >= faintest
    expected = nan
    if abs(galactic_deg[1]) >= LEAST_LATITUDE_DEG:
        below, above = (stars_per_square_degree(mag - star_colour, *galactic_deg) for mag in (bright, faint))
        expected = area_square_deg * (above - below)
    return Census(
        stars=int(np.count_nonzero(counted & is_star & (flux_adu < brightest_adu))),
        stars_expected=expected,
        galaxies=int(np.count_nonzero(counted & ~is_star)),
        galaxies_expected=area_square_deg * galaxies_per_square_degree(faint - galaxy_colour),
        faint_mag=faint,
    )


def ratios(parts: Sequence[Census | None], area_square_deg: float = nan) -> Figures:
    """The figures `counts_*` of an image from the census of its CCDs.

    Args:
        parts: of the CCDs; None where nothing could be counted.
        area_square_deg: of all; for the clustering of galaxies. NaN takes a tenth of a square degree.

    """
    known = [part for part in parts if part is not None]
    if not known:
        return {}
    area = area_square_deg if area_square_deg > 0 else 0.1
    # Angular correlation of galaxies of 21 to 24 mag in a field of this side: some 10 % at 1 square degree.
    clustering = 0.10 * area**-0.2
    stars = _ratio(sum(p.stars for p in known), sum(p.stars_expected for p in known), _STAR_MODEL_ERROR)
    galaxies = _ratio(
        sum(p.galaxies for p in known),
        sum(p.galaxies_expected for p in known),
        sqrt(_GALAXY_MODEL_ERROR**2 + clustering**2),
    )
    return {
        "counts_ratio_stars": plain(stars[0]),
        "counts_ratio_stars_error": plain(stars[1]),
        "counts_ratio_galaxies": plain(galaxies[0]),
        "counts_ratio_galaxies_error": plain(galaxies[1]),
        "counts_mag": plain(float(np.median([p.faint_mag for p in known]))),
    }


def _ratio(found: int, expected: float, model_error: float) -> tuple[float, float]:
    """Found over expected and its standard error; NaN where too few are expected to tell."""
    if not expected >= _LEAST_EXPECTED:
        return nan, nan
    ratio = found / expected
    # The error of the counting is that of what should be there: none found is no exact zero.
    return ratio, sqrt(max(found, expected) / expected**2 + (model_error * max(ratio, 1.0)) ** 2)


def expected_per_mag(
    mags: Floats, band: str | None, galactic_deg: tuple[float, float] | None
) -> tuple[Floats, Floats] | None:
    """Stars and galaxies expected per square degree and magnitude, for diagrams; shape of `mags`.

    Stars are NaN near the plane of the Galaxy, where their model does not hold. None where the band is not known.
    """
    if band not in _BANDS:
        return None
    star_colour, galaxy_colour = _BANDS[band]
    step = 0.25

    def slope(cumulative: Callable[[float], float], colour: float) -> Floats:
        ends = ((cumulative(mag - colour - step), cumulative(mag - colour + step)) for mag in mags)
        return np.array([(high - low) / (2.0 * step) for low, high in ends])

    stars = np.full(len(mags), nan)
    if galactic_deg is not None and abs(galactic_deg[1]) >= LEAST_LATITUDE_DEG:
        longitude, latitude = galactic_deg
        stars = slope(lambda mag: stars_per_square_degree(mag, longitude, latitude), star_colour)
    return stars, slope(galaxies_per_square_degree, galaxy_colour)
