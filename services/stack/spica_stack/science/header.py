"""Header of a stack: TAN WCS, and keywords as SWarp and MegaPipe write them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from astropy.io import fits
from spica_imaging.head import add_cards

from spica_stack.science.grid import TanGrid
from spica_stack.science.totals import Totals

ZEROPOINT_MAG = 30.0
"""AB magnitude of one count in every stack: mag = -2.5 log10(counts) + 30, as in TERAPIX's stacks."""

COMBINE_TYPES = {"clipped_mean": "CLIPPED", "weighted_mean": "WEIGHTED", "median": "MEDIAN"}


@dataclass(frozen=True, slots=True)
class Label:
    """What a stack is called, and what it is made of."""

    stack_id: str
    request_id: str
    name: str
    filter: str
    object: str
    instrument: str
    combine: str
    date: str
    """FITS date and time (UTC) of the request: the same request gives the same bytes."""
    inputs: tuple[str, ...]
    """File names, in their order."""
    reference: str
    software: str


def wcs_cards(grid: TanGrid) -> list[tuple[str, float | int | str | bool, str]]:
    """TAN projection, north up, east left (FITS WCS paper II)."""
    step = grid.scale_arcsec / 3600.0
    return [
        ("EQUINOX", 2000.0, "Mean equinox (years)"),
        ("RADESYS", "ICRS", "Celestial reference system"),
        ("CTYPE1", "RA---TAN", "Gnomonic projection"),
        ("CTYPE2", "DEC--TAN", "Gnomonic projection"),
        ("CUNIT1", "deg", "Axis unit"),
        ("CUNIT2", "deg", "Axis unit"),
        ("CRVAL1", grid.ra_deg, "[deg] Right ascension of the tangent point"),
        ("CRVAL2", grid.dec_deg, "[deg] Declination of the tangent point"),
        ("CRPIX1", grid.crpix_x, "Its column (first pixel centre = 1)"),
        ("CRPIX2", grid.crpix_y, "Its row"),
        ("CD1_1", -step, "[deg/pixel] East is left"),
        ("CD1_2", 0.0, ""),
        ("CD2_1", 0.0, ""),
        ("CD2_2", step, "[deg/pixel] North is up"),
        ("PIXSCAL1", grid.scale_arcsec, "[arcsec/pixel]"),
    ]


def _text(keyword: str, value: str, comment: str) -> tuple[str, str, str]:
    """A text card on one line: the value is cut at 68 characters, the comment goes where there is no room."""
    kept = value[:68]
    return keyword, kept, comment if max(len(kept), 8) + len(comment) <= 65 else ""


def _structure(grid: TanGrid, bitpix: int) -> fits.Header:
    header = fits.Header()
    return add_cards(
        header,
        [
            ("SIMPLE", True, "Conforms to FITS standard 4.0"),
            ("BITPIX", bitpix, ""),
            ("NAXIS", 2, ""),
            ("NAXIS1", grid.width, ""),
            ("NAXIS2", grid.height, ""),
            ("EXTEND", True, ""),
        ],
    )


def stack_header(grid: TanGrid, label: Label, total: Totals, *, bitpix: int, role: str) -> fits.Header:
    """Header of the image, of its weight map or of its exposure map (`role`), without checksums."""
    header = _structure(grid, bitpix)
    unit = {"image": "adu", "weight": "adu**(-2)", "exposures": ""}[role]
    add_cards(
        header,
        [
            _text("DATE", label.date, "Time of the request (UTC)"),
            _text("OBJECT", label.object, "Target"),
            _text("INSTRUME", label.instrument, "Instrument of the inputs"),
            _text("FILTER", label.filter, "Filter of the inputs"),
            *wcs_cards(grid),
        ],
    )
    if unit:
        add_cards(
            header, [("BUNIT", unit, "1 / variance per pixel" if role == "weight" else "Counts for 1 s")]
        )
    if total.mjd_obs is not None:
        start = datetime(1858, 11, 17, tzinfo=UTC) + timedelta(days=total.mjd_obs)
        add_cards(
            header,
            [
                (
                    "DATE-OBS",
                    start.isoformat(timespec="milliseconds").removesuffix("+00:00"),
                    "Mean start (UTC)",
                ),
                ("MJD-OBS", round(total.mjd_obs, 8), "[d] Mean start of the inputs"),
            ],
        )
    add_cards(
        header,
        [
            ("EXPTIME", 1.0, "[s] Effective exposure time"),
            ("TEXPTIME", total.exposure_time_s, "[s] Sum of the inputs' exposure times"),
            ("GAIN", float(f"{total.gain:.9g}"), "[e-/adu] Photon variance is counts / GAIN"),
            ("SATURATE", float(f"{total.saturation:.9g}"), "[adu] No input is saturated below this"),
            ("PHOTZP", ZEROPOINT_MAG, "[mag] AB: mag = -2.5 log10(counts) + this"),
            ("MAGZEROP", ZEROPOINT_MAG, "[mag] The same, as SWarp and SCAMP call it"),
            ("PHOTSYS", "AB", "Magnitude system"),
            ("NCOMBINE", len(label.inputs), "Number of exposures"),
            ("COMBINET", COMBINE_TYPES[label.combine], "How they were combined"),
            ("RESAMPT1", "LANCZOS3", "Interpolation"),
            ("RESAMPT2", "LANCZOS3", "Interpolation"),
            _text("REFCAT", label.reference, "Reference catalogue"),
            _text("STACKID", label.stack_id, "Identifier of this stack"),
            _text("REQUEST", label.request_id, "Identifier of the request"),
            ("ROLE", role.upper(), "IMAGE, WEIGHT or EXPOSURES"),
            ("SOFTNAME", "Spica", "Made by"),
            _text("SOFTVERS", label.software, "Its version"),
        ],
    )
    for name in label.inputs:
        header.add_history(f"input image {name}")
    return header
