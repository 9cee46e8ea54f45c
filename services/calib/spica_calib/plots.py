"""A small picture of a solution: where residuals point, how they are distributed, how fluxes compare."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from spica_runtime.storage import whole_file

from spica_calib.science.astrometry.ccd import ResidualStatistics
from spica_calib.science.stars import Floats

_MAX_ARROWS = 2000


def plot_residuals(
    path: Path,
    title: str,
    x: Sequence[Floats],
    y: Sequence[Floats],
    residual_mas: Floats,
    stats: ResidualStatistics,
) -> None:
    """Write a PNG: residual vectors over the field (coordinates in arcsec) and histograms per axis."""
    figure = Figure(figsize=(9.0, 4.2), dpi=80)
    figure.subplots_adjust(left=0.09, right=0.98, bottom=0.13, top=0.91, wspace=0.2)
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    px, py = np.concatenate([*x, []]), np.concatenate([*y, []])
    step = max(1, len(px) // _MAX_ARROWS)
    if len(px):
        left.quiver(
            px[::step],
            py[::step],
            *residual_mas[::step].T,
            angles="xy",
            color="#20639b",
            width=0.003,
            pivot="mid",
        )
        limit = 4.0 * max(stats.rms_ra, stats.rms_dec, 1e-3)
        for axis, (name, colour) in enumerate((("RA cos Dec", "#20639b"), ("Dec", "#d1495b"))):
            right.hist(
                np.clip(residual_mas[:, axis], -limit, limit),
                bins=np.linspace(-limit, limit, 41).tolist(),
                histtype="step",
                color=colour,
                label=name,
            )
        right.legend(frameon=False)
    left.set(title=title, xlabel="xi (arcsec)", ylabel="eta (arcsec)", aspect="equal")
    left.invert_xaxis()
    right.set(
        title=f"{stats.n} stars, rms {stats.rms_ra:.0f} and {stats.rms_dec:.0f} mas",
        xlabel="star minus source (mas)",
    )
    with whole_file(path) as part:
        figure.savefig(part, format="png", metadata={"Software": None})
