"""Diagrams as SVG: text stays text, lines stay sharp, and the page's colours (light, dark, print) hold for them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from html import escape
from math import floor, isfinite, log10

import numpy as np
from numpy.typing import NDArray

from spica_reporting.encoding import data_uri

Floats = NDArray[np.float64]


def shorten(value: float) -> str:
    """A coordinate with a tenth of a pixel."""
    return f"{value:.1f}".removesuffix(".0")


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round values between two, some `about` of them; steps are 1, 2 or 5 times a power of ten."""
    if not (isfinite(low) and isfinite(high) and high > low):
        return []
    raw = (high - low) / max(about, 1)
    power = 10.0 ** floor(log10(raw))
    step = next(power * nice for nice in (1.0, 2.0, 5.0, 10.0) if power * nice >= raw * 0.999)
    first = int(np.ceil(low / step - 1e-9))
    last = int(np.floor(high / step + 1e-9))
    return [number * step for number in range(first, last + 1)]


def tick_text(value: float, step: float) -> str:
    """A tick's number with as many digits as the step needs."""
    digits = max(0, -floor(log10(step) + 1e-9)) if step > 0 else 0
    return f"{value:.{digits}f}" if abs(value) < 1e6 else f"{value:.0e}"


def spread(values: Iterable[float], margin: float = 0.06) -> tuple[float, float]:
    """Limits of an axis that shows all finite values; (0, 1) where there is none."""
    known = [value for value in values if isfinite(value)]
    if not known:
        return 0.0, 1.0
    low, high = min(known), max(known)
    room = (high - low) * margin or abs(high) * margin or 0.5
    return low - room, high + room


@dataclass
class Drawing:
    """A growing SVG picture."""

    width: float
    height: float
    parts: list[str] = field(default_factory=list)

    def text(self, x: float, y: float, words: str, css: str = "", **attributes: str) -> None:
        """Write words; they are escaped."""
        more = "".join(f' {key.replace("_", "-")}="{escape(value)}"' for key, value in attributes.items())
        name = f' class="{css}"' if css else ""
        self.parts.append(f'<text x="{shorten(x)}" y="{shorten(y)}"{name}{more}>{escape(words)}</text>')

    def line(self, x0: float, y0: float, x1: float, y1: float, css: str) -> None:
        """Draw a straight line."""
        self.parts.append(
            f'<path class="{css}" d="M{shorten(x0)} {shorten(y0)}L{shorten(x1)} {shorten(y1)}"/>'
        )

    def lines(self, points: Sequence[tuple[float, float]], css: str) -> None:
        """Draw a line through points."""
        if len(points) > 1:
            way = "L".join(f"{shorten(x)} {shorten(y)}" for x, y in points)
            self.parts.append(f'<path class="{css}" d="M{way}"/>')

    def polygon(self, corners: Floats, css: str, title: str = "", fill: str = "") -> None:
        """Draw a closed outline, shape (n, 2); a title is shown when pointed at."""
        way = "L".join(f"{shorten(x)} {shorten(y)}" for x, y in corners)
        words = f"<title>{escape(title)}</title>" if title else ""
        colour = f' style="fill:{fill}"' if fill else ""
        self.parts.append(f'<path class="{css}"{colour} d="M{way}Z">{words}</path>')

    def rectangle(
        self, x: float, y: float, width: float, height: float, css: str, title: str = "", fill: str = ""
    ) -> None:
        """Draw a rectangle."""
        corners = np.array([[x, y], [x + width, y], [x + width, y + height], [x, y + height]])
        self.polygon(corners, css, title, fill)

    def dots(self, x: Floats, y: Floats, css: str) -> None:
        """Draw points; size and colour are those of the stroke."""
        if np.size(x):
            way = "".join(f"M{shorten(a)} {shorten(b)}h0" for a, b in zip(x, y, strict=True))
            self.parts.append(f'<path class="{css}" d="{way}"/>')

    def picture(self, x: float, y: float, width: float, height: float, content: bytes, css: str = "") -> None:
        """Put a raster picture in."""
        name = f' class="{css}"' if css else ""
        self.parts.append(
            f'<image{name} x="{shorten(x)}" y="{shorten(y)}" width="{shorten(width)}" height="{shorten(height)}" '
            f'preserveAspectRatio="none" href="{data_uri(content)}"/>'
        )

    def finish(self, about: str) -> str:
        """The whole picture; `about` is for those who do not see it."""
        return (
            f'<svg viewBox="0 0 {shorten(self.width)} {shorten(self.height)}" role="img" '
            f'aria-label="{escape(about)}">{"".join(self.parts)}</svg>'
        )


@dataclass
class Axes:
    """A diagram's frame: from values to places."""

    drawing: Drawing
    x_limits: tuple[float, float]
    y_limits: tuple[float, float]
    log_y: bool = False
    left: float = 54.0
    right: float = 14.0
    top: float = 14.0
    bottom: float = 42.0

    def x(self, value: Floats | float) -> Floats:
        """Place of a value along x."""
        low, high = self.x_limits
        inner = self.drawing.width - self.left - self.right
        return np.asarray(self.left + inner * (np.asarray(value, dtype=np.float64) - low) / (high - low))

    def y(self, value: Floats | float) -> Floats:
        """Place of a value along y."""
        low, high = self.y_limits
        values = np.asarray(value, dtype=np.float64)
        if self.log_y:
            with np.errstate(divide="ignore", invalid="ignore"):
                values = np.log10(values)
            low, high = log10(low), log10(high)
        inner = self.drawing.height - self.top - self.bottom
        return np.asarray(self.drawing.height - self.bottom - inner * (values - low) / (high - low))

    @property
    def floor(self) -> float:
        """Place of the lower edge."""
        return self.drawing.height - self.bottom

    @property
    def end(self) -> float:
        """Place of the right edge."""
        return self.drawing.width - self.right

    def frame(self, x_title: str, y_title: str, *, x_ticks: bool = True) -> None:
        """Draw grid, ticks and titles; values go over it."""
        d = self.drawing
        for value in self._y_ticks():
            place = float(self.y(value))
            d.line(self.left, place, self.end, place, "grid")
            d.text(self.left - 6, place + 4, self._y_text(value), "tick end")
        marks = ticks(*self.x_limits, about=max(3, int((self.end - self.left) / 75))) if x_ticks else []
        for value in marks:
            place = float(self.x(value))
            d.line(place, self.top, place, self.floor, "grid")
            d.text(
                place,
                self.floor + 15,
                tick_text(value, marks[1] - marks[0] if len(marks) > 1 else 1.0),
                "tick mid",
            )
        d.rectangle(self.left, self.top, self.end - self.left, self.floor - self.top, "frame")
        d.text(0.5 * (self.left + self.end), d.height - 6, x_title, "axis mid")
        middle = 0.5 * (self.top + self.floor)
        d.text(13, middle, y_title, "axis mid", transform=f"rotate(-90 13 {shorten(middle)})")

    def _y_ticks(self) -> list[float]:
        low, high = self.y_limits
        if self.log_y:
            powers = range(int(np.ceil(log10(low))), int(np.floor(log10(high))) + 1)
            if len(powers) > 2 or high >= 1e4 or low <= 1e-3:
                return [10.0**power for power in powers]
            every = (nice * 10.0**power for power in range(-4, 5) for nice in (1.0, 2.0, 5.0))
            return [value for value in every if low <= value <= high]
        return ticks(low, high, about=max(3, int((self.floor - self.top) / 45)))

    def _y_text(self, value: float) -> str:
        if self.log_y:
            power = round(log10(value))
            small = -3 < power < 4 or abs(log10(value) - power) > 1e-9
            return f"{value:g}" if small else "10" + str(power).translate(_RAISED)
        marks = self._y_ticks()
        return tick_text(value, marks[1] - marks[0] if len(marks) > 1 else 1.0)


_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
