"""Directions as unit vectors, and tangent planes as three of them: no poles, no seam at RA 0."""

from __future__ import annotations

import numpy as np

from spica_calib.science.stars import Floats

ARCSEC_PER_RAD = 180.0 * 3600.0 / np.pi


def unit_vectors(ra_deg: Floats, dec_deg: Floats) -> Floats:
    """Directions, shape (n, 3)."""
    ra, dec = np.radians(ra_deg), np.radians(dec_deg)
    return np.stack((np.cos(dec) * np.cos(ra), np.cos(dec) * np.sin(ra), np.sin(dec)), axis=-1)


def coordinates_deg(vectors: Floats) -> tuple[Floats, Floats]:
    """RA in [0, 360) and Dec of directions, shape (n, 3), of any length."""
    ra = np.mod(np.degrees(np.arctan2(vectors[..., 1], vectors[..., 0])), 360.0)
    dec = np.degrees(np.arctan2(vectors[..., 2], np.hypot(vectors[..., 0], vectors[..., 1])))
    return np.where(ra >= 360.0, 0.0, ra), dec


def axes(ra_deg: float, dec_deg: float) -> Floats:
    """Rows: the direction, east and north there; shape (3, 3)."""
    ra, dec = np.radians(ra_deg), np.radians(dec_deg)
    return np.array(
        [
            [np.cos(dec) * np.cos(ra), np.cos(dec) * np.sin(ra), np.sin(dec)],
            [-np.sin(ra), np.cos(ra), 0.0],
            [-np.sin(dec) * np.cos(ra), -np.sin(dec) * np.sin(ra), np.cos(dec)],
        ]
    )


def east_north(ra_deg: Floats, dec_deg: Floats) -> tuple[Floats, Floats]:
    """Unit vectors towards east and north at directions, shape (n, 3) each."""
    ra, dec = np.radians(ra_deg), np.radians(dec_deg)
    east = np.stack((-np.sin(ra), np.cos(ra), np.zeros_like(ra)), axis=-1)
    north = np.stack((-np.sin(dec) * np.cos(ra), -np.sin(dec) * np.sin(ra), np.cos(dec)), axis=-1)
    return east, north


def project(vectors: Floats, frame: Floats) -> Floats:
    """Gnomonic projection: arcsec towards east and north from the frame's direction, shape (n, 2).

    NaN for directions 90° away or more.
    """
    out = vectors @ frame.T
    depth = np.where(out[..., 0] > 0.0, out[..., 0], np.nan)
    return ARCSEC_PER_RAD * out[..., 1:] / depth[..., None]
