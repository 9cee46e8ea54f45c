"""Magnitudes of point sources, and how much a source is not one: fits of the point spread function.

The profile times a flux is fitted to a source's pixels with weights 1 / variance, and moved by fractions of a
pixel until it fits; pixels of other sources and such as are not to be trusted are left out. The variance is that of
the sky and of the fitted profile's own photons, not of the pixels' values: weights taken from noisy values would
make faint pixels count more when they happen to be low.

A position that is free to move finds the highest peak of signal and noise: the flux comes out too high by
1 / snr² of itself (Portillo, Speagle & Finkbeiner 2020, AJ 159, 165). That is taken off.

SPREAD_MODEL (Desai et al. 2012, ApJ 757, 83) compares two weights: the profile P, and the profile G of a small galaxy,
P convolved with a circular exponential disc of scale length FWHM / 16:

    spread = (G·d) / (P·d) - (G·P) / (P·P),

d being the pixels: 0 for a point source, above it for what is larger, below it for what is sharper. With q the first
ratio and V the pixels' variance, its own variance is sum((G - q P)² V) / (P·d)².
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from spica_quality.science._jit import jit
from spica_quality.science.photometry.stamps import SOUND, States
from spica_quality.science.psf.model import PsfModel, expand, render, render_gradient

Floats = NDArray[np.float64]
Pixels = NDArray[np.float32]
Row = Any  # of an array of type PSF_FIT: its fields are attributes in compiled code

DISC_PER_FWHM: Final = 1.0 / 16.0
FIT_RADIUS_PER_FWHM: Final = 1.5
"""Holds 99 % of the information on faint stars; further out there are neighbours."""
_MOST_STEPS: Final = 8
_LAST_STEP_PX: Final = 0.01
_LAST_STEP_ERRORS: Final = 0.05
"""The fit ends with a step shorter than this, or than this share of the position's error: the rest is of second order."""
_SAME_FLUX: Final = 0.1
"""Weights need the flux to this share."""
_MOST_SHIFT_PER_FWHM: Final = 0.5
_LEAST_PIXELS: Final = 6
_LEAST_SNR_UNBIASED: Final = 2.0
"""Below it the first-order correction of the flux means nothing."""

PSF_FIT: Final = np.dtype(
    [
        ("flux", "f8"),
        ("flux_variance", "f8"),
        ("x", "f8"),
        ("y", "f8"),
        ("xx", "f8"),
        ("yy", "f8"),
        ("xy", "f8"),
        ("chi2", "f8"),
        ("spread", "f8"),
        ("spread_variance", "f8"),
        ("steps", "i4"),
    ]
)
"""Flux and its variance; position and its covariance (px²); chi² per degree of freedom; SPREAD_MODEL and its variance;
steps of the fit, 0 where the position could not be fitted and stayed at the start."""


class PsfArrays(NamedTuple):
    """The model as the kernels take it, and the same convolved with the disc."""

    cube: Pixels
    disc: Pixels
    degree: int
    x_zero: float
    y_zero: float
    x_scale: float
    y_scale: float
    step: float
    fwhm: float


class PsfRoom(NamedTuple):
    """Room for one source's profiles."""

    grid: Pixels
    disc_grid: Pixels
    profile: Pixels
    by_x: Pixels
    by_y: Pixels
    disc: Pixels


def psf_arrays(model: PsfModel) -> PsfArrays:
    """Arrays of a model for the kernels here."""
    cube, degree, zero, scale, step = model.arrays()
    disc = with_disc(cube, DISC_PER_FWHM * model.fwhm_px / step)
    x, y = zero
    width, height = scale
    return PsfArrays(cube, disc, degree, x, y, width, height, step, model.fwhm_px)


def with_disc(cube: Pixels, scale_length: float) -> Pixels:
    """Every plane of the cube, shape (n, m, m), convolved with an exponential disc of this scale length in samples.

    In Fourier space: the transform of exp(-r / h) / (2 pi h²) is (1 + (2 pi k h)²)^(-3/2), which is right however
    small the disc is beside a sample.
    """
    m = cube.shape[-1]
    size = 2 * m
    k2 = np.fft.fftfreq(size)[:, None] ** 2 + np.fft.rfftfreq(size)[None, :] ** 2
    disc = (1.0 + (2.0 * np.pi * scale_length) ** 2 * k2) ** -1.5
    spectrum = np.fft.rfft2(cube.astype(np.float64), s=(size, size))
    wide = np.fft.irfft2(spectrum * disc, s=(size, size))
    return np.ascontiguousarray(wide[..., :m, :m], dtype=np.float32)


@jit
def psf_room(psf: PsfArrays) -> PsfRoom:
    """Room for the fits of one frame."""
    m = psf.cube.shape[1]
    k = 2 * int(np.ceil(FIT_RADIUS_PER_FWHM * psf.fwhm)) + 1
    return PsfRoom(
        np.empty((m, m), np.float32),
        np.empty((m, m), np.float32),
        np.empty((k, k), np.float32),
        np.empty((k, k), np.float32),
        np.empty((k, k), np.float32),
        np.empty((k, k), np.float32),
    )


@jit
def _span(centre: float, reach: float, n: int) -> tuple[int, int]:
    return max(int(np.ceil(centre - reach)), 0), min(int(np.floor(centre + reach)), n - 1)


@jit
def _solve(
    faa: float, fax: float, fay: float, fxx: float, fxy: float, fyy: float, ba: float, bx: float, by: float
) -> tuple[bool, float, float, float, float, float, float, float]:
    """Solve the symmetric 3×3 equations: whether it could, the solution, and of the inverse aa, xx, yy, xy."""
    caa = fxx * fyy - fxy * fxy
    cax = fay * fxy - fax * fyy
    cay = fax * fxy - fay * fxx
    determinant = faa * caa + fax * cax + fay * cay
    if not (determinant > 1e-12 * faa * fxx * fyy and caa > 0.0):
        return False, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
    cxx, cyy, cxy = faa * fyy - fay * fay, faa * fxx - fax * fax, fax * fay - faa * fxy
    return (
        True,
        (caa * ba + cax * bx + cay * by) / determinant,
        (cax * ba + cxx * bx + cxy * by) / determinant,
        (cay * ba + cxy * bx + cyy * by) / determinant,
        caa / determinant,
        cxx / determinant,
        cyy / determinant,
        cxy / determinant,
    )


@jit
def fit_psf(  # noqa: PLR0915 - the sums of one fit
    values: Pixels,
    state: States,
    x: float,
    y: float,
    noise2: float,
    inverse_gain: float,
    likely_flux: float,
    psf: PsfArrays,
    room: PsfRoom,
    result: Row,
) -> None:
    """Fit one source that starts at (x, y) of the stamp; `room.grid` and `room.disc_grid` hold the model there.

    `likely_flux` is for the weights of the first step. `result` is a row of type PSF_FIT; flux and all else stay
    NaN where too few pixels are left.
    """
    ny, nx = values.shape
    k = room.profile.shape[0] // 2
    reach = FIT_RADIUS_PER_FWHM * psf.fwhm
    most_shift = max(_MOST_SHIFT_PER_FWHM * psf.fwhm, 1.0)
    column, line = int(np.floor(x + 0.5)), int(np.floor(y + 0.5))
    dx, dy = x - column, y - line
    move_x, move_y = 0.0, 0.0
    flux, free, steps = max(likely_flux, 0.0), True, 0
    # The pixels that take part stay the same while the profile moves: chi² is then one function.
    j_lo, j_hi = _span(y, reach, ny)
    j_lo, j_hi = max(j_lo, line - k), min(j_hi, line + k)
    for iteration in range(_MOST_STEPS + 1):
        render_gradient(room.grid, psf.step, dx, dy, room.profile, room.by_x, room.by_y)
        faa, fax, fay, fxx, fxy, fyy, ba, bx, by = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
        photons = flux * inverse_gain
        n = 0
        for j in range(j_lo, j_hi + 1):
            half = np.sqrt(max(reach * reach - (j - y) * (j - y), 0.0))
            i_lo, i_hi = _span(x, half, nx)
            jj = j - line + k
            for i in range(max(i_lo, column - k), min(i_hi, column + k) + 1):
                ii, at = np.uint64(i - column + k), np.uint64(i)
                p, px, py = room.profile[jj, ii], room.by_x[jj, ii], room.by_y[jj, ii]
                sound = state[j, at] == SOUND
                w = 1.0 / (noise2 + photons * max(p, 0.0))
                w = w if sound else 0.0
                n += sound
                v = w * values[j, at]
                faa += w * p * p
                fax += w * p * px
                fay += w * p * py
                fxx += w * px * px
                fxy += w * px * py
                fyy += w * py * py
                ba += v * p
                bx += v * px
                by += v * py
        if n < _LEAST_PIXELS or not faa > 0.0:
            return
        solved, amplitude, ax, ay, vaa, vxx, vyy, vxy = _solve(faa, fax, fay, fxx, fxy, fyy, ba, bx, by)
        if free and not (solved and amplitude > 0.0):
            # Back to where it began, and the flux alone.
            free, steps = False, 0
            if iteration > 0:
                dx, dy = x - column, y - line
                continue
        if not free:
            amplitude = ba / faa
            same = abs(flux - max(amplitude, 0.0)) <= _SAME_FLUX * flux or inverse_gain == 0.0
            flux = max(amplitude, 0.0)
            result.flux, result.flux_variance = amplitude, 1.0 / faa
            result.xx, result.yy, result.xy = np.nan, np.nan, np.nan
            if same or iteration >= _MOST_STEPS - 1:
                break
            continue
        move_x, move_y = ax / amplitude, ay / amplitude
        same = abs(flux - amplitude) <= _SAME_FLUX * amplitude or inverse_gain == 0.0
        flux = amplitude
        result.flux, result.flux_variance = flux, vaa
        result.xx, result.yy, result.xy = vxx / flux**2, vyy / flux**2, vxy / flux**2
        steps = iteration + 1
        size2 = move_x * move_x + move_y * move_y
        near2 = max(
            _LAST_STEP_PX * _LAST_STEP_PX, _LAST_STEP_ERRORS * _LAST_STEP_ERRORS * (result.xx + result.yy)
        )
        if size2 < near2 and same:
            break
        # Far from the peak the profile is not linear any more.
        factor = min(1.0, 0.25 * psf.fwhm / np.sqrt(max(size2, 1e-12)))
        dx, dy = dx + factor * move_x, dy + factor * move_y
        if (
            abs(dx + column - x) > most_shift
            or abs(dy + line - y) > most_shift
            or iteration == _MOST_STEPS - 1
        ):
            free, steps, dx, dy = False, 0, x - column, y - line
    render(room.disc_grid, psf.step, dx, dy, room.disc)
    _compare(values, state, x, y, noise2, inverse_gain, reach, (j_lo, j_hi, line, column), room, result)
    if free:
        dx, dy = dx + move_x, dy + move_y
        if result.flux_variance < _LEAST_SNR_UNBIASED**-2 * flux * flux:
            result.flux -= result.flux_variance / flux
    result.x, result.y, result.steps = column + dx, line + dy, steps


@jit
def _compare(
    values: Pixels,
    state: States,
    x: float,
    y: float,
    noise2: float,
    inverse_gain: float,
    reach: float,
    place: tuple[int, int, int, int],
    room: PsfRoom,
    result: Row,
) -> None:
    """Chi² of the fit and SPREAD_MODEL."""
    nx = values.shape[1]
    j_lo, j_hi, line, column = place
    k = room.profile.shape[0] // 2
    flux = result.flux
    photons = max(flux, 0.0) * inverse_gain
    chi2, n = 0.0, 0
    pp, pg, pd, gd = 0.0, 0.0, 0.0, 0.0
    vpp, vpg, vgg = 0.0, 0.0, 0.0
    for j in range(j_lo, j_hi + 1):
        half = np.sqrt(max(reach * reach - (j - y) * (j - y), 0.0))
        i_lo, i_hi = _span(x, half, nx)
        jj = j - line + k
        for i in range(max(i_lo, column - k), min(i_hi, column + k) + 1):
            ii, at = np.uint64(i - column + k), np.uint64(i)
            known = 1.0 if state[j, at] == SOUND else 0.0
            n += state[j, at] == SOUND
            p, g, d = known * room.profile[jj, ii], known * room.disc[jj, ii], known * values[j, at]
            variance = noise2 + photons * max(p, 0.0)
            chi2 += (d - flux * p) ** 2 / variance
            pp += p * p
            pg += p * g
            pd += p * d
            gd += g * d
            vpp += variance * p * p
            vpg += variance * p * g
            vgg += variance * g * g
    result.chi2 = chi2 / (n - 3)
    if pd > 0.0:
        ratio = gd / pd
        result.spread = ratio - pg / pp
        result.spread_variance = (vgg - 2.0 * ratio * vpg + ratio * ratio * vpp) / (pd * pd)


@jit
def place_psf(psf: PsfArrays, x: float, y: float, room: PsfRoom) -> None:
    """Put the model at the frame's position (x, y) into `room`."""
    u, v = (x - psf.x_zero) / psf.x_scale, (y - psf.y_zero) / psf.y_scale
    expand(psf.cube, psf.degree, u, v, room.grid)
    expand(psf.disc, psf.degree, u, v, room.disc_grid)
