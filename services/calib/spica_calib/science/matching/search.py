"""Which source is which star: robust matching in the tangent plane, with the odds against chance.

Positions are tangent-plane coordinates in arcsec. The image's are those of an assumed WCS; what is
looked for is the affine map that brings them onto the stars: first by voting over rotation, scale
and shift, then refined by mutual nearest neighbours within a shrinking radius.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import KDTree

from spica_calib.science.matching.chance import log10_false_match
from spica_calib.science.matching.kernels import vote_shifts

Floats = NDArray[np.float64]
Index = NDArray[np.intp]

MAX_TURNS = 120_000
"""More rotations times scales than this take longer than they are worth."""
_AFFINE_FREE = 3
"""An affine map has six free parameters, worth three matches."""


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


@dataclass(frozen=True, slots=True)
class Frame:
    """Where the image lies in the assumed plane: centre, half diagonal, area, and its CCDs' corners."""

    corners: Floats
    """Shape (n_ccds, 4, 2), in order around each CCD, arcsec."""
    pixel_arcsec: float

    @property
    def centre(self) -> tuple[float, float]:
        """Middle of the bounding box."""
        low, high = self.corners.min(axis=(0, 1)), self.corners.max(axis=(0, 1))
        return float(low[0] + high[0]) / 2, float(low[1] + high[1]) / 2

    @property
    def half_diagonal(self) -> float:
        """Largest distance from the centre to a corner."""
        return float(np.hypot(*(self.corners - self.centre).transpose(2, 0, 1)).max())

    @property
    def area(self) -> float:
        """Area of all CCDs, square arcsec (shoelace formula)."""
        x, y = self.corners[..., 0], self.corners[..., 1]
        twice: Floats = (x * np.roll(y, -1, axis=1) - y * np.roll(x, -1, axis=1)).sum(axis=1)
        return float(np.abs(twice).sum() / 2)

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

    def apply(self, x: Floats, y: Floats) -> tuple[Floats, Floats]:
        """Map points of the assumed plane."""
        m, o = self.matrix, self.offset
        return m[0, 0] * x + m[0, 1] * y + o[0], m[1, 0] * x + m[1, 1] * y + o[1]

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


def _turns(prior: Prior, cell: float, half_diagonal: float) -> tuple[Floats, Floats]:
    """Rotations (rad) and scales to try: at the frame's corners neighbours differ by half a cell."""
    step = cell / (2.0 * half_diagonal)
    n_rotations = 2 * math.ceil(math.radians(prior.rotation_deg) / step) + 1
    rotations = np.linspace(-1, 1, n_rotations) * math.radians(prior.rotation_deg)
    n_scales = 2 * math.ceil(prior.scale / step) + 1
    scales = np.linspace(1 - prior.scale, 1 + prior.scale, n_scales)
    grid = np.meshgrid(rotations, scales, indexing="ij")
    return grid[0].ravel(), grid[1].ravel()


def _fit_map(points: Floats, targets: Floats, affine: bool) -> tuple[Floats, Floats]:
    """Least-squares affine map, or similarity (rotation and scale only)."""
    middle, goal = points.mean(axis=0), targets.mean(axis=0)
    p, t = points - middle, targets - goal
    if affine:
        matrix = np.linalg.lstsq(p, t, rcond=None)[0].T
    else:
        norm = max(float((p**2).sum()), 1e-12)
        a = float((p * t).sum()) / norm
        b = float((p[:, 0] * t[:, 1] - p[:, 1] * t[:, 0]).sum()) / norm
        matrix = np.array([[a, -b], [b, a]])
    return matrix, goal - matrix @ middle


def refine(
    image: PlanePoints,
    stars: PlanePoints,
    frame: Frame,
    matrix: Floats,
    offset: Floats,
    radius: float,
    n_hypotheses: float,
) -> PlaneMatch:
    """Iterate neighbours and map, with a radius that follows the residuals (never below one pixel)."""
    tree = KDTree(np.column_stack((stars.x, stars.y)))
    points = np.column_stack((image.x, image.y))
    targets = np.column_stack((stars.x, stars.y))
    mirror = np.linalg.det(matrix) < 0
    flip = np.array([-1.0 if mirror else 1.0, 1.0])
    i = j = np.empty(0, dtype=np.intp)
    for step in range(12):
        mapped = points @ matrix.T + offset
        new_i, new_j = mutual_nearest(mapped[:, 0], mapped[:, 1], tree, radius)
        settled = step > 3 and np.array_equal(new_i, i) and np.array_equal(new_j, j)
        i, j = new_i, new_j
        if len(i) < 3:
            break
        matrix, offset = _fit_map(points[i] * flip, targets[j], affine=len(i) >= 6 and step >= 2)
        matrix = matrix * flip
        if settled:
            break
        residual = np.hypot(*(points[i] @ matrix.T + offset - targets[j]).T)
        # The median of a Rayleigh distribution is 1.177 sigma.
        radius = float(np.clip(4.0 * np.median(residual) / 1.177, frame.pixel_arcsec, radius))
    return _judged(image, stars, frame, matrix, offset, i, j, radius, n_hypotheses)


def _judged(
    image: PlanePoints,
    stars: PlanePoints,
    frame: Frame,
    matrix: Floats,
    offset: Floats,
    i: Index,
    j: Index,
    radius: float,
    n_hypotheses: float,
) -> PlaneMatch:
    """Weigh the matches against chance: the fewer of sources and stars on the frame meet the more."""
    inverse = np.linalg.inv(matrix) if abs(np.linalg.det(matrix)) > 1e-6 else np.eye(2)
    back = (np.column_stack((stars.x, stars.y)) - offset) @ inverse.T
    n_stars = int(frame.contains(back[:, 0], back[:, 1]).sum())
    n_tried, n_other = sorted((len(image), max(n_stars, len(i))))
    p_single = 1.0 - math.exp(-n_other / frame.area * math.pi * radius**2)
    return PlaneMatch(
        matrix=matrix,
        offset=offset,
        image=i,
        star=j,
        radius_arcsec=radius,
        n_tried=n_tried,
        expected_by_chance=n_tried * p_single,
        log10_false=log10_false_match(len(i), n_tried, p_single, n_hypotheses, _AFFINE_FREE),
    )


def search(
    image: PlanePoints, stars: PlanePoints, frame: Frame, prior: Prior, n_bright: int, cell_px: float = 7.0
) -> PlaneMatch | None:
    """Vote over all turns and shifts the prior allows; the most credible of the refined best few.

    `image` and `stars` come brightest first; `n_bright` sources vote, and as many stars per area.
    None when there is too little to vote with. The result may still be chance: see `log10_false`.
    """
    centre = frame.centre
    share = frame.area / (math.pi * (prior.shift_arcsec + frame.half_diagonal) ** 2)
    n_stars = int(min(len(stars), max(20.0, 1.2 * n_bright / max(share, 1e-3)), 1500))
    few, targets = image.first(n_bright), stars.first(n_stars)
    if len(few) < 3 or len(targets) < 3:
        return None
    cell = cell_px * frame.pixel_arcsec
    turns, scales = _turns(prior, cell, frame.half_diagonal)
    while len(turns) > MAX_TURNS:
        cell *= 1.5
        turns, scales = _turns(prior, cell, frame.half_diagonal)
    n_hypotheses = 10.0 * len(turns) * len(prior.mirrored) * max(1.0, 4 * prior.shift_arcsec / cell) ** 2
    candidates = []
    for mirrored in prior.mirrored:
        sign = -1.0 if mirrored else 1.0
        votes, dx, dy = vote_shifts(
            sign * (few.x - centre[0]),
            few.y - centre[1],
            targets.x - centre[0],
            targets.y - centre[1],
            scales * np.cos(turns),
            scales * np.sin(turns),
            prior.shift_arcsec + cell,
            cell,
        )
        for turn in np.argsort(-votes, kind="stable")[:5]:
            a, b = scales[turn] * math.cos(turns[turn]), scales[turn] * math.sin(turns[turn])
            matrix = np.array([[a * sign, -b], [b * sign, a]])
            offset = np.array([dx[turn], dy[turn]]) + centre - matrix @ np.array(centre)
            candidates.append((int(votes[turn]), matrix, offset))
    candidates.sort(key=lambda candidate: -candidate[0])
    refined = [
        refine(image.first(4 * n_bright), stars, frame, matrix, offset, cell, n_hypotheses)
        for _, matrix, offset in candidates[:6]
    ]
    return min(refined, key=lambda match: match.log10_false)
