"""What `spica pixel` shows: a table with small bars, and a diagram as SVG or PNG."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.markup import escape

from spica_console import output

Row = Mapping[str, Any]

_BAR = 12
_EIGHTHS = " ▏▎▍▌▋▊▉█"
_WIDTH, _HEIGHT = 860.0, 420.0
_INK, _QUIET, _USED, _OUT, _PAPER, _GRID = "#18202c", "#566275", "#1f5fbf", "#c0163e", "#ffffff", "#d9dfe8"


# ---- on the terminal ----


def print_pixel(row: Row) -> None:
    """The pixel, and a line for each exposure."""
    console = output.console()
    console.print(
        f"[bold]{escape(row['name'])}[/] pixel {row['x']}, {row['y']}: "
        f"RA {row['ra_deg']:.6f}, Dec {row['dec_deg']:+.6f}, {row['combine']}"
    )
    console.print(f"  {summary(row)}")
    console.print(f"  {agreement(row)}")
    contributions = row["contributions"]
    if not contributions:
        console.print("  No exposure of the stack covers it.")
        return
    columns = ("exposure", "CCD", "x", "y", "value", "± 1σ", "share", "", "off median", "")
    low, high = _limits(contributions)
    console.print(output.table("", columns, (_cells(one, low, high) for one in contributions)))
    if row["n_elsewhere"]:
        console.print(f"  {row['n_elsewhere']} more of the stack's exposures do not cover it.")


def summary(row: Row) -> str:
    """Value, noise, and how many went in."""
    stack, contributions = row["stack"], row["contributions"]
    used = sum(one["weight"] > 0 and not one["clipped"] for one in contributions)
    clipped = sum(one["clipped"] for one in contributions)
    without = sum(one["weight"] <= 0 for one in contributions)
    if stack["value"] is None:
        value = "no value"
    else:
        sigma = f" ± {stack['weight'] ** -0.5:.4g}" if stack["weight"] else ""
        value = f"{stack['value']:.6g}{sigma}"
    parts = [f"{used} exposures" if used != 1 else "1 exposure"]
    parts += [f"{clipped} clipped"] if clipped else []
    parts += [f"{without} without a usable pixel there"] if without else []
    return f"{value} from {', '.join(parts)}"


def agreement(row: Row) -> str:
    """Whether what comes out of the samples now is what the stack has."""
    stack, again = row["stack"], row["again"]
    if row["agrees"]:
        return "[green]made again from its inputs: the same to the last bit[/]"
    return (
        f"[red]made again from its inputs: {_value(again['value'])} with weight {_value(again['weight'])}; the stack has "
        f"{_value(stack['value'])} with {_value(stack['weight'])}[/]: an input, a solution or the code changed since"
    )


def _value(value: float | None) -> str:
    return "no value" if value is None else f"{value:.9g}"


def _cells(one: Row, low: float, high: float) -> tuple[Any, ...]:
    ccd = one["ccds"][0] if one["ccds"] else None
    share = "" if one["share"] is None or one["weight"] <= 0 else f"{100 * one['share']:.1f} %"
    return (
        escape(one["name"]),
        escape(" ".join(seen["name"] for seen in one["ccds"])),
        f"{ccd['x_px']:.1f}" if ccd else "",
        f"{ccd['y_px']:.1f}" if ccd else "",
        "–" if one["value"] is None else f"{one['value']:.5g}",
        "" if one["sigma"] is None else f"{one['sigma']:.3g}",
        share,
        bar(one["share"]) if one["weight"] > 0 else "",
        "" if one["off_sigma"] is None else f"{one['off_sigma']:+.1f} σ",
        f"{verdict(one)} {_strip(one, low, high)}".strip(),
    )


def bar(share: float | None, width: int = _BAR) -> str:
    """A share from 0 to 1 as a bar, to an eighth of a character."""
    if share is None:
        return ""
    eighths = round(min(max(share, 0.0), 1.0) * width * 8)
    whole, rest = divmod(eighths, 8)
    return "█" * whole + (_EIGHTHS[rest] if rest else "")


def verdict(one: Row) -> str:
    """What became of a sample."""
    if one["weight"] <= 0:
        return "[yellow]no usable pixel[/]"
    if one["beside_outlier"]:
        return "[red]clipped[/], beside an outlier"
    if one["clipped"]:
        beyond = "" if one["n_sigma"] is None else f", {one['n_sigma']:+.1f} σ beyond what is allowed"
        return f"[red]clipped[/]{beyond}"
    return ""


def _strip(one: Row, low: float, high: float) -> str:
    """Where the value lies among the others."""
    if one["value"] is None or one["clipped"]:
        return ""
    place = round((_BAR - 1) * (one["value"] - low) / (high - low)) if high > low else _BAR // 2
    place = min(max(place, 0), _BAR - 1)
    return "·" * place + "●" + "·" * (_BAR - 1 - place)


def _limits(contributions: Sequence[Row]) -> tuple[float, float]:
    """Of the values that were used; of all, where none was."""
    values = [one["value"] for one in contributions if one["value"] is not None and not one["clipped"]]
    values = values or [one["value"] for one in contributions if one["value"] is not None] or [0.0]
    return min(values), max(values)


# ---- drawn ----


def points(row: Row) -> list[Row]:
    """Exposures that have a sample, in their order."""
    return [one for one in row["contributions"] if one["value"] is not None]


def svg(row: Row) -> str:
    """Value with its error by exposure, clipped ones marked, and the stack's value across. Stands for itself."""
    from spica_reporting.svg import Axes, Drawing, spread

    found = points(row)
    values, sigmas, clipped = _columns(found)
    drawing = Drawing(_WIDTH, _HEIGHT)
    drawing.rectangle(0, 0, _WIDTH, _HEIGHT, "paper")
    limits = spread([*(values - sigmas), *(values + sigmas)])
    axes = Axes(drawing, (0.5, max(len(found), 1) + 0.5), limits, left=76, top=52, bottom=92)
    axes.frame("", "flux per pixel", x_ticks=False)
    drawing.text(12, 20, title(row), "title")
    drawing.text(12, 38, _plain(summary(row)), "quiet")
    if row["stack"]["value"] is not None and limits[0] <= row["stack"]["value"] <= limits[1]:
        level = float(axes.y(row["stack"]["value"]))
        drawing.line(axes.left, level, axes.end, level, "stack")
    for number, (one, value, sigma, out) in enumerate(zip(found, values, sigmas, clipped, strict=True), 1):
        x, css = float(axes.x(number)), "out" if out else "used"
        low, high = (float(axes.y(edge)) for edge in (value - sigma, value + sigma))
        drawing.line(x, low, x, high, css)
        at = float(axes.y(value))
        if out:
            drawing.line(x - 5, at - 5, x + 5, at + 5, css)
            drawing.line(x - 5, at + 5, x + 5, at - 5, css)
        else:
            drawing.dots(np.array([x]), np.array([at]), "dot")
        if _named(number, len(found)):
            where = f"rotate(-50 {x:.1f} {axes.floor + 14:.1f})"
            drawing.text(x, axes.floor + 14, one["name"], "name", transform=where)
    return _alone(drawing.finish(title(row)))


def _columns(found: Sequence[Row]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return (
        np.array([one["value"] for one in found], np.float64),
        np.array([one["sigma"] or 0.0 for one in found], np.float64),
        np.array([one["clipped"] for one in found], np.bool_),
    )


def _named(number: int, count: int, most: int = 40) -> bool:
    """Names of so many exposures have room."""
    return (number - 1) % -(-count // most) == 0


def title(row: Row) -> str:
    """Which pixel of which stack."""
    where = f"RA {row['ra_deg']:.6f}, Dec {row['dec_deg']:+.6f}"
    return f"{row['name']}, pixel {row['x']}, {row['y']} ({where}), {row['combine']}"


def _plain(text: str) -> str:
    from rich.text import Text

    return Text.from_markup(text).plain


def _alone(picture: str) -> str:
    """A file of its own: size and style go with it."""
    style = (
        f"<style>text{{font:12px system-ui,'Noto Sans','Liberation Sans',sans-serif;fill:{_INK}}}"
        f".title{{font-size:15px;font-weight:600}}.quiet,.tick,.axis,.name{{fill:{_QUIET}}}.name{{text-anchor:end}}"
        f".mid{{text-anchor:middle}}.end{{text-anchor:end}}.paper{{fill:{_PAPER}}}.frame{{fill:none;stroke:{_QUIET}}}"
        f".grid{{stroke:{_GRID};stroke-width:.8}}.used{{stroke:{_USED};stroke-width:1.4}}"
        f".out{{stroke:{_OUT};stroke-width:1.6}}.stack{{stroke:{_INK};stroke-width:1.2;stroke-dasharray:6 4}}"
        f".dot{{stroke:{_USED};stroke-width:7;stroke-linecap:round}}</style>"
    )
    head, rest = picture.split(">", 1)
    opened = head.replace(
        "<svg ", f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH:.0f}" height="{_HEIGHT:.0f}" '
    )
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{opened}>{style}{rest}\n'


def png(row: Row) -> bytes:
    """The same as pixels."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    found = points(row)
    values, sigmas, clipped = _columns(found)
    figure = Figure(figsize=(_WIDTH / 100, _HEIGHT / 100), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    axes: Any = figure.add_subplot()
    place = np.arange(1, len(found) + 1)
    for mask, colour, marker, label in ((~clipped, _USED, "o", "used"), (clipped, _OUT, "x", "clipped")):
        if mask.any():
            axes.errorbar(
                place[mask], values[mask], sigmas[mask], fmt=marker, color=colour, markersize=6, label=label
            )
    if row["stack"]["value"] is not None:
        axes.axhline(row["stack"]["value"], color=_INK, linestyle="--", linewidth=1, label="stack")
    named = [number for number in place.tolist() if _named(number, len(found))]
    axes.set_xticks(
        named, [found[number - 1]["name"] for number in named], rotation=50, ha="right", fontsize=8
    )
    axes.set(xlim=(0.5, max(len(found), 1) + 0.5), ylabel="flux per pixel")
    axes.grid(axis="y", color=_GRID, linewidth=0.6)
    if axes.get_legend_handles_labels()[1]:
        axes.legend(fontsize=8, frameon=False)
    axes.set_title(f"{title(row)}\n{_plain(summary(row))}", fontsize=9, loc="left")
    target = io.BytesIO()
    # No date or version in it: the same pixel gives the same bytes.
    figure.savefig(target, format="png", metadata={"Software": None})
    return target.getvalue()


def write(row: Row, path: Path) -> None:
    """Write the diagram, of the kind that the file's name says. Raises `UsageError` (`bad_plot`)."""
    from spica_runtime.storage import whole_file

    from spica_console.coverage_view import check_name

    content = svg(row).encode() if check_name(path) == ".svg" else png(row)
    with whole_file(path) as part:
        part.write_bytes(content)
