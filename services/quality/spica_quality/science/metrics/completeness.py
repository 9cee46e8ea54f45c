"""Which stars are found: stars of known flux are drawn into windows of the image, and detected as the image was.

The magnitude at which half of them are found is the depth of the catalogue, crowding and unclean places included.
Only windows are copied, never the frame.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from spica_imaging.sections import Section

from spica_quality.science._jit import jit
from spica_quality.science.flags import Flags
from spica_quality.science.metrics.depth import PsfAt

Floats = NDArray[np.float64]
Pixels = NDArray[np.float32]

Found: TypeAlias = tuple[Floats, Floats, Floats]
"""Zero-based x and y in the window, and flux, of what was detected."""
DetectIn: TypeAlias = Callable[[Pixels, Section], Found]
"""Detects in the pixels of a window (subtracted) that lies at this section of the frame."""

_WINDOW_PX = 512
_MOST_WINDOWS = 4
"""A tenth of a CCD of nine million pixels."""
_CELL_FWHM = 8.0
_LEAST_CELL_PX = 24
_APART = 0.5
"""Of a cell: stars keep that far from those in the next one, and do not hide each other."""
_FIRST_SPAN_MAG = 1.6
"""First, stars are drawn from this much brighter to this much fainter than where half is thought to be found."""
_SPAN_MAG = 0.8
_LEAST_STARS = 60
_MOST_TRIALS = 4
_TOO_FAINT, _TOO_BRIGHT, _STEP = 0.15, 0.85, 3.0
_LAPSES = (0.0, 0.01, 0.02, 0.04, 0.08, 0.12, 0.18, 0.25, 0.35)


@dataclass(frozen=True, slots=True)
class Completeness:
    """What came of the stars drawn."""

    flux50_adu: float
    """Half of the stars of this flux are found; NaN where that could not be told."""
    error_mag: float
    width_mag: float
    """Of the logistic curve: from 73 % to 50 % found, in magnitudes."""
    lapse: float
    """Share of bright stars that are lost all the same, under others or on unusable pixels."""
    n: int
    """Stars drawn."""


def generator_for(*names: str) -> np.random.Generator:
    """A generator that these names determine: the same image is measured with the same chance."""
    digest = hashlib.sha256("\0".join(names).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:8], "big"))


def completeness(
    data: Pixels,
    flags: Flags,
    psf: PsfAt,
    detect: DetectIn,
    known: Found,
    *,
    fwhm_px: float,
    start_flux_adu: float,
    gain_e_per_adu: float,
    random: np.random.Generator,
    n_stars: int = 500,
) -> Completeness:
    """Draw stars, look for them, and fit the share that is found.

    In each window stars stand in cells of 8 FWHM, at random in the middle of them, whatever is there:
    blank sky, galaxies, other stars. A first window finds roughly where half is found, at most three
    others measure it.

    A star counts as found if something is detected within half a FWHM of it that was not there
    before, or that was there but fainter than the star.

    Args:
        data: pixels above the background, shape (ny, nx); not changed.
        flags: stars are not drawn where the middle pixel is flagged: that sky was not observed.
        psf: how a star looks at a place.
        detect: the detection of the frame, for a window; it must use the same thresholds.
        known: what it found in the frame, positions in the frame.
        fwhm_px: width of stars.
        start_flux_adu: where half of the stars may be found; a factor of 50 is bridged.
        gain_e_per_adu: for the photon noise of the stars; 0 leaves it out.
        random: where stars are drawn, and how bright.
        n_stars: at most so many are drawn; the error goes with their root.

    """
    nothing = Completeness(np.nan, np.nan, np.nan, np.nan, 0)
    if not (np.isfinite(start_flux_adu) and start_flux_adu > 0 and fwhm_px > 0) or min(data.shape) < 64:
        return nothing
    cell = max(_LEAST_CELL_PX, int(np.ceil(_CELL_FWHM * fwhm_px)))
    trial = _Trial(data, flags, psf, detect, known, fwhm_px, gain_e_per_adu, cell, random)
    centre, first = _rough(trial, start_flux_adu, max(_LEAST_STARS, n_stars // 5))
    if not np.isfinite(centre):
        return nothing
    rest = trial.run(max(n_stars - len(first), 1), _MOST_WINDOWS - 1, centre, _SPAN_MAG)
    near = first[np.abs(first[:, 0]) <= _SPAN_MAG]
    return _fit(np.concatenate([near, rest]), centre)


def _rough(trial: _Trial, flux: float, n: int) -> tuple[float, Floats]:
    """Flux at which roughly half is found, and the tries that told, magnitudes relative to it."""
    for _ in range(_MOST_TRIALS):
        tries = trial.run(n, 1, flux, _FIRST_SPAN_MAG)
        share = tries[:, 1].mean() if len(tries) else 0.0
        if share < _TOO_FAINT:
            flux *= _STEP
        elif share > _TOO_BRIGHT:
            flux /= _STEP
        else:
            centre = _fit(tries, flux).flux50_adu
            tries[:, 0] += 2.5 * np.log10(centre / flux)
            return centre, tries
    return float("nan"), np.empty((0, 2))


class _Trial:
    """Windows of the frame with stars drawn into them."""

    def __init__(
        self,
        data: Pixels,
        flags: Flags,
        psf: PsfAt,
        detect: DetectIn,
        known: Found,
        fwhm_px: float,
        gain: float,
        cell: int,
        random: np.random.Generator,
    ) -> None:
        self._data, self._flags, self._psf, self._detect, self._known = data, flags, psf, detect, known
        self._fwhm, self._gain, self._cell, self._random = fwhm_px, gain, cell, random

    def run(self, n: int, most_windows: int, flux: float, span_mag: float) -> Floats:
        """Magnitudes relative to `flux` (fainter is larger) and 1 for found, 0 for lost; shape (about n, 2)."""
        ny, nx = self._data.shape
        side_x, side_y = min(nx, _WINDOW_PX), min(ny, _WINDOW_PX)
        # Stars keep away from the window's own edges, which the frame does not have.
        margin = self._cell // 2
        per_window = max(1, ((side_x - 2 * margin) // self._cell) * ((side_y - 2 * margin) // self._cell))
        results: list[Floats] = []
        for _ in range(min(most_windows, -(-n // per_window))):
            x0, y0 = (int(self._random.integers(0, size + 1)) for size in (nx - side_x, ny - side_y))
            section = Section(x0, x0 + side_x, y0, y0 + side_y)
            results.append(self._window(section, margin, min(n, per_window), flux, span_mag))
            n -= per_window
        return np.concatenate(results)

    def _window(self, section: Section, margin: int, n: int, flux: float, span_mag: float) -> Floats:
        random, cell = self._random, self._cell
        columns = (section.x1 - section.x0 - 2 * margin) // cell
        rows = (section.y1 - section.y0 - 2 * margin) // cell
        places = random.permutation(columns * rows)[:n]
        x, y = (
            margin + (index + 0.5 + (1.0 - _APART) * random.uniform(-0.5, 0.5, places.size)) * cell
            for index in (places % columns, places // columns)
        )
        mags = random.uniform(-span_mag, span_mag, places.size)
        here = self._flags[section.slices]
        ny, nx = here.shape
        seen = here[np.clip(np.rint(y).astype(int), 0, ny - 1), np.clip(np.rint(x).astype(int), 0, nx - 1)]
        x, y, mags = x[seen == 0], y[seen == 0], mags[seen == 0]
        fluxes = flux * 10.0 ** (-0.4 * mags)
        window = self._data[section.slices].copy()
        for x_star, y_star, f in zip(x, y, fluxes, strict=True):
            self._draw(window, section, float(x_star), float(y_star), float(f))
        window[here != 0] = self._data[section.slices][here != 0]
        x_known, y_known, flux_known = self._known
        before = (x_known - section.x0, y_known - section.y0, flux_known)
        found = _found(x, y, fluxes, self._detect(window, section), before, 0.5 * self._fwhm + 0.5)
        return np.stack([mags, found.astype(np.float64)], axis=1)

    def _draw(self, window: Pixels, section: Section, x: float, y: float, flux: float) -> None:
        stamp = flux * self._psf(section.x0 + x, section.y0 + y).astype(np.float64)
        if self._gain > 0:
            photons = np.maximum(stamp, 0.0) / self._gain
            stamp += np.sqrt(photons) * self._random.standard_normal(stamp.shape)
        half = stamp.shape[0] // 2
        i, j = int(np.rint(section.x0 + x)) - section.x0, int(np.rint(section.y0 + y)) - section.y0
        ny, nx = window.shape
        top, left = max(0, half - j), max(0, half - i)
        part = stamp[top : half + ny - j, left : half + nx - i]
        y0, x0 = j - half + top, i - half + left
        window[y0 : y0 + part.shape[0], x0 : x0 + part.shape[1]] += part.astype(np.float32)


def _found(
    x: Floats, y: Floats, flux: Floats, after: Found, before: Found, radius: float
) -> NDArray[np.bool_]:
    """Which stars were found: see `completeness`."""
    there, _ = _nearest(x, y, after[0], after[1])
    old, index = _nearest(x, y, before[0], before[1])
    shadowed = old <= radius
    if shadowed.any():
        shadowed[shadowed] = before[2][index[shadowed]] >= flux[shadowed]
    return np.asarray((there <= radius) & ~shadowed)


def _nearest(x: Floats, y: Floats, x_of: Floats, y_of: Floats) -> tuple[Floats, NDArray[np.intp]]:
    """Distance to the nearest of the sources, and its index."""
    if not x_of.size or not x.size:
        return np.full(x.size, np.inf), np.zeros(x.size, np.intp)
    distance2 = (x[:, None] - x_of[None, :]) ** 2 + (y[:, None] - y_of[None, :]) ** 2
    index = np.argmin(distance2, axis=1)
    return np.sqrt(distance2[np.arange(x.size), index]), index


def _fit(tries: Floats, flux: float) -> Completeness:
    """Fit found = (1 - lapse) / (1 + exp((m - m0) / w)) by maximum likelihood; m is relative to `flux`.

    The lapse is chosen from a short list, m0 and w by Newton's method on the logistic regression
    with a little weight towards w = 0.15 mag, which keeps a perfect step finite.
    """
    nothing = Completeness(np.nan, np.nan, np.nan, np.nan, len(tries))
    if len(tries) < _LEAST_STARS // 2:
        return nothing
    m, found = tries[:, 0], tries[:, 1]
    if found.mean() < 0.02 or found.mean() > 0.98:
        return nothing
    best = max((_logistic(m, found, lapse) for lapse in _LAPSES), key=lambda fit: fit[0])
    _, a, b, error, lapse = best
    width = 1.0 / b
    # Where the curve is at one half, which is not its middle where some are always lost.
    middle = a * width - width * np.log(1.0 / (1.0 - 2.0 * lapse)) if lapse < 0.5 else np.nan
    if not np.isfinite(middle) or not m.min() - 0.5 <= middle <= m.max() + 0.5:
        return nothing
    return Completeness(flux * 10.0 ** (-0.4 * middle), error, width, lapse, len(tries))


def _logistic(m: Floats, found: Floats, lapse: float) -> tuple[float, float, float, float, float]:
    """Penalised log likelihood, a, b, error of a / b, lapse; the curve is (1 - lapse) / (1 + exp(b m - a))."""
    a, log_b = 0.0, np.log(1.0 / 0.15)

    def likelihood(a: float, log_b: float) -> float:
        prior = -0.5 * ((log_b - np.log(1.0 / 0.15)) / 0.7) ** 2
        return float(_log_likelihood(m, found, lapse, a, np.exp(log_b)) + prior)

    step = np.array([0.5, 0.2])
    value = likelihood(a, log_b)
    # Two parameters and a smooth hill: a compass search is short, and cannot run away.
    for _ in range(200):
        tries = [
            (a + da, log_b + db) for da, db in ((step[0], 0), (-step[0], 0), (0, step[1]), (0, -step[1]))
        ]
        tries += [
            (a + da, log_b + db)
            for da, db in ((step[0], step[1]), (-step[0], -step[1]), (step[0], -step[1]), (-step[0], step[1]))
        ]
        values = [likelihood(*point) for point in tries]
        k = int(np.argmax(values))
        if values[k] > value:
            (a, log_b), value = tries[k], values[k]
        else:
            step *= 0.5
            if step[0] < 2e-3:
                break
    b = float(np.exp(log_b))
    # Fisher information of the middle m0 = a / b, with the slope held.
    p = (1.0 - lapse) / (1.0 + np.exp(-np.clip(a - b * m, -30.0, 30.0)))
    slope = b * p * (1.0 - p / (1.0 - lapse))
    information = float(np.sum(slope**2 / np.maximum(p * (1.0 - p), 1e-9)))
    return value, a, b, 1.0 / np.sqrt(information) if information > 0 else float("nan"), lapse


@jit
def _log_likelihood(m: Floats, found: Floats, lapse: float, a: float, b: float) -> float:
    """Sum of the logarithms of how likely each star's fate is, by the curve (1 - lapse) / (1 + exp(b m - a))."""
    total = 0.0
    for k in range(m.size):
        t = min(max(a - b * m[k], -30.0), 30.0)
        p = min(max((1.0 - lapse) / (1.0 + np.exp(-t)), 1e-9), 1.0 - 1e-9)
        total += np.log(p) if found[k] > 0.5 else np.log1p(-p)
    return total
