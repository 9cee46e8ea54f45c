"""Diagrams: residuals in two dimensions, against magnitude; zero points; residual magnitudes."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite

import numpy as np
from spica_imaging.stats import median
from spica_reporting.encoding import png
from spica_reporting.svg import Axes, Drawing, spread

from spica_calib.report.words import plain
from spica_calib.science.diagnostics.residuals import AgainstMagnitude, Cloud, Running, running
from spica_calib.science.diagnostics.zeropoints import Extinction, MagnitudeResiduals, ZeroPointPoint
from spica_calib.science.stars import Bools, Floats

_MANY = 700
_INK = (44, 98, 168)
_SIDE, _BAND = 400.0, 80.0


def cloud_picture(points: Cloud, kind: str) -> str:
    """Residuals of both axes with their marginal histograms, Gaussians of the robust scatter, and the 1-sigma ellipse."""
    d = Drawing(54.0 + _SIDE + _BAND + 10.0, _BAND + _SIDE + 42.0)
    limit = points.limit_mas
    per_arcsec = limit >= 2000.0
    unit, by = ("arcsec", 1000.0) if per_arcsec else ("mas", 1.0)
    values = points.residual_mas / by
    reach = limit / by
    axes = Axes(d, (-reach, reach), (-reach, reach), left=54, right=_BAND + 10, top=_BAND, bottom=42)
    what = "star − detection" if kind == "external" else "mean − detection"
    axes.frame(f"ΔRA cos δ, {unit} ({what})", f"ΔDec, {unit}")
    inside = values[(np.abs(values) <= reach).all(axis=1)]
    _points(axes, inside[:, 0], inside[:, 1])
    zero = float(axes.x(0.0)), float(axes.y(0.0))
    d.line(zero[0], axes.top, zero[0], axes.floor, "nought")
    d.line(axes.left, zero[1], axes.end, zero[1], "nought")
    long, short, turn = points.axes
    centre = points.centre_mas[0] / by, points.centre_mas[1] / by
    angle = np.linspace(0.0, 2.0 * np.pi, 73)
    rad = np.radians(turn)
    a, b = long / by * np.cos(angle), short / by * np.sin(angle)
    ring_x, ring_y = (
        axes.x(centre[0] + a * np.cos(rad) - b * np.sin(rad)),
        axes.y(centre[1] + a * np.sin(rad) + b * np.cos(rad)),
    )
    d.lines(list(zip(ring_x.tolist(), ring_y.tolist(), strict=True)), "ring")
    d.text(axes.left + 8, axes.top + 18, "1σ ellipse", "tick")
    d.line(axes.left + 68, axes.top + 14, axes.left + 92, axes.top + 14, "ring")
    sigma = max(points.sigma_mas[0] / by, 1e-3 * reach), max(points.sigma_mas[1] / by, 1e-3 * reach)
    _marginals(axes, values, reach, centre, sigma, unit)
    return d.finish(f"{kind.capitalize()} residuals in two dimensions with histograms of both axes")


def _marginals(
    axes: Axes,
    values: Floats,
    reach: float,
    centre: tuple[float, float],
    sigma: tuple[float, float],
    unit: str,
) -> None:
    d = axes.drawing
    n = len(values)
    bins = int(np.clip(2.2 * np.sqrt(n), 9, 61))
    edges = np.linspace(-reach, reach, bins + 1)
    x = np.linspace(-reach, reach, 121)
    digits = 0 if max(sigma) >= 100 else 1 if max(sigma) >= 1 else 2
    for line, words in enumerate((f"σ, {unit}", f"RA {sigma[0]:.{digits}f}", f"Dec {sigma[1]:.{digits}f}")):
        d.text(axes.end + 10, 30.0 + 17.0 * line, words, "tick")
    for axis in (0, 1):
        counts = np.histogram(values[:, axis], edges)[0]
        bell = (
            n
            * (edges[1] - edges[0])
            * np.exp(-0.5 * ((x - centre[axis]) / sigma[axis]) ** 2)
            / (sigma[axis] * np.sqrt(2 * np.pi))
        )
        top = max(float(counts.max()), float(bell.max()), 1.0)
        room = _BAND - 12.0
        for low, high, number in zip(edges[:-1], edges[1:], counts, strict=True):
            if not number:
                continue
            size = room * number / top
            if axis == 0:
                left, right = float(axes.x(low)), float(axes.x(high))
                d.rectangle(left, axes.top - 4 - size, right - left, size, "bar g0", f"{number}")
            else:
                bottom, upper = float(axes.y(low)), float(axes.y(high))
                d.rectangle(axes.end + 4, upper, size, bottom - upper, "bar g0", f"{number}")
        if axis == 0:
            curve = zip(axes.x(x).tolist(), (axes.top - 4 - room * bell / top).tolist(), strict=True)
        else:
            curve = zip((axes.end + 4 + room * bell / top).tolist(), axes.y(x).tolist(), strict=True)
        d.lines(list(curve), "bell")


def _points(axes: Axes, x: Floats, y: Floats, css: str = "dot galaxy") -> None:
    """Dots, or their density where they are many."""
    if len(x) <= _MANY:
        axes.drawing.dots(axes.x(x), axes.y(y), css + (" small" if len(x) > 150 else " big"))
        return
    d = axes.drawing
    width, height = d.width - axes.left - axes.right, d.height - axes.top - axes.bottom
    step = 2.5 if len(x) > 4000 else 3.5
    counts, _, _ = np.histogram2d(
        y, x, bins=(int(height / step), int(width / step)), range=(axes.y_limits, axes.x_limits)
    )
    share = np.sqrt(counts / max(float(counts.max()), 1.0))
    picture = np.empty((*counts.shape, 4), np.uint8)
    picture[..., :3] = _INK
    picture[..., 3] = np.where(counts > 0, 45 + 210 * share, 0).astype(np.uint8)
    d.picture(axes.left, axes.top, width, height, png(picture[::-1]), css="mesh")


def magnitude_picture(rows: Sequence[tuple[str, AgainstMagnitude]], floor_mas: float, title: str) -> str:
    """Scatter per axis against magnitude, and what was expected of it; the floor as a level line."""
    d = Drawing(520.0, 330.0)
    mags = np.concatenate([one.mag for _, one in rows])
    every = np.concatenate([np.concatenate([one.scatter_mas, one.expected_mas]) for _, one in rows])
    by, unit = (1000.0, "arcsec") if float(np.median(every)) > 1000.0 else (1.0, "mas")
    low, high = float(every[every > 0].min()) / by, float(every.max()) / by
    low = min(low, floor_mas / by) if floor_mas > 0 else low
    limits = (low / 1.5, max(1.5 * high, 4.0 * low))
    axes = Axes(d, spread(mags.tolist(), 0.05), limits, log_y=True, top=32.0)
    axes.frame(title, f"scatter per axis, {unit}")
    if floor_mas > 0:
        y = float(axes.y(floor_mas / by))
        d.line(axes.left, y, axes.end, y, "limit")
        d.text(axes.end - 4, y - 5, f"error floor {plain(floor_mas / by, 1)} {unit}", "tick end")
    entries = []
    for kind, one in rows:
        css = "star" if kind == "external" else "galaxy"
        x = axes.x(one.mag)
        scatter, expected = (np.maximum(part / by, limits[0]) for part in (one.scatter_mas, one.expected_mas))
        d.lines(list(zip(x.tolist(), axes.y(expected).tolist(), strict=True)), f"expected {css}-line")
        d.lines(list(zip(x.tolist(), axes.y(scatter).tolist(), strict=True)), f"steps {css}-line")
        d.dots(x, axes.y(scatter), f"knot {css}")
        entries += [(f"knot {css}", f"{kind}"), (f"expected {css}-line", "expected")]
    _key(axes, entries)
    return d.finish("Scatter of residuals against magnitude")


def chi2_picture(rows: Sequence[tuple[str, AgainstMagnitude]], title: str) -> str:
    """Reduced chi² against magnitude; 1 is what the errors say."""
    d = Drawing(520.0, 240.0)
    mags = np.concatenate([one.mag for _, one in rows])
    every = np.concatenate([one.chi2 for _, one in rows])
    axes = Axes(d, spread(mags.tolist(), 0.05), (0.0, 1.15 * max(float(every.max()), 1.6)), top=32.0)
    axes.frame(title, "chi² per degree of freedom")
    d.line(axes.left, float(axes.y(1.0)), axes.end, float(axes.y(1.0)), "limit")
    entries = []
    for kind, one in rows:
        css = "star" if kind == "external" else "galaxy"
        x, y = axes.x(one.mag), axes.y(one.chi2)
        d.lines(list(zip(x.tolist(), y.tolist(), strict=True)), f"steps {css}-line")
        d.dots(x, y, f"knot {css}")
        entries.append((f"knot {css}", kind))
    _key(axes, entries)
    return d.finish("Reduced chi² against magnitude")


_KINDS = {
    "reference": ("knot star", "by reference stars"),
    "header": ("knot square", "by its header"),
    "overlap": ("knot hollow", "by overlaps"),
    "context": ("knot hollow", "by its context"),
    "none": ("knot none", "anchored on nothing"),
    "earlier": ("knot source", "earlier images of the run"),
}  # fmt: skip


def zeropoint_picture(points: Sequence[ZeroPointPoint], x: str, line: Extinction | None = None) -> str | None:
    """Zero points against `airmass` or `mjd_obs`; None with fewer than two known."""
    known = [one for one in points if getattr(one, x) is not None]
    if len(known) < 2:
        return None
    d = Drawing(520.0, 330.0)
    places = np.array([getattr(one, x) for one in known], dtype=np.float64)
    mags = np.array([one.mag for one in known])
    sigma = np.array([one.sigma_mag or 0.0 for one in known])
    title = "airmass"
    if x == "mjd_obs":
        first = float(np.floor(places.min()))
        days = float(np.ptp(places)) > 2.0
        places = (places - first) * (1.0 if days else 24.0)
        title = f"{'days' if days else 'hours'} after MJD {first:.0f}"
    expected = [one.expected_mag for one in known if one.expected_mag is not None and one.own]
    ends = np.concatenate([mags - sigma, mags + sigma, expected])
    low, high = spread(ends.tolist(), 0.12)
    room = max(0.5 * (0.04 - (high - low)), 0.0)
    axes = Axes(d, spread(places.tolist(), 0.05), (low - room, high + room), top=52.0, left=62.0)
    axes.frame(title, "zero point, mag AB for 1 adu/s")
    if line is not None and x == "airmass":
        at = np.array(axes.x_limits)
        y = axes.y(line.mag + line.slope_mag * (at - 1.0))
        d.lines(
            list(zip(axes.x(at).tolist(), np.clip(y, axes.top, axes.floor).tolist(), strict=True)), "limit"
        )
    for one, a, s in zip(known, places, sigma, strict=True):
        px, py = float(axes.x(a)), float(axes.y(one.mag))
        if s > 0:
            d.line(px, float(axes.y(one.mag - s)), px, float(axes.y(one.mag + s)), "error")
        d.parts.append(f"<g><title>{_escaped(one)}</title>")
        d.dots(np.array([px]), np.array([py]), _KINDS[one.kind][0])
        d.parts.append("</g>")
        if one.expected_mag is not None and one.own:
            level = float(axes.y(one.expected_mag))
            d.line(px - 6, level, px + 6, level, "header-mark")
    kinds = [kind for kind in _KINDS if any(one.kind == kind for one in known)]
    entries = [_KINDS[kind] for kind in kinds]
    if expected:
        entries.append(("header-mark", "what the header says"))
    _key(axes, entries)
    return d.finish(f"Zero point against {'airmass' if x == 'airmass' else 'time'}")


def _escaped(one: ZeroPointPoint) -> str:
    from html import escape

    error = f" ± {one.sigma_mag:.4f}" if one.sigma_mag else ""
    return escape(f"{one.name}: {one.mag:.4f}{error} mag")


def residual_picture(
    rest: MagnitudeResiduals, x: Floats, x_title: str, about: str, run: Running | None = None
) -> str | None:
    """Residual magnitudes against something, with the running median; None with fewer than three."""
    known = np.isfinite(x) & np.isfinite(rest.residual_mag)
    if np.count_nonzero(known) < 3:
        return None
    d = Drawing(520.0, 280.0)
    y = rest.residual_mag
    scatter = 1.4826 * median(np.abs(y[known & rest.kept])) if (known & rest.kept).any() else 0.1
    top = max(5.0 * scatter, 0.02)
    axes = Axes(
        d, spread(np.percentile(x[known], (0.1, 99.9)).tolist(), 0.04), (-top, top), left=62.0, top=32.0
    )
    axes.frame(x_title, "residual, mag")
    inside = known & rest.kept & (np.abs(y) <= top) & (x >= axes.x_limits[0]) & (x <= axes.x_limits[1])
    _points(axes, x[inside], y[inside])
    d.line(axes.left, float(axes.y(0.0)), axes.end, float(axes.y(0.0)), "nought")
    cut = known & ~rest.kept & (np.abs(y) <= top) & (x >= axes.x_limits[0]) & (x <= axes.x_limits[1])
    d.dots(axes.x(x[cut]), axes.y(y[cut]), "dot saturated small")
    run = run or running(x[rest.kept], y[rest.kept])
    _bars(axes, run.x, run.median, run.error)
    entries = [("dot key galaxy", "stars"), ("knot star", "running median")]
    if cut.any():
        entries.insert(1, ("dot key saturated", "cut"))
    _key(axes, entries)
    return d.finish(about)


def ccd_residual_picture(rest: MagnitudeResiduals, names: Sequence[str], kept: Bools) -> str | None:
    """Median residual magnitude of each CCD; None with fewer than two CCDs."""
    if len(names) < 2:
        return None
    rows = []
    for index in range(len(names)):
        own = rest.residual_mag[(rest.ccd == index) & kept]
        if len(own) >= 5:
            scatter = 1.4826 * median(np.abs(own - np.median(own)))
            rows.append((index, float(np.median(own)), 1.2533 * scatter / np.sqrt(len(own))))
    if len(rows) < 2:
        return None
    table = np.array(rows)
    d = Drawing(520.0, 240.0)
    reach = max(1.15 * float(np.abs(table[:, 1]).max() + table[:, 2].max()), 0.01)
    axes = Axes(d, (-0.8, len(names) - 0.2), (-reach, reach), left=62.0, bottom=40.0)
    axes.frame("CCD, in the order of the file", "median residual, mag", x_ticks=False)
    every = next(step for step in (1, 2, 5, 10, 20, 50, 100) if len(names) <= 20 * step or step == 100)
    for index in range(0, len(names), every):
        d.text(float(axes.x(index)), axes.floor + 14, str(index), "tick mid")
    d.line(axes.left, float(axes.y(0.0)), axes.end, float(axes.y(0.0)), "nought")
    _bars(
        axes,
        table[:, 0],
        table[:, 1],
        table[:, 2],
        [f"{names[int(k)]}: {value:+.4f} mag" for k, value, _ in rows],
        joined=False,
    )
    return d.finish("Median residual magnitude per CCD")


def _bars(
    axes: Axes,
    x: Floats,
    y: Floats,
    error: Floats,
    titles: Sequence[str] | None = None,
    *,
    joined: bool = True,
) -> None:
    d = axes.drawing
    low, high = axes.y_limits
    shown = [k for k in range(len(x)) if isfinite(y[k]) and low <= y[k] <= high]
    if joined:
        d.lines([(float(axes.x(x[k])), float(axes.y(y[k]))) for k in shown], "steps star-line")
    for k in shown:
        px = float(axes.x(x[k]))
        ends = np.clip([y[k] - error[k], y[k] + error[k]], low, high)
        d.line(px, float(axes.y(ends[0])), px, float(axes.y(ends[1])), "error strong")
        if titles:
            d.parts.append(f"<g><title>{titles[k]}</title>")
        d.dots(np.array([px]), np.array([float(axes.y(y[k]))]), "knot star")
        if titles:
            d.parts.append("</g>")


def _key(axes: Axes, entries: Sequence[tuple[str, str]]) -> None:
    """What is what, above the frame; a second line where one is too short."""
    d = axes.drawing
    x, y = axes.left + 4, axes.top - 12.0
    widths = [30.0 + 6.3 * len(words) for _, words in entries]
    lines = 1
    for width in widths:
        if x + width > d.width - 4 and x > axes.left + 4:
            lines, x = lines + 1, axes.left + 4
        x += width
    x, y = axes.left + 4, y - 17.0 * (lines - 1)
    for (css, words), width in zip(entries, widths, strict=True):
        if x + width > d.width - 4 and x > axes.left + 4:
            x, y = axes.left + 4, y + 17.0
        if "line" in css or "mark" in css:
            d.line(x - 3, y, x + 11, y, css)
        else:
            d.dots(np.array([x + 4]), np.array([y]), css)
        d.text(x + 15, y + 4, words, "tick")
        x += width
