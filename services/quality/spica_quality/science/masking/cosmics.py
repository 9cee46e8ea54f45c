"""Cosmic rays and hot pixels: what is sharper than any star of this image can be.

For a Gaussian point spread function of standard deviation s, and a pixel p with n1 and n2 at distances a and b on
opposite sides, ln p = (b ln n1 + a ln n2) / (a + b) + a b / 2 s² wherever in the star the pixel lies; hence

    (b n1 + a n2) / (a + b) >= p exp(-a b / 2 s²)

as arithmetic means are not below geometric ones. Profiles with wings, and galaxies, lie above that. Where the pixels on
both sides together fall short of it by far, no optics made that pixel. The idea is that of Laplacian edge
detection (van Dokkum 2001, PASP 113, 1420), written so that the limit follows from the measured size of the stars:
it holds for undersampled images too. Unlike there nothing is filtered, resampled or repeated: the test
looks at the few pixels that stand out at all, in four directions, over one or two pixels to either side (tracks lie
between two pixels), also for three pixels side by side at once (faint tracks), and over pixels that are
masked already. The last is how tracks grow: next to a pixel that was hit, the test goes on beyond it with a lower limit.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from spica_quality.science._jit import jit
from spica_quality.science.flags import UNUSABLE, Bit, Noise, bands

Pixels = NDArray[np.float32]
Flags = NDArray[np.uint16]
Floats = NDArray[np.float64]

MARGIN = 0.95
"""Neighbours may be fainter than a star's by this factor: stars differ a little over the field."""

SHARPER = 0.93
"""The cores of Moffat profiles bend like Gaussians that are narrower than the adaptive size by this factor."""

SHARPEST_SIGMA_PX = 0.7
"""Size of stars as sharp as cameras see them. With it, `mark_cosmics` takes most of the bright tracks out of the way before
anything is known of the stars: in a frame of many cosmic rays and few stars these would be taken for stars."""

_SEED_SIGMA = 3.0
_SINGLE_SIGMA = 4.5
_REACH_PX = 5
_WORTH_A_LOOK = 0.4
"""Of the limit: less than this for the pixel itself comes to nothing, with whatever is beside it."""

_ROOT3 = float(np.sqrt(3.0))


def mark_cosmics(
    data: Pixels, flags: Flags, sky: Noise, sigma_px: float, gain: float, *, limit: float = 5.0
) -> int:
    """Mark pixels hit by cosmic rays, and hot pixels, COSMIC.

    Not for stacks and other resampled images: there, neighbours share noise, and the limits mean less.

    Args:
        data: pixels less the sky, shape (ny, nx).
        flags: flag map, same shape. Unusable pixels are neither marked nor believed. Marks of an earlier call are
            forgotten.
        sky: the noise.
        sigma_px: adaptive size of the narrowest stars along their minor axis. Too small a value
            finds fewer cosmics, never more.
        gain: electrons per unit of `data`; 0 leaves photon noise out.
        limit: how many sigma too sharp a pixel must be that begins a track. It is lowered, by up to 30 %,
            where stars are sharp themselves, which leaves the test less to go by.

    Returns:
        How many pixels were marked.

    """
    if not sigma_px > 0:
        return 0
    inverse_variance = 0.5 / (SHARPER * sigma_px) ** 2
    ratio = MARGIN * float(np.exp(-inverse_variance))
    start, grow = limit * float(np.clip(ratio, 0.7, 1.0)), limit * float(np.clip(ratio - 0.25, 0.4, 0.7))
    inverse_gain = 1.0 / gain if gain > 0 else 0.0
    test = (int(UNUSABLE), _tables(inverse_variance), inverse_gain)
    flags &= ~Bit.COSMIC
    places, noises = [], []
    for y0, y1 in bands(data.shape[0]):
        place, noise = _too_sharp(data, flags, sky.rms_rows(y0, y1), y0, start, *test)
        places.append(place)
        noises.append(noise)
    return int(
        _grow(data, flags, np.concatenate(places), np.concatenate(noises), grow, int(Bit.COSMIC), *test)
    )


@jit
def _blocked(flags: Flags, j: int, i: int, unusable: int) -> bool:
    ny, nx = flags.shape
    return j < 0 or i < 0 or j >= ny or i >= nx or (flags[j, i] & unusable) != 0


@jit
def _beyond(flags: Flags, j: int, i: int, dj: int, di: int, first: int, unusable: int) -> int:
    """Distance, at least `first`, of the first usable pixel in a direction; 0 where there is none in reach."""
    distance = first
    while distance <= _REACH_PX:
        if not _blocked(flags, j + distance * dj, i + distance * di, unusable):
            return distance
        distance += 1
    return 0


@jit
def _tables(inverse_variance: float) -> Floats:
    """What the test needs for neighbours at distances a and b, across and diagonally; shape (2, reach + 1, reach + 1, 4).

    Per entry: ratio that a star reaches, weights of both, and the root of the sum of the squares of these three.
    """
    tables = np.zeros((2, _REACH_PX + 1, _REACH_PX + 1, 4))
    for diagonal in range(2):
        for a in range(1, _REACH_PX + 1):
            for b in range(1, _REACH_PX + 1):
                ratio = MARGIN * np.exp(-a * b * (1 + diagonal) * inverse_variance)
                w1, w2 = b / (a + b), a / (a + b)
                tables[diagonal, a, b] = ratio, w1, w2, np.sqrt(ratio * ratio + w1 * w1 + w2 * w2)
    return tables


@jit
def _exceeds(
    p: float, n1: float, n2: float, entry: Floats, noise: float, inverse_gain: float, limit: float
) -> bool:
    """Whether the neighbours fall short of a star's by more than `limit` sigma, photon noise included."""
    ratio, w1, w2 = entry[0], entry[1], entry[2]
    short = ratio * p - w1 * n1 - w2 * n2
    # Most fall here: no root is needed to see that they do not.
    if not short > limit * noise * entry[3]:
        return False
    shot = ratio * ratio * max(p, 0.0) + w1 * w1 * max(n1, 0.0) + w2 * w2 * max(n2, 0.0)
    return bool(short * short > limit * limit * (entry[3] * entry[3] * noise * noise + shot * inverse_gain))


@jit
def _alone(
    data: Pixels,
    flags: Flags,
    j: int,
    i: int,
    noise: float,
    limit: float,
    unusable: int,
    tables: Floats,
    inverse_gain: float,
) -> bool:
    """The test with the mean of all eight neighbours, which has less noise: for single pixels."""
    total, stars, n = 0.0, 0.0, 0
    for direction in range(4):
        dj = 0 if direction == 0 else 1
        di = 0 if direction == 1 else (-1 if direction == 3 else 1)
        # In pairs of opposite ones, as only these are bound.
        if not (_blocked(flags, j + dj, i + di, unusable) or _blocked(flags, j - dj, i - di, unusable)):
            total += data[j + dj, i + di] + data[j - dj, i - di]
            stars += 2.0 * tables[dj * di * dj * di, 1, 1, 0]
            n += 2
    if n == 0:
        return False
    ratio, p = stars / n, data[j, i]
    short = ratio * p - total / n
    shot = ratio * ratio * max(p, 0.0) + max(total, 0.0) / (n * n)
    variance = (ratio * ratio + 1.0 / n) * noise * noise + shot * inverse_gain
    return bool(short > 0.0 and short * short > limit * limit * variance)


@jit
def _is_sharp(
    data: Pixels,
    flags: Flags,
    j: int,
    i: int,
    noise: float,
    limit: float,
    single: bool,
    three: bool,
    unusable: int,
    tables: Floats,
    inverse_gain: float,
) -> bool:
    """Whether a pixel is too sharp by more than `limit` sigma: `single`, or with the two beside it (`three`)."""
    p = data[j, i]
    for direction in range(4):
        dj = 0 if direction == 0 else 1
        di = 0 if direction == 1 else (-1 if direction == 3 else 1)
        # At right angles to the direction.
        tj, ti = (di, -dj) if direction > 1 else (di, dj)
        table = tables[1 if direction > 1 else 0]
        for first in range(1, 3):
            a = _beyond(flags, j, i, -dj, -di, first, unusable)
            if a == 0:
                continue
            for second in range(1, 3):
                b = _beyond(flags, j, i, dj, di, second, unusable)
                if b == 0:
                    continue
                n1, n2 = data[j - a * dj, i - a * di], data[j + b * dj, i + b * di]
                if single and _exceeds(p, n1, n2, table[a, b], noise, inverse_gain, limit):
                    return True
                # Three alike are better by the root of three: one that is worth much less need not be looked at.
                if not three or not _exceeds(
                    p, n1, n2, table[a, b], noise, inverse_gain, _WORTH_A_LOOK * limit
                ):
                    continue
                p3, n13, n23, whole = p, n1, n2, True
                for side in range(-1, 2, 2):
                    jj, ii = j + side * tj, i + side * ti
                    ja, ia, jb, ib = jj - a * dj, ii - a * di, jj + b * dj, ii + b * di
                    whole = whole and not (
                        _blocked(flags, jj, ii, unusable)
                        or _blocked(flags, ja, ia, unusable)
                        or _blocked(flags, jb, ib, unusable)
                    )
                    if whole:
                        p3, n13, n23 = p3 + data[jj, ii], n13 + data[ja, ia], n23 + data[jb, ib]
                if whole and _exceeds(p3, n13, n23, table[a, b], _ROOT3 * noise, inverse_gain, limit):
                    return True
    return single and _alone(data, flags, j, i, noise, limit, unusable, tables, inverse_gain)


@jit
def _may_be_sharp(data: Pixels, j: int, i: int, enough: float, near: Floats) -> bool:
    """A quick look that lets most pixels of stars and galaxies go, and none that `_is_sharp` would take.

    Masked neighbours count with the value they have. `near`: entries of the tables, shape (2, 3, 2): ratio and error for
    neighbours at 1 and 1, 1 and 2, 2 and 2.
    """
    p = data[j, i]
    for direction in range(4):
        dj = 0 if direction == 0 else 1
        di = 0 if direction == 1 else (-1 if direction == 3 else 1)
        table = near[1 if direction > 1 else 0]
        a1, a2 = data[j - dj, i - di], data[j - 2 * dj, i - 2 * di]
        b1, b2 = data[j + dj, i + di], data[j + 2 * dj, i + 2 * di]
        across = min(2.0 * a1 + b2, 2.0 * b1 + a2) / 3.0
        if (
            table[0, 0] * p - 0.5 * (a1 + b1) > enough * table[0, 1]
            or table[1, 0] * p - across > enough * table[1, 1]
            or table[2, 0] * p - 0.5 * (a2 + b2) > enough * table[2, 1]
        ):
            return True
    return False


@jit
def _too_sharp(
    data: Pixels,
    flags: Flags,
    rms: Pixels,
    y0: int,
    limit: float,
    unusable: int,
    tables: Floats,
    inverse_gain: float,
) -> tuple[NDArray[np.int64], Pixels]:
    """Places (row · nx + column) of pixels that are too sharp, and the noise there; `rms`: of the rows from y0 on."""
    ny, nx = data.shape
    near = np.empty((2, 3, 2))
    for diagonal in range(2):
        for k in range(3):
            entry = tables[diagonal, 1 + k // 2, 1 + (k + 1) // 2]
            near[diagonal, k, 0], near[diagonal, k, 1] = entry[0], entry[3]
    places, noises = np.empty(1024, np.int64), np.empty(1024, np.float32)
    n = 0
    for row in range(rms.shape[0]):
        j = y0 + row
        for i in range(nx):
            noise = rms[row, i]
            # Written so that NaN fails it.
            if not data[j, i] > _SEED_SIGMA * noise or flags[j, i] & unusable:
                continue
            inside = 2 <= j < ny - 2 and 2 <= i < nx - 2
            if inside and not _may_be_sharp(data, j, i, _WORTH_A_LOOK * limit * noise, near):
                continue
            # Noise is as high as this some times in a million pixels; a track is, in three pixels at once.
            single = data[j, i] > _SINGLE_SIGMA * noise
            if not _is_sharp(data, flags, j, i, noise, limit, single, True, unusable, tables, inverse_gain):
                continue
            if n == places.size:
                places = np.concatenate((places, np.empty(n, np.int64)))
                noises = np.concatenate((noises, np.empty(n, np.float32)))
            places[n], noises[n] = j * nx + i, noise
            n += 1
    return places[:n], noises[:n]


@jit
def _grow(
    data: Pixels,
    flags: Flags,
    places: NDArray[np.int64],
    noises: Pixels,
    limit: float,
    bit: int,
    unusable: int,
    tables: Floats,
    inverse_gain: float,
) -> int:
    """Mark these pixels, and those that touch marked ones and are too sharp by the lower limit; returns how many."""
    ny, nx = data.shape
    n = places.size
    for k in range(n):
        flags[places[k] // nx, places[k] % nx] |= bit
    head = 0
    while head < n:
        row, column, noise = places[head] // nx, places[head] % nx, noises[head]
        head += 1
        for j in range(max(row - 1, 0), min(row + 2, ny)):
            for i in range(max(column - 1, 0), min(column + 2, nx)):
                if flags[j, i] & unusable or not data[j, i] > limit * noise:
                    continue
                if not _is_sharp(
                    data, flags, j, i, noise, limit, True, False, unusable, tables, inverse_gain
                ):
                    continue
                if n == places.size:
                    places = np.concatenate((places, np.empty(n, np.int64)))
                    noises = np.concatenate((noises, np.empty(n, np.float32)))
                flags[j, i] |= bit
                places[n], noises[n] = j * nx + i, noise
                n += 1
    return n
