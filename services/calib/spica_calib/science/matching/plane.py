"""Points, frames and matches in the tangent plane. Positions in arcsec."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import KDTree

from spica_calib.science.matching.kernels import Mask, PairTable

Floats = NDArray[np.float64]
Index = NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class Prior:
    """How far the assumed WCS can be off."""

    shift_arcsec: float
    rotation_deg: float
    scale: float
    """Relative tolerance of the pixel scale."""
    mirrored: tuple[bool, ...] = (False,)
    """Parities to try, relative to the assumed one."""


@dataclass(frozen=True, slots=True)
class PlanePoints:
    """Points in the tangent plane, brightest first. Shapes (n,), arcsec."""

    x: Floats
    y: Floats

    def __len__(self) -> int:
        return len(self.x)

    def first(self, n: int) -> PlanePoints:
        """Keep the brightest n."""
        return PlanePoints(self.x[:n], self.y[:n])

    def near(self, x: float, y: float, radius: float) -> Index:
        """Which points lie in a circle."""
        return np.flatnonzero((self.x - x) ** 2 + (self.y - y) ** 2 <= radius * radius)

    def take(self, index: Index) -> PlanePoints:
        """Keep these."""
        return PlanePoints(self.x[index], self.y[index])


@dataclass(frozen=True, slots=True)
class Frame:
    """What the image covers of the plane whose origin is about its middle: its CCDs' corners."""

    corners: Floats
    """Shape (n_ccds, 4, 2), in order around each CCD, arcsec."""
    pixel_arcsec: float

    @property
    def half_diagonal(self) -> float:
        """Largest distance of a corner from the origin."""
        return float(np.hypot(self.corners[..., 0], self.corners[..., 1]).max())

    @property
    def area(self) -> float:
        """Area of all CCDs, square arcsec (shoelace formula)."""
        x, y = self.corners[..., 0], self.corners[..., 1]
        twice: Floats = (x * np.roll(y, -1, axis=1) - y * np.roll(x, -1, axis=1)).sum(axis=1)
        return float(np.abs(twice).sum() / 2)

    def mapped(self, matrix: Floats, offset: Floats) -> Frame:
        """The frame under a map."""
        return Frame(self.corners @ matrix.T + offset, self.pixel_arcsec)

    def contains(self, x: Floats, y: Floats) -> NDArray[np.bool_]:
        """Which points lie on a CCD."""
        inside = np.zeros(len(x), dtype=bool)
        for quad in self.corners:
            ahead = np.roll(quad, -1, axis=0) - quad
            cross = [ahead[k, 0] * (y - quad[k, 1]) - ahead[k, 1] * (x - quad[k, 0]) for k in range(4)]
            inside |= np.all(np.array(cross) >= 0, axis=0) | np.all(np.array(cross) <= 0, axis=0)
        return inside


@dataclass(frozen=True, slots=True)
class PlaneMatch:
    """A map from the assumed plane to the stars' plane, and what speaks for it."""

    matrix: Floats
    """Shape (2, 2)."""
    offset: Floats
    """Shape (2,), arcsec: star = matrix @ image + offset."""
    image: Index
    star: Index
    """Indices of matched pairs."""
    radius_arcsec: float
    n_tried: int
    expected_by_chance: float
    log10_false: float

    @property
    def n_matched(self) -> int:
        """Number of matched pairs."""
        return len(self.image)

    @property
    def numbers(self) -> dict[str, float | int | str | None]:
        """What to tell people about it."""
        return {
            "n_matched": self.n_matched,
            "n_tried": self.n_tried,
            "radius_arcsec": round(self.radius_arcsec, 3),
            "expected_by_chance": round(self.expected_by_chance, 3),
            "log10_false_match": round(self.log10_false, 2),
        }


def mutual_nearest(ax: Floats, ay: Floats, tree_b: KDTree, radius: float) -> tuple[Index, Index]:
    """Pairs (i, j) where each is the other's nearest and they are no further apart than `radius`."""
    points = np.column_stack((ax, ay))
    if len(points) == 0 or tree_b.n == 0:
        return np.empty(0, dtype=np.intp), np.empty(0, dtype=np.intp)
    distance, nearest = (np.asarray(a) for a in tree_b.query(points, distance_upper_bound=radius))
    found = np.flatnonzero(np.isfinite(distance))
    # Of several points with the same nearest one, the closest is it: mutual, without a second tree.
    order = found[np.lexsort((found, distance[found]))]
    _, first = np.unique(nearest[order], return_index=True)
    i = np.sort(order[first])
    return i, nearest[i]


@dataclass(frozen=True)
class Stage:
    """One frame's points and the stars around, and what has been made of the stars for searching."""

    image: PlanePoints
    """Relative to about the frame's middle."""
    stars: PlanePoints
    frame: Frame
    ranked: bool = True
    """Whether the brightness of sources is known: else they come in no order, and all of them are asked."""
    tables: dict[tuple[float, ...], tuple[PairTable, Mask]] = field(default_factory=dict)
    """Made once for stages with the same stars: pass it on."""
