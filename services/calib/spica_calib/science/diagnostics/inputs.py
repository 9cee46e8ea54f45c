"""All that is known of one calibration, as the diagnostics take it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from spica_calib.science.astrometry.problem import AstrometricSolution, Exposure, InstrumentModel, Options
from spica_calib.science.matching.located import Located
from spica_calib.science.photometry.problem import (
    ExposureZeroPoint,
    PhotometricDetections,
    PhotometricExposure,
    PhotometricSolution,
)
from spica_calib.science.stars import Floats


@dataclass(frozen=True, slots=True)
class Photometry:
    """What the photometric solver was given and what it gave back."""

    exposures: tuple[PhotometricExposure, ...]
    """In the order of the solution's exposures."""
    detections: PhotometricDetections
    solution: PhotometricSolution


@dataclass(frozen=True, slots=True)
class EarlierZeroPoint:
    """Zero point of another image of the run, as the store has it."""

    name: str
    mag: float
    sigma_mag: float | None = None
    airmass: float | None = None
    mjd_obs: float | None = None


def earlier_zero_points(exposures: Iterable[PhotometricExposure]) -> tuple[EarlierZeroPoint, ...]:
    """Zero points that exposures were given before, where they stand on anything."""
    return tuple(
        EarlierZeroPoint(
            one.name, one.own_zeropoint_mag, one.own_zeropoint_sigma_mag, one.airmass, one.mjd_obs
        )
        for one in exposures
        if one.own_zeropoint_mag is not None and one.own_anchor != "none"
    )


@dataclass(frozen=True, slots=True)
class Calibration:
    """One image's or one stack's calibration."""

    exposures: tuple[Exposure, ...]
    """As given to the solver, those held included; indices of the solution's detections count these."""
    astrometry: AstrometricSolution
    options: Options = field(default_factory=Options)
    located: Mapping[str, Located] = field(default_factory=dict)
    """By the exposure's name."""
    photometry: Photometry | None = None
    previous: Mapping[str, InstrumentModel] = field(default_factory=dict)
    """Models before this solution, by context."""
    earlier: tuple[EarlierZeroPoint, ...] = ()
    star_error_mas: Floats | None = None
    """Standard error per axis of the reference stars, by the numbers that detections name; None: the floor alone."""
    titles: Mapping[str, str] = field(default_factory=dict)
    """What people call the exposures, by their names here; those left out are called by that."""

    def __post_init__(self) -> None:
        if len(self.exposures) != len(self.astrometry.exposures):
            raise ValueError(
                f"{len(self.exposures)} exposures, but a solution of {len(self.astrometry.exposures)}."
            )

    def title(self, index: int) -> str:
        """What people call an exposure."""
        name = self.exposures[index].name
        return self.titles.get(name, name)

    @property
    def own(self) -> tuple[int, ...]:
        """Indices of the exposures that were solved, not held; all where all were held."""
        solved = tuple(index for index, exposure in enumerate(self.exposures) if not exposure.held)
        return solved or tuple(range(len(self.exposures)))

    def zero_point(self, index: int) -> ExposureZeroPoint | None:
        """What photometry found for an exposure; None where it was not done."""
        found = self._photometric(index)
        return self.photometry.solution.exposures[found] if self.photometry and found is not None else None

    def photometric_exposure(self, index: int) -> PhotometricExposure | None:
        """What its header told; None where photometry was not done."""
        found = self._photometric(index)
        return self.photometry.exposures[found] if self.photometry and found is not None else None

    def _photometric(self, index: int) -> int | None:
        if self.photometry is None:
            return None
        name = self.exposures[index].name
        return next((i for i, one in enumerate(self.photometry.exposures) if one.name == name), None)
