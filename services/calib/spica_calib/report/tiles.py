"""The strip of key figures at the head of the page, each with its state."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite

from spica_calib.report.remarks import CHI2, Remark, Seen, level
from spica_calib.report.words import DASH, angle, angles, count, plain, raised, signed

ANCHORS = {
    "reference": "by reference stars",
    "header": "by its header",
    "context": "by other exposures of its context",
    "overlap": "by overlaps with anchored exposures",
    "none": "anchored on nothing",
}


@dataclass(frozen=True, slots=True)
class Tile:
    """One key figure."""

    title: str
    value: str
    below: str
    grave: int = 0
    more: str = ""


def tiles(seen: Seen, found: Sequence[Remark], *, model_version: int | None, engine: str) -> list[Tile]:
    """The strip."""
    worst: dict[str, int] = {}
    for remark in found:
        # What one CCD has is told beside: the figure is that of all.
        if not remark.ccds:
            worst[remark.figure] = max(worst.get(remark.figure, 0), remark.grave)

    def of(*figures: str) -> int:
        return max(worst.get(name, 0) for name in figures)

    return [
        _residual(seen, "external", of("external")),
        _residual(seen, "internal", of("internal")),
        _chi2(seen),
        _stars(seen, of("stars")),
        _pointing(seen, of("match")),
        _zero(seen, of("airmass", "zeropoint", "mag-magnitude", "mag-colour")),
        _model(seen, of("distortion"), model_version, engine),
    ]


def _residual(seen: Seen, kind: str, grave: int) -> Tile:
    pair = (seen.value(f"{kind}_ra_mas"), seen.value(f"{kind}_dec_mas"))
    title = f"{kind.capitalize()} residual"
    if not all(map(isfinite, pair)):
        why = "no reference star took part" if kind == "external" else "no other exposure overlaps"
        return Tile(title, DASH, why, grave)
    px = max(pair) / 1000.0 / seen.plane.pixel_scale_arcsec
    below = f"RA, Dec · {plain(px, 3 if px < 0.1 else 2)} px"
    expected = seen.value("expected_mas")
    if kind == "external" and isfinite(expected):
        below += f" · errors allow {angle(expected)}"
    return Tile(title, angles(pair), below, grave, "Robust standard deviation per axis")


def _chi2(seen: Seen) -> Tile:
    pair = {"external": seen.value("chi2_external"), "internal": seen.value("chi2_internal")}
    known = {kind: value for kind, value in pair.items() if isfinite(value)}
    if not known:
        return Tile("Reduced chi²", DASH, "nothing to compare")
    values = " / ".join(plain(value, 2) for value in known.values())
    below = f"{', '.join(known)} · 1: as the errors say"
    return Tile("Reduced chi²", values, below, level(max(known.values()), CHI2))


def _stars(seen: Seen, grave: int) -> Tile:
    n, tied, cut = (seen.value(name) for name in ("n_external", "n_internal", "n_cut"))
    detail = [f"{count(int(tied), 'source')} in several exposures"] if tied > 0 else []
    detail.append(f"{count(int(cut), 'detection')} cut")
    return Tile("Reference stars", f"{int(n):,}", " · ".join(detail), grave)


def _pointing(seen: Seen, grave: int) -> Tile:
    off = seen.value("offset_arcsec")
    if not isfinite(off):
        why = "not told by the matching" if len(seen.chosen) == 1 else "see the pages of the members"
        return Tile("Offset from header", DASH, why)
    chance = seen.value("log10_false_match")
    below = f"turned by {signed(seen.value('rotation_deg'), 3)}°"
    below += f" · chance 10{raised(chance)}" if isfinite(chance) else ""
    more = f"Scale over what the header says: {seen.value('scale_ratio'):.5f}"
    return Tile("Offset from header", f"{plain(off, 2)}″", below, grave, more)


def _zero(seen: Seen, grave: int) -> Tile:
    title = "Zero point"
    if seen.calibration.photometry is None:
        return Tile(title, DASH, "no photometric solution")
    if len(seen.chosen) > 1:
        zeros = [seen.calibration.zero_point(index) for index in seen.chosen]
        anchors = sum(zero.is_anchor for zero in zeros if zero)
        inner = seen.value("photometric_internal_mag")
        value = f"{1000 * inner:.1f} mmag" if isfinite(inner) else DASH
        return Tile("Stars repeat to", value, f"{anchors} of {len(zeros)} exposures are anchors", grave)
    zero = seen.calibration.zero_point(seen.chosen[0])
    if zero is None or zero.mag is None:
        return Tile(title, DASH, zero.why if zero else "not told", max(grave, 1))
    sigma = f" ± {plain(zero.sigma_mag, 3)}" if zero.sigma_mag is not None else ""
    return Tile(title, f"{zero.mag:.3f}{sigma}", f"mag AB, 1 adu/s · {ANCHORS[zero.anchor]}", grave, zero.why)


def _model(seen: Seen, grave: int, version: int | None, engine: str) -> Tile:
    degree = int(seen.value("degree"))
    detail = []
    n = seen.value("model_n_exposures")
    if isfinite(n):
        detail.append(count(int(n), "exposure"))
        repeat = seen.value("model_repeat_mas")
        if repeat > 0:
            detail.append(f"repeats to {angle(repeat)}")
    else:
        detail.append(f"solved by {engine}")
    if version is not None:
        detail.insert(0, f"version {version}")
    if isfinite(error := seen.value("model_error_mas")):
        detail.append(f"WCS to {angle(error)}")
    more = "The largest standard error of the WCS over the CCDs, as the fit's covariance says, stands last"
    return Tile("Distortion", f"degree {degree}", " · ".join(detail), grave, more)
