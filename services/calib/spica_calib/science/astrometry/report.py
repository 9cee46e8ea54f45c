"""Numbers and sentences about a solution: residuals per exposure, what is not tied, what chance would give."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from spica_imaging.stats import SIGMA_PER_MAD

from spica_calib.science.astrometry.crossid import StarField, associate
from spica_calib.science.astrometry.kernels import Index, directions
from spica_calib.science.astrometry.means import Means
from spica_calib.science.astrometry.problem import Detections
from spica_calib.science.astrometry.rounds import Rounds, Ties
from spica_calib.science.stars import Bools, Floats

_MOST = 1_000_000
"""Detections that the numbers of all exposures together are taken from."""
_TRIED = 8
"""Exposures on which chance is tried."""
_ASIDE_RADII = 12.0


@dataclass(frozen=True, slots=True)
class Numbers:
    """Residuals of one exposure, or of all."""

    n_external: int
    n_internal: int
    external_mas: tuple[float, float]
    internal_mas: tuple[float, float]
    chi2_external: float
    chi2_internal: float


@dataclass(frozen=True, slots=True)
class AllNumbers:
    """Exposures in the input's order."""

    exposures: list[Numbers]
    whole: Numbers


def _sigma(values: Floats) -> tuple[float, float]:
    if len(values) < 2:
        return float("nan"), float("nan")
    along = [np.ascontiguousarray(values[:, axis]) for axis in (0, 1)]
    spread = [SIGMA_PER_MAD * float(np.median(np.abs(one - np.median(one)))) for one in along]
    return spread[0], spread[1]


def numbers_of(
    rounds: Rounds, ties: Ties, means: Means, detections: Detections, order: Index, group: Index
) -> AllNumbers:
    """Robust residuals and reduced chi². A mean follows its members, which is made up for."""

    def told(mine: slice) -> Numbers:
        g, at = group[order[mine]], order[mine]
        kept, sigma = detections.kept[mine], detections.sigma_mas[mine]
        share = (means.weight[at] / np.maximum(means.total[g], 1e-300)).astype(np.float64)
        i = kept & (means.agreeing[g] >= 2) & (share < 0.95)
        o = kept & (means.star_weight[g] > 0)
        freedom = np.maximum(1.0 - share[i], 0.05)
        inner, outer = detections.internal_mas[mine][i], detections.external_mas[mine][o]
        inner_chi2 = ((inner**2).sum(axis=1) / sigma[i] ** 2).sum() / (2.0 * max(freedom.sum(), 1e-9))
        outer_chi2 = (outer**2).sum(axis=1) / (sigma[o] ** 2 + 1e6 / means.star_weight[g[o]])
        return Numbers(
            len(outer),
            len(inner),
            _sigma(outer),
            _sigma(inner / np.sqrt(freedom)[:, None]),
            float(outer_chi2.mean() / 2.0) if len(outer) else float("nan"),
            float(inner_chi2) if len(inner) else float("nan"),
        )

    n = len(detections.kept)
    ends = np.searchsorted(detections.exposure, np.arange(len(rounds.layout.order) + 1))
    exposures = [told(slice(int(a), int(b))) for a, b in itertools.pairwise(ends)]
    whole = replace(
        told(slice(0, n, max(1, n // _MOST))),
        n_external=sum(one.n_external for one in exposures),
        n_internal=sum(one.n_internal for one in exposures),
    )
    return AllNumbers(exposures, whole)


def matches_and_chance(rounds: Rounds, ties: Ties) -> tuple[float, float, int]:
    """Detections of some exposures that are near a star, and how many would be if the stars were others.

    The others are the same stars, all moved aside by several radii. Also tells how many exposures were looked at.
    """
    layout, stars = rounds.layout, rounds.stars
    free = np.flatnonzero(layout.free >= 0)
    if not len(free) or not len(stars):
        return 0.0, 0.0, 0
    tried = free[:: max(1, len(free) // _TRIED)][:_TRIED]
    group = np.repeat(np.arange(len(ties.groups)), ties.groups.count)
    matched = ties.groups.star[group] >= 0
    found = np.bincount(layout.exposure[ties.groups.members[matched]], minlength=len(layout.exposures))
    aside = np.radians(_ASIDE_RADII * max(rounds.radius, rounds.star_radius) / 3600.0)
    by_chance = 0
    for number, e in enumerate(tried):
        mine = slice(int(layout.spans[e]), int(layout.spans[e + 1]))
        sky = np.empty((mine.stop - mine.start, 3))
        directions(layout.exposure[mine], rounds.state.frames, rounds.state.places[mine], sky)
        for k in range(4 if len(tried) < 4 else 1):
            turn = _turn(rounds.state.frames[e], np.pi / 2 * (k + number) + 0.3, aside)
            elsewhere = StarField(
                stars.vectors @ turn.T, np.zeros_like(stars.motion), stars.error_arcsec, stars.epoch_year
            )
            groups = associate(
                sky, np.ones(len(sky), np.float32), np.array([0, len(sky)]), np.zeros(1), elsewhere,
                rounds.radius, rounds.star_radius,
            )  # fmt: skip
            by_chance += int(np.count_nonzero(groups.star >= 0))
    return float(found[tried].sum()), by_chance / (4 if len(tried) < 4 else 1), len(tried)


def _turn(frame: Floats, direction: float, angle: float) -> Floats:
    """Rotation of the sky that moves a frame's middle by an angle in a direction."""
    x, y, z = np.cos(direction) * frame[1] + np.sin(direction) * frame[2]
    cross = np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
    turned: Floats = np.eye(3) + np.sin(angle) * cross + (1.0 - np.cos(angle)) * cross @ cross
    return turned


# ---- what the user should know ----


def notes_of(rounds: Rounds, ties: Ties, means: Means) -> list[str]:
    """Exposures and CCDs that hang on nothing, parts that do not overlap."""
    layout, notes = rounds.layout, []
    n = len(layout.exposures)
    e, used = layout.exposure[ties.groups.members], means.weight > 0
    group = np.repeat(np.arange(len(ties.groups)), ties.groups.count)
    star = used & (means.star_weight[group] > 0)
    inner = used & (means.agreeing[group] >= 2)
    n_star, n_inner = np.bincount(e[star], minlength=n), np.bincount(e[inner], minlength=n)
    free = layout.free >= 0
    lonely = np.flatnonzero(free & (n_inner == 0))
    if len(lonely) and n > 1:
        notes.append(f"No source in common with any other exposure: {_names(layout.exposures, lonely)}.")
    part = _parts(n, e[used], group[used].astype(np.int32))
    if len(np.unique(part[free])) > 1 and len(lonely) < n:
        notes.append(
            f"The exposures fall into {len(np.unique(part[free]))} parts that have no source in common."
        )
    anchored = np.bincount(part, n_star, minlength=n) + np.bincount(part, ~free, minlength=n) > 0
    floating = np.flatnonzero(free & ~anchored[part])
    if len(floating):
        notes.append(
            "No reference star, the absolute place is that of the WCS they came with: "
            f"{_names(layout.exposures, floating)}."
        )
    notes += _bare_ccds(rounds, ties, star, inner)
    return notes


def _bare_ccds(rounds: Rounds, ties: Ties, star: Bools, inner: Bools) -> list[str]:
    layout, notes = rounds.layout, []
    n = len(layout.planes)
    plane = np.maximum(ties.plane, 0)
    mine = ties.plane >= 0
    n_star = np.bincount(plane[mine & star], minlength=n)
    n_any = np.bincount(plane[mine & (star | inner)], minlength=n)
    nothing = [layout.planes[k].name for k in np.flatnonzero(n_any == 0)]
    without = [layout.planes[k].name for k in np.flatnonzero((n_star == 0) & (n_any > 0))]
    if nothing:
        notes.append(f"No match at all, placed as they came: CCDs {_listed(nothing)}.")
    if without and n_star.any():
        notes.append(f"No reference star, tied by other exposures alone: CCDs {_listed(without)}.")
    context = rounds.degrees[layout.plane_context] if n else np.zeros(0)
    few = [layout.planes[k].name for k in np.flatnonzero((rounds.caps < context) & (n_any > 0))]
    if few:
        notes.append(f"Few matches for the distortion, which stays near how it came: CCDs {_listed(few)}.")
    return notes


def _parts(n: int, exposure: Index, group: Index) -> Index:
    """Which exposures hang together through common sources, shape (n,)."""
    same = np.flatnonzero(group[1:] == group[:-1])
    links = coo_array((np.ones(len(same)), (exposure[same], exposure[same + 1])), shape=(n, n))
    return np.asarray(connected_components(links, directed=False)[1])


def _names(exposures: tuple[object, ...], index: NDArray[np.intp]) -> str:
    return _listed([str(getattr(exposures[int(k)], "name", k)) for k in index])


def _listed(names: list[str]) -> str:
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
