"""The coverage of a stack that is planned: as a picture (SVG or PNG), and as a few lines on the terminal."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from spica_runtime.errors import UsageError

if TYPE_CHECKING:
    from rich.text import Text
    from spica_stack.dryrun import DryRun
    from spica_stack.science.coverage import Coverage

MOST_OUTLINES = 1500
"""More CCDs than this hide the map under their outlines: then only those of so many are drawn, evenly taken."""
_SIDE_PX = 720.0
_MOST_COLUMNS, _MOST_LINES = 48, 20
_LEGEND_PX = 64.0
_TITLE_PX = 44.0
_INK, _QUIET, _PAPER = "#18202c", "#566275", "#ffffff"


def outlines(coverage: Coverage) -> NDArray[np.float64]:
    """Corners of the CCDs that are drawn, (n, 4, 2) in pixels of the grid: whole exposures, evenly taken."""
    known = np.isfinite(coverage.outlines_px).all(axis=(1, 2))
    if not known.any():
        return np.zeros((0, 4, 2))
    exposures = np.unique(coverage.owner[known])
    per_exposure = known.sum() / len(exposures)
    count = min(len(exposures), max(1, int(MOST_OUTLINES / per_exposure)))
    drawn = exposures[np.unique(np.linspace(0, len(exposures) - 1, count).astype(int))]
    return coverage.outlines_px[known & np.isin(coverage.owner, drawn)]


def svg(told: DryRun, title: str) -> str:
    """The map with the outlines of CCDs, a scale of colours, and what is predicted. Stands for itself."""
    from spica_reporting.colours import css, paint, sequential
    from spica_reporting.encoding import png
    from spica_reporting.svg import Drawing, shorten

    assert told.prediction is not None and told.laid is not None
    grid, coverage = told.laid.grid, told.prediction.coverage
    unit = _SIDE_PX / max(grid.width, grid.height)
    width, height = grid.width * unit, grid.height * unit
    drawing = Drawing(width + _LEGEND_PX + 24, height + _TITLE_PX + 24)
    most = max(1, told.prediction.exposures_most)
    colours = sequential()
    values = np.where(coverage.covered, coverage.exposures, np.nan)
    picture = paint(values[::-1], 0.0, float(most), colours)
    ny, nx = values.shape
    # Cells may reach a little beyond the grid: the picture does, and its frame cuts it.
    across, up = nx * coverage.cell_px * unit, ny * coverage.cell_px * unit
    drawing.rectangle(0, 0, drawing.width, drawing.height, "paper")
    drawing.parts.append(
        f'<clipPath id="grid"><rect x="12" y="{shorten(_TITLE_PX)}" width="{shorten(width)}" '
        f'height="{shorten(height)}"/></clipPath><g clip-path="url(#grid)">'
    )
    drawing.picture(12, _TITLE_PX + height - up, across, up, png(np.ascontiguousarray(picture)), "mesh")
    for quad in outlines(coverage):
        drawing.polygon(
            np.column_stack([12 + (quad[:, 0] - 0.5) * unit, _TITLE_PX + height - (quad[:, 1] - 0.5) * unit]),
            "ccd",
        )
    drawing.parts.append("</g>")
    drawing.rectangle(12, _TITLE_PX, width, height, "frame")
    drawing.text(12, 18, title, "title")
    drawing.text(12, 35, summary(told), "quiet")
    steps = min(most + 1, 12)
    for number in range(steps):
        value = round(most * number / max(steps - 1, 1))
        y = _TITLE_PX + height * (1 - (number + 1) / steps)
        drawing.rectangle(
            width + 24, y, 16, height / steps, "key",
            fill="#2c2f3a" if value == 0 else css(value, 0.0, float(most), colours),
        )  # fmt: skip
        drawing.text(width + 44, y + 0.5 * height / steps + 4, str(value), "quiet")
    drawing.text(width + 24, _TITLE_PX + height + 16, "exposures", "quiet")
    return _alone(drawing.finish(f"Coverage of {title}"), drawing.width, drawing.height)


def _alone(picture: str, width: float, height: float) -> str:
    """A file of its own: size and style go with it."""
    style = (
        f"<style>text{{font:12px system-ui,'Noto Sans','Liberation Sans',sans-serif;fill:{_INK}}}"
        f".title{{font-size:15px;font-weight:600}}.quiet{{fill:{_QUIET}}}.paper{{fill:{_PAPER}}}"
        f".mesh{{image-rendering:pixelated}}.ccd{{fill:none;stroke:#fff;stroke-opacity:.28;stroke-width:.6}}"
        f".frame{{fill:none;stroke:{_QUIET};stroke-width:1}}</style>"
    )
    head, rest = picture.split(">", 1)
    opened = head.replace(
        "<svg ", f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height:.0f}" '
    )
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{opened}>{style}{rest}\n'


def png_picture(told: DryRun, title: str) -> bytes:
    """The same as pixels."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.collections import PolyCollection
    from matplotlib.colors import ListedColormap
    from matplotlib.figure import Figure
    from spica_reporting.colours import sequential

    assert told.prediction is not None and told.laid is not None
    grid, coverage = told.laid.grid, told.prediction.coverage
    figure = Figure(
        figsize=(8.0, 8.0 * max(0.3, min(1.6, grid.height / grid.width)) + 0.4), dpi=110, layout="constrained"
    )
    FigureCanvasAgg(figure)
    axes: Any = figure.add_subplot()
    ny, nx = coverage.exposures.shape
    colours = ListedColormap(sequential() / 255.0).with_extremes(bad="#2c2f3a")
    shown = axes.imshow(
        np.ma.masked_equal(coverage.exposures, 0),
        origin="lower",
        extent=(0.5, 0.5 + nx * coverage.cell_px, 0.5, 0.5 + ny * coverage.cell_px),
        cmap=colours,
        vmin=0,
        vmax=max(1, told.prediction.exposures_most),
        interpolation="nearest",
    )
    axes.add_collection(
        PolyCollection(list(outlines(coverage)), facecolors="none", edgecolors="#ffffff48", linewidths=0.5)
    )
    axes.set(
        xlim=(0.5, grid.width + 0.5), ylim=(0.5, grid.height + 0.5), xlabel="x (pixels)", ylabel="y (pixels)"
    )
    axes.set_title(f"{title}\n{summary(told)}", fontsize=10, loc="left")
    figure.colorbar(shown, ax=axes, label="exposures", fraction=0.046, pad=0.03, aspect=30)
    target = io.BytesIO()
    # No date or version in it: the same plan gives the same bytes.
    figure.savefig(target, format="png", metadata={"Software": None})
    return target.getvalue()


def write(told: DryRun, title: str, path: Path) -> None:
    """Write the picture, of the kind that the file's name says. Raises `UsageError` (`bad_plot`)."""
    from spica_runtime.storage import whole_file

    kind = check_name(path)
    if told.prediction is None:
        raise UsageError("bad_plot", "There is nothing to draw: no stack would be made.")
    content = svg(told, title).encode() if kind == ".svg" else png_picture(told, title)
    with whole_file(path) as part:
        part.write_bytes(content)


def check_name(path: Path) -> str:
    """Kind of picture. Raises `UsageError` (`bad_plot`)."""
    kind = path.suffix.lower()
    if kind not in (".svg", ".png"):
        raise UsageError("bad_plot", f"--plot takes a file named .svg or .png, not {path.name!r}.")
    if not path.parent.is_dir():
        raise UsageError("bad_plot", f"There is no folder {path.parent}.")
    return kind


def summary(told: DryRun) -> str:
    """What is predicted, on one line."""
    predicted = told.prediction
    if predicted is None:
        return ""
    parts = [f"{predicted.n_exposures} exposures, {predicted.exposure_time_s:,.0f} s"]
    if predicted.depth_mag is not None:
        parts.append(f"depth {predicted.depth_mag:.2f} mag")
    if predicted.fwhm_arcsec is not None:
        parts.append(f"seeing {predicted.fwhm_arcsec:.2f}″")
    parts.append(f"{100 * predicted.covered:.0f} % of the grid covered")
    return ", ".join(parts)


def _columns(coverage: Coverage) -> int:
    """So many characters across that the map is neither wider nor higher than the eye takes in."""
    ny, nx = coverage.exposures.shape
    return max(8, min(_MOST_COLUMNS, int(2 * _MOST_LINES * nx / ny)))


def small(coverage: Coverage) -> Text:
    """The map in characters, each two cells high: the more exposures, the lighter."""
    from rich.text import Text
    from spica_reporting.colours import css, sequential

    columns = _columns(coverage)
    ny, nx = coverage.exposures.shape
    rows = max(2, round(columns * ny / nx))
    rows += rows % 2
    y = ((np.arange(rows) + 0.5) * ny / rows).astype(int)[::-1]
    x = ((np.arange(columns) + 0.5) * nx / columns).astype(int)
    values = coverage.exposures[np.ix_(y, x)]
    most, colours = max(1, int(coverage.exposures.max(initial=0))), sequential()

    def colour(value: int) -> str:
        return css(float(value), 0.0, float(most), colours) if value else "#2c2f3a"

    text = Text()
    for upper, lower in zip(values[::2], values[1::2], strict=True):
        text.append("  ")
        for above, below in zip(upper.tolist(), lower.tolist(), strict=True):
            text.append("▀", style=f"{colour(above)} on {colour(below)}")
        text.append("\n")
    return text


def small_plain(coverage: Coverage) -> str:
    """The same without colours, one digit or letter a cell: tenths of the most exposures, a dot where there are none."""
    columns = _columns(coverage)
    ny, nx = coverage.exposures.shape
    rows = max(1, round(0.5 * columns * ny / nx))
    y = ((np.arange(rows) + 0.5) * ny / rows).astype(int)[::-1]
    x = ((np.arange(columns) + 0.5) * nx / columns).astype(int)
    values = coverage.exposures[np.ix_(y, x)]
    most = max(1, int(coverage.exposures.max(initial=0)))
    shades = "123456789" if most > 9 else "".join(str(number) for number in range(1, most + 1))

    def shade(value: int) -> str:
        return "·" if value == 0 else shades[min(len(shades) - 1, (value * len(shades) - 1) // most)]

    return "\n".join("  " + "".join(shade(value) for value in row) for row in values.tolist())
