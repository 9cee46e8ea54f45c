"""How far a header's WCS is off: the shift between the stars of an image and those of a reference catalogue.

All pairs of bright stars within some arcmin of each other vote for a shift; true pairs agree, chance pairs do not.
No rotation and no scale is fitted: this judges the header, the astrometric solution comes later.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import lgamma, log

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import cKDTree
from spica_imaging.stats import SIGMA_PER_MAD, median_sigma

from spica_quality.science.metrics.figures import Figures, plain

Floats = NDArray[np.float64]

RADIUS_ARCSEC = 300.0
"""How far the header may be off."""

_MOST_SOURCES, _MOST_REFERENCES = 300, 600
_BIN_ARCSEC = 2.0
_COARSER = (1.0, 4.0, 16.0)
_LOG_CHANCE = -14.0
"""ln of the probability, over all shifts, that a peak so high is chance: one in a million."""
_LEAST_PAIRS = 4


@dataclass(frozen=True, slots=True)
class Offset:
    """Stars less reference; along RA times cos Dec."""

    ra_arcsec: float
    dec_arcsec: float
    sigma_ra_arcsec: float
    """Scatter of single stars about the offset, robust: seeing, distortion and rotation that the header lacks."""
    sigma_dec_arcsec: float
    n: int
    """Stars matched."""

    def figures(self) -> Figures:
        """As they stand among the figures."""
        return {
            "offset_ra_arcsec": plain(self.ra_arcsec),
            "offset_dec_arcsec": plain(self.dec_arcsec),
            "offset_sigma_ra_arcsec": plain(self.sigma_ra_arcsec),
            "offset_sigma_dec_arcsec": plain(self.sigma_dec_arcsec),
            "n_reference": self.n,
        }


def find_offset(
    ra_deg: Floats,
    dec_deg: Floats,
    flux: Floats,
    reference_ra_deg: Floats,
    reference_dec_deg: Floats,
    reference_mag: Floats,
    *,
    precision_arcsec: float = _BIN_ARCSEC,
    radius_arcsec: float = RADIUS_ARCSEC,
) -> Offset | None:
    """The shift of the stars against the reference catalogue.

    Args:
        ra_deg: of the image's stars by the header's WCS, shape (n,).
        dec_deg: the same.
        flux: in any unit: the brightest are taken first.
        reference_ra_deg: of the reference stars at the epoch of the image, shape (m,).
        reference_dec_deg: the same.
        reference_mag: the brightest are taken first; NaN counts as faint.
        precision_arcsec: width of the bins in which pairs vote, about two pixels; bins of 4 and 16 times that are
            tried too, and what is least by chance counts: rotation and scale of the header may be off as well.
        radius_arcsec: how far the header may be off.

    Returns:
        None where no shift has more votes than chance gives: no reference there, or off by more.

    """
    sound = np.isfinite(ra_deg) & np.isfinite(dec_deg)
    if not sound.any() or not len(reference_ra_deg):
        return None
    middle = _middle(ra_deg[sound], dec_deg[sound])
    x, y = _plane(ra_deg[sound], dec_deg[sound], *middle)
    rx, ry = _plane(reference_ra_deg, reference_dec_deg, *middle)
    near = (np.abs(rx - np.median(x)) < 0.5 * np.ptp(x) + radius_arcsec) & np.isfinite(rx)
    near &= np.abs(ry - np.median(y)) < 0.5 * np.ptp(y) + radius_arcsec
    if np.count_nonzero(near) < _LEAST_PAIRS or x.size < _LEAST_PAIRS:
        return None
    rx, ry, mag = rx[near], ry[near], reference_mag[near]
    stars = np.stack([x, y], axis=1)[np.argsort(-flux[sound], kind="stable")]
    known = np.stack([rx, ry], axis=1)[np.argsort(mag, kind="stable")]  # NaN goes last
    every = (stars[:_MOST_SOURCES, None, :] - known[None, :_MOST_REFERENCES, :]).reshape(-1, 2)
    shifts = every[np.abs(every).max(axis=1) <= radius_arcsec]
    if not len(shifts):
        return None
    widths = [precision_arcsec * factor for factor in _COARSER]
    votes = [_vote(shifts, radius_arcsec, width) for width in widths]
    best = int(np.argmin([chance for chance, _ in votes]))
    chance, shift = votes[best]
    return _refine(stars, known, shift, widths[best]) if chance < _LOG_CHANCE else None


def _middle(ra: Floats, dec: Floats) -> tuple[float, float]:
    """Direction of the mean of the unit vectors."""
    away, declination = np.radians(ra), np.radians(dec)
    x, y = (float(np.mean(np.cos(declination) * side(away))) for side in (np.cos, np.sin))
    z = float(np.mean(np.sin(declination)))
    return float(np.degrees(np.arctan2(y, x))) % 360.0, float(np.degrees(np.arctan2(z, np.hypot(x, y))))


def _plane(ra: Floats, dec: Floats, ra0: float, dec0: float) -> tuple[Floats, Floats]:
    """Arcsec east and north on the plane that touches the sky at (ra0, dec0)."""
    away, declination, middle = np.radians(ra - ra0), np.radians(dec), np.radians(dec0)
    depth = np.sin(middle) * np.sin(declination) + np.cos(middle) * np.cos(declination) * np.cos(away)
    depth = np.where(depth > 0.1, depth, np.nan) / np.degrees(3600.0)
    east = np.cos(declination) * np.sin(away) / depth
    north = np.cos(middle) * np.sin(declination) - np.sin(middle) * np.cos(declination) * np.cos(away)
    return east, north / depth


def _vote(shifts: Floats, radius: float, width: float) -> tuple[float, Floats]:
    """Logarithm of the probability that chance gives any shift so many votes, and the shift with the most."""
    n_bins = int(np.ceil(2.0 * radius / width))
    edges = np.linspace(-radius, radius, n_bins + 1)
    votes, _, _ = np.histogram2d(shifts[:, 0], shifts[:, 1], bins=(edges, edges))
    # 3×3 sums: a peak at the border of bins counts whole.
    sums = ndimage.uniform_filter(votes, 3, mode="constant") * 9.0
    i, j = divmod(int(np.argmax(sums)), n_bins)
    height = round(float(sums[i, j]))
    expected = 9.0 * len(shifts) / n_bins**2
    centre = 0.5 * (edges[[i, j]] + edges[[i + 1, j + 1]])
    inside = np.abs(shifts - centre).max(axis=1) <= 1.5 * width
    if height < _LEAST_PAIRS:
        return 0.0, centre
    return _log_tail(height, expected) + log(n_bins**2), np.asarray(np.median(shifts[inside], axis=0))


def _log_tail(n: int, mean: float) -> float:
    """Upper bound of ln P(N >= n) for a Poisson distribution: first term times a geometric series; n above mean."""
    if n <= mean:
        return 0.0
    return n * log(mean) - mean - lgamma(n + 1.0) - log(1.0 - mean / (n + 1.0))


def _refine(stars: Floats, known: Floats, shift: Floats, width: float) -> Offset | None:
    """Nearest reference star of every star once the shift is off, and the median of what is left."""
    tree = cKDTree(known)
    reach = 3.0 * width
    matched = np.empty((0, 2))
    for _ in range(4):
        distance, nearest = tree.query(stars - shift, distance_upper_bound=reach)
        close, index = np.isfinite(distance), np.asarray(nearest)
        if np.count_nonzero(close) < _LEAST_PAIRS:
            return None
        matched = stars[close] - known[index[close]]
        shift = np.median(matched, axis=0)
        spread = SIGMA_PER_MAD * float(np.median(np.abs(matched - shift)))
        reach = float(np.clip(5.0 * spread, 0.2 * width, 3.0 * width))
    (ra, sigma_ra), (dec, sigma_dec) = (median_sigma(matched[:, axis]) for axis in (0, 1))
    return Offset(ra, dec, sigma_ra, sigma_dec, len(matched))
