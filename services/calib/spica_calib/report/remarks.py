"""What a calibration is worth at first look: key figures with their state, and in words what is wrong and where."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from math import hypot, isfinite, sqrt

import numpy as np
from spica_imaging.stats import median

from spica_calib.report.skyplane import Marks
from spica_calib.report.words import angle, count, listed, plain, raised, signed
from spica_calib.science.diagnostics.ccds import CcdFigures, outlying
from spica_calib.science.diagnostics.inputs import Calibration
from spica_calib.science.diagnostics.numbers import Numbers
from spica_calib.science.diagnostics.plane import FocalPlane
from spica_calib.science.diagnostics.residuals import VectorMap

EXCESS = (1.6, 3.0)
"""Residual over what the errors allow: worth a look, bad."""
PIXELS = (0.4, 1.0)
"""Residual in pixels, however large the errors."""
PATTERN = (0.5, 3.0)
"""Systematic part of residuals over the errors of single stars."""
CUT = (0.1, 0.3)
"""Share of matched stars that were cut."""
LEAST_STARS = (20.0, 8.0)
CHI2 = (2.6, 9.0)
ERROR_PX = (0.15, 0.6)
"""Standard error of the WCS at its worst place."""
OFFSET_ARCSEC = 30.0
FALSE_LOG10 = -6.0
SIGMA_MAG, SCATTER_MAG = (0.02, 0.05), (0.08, 0.2)
ABSORPTION_MAG = (0.05, 0.5)
ILLUMINATION_MAG = 0.05
MOVED_PX = (0.3, 2.0)
"""Displacement of a CCD's edge against the model of the focal plane."""
TURN_ARCSEC = 1.0
COLOUR_SLOPE_MAG = 0.02


@dataclass(frozen=True, slots=True)
class Remark:
    """One thing that catches the eye."""

    words: str
    figure: str
    """Where it is seen: id of a picture or section, or a key figure's own name."""
    grave: int = 1
    """0: to be known; 1: worth a look; 2: bad."""
    ccds: tuple[str, ...] = ()
    tag: str = ""
    """A word for the CCDs' marks on the pictures."""


@dataclass(frozen=True, slots=True)
class Seen:
    """All that remarks are made from."""

    calibration: Calibration
    chosen: tuple[int, ...]
    plane: FocalPlane
    figures: Numbers
    ccds: Sequence[CcdFigures]
    external: VectorMap | None
    internal: VectorMap | None

    def value(self, name: str) -> float:
        """A figure; NaN where it is not known."""
        found = self.figures.get(name)
        return float(found) if isinstance(found, (int, float)) else float("nan")


def level(value: float, limits: tuple[float, float]) -> int:
    """How grave it is that a value is beyond its limits; not at all where it is not known."""
    rising = limits[1] > limits[0]
    return sum(1 for limit in limits if (value > limit if rising else value < limit))


def remarks(seen: Seen) -> list[Remark]:
    """All remarks, the gravest first."""
    found = [_as_grave_as_its_effects(remark, seen) for rule in _RULES for remark in rule(seen)]
    return sorted(found, key=lambda remark: -remark.grave)


def _as_grave_as_its_effects(remark: Remark, seen: Seen) -> Remark:
    """Put a CCD that moved before what follows from it."""
    if remark.tag not in ("turned", "moved"):
        return remark
    effects = [other for rule in (_outstanding, _cut, _pattern) for other in rule(seen)]
    worst = max((other.grave for other in effects if set(remark.ccds) & set(other.ccds)), default=0)
    return replace(remark, grave=max(remark.grave, worst))


def marks(found: Sequence[Remark]) -> Marks:
    """Per CCD how grave and in a word why."""
    result: dict[str, tuple[int, str]] = {}
    for remark in found:
        for name in remark.ccds if remark.tag and remark.grave else ():
            grave, words = result.get(name, (0, ""))
            if remark.tag not in words.split(", "):
                words = f"{words}, {remark.tag}" if words else remark.tag
            result[name] = (max(grave, remark.grave), words)
    return result


# ---- rules ----


def _external(seen: Seen) -> Iterator[Remark]:
    rms = max(seen.value("external_ra_mas"), seen.value("external_dec_mas"))
    expected = seen.value("expected_mas")
    px = rms / 1000.0 / seen.plane.pixel_scale_arcsec if seen.plane.ccds else float("nan")
    times = rms / expected if expected > 0 else float("nan")
    if grave := level(times, EXCESS):
        words = f"External residual {angle(rms)} per axis: {times:.1f} times what the errors allow"
        yield Remark(words, "external", grave)
    elif grave := level(px, PIXELS):
        yield Remark(f"External residual {angle(rms)} per axis is {px:.2f} px", "external", grave)


def _internal(seen: Seen) -> Iterator[Remark]:
    chi2 = seen.value("chi2_internal")
    if grave := level(chi2, CHI2):
        rms = max(seen.value("internal_ra_mas"), seen.value("internal_dec_mas"))
        words = f"Exposures disagree: internal residual {angle(rms)} per axis, chi² {chi2:.1f}"
        yield Remark(words, "internal", grave)


def _stars(seen: Seen) -> Iterator[Remark]:
    n = int(seen.value("n_external"))
    if grave := level(float(n), LEAST_STARS):
        few = f"Only {count(n, 'reference star')}" if n else "No reference star"
        yield Remark(f"{few} in the solution", "stars", grave)
    total, cut = seen.value("n_detections"), seen.value("n_cut")
    if total > 0 and (grave := level(cut / total, CUT)):
        yield Remark(f"{100 * cut / total:.0f} % of the detections were cut as outliers", "stars", grave)


def _located(seen: Seen) -> Iterator[Remark]:
    chance, off = seen.value("log10_false_match"), seen.value("offset_arcsec")
    if chance > FALSE_LOG10:
        yield Remark(f"The match may be chance: probability 10{raised(chance)}", "match", 2)
    if off > OFFSET_ARCSEC:
        yield Remark(f"The header's pointing was off by {angle(1000 * off)}", "match")


def _empty(seen: Seen) -> Iterator[Remark]:
    rows = seen.ccds
    empty = [row.name for row in rows if not row.n_matched]
    if len(rows) < 2 or not empty or len(empty) == len(rows):
        return
    lie = "it lies where the model and its neighbours put it"
    if len(empty) > 1:
        lie = "they lie where the model and their neighbours put them"
    grave = 2 if len(empty) > len(rows) / 4 else 1
    yield Remark(f"No reference star on {listed(empty)}: {lie}", "ccds", grave, tuple(empty), "no stars")


def _moved(seen: Seen) -> Iterator[Remark]:
    scale = seen.plane.pixel_scale_arcsec
    context = seen.calibration.exposures[seen.chosen[0]].context
    before = seen.calibration.previous.get(context)
    since = (
        f"the model of {count(before.n_exposures, 'earlier exposure')}"
        if before
        else "the focal plane's model"
    )
    for row in seen.ccds:
        placed = row.placement
        grave = level(placed.edge_arcsec / scale, MOVED_PX) if placed else 0
        if not placed or not grave:
            continue
        off = 1000.0 * hypot(*placed.offset_arcsec)
        turned = abs(placed.turn_arcsec) > TURN_ARCSEC
        parts = [f"turned by {signed(placed.turn_arcsec)}″ (east of north)"] if turned else []
        parts += [f"moved by {angle(off)}"] if off > 100.0 * scale else []
        words = f"{row.name} is {' and '.join(parts) or 'distorted'} against {since}"
        edge = f"{placed.edge_arcsec / scale:.1f} px at its edge"
        yield Remark(f"{words}: {edge}", "external", grave, (row.name,), "turned" if turned else "moved")


def _cut(seen: Seen) -> Iterator[Remark]:
    cut = [row for row in seen.ccds if row.n_matched >= 8 and row.cut_share > CUT[1]]
    if len(seen.ccds) < 2 or not cut:
        return
    worst = max(cut, key=lambda row: row.cut_share)
    others = [row.name for row in cut if row is not worst]
    words = f"{100 * worst.cut_share:.0f} % of the stars of {worst.name}"
    words += f" and many of {listed(others)}" if others else ""
    yield Remark(f"{words} were cut", "ccds", 2, tuple(row.name for row in cut), "cut")


def _outstanding(seen: Seen) -> Iterator[Remark]:
    values = [row.worse_mas for row in seen.ccds]
    expected = seen.value("expected_mas")
    grades = outlying(values, 0.1 * expected if isfinite(expected) else 1.0)
    typical = median(values)
    high = [k for k, grade in enumerate(grades) if grade and values[k] > typical]
    if not high:
        return
    names = tuple(seen.ccds[k].name for k in high)
    worst = max(high, key=lambda k: values[k])
    own = angle(values[worst]) + (f" on {seen.ccds[worst].name}" if len(high) > 1 else "")
    words = f"External residual stands out on {listed(list(names))}: {own} (typical: {angle(typical)})"
    yield Remark(words, "external", max(grades[k] for k in high), names, "residual")


def _pattern(seen: Seen) -> Iterator[Remark]:
    for kind, spots in (("external", seen.external), ("internal", seen.internal)):
        if spots is None or not spots.binned or not len(spots.n):
            continue
        n, total = int(np.count_nonzero(spots.strong)), len(spots.n)
        if n < max(3, 0.02 * total) and spots.excess < 1.5 + 5.0 / sqrt(total):
            continue
        ccds, cells = np.unique(spots.ccd[spots.strong], return_counts=True)
        names = [seen.plane.names[c] for c in ccds[cells > 1]]
        few = 0 < len(names) <= max(2, len(seen.plane.names) // 6) and len(seen.plane.names) > 1
        on = np.isin(spots.ccd, ccds[cells > 1]) if few else np.ones(total, np.bool_)
        size = spots.systematic_mas(on)
        words = f"{kind.capitalize()} residuals have a pattern {'on ' + listed(names) if few else 'over the field'}"
        words += (
            f": {angle(size)} rms per axis, up to {angle(float(np.hypot(*spots.vector_mas[on].T).max()))}"
        )
        words += f"; {n} of {total} cells are off by more than chance"
        # What is significant need not matter: that depends on the errors of single stars, and on the pixel.
        expected = seen.value("expected_mas")
        grave = level(size / (expected if expected > 0 else spots.sigma_mas), PATTERN)
        grave = max(grave, level(size / 1000.0 / seen.plane.pixel_scale_arcsec, PIXELS))
        yield Remark(words, kind, grave, tuple(names) if few else (), "pattern")


def _model(seen: Seen) -> Iterator[Remark]:
    error, px = seen.value("model_error_mas"), 1000.0 * seen.plane.pixel_scale_arcsec
    if grave := level(error / px, ERROR_PX):
        yield Remark(f"The WCS is known to {angle(error)} only, at its worst place", "distortion", grave)


def _zero_points(seen: Seen) -> Iterator[Remark]:
    weak: list[str] = []
    for index in seen.chosen:
        zero, name = seen.calibration.zero_point(index), seen.calibration.title(index)
        if zero is None:
            continue
        if zero.mag is None or zero.anchor == "none":
            weak.append(name)
            continue
        of = f" of {name}" if len(seen.chosen) > 1 else ""
        if grave := level(zero.absorption_mag or 0.0, ABSORPTION_MAG):
            on = f" on {name}" if of else ""
            yield Remark(
                f"Clouds{on}: {plain(zero.absorption_mag, 2)} mag below the clear sky", "airmass", grave
            )
        if grave := level(zero.sigma_mag or 0.0, SIGMA_MAG):
            yield Remark(
                f"The zero point{of} is known to {plain(zero.sigma_mag, 3)} mag only", "zeropoint", grave
            )
        if grave := level(zero.scatter_mag or 0.0, SCATTER_MAG):
            words = f"Stars{of} scatter by {plain(zero.scatter_mag, 3)} mag about the zero point"
            yield Remark(words, "mag-magnitude", grave)
    if weak:
        of = f" of {listed(weak)}" if len(seen.chosen) > 1 else ""
        yield Remark(f"The zero point{of} is anchored on nothing", "zeropoint", 2)


def _light(seen: Seen) -> Iterator[Remark]:
    off = [row for row in seen.ccds if abs(row.illumination_mag) > ILLUMINATION_MAG]
    if off:
        worst = max(off, key=lambda row: abs(row.illumination_mag))
        names = [row.name for row in off]
        words = (
            f"Illumination is off on {listed(names)}: {signed(worst.illumination_mag, 3)} mag on {worst.name}"
        )
        yield Remark(words, "ccds", 1, tuple(names), "light")
    slope, sigma = seen.value("residual_slope_with_colour"), seen.value("residual_slope_with_colour_sigma")
    if abs(slope) > max(COLOUR_SLOPE_MAG, 4.0 * sigma):
        words = f"Magnitudes depend on colour: {signed(slope, 3)} ± {plain(sigma, 4)} mag per magnitude"
        yield Remark(f"{words}; the colour term does not fit", "mag-colour")


def _notes(seen: Seen) -> Iterator[Remark]:
    for note in seen.calibration.astrometry.notes:
        yield Remark(note, "figures", 0)
    for note in seen.calibration.photometry.solution.notes if seen.calibration.photometry else ():
        yield Remark(note, "figures", 0)


_RULES: tuple[Callable[[Seen], Iterator[Remark]], ...] = (
    _external, _moved, _outstanding, _cut, _empty, _pattern, _internal, _stars, _located, _model, _zero_points,
    _light, _notes,
)  # fmt: skip
