"""Zero points against airmass and time, and residual magnitudes against what they must not depend on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite

import numpy as np
from numpy.typing import NDArray

from spica_calib.science.diagnostics.inputs import Calibration
from spica_calib.science.diagnostics.residuals import Running, running
from spica_calib.science.stars import Bools, Floats

LEAST_AIRMASSES = 0.15
"""Range of airmass below which no extinction is fitted."""


@dataclass(frozen=True, slots=True)
class ZeroPointPoint:
    """One exposure's zero point, and when and through how much air it was."""

    name: str
    mag: float
    sigma_mag: float | None
    airmass: float | None
    mjd_obs: float | None
    kind: str
    """The anchor, or `earlier`: from the store."""
    is_anchor: bool
    own: bool
    """Of an exposure that the page is about."""
    expected_mag: float | None
    """What its header says for this airmass."""
    absorption_mag: float | None


def zero_points(calibration: Calibration, exposures: Sequence[int] | None = None) -> list[ZeroPointPoint]:
    """All zero points known of the run, those of these exposures marked; in order of time where it is known."""
    own = set(calibration.own if exposures is None else exposures)
    found, seen = [], set()
    for index, exposure in enumerate(calibration.exposures):
        zero, header = calibration.zero_point(index), calibration.photometric_exposure(index)
        if zero is None or header is None or zero.mag is None:
            continue
        seen.add(exposure.name)
        expected = header.header_zeropoint_mag
        if expected is not None and header.airmass is not None:
            expected += (header.header_airmass_term_mag or 0.0) * (header.airmass - 1.0)
        found.append(
            ZeroPointPoint(
                calibration.title(index),
                zero.mag,
                zero.sigma_mag,
                header.airmass,
                header.mjd_obs,
                zero.anchor,
                zero.is_anchor,
                index in own,
                expected,
                zero.absorption_mag,
            )
        )
    for one in calibration.earlier:
        if one.name not in seen:
            title = calibration.titles.get(one.name, one.name)
            found.append(
                ZeroPointPoint(
                    title,
                    one.mag,
                    one.sigma_mag,
                    one.airmass,
                    one.mjd_obs,
                    "earlier",
                    False,
                    False,
                    None,
                    None,
                )
            )
    return sorted(found, key=lambda one: (one.mjd_obs if one.mjd_obs is not None else np.inf, one.name))


@dataclass(frozen=True, slots=True)
class Extinction:
    """A straight line through zero points against airmass."""

    mag: float
    """At airmass 1."""
    slope_mag: float
    """Per airmass."""
    slope_sigma_mag: float
    rms_mag: float
    n: int


def extinction(points: Sequence[ZeroPointPoint]) -> Extinction | None:
    """Fit zero points against airmass; None with fewer than four or where the airmass hardly varies.

    Clouds only make zero points smaller: points more than 3 robust sigma below the line are left out in turn.
    """
    known = [(one.airmass, one.mag) for one in points if one.airmass is not None and isfinite(one.mag)]
    table = np.array(known, dtype=np.float64).reshape(-1, 2)
    if len(table) < 4 or np.ptp(table[:, 0]) < LEAST_AIRMASSES:
        return None
    x, y = table[:, 0] - 1.0, table[:, 1]
    used = np.ones(len(x), np.bool_)
    rows = np.column_stack([np.ones(len(x)), x])
    fit: Floats = np.zeros(2)
    for _ in range(10):
        fit = np.asarray(np.linalg.lstsq(rows[used], y[used], rcond=None)[0], dtype=np.float64)
        off = y - rows @ fit
        scatter = max(1.4826 * float(np.median(np.abs(off[used]))), 1e-3)
        new = off > -3.0 * scatter
        if new.sum() < 4 or np.ptp(x[new]) < LEAST_AIRMASSES or np.array_equal(new, used):
            break
        used = new
    off = (y - rows @ fit)[used]
    rms = float(np.sqrt(np.sum(off**2) / max(used.sum() - 2, 1)))
    about = x[used] - x[used].mean()
    return Extinction(
        float(fit[0]), float(fit[1]), float(rms / np.sqrt(np.sum(about**2))), rms, int(used.sum())
    )


@dataclass(frozen=True, slots=True)
class MagnitudeResiduals:
    """Residuals of the photometric solution. Arrays of shape (n,)."""

    mag: Floats
    """Calibrated."""
    colour_mag: Floats
    """NaN without a reference star."""
    residual_mag: Floats
    ccd: NDArray[np.int32]
    """Index into the exposure's CCDs."""
    exposure: NDArray[np.int32]
    """Index into the photometric solution's exposures."""
    kept: Bools

    def against(self, x: Floats) -> Running:
        """Running median of those kept."""
        return running(x[self.kept], self.residual_mag[self.kept])


def magnitude_residuals(
    calibration: Calibration, exposures: Sequence[int] | None = None
) -> MagnitudeResiduals | None:
    """Residual magnitudes of these exposures; None where there are none."""
    if calibration.photometry is None:
        return None
    given, solved = calibration.photometry.detections, calibration.photometry.solution
    names = {calibration.exposures[index].name for index in (exposures or calibration.own)}
    chosen = [i for i, one in enumerate(calibration.photometry.exposures) if one.name in names]
    zeros = np.array(
        [np.nan if zero.mag is None else zero.mag for zero in solved.exposures], dtype=np.float64
    )
    here = np.isin(given.exposure, chosen) & np.isfinite(solved.residual_mag)
    if not here.any():
        return None
    mag = given.mag[here] + zeros[given.exposure[here]]
    return MagnitudeResiduals(
        mag, given.colour_mag[here], solved.residual_mag[here], given.ccd[here], given.exposure[here],
        solved.kept[here],
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Trend:
    """A straight line through residual magnitudes."""

    slope: float
    sigma: float

    @property
    def significant(self) -> bool:
        """Whether chance would hardly make it."""
        return abs(self.slope) > 4.0 * self.sigma


def trend(x: Floats, y: Floats) -> Trend | None:
    """Slope of y against x, robust by clipping twice at 3 sigma; None with fewer than 20 points or no range."""
    known = np.isfinite(x) & np.isfinite(y)
    x, y = x[known], y[known]
    for _ in range(3):
        if len(x) < 20 or np.ptp(x) <= 0:
            return None
        about = x - x.mean()
        slope = float(np.sum(about * y) / np.sum(about**2))
        off = y - y.mean() - slope * about
        sigma = float(np.std(off))
        error = sigma / float(np.sqrt(np.sum(about**2)))
        inside = np.abs(off) <= 3.0 * max(sigma, 1e-12)
        x, y = x[inside], y[inside]
    return Trend(slope, error)
