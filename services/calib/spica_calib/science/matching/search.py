"""Which source is which star: robust matching in the tangent plane, with the odds against chance.

Positions are tangent-plane coordinates in arcsec, the image's by an assumed WCS. What is looked for is the map that
brings them onto the stars: pairs of bright sources are tried on all pairs of stars that the prior allows (`kernels`);
what stands the test is refined by mutual nearest neighbours within a shrinking radius (`neighbours`), and weighed
against chance (`chance`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spica_calib.science.matching.chance import WIDENED, log10_false_match, log10_maps
from spica_calib.science.matching.kernels import (
    MAX_PAIRS,
    Mask,
    PairTable,
    Range,
    Verdict,
    mask_near,
    pair_table,
    seek,
)
from spica_calib.science.matching.neighbours import RING, Grid, coincidences, converge, grid_of
from spica_calib.science.matching.plane import (
    Frame,
    Index,
    PlaneMatch,
    PlanePoints,
    Prior,
    Stage,
    mutual_nearest,
)

__all__ = [
    "Frame",
    "Index",
    "PlaneMatch",
    "PlanePoints",
    "Prior",
    "Stage",
    "mutual_nearest",
    "search",
    "weigh",
]

Floats = NDArray[np.float64]

_SHEAR = 0.02
"""Maps that shear more than this are none of a camera."""
_MARGIN = 1.05
"""Refined maps may go beyond the prior by 5 %: so much more is counted as tried."""
_CHOICES_LOG10 = 3.0
"""Radii (12), rungs (4), kinds of map (2), first frames (3) and turns (2) among which the best is taken: below 1000."""
_AFFINE_FROM = 10
"""Matches that an affine map needs."""
_RARE = 30
"""With fewer matches a similarity, of which there are fewer, may be the more credible."""
_BUDGET = 30_000_000
"""Points asked per rung: some tenth of a second."""
_KEPT = 16
"""Of the best hypotheses, refined at the end of a rung."""
_MAX_WEIGHED = 12
"""Hypotheses per rung that are refined before all are seen."""
_LENGTHS = (0.25, 0.55)
"""Pairs of sources have these lengths, in units of the frame's diagonal: long ones tell angles well."""
_BINS = (48, 360)
_RADIUS_PX = (4.0, 10.0)
"""Hypotheses are tried with a radius between these, ..."""
_RARELY = 0.02
"""... so that a point meets another by chance in so many cases."""


@dataclass(frozen=True, slots=True)
class _Rung:
    """How deep to look: few points first, for the brightest are the surest to be stars of the catalogue."""

    n_image: int
    share: float
    """Of those points, that a true hypothesis finds at least."""
    max_pairs: int
    swapped: bool = False
    """Stars are tried on the sources: where these are many more, and which of them are stars is not told by brightness."""


_LADDER = (
    _Rung(40, 0.2, 400),
    _Rung(120, 0.1, 3000),
    _Rung(400, 0.04, 20000),
    _Rung(60, 0.2, 1500, swapped=True),
)
_CROWDED = 3.0
"""So many sources per star are many more."""


def _inside(matrix: Floats, offset: Floats, prior: Prior, turn: float, slack: float) -> bool:
    """Whether a refined map is one of those that are counted as tried."""
    sign = -1.0 if np.linalg.det(matrix) < 0 else 1.0
    real, imag = 0.5 * (sign * matrix[0, 0] + matrix[1, 1]), 0.5 * (sign * matrix[1, 0] - matrix[0, 1])
    largest, smallest = np.linalg.svd(matrix, compute_uv=False)
    if smallest <= 0 or largest / smallest - 1.0 > 2.0 * _SHEAR:
        return False
    angle = abs((math.atan2(imag, real) - turn + math.pi) % (2.0 * math.pi) - math.pi)
    return (
        angle <= _MARGIN * math.radians(prior.rotation_deg)
        and abs(math.hypot(real, imag) - 1.0) <= _MARGIN * prior.scale
        and float(np.hypot(*offset)) <= _MARGIN * prior.shift_arcsec + slack
    )


def weigh(
    stage: Stage,
    matrix: Floats,
    offset: Floats,
    radius: float,
    prior: Prior,
    turn: float = 0.0,
    *,
    every: bool = False,
) -> PlaneMatch:
    """Refine a map and say what speaks for it: `log10_false` bounds the chance of as many matches anywhere in the prior.

    Of sources that are many more than the stars only the brightest count, unless `every` is asked for.
    """
    frame = stage.frame
    reach = frame.half_diagonal * math.sqrt(abs(float(np.linalg.det(matrix)))) * 1.02 + 2.0 * radius
    around = stage.stars.near(float(offset[0]), float(offset[1]), reach)
    expected = len(around) * frame.area / (math.pi * reach * reach)
    image = stage.image
    if stage.ranked and not every:
        image = image.first(max(300, int(6.0 * expected)))
    # Stars come brightest first: many more of them than there are sources only confuse.
    around = around[: max(300, int(6.0 * len(image) * math.pi * reach * reach / frame.area))]
    stars = stage.stars.take(around)
    grid = grid_of(stars.x, stars.y, 2.0 * radius)
    best = _refined(image, stars, around, grid, frame, matrix, offset, radius, prior, turn, _AFFINE_FROM)
    if _AFFINE_FROM <= best.n_matched < _RARE or best.n_matched == 0:
        plain = _refined(image, stars, around, grid, frame, matrix, offset, radius, prior, turn, 1 << 30)
        return plain if plain.log10_false < best.log10_false else best
    return best


def _refined(
    image: PlanePoints, stars: PlanePoints, around: Index, grid: Grid, frame: Frame, matrix: Floats, offset: Floats,
    radius: float, prior: Prior, turn: float, affine_from: int,
) -> PlaneMatch:  # fmt: skip
    matrix, offset, first, second, radius = converge(
        image.x, image.y, grid, np.ascontiguousarray(matrix), offset, radius, frame.pixel_arcsec, affine_from
    )
    slack = 5.0 * frame.pixel_arcsec
    if len(first) < 3 or not _inside(matrix, offset, prior, turn, slack):
        return _nothing(matrix, offset, radius, len(image))
    n_stars = int(frame.mapped(matrix, offset).contains(stars.x, stars.y).sum())
    n_tried, n_other = sorted((len(image), max(n_stars, len(first))))
    wide = WIDENED * radius
    p_mean = 1.0 - math.exp(-n_other / frame.area * math.pi * wide * wide)
    p = min(1.0, max(p_mean, _crowding(image, grid, matrix, offset, wide, n_tried, p_mean)))
    log10_tried = (
        _CHOICES_LOG10
        + math.log10(len(prior.mirrored))
        + log10_maps(
            _MARGIN * prior.shift_arcsec + slack,
            _MARGIN * math.radians(prior.rotation_deg),
            _MARGIN * prior.scale,
            _SHEAR if len(first) >= affine_from else 0.0,
            frame.half_diagonal,
            radius,
        )
    )
    return PlaneMatch(
        matrix=matrix,
        offset=offset,
        image=first.astype(np.intp),
        star=around[second],
        radius_arcsec=float(radius),
        n_tried=n_tried,
        expected_by_chance=n_tried * p,
        log10_false=log10_false_match(len(first), n_tried, p, 10.0**log10_tried, 0),
    )


def _crowding(
    image: PlanePoints, grid: Grid, matrix: Floats, offset: Floats, radius: float, n_tried: int, p_mean: float
) -> float:
    """How likely neighbours by chance are where sources and stars crowd; 0 where they do not, beyond doubt.

    There the mean density tells too little: displaced by a little, as many meet by chance.
    """
    displaced = coincidences(image.x, image.y, grid, matrix, offset, radius)
    met, expected = RING * displaced, RING * n_tried * p_mean
    return displaced / n_tried if met > expected + 3.0 * math.sqrt(expected) + 2.0 else 0.0


def _nothing(matrix: Floats, offset: Floats, radius: float, n_tried: int) -> PlaneMatch:
    none = np.empty(0, dtype=np.intp)
    return PlaneMatch(matrix, offset, none, none, radius, n_tried, 0.0, 0.0)


def _pairs_of(
    points: PlanePoints, shortest: float, longest: float, limit: int
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Pairs of points with a length between these, the brightest first."""
    second, first = np.tril_indices(len(points), -1)
    length = np.hypot(points.x[first] - points.x[second], points.y[first] - points.y[second])
    good = np.flatnonzero((length >= shortest) & (length < longest))[:limit]
    return np.asarray(first[good], dtype=np.int32), np.asarray(second[good], dtype=np.int32)


def _prepared(stage: Stage, prior: Prior, rung: _Rung) -> tuple[PlanePoints, PairTable, Mask, float]:
    """What is tried, on which pairs; the mask of their points and their density.

    As a rule sources are tried on the brightest stars, twice as many per area.
    """
    frame = stage.frame
    half, pixel = frame.half_diagonal, frame.pixel_arcsec
    shortest, longest = (2.0 * half * part for part in _LENGTHS)
    if rung.swapped:
        # Stars that the image most likely covers: within a circle about as wide as the frame.
        probes = stage.stars.take(stage.stars.near(0.0, 0.0, 0.7 * half)).first(rung.n_image)
        targets, reach, area = stage.image, half, frame.area
        wanted = float(len(targets))
        scale = prior.scale / (1.0 - prior.scale)
    else:
        probes = stage.image.first(rung.n_image)
        scale = prior.scale
        reach = prior.shift_arcsec + half * (1.0 + scale)
        area = math.pi * reach * reach
        targets = stage.stars.take(stage.stars.near(0.0, 0.0, reach))
        wanted = max(20.0, 2.0 * rung.n_image / frame.area * area)
    shortest, longest = shortest * (1.0 - scale), longest * (1.0 + scale)
    # So many that their pairs fit into a table; what verifies may be more, as long as chance stays rare.
    most = math.sqrt(0.7 * MAX_PAIRS * max(1.0, area / (math.pi * (longest**2 - shortest**2))))
    low, high = (px * pixel for px in _RADIUS_PX)
    near = targets.first(int(min(wanted, max(most, _RARELY * area / (math.pi * low**2)))))
    density = len(near) / area
    radius = min(max(math.sqrt(_RARELY / (math.pi * max(density, 1e-12))), low), high)
    cell = max(radius / 2.0, 2.0 * reach / 8192.0)
    key = (len(near), round(reach, 6), shortest, longest, cell)
    if rung.swapped or key not in stage.tables:
        seeds = near.first(int(most))
        table = pair_table(seeds.x, seeds.y, shortest, longest, *_BINS, MAX_PAIRS)
        stage.tables[key] = table, mask_near(near.x, near.y, reach + radius, cell, max(radius, cell))
    return probes, *stage.tables[key], density


def _rung(
    stage: Stage, prior: Prior, turn: float, mirrored: bool, rung: _Rung, limit_log10: float
) -> PlaneMatch | None:
    half = stage.frame.half_diagonal
    few, table, mask, density = _prepared(stage, prior, rung)
    first, second = _pairs_of(few, 2.0 * half * _LENGTHS[0], 2.0 * half * _LENGTHS[1], rung.max_pairs)
    if len(first) == 0 or len(table.first) == 0:
        return None
    radius = 2.0 * mask.cell
    p = min(0.5, max(1e-9, density * math.pi * radius * radius))
    share = min(0.9, max(rung.share, 2.0 * p))
    verdict = Verdict(math.log(share / p), math.log((1.0 - share) / (1.0 - p)), -6.0, 14.0)
    low, high = 1.0 - prior.scale, 1.0 + prior.scale
    if rung.swapped:
        low, high = 1.0 / high, 1.0 / low
    shift = prior.shift_arcsec * (high if rung.swapped else 1.0)
    allowed = Range(turn, math.radians(prior.rotation_deg), low, high, shift)
    sign = -1.0 if mirrored else 1.0
    x = sign * few.x
    kept = np.zeros((_KEPT, 5))
    best: PlaneMatch | None = None
    seen: list[Floats] = []
    begin, spent = 0, 0
    while begin < len(first) and spent < _BUDGET:
        begin, _, asked, enough = seek(
            x, few.y, first, second, begin, table, mask, allowed, verdict, _BUDGET - spent, kept
        )
        spent += asked
        last = begin >= len(first) or spent >= _BUDGET
        if not (enough or last):
            continue
        for row in kept[np.argsort(-kept[:, 0], kind="stable")][: _KEPT if last else 2]:
            if row[0] <= 0.0 or any(np.array_equal(row, old) for old in seen):
                continue
            seen.append(row.copy())
            matrix, offset = np.array([[sign * row[1], -row[2]], [sign * row[2], row[1]]]), row[3:5].copy()
            if rung.swapped:
                matrix = np.linalg.inv(matrix)
                offset = -matrix @ offset
            found = weigh(stage, matrix, offset, radius, prior, turn, every=rung.swapped)
            if best is None or found.log10_false < best.log10_false:
                best = found
            if best.log10_false < limit_log10:
                return best
        if len(seen) >= _MAX_WEIGHED and not last:
            verdict = verdict._replace(enough=verdict.enough + 10.0)
    return best


def _worth(stage: Stage, rung: _Rung, previous: _Rung | None) -> bool:
    """Whether a rung can show more than the one before."""
    frame = stage.frame
    if rung.swapped:
        near = len(stage.stars.near(0.0, 0.0, frame.half_diagonal))
        per_frame = near * frame.area / (math.pi * frame.half_diagonal**2)
        return not stage.ranked or len(stage.image) > _CROWDED * per_frame
    if not stage.ranked:
        return False
    # With all sources in already, it shows fainter stars: once is enough.
    return previous is None or previous is _LADDER[0] or len(stage.image) > previous.n_image


def search(
    stage: Stage,
    prior: Prior,
    limit_log10: float,
    turns: tuple[float, ...] = (0.0,),
    depth: int | None = None,
) -> PlaneMatch | None:
    """Look over all that the prior allows, about each of some turns (rad); the first credible match, else the best.

    `depth`: how many rungs of the ladder to try, fainter points with each; None: all. The result is None when there
    is too little to search with, and it may still be chance: see `log10_false`.
    """
    if len(stage.image) < 3 or len(stage.stars) < 3:
        return None
    best: PlaneMatch | None = None
    previous: _Rung | None = None
    for rung in _LADDER[: depth if stage.ranked else None]:
        if not _worth(stage, rung, previous):
            continue
        previous = rung
        for turn in turns:
            for mirrored in prior.mirrored:
                found = _rung(stage, prior, turn, mirrored, rung, limit_log10)
                if found is not None and (best is None or found.log10_false < best.log10_false):
                    best = found
                if best is not None and best.log10_false < limit_log10:
                    return best
    return best
