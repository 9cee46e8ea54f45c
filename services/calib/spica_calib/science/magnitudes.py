"""Magnitudes of one catalogue for the stars of another."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from scipy.spatial import cKDTree
from spica_imaging.skycells import unit_vectors

from spica_calib.science.stars import Floats, Stars


def with_magnitudes(stars: Stars, others: Stars, radius_arcsec: float = 1.0) -> Stars:
    """The same stars with the magnitudes of another catalogue; NaN where it has none within the radius.

    Both at one epoch. A star counts only where each is the other's nearest: of two close ones, neither's light is the
    other's.
    """
    if not len(stars) or not len(others):
        nothing = np.full(len(stars), np.nan)
        return replace(
            stars,
            mags=dict.fromkeys(others.mags, nothing),
            mag_errors=dict.fromkeys(others.mag_errors, nothing),
        )
    own, theirs = (unit_vectors(each.ra_deg, each.dec_deg) for each in (stars, others))
    reach = 2.0 * np.sin(np.radians(radius_arcsec / 3600.0) / 2.0)
    found = cKDTree(theirs).query(own, distance_upper_bound=reach)
    distance, nearest = np.asarray(found[0]), np.asarray(found[1])
    back = np.asarray(cKDTree(own).query(theirs, distance_upper_bound=reach)[1])
    matched = np.isfinite(distance)
    matched[matched] = back[nearest[matched]] == np.flatnonzero(matched)

    def taken(values: Floats) -> Floats:
        here = np.full(len(stars), np.nan)
        here[matched] = values[nearest[matched]]
        return here

    return replace(
        stars,
        mags={band: taken(values) for band, values in others.mags.items()},
        mag_errors={band: taken(values) for band, values in others.mag_errors.items()},
    )
