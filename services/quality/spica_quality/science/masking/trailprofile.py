"""A close look at what may be a trail: where exactly it runs, how wide it is, where it ends, and whether it is one.

The pixels along a line are gathered in pieces four times as long as stars are wide, each with a profile across of 121 px.
Each value is a median along the piece, which a star on the way does not move; and so are those over the pieces.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from spica_quality.science._jit import jit
from spica_quality.science.flags import UNUSABLE, Bit

Pixels = NDArray[np.float32]
Flags = NDArray[np.uint16]
Floats = NDArray[np.float64]

_HALF_PX = 60
_SIDE_PX = 40
_LEAST_CHUNK_PX = 16
_CHUNK_FWHM = 4.0
_LEAST_SIGMA = 6.0
_WORTH_FOLLOWING_SIGMA = 4.0
_LEAST_HEIGHT = 0.12
_UNEVEN = 0.6
_AT_PLACE = 0.25
_CLEAR_SIGMA = 1.2
_LEAST_PIECES = 6
_PIECE_SNR = 4.0
_SHIFT_PX = 12
_REACH = 2.0
_LEAST_REACH_PX = 400.0
_SHORT_PX = 300.0
_BROAD = 1.7
_STRAIGHT = 0.01
_HALF_BANDS = (4, 3, 2)


@dataclass(frozen=True, slots=True)
class Streak:
    """A trail as it runs through the pixels."""

    x0: float
    y0: float
    x1: float
    y1: float
    width_px: float
    """Full width at half maximum."""
    height_sigma: float
    """Above the pixels beside it, along its middle, in units of a pixel's noise."""
    significance: float
    low_px: float
    """From where to where across, to the right of its direction, it is to be seen."""
    high_px: float


@dataclass(frozen=True, slots=True)
class Pixelwise:
    """The pixels in which a trail is followed."""

    data: Pixels
    """Less the sky, shape (ny, nx)."""
    flags: Flags
    """Same shape; unusable and saturated pixels are not looked at."""
    noise: float
    """Of a pixel."""
    fwhm_px: float
    """Width of stars; 0 where it is not known."""

    @property
    def piece_px(self) -> int:
        """Length of the pieces."""
        return max(_LEAST_CHUNK_PX, round(_CHUNK_FWHM * self.fwhm_px))

    def chunks(self, ends: Floats) -> Pixels:
        """Medians along pieces, per pixel across, in sigma; shape (pieces, 121), NaN where little is usable."""
        length = float(np.hypot(ends[2] - ends[0], ends[3] - ends[1]))
        result = np.empty((int(length) // self.piece_px, 2 * _HALF_PX + 1), np.float32)
        if len(result):
            unfit = int(UNUSABLE | Bit.SATURATED)
            _sample(self.data, self.flags, 1.0 / self.noise, ends, self.piece_px, unfit, result)
        return result


def look(pixels: Pixelwise, ends: Floats) -> Streak | None:
    """Follow what may be a trail; None if it is none. `ends`: x0, y0, x1, y1 of a piece of it, to some pixels."""
    # Most of what is bright on average is nothing in the median, and gone here.
    if _peak(pixels.chunks(ends), pixels.piece_px, _WORTH_FOLLOWING_SIGMA) is None:
        return None
    for half_band in _HALF_BANDS:
        ends = _straightened(ends, pixels.chunks(ends))
        ends = _fitted(pixels, ends, half_band)
    chunks = pixels.chunks(ends)
    peak = _peak(chunks, pixels.piece_px, _LEAST_SIGMA)
    if peak is None:
        return None
    smooth, base, error, middle = peak
    height = float(smooth[middle] - base)
    left, right = _limits(smooth - base, middle, 0.5 * height)
    width = float(right - left)
    run = sorted((abs(float(ends[2] - ends[0])), abs(float(ends[3] - ends[1]))))
    # What runs along columns or rows and is thinner than stars is the detector's.
    thin = width < 0.7 * pixels.fwhm_px and run[0] < _STRAIGHT * run[1]
    # What is near enough to be out of focus is fast, and long; short and broad are galaxies seen from the side.
    short = np.hypot(run[0], run[1]) < _SHORT_PX and 0 < _BROAD * pixels.fwhm_px + 1.0 < width
    if thin or short or width > 2.0 * _SIDE_PX:
        return None
    if not (_is_even(chunks, left, right, base, pixels.piece_px) and _is_in_place(chunks, left, right, base)):
        return None
    low, high = _limits(smooth - base, middle, max(0.1, 2.0 * error))
    x0, y0, x1, y1 = ends.tolist()
    return Streak(
        x0, y0, x1, y1, width, height, height / error, low - 1.0 - _HALF_PX, high + 1.0 - _HALF_PX
    )  # fmt: skip


@jit
def _sample(
    data: Pixels,
    flags: Flags,
    per_sigma: float,
    ends: Floats,
    piece_px: int,
    unfit: int,
    result: Pixels,
) -> None:
    ny, nx = data.shape
    x0, y0, x1, y1 = ends[0], ends[1], ends[2], ends[3]
    length = np.hypot(x1 - x0, y1 - y0)
    ux, uy = (x1 - x0) / length, (y1 - y0) / length
    pieces, width = result.shape
    step = length / (pieces * piece_px)
    values = np.empty(piece_px, np.float32)
    for k in range(pieces):
        for u in range(width):
            across = u - _HALF_PX
            n = 0
            for s in range(k * piece_px, (k + 1) * piece_px):
                along = (s + 0.5) * step
                i = int(np.floor(x0 + ux * along + uy * across + 0.5))
                j = int(np.floor(y0 + uy * along - ux * across + 0.5))
                if i < 0 or j < 0 or i >= nx or j >= ny or flags[j, i] & unfit or np.isnan(data[j, i]):
                    continue
                values[n] = data[j, i]
                n += 1
            result[k, u] = _median(values, n) * per_sigma if n >= piece_px // 4 else np.nan


@jit
def _median(values: Pixels, n: int) -> float:
    """Median of the first n values, which are put in order."""
    for k in range(1, n):
        value, place = values[k], k
        while place > 0 and values[place - 1] > value:
            values[place] = values[place - 1]
            place -= 1
        values[place] = value
    return 0.5 * (values[(n - 1) // 2] + values[n // 2])


def _middle(chunks: Pixels) -> Pixels:
    """Median over the pieces, smoothed over 5 px, of shape (121,); NaN becomes 0."""
    columns = np.isfinite(chunks).sum(axis=0) > 0.3 * len(chunks)
    middle = np.zeros(chunks.shape[1], np.float32)
    if columns.any():
        middle[columns] = np.nanmedian(chunks[:, columns], axis=0)
    return np.asarray(ndimage.uniform_filter1d(middle, 5, mode="nearest"))


def _straightened(ends: Floats, chunks: Pixels) -> Floats:
    """Ends shifted across so that both thirds of the line run along its middle."""
    if len(chunks) < _LEAST_PIECES:
        return ends
    third = max(len(chunks) // 3, 3)
    reach = slice(_HALF_PX - _SHIFT_PX, _HALF_PX + _SHIFT_PX + 1)
    shifts = []
    for part in (chunks[:third], chunks[-third:]):
        smooth = _middle(part)[reach]
        shifts.append(float(np.argmax(smooth)) - _SHIFT_PX)
    # The thirds' middles are a sixth of the length from the ends.
    slope = (shifts[1] - shifts[0]) / (len(chunks) - third)
    first = shifts[0] - slope * 0.5 * third
    last = shifts[1] + slope * 0.5 * third
    length = np.hypot(ends[2] - ends[0], ends[3] - ends[1])
    nx, ny = (ends[3] - ends[1]) / length, -(ends[2] - ends[0]) / length
    return ends + np.array([nx * first, ny * first, nx * last, ny * last])


def _across(chunks: Pixels, piece_px: int) -> tuple[Pixels, float, float] | None:
    """Profile across, smoothed over 3 px, its base beside the trail and the error of one of its values."""
    if len(chunks) < _LEAST_PIECES:
        return None
    known = np.isfinite(chunks).sum(axis=0) > 0.3 * len(chunks)
    side = known.copy()
    side[_HALF_PX - _SIDE_PX + 1 : _HALF_PX + _SIDE_PX] = False
    # Nothing on one side: the rim of the frame.
    if min(np.count_nonzero(side[:_HALF_PX]), np.count_nonzero(side[_HALF_PX:])) < 5 or not known[_HALF_PX]:
        return None
    profile = np.zeros(chunks.shape[1], np.float32)
    profile[known] = np.nanmedian(chunks[:, known], axis=0)
    base = float(np.median(profile[side]))
    profile[~known] = base
    smooth = np.asarray(ndimage.uniform_filter1d(profile, 3, mode="nearest"))
    # A median of medians.
    expected = 1.2533**2 / np.sqrt(3.0 * piece_px * len(chunks))
    low = base - float(np.percentile(smooth[side], 15.87))
    return smooth, base, max(low, float(expected))


def _peak(chunks: Pixels, piece_px: int, least_sigma: float) -> tuple[Pixels, float, float, int] | None:
    """The profile across, its base and error, and where it is highest; None if that is not high enough."""
    profile = _across(chunks, piece_px)
    if profile is None:
        return None
    smooth, base, error = profile
    middle = int(np.argmax(smooth[_SIDE_PX:-_SIDE_PX])) + _SIDE_PX
    height = float(smooth[middle] - base)
    return (*profile, middle) if height > max(least_sigma * error, _LEAST_HEIGHT) else None


def _limits(height: Pixels, middle: int, level: float) -> tuple[float, float]:
    """Where the profile falls below a level on either side of its middle, interpolated."""
    left = middle
    while left > 0 and height[left] > level:
        left -= 1
    right = middle
    while right < len(height) - 1 and height[right] > level:
        right += 1

    def between(outer: int, inner: int) -> float:
        rise = float(height[inner] - height[outer])
        return outer + (inner - outer) * (float(level - height[outer]) / rise if rise > 0 else 0.0)

    return between(left, min(left + 1, middle)), between(right, max(right - 1, middle))


def _is_even(chunks: Pixels, left: float, right: float, base: float, piece_px: int) -> bool:
    """Whether it is there in nearly all pieces of its length, and about as bright.

    Pieces are put together until the noise of each is a quarter of the trail's height.
    """
    first, last = round(left), max(round(right), round(left) + 1)
    inside = chunks[:, max(first, 0) : last + 1]
    inside = inside[np.isfinite(inside).any(axis=1)]
    if len(inside) < _LEAST_PIECES:
        return False
    level = np.nanmean(inside, axis=1) - base
    typical = float(np.median(level))
    if not typical > 0.0:
        return False
    together = int(np.ceil((1.2533 * _PIECE_SNR / typical) ** 2 / (piece_px * (last + 1 - first))))
    if len(inside) < _LEAST_PIECES * together:
        return False
    parts = np.array([np.mean(part) for part in np.array_split(level, len(inside) // together)])
    middle, ordered, few = float(np.median(parts)), np.sort(parts), len(parts) // 10
    error = 1.2533 / np.sqrt(piece_px * (last + 1 - first) * (len(inside) / len(parts)))
    there = np.count_nonzero(parts > 0.4 * middle)
    rise = float(ordered[-1 - max(few, 1)] - ordered[max(few, 1)])
    return bool(there >= len(parts) - few and rise < _UNEVEN * middle + 3.0 * error)


def _is_in_place(chunks: Pixels, left: float, right: float, base: float) -> bool:
    """Whether its middle is at the same place across in all pieces; that of chains of stars is not."""
    width = max(right - left, 2.0)
    reach = int(np.ceil(1.5 * width))
    middle = 0.5 * (left + right)
    window = slice(max(round(middle) - reach, 0), round(middle) + reach + 1)
    # The upper half of each profile alone: what is beside it does not pull.
    height = np.nan_to_num(chunks[:, window] - base)
    smooth = ndimage.uniform_filter1d(height, max(3, round(0.5 * width)), axis=1, mode="nearest")
    peak = smooth.max(axis=1, keepdims=True)
    upper = np.maximum(smooth - 0.5 * peak, 0.0)
    total = upper.sum(axis=1)
    clear = (peak[:, 0] > _CLEAR_SIGMA) & (total > 0)
    if np.count_nonzero(clear) < max(_LEAST_PIECES, 0.5 * len(chunks)):
        return True  # too faint to tell piece by piece
    places = (upper[clear] @ np.arange(upper.shape[1])) / total[clear]
    places -= np.median(places)
    return bool(np.percentile(np.abs(places), 75.0) < max(_AT_PLACE * width, 1.0))


def _fitted(pixels: Pixelwise, ends: Floats, half_band: int) -> Floats:
    """Ends moved along the line to where the trail begins and ends, as far as it can be followed.

    Of all stretches, the one with the highest sum of brightness less half the trail's: gaps cost as much as the trail
    brings, and no source brings more than the trail does.
    """
    length = float(np.hypot(ends[2] - ends[0], ends[3] - ends[1]))
    if not length > 0:
        return ends
    ux, uy = (ends[2] - ends[0]) / length, (ends[3] - ends[1]) / length
    before, behind = _within(ends, ux, uy, pixels.data.shape)
    # As far as it may go on; it is looked at thrice, and each time from where it was found to end.
    reach = max(_REACH * length, _LEAST_REACH_PX)
    before, behind = max(before, -reach), min(behind, length + reach)
    whole = np.array(
        [ends[0] + ux * before, ends[1] + uy * before, ends[0] + ux * behind, ends[1] + uy * behind]
    )
    chunks = pixels.chunks(whole)
    if not len(chunks):
        return ends
    piece = (behind - before) / len(chunks)
    level = _levels(chunks, half_band)
    inner = level[max(int(-before / piece), 0) : int((length - before) / piece) + 1]
    inner = inner[np.isfinite(inner)]
    typical = float(np.percentile(inner, 65.0)) if inner.size else 0.0
    if not typical > 0:
        return ends
    gain = np.where(np.isfinite(level), np.clip(level, -typical, 1.5 * typical) - 0.5 * typical, 0.0)
    start, stop = _best_stretch(gain)
    return np.array([
        whole[0] + ux * start * piece, whole[1] + uy * start * piece,
        whole[0] + ux * stop * piece, whole[1] + uy * stop * piece,
    ])  # fmt: skip


def _within(ends: Floats, ux: float, uy: float, shape: tuple[int, ...]) -> tuple[float, float]:
    """From where to where along the line, from its first end, it runs through the frame."""
    before, behind = -np.inf, np.inf
    for start, u, size in ((ends[0], ux, shape[1]), (ends[1], uy, shape[0])):
        if abs(u) < 1e-9:
            continue
        one, other = sorted(((-0.5 - start) / u, (size - 0.5 - start) / u))
        before, behind = max(before, one), min(behind, other)
    return (before, behind) if behind > before else (0.0, 0.0)


def _levels(chunks: Pixels, half_band: int) -> Floats:
    """Brightness of each piece in the middle band over that beside it; NaN where it cannot be told."""
    here = chunks[:, _HALF_PX - half_band : _HALF_PX + half_band + 1]
    beside = np.concatenate(
        [chunks[:, _HALF_PX - 30 : _HALF_PX - 14], chunks[:, _HALF_PX + 15 : _HALF_PX + 31]], axis=1
    )
    known = np.isfinite(here).any(axis=1) & np.isfinite(beside).any(axis=1)
    level = np.full(len(chunks), np.nan)
    if known.any():
        level[known] = np.nanmean(here[known], axis=1) - np.nanmedian(beside[known], axis=1)
    return level


def _best_stretch(gain: Floats) -> tuple[int, int]:
    """From where to before where the sum is highest (Kadane)."""
    best, total, start, found = 0.0, 0.0, 0, (0, 0)
    for k, value in enumerate(gain.tolist()):
        if total <= 0.0:
            total, start = 0.0, k
        total += value
        if total > best:
            best, found = total, (start, k + 1)
    return found
