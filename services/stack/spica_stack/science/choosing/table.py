"""Candidates as columns, and where their CCDs lie."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from spica_imaging.skycells import unit_vectors
from spica_imaging.skyshapes import Shape
from spica_imaging.sphere import quads_near

from spica_stack.science.selection import Candidate

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
Indices = NDArray[np.int64]

_FEW = 5
ROUGH_RAD = 2e-3
"""Margin for images of which only the pointing is known: 7 arcmin."""


@dataclass(frozen=True)
class Footprints:
    """CCDs of exposures on the sky.

    corners_deg: (n, 4, 2), RA and Dec of the outer edges of the corner pixels, around each CCD. owner: (n,), which
    exposure each is of; ascending.
    """

    corners_deg: Floats
    owner: Indices

    @staticmethod
    def of(corners_deg: Sequence[Floats]) -> Footprints:
        """From the CCDs of each exposure, (k, 4, 2)."""
        counts = [len(ccds) for ccds in corners_deg]
        every = np.concatenate([np.zeros((0, 4, 2)), *corners_deg])
        return Footprints(every, np.repeat(np.arange(len(counts)), counts))

    @cached_property
    def quads(self) -> Floats:
        """Corners as directions. Shape: (n, 4, 3)."""
        return _directions(self.corners_deg)

    def touching(self, shape: Shape, n_exposures: int) -> Flags:
        """Which exposures have a CCD with a point in common with the shape. Shape: (n_exposures,)."""
        hits = np.zeros(n_exposures, dtype=bool)
        # One corner in the shape is enough for the whole exposure: a few are looked at before all.
        few = np.arange(0, len(self.owner), _FEW)
        hits[self.owner[few[shape.holds(_directions(self.corners_deg[few, 0]))]]] = True
        rest = np.flatnonzero(~hits[self.owner])
        quads = _directions(self.corners_deg[rest])
        near = quads_near(quads, shape.middle, shape.radius_rad)
        hits[self.owner[rest[near][shape.touches_quads(quads[near])]]] = True
        return hits


def _directions(corners_deg: Floats) -> Floats:
    return unit_vectors(corners_deg[..., 0], corners_deg[..., 1])


@dataclass
class Table:
    """Candidates in the order in which they were exposed (then by name, then by id), column by column."""

    candidates: tuple[Candidate, ...]
    footprints: Mapping[int, Floats] = field(default_factory=dict)
    """Corners of the CCDs (k, 4, 2) of those of which they are needed, by index."""
    _columns: dict[str, Any] = field(default_factory=dict)

    @staticmethod
    def of(candidates: Sequence[Candidate]) -> Table:
        """Sort candidates."""
        return Table(tuple(sorted(candidates, key=lambda row: (row.mjd_obs or 0.0, row.name, row.image_id))))

    def __len__(self) -> int:
        return len(self.candidates)

    def _column(self, name: str, make: Callable[[list[Any]], Any]) -> Any:
        if name not in self._columns:
            self._columns[name] = make([getattr(row, name) for row in self.candidates])
        return self._columns[name]

    def numbers(self, name: str) -> Floats:
        """A column of numbers; NaN where not known."""
        found: Floats = self._column(name, lambda values: np.array(values, dtype=np.float64))
        return found

    def texts(self, name: str) -> NDArray[np.object_]:
        """A column of anything else."""

        def make(values: list[Any]) -> NDArray[np.object_]:
            column = np.empty(len(values), dtype=object)
            column[:] = values
            return column

        found: NDArray[np.object_] = self._column(name, make)
        return found

    @cached_property
    def centres(self) -> Floats:
        """Directions of their middles; where nothing better is known, of their pointings. Shape: (n, 3)."""
        known = np.stack([self.numbers(f"centre_{axis}") for axis in "xyz"], axis=-1)
        pointing = unit_vectors(self.numbers("ra_deg"), self.numbers("dec_deg"))
        return np.where(np.isfinite(known), known, pointing)

    @cached_property
    def reaches_rad(self) -> Floats:
        """How far each reaches from there."""
        radius = self.numbers("radius_rad")
        return np.where(np.isfinite(radius), radius, ROUGH_RAD)

    def may_touch(self, shape: Shape) -> Flags:
        """Which may have a point in common with the shape; never False by mistake where the extent is known."""
        return shape.touches_discs(self.centres, self.reaches_rad) if len(self) else np.zeros(0, dtype=bool)

    def touching(self, shape: Shape) -> Flags:
        """Which have: by their CCDs where `footprints` has them, else as `may_touch`."""
        found = self.may_touch(shape)
        near = [index for index in np.flatnonzero(found).tolist() if index in self.footprints]
        exact = Footprints.of([self.footprints[index] for index in near])
        found[near] = exact.touching(shape, len(near))
        return found
