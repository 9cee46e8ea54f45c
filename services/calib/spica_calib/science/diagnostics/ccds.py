"""The calibration CCD by CCD, and which of them stand out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite, nan

import numpy as np
from spica_imaging.stats import median, median_sigma

from spica_calib.science.astrometry.problem import InstrumentModel
from spica_calib.science.diagnostics.geometry import Placement, placements
from spica_calib.science.diagnostics.inputs import Calibration
from spica_calib.science.diagnostics.plane import FocalPlane
from spica_calib.science.diagnostics.residuals import axis_sigma
from spica_calib.science.stars import Floats

_LEAST_CCDS = 5
_LEAST_STARS = 5
_ODD, _FAR = 4.0, 8.0


@dataclass(frozen=True, slots=True)
class CcdFigures:
    """What the calibration is like on one CCD. NaN where it is not known."""

    name: str
    n_sources: int
    n_matched: int
    """Detections that are reference stars."""
    n_kept: int
    n_internal: int
    external_mas: tuple[float, float]
    """Robust standard deviation about zero; RA*cos(Dec) and Dec."""
    internal_mas: tuple[float, float]
    mean_mas: tuple[float, float]
    """Median of star minus detection, cut ones included."""
    mean_error_mas: float
    scale_arcsec: float
    """In the middle."""
    rotation_deg: float
    """Position angle of +y, east of north, in the middle."""
    placement: Placement | None
    """Against the model of the focal plane."""
    located: bool | None
    """Matched by itself; False: placed by its neighbours or the frame; None: not told."""
    illumination_mag: float
    illumination_sigma_mag: float

    @property
    def cut_share(self) -> float:
        """Share of the matched stars that were cut; NaN with none."""
        return 1.0 - self.n_kept / self.n_matched if self.n_matched else nan

    @property
    def worse_mas(self) -> float:
        """The larger of the two axes' external residuals."""
        return max(self.external_mas) if all(map(isfinite, self.external_mas)) else nan


def ccd_figures(
    calibration: Calibration, plane: FocalPlane, exposures: Sequence[int] | None = None
) -> list[CcdFigures]:
    """One row per CCD of the focal plane, over these exposures; None: those solved."""
    chosen = tuple(calibration.own if exposures is None else exposures)
    home = calibration.exposures[chosen[0]]
    model = reference_model(calibration, home.context)
    placed: Mapping[str, Placement] = placements(plane, model) if model else {}
    located = calibration.located.get(home.name) if len(chosen) == 1 else None
    solution = calibration.photometry.solution if calibration.photometry else None
    light = solution.illumination.get(_photometric_context(calibration, chosen[0])) if solution else None
    d = plane.detections
    rows = []
    for index, (ccd, wcs) in enumerate(zip(plane.ccds, plane.wcs, strict=True)):
        here = d.ccd == index
        external, internal = d.external_mas[here], d.internal_mas[here]
        matched, tied = np.isfinite(external).all(axis=1), np.isfinite(internal).all(axis=1)
        kept = d.kept[here]
        good = external[matched & kept]
        all_of_it = external[matched]
        n = len(all_of_it)
        spread = np.mean(axis_sigma(all_of_it - np.median(all_of_it, axis=0))) if n else nan
        matrix = wcs.local_matrix(*ccd.centre)
        rows.append(
            CcdFigures(
                name=ccd.name,
                n_sources=sum(
                    len(one.sources)
                    for e in chosen
                    for one in calibration.exposures[e].ccds
                    if one.name == ccd.name
                ),
                n_matched=n,
                n_kept=len(good),
                n_internal=int(np.count_nonzero(tied & kept)),
                external_mas=axis_sigma(good) if len(good) >= _LEAST_STARS else (nan, nan),
                internal_mas=_scatter(internal[tied & kept]),
                mean_mas=(median(all_of_it[:, 0]), median(all_of_it[:, 1])),
                mean_error_mas=float(1.2533 * spread / np.sqrt(n)) if n >= _LEAST_STARS else nan,
                scale_arcsec=wcs.scale_at(*ccd.centre),
                rotation_deg=float(np.degrees(np.arctan2(matrix[0, 1], matrix[1, 1]))),
                placement=placed.get(ccd.name),
                located=located.found[index] if located and len(located.found) == len(plane.ccds) else None,
                illumination_mag=light.offset_mag.get(ccd.name, nan) if light else nan,
                illumination_sigma_mag=light.sigma_mag.get(ccd.name, nan) if light else nan,
            )
        )
    return rows


def _scatter(residual: Floats) -> tuple[float, float]:
    return axis_sigma(residual) if len(residual) >= _LEAST_STARS else (nan, nan)


def reference_model(calibration: Calibration, context: str) -> InstrumentModel | None:
    """What CCDs are compared with: the model before this solution; without one, the one that it made."""
    return calibration.previous.get(context) or calibration.astrometry.models.get(context)


def _photometric_context(calibration: Calibration, index: int) -> str:
    header = calibration.photometric_exposure(index)
    return header.context if header else calibration.exposures[index].context


def outlying(values: Sequence[float], floor: float) -> list[int]:
    """Per value: 0 as the others, 1 stands out (4 sigma), 2 far out (8 sigma).

    Sigma is the robust scatter, or `floor`, if that is more. Of fewer than five none stands out.
    """
    if sum(map(isfinite, values)) < _LEAST_CCDS:
        return [0] * len(values)
    centre, scatter = median_sigma(values)
    sigma = max(scatter, floor)
    found = []
    for value in values:
        off = abs(value - centre) / sigma if isfinite(value) and sigma > 0 else 0.0
        found.append(2 if off > _FAR else 1 if off > _ODD else 0)
    return found
