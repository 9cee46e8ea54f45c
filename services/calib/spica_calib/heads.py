"""The `.head` files: solved cards of an exposure, one block per CCD."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from spica_imaging.head import add_cards, format_head, parse_head
from spica_imaging.wcs import TpvWcs, WcsError
from spica_runtime.storage import DataFolder, segment, whole_file

from spica_calib.errors import CalibrationFailed
from spica_calib.science.astrometry.ccd import ResidualStatistics
from spica_calib.science.photometry.zeropoint import flux_scale


def solution_path(data: DataFolder, solution_id: str, name: str, suffix: str) -> Path:
    """Where a file of a solution stands. Raises `NotRetriable` (`unsafe_name`)."""
    return data.path(f"calib/{solution_id}/{segment('image name', name)}{suffix}")


def write_head(
    path: Path,
    names: Sequence[str],
    wcs: Sequence[TpvWcs],
    residuals: ResidualStatistics,
    zeropoint_mag: float | None,
    scatter_mag: float | None,
    exposure_time_s: float,
) -> None:
    """Write a `.head` file whole. Cards as SCAMP's, so that SWarp reads it too.

    MAGZEROP is the magnitude of 1 adu/s, FLXSCALE brings counts to zero point 30 and 1 s; without
    photometry both are left out. ASTRRMS are in degrees, PHOTIRMS in magnitudes.
    """
    headers = []
    for name, ccd_wcs in zip(names, wcs, strict=True):
        header = ccd_wcs.to_header()
        add_cards(header, [("EXTNAME", name, "CCD")])
        if residuals.n:
            add_cards(
                header,
                [
                    ("ASTRRMS1", residuals.rms_ra / 3.6e6, "[deg] Astrometric scatter along RA*cos(Dec)"),
                    ("ASTRRMS2", residuals.rms_dec / 3.6e6, "[deg] Astrometric scatter along Dec"),
                ],
            )
        if zeropoint_mag is not None:
            add_cards(
                header,
                [
                    (
                        "FLXSCALE",
                        flux_scale(zeropoint_mag, exposure_time_s),
                        "Flux scale to zero point 30, 1 s",
                    ),
                    ("MAGZEROP", zeropoint_mag, "[mag] AB magnitude of 1 adu/s"),
                ],
            )
        if scatter_mag is not None:
            add_cards(header, [("PHOTIRMS", scatter_mag, "[mag] Photometric scatter")])
        headers.append(header)
    with whole_file(path) as part:
        part.write_text(format_head(headers), encoding="ascii")


def read_wcs(path: Path) -> list[TpvWcs]:
    """Solved WCS of an exposure's CCDs. Raises `CalibrationFailed` (`bad_header`)."""
    try:
        return [TpvWcs.from_header(header) for header in parse_head(path.read_text(encoding="ascii"))]
    except (OSError, ValueError, WcsError) as error:
        raise CalibrationFailed("bad_header", f"Header file {path} cannot be read: {error}") from error


def read_head_names(path: Path) -> list[str]:
    """Names of the CCDs in a `.head` file, in order. Raises `CalibrationFailed` (`bad_header`)."""
    try:
        return [str(header["EXTNAME"]) for header in parse_head(path.read_text(encoding="ascii"))]
    except (OSError, ValueError, KeyError) as error:
        raise CalibrationFailed("bad_header", f"Header file {path} cannot be read: {error}") from error
