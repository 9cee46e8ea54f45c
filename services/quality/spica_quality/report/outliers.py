"""Which CCDs stand out among those of the same exposure."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite, sqrt

from spica_imaging.stats import median_sigma

from spica_quality.science.metrics.figures import Row, number

_LEAST_CCDS = 5
_ODD, _FAR = 4.0, 8.0
_MOST_APART = 0.2

_FLOORS: dict[str, tuple[float, float]] = {
    "fwhm_px": (0.03, 0.0),
    "fwhm_arcsec": (0.03, 0.0),
    "half_light_diameter_arcsec": (0.03, 0.0),
    "ellipticity": (0.0, 0.015),
    "elongation": (0.015, 0.0),
    "psf_chi2": (0.1, 0.05),
    "psf_residual": (0.1, 0.001),
    "psf_asymmetry": (0.1, 0.002),
    "limiting_mag": (0.0, 0.03),
    "completeness50_mag": (0.0, 0.04),
    "background_adu": (0.01, 0.0),
    "background_rms_adu": (0.02, 0.0),
    "usable_fraction": (0.0, 0.01),
}
"""Differences that are nothing to speak of however alike the other CCDs are: relative and absolute, one sigma."""


def outlying(rows: Sequence[Row], name: str) -> list[int]:
    """Per CCD: 0 as the others, 1 stands out (4 sigma), 2 far out (8 sigma).

    Sigma is the robust scatter over the CCDs, or what does not matter, if that is more. Counts have Poisson noise at
    least. Of fewer than five CCDs none stands out; where more than a fifth would, the figure varies over the field,
    and none does.
    """
    levels = _levels(rows, name)
    return levels if _few(levels) else [0] * len(levels)


def varies(rows: Sequence[Row], name: str) -> bool:
    """Whether more CCDs are apart from the rest than can be called outlying."""
    return not _few(_levels(rows, name))


def _few(levels: Sequence[int]) -> bool:
    return sum(level > 0 for level in levels) <= _MOST_APART * len(levels)


def _levels(rows: Sequence[Row], name: str) -> list[int]:
    values = [number(row, name) for row in rows]
    if sum(map(isfinite, values)) < _LEAST_CCDS:
        return [0] * len(values)
    centre, scatter = median_sigma(values)
    relative, absolute = _FLOORS.get(name, (0.02, 0.0))
    floor = relative * abs(centre) + absolute
    if name.startswith("n_"):
        floor = sqrt(max(centre, 1.0)) + 0.05 * abs(centre)
    sigma = max(scatter, floor, 1e-12)
    found = []
    for value in values:
        off = abs(value - centre) / sigma if isfinite(value) else 0.0
        found.append(2 if off > _FAR else 1 if off > _ODD else 0)
    return found
