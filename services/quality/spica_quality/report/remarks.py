"""What catches the eye in the figures, said in words, with the picture and the CCDs where it is seen. Not a judgement."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import isfinite

import numpy as np
from spica_imaging.stats import finite, median

from spica_quality.report.contents import with_unit
from spica_quality.report.diagrams import Everything, saturation_mag
from spica_quality.report.focal import direction_words, width_slope
from spica_quality.report.gathering import SATURATED, CcdPictures
from spica_quality.report.layout import Layout
from spica_quality.report.outliers import outlying, varies
from spica_quality.science.metrics.figures import FIGURES, Row, number

Marks = dict[int, tuple[int, str]]


@dataclass(frozen=True, slots=True)
class Remark:
    """One thing that catches the eye."""

    words: str
    figure: str
    """Id of the picture where it is seen."""
    ccds: tuple[int, ...] = ()
    """By index."""
    grave: int = 1
    """2: the CCD or the image is hardly usable for it."""
    tag: str = ""
    """A word for the CCDs' marks on the picture."""


@dataclass(frozen=True, slots=True)
class Seen:
    """All that remarks are made from."""

    image: Row
    rows: Sequence[Row]
    ccds: Sequence[CcdPictures]
    layout: Layout
    sources: Everything
    exposure_time_s: float
    """NaN where it is not known."""


WATCHED = (
    "fwhm_arcsec",
    "fwhm_px",
    "background_adu",
    "background_rms_adu",
    "ellipticity",
    "n_sources",
    "usable_fraction",
)
"""Figures whose outlying CCDs are marked on the large picture."""

_TAGS = {"fwhm_arcsec": "FWHM", "fwhm_px": "FWHM", "background_adu": "sky", "background_rms_adu": "noise",
         "ellipticity": "shape", "n_sources": "counts", "usable_fraction": "masked"}  # fmt: skip


def remarks(seen: Seen) -> list[Remark]:
    """All remarks, the gravest first."""
    found = [remark for rule in _RULES for remark in rule(seen)]
    return sorted(found, key=lambda remark: -remark.grave)


def marks(found: Sequence[Remark], out: Sequence[int]) -> Marks:
    """Per CCD how grave and in a word why; `out`: CCDs that a policy takes out."""
    words: dict[int, list[str]] = {index: ["not used"] for index in out}
    grave = dict.fromkeys(out, 2)
    for remark in found:
        for index in remark.ccds:
            if remark.tag and remark.tag not in words.setdefault(index, []):
                words[index].append(remark.tag)
                grave[index] = max(grave.get(index, 0), remark.grave)
    return {index: (grave.get(index, 1), ", ".join(tags)) for index, tags in words.items() if tags}


def _names(seen: Seen, ccds: Sequence[int]) -> str:
    names = [str(seen.rows[index].get("name")) for index in ccds]
    return ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")


def _conditions(seen: Seen) -> Iterator[Remark]:
    own = seen.image.get("condition")
    if own not in (None, "ok"):
        yield Remark(
            _sentence(own, seen.image.get("condition_reason")), _SEEN_IN.get(str(own), "image"), grave=2
        )
    kinds: dict[str, list[int]] = {}
    for index, row in enumerate(seen.rows):
        condition = row.get("condition")
        if condition not in (None, "ok"):
            kinds.setdefault(str(condition), []).append(index)
    for kind, ccds in kinds.items():
        if len(seen.rows) > 1 or own in (None, "ok"):
            reason = seen.rows[ccds[0]].get("condition_reason") if len(ccds) == 1 else None
            words = _sentence(kind, _names(seen, ccds)) + (f". {reason}" if reason else "")
            yield Remark(words, "image", tuple(ccds), 2, _plain(kind))


_COSMICS_PER_S, _LEAST_HOT = 4e-6, 2e-4
"""Share of pixels that cosmic rays hit per second at most (thick CCDs, on mountains); and what is not worth a word."""


_SEEN_IN = {"trailed": "psf", "doubled": "stamps", "out_of_focus": "stamps", "wrong_counts": "counts"}


def _sentence(condition: object, about: object) -> str:
    words = _plain(condition).capitalize()
    return f"{words}: {about}" if about else words


def _plain(condition: object) -> str:
    return str(condition).replace("_", " ")


def _outlying(seen: Seen) -> Iterator[Remark]:
    done: set[str] = set()
    for name in WATCHED:
        levels, apart = outlying(seen.rows, name), varies(seen.rows, name)
        # A CCD that has a named condition needs no list of everything that follows from it.
        ccds = [
            i for i, level in enumerate(levels) if level and seen.rows[i].get("condition") in (None, "ok")
        ]
        tag = _TAGS[name]
        if not (ccds or apart) or tag in done:
            continue
        done.add(tag)
        sound = [row for row in seen.rows if row.get("condition") in (None, "ok")]
        values = finite([number(row, name) for row in sound])
        if apart:
            if values.size:
                ends = f"{_told(name, values.min())} and {_told(name, values.max())}"
                yield Remark(f"{_WORDS[tag]} varies between {ends} over the CCDs", f"tiles-{name}")
            continue
        others = _told(name, median(values))
        own = f": {_told(name, number(seen.rows[ccds[0]], name))}" if len(ccds) == 1 else ""
        words = f"{_WORDS[tag]} stands out on {_names(seen, ccds)}{own} (typical: {others})"
        yield Remark(words, f"tiles-{name}", tuple(ccds), 1, tag)


def _told(name: str, value: float) -> str:
    return with_unit(name, int(value) if FIGURES[name].style == "d" else float(value))


_WORDS = {"FWHM": "FWHM", "sky": "Level of the sky", "noise": "Noise of the sky", "shape": "Ellipticity",
          "counts": "Number of detections", "masked": "Share of usable pixels"}  # fmt: skip


def _saturation(seen: Seen) -> Iterator[Remark]:
    share = number(seen.image, "saturated_fraction")
    n = int(np.count_nonzero(seen.sources.kind & SATURATED))
    if not n:
        return
    limit, pixels = saturation_mag(seen.sources), number(seen.image, "n_saturated")
    words = f"{n:,} saturated sources"
    if seen.sources.has_zeropoint and isfinite(limit):
        words += f", all brighter than about {limit:.1f} mag"
    if isfinite(pixels) and isfinite(share):
        words += f": {pixels:,.0f} pixels, {100 * share:.2g} % of the image"
    yield Remark(words, "radius", grave=2 if share > 5e-3 else 1 if share > 1e-4 else 0)


def _sampling(seen: Seen) -> Iterator[Remark]:
    width = number(seen.image, "fwhm_with_pixel_px")
    width = width if isfinite(width) else number(seen.image, "fwhm_px")
    if width < 2.3:
        words = (
            f"Undersampled: stars are {width:.2f} px wide; positions, shapes and cosmic rays are uncertain"
        )
        yield Remark(words, "stamps")


def _pixels(seen: Seen) -> Iterator[Remark]:
    total = number(seen.image, "n_pixels")
    cosmics = number(seen.image, "n_cosmic")
    exposure = seen.exposure_time_s if isfinite(seen.exposure_time_s) else 600.0
    if total > 0 and cosmics / total > max(_LEAST_HOT, _COSMICS_PER_S * exposure):
        words = f"Hot pixels: {int(cosmics):,} pixels are sharper than stars, {1e6 * cosmics / total:,.0f} per million"
        yield Remark(f"{words}, more than cosmic rays make in {exposure:.0f} s", "ccds")
    for name, least, tag, what in (
        ("n_trail", 300.0, "trail", "Trail of a satellite or aircraft"),
        ("n_bad_column", 1e-3, "columns", "Bad columns"),
        ("n_bleed", 2e-3, "bleeding", "Bleeding along columns"),
    ):
        ccds = []
        for index, row in enumerate(seen.rows):
            value = number(row, name)
            if value > (least if least > 1 else least * number(row, "n_pixels")) and row.get("condition") in (
                None,
                "ok",
            ):
                ccds.append(index)
        if ccds:
            pixels = int(sum(number(seen.rows[index], name) for index in ccds))
            place = f" on {_names(seen, ccds)}" if len(seen.rows) > 1 else ""
            yield Remark(f"{what}{place}: {pixels:,} pixels", "image", tuple(ccds), 1, tag)
    usable = number(seen.image, "usable_fraction")
    if usable < 0.9:
        yield Remark(
            f"Only {100 * usable:.1f} % of the pixels are usable", "weight", grave=2 if usable < 0.5 else 1
        )


_LINE_PER_FWHM, _LINE_ELLIPTICITY = 0.5, 0.2


def _shape(seen: Seen) -> Iterator[Remark]:
    image, named = seen.image, seen.image.get("condition")
    ellipticity, length = number(image, "ellipticity"), number(image, "trail_length_px")
    # A shorter line is as well an ellipticity of the optics.
    line = length > _LINE_PER_FWHM * number(image, "fwhm_with_pixel_px") and ellipticity > _LINE_ELLIPTICITY
    if line and named != "trailed":
        yield Remark(f"Stars are smeared over {length:.1f} px: guiding or drift", "psf", grave=2)
    elif ellipticity > 0.1 and named != "trailed":
        words = f"Stars are elongated: ellipticity {ellipticity:.2f}"
        yield Remark(words, "psf", grave=2 if ellipticity > 0.25 else 1)
    if (double := number(image, "doubling")) > 0.05 and named != "doubled":
        distance = number(image, "doubling_px")
        apart = f" {distance:.1f} px away" if isfinite(distance) else ""
        words = f"Stars are double: a second image{apart} with {100 * double:.0f} % of the first one's light"
        yield Remark(words, "stamps", grave=2)
    if (dip := number(image, "central_dip")) > 0.2 and named != "out_of_focus":
        words = f"Stars are rings, {100 * dip:.0f} % darker at the centre: out of focus"
        yield Remark(words, "stamps", grave=2)
    slope = width_slope(seen.ccds, seen.layout, seen.rows)
    if slope is not None and slope[0] > 0.12:
        where = direction_words(slope[1], seen.layout.on_sky)
        yield Remark(f"FWHM rises by {100 * slope[0]:.0f} % across the field towards {where}", "psf")


def _sky(seen: Seen) -> Iterator[Remark]:
    level, gradient = number(seen.image, "background_adu"), number(seen.image, "background_gradient_adu")
    rms = number(seen.image, "background_rms_adu")
    if gradient > 0.5 * rms and gradient > 0.03 * abs(level):
        share = f", {100 * gradient / level:.0f} % of its level" if level > 0 else ""
        yield Remark(f"The sky rises by {gradient:.4g} adu over the image{share}", "sky")


def _numbers(seen: Seen) -> Iterator[Remark]:
    for kind in ("stars", "galaxies"):
        ratio, error = (
            number(seen.image, f"counts_ratio_{kind}"),
            number(seen.image, f"counts_ratio_{kind}_error"),
        )
        if isfinite(ratio) and abs(ratio - 1.0) > max(0.3, 3.0 * (error if isfinite(error) else 0.0)):
            words = f"{'More' if ratio > 1 else 'Fewer'} {kind} than expected: {ratio:.2f} times as many"
            yield Remark(words, "counts")
    off = float(np.hypot(number(seen.image, "offset_ra_arcsec"), number(seen.image, "offset_dec_arcsec")))
    if off > 2.0:
        yield Remark(f"The header's WCS is off by {off:.1f} arcsec", "figures")
    missing = number(seen.image, "n_ccds_missing")
    if missing > 0:
        yield Remark(f"{int(missing)} CCDs of the instrument are missing in the file", "image", grave=2)


_RULES: tuple[Callable[[Seen], Iterator[Remark]], ...] = (
    _conditions, _shape, _saturation, _sampling, _pixels, _outlying, _sky, _numbers,
)  # fmt: skip


def place_of(metric: str) -> str:
    """Id of the picture that shows what a figure tells."""
    return next((place for start, place in _PLACES if metric.startswith(start)), "figures")


_PLACES = (
    ("fwhm", "psf"), ("half_light", "radius"), ("ellipticity", "psf"), ("elongation", "psf"), ("psf_", "stamps"),
    ("central_dip", "stamps"), ("doubling", "stamps"), ("trail_length", "psf"), ("background_gradient", "sky"),
    ("background", "sky"), ("n_sources", "counts"), ("n_stars", "radius"), ("n_psf", "radius"), ("counts", "counts"),
    ("limiting", "counts"), ("completeness", "counts"), ("saturat", "radius"), ("n_saturated", "radius"),
    ("usable", "weight"), ("lit_", "image"), ("ccds_", "image"), ("n_ccds", "image"), ("condition", "image"),
    ("n_trail", "image"), ("n_cosmic", "ccds"), ("n_bad", "image"), ("offset", "figures"),
)  # fmt: skip
