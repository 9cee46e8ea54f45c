"""Pictures over the focal plane as it lies on the sky: north up, east left."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import log10

import numpy as np
from spica_reporting.colours import Rgb, css, diverging
from spica_reporting.encoding import png
from spica_reporting.svg import Drawing, shorten

from spica_calib.report.words import plain
from spica_calib.science.diagnostics.geometry import Distortion, ModelChange
from spica_calib.science.diagnostics.plane import FocalPlane
from spica_calib.science.diagnostics.residuals import VectorMap
from spica_calib.science.stars import Floats

Marks = Mapping[str, tuple[int, str]]
"""Per CCD's name: how grave (1, 2), and in a word why."""

LARGE, NORMAL = 1000.0, 520.0
"""Widths of pictures in their own units."""
_TALLEST = 1.15
_KEY = 46.0
"""Room below the focal plane for scale and compass, in units of a normal picture."""
_LONGEST_CELLS = 2.6


class Sheet:
    """A drawing with the focal plane's outlines on it."""

    def __init__(self, plane: FocalPlane, width: float) -> None:
        self.plane = plane
        self.times = 1.0 if width < LARGE else 1.35
        every = np.concatenate([*plane.outlines_arcmin, np.empty((0, 2))])
        every = every if len(every) else np.array([[-1.0, -1.0], [1.0, 1.0]])
        low, high = every.min(axis=0), every.max(axis=0)
        extent = np.maximum(high - low, 1e-6)
        self.margin = 10.0
        room = width - 2.0 * self.margin
        self.per_arcmin = float(min(room / extent[0], _TALLEST * room / extent[1]))
        self.middle = 0.5 * (low + high)
        self.key = _KEY * self.times
        self.body = float(extent[1] * self.per_arcmin + 2.0 * self.margin)
        self.drawing = Drawing(width, self.body + self.key)

    def at(self, place_arcmin: Floats) -> Floats:
        """Places on the drawing, shape (n, 2)."""
        off = (np.atleast_2d(place_arcmin) - self.middle) * -self.per_arcmin
        return np.asarray(off + np.array([0.5 * self.drawing.width, 0.5 * self.body]))

    def outlines(self, marks: Marks, *, ground: bool = True) -> None:
        """Draw the CCDs' edges, those marked stand out."""
        for name, outline in zip(self.plane.names, self.plane.outlines_arcmin, strict=True):
            grave, word = marks.get(name, (0, ""))
            kind = "plate ground" if ground else "plate"
            self.drawing.polygon(self.at(outline), f"{kind} g{grave}", f"{name}{': ' if word else ''}{word}")

    def labels(self, marks: Marks) -> None:
        """Write the CCDs' names and why they are marked, over all else."""
        if len(self.plane.names) > 1:
            for name, outline in zip(self.plane.names, self.plane.outlines_arcmin, strict=True):
                self._label(name, self.at(outline), marks.get(name, (0, "")))

    def _label(self, name: str, corners: Floats, mark: tuple[int, str]) -> None:
        low, high = corners.min(axis=0), corners.max(axis=0)
        room, size = float(high[0] - low[0]), 12.0 * self.times
        if room < 3.2 * size:
            return
        x = float(0.5 * (low[0] + high[0]))
        style = {"style": f"font-size:{shorten(size)}px"}
        self.drawing.text(
            x, float(low[1]) + 1.15 * size, _fit(name, room, size), f"plate-name mid g{mark[0]}", **style
        )
        for line, word in enumerate(mark[1].split(", ")[:3] if mark[1] else ()):
            y = float(high[1]) - (0.5 + 1.1 * (min(len(mark[1].split(", ")), 3) - 1 - line)) * size
            self.drawing.text(x, y, _fit(word, room, size), f"plate-name mid g{mark[0]}", **style)

    def finish(self, about: str) -> str:
        """The picture with its compass."""
        d, t = self.drawing, self.times
        x, y, arm = d.width - 40.0 * t, d.height - 8.0 * t, 24.0 * t
        d.line(x + arm, y, x + arm, y - arm, "needle")
        d.line(x + arm, y, x, y, "needle")
        style = {"style": f"font-size:{shorten(11.5 * t)}px"}
        d.text(x + arm - 5 * t, y - arm + 8 * t, "N", "tick end", **style)
        d.text(x - 3 * t, y + 3 * t, "E", "tick end", **style)
        goal = 0.2 * d.width / self.per_arcmin
        length = max((n for n in _LENGTHS_ARCMIN if n <= goal), default=_LENGTHS_ARCMIN[0])
        end = x - 26.0 * t
        d.line(end - length * self.per_arcmin, y, end, y, "needle")
        words = (
            f"{round(60 * length)}″" if length < 1 else f"{length:g}′" if length < 60 else f"{length / 60:g}°"
        )
        d.text(end - 0.5 * length * self.per_arcmin, y - 6 * t, words, "tick mid", **style)
        return d.finish(about)

    # ---- arrows ----

    def arrows(self, places: Floats, vectors: Floats, per_unit: float, css_class: str) -> None:
        """Arrows centred on their places; `vectors` towards east and north, `per_unit` units of drawing each."""
        if not len(places):
            return
        middle = self.at(places)
        half = -0.5 * per_unit * vectors
        start, end = middle - half, middle + half
        way = []
        for a, b, size in zip(start, end, np.hypot(*half.T) * 2.0, strict=True):
            way.append(f"M{shorten(a[0])} {shorten(a[1])}L{shorten(b[0])} {shorten(b[1])}")
            if size > 3.0:
                back = (a - b) / size * min(0.36 * size, 6.5 * self.times)
                side = np.array([-back[1], back[0]]) * 0.5
                left, right = b + back + side, b + back - side
                way.append(
                    f"M{shorten(left[0])} {shorten(left[1])}L{shorten(b[0])} {shorten(b[1])}"
                    f"L{shorten(right[0])} {shorten(right[1])}"
                )
        self.drawing.parts.append(f'<path class="{css_class}" d="{"".join(way)}"/>')

    def arrow_key(self, length: float, per_unit: float, words: str) -> None:
        """The scale of arrows, below the focal plane."""
        d, t = self.drawing, self.times
        y, size = d.height - 12.0 * t, length * per_unit
        x = 14.0 * t
        head = min(0.36 * size, 6.5 * t)
        d.parts.append(
            f'<path class="arrow strong" d="M{shorten(x)} {shorten(y)}h{shorten(size)}m{shorten(-head)} '
            f'{shorten(-0.5 * head)}l{shorten(head)} {shorten(0.5 * head)}l{shorten(-head)} {shorten(0.5 * head)}"/>'
        )
        d.text(x, y - 10.0 * t, words, "tick", style=f"font-size:{shorten(12 * t)}px")

    # ---- colours ----

    def cells(self, index: int, shape: tuple[int, int], fills: Sequence[str], titles: Sequence[str]) -> None:
        """Coloured cells of one CCD, rows from the bottom."""
        ccd = self.plane.ccds[index]
        rows, columns = shape
        x = np.linspace(0.5, ccd.nx + 0.5, columns + 1)
        y = np.linspace(0.5, ccd.ny + 0.5, rows + 1)
        corner = self.at(
            self.plane.place_arcmin(index, np.tile(x, rows + 1), np.repeat(y, columns + 1))
        ).reshape(rows + 1, columns + 1, 2)
        for k, (fill, title) in enumerate(zip(fills, titles, strict=True)):
            r, c = divmod(k, columns)
            outline = np.array([corner[r, c], corner[r, c + 1], corner[r + 1, c + 1], corner[r + 1, c]])
            self.drawing.polygon(outline, "cell", title, fill)

    def colour_key(self, low: float, high: float, colours: Rgb, words: str, digits: int) -> None:
        """The scale of colours, below the focal plane."""
        d, t = self.drawing, self.times
        y, width = d.height - 20.0 * t, 190.0 * t
        d.picture(14 * t, y - 8 * t, width, 9 * t, png(colours[None, ::4, :]))
        for share in (0.0, 0.5, 1.0):
            anchor = "tick" if share == 0 else "tick mid" if share == 0.5 else "tick end"
            d.text(14 * t + share * width, y + 14 * t, plain(low + share * (high - low), digits), anchor)
        d.text(14 * t, y - 13 * t, words, "tick")


_LENGTHS_ARCMIN = (1 / 30, 1 / 12, 1 / 6, 0.5, 1, 2, 5, 10, 15, 20, 30, 60, 120, 300)


def _fit(words: str, room: float, size: float) -> str:
    most = max(int(room / (0.62 * size)), 3)
    return words if len(words) <= most else words[: most - 1] + "…"


def round_length(value: float) -> float:
    """The largest of 1, 2, 5 times a power of ten that is not more than this."""
    power = 10.0 ** np.floor(log10(value))
    return float(max(power * nice for nice in (1.0, 2.0, 5.0) if power * nice <= value * 1.001))


def _round_angle(mas: float) -> str:
    return f"{mas / 1000.0:g}″" if mas >= 1000.0 else f"{mas:g} mas"


def vector_picture(plane: FocalPlane, spots: VectorMap, kind: str, marks: Marks, width: float = LARGE) -> str:
    """Residual vectors: thin where chance may make them, strong where not, crossed out ones thin and red."""
    sheet = Sheet(plane, width)
    sheet.outlines(marks)
    length = np.hypot(*spots.vector_mas.T)
    cell = spots.cell_arcmin * sheet.per_arcmin
    # An arrow as long as the cell's side is half as much again as single detections scatter, or more where
    # vectors are longer: noise is to look like noise.
    usual = max(1.5 * spots.sigma_mas, 1e-3)
    shown = length[spots.kept] if spots.kept.any() else length
    if len(shown):
        usual = max(usual, float(np.percentile(shown, 99)) / 1.6)
    per_mas = min(cell, 46.0 * sheet.times) / usual
    # Single wild detections are not drawn across the picture.
    capped = spots.vector_mas * np.minimum(1.0, _LONGEST_CELLS * usual / np.maximum(length, 1e-9))[:, None]
    strong = spots.strong
    for mask, css_class in (
        (~strong & spots.kept, "arrow" if spots.binned else "arrow single"),
        (~spots.kept, "arrow cut"),
        (strong & spots.kept, "arrow strong"),
    ):
        sheet.arrows(spots.place_arcmin[mask], capped[mask], per_mas, css_class)
    if width >= LARGE:
        sheet.labels(marks)
    scale = round_length(60.0 * sheet.times / per_mas)
    what = "median of a cell" if spots.binned else "one star" if kind == "external" else "one detection"
    sheet.arrow_key(scale, per_mas, f"{_round_angle(scale)}, {what}")
    return sheet.finish(f"{kind.capitalize()} residual vectors over the focal plane")


def scale_picture(plane: FocalPlane, bends: Distortion) -> str:
    """Pixel scale over the focal plane, against its median."""
    sheet = Sheet(plane, NORMAL)
    middle = float(np.median(np.concatenate([part.ravel() for part in bends.scale_arcsec])))
    parts = [100.0 * (part.ravel() / middle - 1.0) for part in bends.scale_arcsec]
    reach = max(float(np.abs(np.concatenate(parts)).max()), 1e-3)
    colours = diverging()
    for index, values in enumerate(parts):
        fills = [css(float(value), -reach, reach, colours) for value in values]
        titles = [
            f"{plane.names[index]}: {middle * (1 + value / 100):.5f}″ per px, {value:+.3f} %"
            for value in values
        ]
        sheet.cells(index, bends.shape, fills, titles)
    sheet.outlines({}, ground=False)
    digits = max(1, int(np.ceil(-log10(reach))) + 1)
    sheet.colour_key(-reach, reach, colours, f"pixel scale against {middle:.4f}″, %", digits)
    return sheet.finish("Pixel scale over the focal plane")


def bend_picture(plane: FocalPlane, bends: Distortion) -> str:
    """What the best linear map of each CCD leaves."""
    sheet = Sheet(plane, NORMAL)
    sheet.outlines({})
    places, vectors = np.concatenate(bends.place_arcmin), np.concatenate(bends.bend_arcsec)
    cells = bends.shape[0] * bends.shape[1]
    side = np.sqrt(_area(plane.outlines_arcmin[0]) / cells) * sheet.per_arcmin
    longest = max(bends.largest_bend_arcsec, 1e-6)
    per_arcsec = 1.5 * side / longest
    sheet.arrows(places, vectors, per_arcsec, "arrow")
    scale = round_length(60.0 / per_arcsec)
    sheet.arrow_key(scale, per_arcsec, _round_angle(1000.0 * scale))
    return sheet.finish("Distortion: displacement from each CCD's best linear map")


def change_picture(plane: FocalPlane, change: ModelChange, marks: Marks) -> str:
    """How the model of the focal plane changed."""
    sheet = Sheet(plane, NORMAL)
    sheet.outlines(marks)
    length = np.hypot(*change.change_mas.T)
    strong = length > 4.0 * np.maximum(change.error_mas, 1e-9)
    usual = max(float(np.percentile(length, 97)), float(length.max()) / _LONGEST_CELLS, 1e-6)
    cells = max(len(length) / max(len(plane.ccds), 1), 1.0)
    side = np.sqrt(_area(plane.outlines_arcmin[0]) / cells) * sheet.per_arcmin
    per_mas = side / usual
    capped = change.change_mas * np.minimum(1.0, _LONGEST_CELLS * usual / np.maximum(length, 1e-9))[:, None]
    for mask, css_class in ((~strong, "arrow"), (strong, "arrow strong")):
        sheet.arrows(change.place_arcmin[mask], capped[mask], per_mas, css_class)
    scale = round_length(60.0 / per_mas)
    sheet.arrow_key(scale, per_mas, _round_angle(scale))
    return sheet.finish("Change of the focal plane model against the version before")


def _area(outline: Floats) -> float:
    x, y = outline.T
    return 0.5 * abs(float(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1))))
