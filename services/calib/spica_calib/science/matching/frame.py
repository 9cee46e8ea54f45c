"""A whole exposure: located, then every CCD solved by itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from spica_imaging.wcs import TpvWcs

from spica_calib.science.astrometry.ccd import CcdSolution, solve_ccd
from spica_calib.science.matching.geometry import NoMatch, field_centre, field_radius, pointing_wcs
from spica_calib.science.matching.locate import locate
from spica_calib.science.matching.search import Prior
from spica_calib.science.stars import CcdField, Stars

__all__ = ["FrameSolution", "NoMatch", "field_centre", "field_radius", "pointing_wcs", "solve_frame"]


@dataclass(frozen=True, slots=True)
class FrameSolution:
    """The astrometric solution of an exposure."""

    ccds: tuple[CcdSolution, ...]
    log10_false: float
    """Of the least credible match that was needed."""
    expected_by_chance: float
    offset_arcsec: float
    """How far the exposure's centre is from where it was thought to be."""


def _solve_one(
    field: CcdField, stars: Stars, guess: TpvWcs, radius_arcsec: float, max_degree: int
) -> CcdSolution:
    """Solve one CCD from a good guess; where there is too little to solve, the guess is the solution."""
    solution = solve_ccd(field, stars, guess, radius_arcsec, max_degree)
    if solution is not None:
        return solution
    none = np.empty(0, dtype=np.intp)
    return CcdSolution(guess, guess.degree, none, none, np.empty(0), np.empty((0, 2)), np.nan)


def solve_frame(
    fields: Sequence[CcdField],
    stars: Stars,
    band: str | None,
    prior: Prior,
    *,
    rigid: bool,
    max_degree: int,
    limit_log10: float,
) -> FrameSolution:
    """Solve an exposure from its assumed WCS, every CCD by itself.

    Arguments as for `locate`; `max_degree` is the highest degree of the distortion polynomial. Raises `NoMatch`.
    """
    located = locate(fields, stars, band, prior, rigid=rigid, limit_log10=limit_log10)
    solutions = tuple(
        _solve_one(field, stars, guess, radius, max_degree)
        for field, guess, radius in zip(fields, located.wcs, located.radius_arcsec, strict=True)
    )
    return FrameSolution(
        ccds=solutions,
        log10_false=located.log10_false,
        expected_by_chance=located.expected_by_chance,
        offset_arcsec=located.offset_arcsec,
    )
