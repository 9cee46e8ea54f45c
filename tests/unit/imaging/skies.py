"""Places and quadrilaterals anywhere on the sky, the awkward ones often."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray
from spica_imaging.skycells import unit_vectors

Floats = NDArray[np.float64]


def anywhere() -> st.SearchStrategy[tuple[float, float]]:
    """RA and Dec: often near a pole, near RA 0, or on the equator."""
    ra = st.one_of(
        st.floats(0, 360, exclude_max=True), st.floats(359.9, 360, exclude_max=True), st.floats(0, 0.1)
    )
    dec = st.one_of(st.floats(-90, 90), st.floats(89.5, 90), st.floats(-90, -89.5), st.floats(-0.1, 0.1))
    return st.tuples(ra, dec)


def quad_at(
    ra: float, dec: float, width: float, height: float, turn: float = 0.0, mirrored: bool = False
) -> Floats:
    """A CCD-like quadrilateral around a place. Sizes and angle in degrees. Shape: (4, 3)."""
    angle = np.radians(turn)
    x = np.tan(np.radians(width / 2)) * np.array([-1, 1, 1, -1])
    y = np.tan(np.radians(height / 2)) * np.array([-1, -1, 1, 1])
    if mirrored:
        x = -x
    flat = np.stack([x * np.cos(angle) - y * np.sin(angle), x * np.sin(angle) + y * np.cos(angle)], axis=-1)
    a, d = np.radians(ra), np.radians(dec)
    outward = unit_vectors(ra, dec)
    east = np.array([-np.sin(a), np.cos(a), 0.0])
    north = np.array([-np.sin(d) * np.cos(a), -np.sin(d) * np.sin(a), np.cos(d)])
    corners = outward + flat @ np.stack([east, north])
    return np.asarray(corners / np.linalg.norm(corners, axis=1)[:, None])


def quads() -> st.SearchStrategy[Floats]:
    """Quadrilaterals of 4 arcsec to 8 degrees, anywhere, turned and mirrored."""
    return st.builds(
        lambda at, width, height, turn, mirrored: quad_at(*at, width, height, turn, mirrored),
        anywhere(),
        st.one_of(st.floats(0.001, 0.3), st.floats(0.3, 8)),
        st.one_of(st.floats(0.001, 0.3), st.floats(0.3, 8)),
        st.floats(0, 360),
        st.booleans(),
    )


def points_in(quad: Floats, count: int, seed: int = 0) -> Floats:
    """Points of a quadrilateral: its corners, points of its edges, and of its inside. Shape: (count + 4, 3)."""
    chance = np.random.default_rng(seed)
    u, v = chance.uniform(size=(2, count))
    u[: count // 4] = np.rint(u[: count // 4])
    weights = np.stack([(1 - u) * (1 - v), u * (1 - v), u * v, (1 - u) * v], axis=-1)
    points = np.concatenate([quad, weights @ quad])
    return np.asarray(points / np.linalg.norm(points, axis=1)[:, None])
