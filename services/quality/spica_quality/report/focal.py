"""Pictures over the focal plane: the image with what is wrong on it, maps of weight and sky, tiles, whiskers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isfinite

import numpy as np
from numpy.typing import NDArray
from spica_imaging.stats import median
from spica_reporting.colours import css, diverging, paint, sequential
from spica_reporting.encoding import colour_jpeg, png
from spica_reporting.svg import Drawing

from spica_quality.report.contents import LABELS
from spica_quality.report.encoding import overlay_png
from spica_quality.report.gathering import CcdPictures
from spica_quality.report.layout import Layout
from spica_quality.report.mosaics import (
    deviation_mosaic,
    image_mosaic,
    level_mosaic,
    mask_mosaic,
    weight_mosaic,
)
from spica_quality.science.metrics.figures import FIGURES, Row, number

Floats = NDArray[np.float64]
_UNITS = 1000.0
"""Width of the large picture in its own units; others have 520."""
_MOSAIC_PX = 1100
_MAP_PX = 420


def image_picture(
    ccds: Sequence[CcdPictures], layout: Layout, marks: Mapping[int, tuple[int, str]], about: str
) -> str:
    """The image as on the sky with outlines of the CCDs.

    `marks`: per CCD (by index) how grave (1, 2) and in a word why.
    """
    d = Drawing(_UNITS, _UNITS * layout.height)
    width = min(_MOSAIC_PX, max(_widest(ccds, layout), 300))
    d.picture(0, 0, d.width, d.height, colour_jpeg(image_mosaic(ccds, layout, width)))
    masked = mask_mosaic(ccds, layout, width)
    if masked.any():
        d.picture(0, 0, d.width, d.height, overlay_png(masked), css="masks")
    for index, ccd in enumerate(ccds):
        grave, word = marks.get(index, (0, ""))
        corners = layout.corners(index) * _UNITS
        if len(ccds) == 1:
            continue
        d.polygon(corners, f"ccd g{grave}", f"{ccd.name}{': ' if word else ''}{word}")
    for index, ccd in enumerate(ccds):
        if len(ccds) > 1:
            _label(d, layout.corners(index) * _UNITS, ccd.name, marks.get(index, (0, "")))
    if layout.on_sky:
        _compass(d)
    if layout.arcsec:
        _scale_bar(d, layout.arcsec)
    return d.finish(about)


def _widest(ccds: Sequence[CcdPictures], layout: Layout) -> int:
    """How many pixels wide the picture must be to show all that was kept."""
    widths = [1.0]
    for index, ccd in enumerate(ccds):
        step = float(np.hypot(*layout.matrices[index][:, 0]))
        widths.append(1.0 / max(step * ccd.coarse.factor, 1e-6))
    return round(max(widths))


def _label(d: Drawing, corners: Floats, name: str, mark: tuple[int, str]) -> None:
    low, high = corners.min(axis=0), corners.max(axis=0)
    room = float(high[0] - low[0])
    if room < 34:
        return
    centre = float(0.5 * (low[0] + high[0]))
    d.text(centre, float(low[1]) + 15, _fit(name, room), f"name mid g{mark[0]}")
    if mark[1]:
        middle = float(0.5 * (low[1] + high[1]))
        for line, word in enumerate(mark[1].split(", ")[:4]):
            d.text(centre, middle + 17 * line, _fit(word, room), f"why mid g{mark[0]}")


def _fit(words: str, room: float) -> str:
    most = max(int(room / 7.6), 3)
    return words if len(words) <= most else words[: most - 1] + "…"


def _compass(d: Drawing) -> None:
    x, y = d.width - 26.0, d.height - 26.0
    d.line(x, y, x, y - 40, "compass")
    d.line(x, y, x - 40, y, "compass")
    d.text(x, y - 45, "N", "compass-text mid")
    d.text(x - 50, y + 5, "E", "compass-text mid")


def _scale_bar(d: Drawing, arcsec: float) -> None:
    per_unit = arcsec / d.width
    goal = 0.18 * arcsec
    length = max(
        (nice for nice in (1, 2, 5, 10, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200) if nice <= goal),
        default=1,
    )
    words = f"{length}″" if length < 60 else f"{length // 60}′" if length < 3600 else f"{length // 3600}°"
    d.line(20, d.height - 18, 20 + length / per_unit, d.height - 18, "compass")
    d.text(20, d.height - 26, words, "compass-text")


def weight_picture(ccds: Sequence[CcdPictures], layout: Layout) -> str:
    """The weight map."""
    values = weight_mosaic(ccds, layout, _MAP_PX)
    high = max(float(np.nanmax(values, initial=0.0)), 1e-3)
    return _map(layout, values, (0.0, min(high, 2.0)), sequential(), "weight ÷ median", "Weight map")


def level_picture(ccds: Sequence[CcdPictures], layout: Layout) -> str:
    """The sky's level in adu."""
    values = level_mosaic(ccds, layout, _MAP_PX)
    low, high = _limits(values)
    room = max(0.5 * (_least_reach(ccds) - 0.5 * (high - low)), 0.0)
    return _map(
        layout, values, (low - room, high + room), sequential(), "sky, adu", "Level of the sky background"
    )


def deviation_picture(ccds: Sequence[CcdPictures], layout: Layout) -> str:
    """The sky's level less a plane and each CCD's offset."""
    values = deviation_mosaic(ccds, layout, _MAP_PX)
    low, high = _limits(values)
    reach = max(abs(low), abs(high), _least_reach(ccds))
    about = "Deviation of the sky background from a plane"
    return _map(layout, values, (-reach, reach), diverging(), "sky − plane, adu", about)


def _least_reach(ccds: Sequence[CcdPictures]) -> float:
    """Differences of the sky, adu, below which colours should not cry out: a thousandth, and a tenth of the noise."""
    skies = [ccd.sky for ccd in ccds if ccd.sky is not None]
    level = median(np.concatenate([sky.level.ravel() for sky in skies])) if skies else 0.0
    noise = median(np.concatenate([sky.rms.ravel() for sky in skies])) if skies else 1.0
    return 1e-3 * abs(level) + 0.1 * noise


def _limits(values: NDArray[np.float32]) -> tuple[float, float]:
    known = values[np.isfinite(values)]
    if not known.size:
        return 0.0, 1.0
    low, high = (float(value) for value in np.percentile(known, [0.5, 99.5]))
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _map(
    layout: Layout,
    values: NDArray[np.float32],
    limits: tuple[float, float],
    colours: NDArray[np.uint8],
    title: str,
    about: str,
) -> str:
    d = Drawing(520.0, 520.0 * layout.height + 46)
    shown = np.dstack(
        [paint(values.astype(np.float64), *limits, colours), np.full(values.shape, 255, np.uint8)]
    )
    shown[~_covered(layout, values.shape)] = 0
    d.picture(0, 0, d.width, 520.0 * layout.height, png(shown), css="mesh")
    for index in range(len(layout.sizes)):
        d.polygon(layout.corners(index) * 520.0, "edge")
    _bar(d, limits, colours, title)
    return d.finish(about)


def _covered(layout: Layout, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    mask = np.zeros(shape, np.bool_)
    for index, (nx, ny) in enumerate(layout.sizes):
        rows, columns, x, y = layout.pixels(index, shape[1])
        mask[rows, columns] |= (x >= -0.5) & (x < nx - 0.5) & (y >= -0.5) & (y < ny - 0.5)
    return mask


def _bar(d: Drawing, limits: tuple[float, float], colours: NDArray[np.uint8], title: str) -> None:
    """A bar of colours with its numbers along the lower edge."""
    top, left, right = d.height - 36, 0.14 * d.width, 0.86 * d.width
    d.picture(left, top, right - left, 9, png(colours[None, ::4, :]))
    d.text(left - 6, top + 10, _plain(limits[0], limits), "tick end")
    d.text(right + 6, top + 10, _plain(limits[1], limits), "tick")
    d.text(0.5 * d.width, d.height - 8, title, "axis mid")


def _plain(value: float, limits: tuple[float, float]) -> str:
    span = limits[1] - limits[0]
    digits = 0 if span >= 20 else 1 if span >= 2 else 2 if span >= 0.2 else 3
    return f"{value:.{digits}f}"


def tiles_picture(
    ccds: Sequence[CcdPictures], layout: Layout, rows: Sequence[Row], name: str, grave: Sequence[int]
) -> str:
    """One figure of every CCD as a colour; those that stand out have a rim."""
    d = Drawing(520.0, 520.0 * layout.height + 46)
    values = [number(row, name) for row in rows]
    figure = FIGURES[name]
    limits = _tile_limits(values)
    unit = f" {figure.unit}" if figure.unit else ""
    order = sorted(range(len(ccds)), key=lambda index: grave[index])  # rims over their neighbours
    for index in order:
        value = values[index]
        known = isfinite(value)
        words = f"{ccds[index].name}: {format(value, _style(name)) if known else 'not measured'}{unit if known else ''}"
        corners = layout.corners(index) * 520.0
        css_name = f"tile g{grave[index]}" if known else f"tile none g{grave[index]}"
        d.polygon(corners, css_name, words, css(value, *limits, sequential()) if known else "")
    _bar(d, limits, sequential(), f"{LABELS.get(name, name)}{',' if unit else ''}{unit}")
    return d.finish(f"{LABELS.get(name, name)} per CCD")


def _style(name: str) -> str:
    style = FIGURES[name].style
    return ",.0f" if style == "d" else style


def _tile_limits(values: Sequence[float]) -> tuple[float, float]:
    known = [value for value in values if isfinite(value)]
    if not known:
        return 0.0, 1.0
    low, high = min(known), max(known)
    # A tenth of a percent is no difference that colours should cry out.
    least = 0.02 * abs(median(known)) or 1e-3
    if high - low < least:
        low, high = 0.5 * (low + high - least), 0.5 * (low + high + least)
    return low, high


def psf_picture(ccds: Sequence[CcdPictures], layout: Layout, rows: Sequence[Row]) -> str | None:
    """Width as colour and ellipticity as whiskers in cells of every CCD; None where no star was measured."""
    places, widths, shapes = _cells(ccds, layout, rows)
    if not len(places):
        return None
    in_arcsec = all(isfinite(number(row, "pixel_scale_arcsec")) for row in rows)
    d = Drawing(520.0, 520.0 * layout.height + 46)
    for index in range(len(ccds)):
        d.polygon(layout.corners(index) * 520.0, "edge ground")
    middle = median(widths)
    low, high = (float(value) for value in np.percentile(widths, [2.0, 98.0]))
    limits = min(low, 0.95 * middle), max(high, 1.05 * middle)
    spacing = 520.0 * _spacing(places)
    radius = float(np.clip(0.3 * spacing, 2.5, 13.0))
    for place, width in zip(places * 520.0, widths, strict=True):
        d.parts.append(
            f'<circle cx="{place[0]:.1f}" cy="{place[1]:.1f}" r="{radius:.1f}" '
            f'fill="{css(float(width), *limits, sequential())}"/>'
        )
    sizes = np.hypot(*shapes.T)
    largest = max(float(np.percentile(sizes, 95)), 0.05)
    length = float(np.clip(0.95 * spacing, 12.0, 60.0))
    for place, shape, size in zip(places * 520.0, shapes, sizes, strict=True):
        angle = 0.5 * np.arctan2(shape[1], shape[0])
        half = 0.5 * length * min(size / largest, 1.6)
        dx, dy = half * np.cos(angle), half * np.sin(angle)
        for css_name in ("halo", "whisker"):
            d.line(place[0] - dx, place[1] - dy, place[0] + dx, place[1] + dy, css_name)
    key = 0.05 if largest < 0.12 else 0.1 if largest < 0.3 else 0.3
    ruler = length * key / largest
    d.line(8, d.height - 11, 8 + ruler, d.height - 11, "whisker key")
    d.text(14 + ruler, d.height - 7, f"e = {key}", "tick")
    _bar(d, limits, sequential(), f"FWHM, {'arcsec' if in_arcsec else 'px'}")
    return d.finish("Map of the point spread function: width as colour, ellipticity as whiskers")


def _cells(ccds: Sequence[CcdPictures], layout: Layout, rows: Sequence[Row]) -> tuple[Floats, Floats, Floats]:
    """Places, shape (n, 2); widths (arcsec, or px where no scale is known); shapes on the picture, (n, 2)."""
    places, widths, shapes = [np.empty((0, 2))], [np.empty(0)], [np.empty((0, 2))]
    in_arcsec = all(isfinite(number(row, "pixel_scale_arcsec")) for row in rows)
    for index, (ccd, row) in enumerate(zip(ccds, rows, strict=True)):
        cells = ccd.cells
        if not cells.x.size:
            continue
        places.append(layout.place(index, cells.x, cells.y))
        widths.append(cells.fwhm_px * (number(row, "pixel_scale_arcsec") if in_arcsec else 1.0))
        matrix = layout.matrices[index][:, :2]
        angle = 0.5 * np.arctan2(cells.e2, cells.e1)
        along = matrix @ np.stack([np.cos(angle), np.sin(angle)])
        turned = 2.0 * np.arctan2(along[1], along[0])
        size = np.hypot(cells.e1, cells.e2)
        shapes.append(np.stack([size * np.cos(turned), size * np.sin(turned)], axis=1))
    return np.concatenate(places), np.concatenate(widths), np.concatenate(shapes)


def _spacing(places: Floats) -> float:
    """Typical distance of neighbours, in widths of the picture."""
    if len(places) < 2:
        return 0.1
    span = places.max(axis=0) - places.min(axis=0)
    return float(np.sqrt(max(span[0] * span[1], 1e-4) / len(places)))


def width_slope(
    ccds: Sequence[CcdPictures], layout: Layout, rows: Sequence[Row]
) -> tuple[float, float] | None:
    """Relative rise of the FWHM across the picture, and its direction in degrees: from up (north) towards left (east).

    From a plane through all cells; None where there are too few.
    """
    places, widths, _ = _cells(ccds, layout, rows)
    if len(widths) < 8:
        return None
    centred = places - places.mean(axis=0)
    design = np.column_stack([np.ones(len(widths)), centred])
    fit = np.linalg.lstsq(design, widths, rcond=None)[0]
    for _ in range(3):
        rest = np.abs(widths - design @ fit)
        kept = rest <= 3.5 * 1.4826 * max(float(np.median(rest)), 1e-9)
        if np.count_nonzero(kept) < 6:
            break
        fit = np.linalg.lstsq(design[kept], widths[kept], rcond=None)[0]
    ends = centred @ fit[1:]
    rise = float(np.ptp(ends)) / float(median(widths))
    # Only what the cells agree on: twice the scatter about the plane.
    if np.ptp(ends) < 2.0 * float(np.median(np.abs(widths - design @ fit))) * 1.4826:
        return None
    return rise, float(np.degrees(np.arctan2(-fit[1], -fit[2])) % 360.0)


def stars_picture(ccds: Sequence[CcdPictures]) -> tuple[str, float, int] | None:
    """Typical star, model and residual over all CCDs; with the residual's largest share of the peak, and how many stars."""
    known = [ccd.stamps for ccd in ccds if ccd.stamps is not None]
    if not known:
        return None
    side = min(stamp.star.shape[0] for stamp in known)

    def mean(parts: list[NDArray[np.float32]]) -> Floats:
        cut = [part[(len(part) - side) // 2 :][:side, (len(part) - side) // 2 :][:, :side] for part in parts]
        weights = np.array([stamp.n_stars for stamp in known], dtype=np.float64)
        return np.asarray(np.tensordot(weights / weights.sum(), np.stack(cut).astype(np.float64), axes=1))

    star, model, residual = (
        mean([getattr(stamp, name) for stamp in known]) for name in ("star", "model", "residual")
    )
    peak = float(star.max())
    d = Drawing(520.0, 230.0)
    edge = 160.0
    reach = max(0.02, min(float(np.abs(residual).max()) / peak, 0.3))
    for number_, (title, values) in enumerate((("typical star", star), ("model", model))):
        level = np.arcsinh(np.clip(values / peak, 0.0, None) * 50.0) / np.arcsinh(50.0)
        picture = paint(level, 0.0, 1.0, sequential())[::-1]
        d.picture(8 + number_ * (edge + 12), 8, edge, edge, png(picture), css="mesh")
        d.text(8 + number_ * (edge + 12) + edge / 2, 8 + edge + 18, title, "axis mid")
    picture = paint(residual / peak, -reach, reach, diverging())[::-1]
    d.picture(8 + 2 * (edge + 12), 8, edge, edge, png(picture), css="mesh")
    d.text(8 + 2 * (edge + 12) + edge / 2, 8 + edge + 18, "star − model", "axis mid")
    _bar(d, (-100 * reach, 100 * reach), diverging(), "residual, % of the peak")
    n_stars = sum(stamp.n_stars for stamp in known)
    about = f"Median of {n_stars} stars, the model at their places, and the difference"
    return d.finish(about), float(np.abs(residual).max() / peak), n_stars


def direction_words(angle_deg: float, on_sky: bool) -> str:
    """A direction on the picture, in words; `angle_deg` from up towards left."""
    sky = ("north", "north-east", "east", "south-east", "south", "south-west", "west", "north-west")
    frame = ("top", "top left", "left", "bottom left", "bottom", "bottom right", "right", "top right")
    return (sky if on_sky else frame)[round(angle_deg / 45.0) % 8]
