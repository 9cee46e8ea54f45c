"""What the bright stars look like, before any is chosen: smeared, doubled, or no stars at all.

Every bright source is correlated with itself. That needs no centre, no division into components and no model:
a second image of every star stands out at its lag and at the opposite one, a smear stretches the middle, a hot
pixel correlates with nothing beside it. The median over the sources leaves what all have in common; chance
neighbours, galaxies and cosmic rays differ from each other and go.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage
from spica_imaging.stats import median, mode

from spica_quality.science._jit import jit
from spica_quality.science.flags import Flags
from spica_quality.science.metrics.figures import Figures, plain

Floats = NDArray[np.float64]
Pixels = NDArray[np.float32]

LEAST_STAMPS = 6
"""With fewer sources nothing in common can be told from chance."""

_HALF = 36
"""Half of a stamp's side, in (binned) pixels."""
_REACH = 30
"""Largest lag."""
_MOST = 60
_COARSE = 4
_THRESHOLD_SIGMA = 2.5
_OUTLINE = 0.2
"""Of a source's brightest pixel: where its outline is drawn."""
_SHARPEST = 0.3
"""Correlation of pixels one apart, in the worst direction: 0.45 for stars of 1.7 px, 0 for hot pixels, 0.2 for tracks."""
_SAME_SHAPE = 0.05
"""Rms difference of the correlations' cores: 0.00 to 0.03 among stars, 0.03 to 0.25 among cosmic rays."""
_SAME_SIZE = 0.35
"""In ln of the width: how much the narrowest and the widest star of a frame may differ from the typical one."""
_LEAST_SECOND = 0.1
_LEAST_APART = 0.75
"""Of the correlation's width, 1.4 times the stars': closer pairs and short lines look the same."""
_LEAST_APART_PX = 3.0
_BETTER = 0.5
"""A pair must explain what is seen so much better than a line."""
_ANGLES = np.radians(np.arange(0.0, 180.0, 3.0))
_RADII = np.arange(0.0, _REACH, 0.25)


@dataclass(frozen=True, slots=True)
class StarShapes:
    """What the bright sources have in common; lengths in px of the frame, NaN where nothing could be told."""

    n: int
    """Sources looked at."""
    n_alike: int
    """Of them: wider than a pixel in all directions, of the most frequent size, and all of one shape."""
    width_px: float
    """FWHM along the narrow side, the pixel in it."""
    length_px: float
    """FWHM along the wide side."""
    trail_px: float
    """Length of the line that smears a round star so."""
    angle_deg: float
    """Direction of the wide side, from +x towards +y, -90 to 90."""
    doubling: float
    """Flux of a second image relative to the first; 0 where there is none."""
    doubling_px: float
    """Its distance."""
    dip: float
    """How much darker stars are at the centre than in a ring about it, 0 to 1."""

    @property
    def star_share(self) -> float:
        """Share of the bright sources that look like stars; NaN with too few of them."""
        return self.n_alike / self.n if self.n >= LEAST_STAMPS else float("nan")

    def figures(self) -> Figures:
        """As they stand among the figures of a CCD."""
        values: dict[str, float | int] = {
            "n_bright": self.n,
            "n_star_like": self.n_alike,
            "star_share": self.star_share,
            "star_width_px": self.width_px,
            "star_length_px": self.length_px,
            "trail_length_px": self.trail_px,
            "trail_angle_deg": self.angle_deg if self.trail_px > 0 else float("nan"),
            "doubling": self.doubling,
            "doubling_px": self.doubling_px,
            "central_dip": self.dip,
        }
        return {name: plain(value) for name, value in values.items()}


def _unknown(n: int) -> StarShapes:
    return StarShapes(n, 0, *(float("nan"),) * 7)


def star_shapes(
    data: Pixels, flags: Flags, x: Floats, y: Floats, peak: Floats, *, noise_adu: float, ceiling_adu: float
) -> StarShapes:
    """Look at the brightest sources.

    Args:
        data: pixels above the background, shape (ny, nx).
        flags: pixels with any bit count as sky.
        x: zero-based positions of the sources, shape (n,).
        y: the same along y.
        peak: their highest pixels, adu.
        noise_adu: typical standard deviation of the sky's pixels.
        ceiling_adu: sources with a higher peak are left out: saturated.

    """
    shapes = _look(data, flags, x, y, peak, noise_adu, ceiling_adu, 1)
    wide = np.isfinite(shapes.length_px) and shapes.length_px > 0.6 * _REACH
    few = shapes.n >= LEAST_STAMPS and not np.isfinite(shapes.width_px)
    if (wide or few) and min(data.shape) > 4 * _HALF * _COARSE:
        coarse = _look(data, flags, x, y, peak, noise_adu, ceiling_adu, _COARSE)
        if np.isfinite(coarse.length_px) and coarse.length_px > 3.0 * _COARSE:
            return replace(coarse, dip=float(np.fmax(coarse.dip, shapes.dip)))
    return shapes


def _look(
    data: Pixels, flags: Flags, x: Floats, y: Floats, peak: Floats, noise: float, ceiling: float, binning: int
) -> StarShapes:
    stamps = _stamps(data, flags, x, y, peak, noise, ceiling, binning)
    n = len(stamps)
    if n < LEAST_STAMPS:
        return _unknown(n)
    every = np.stack([_correlate(stamp, noise / binning) for stamp in stamps])
    middle = _REACH
    # One pixel away along x, y and both diagonals: the direction in which the source is sharpest.
    beside = np.stack(
        [every[:, middle, middle + 1], every[:, middle + 1, middle]]
        + [every[:, middle + 1, middle + step] ** 0.5 for step in (-1, 1)]
    ).min(axis=0)
    broad = np.flatnonzero(beside > _SHARPEST)
    if len(broad) < LEAST_STAMPS:
        return _unknown(n)
    widths = np.log([_half_width(one) for one in every[broad]])
    chosen = broad[np.abs(widths - mode(widths)) < _SAME_SIZE]
    if len(chosen) < LEAST_STAMPS:
        return _unknown(n)
    common = np.median(every[chosen], axis=0)
    # Stars are one like the other. Cosmic rays that happen to be as wide lie in all directions.
    core = common > 0.2
    apart = np.sqrt(np.mean((every[chosen][:, core] - common[core]) ** 2, axis=1))
    n_alike = int(np.count_nonzero(apart < _SAME_SHAPE))
    if n_alike >= LEAST_STAMPS:
        chosen = chosen[apart < _SAME_SHAPE]
        common = np.median(every[chosen], axis=0)
    cut = _cut(common)
    line, line_misfit = _best_line(cut)
    distance, height, pair_misfit = _best_pair(cut)
    least_apart = max(_LEAST_APART * cut.narrow, _LEAST_APART_PX)
    doubled = height > _LEAST_SECOND and pair_misfit < _BETTER * line_misfit and distance > least_apart
    height = min(height, 0.5)
    scale = binning / np.sqrt(2.0)  # a profile correlated with itself is that much wider
    return StarShapes(
        n=n,
        n_alike=n_alike,
        width_px=cut.narrow * scale,
        length_px=cut.long * scale,
        trail_px=0.0 if doubled else line * binning,
        angle_deg=cut.angle_deg,
        # Images of flux 1 and r correlate at their distance with r / (1 + r²) of the value at zero.
        doubling=float((1.0 - np.sqrt(1.0 - 4.0 * height**2)) / (2.0 * height)) if doubled else 0.0,
        doubling_px=distance * binning if doubled else float("nan"),
        dip=median([_dip(stamps[k], noise / binning) for k in chosen]),
    )


def _stamps(
    data: Pixels, flags: Flags, x: Floats, y: Floats, peak: Floats, noise: float, ceiling: float, binning: int
) -> list[Pixels]:
    """Stamps of the brightest sources that are not saturated and not at the edge; not two of the same place."""
    ny, nx = data.shape
    half = (_HALF * 2 + 1) * binning // 2
    size = (2 * _HALF + 1) * binning
    # Sources of a tenth of the brightest and more than 10 sigma are bright enough, and weaker ones add noise.
    fit = np.flatnonzero((peak < ceiling) & (peak > 8.0 * noise))
    fit = fit[np.argsort(-peak[fit], kind="stable")]
    taken: list[Pixels] = []
    places: list[tuple[float, float]] = []
    for k in fit:
        i, j = int(np.rint(x[k])), int(np.rint(y[k]))
        x0, y0 = i - half, j - half
        if x0 < 0 or y0 < 0 or x0 + size > nx or y0 + size > ny:
            continue
        if any(abs(px - i) < 8 * binning and abs(py - j) < 8 * binning for px, py in places):
            continue
        places.append((i, j))
        window = np.s_[y0 : y0 + size, x0 : x0 + size]
        stamp = np.where(flags[window] == 0, data[window], np.float32(0.0))
        if binning > 1:
            stamp = stamp.reshape(2 * _HALF + 1, binning, 2 * _HALF + 1, binning).mean(axis=(1, 3))
        taken.append(stamp)
        if len(taken) >= _MOST:
            break
    return taken


def _correlate(stamp: Pixels, noise: float) -> Floats:
    """The stamp correlated with itself, 1 at lag 0; shape (2 reach + 1,) * 2. Zeros where nothing is left."""
    bright = np.where(stamp > _THRESHOLD_SIGMA * noise, stamp, np.float32(0.0)).astype(np.float64)
    side = fft.next_fast_len(bright.shape[0] + _REACH, real=True)
    circular = fft.irfft2(np.abs(fft.rfft2(bright, (side, side))) ** 2, (side, side))
    index = np.arange(-_REACH, _REACH + 1)
    lags = circular[np.ix_(index, index)]
    # Noise correlates with itself at lag 0 only.
    zero = lags[_REACH, _REACH] - np.count_nonzero(bright) * noise**2
    if not zero > 0.0:
        return np.zeros_like(lags)
    lags[_REACH, _REACH] = zero
    return np.asarray(np.maximum(lags / zero, 0.0))


def _dip(stamp: Pixels, noise: float) -> float:
    """How much darker a source is at its centre than in a ring about it.

    The centre is that of the source's outline, holes filled. The lower quartile of a ring's pixels stands
    for it: a double star is bright at two places only. 0 for what is too small to have a visible hole.
    """
    floor = _THRESHOLD_SIGMA * noise
    whole = _around_middle(_filled(stamp > floor))
    if not whole.any():
        return 0.0
    # Fainter neighbours that touch it do not belong to it.
    bright = (stamp > max(floor, _OUTLINE * float(stamp[whole].max()))) & whole
    outline = _around_middle(_filled(bright))
    radius = float(np.sqrt(np.count_nonzero(outline) / np.pi))
    if radius < 3.0:
        return 0.0
    y, x = ndimage.center_of_mass(outline)
    levels = _ring_quartiles(stamp, float(x), float(y), max(0.2 * radius, 1.0), 5)
    highest = float(levels.max())
    return float(np.clip(1.0 - levels[0] / highest, 0.0, 1.0)) if highest > 0 else 0.0


@jit
def _ring_quartiles(stamp: Pixels, x: float, y: float, width: float, n_rings: int) -> Floats:
    """Lower quartiles of the pixels in rings about a centre, all of the same width; shape (n_rings,)."""
    ny, nx = stamp.shape
    values, n = np.empty((n_rings, ny * nx)), np.zeros(n_rings, np.int64)
    for j in range(ny):
        for i in range(nx):
            ring = int(np.sqrt((i - x) ** 2 + (j - y) ** 2) / width)
            if ring < n_rings:
                values[ring, n[ring]] = stamp[j, i]
                n[ring] += 1
    result = np.full(n_rings, np.nan)
    for ring in range(n_rings):
        if n[ring]:
            ordered = np.sort(values[ring, : n[ring]])
            place = 0.25 * (n[ring] - 1)
            low = int(place)
            high = min(low + 1, n[ring] - 1)
            result[ring] = ordered[low] + (place - low) * (ordered[high] - ordered[low])
    return result


def _filled(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The mask with its holes: what cannot be reached from the edge without crossing it."""
    outside, n = ndimage.label(~mask)
    reached = np.zeros(n + 1, np.bool_)
    for edge in (outside[0], outside[-1], outside[:, 0], outside[:, -1]):
        reached[edge] = True
    reached[0] = False
    return np.asarray(~reached[outside])


def _around_middle(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The connected part that holds the stamp's middle pixel; nothing where none does."""
    labels, _ = ndimage.label(mask)
    middle = labels[_HALF, _HALF]
    return np.asarray((labels == middle) & (middle > 0))


def _half_width(lags: Floats) -> float:
    """Radius of the circle as large as the connected middle above one half."""
    return float(np.sqrt(np.count_nonzero(_middle(lags)) / np.pi))


def _middle(lags: Floats) -> NDArray[np.bool_]:
    labels, _ = ndimage.label(lags >= 0.5)
    return np.asarray(labels == labels[_REACH, _REACH])


@dataclass(frozen=True, slots=True)
class _Cut:
    """The correlation along the direction in which it reaches farthest, and across it."""

    along: Floats
    """At the radii `_RADII`."""
    across: Floats
    angle_deg: float
    narrow: float
    """Full width at half maximum across."""
    long: float


def _cut(lags: Floats) -> _Cut:
    polar = ndimage.map_coordinates(
        lags,
        [
            _REACH + np.sin(_ANGLES)[:, None] * _RADII[None, :],
            _REACH + np.cos(_ANGLES)[:, None] * _RADII[None, :],
        ],
        order=1,
        mode="nearest",
    )
    # Over 9 degrees each, as single directions are noisy; weighted with the radius, as far out it counts most.
    smooth = ndimage.uniform_filter1d(polar, 3, axis=0, mode="wrap")
    reach = np.sum((smooth - np.median(smooth, axis=0)) * _RADII, axis=1)
    wide = int(np.argmax(reach))
    quarter = len(_ANGLES) // 2
    across = np.take(polar, np.arange(wide + quarter - 8, wide + quarter + 9), axis=0, mode="wrap")
    along = np.take(polar, np.arange(wide - 1, wide + 2), axis=0, mode="wrap").mean(axis=0)
    profile = np.median(across, axis=0)
    angle = float(np.degrees(_ANGLES[wide]))
    return _Cut(
        along,
        profile,
        angle if angle <= 90.0 else angle - 180.0,
        2.0 * _crossing(profile),
        2.0 * _crossing(along),
    )


def _crossing(profile: Floats) -> float:
    """Radius at which a profile falls below one half for the first time."""
    below = np.flatnonzero(profile < 0.5)
    if not below.size:
        return float(_RADII[-1])
    k = max(int(below[0]), 1)
    part = (profile[k - 1] - 0.5) / max(profile[k - 1] - profile[k], 1e-9)
    return float((k - 1 + np.clip(part, 0.0, 1.0)) * _RADII[1])


def _shifted(profile: Floats, shift: float) -> Floats:
    """The profile of a star as seen along a line that begins `shift` from its centre."""
    return np.asarray(np.interp(np.abs(_RADII - shift), _RADII, profile, right=0.0))


def _best_line(cut: _Cut) -> tuple[float, float]:
    """Length of the line that stretches `across` to `along`, and the misfit.

    A line of length L correlated with itself is a triangle that reaches to L either way.
    """
    best = (0.0, float(np.sum((cut.along - cut.across) ** 2)))
    for length in np.geomspace(1.0, 1.6 * _REACH, 50):
        nodes = (np.arange(-12, 13) / 13.0) * length
        weights = 1.0 - np.abs(nodes) / length
        model = sum(w * _shifted(cut.across, node) for w, node in zip(weights, nodes, strict=True))
        model /= model[0]
        misfit = float(np.sum((cut.along - model) ** 2))
        if misfit < best[1]:
            best = (float(length), misfit)
    return best


def _best_pair(cut: _Cut) -> tuple[float, float, float]:
    """Distance and height of a second image that makes `along` of `across`, and the misfit."""
    best = (float("nan"), 0.0, float(np.sum((cut.along - cut.across) ** 2)))
    for distance in np.arange(2.0, _REACH - 2.0, 0.25):
        sides = _shifted(cut.across, distance) + _shifted(cut.across, -distance)
        # along = (across + h sides) / (1 + h sides[0]) is linear in h: along - across = h (sides - sides[0] along)
        direction = sides - sides[0] * cut.along
        height = float(np.dot(cut.along - cut.across, direction) / np.dot(direction, direction))
        if height <= 0.0:
            continue
        model = (cut.across + height * sides) / (1.0 + height * sides[0])
        misfit = float(np.sum((cut.along - model) ** 2))
        if misfit < best[2]:
            best = (float(distance), height, misfit)
    return best
