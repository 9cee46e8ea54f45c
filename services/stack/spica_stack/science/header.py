"""Header of a stack: its grid, and keywords as SWarp and MegaPipe write them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from math import log10

from astropy.io import fits
from spica_imaging.head import add_cards

from spica_stack.science.grid import Grid
from spica_stack.science.parameters import Parameters
from spica_stack.science.totals import Totals

ZEROPOINT_MAG = 30.0
"""AB magnitude of one count in every stack but sums: mag = -2.5 log10(counts) + 30, as in TERAPIX's stacks."""

COMBINE_TYPES = {
    "clipped_mean": "CLIPPED",
    "sigma_clip": "SIGMACLIP",
    "weighted_mean": "WEIGHTED",
    "average": "AVERAGE",
    "median": "MEDIAN",
    "weighted_median": "WMEDIAN",
    "minimum": "MIN",
    "maximum": "MAX",
    "sum": "SUM",
    "chi2": "CHI-MEAN",
}
"""COMBINET: as SWarp calls it (COMBINE_TYPE); sigma clipping and the weighted median have no name there."""

UNITS = {"image": "adu", "weight": "adu**(-2)", "exposures": ""}
_ABOUT_UNITS = {"image": "Counts for 1 s", "weight": "1 / variance per pixel"}


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


def _text(keyword: str, value: str, comment: str) -> tuple[str, str, str]:
    """A text card on one line: the value is cut at 68 characters, the comment goes where there is no room."""
    kept = value[:68]
    return keyword, kept, comment if max(len(kept), 8) + len(comment) <= 65 else ""


def _structure(grid: Grid, bitpix: int) -> fits.Header:
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


def stack_header(
    grid: Grid,
    label: Label,
    total: Totals,
    parameters: Parameters,
    *,
    bitpix: int,
    role: str,
    n_exposures: int,
) -> fits.Header:
    """Header of the image, of its weight map or of its exposure map (`role`), without history and checksums."""
    header = _structure(grid, bitpix)
    add_cards(header, identity_cards(label))
    add_cards(header, grid.wcs_cards())
    # A root of signal-to-noise squared has no unit, nor has its weight, and no magnitude.
    of_flux = parameters.combine != "chi2"
    unit = UNITS[role] if of_flux else ""
    if unit:
        add_cards(header, [("BUNIT", unit, _ABOUT_UNITS[role])])
    add_cards(header, epoch_cards(total))
    add_cards(
        header,
        [
            ("EXPTIME", 1.0, "[s] Effective exposure time"),
            ("TEXPTIME", total.exposure_time_s, "[s] Sum of the inputs' exposure times"),
            (
                "EFFTIME",
                float(f"{total.effective_exposure_s:.9g}"),
                "[s] Time that gives its depth, where deepest",
            ),
            ("GAIN", float(f"{total.gain:.9g}"), "[e-/adu] Photon variance is counts / GAIN"),
            ("SATURATE", float(f"{total.saturation:.9g}"), "[adu] No input is saturated below this"),
            (
                "SATURMAX",
                float(f"{total.highest_saturation:.9g}"),
                "[adu] All inputs are saturated above this",
            ),
            *(zeropoint_cards(total) if of_flux else ()),
            ("NCOMBINE", n_exposures, "Number of exposures"),
            ("COMBINET", COMBINE_TYPES[parameters.combine], "How they were combined"),
            ("RESAMPT1", parameters.resampling.upper(), "Interpolation"),
            ("RESAMPT2", parameters.resampling.upper(), "Interpolation"),
        ],
    )
    return add_cards(header, origin_cards(label, role))


def identity_cards(label: Label) -> list[tuple[str, str, str]]:
    """What was observed."""
    return [
        _text("DATE", label.date, "Time of the request (UTC)"),
        _text("OBJECT", label.object, "Target"),
        _text("INSTRUME", label.instrument, "Instrument of the inputs"),
        _text("FILTER", label.filter, "Filter of the inputs"),
    ]


def epoch_cards(total: Totals) -> list[tuple[str, float | str, str]]:
    """When, as a mean; none where nobody knows."""
    if total.mjd_obs is None:
        return []
    start = datetime(1858, 11, 17, tzinfo=UTC) + timedelta(days=total.mjd_obs)
    return [
        ("DATE-OBS", start.isoformat(timespec="milliseconds").removesuffix("+00:00"), "Mean start (UTC)"),
        ("MJD-OBS", round(total.mjd_obs, 8), "[d] Mean start of the inputs"),
    ]


def zeropoint_mag(total: Totals) -> float:
    """AB magnitude of one count. In a sum a source has its flux several times over."""
    return ZEROPOINT_MAG + 2.5 * log10(total.summed)


def zeropoint_cards(total: Totals) -> list[tuple[str, float | str, str]]:
    """What magnitude a count has."""
    zeropoint = float(f"{zeropoint_mag(total):.9g}")
    return [
        ("PHOTZP", zeropoint, "[mag] AB: mag = -2.5 log10(counts) + this"),
        ("MAGZEROP", zeropoint, "[mag] The same, as SWarp and SCAMP call it"),
        ("PHOTSYS", "AB", "Magnitude system"),
    ]


def origin_cards(label: Label, role: str) -> list[tuple[str, str, str]]:
    """What a file is, and what made it."""
    return [
        _text("REFCAT", label.reference, "Reference catalogue"),
        _text("STACKID", label.stack_id, "Identifier of this stack"),
        _text("REQUEST", label.request_id, "Identifier of the request"),
        ("ROLE", role.upper(), "Which of the files of a stack"),
        ("SOFTNAME", "Spica", "Made by"),
        _text("SOFTVERS", label.software, "Its version"),
    ]


def table_header(label: Label, role: str) -> fits.Header:
    """Primary header, without pixels, of a file whose tables follow."""
    header = fits.Header()
    add_cards(
        header,
        [
            ("SIMPLE", True, "Conforms to FITS standard 4.0"),
            ("BITPIX", 8, ""),
            ("NAXIS", 0, ""),
            ("EXTEND", True, ""),
        ],
    )
    add_cards(header, identity_cards(label))
    return add_cards(header, origin_cards(label, role))


def history(engine: str, inputs: Sequence[tuple[str, str]]) -> list[str]:
    """Lines on how a stack came to be. `inputs`: file name and name of the solved header of each exposure."""
    return [
        f"made by {engine}",
        *(f"input image {name}" for name, _ in inputs),
        *(f"solution {head}" for _, head in inputs),
    ]
