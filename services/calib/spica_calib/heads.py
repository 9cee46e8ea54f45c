"""The `.head` files: solved cards of an exposure, one block per CCD."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from spica_imaging.head import Value, add_cards, format_head, read_head
from spica_imaging.wcs import TpvWcs, WcsError
from spica_runtime.storage import DataFolder, segment, whole_file

from spica_calib.errors import CalibrationFailed
from spica_calib.science.astrometry.problem import ExposureSolution
from spica_calib.science.photometry.zeropoint import flux_scale


def solution_path(data: DataFolder, solution_id: str, name: str, suffix: str) -> Path:
    """Where a file of a solution stands. Raises `NotRetriable` (`unsafe_name`)."""
    return data.path(f"calib/{solution_id}/{segment('image name', name)}{suffix}")


_MAS_PER_DEG = 3.6e6


@dataclass(frozen=True, slots=True)
class HeadPhotometry:
    """What the photometric cards of an exposure tell."""

    zeropoint_mag: float
    """AB magnitude of 1 adu/s, at the middle of the illumination."""
    exposure_time_s: float
    offset_mag: Mapping[str, float] = field(default_factory=dict)
    """Illumination: to be added to the magnitudes of a CCD, by its name; 0 where it is not named."""
    internal_rms_mag: float | None = None
    """Robust standard deviation of bright stars between exposures."""
    linked: bool = False
    """Whether the zero point hangs on an exposure known to be photometric, or on reference stars."""


@dataclass(frozen=True, slots=True)
class HeadLabels:
    """Numbers from 1 by which exposures of one solution tell who belongs together, as SCAMP gives them."""

    field_group: int = 1
    """Exposures that overlap, directly or through others."""
    astrometric_instrument: int = 1
    photometric_instrument: int = 1


def write_heads(
    path: Path,
    names: Sequence[str],
    solution: ExposureSolution,
    photometry: HeadPhotometry | None = None,
    labels: HeadLabels = HeadLabels(),
) -> None:
    """Write the `.head` file of a solved exposure whole: WCS and SCAMP's cards, one block per CCD.

    Args:
        path: where; written beside and renamed.
        names: of the CCDs, in the order of the HDUs.
        solution: WCS per CCD, and the exposure's astrometric numbers.
        photometry: None leaves the photometric cards out.
        labels: to which groups the exposure belongs.

    MAGZEROP is the magnitude of 1 adu/s on that CCD, FLXSCALE brings its counts to zero point 30 and 1 s:
    FLXSCALE = 10^(0.4 (30 - MAGZEROP)) / exposure time. ASTIRMS (internal) and ASTRRMS (reference) are in degrees
    per axis, PHOTIRMS in magnitudes. Numbers that are not known have no card.

    """
    headers = []
    for name, ccd_wcs in zip(names, solution.wcs, strict=True):
        header = add_cards(ccd_wcs.to_header(), [("EXTNAME", name, "CCD")])
        add_cards(header, _astrometric_cards(solution, labels))
        if photometry is not None:
            add_cards(header, _photometric_cards(name, photometry, labels))
        headers.append(header)
    with whole_file(path) as part:
        part.write_text(format_head(headers), encoding="ascii")


def _astrometric_cards(solution: ExposureSolution, labels: HeadLabels) -> Iterator[tuple[str, Value, str]]:
    yield "FGROUPNO", labels.field_group, "Group of overlapping exposures"
    for keyword, rms, what in (
        ("ASTIRMS", solution.internal_mas, "internal"),
        ("ASTRRMS", solution.external_mas, "reference"),
    ):
        for axis, along in ((1, "RA*cos(Dec)"), (2, "Dec")):
            if math.isfinite(rms[axis - 1]):
                yield f"{keyword}{axis}", rms[axis - 1] / _MAS_PER_DEG, f"[deg] {what} rms, {along}"
    yield "ASTINST", labels.astrometric_instrument, "Astrometric instrument"


def _photometric_cards(
    name: str, photometry: HeadPhotometry, labels: HeadLabels
) -> Iterator[tuple[str, Value, str]]:
    zero = photometry.zeropoint_mag + photometry.offset_mag.get(name, 0.0)
    yield "FLXSCALE", flux_scale(zero, photometry.exposure_time_s), "Flux scale to zero point 30, 1 s"
    yield "MAGZEROP", zero, "[mag] AB magnitude of 1 adu/s"
    if photometry.internal_rms_mag is not None and math.isfinite(photometry.internal_rms_mag):
        yield "PHOTIRMS", photometry.internal_rms_mag, "[mag] internal rms of bright stars"
    yield "PHOTINST", labels.photometric_instrument, "Photometric instrument"
    yield "PHOTLINK", photometry.linked, "Zero point tied to an absolute scale"


def read_wcs(path: Path) -> list[TpvWcs]:
    """Solved WCS of an exposure's CCDs. Raises `CalibrationFailed` (`bad_header`)."""
    try:
        return [TpvWcs.from_header(header) for header in read_head(path)]
    except (OSError, ValueError, WcsError) as error:
        raise CalibrationFailed("bad_header", f"Header file {path} cannot be read: {error}") from error


def read_head_names(path: Path) -> list[str]:
    """Names of the CCDs in a `.head` file, in order. Raises `CalibrationFailed` (`bad_header`)."""
    try:
        return [str(header["EXTNAME"]) for header in read_head(path)]
    except (OSError, ValueError, KeyError) as error:
        raise CalibrationFailed("bad_header", f"Header file {path} cannot be read: {error}") from error
