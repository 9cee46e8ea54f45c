"""Which detections in different exposures are one source, and which reference star it is.

Exposure by exposure, detections join the group that is their mutual nearest; reference stars are groups from the
beginning and move along their proper motion. Groups are found through cells of space, kept in a hash table: the cost
is linear in the number of detections, anywhere on the sky and over any area.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from spica_calib.science.astrometry.kernels import (
    Index,
    Singles,
    enter_all,
    join_groups,
    nearest_groups,
    sort_by_group,
)
from spica_calib.science.astrometry.sky import ARCSEC_PER_RAD
from spica_calib.science.stars import Floats, Ints

_MAX_DRIFT_ARCSEC = 8.0
"""Proper motion over the exposures' epochs up to which stars are found."""
_SMALLEST_CELL_ARCSEC = 0.5


@dataclass(frozen=True, slots=True)
class StarField:
    """Reference stars as directions at one epoch and how they move."""

    vectors: Floats
    """Shape (n, 3), unit vectors."""
    motion: Floats
    """Shape (n, 3), radians per year."""
    error_arcsec: Floats
    epoch_year: float

    def __len__(self) -> int:
        return len(self.vectors)


@dataclass(frozen=True, slots=True)
class Groups:
    """Groups of two detections or more, and of one with a reference star."""

    offsets: Ints
    """Members of group g are `members[offsets[g] : offsets[g + 1]]`."""
    members: Index
    """Detections, in order of exposures within a group."""
    star: Index
    """Reference star of each group; -1: none."""

    def __len__(self) -> int:
        return len(self.star)

    @property
    def count(self) -> Ints:
        """Detections per group."""
        return np.diff(self.offsets)


class _Table:
    """Cells of space and the groups in them."""

    def __init__(self, per_rad: float, room: int, most: int) -> None:
        self.per_rad = per_rad
        self.chain = np.empty(most, np.int32)
        self._size(room)
        self.entered = 0

    def _size(self, room: int) -> None:
        size = 1 << int(np.ceil(np.log2(max(4 * room, 64))))
        self.keys = np.full(size, -1, np.int64)
        self.heads = np.empty(size, np.int32)
        self.used = 0

    def enter(self, centres: Floats) -> None:
        """Enter all groups that are not yet there; `centres` of all groups so far."""
        new = len(centres) - self.entered
        if 2 * (self.used + new) > len(self.keys):
            self._size(2 * (self.used + new))
            self.entered = 0
        self.used += enter_all(centres, self.entered, self.per_rad, self.keys, self.heads, self.chain)
        self.entered = len(centres)


def associate(
    direction: Floats,
    weight: Singles,
    spans: Ints,
    years: Floats,
    stars: StarField,
    radius_arcsec: float,
    star_radius_arcsec: float,
) -> Groups:
    """Group detections; those of exposure e are `spans[e] : spans[e + 1]`.

    `direction`: unit vectors, shape (n, 3); `weight`: for means, shape (n,); `years`: epoch of each exposure minus the
    stars'. An exposure gives at most one detection to a group.
    """
    n, n_stars = len(direction), len(stars)
    drift = float(np.abs(years).max(initial=0.0)) * float(
        np.sqrt((stars.motion**2).sum(axis=1)).max(initial=0.0)
    )
    wide = max(radius_arcsec, star_radius_arcsec)
    reach = wide + max(radius_arcsec, min(drift * ARCSEC_PER_RAD, _MAX_DRIFT_ARCSEC))
    table = _Table(
        ARCSEC_PER_RAD / max(2.5 * reach, _SMALLEST_CELL_ARCSEC),
        n_stars + int(np.diff(spans).max(initial=0)),
        n + n_stars,
    )
    centres, total = np.empty((n + n_stars, 3)), np.empty(n + n_stars)
    centres[:n_stars] = stars.vectors
    # Pages of these are touched only as far as there are groups.
    rival, rival_d2 = np.empty(n + n_stars, np.int32), np.empty(n + n_stars)
    stamp = np.zeros(n + n_stars, np.int32)
    group = np.empty(n, np.int32)
    n_groups = n_stars
    for e in range(len(spans) - 1):
        table.enter(centres[:n_groups])
        mine = slice(int(spans[e]), int(spans[e + 1]))
        choice = np.empty(mine.stop - mine.start, np.int32)
        nearest_groups(
            direction[mine], float(years[e]), n_stars, stars.motion,
            star_radius_arcsec / ARCSEC_PER_RAD, radius_arcsec / ARCSEC_PER_RAD, reach / ARCSEC_PER_RAD,
            table.per_rad, table.keys, table.heads, table.chain, centres, choice, rival, rival_d2, stamp, e + 1,
        )  # fmt: skip
        n_groups = join_groups(
            direction[mine], weight[mine], n_stars, n_groups, choice, rival, centres, total, group[mine]
        )
    return _worth_keeping(group, n_groups, n_stars)


def _worth_keeping(group: Index, n_groups: int, n_stars: int) -> Groups:
    count = np.bincount(group, minlength=n_groups)
    wanted = count >= 2
    wanted[:n_stars] = count[:n_stars] >= 1
    offsets, members = sort_by_group(group, n_groups, wanted.view(np.uint8))
    chosen = np.flatnonzero(wanted)
    star = np.where(chosen < n_stars, chosen, -1).astype(np.int32)
    return Groups(np.append(offsets[chosen], offsets[-1]), members, star)
