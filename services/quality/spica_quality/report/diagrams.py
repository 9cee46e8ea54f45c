"""Diagrams: magnitude and half-light radius, number counts, bars per CCD, the sky's levels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite, log10, nan

import numpy as np
from numpy.typing import NDArray
from spica_imaging.stats import median
from spica_reporting.encoding import png
from spica_reporting.svg import Axes, Drawing, spread

from spica_quality.report.contents import LABELS
from spica_quality.report.gathering import POINT_LIKE, SATURATED, STAR, CcdPictures
from spica_quality.science.metrics.counts import expected_per_mag
from spica_quality.science.metrics.figures import FIGURES, Row, number

Floats = NDArray[np.float64]
_MOST_DOTS, _MANY_DOTS = 4000, 1000
_BIN_MAG = 0.5
_GREY = (118, 134, 160)


@dataclass(frozen=True, slots=True)
class Everything:
    """Sources of all CCDs. Arrays of shape (n,)."""

    mag: Floats
    """AB, or -2.5 log10 of the flux in adu where no zero point is known."""
    radius: Floats
    """Arcsec, or px where the scale is not known."""
    kind: NDArray[np.uint8]
    has_zeropoint: bool
    has_scale: bool

    @property
    def mag_title(self) -> str:
        """For the axis."""
        return "magnitude (AB)" if self.has_zeropoint else "−2.5 log₁₀ (flux / adu)"


def all_sources(ccds: Sequence[CcdPictures], rows: Sequence[Row], image: Row) -> Everything:
    """Put the CCDs' sources together, on the image's zero point and each CCD's scale."""
    zeropoint = number(image, "zeropoint_mag")
    has_zeropoint = isfinite(zeropoint)
    has_scale = bool(rows) and all(isfinite(number(row, "pixel_scale_arcsec")) for row in rows)
    mags, radii, kinds = [np.empty(0)], [np.empty(0)], [np.empty(0, np.uint8)]
    for ccd, row in zip(ccds, rows, strict=True):
        flux = ccd.sources.flux.astype(np.float64)
        own = number(row, "zeropoint_mag")
        zero = (own if isfinite(own) else zeropoint) if has_zeropoint else 0.0
        with np.errstate(divide="ignore", invalid="ignore"):
            mags.append(zero - 2.5 * np.log10(flux))
        radii.append(
            ccd.sources.radius_px.astype(np.float64)
            * (number(row, "pixel_scale_arcsec") if has_scale else 1.0)
        )
        kinds.append(ccd.sources.kind)
    mag, radius, kind = np.concatenate(mags), np.concatenate(radii), np.concatenate(kinds)
    good = np.isfinite(mag) & np.isfinite(radius) & (radius > 0)
    return Everything(mag[good], radius[good], kind[good], has_zeropoint, has_scale)


def depth_lines(image: Row, has_zeropoint: bool) -> list[tuple[float, str]]:
    """Magnitudes worth a line, with their names."""
    lines = []
    for mag, flux, words in (
        ("limiting_mag", "limiting_flux_adu", "5σ"),
        ("completeness50_mag", "completeness50_flux_adu", "50 %"),
    ):
        value = number(image, mag)
        if not has_zeropoint:
            adu = number(image, flux)
            value = -2.5 * log10(adu) if isfinite(adu) and adu > 0 else nan
        if isfinite(value):
            lines.append((value, words))
    return lines


def saturation_mag(sources: Everything) -> float:
    """Magnitude from which on most sources are saturated, and few are beyond; NaN where there is none."""
    saturated = (sources.kind & SATURATED) != 0
    if not saturated.any():
        return nan
    order = np.argsort(sources.mag, kind="stable")
    # Youden's index: share of the saturated ones that are brighter, less that share of the others.
    share = np.count_nonzero(saturated) / len(saturated)
    gain = np.cumsum(np.where(saturated[order], 1.0 - share, -share))
    best = int(np.argmax(gain))
    brighter = saturated[order][: best + 1]
    # Flags of fainter sources may come from neighbours: no limit where it parts nothing.
    parts = np.mean(brighter) > 0.5 and np.count_nonzero(brighter) > 0.5 * np.count_nonzero(saturated)
    return float(sources.mag[order][best]) if parts else nan


def radius_picture(sources: Everything, image: Row) -> str | None:
    """Magnitude against half-light radius, stars marked; None where nothing was detected."""
    if not sources.mag.size:
        return None
    stars, saturated = (sources.kind & STAR) != 0, (sources.kind & SATURATED) != 0
    rest = ~stars & ~saturated
    d = Drawing(520.0, 360.0)
    x_limits = spread(np.percentile(sources.mag, [0.0, 99.8]).tolist(), 0.04)
    typical = median(sources.radius[stars]) if stars.any() else median(sources.radius)
    top = max(3.5 * typical, min(float(np.percentile(sources.radius, 97)), 7.0 * typical))
    axes = Axes(d, x_limits, (0.0, top), top=30.0)
    axes.frame(sources.mag_title, f"half-light radius, {'arcsec' if sources.has_scale else 'px'}")
    shown = (sources.radius < top) & (sources.mag > x_limits[0]) & (sources.mag < x_limits[1])
    if np.count_nonzero(rest) > _MOST_DOTS:
        _density(axes, sources, rest & shown)
    else:
        d.dots(axes.x(sources.mag[rest & shown]), axes.y(sources.radius[rest & shown]), "dot source")
    size = " small" if np.count_nonzero(stars) > _MANY_DOTS else ""
    for mask, css in ((stars & ~saturated, f"dot star{size}"), (saturated, f"dot saturated{size}")):
        some = np.flatnonzero(mask & shown)
        some = some[:: max(1, -(-some.size // _MOST_DOTS))]
        d.dots(axes.x(sources.mag[some]), axes.y(sources.radius[some]), css)
    limit = saturation_mag(sources)
    lines = [(limit, "saturated")] if isfinite(limit) else []
    _upright(axes, lines, "limit saturated-line")
    _upright(axes, depth_lines(image, sources.has_zeropoint), "limit")
    _key(
        d,
        axes,
        [
            ("star", f"stars {np.count_nonzero(stars):,}"),
            ("source", f"other {np.count_nonzero(rest):,}"),
            ("saturated", f"saturated {np.count_nonzero(saturated):,}"),
        ],
    )
    return d.finish("Magnitude against half-light radius of all sources")


def _density(axes: Axes, sources: Everything, mask: NDArray[np.bool_]) -> None:
    d = axes.drawing
    width, height = d.width - axes.left - axes.right, d.height - axes.top - axes.bottom
    counts, _, _ = np.histogram2d(
        sources.radius[mask], sources.mag[mask], bins=(int(height / 2), int(width / 2)),
        range=(axes.y_limits, axes.x_limits),
    )  # fmt: skip
    share = np.log1p(counts) / np.log1p(max(float(counts.max()), 1.0))
    picture = np.empty((*counts.shape, 4), np.uint8)
    picture[..., :3] = _GREY
    picture[..., 3] = np.where(counts > 0, 60 + 195 * share, 0).astype(np.uint8)
    d.picture(axes.left, axes.top, width, height, png(picture[::-1]), css="mesh")


def _upright(axes: Axes, lines: Sequence[tuple[float, str]], css: str) -> None:
    d = axes.drawing
    shown = [line for line in lines if axes.x_limits[0] <= line[0] <= axes.x_limits[1]]
    for row, (value, words) in enumerate(shown):
        place = float(axes.x(value))
        d.line(place, axes.top, place, axes.floor, css)
        near_end = place > axes.end - 40
        # Each in a row of its own: two limits may lie close together.
        height = axes.top + 12 + 13 * row
        d.text(place + (-4 if near_end else 4), height, words, "tick end" if near_end else "tick")


def _key(d: Drawing, axes: Axes, entries: Sequence[tuple[str, str]]) -> None:
    x = axes.left + 4
    for css, words in entries:
        d.dots(np.array([x]), np.array([14.0]), f"dot key {css}")
        d.text(x + 9, 18, words, "tick")
        x += 22 + 6.4 * len(words)


@dataclass(frozen=True, slots=True)
class Expectation:
    """What surveys count in this direction and band, per square degree and magnitude."""

    mags: Sequence[float]
    stars_per_deg2: Sequence[float]
    galaxies_per_deg2: Sequence[float]


def expected_counts(band: str | None, galactic_deg: tuple[float, float] | None) -> Expectation | None:
    """What models of the sky expect in this band (`counts.band_of`) and direction; None where they do not hold."""
    mags = np.arange(14.0, 28.1, 0.5)
    models = expected_per_mag(mags, band, galactic_deg)
    return None if models is None else Expectation(mags.tolist(), *(values.tolist() for values in models))


def counts_picture(sources: Everything, image: Row, expectation: Expectation | None = None) -> str | None:
    """Number counts of stars and galaxies; None where nothing was detected."""
    if not sources.mag.size:
        return None
    area = number(image, "n_usable") * (number(image, "pixel_scale_arcsec") / 3600.0) ** 2
    per_area = isfinite(area) and area > 0
    edges = (
        np.arange(np.floor(sources.mag.min() / _BIN_MAG), np.ceil(sources.mag.max() / _BIN_MAG) + 1.5)
        * _BIN_MAG
    )
    point = (sources.kind & (POINT_LIKE | STAR | SATURATED)) != 0
    scale = 1.0 / (area * _BIN_MAG) if per_area else 1.0
    stars, galaxies = (np.histogram(sources.mag[mask], edges)[0] * scale for mask in (point, ~point))
    top = float(max(stars.max(initial=0.0), galaxies.max(initial=0.0)))
    d = Drawing(520.0, 360.0)
    axes = Axes(
        d, (float(edges[0]), float(edges[-1])), (0.5 * scale, 3.0 * max(top, scale)), log_y=True, top=30.0
    )
    axes.frame(sources.mag_title, "number per deg² and mag" if per_area else f"number per {_BIN_MAG} mag")
    if expectation is not None and per_area and sources.has_zeropoint:
        for values, css in ((expectation.stars_per_deg2, "star"), (expectation.galaxies_per_deg2, "galaxy")):
            _curve(axes, expectation.mags, values, f"expected {css}-line")
    _steps(axes, edges, galaxies, "steps galaxy-line")
    _steps(axes, edges, stars, "steps star-line")
    _upright(axes, depth_lines(image, sources.has_zeropoint), "limit")
    entries = [
        ("star", f"point-like {np.count_nonzero(point):,}"),
        ("galaxy", f"extended {np.count_nonzero(~point):,}"),
    ]
    _key(d, axes, entries)
    return d.finish("Number counts of point-like and extended sources by magnitude")


def _curve(axes: Axes, mags: Sequence[float], values: Sequence[float], css: str) -> None:
    low, high = axes.y_limits
    points = [
        (float(axes.x(mag)), float(axes.y(value)))
        for mag, value in zip(mags, values, strict=True)
        if low <= value <= high and axes.x_limits[0] <= mag <= axes.x_limits[1]
    ]
    axes.drawing.lines(points, css)


def _steps(axes: Axes, edges: Floats, values: Floats, css: str) -> None:
    low = axes.y_limits[0]
    points: list[tuple[float, float]] = []
    for left, right, value in zip(edges[:-1], edges[1:], values, strict=True):
        place = float(axes.y(max(value, low)))
        points += [(float(axes.x(left)), place), (float(axes.x(right)), place)]
    axes.drawing.lines(points, css)


def bars_picture(rows: Sequence[Row], name: str, grave: Sequence[int]) -> str:
    """One figure of every CCD: bars from zero, or points where zero is far; the median as a line."""
    d = Drawing(520.0, 200.0)
    values = [number(row, name) for row in rows]
    low, high = spread(values, 0.15)
    low = 0.0 if name.startswith("n_") or 0 < low < 0.4 * high else low
    axes = Axes(d, (0.0, float(max(len(rows), 1))), (low, high), bottom=34.0)
    unit = FIGURES[name].unit
    axes.frame("CCD, in the order of the file", unit or "number", x_ticks=False)
    step = float(axes.x(1.0) - axes.x(0.0))
    for index, (row, value) in enumerate(zip(rows, values, strict=True)):
        if isfinite(value):
            x, y = float(axes.x(index)) + 0.1 * step, float(axes.y(value))
            words = f"{row.get('name')}: {value:.6g} {unit}"
            if low == 0.0:
                d.rectangle(x, y, 0.8 * step, axes.floor - y, f"bar g{grave[index]}", words)
            else:
                d.dots(np.array([x + 0.4 * step]), np.array([y]), f"point g{grave[index]}")
        if len(rows) <= 40:
            css = f"tick mid small g{grave[index] if isfinite(value) else 2}"
            d.text(float(axes.x(index + 0.5)), axes.floor + 12, str(index), css)
    middle = median(values)
    if isfinite(middle):
        d.line(axes.left, float(axes.y(middle)), axes.end, float(axes.y(middle)), "limit")
    return d.finish(f"{LABELS.get(name, name)} per CCD as bars")


def levels_picture(ccds: Sequence[CcdPictures]) -> str | None:
    """How often which level of the sky was found in the boxes of the mesh; None where it was not measured."""
    levels = [ccd.sky.level.ravel() for ccd in ccds if ccd.sky is not None]
    values = np.concatenate(levels).astype(np.float64) if levels else np.empty(0)
    values = values[np.isfinite(values)]
    if values.size < 4:
        return None
    low, high = spread(values.tolist(), 0.02)
    counts, edges = np.histogram(
        values, bins=int(np.clip(np.sqrt(values.size) * 1.5, 10, 60)), range=(low, high)
    )
    d = Drawing(520.0, 200.0)
    axes = Axes(d, (low, high), (0.0, 1.12 * float(counts.max())))
    axes.frame("level of the sky, adu", "boxes")
    for left, right, count in zip(edges[:-1], edges[1:], counts, strict=True):
        if count:
            y = float(axes.y(float(count)))
            d.rectangle(float(axes.x(left)), y, float(axes.x(right) - axes.x(left)), axes.floor - y, "bar g0")
    return d.finish("Histogram of the sky's level over the mesh")
