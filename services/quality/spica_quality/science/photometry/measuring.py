"""All per-source kernels one after the other, source by source, on one stamp that stays in the cache."""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from spica_quality.science._jit import jit
from spica_quality.science.photometry import windowed
from spica_quality.science.photometry.apertures import (
    KRON_FACTOR,
    KRON_REACH,
    LEAST_KRON,
    MOST_KRON,
    ellipse_area,
    ellipse_reach,
    ellipse_sum,
    kron_radius,
    light_radius,
)
from spica_quality.science.photometry.psfphot import (
    FIT_RADIUS_PER_FWHM,
    PsfArrays,
    fit_psf,
    place_psf,
    psf_room,
)
from spica_quality.science.photometry.stamps import (
    LOST,
    MIRRORED,
    Buffers,
    Field,
    States,
    buffers_for,
    cut_stamp,
    room_for,
)

Floats = NDArray[np.float64]
Pixels = NDArray[np.float32]

FWHM_PER_SIGMA: Final = 2.3548200450309493
MOST_HALF_PX: Final = 1500
"""Stamps never reach further, however large a source's ellipse."""
MOST_WINDOW_PX: Final = 20.0
"""Sigma of the widest window."""
NO_VALUE: Final = np.float32(-1e30)
"""What source-extractor writes into VIGNET where there is no pixel, and PSFEx leaves out."""

MEASURED: Final = np.dtype(
    [
        ("kron", "f8"),
        ("flux_auto", "f8"),
        ("area_auto", "f8"),
        ("foreign", "f8"),
        ("missing", "f8"),
        ("half_light", "f8"),
        ("x_win", "f8"),
        ("y_win", "f8"),
        ("win_found", "?"),
        ("sigma_win", "f8"),
        ("xx_win", "f8"),
        ("yy_win", "f8"),
        ("xy_win", "f8"),
        ("err_xx_win", "f8"),
        ("err_yy_win", "f8"),
        ("err_xy_win", "f8"),
        ("snr_win", "f8"),
    ]
)
"""Per source. Positions are the frame's. `foreign`: share of the AUTO ellipse that is mirrored or lost; `missing`: of it,
the share that is lost or beyond the frame."""


class Start(NamedTuple):
    """What is known of the sources before they are measured; arrays of shape (n,)."""

    x: Floats
    y: Floats
    cxx: Floats
    cyy: Floats
    cxy: Floats
    noise2: Floats
    """Variance of a pixel at each source."""
    sigma: Floats
    """Adaptive size, px; infinite where it is not known."""


class Terms(NamedTuple):
    """How sources are measured."""

    radii: Floats
    """Of the circular apertures, px; shape (n_radii,)."""
    inverse_gain: float
    """Pixel units per electron; 0: unknown, and photon noise is left out."""
    fwhm: float
    """Of stars, px."""
    with_psf: bool


@jit
def _cut(
    field: Field, k: int, start: Start, half: int, buffers: Buffers
) -> tuple[Buffers, int, int, Pixels, States]:
    buffers = room_for(half, buffers)
    y0, x0, values, state = cut_stamp(field, k + 1, start.x[k], start.y[k], half, buffers)
    return buffers, y0, x0, values, state


@jit
def measure_all(
    field: Field,
    start: Start,
    terms: Terms,
    psf: PsfArrays,
    measured: NDArray[np.void],
    aperture: Floats,
    fits: NDArray[np.void],
    vignet: Pixels,
) -> None:
    """Measure every source.

    Fills `measured` (MEASURED, shape (n,)), `aperture` (flux and area, shape (n, n_radii, 2)), `fits` (PSF_FIT,
    shape (n,); where `terms.with_psf`) and `vignet` (shape (n, side, side), side odd; or (n, 0, 0) for none).
    """
    n_radii, side = terms.radii.shape[0], vignet.shape[1]
    buffers = buffers_for(32)
    wx, wy = np.empty(2 * MOST_HALF_PX + 1), np.empty(2 * MOST_HALF_PX + 1)
    room = psf_room(psf)
    least = windowed.WINDOW_SIGMA * terms.fwhm / FWHM_PER_SIGMA
    for r in range(n_radii):
        least = max(least, terms.radii[r])
    if terms.with_psf:
        least = max(least, FIT_RADIUS_PER_FWHM * psf.fwhm)
    least = max(least, side // 2)
    for k in range(start.x.shape[0]):
        cxx, cyy, cxy = start.cxx[k], start.cyy[k], start.cxy[k]
        row = measured[k]
        far_x, far_y = ellipse_reach(cxx, cyy, cxy, KRON_REACH)
        half = min(int(max(far_x, far_y, least)) + 2, MOST_HALF_PX)
        buffers, y0, x0, values, state = _cut(field, k, start, half, buffers)
        x, y = start.x[k] - x0, start.y[k] - y0
        radius, _ = kron_radius(values, state, x, y, cxx, cyy, cxy)
        kron = min(max(KRON_FACTOR * radius, LEAST_KRON), MOST_KRON)
        far_x, far_y = ellipse_reach(cxx, cyy, cxy, kron)
        if max(far_x, far_y) + 1.0 > half and half < MOST_HALF_PX:
            half = min(int(max(far_x, far_y)) + 2, MOST_HALF_PX)
            buffers, y0, x0, values, state = _cut(field, k, start, half, buffers)
            x, y = start.x[k] - x0, start.y[k] - y0
        flux, area, mirrored = ellipse_sum(values, state, x, y, cxx, cyy, cxy, kron)
        whole = ellipse_area(cxx, cyy, cxy, kron)
        row.kron, row.flux_auto, row.area_auto = kron, flux, area
        row.missing = max(1.0 - area / whole, 0.0)
        row.foreign = row.missing + mirrored / whole
        for r in range(n_radii):
            aperture[k, r, 0], aperture[k, r, 1], _ = ellipse_sum(
                values, state, x, y, 1.0, 1.0, 0.0, terms.radii[r]
            )
        most = max(far_x, far_y, 2.0 * terms.fwhm)
        row.half_light = light_radius(values, state, x, y, 0.5 * flux, most, 0.45 * terms.fwhm)
        # The half-light radius takes in light of neighbours, the adaptive size hardly any: the smaller one
        # counts. Nothing is smaller than a star.
        sigma = terms.fwhm / FWHM_PER_SIGMA
        if row.half_light > 0.0:
            sigma = max(min(2.0 * row.half_light / FWHM_PER_SIGMA, max(start.sigma[k], sigma)), sigma)
        sigma = min(sigma, MOST_WINDOW_PX)
        if windowed.WINDOW_SIGMA * sigma + 2.0 > half:
            half = int(windowed.WINDOW_SIGMA * sigma) + 4
            buffers, y0, x0, values, state = _cut(field, k, start, half, buffers)
            x, y = start.x[k] - x0, start.y[k] - y0
        x_win, y_win, found = windowed.centre(values, x, y, sigma, wx, wy)
        row.x_win, row.y_win, row.win_found, row.sigma_win = x_win + x0, y_win + y0, found, sigma
        (
            row.xx_win,
            row.yy_win,
            row.xy_win,
            row.err_xx_win,
            row.err_yy_win,
            row.err_xy_win,
            row.snr_win,
        ) = windowed.moments(values, state, x_win, y_win, sigma, start.noise2[k], terms.inverse_gain, wx, wy)
        if terms.with_psf:
            place_psf(psf, x_win + x0, y_win + y0, room)
            fit = fits[k]
            fit_psf(values, state, x_win, y_win, start.noise2[k], terms.inverse_gain, flux, psf, room, fit)
            fit.x, fit.y = fit.x + x0, fit.y + y0
        if side:
            _vignet(values, state, x, y, vignet[k])


@jit
def _vignet(values: Pixels, state: States, x: float, y: float, vignet: Pixels) -> None:
    """The source's own pixels about the one nearest to (x, y); NO_VALUE elsewhere."""
    side = vignet.shape[0]
    ny, nx = values.shape
    left, bottom = int(np.floor(x + 0.5)) - side // 2, int(np.floor(y + 0.5)) - side // 2
    for j in range(side):
        for i in range(side):
            jj, ii = j + bottom, i + left
            vignet[j, i] = NO_VALUE
            if 0 <= jj < ny and 0 <= ii < nx and state[jj, ii] != LOST and state[jj, ii] != MIRRORED:
                vignet[j, i] = values[jj, ii]
