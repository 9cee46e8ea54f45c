"""A small picture of a solution, for lists: where residuals point, and how they are distributed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from spica_runtime.storage import whole_file

from spica_calib.report.skyplane import round_length
from spica_calib.report.words import angle, angles, plain
from spica_calib.science.diagnostics.inputs import Calibration
from spica_calib.science.diagnostics.plane import FocalPlane, focal_plane
from spica_calib.science.diagnostics.residuals import Cloud, VectorMap, cloud, vector_map

_EDGE, _QUIET, _STRONG, _LINE = "#8a96a8", "#76869f", "#0b57c4", "#c26a00"


def write_plot(path: Path, calibration: Calibration, exposure: int | None = None) -> None:
    """Write a PNG of one exposure, or (None) of all that were solved; the same input gives the same bytes.

    External residuals, or internal ones where no reference star took part; where there are neither, it says so.
    """
    chosen = calibration.own if exposure is None else (exposure,)
    plane = focal_plane(calibration, chosen)
    kind = "external" if vector_map(plane, "external") is not None else "internal"
    spots, points = vector_map(plane, kind), cloud(plane, kind)
    figure = Figure(figsize=(9.0, 4.6), dpi=100)
    FigureCanvasAgg(figure)
    figure.subplots_adjust(left=0.075, right=0.985, bottom=0.115, top=0.86, wspace=0.22)
    left, right = figure.subplots(1, 2)
    name = calibration.title(chosen[0])
    zero = calibration.zero_point(chosen[0]) if len(chosen) == 1 else None
    words = [f"{len(chosen)} exposures from {name}" if len(chosen) > 1 else name]
    if zero is not None and zero.mag is not None:
        sigma = f" ± {plain(zero.sigma_mag, 3)}" if zero.sigma_mag is not None else ""
        words.append(f"zero point {zero.mag:.3f}{sigma} mag AB")
    figure.suptitle(" · ".join(words), fontsize=11)
    _draw_map(left, plane, spots, kind)
    _draw_cloud(right, points, kind)
    with whole_file(path) as part:
        figure.savefig(part, format="png", metadata={"Software": None})


def _draw_map(panel: Axes, plane: FocalPlane, spots: VectorMap | None, kind: str) -> None:
    for outline in plane.outlines_arcmin:
        panel.fill(*outline.T, facecolor="#f2f5f9", edgecolor=_EDGE, linewidth=0.6)
    usual = 0.0
    if spots is not None and len(spots.n):
        length = np.hypot(*spots.vector_mas.T)
        usual = max(spots.sigma_mas, float(np.percentile(length, 99)) / 1.6, 1e-9)
        # The axis runs towards the west: quiver turns the arrows along with it.
        for mask, colour in ((spots.strong, _STRONG), (~spots.strong, _QUIET)):
            panel.quiver(
                *spots.place_arcmin[mask].T, *spots.vector_mas[mask].T, angles="xy", scale_units="xy",
                scale=usual / spots.cell_arcmin, pivot="mid", color=colour, width=0.003,
            )  # fmt: skip
        panel.set_title(f"{kind} residuals", fontsize=9, loc="left")
    else:
        panel.set_title("no residuals: no star is in common", fontsize=9, loc="left")
    panel.set(xlabel="east, arcmin", ylabel="north, arcmin", aspect="equal")
    panel.invert_xaxis()
    panel.tick_params(labelsize=8)
    if usual > 0.0 and spots is not None:
        key = round_length(3.0 * usual if spots.binned else usual)
        west, east = panel.get_xlim()
        share = key / usual * spots.cell_arcmin / abs(west - east)
        panel.plot([0.99 - share, 0.99], [1.03, 1.03], color=_QUIET, transform=panel.transAxes, clip_on=False)
        panel.text(
            0.98 - share, 1.03, angle(key), fontsize=8, ha="right", va="center", transform=panel.transAxes
        )


def _draw_cloud(panel: Axes, points: Cloud | None, kind: str) -> None:
    if points is None:
        panel.text(0.5, 0.5, "fewer than three residuals", ha="center", transform=panel.transAxes)
        panel.set_axis_off()
        return
    by, unit = (1000.0, "arcsec") if points.limit_mas >= 2000.0 else (1.0, "mas")
    reach = points.limit_mas / by
    panel.plot(*(points.residual_mas / by).T, ".", color="#2c62a8", markersize=2.0, alpha=0.5)
    long, short, turn = points.axes
    t, rad = np.linspace(0.0, 2.0 * np.pi, 73), np.radians(turn)
    x = long * np.cos(t) * np.cos(rad) - short * np.sin(t) * np.sin(rad) + points.centre_mas[0]
    y = long * np.cos(t) * np.sin(rad) + short * np.sin(t) * np.cos(rad) + points.centre_mas[1]
    panel.plot(x / by, y / by, color=_LINE, linewidth=1.6)
    panel.axhline(0.0, color=_EDGE, linewidth=0.7)
    panel.axvline(0.0, color=_EDGE, linewidth=0.7)
    panel.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal")
    panel.set(xlabel=f"ΔRA cos δ, {unit}", ylabel=f"ΔDec, {unit}")
    panel.set_title(f"{len(points.residual_mas):,} {kind}, σ {angles(points.sigma_mas)}", fontsize=9)
    panel.tick_params(labelsize=8)
