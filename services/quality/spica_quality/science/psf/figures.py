"""What the model of the point spread function says in numbers."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite, nan

import numpy as np
from numpy.typing import NDArray

from spica_quality.science.psf.model import PsfModel, render
from spica_quality.science.psf.moffat import Moffat, fit_moffat, moffat_samples

Floats = NDArray[np.float64]
Pixels = NDArray[np.float32]

_CELLS = 3
_MOST_CELLS = 7
_FINE = 5


@dataclass(frozen=True, slots=True)
class PsfCell:
    """The point spread function at one place of the frame; lengths in px."""

    x: float
    y: float
    fwhm_px: float
    ellipticity: float
    angle_deg: float


@dataclass(frozen=True, slots=True)
class PsfFigures:
    """Figures of one CCD's model. NaN where there is no model. Unless said otherwise, in the middle of the frame."""

    n_candidates: int = 0
    """Stars that were tried."""
    n_stars: int = 0
    """Stars that the model rests on."""
    fwhm_px: float = nan
    """Of the light that falls onto the pixels (Moffat profile integrated over them); mean over the frame."""
    fwhm_min_px: float = nan
    """Smallest of the cells."""
    fwhm_max_px: float = nan
    fwhm_with_pixel_px: float = nan
    """Of what the pixels see: wider by the pixel's own width."""
    moffat_beta: float = nan
    """Exponent of the Moffat profile; 50 stands for all that is as good as a Gaussian."""
    half_light_diameter_px: float = nan
    """Diameter of the circle that holds half of the model's light, pixel included."""
    ellipticity: float = nan
    """1 - b/a."""
    elongation: float = nan
    """a/b."""
    angle_deg: float = nan
    """Of the major axis, from +x towards +y."""
    asymmetry: float = nan
    """Sum of |model - model turned by 180°| over its light; 0 symmetric, 2 no overlap at all."""
    chi2: float = nan
    """Per degree of freedom, of the accepted stars' cores against the model."""
    residual: float = nan
    """Sum of |star - model| over the star's light, less what noise alone gives, 0 at least; median of the brighter
    half of the stars."""
    moffat_residual: float = nan
    """Sum of |model - Moffat profile| over its light: how little it is like one. Above 0.15: rings, trails, doubles,
    of which the Moffat profile's width and exponent say little."""
    noise_area_px: float = nan
    """1 / sum of psf², px²: the area over which an optimal measurement collects noise."""
    cells: tuple[PsfCell, ...] = ()
    """At a grid of positions over the frame."""

    @property
    def fwhm_spread(self) -> float:
        """(Widest - narrowest) / mean over the frame."""
        return (self.fwhm_max_px - self.fwhm_min_px) / self.fwhm_px

    def row(self, pixel_scale_arcsec: float) -> dict[str, float | int | None]:
        """As in the table of figures per CCD; None for what could not be measured."""
        values = {
            "fwhm_px": self.fwhm_px,
            "fwhm_arcsec": self.fwhm_px * pixel_scale_arcsec,
            "fwhm_with_pixel_px": self.fwhm_with_pixel_px,
            "half_light_diameter_arcsec": self.half_light_diameter_px * pixel_scale_arcsec,
            "ellipticity": self.ellipticity,
            "elongation": self.elongation,
            "angle_deg": self.angle_deg,
            "moffat_beta": self.moffat_beta,
            "psf_asymmetry": self.asymmetry,
            "psf_chi2": self.chi2,
            "psf_residual": self.residual,
            "psf_noise_area_px": self.noise_area_px,
        }
        known = {name: value if isfinite(value) else None for name, value in values.items()}
        return {**known, "n_psf_stars": self.n_stars}


NO_FIGURES = PsfFigures()


def cell_positions(shape: tuple[int, int], degree: int) -> list[tuple[float, float]]:
    """(x, y) of the centres of a grid of cells over the frame: three along the short side; one if nothing varies."""
    ny, nx = shape
    if degree == 0:
        return [(0.5 * (nx - 1), 0.5 * (ny - 1))]
    side = min(nx, ny) / _CELLS
    columns, rows = (min(max(round(length / side), 1), _MOST_CELLS) for length in (nx, ny))
    return [
        ((i + 0.5) * nx / columns - 0.5, (j + 0.5) * ny / rows - 0.5)
        for j in range(rows)
        for i in range(columns)
    ]


def describe(model: PsfModel, profile: Moffat, shape: tuple[int, int], residual: float = nan) -> PsfFigures:
    """All figures of a model.

    Args:
        model: the model.
        profile: a Moffat profile near to it, for the fits to begin with.
        shape: (ny, nx) of the frame.
        residual: handed through.

    """
    ny, nx = shape
    step = model.step_px
    grid = model.grid(0.5 * (nx - 1), 0.5 * (ny - 1))
    values = model.samples(0.5 * (nx - 1), 0.5 * (ny - 1))
    middle = fit_moffat(values, step, profile.parameters)
    seen = fit_moffat(values, step, middle.parameters, pixel_px=0.0)
    cells = tuple(_cell(model, x, y, middle) for x, y in cell_positions(shape, model.degree))
    widths = np.array([cell.fwhm_px for cell in cells])
    smooth = moffat_samples(middle.parameters, len(grid), step)
    return PsfFigures(
        n_candidates=model.n_candidates,
        n_stars=model.n_stars,
        fwhm_px=float(widths.mean()),
        fwhm_min_px=float(widths.min()),
        fwhm_max_px=float(widths.max()),
        fwhm_with_pixel_px=seen.fwhm_px,
        moffat_beta=middle.beta,
        half_light_diameter_px=half_light_diameter(grid, step),
        ellipticity=middle.ellipticity,
        elongation=middle.elongation,
        angle_deg=middle.angle_deg,
        asymmetry=asymmetry(grid, middle.x / step, middle.y / step),
        chi2=model.chi2,
        residual=residual,
        moffat_residual=float(np.abs(values - smooth).sum()),
        noise_area_px=model.noise_area(0.5 * (nx - 1), 0.5 * (ny - 1)),
        cells=cells,
    )


def _cell(model: PsfModel, x: float, y: float, near: Moffat) -> PsfCell:
    fit = fit_moffat(model.samples(x, y), model.step_px, near.parameters, most_iterations=12)
    return PsfCell(x, y, fit.fwhm_px, fit.ellipticity, fit.angle_deg)


def half_light_diameter(grid: Pixels, step_px: float) -> float:
    """Diameter in px of the circle about the middle sample that holds half of the model's light.

    `grid`: coefficients, shape (m, m). The points are divided by five along both axes, and the growth curve interpolated.
    """
    m = grid.shape[0]
    size = _FINE * m
    fine = np.empty((size, size), np.float32)
    render(grid, float(_FINE), 0.0, 0.0, fine)
    axis = np.arange(size) - size // 2
    radius = np.hypot(axis[:, None], axis[None, :]).ravel()
    order = np.argsort(radius, kind="stable")
    growth = np.cumsum(fine.ravel()[order], dtype=np.float64)
    inside = int(np.searchsorted(growth, 0.5 * growth[-1]))
    # So many fine pixels make a disc of that area.
    return float(2.0 * np.sqrt((inside + 0.5) / np.pi) * step_px / _FINE)


def asymmetry(grid: Pixels, x: float, y: float) -> float:
    """Sum of |P - P turned by 180° about (x, y)| / sum of P; (x, y) in samples from the middle one."""
    centred = np.empty_like(grid)
    render(grid, 1.0, -x, -y, centred)
    return float(np.abs(centred - centred[::-1, ::-1]).sum() / np.abs(centred).sum())
