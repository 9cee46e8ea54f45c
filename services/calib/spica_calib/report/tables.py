"""Tables of the page: CCD by CCD, and of a stack exposure by exposure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import hypot, isfinite, nan

from spica_calib.report.remarks import CHI2, CUT, Seen, level
from spica_calib.report.skyplane import Marks
from spica_calib.report.tiles import ANCHORS
from spica_calib.report.words import DASH, plain, signed
from spica_calib.science.diagnostics.ccds import CcdFigures, outlying
from spica_calib.science.diagnostics.inputs import Calibration


@dataclass(frozen=True, slots=True)
class Cell:
    """One value: as shown, and how far it stands out (0, 1, 2)."""

    text: str
    level: int = 0
    words: bool = False


@dataclass(frozen=True, slots=True)
class Row:
    """One line."""

    name: str
    grave: int
    cells: tuple[Cell, ...]
    title: str = ""


@dataclass(frozen=True, slots=True)
class Table:
    """Title, unit and explanation of each column; lines."""

    head: tuple[tuple[str, str, str], ...]
    rows: tuple[Row, ...]


def _known(values: Sequence[float]) -> bool:
    return any(map(isfinite, values))


def ccd_table(seen: Seen, noted: Marks) -> Table | None:
    """One line per CCD; None without any. Columns of which nothing is known are left out."""
    rows = seen.ccds
    if not rows:
        return None
    columns: list[tuple[tuple[str, str, str], list[Cell]]] = []

    def add(
        title: str, unit: str, about: str, values: Sequence[float], text: object, floor: float | None
    ) -> None:
        if not _known(values):
            return
        levels = outlying(values, floor) if floor is not None else [0] * len(values)
        make = text if callable(text) else str
        columns.append(
            ((title, unit, about), [Cell(make(v), at) for v, at in zip(values, levels, strict=True)])
        )

    lone = len(rows) < 2 or not any(row.n_matched for row in rows)
    matched = [Cell(f"{row.n_matched:,}", 0 if row.n_matched or lone else 2) for row in rows]
    kept = [Cell(f"{row.n_kept:,}", level(row.cut_share, CUT)) for row in rows]
    columns.append((("Matched", "", "Detections that are reference stars"), matched))
    columns.append((("Kept", "", "Not cut as outliers"), kept))
    floor = 0.1 * max(seen.value("expected_mas"), 1.0) if isfinite(seen.value("expected_mas")) else 1.0
    for axis, name in ((0, "RA"), (1, "Dec")):
        values = [row.external_mas[axis] for row in rows]
        add(f"rms {name}", "mas", "External residual, robust, about zero", values, plain, floor)
    for axis, name in ((0, "RA"), (1, "Dec")):
        cells = [Cell(signed(row.mean_mas[axis]), _off(row, axis)) for row in rows]
        if _known([row.mean_mas[axis] for row in rows]):
            columns.append(
                ((f"median {name}", "mas", "Of star minus detection; marked: more than 4σ from zero"), cells)
            )
    inner = [hypot(*row.internal_mas) / 2**0.5 for row in rows]
    add("internal", "mas", "Internal residual per axis, robust", inner, plain, floor)
    _placement(rows, add)
    add(
        "scale",
        "″/px",
        "Pixel scale in the middle",
        [row.scale_arcsec for row in rows],
        lambda v: plain(v, 5),
        None,
    )
    add(
        "+y axis",
        "°",
        "Position angle in the middle, east of north",
        [row.rotation_deg for row in rows],
        lambda v: plain(v, 3),
        None,
    )
    add(
        "illumination",
        "mag",
        "To be added to magnitudes",
        [row.illumination_mag for row in rows],
        lambda v: signed(v, 4),
        0.01,
    )
    if any(row.located is not None for row in rows):
        words = {True: "by itself", False: "by neighbours", None: DASH}
        cells = [Cell(words[row.located], 1 if row.located is False else 0) for row in rows]
        columns.append((("placed", "", "Whether matching found the CCD by itself"), cells))
    lines = tuple(
        Row(
            row.name,
            noted.get(row.name, (0, ""))[0],
            tuple(cells[k] for _, cells in columns),
            noted.get(row.name, (0, ""))[1],
        )
        for k, row in enumerate(rows)
    )
    return Table(tuple(head for head, _ in columns), lines)


def _off(row: CcdFigures, axis: int) -> int:
    """Whether the median residual is off zero by more than chance."""
    value, error = abs(row.mean_mas[axis]), row.mean_error_mas
    return 0 if not isfinite(error) or value <= 4.0 * error else 2 if value > 10.0 * error else 1


def _placement(rows: Sequence[CcdFigures], add: Callable[..., None]) -> None:
    placed = [row.placement for row in rows]
    if not any(placed):
        return
    scale = max(row.scale_arcsec for row in rows)
    for axis, name in ((0, "east"), (1, "north")):
        values = [1000.0 * one.offset_arcsec[axis] if one else nan for one in placed]
        add(
            f"offset {name}",
            "mas",
            "Against the model of the focal plane",
            values,
            signed,
            20.0 * scale,
        )
    turns = [one.turn_arcsec if one else nan for one in placed]
    add("turn", "″", "Against the model, east of north", turns, lambda v: signed(v, 2), 1.0)
    stretch = [1e6 * one.stretch if one else nan for one in placed]
    add("stretch", "ppm", "Scale over the model's, less 1", stretch, lambda v: signed(v, 1), 10.0)


def exposure_table(calibration: Calibration, chosen: Sequence[int]) -> Table:
    """One line per exposure: how well it fits, its zero point, whether it is an anchor, and why."""
    photometry = calibration.photometry is not None
    head = [
        ("stars", "", "Reference stars that took part"),
        ("tied", "", "Sources in common with others"),
        ("external RA / Dec", "mas", "Robust standard deviation of star minus detection"),
        ("internal RA / Dec", "mas", "Robust standard deviation of mean minus detection"),
        ("chi² ext. / int.", "", "Reduced"),
    ]
    if photometry:
        head += [
            ("airmass", "", ""),
            ("zero point", "mag", "AB magnitude of 1 adu/s"),
            ("±", "mag", "Its standard error"),
            ("absorption", "mag", "Below the clear sky"),
            ("anchor", "", "Whether others hang on it"),
            ("why", "", "What its zero point stands on"),
        ]
    own = [calibration.astrometry.exposures[index] for index in chosen]
    outer, inner = (
        [
            max(parts)
            for parts in zip(*(outlying([pair[axis] for pair in pairs], 0.5) for axis in (0, 1)), strict=True)
        ]
        for pairs in ([one.external_mas for one in own], [one.internal_mas for one in own])
    )
    rows = []
    for k, index in enumerate(chosen):
        one, name = own[k], calibration.title(index)
        worst = max(level(one.chi2_external, CHI2), level(one.chi2_internal, CHI2))
        cells = [
            Cell(f"{one.n_external:,}"),
            Cell(f"{one.n_internal:,}", 1 if not one.n_internal and len(chosen) > 1 else 0),
            Cell(" / ".join(map(plain, one.external_mas)), outer[k]),
            Cell(" / ".join(map(plain, one.internal_mas)), inner[k]),
            Cell(f"{plain(one.chi2_external, 2)} / {plain(one.chi2_internal, 2)}", worst),
        ]
        if photometry:
            cells += _zero_cells(calibration, index)
        rows.append(Row(name, max(cell.level for cell in cells), tuple(cells)))
    return Table(tuple(head), tuple(rows))


def _zero_cells(calibration: Calibration, index: int) -> list[Cell]:
    zero, header = calibration.zero_point(index), calibration.photometric_exposure(index)
    if zero is None or header is None:
        return [Cell(DASH)] * 5 + [Cell("no photometry", words=True)]
    absorbed = zero.absorption_mag
    return [
        Cell(plain(header.airmass, 2)),
        Cell(plain(zero.mag, 4), 2 if zero.mag is None else 0),
        Cell(plain(zero.sigma_mag, 4), level(zero.sigma_mag or 0.0, (0.02, 0.05))),
        Cell(plain(absorbed, 3), level(absorbed or 0.0, (0.05, 0.5))),
        Cell("anchor" if zero.is_anchor else DASH),
        Cell(zero.why, words=True),
    ]


def zero_point_words(calibration: Calibration, index: int) -> dict[str, str] | None:
    """The zero point of one image, told at length; None without photometry."""
    zero, header = calibration.zero_point(index), calibration.photometric_exposure(index)
    if zero is None or header is None:
        return None
    band = calibration.photometry.solution.band if calibration.photometry else None
    told = {
        "Zero point": f"{plain(zero.mag, 4)} ± {plain(zero.sigma_mag, 4)} mag AB for 1 adu/s"
        if zero.mag is not None
        else "none",
        "Stands": f"{ANCHORS[zero.anchor]}{'; others hang on it' if zero.is_anchor else ''}",
        "Why": zero.why,
        "Band": band or "none",
        "Scatter per star": f"{plain(zero.scatter_mag, 3)} mag" if zero.scatter_mag is not None else DASH,
        "Stars": f"{zero.n_reference:,} of the reference, {zero.n_overlap:,} in overlaps",
    }
    if zero.absorption_mag is not None:
        told["Absorption"] = f"{plain(zero.absorption_mag, 3)} mag below the clear sky"
    if header.header_zeropoint_mag is not None:
        term = header.header_airmass_term_mag
        told["Header says"] = f"{plain(header.header_zeropoint_mag, 3)} mag at airmass 1" + (
            f", {signed(term, 3)} mag per airmass" if term is not None else ""
        )
    return told
