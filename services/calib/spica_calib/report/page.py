"""The page of one image's calibration, and of one stack's: one file, the same bytes for the same input."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from markupsafe import Markup
from spica_reporting.document import base_style, security, template
from spica_runtime.storage import whole_file

from spica_calib.report import tables
from spica_calib.report.pictures import Picture, pictures
from spica_calib.report.remarks import Remark, Seen, marks, remarks
from spica_calib.report.skyplane import vector_picture
from spica_calib.report.tiles import tiles
from spica_calib.science.diagnostics.ccds import ccd_figures
from spica_calib.science.diagnostics.inputs import Calibration
from spica_calib.science.diagnostics.numbers import numbers_on
from spica_calib.science.diagnostics.plane import focal_plane
from spica_calib.science.diagnostics.residuals import vector_map

_STATES = (("good", "Good"), ("look", "Check"), ("bad", "Bad"))

HEADER = ("OBJECT", "FILTER", "EXPTIME", "AIRMASS", "DATE-OBS", "MJD-OBS", "RUNID", "QRUNID", "INSTRUME")
"""Cards at the head of the page, where they are known."""


@dataclass(frozen=True, slots=True)
class ReferenceUsed:
    """The reference catalogue."""

    name: str
    sha256: str
    epoch_year: float
    """To which its stars were moved."""


@dataclass(frozen=True, slots=True)
class Subject:
    """What the page is about, and how it came about."""

    name: str
    reference: ReferenceUsed | None
    engine: str = "spica"
    model_version: int | None = None
    """Of the instrument context's model that the solution started from."""
    header: Mapping[str, object] | None = None
    """Cards by keyword; those of `HEADER` are shown."""
    provenance: tuple[tuple[str, str], ...] = ()
    """More of what made it: name and value."""


def write_image_page(
    path: Path, subject: Subject, calibration: Calibration, exposure: int | None = None
) -> None:
    """Write the page of one exposure; None: the first that was solved (held ones were solved before)."""
    chosen = (calibration.own[0] if exposure is None else exposure,)
    _write(path, render(subject, calibration, chosen))


def write_stack_page(path: Path, subject: Subject, calibration: Calibration) -> None:
    """Write the page of all exposures solved together."""
    _write(path, render(subject, calibration, tuple(calibration.own), stack=True))


def _write(path: Path, content: bytes) -> None:
    with whole_file(path) as part:
        part.write_bytes(content)


def render(
    subject: Subject, calibration: Calibration, chosen: Sequence[int], *, stack: bool = False
) -> bytes:
    """The page of these exposures."""
    seen = look(calibration, tuple(chosen))
    found = remarks(seen)
    noted = marks(found)
    drawn, missing = pictures(seen, noted)
    by_ccd = tables.ccd_table(seen, noted)
    by_exposure = tables.exposure_table(calibration, chosen) if stack or len(chosen) > 1 else None
    zero = tables.zero_point_words(calibration, chosen[0]) if len(chosen) == 1 else None
    ids = {"figures", "external", *(picture.id for picture in drawn)}
    ids |= {
        name for name, there in (("ccds", by_ccd), ("exposures", by_exposure), ("zeropoint", zero)) if there
    }

    def place(remark: Remark) -> str:
        if remark.figure in ids:
            return remark.figure
        return "exposures" if by_exposure and remark.figure in ("airmass", "zeropoint") else "figures"

    worst = max((remark.grave for remark in found), default=0)
    if not calibration.astrometry.detections.exposure.size:
        worst = max(worst, 1)
    hero = (
        vector_picture(seen.plane, seen.external, "external", noted)
        if seen.external is not None
        else vector_picture(seen.plane, seen.internal, "internal", noted)
        if seen.internal is not None
        else ""
    )
    context = {
        "subject": subject,
        "style": Markup(base_style() + _asset("calib.css")),
        "security": security(),
        "stack": stack,
        "state": _STATES[worst],
        "subtitle": _subtitle(seen, stack=stack),
        "header": _cards(subject.header or {}),
        "tiles": tiles(seen, found, model_version=subject.model_version, engine=subject.engine),
        "noticed": [(remark, place(remark)) for remark in found],
        "hero": Markup(hero),
        "hero_title": f"{'External' if seen.external is not None else 'Internal'} residuals over the field",
        "hero_caption": _hero_caption(seen),
        "first": _with_why([p for p in drawn if p.id == "external-cloud"], found),
        "figures": _with_why([p for p in drawn if p.id != "external-cloud"], found),
        "missing": missing,
        "ccd_table": by_ccd,
        "exposure_table": by_exposure,
        "zero": zero,
        "origin": _origin(subject, seen),
    }
    text: str = _template().render(context)
    return text.encode()


def look(calibration: Calibration, chosen: tuple[int, ...]) -> Seen:
    """All that the page and the picture are made from."""
    plane = focal_plane(calibration, chosen)
    rows = ccd_figures(calibration, plane, chosen)
    figures = numbers_on(plane, rows, calibration, chosen)
    return Seen(
        calibration,
        chosen,
        plane,
        figures,
        rows,
        vector_map(plane, "external"),
        vector_map(plane, "internal"),
    )


def _with_why(
    shown: Sequence[Picture], found: Sequence[Remark]
) -> list[tuple[Picture, Markup, tuple[str, ...]]]:
    return [
        (
            picture,
            Markup(picture.svg),
            tuple(remark.words for remark in found if remark.figure == picture.id and remark.grave),
        )
        for picture in shown
    ]


def _subtitle(seen: Seen, *, stack: bool) -> str:
    n = len(seen.plane.ccds)
    ccds = f"{n} CCD{'' if n == 1 else 's'}"
    held = sum(exposure.held for exposure in seen.calibration.exposures)
    if stack:
        words = (
            f"Joint calibration of {len(seen.chosen)} exposure{'' if len(seen.chosen) == 1 else 's'}, {ccds}"
        )
    else:
        words = f"Calibration of one image, {ccds}"
    if held:
        words += f", with {held} earlier exposure{'' if held == 1 else 's'} held as they are"
    if seen.plane.n_left_out:
        words += f"; {seen.plane.n_left_out} of other cameras are not on the maps"
    return words


def _cards(header: Mapping[str, object]) -> list[tuple[str, str]]:
    return [(key, str(header[key]).strip()) for key in HEADER if str(header.get(key) or "").strip()]


def _hero_caption(seen: Seen) -> str:
    spots = seen.external if seen.external is not None else seen.internal
    if spots is None:
        return ""
    if not spots.binned:
        words = "Each arrow is one star, from where it was detected towards where the catalogue has it"
        return f"{words}; red: cut. North is up, east left."
    return (
        f"Medians of {spots.n_detections:,} residuals in {len(spots.n)} cells; strong arrows are more than chance makes "
        "(4σ), thin ones by themselves may be chance. North is up, east left."
    )


def _origin(subject: Subject, seen: Seen) -> list[tuple[str, str]]:
    options = seen.calibration.options
    lines = [("Engine", subject.engine)]
    if subject.reference is not None:
        lines += [
            ("Reference catalogue", f"{subject.reference.name}, at epoch {subject.reference.epoch_year:.2f}"),
            ("its SHA-256", subject.reference.sha256),
        ]
    else:
        lines.append(("Reference catalogue", "none was told"))
    home = seen.calibration.exposures[seen.chosen[0]]
    lines += [
        ("Instrument context", home.context),
        ("Model version", "none" if subject.model_version is None else str(subject.model_version)),
        ("Degree", f"{'fixed' if options.degree_fixed else 'what the data bear, up to'} {options.degree}"),
        ("Atmosphere", options.atmosphere),
        (
            "Error floors",
            f"{options.floor_px:g} px per detection, {options.reference_floor_mas:g} mas per star",
        ),
        ("Cross-identification", f"{options.crossid_arcsec:g}″, cut at {options.clip_sigma:g}σ"),
        ("Rounds", str(seen.calibration.astrometry.rounds)),
    ]
    return [*lines, *subject.provenance]


@cache
def _asset(name: str) -> str:
    return (files("spica_calib.report") / "templates" / name).read_text("utf-8")


@cache
def _template() -> Any:
    return template(_asset("calib.html"))
