"""Cosmic rays and hot pixels: what is sharper than any star of this image can be.

For a Gaussian point spread function of standard deviation s, and a pixel p with neighbours n1 and n2
at distance d on opposite sides, sqrt(n1 n2) / p = exp(-d² / 2 s²) wherever in the star the pixel
lies. Where both neighbours together fall short of that by far, in any of four directions, no
optics made that pixel. This is the idea of Laplacian edge detection (van Dokkum 2001, PASP 113,
1420), written so that the limit follows from the measured size of the stars; it therefore holds for
undersampled images too.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from spica_quality.science._jit import jit

Pixels = NDArray[np.float32]
Mask = NDArray[np.bool_]

MARGIN = 0.5
"""Neighbours must be fainter than this times what a star would give."""


@jit
def _excess(
    data: Pixels,
    bad: Mask,
    j: int,
    i: int,
    dj: int,
    di: int,
    ratio: float,
    noise2: float,
    inverse_gain: float,
) -> float:
    """By how many sigma the pixel is too sharp along one direction."""
    if bad[j - dj, i - di] or bad[j + dj, i + di]:
        return 0.0
    p, n1, n2 = data[j, i], data[j - dj, i - di], data[j + dj, i + di]
    variance = (ratio * ratio + 0.5) * noise2
    variance += (ratio * ratio * p + 0.25 * (max(n1, 0.0) + max(n2, 0.0))) * inverse_gain
    return (ratio * p - 0.5 * (n1 + n2)) / np.sqrt(variance)


@jit
def _sharpness(
    data: Pixels,
    bad: Mask,
    rms: Pixels,
    seed: float,
    ratio: NDArray[np.float64],
    inverse_gain: float,
    result: Pixels,
) -> None:
    ny, nx = data.shape
    steps = ratio.shape[0]
    margin = steps
    for j in range(margin, ny - margin):
        for i in range(margin, nx - margin):
            p = data[j, i]
            noise = rms[j, i]
            if bad[j, i] or not p > seed * noise:
                continue
            noise2 = noise * noise
            best = 0.0
            for s in range(steps):
                d = s + 1
                for direction in range(4):
                    dj = d if direction != 0 else 0
                    di = 0 if direction == 1 else (-d if direction == 3 else d)
                    straight = ratio[s, 0] if direction < 2 else ratio[s, 1]
                    excess = _excess(data, bad, j, i, dj, di, straight, noise2, inverse_gain)
                    best = max(best, excess)
            # All eight neighbours at once: less noise, for single hot pixels.
            around, complete = 0.0, True
            for dj in range(-1, 2):
                for di in range(-1, 2):
                    if dj != 0 or di != 0:
                        around += data[j + dj, i + di]
                        complete = complete and not bad[j + dj, i + di]
            if complete:
                mean = 0.5 * (ratio[0, 0] + ratio[0, 1])
                variance = (mean * mean + 0.125) * noise2 + mean * mean * p * inverse_gain
                best = max(best, (mean * p - 0.125 * around) / np.sqrt(variance))
            result[j, i] = best


@jit
def _grow(sharp: Pixels, data: Pixels, rms: Pixels, low: float, mask: Mask) -> int:
    """Add pixels beside masked ones that are too sharp by the lower limit; returns how many."""
    ny, nx = data.shape
    added = 0
    before = mask.copy()
    for j in range(1, ny - 1):
        for i in range(1, nx - 1):
            if before[j, i] or not (sharp[j, i] > low):
                continue
            touches = False
            for dj in range(-1, 2):
                for di in range(-1, 2):
                    touches = touches or before[j + dj, i + di]
            if touches:
                mask[j, i] = True
                added += 1
    return added


def cosmic_mask(
    data: Pixels,
    bad: Mask,
    rms: Pixels,
    sigma_px: float,
    gain: float,
    *,
    limit: float = 5.0,
    grow_limit: float = 2.5,
) -> Mask:
    """Pixels hit by cosmic rays, and hot pixels.

    Args:
        data: background-subtracted pixels, shape (ny, nx).
        bad: True where a pixel has no value: nothing is concluded from it, as a star beside a dead column
            looks sharp.
        rms: noise of the background, same shape.
        sigma_px: standard deviation of the narrowest stars along their minor axis. Too small a
            value finds fewer cosmics, never more.
        gain: electrons per unit of `data`; 0 leaves photon noise out.
        limit: how many sigma too sharp a pixel must be.
        grow_limit: the same for pixels that touch one.

    """
    steps = 2 if sigma_px > 1.2 else 1
    distance2 = np.array([[d * d, 2.0 * d * d] for d in range(1, steps + 1)], dtype=np.float64)
    ratio = MARGIN * np.exp(-distance2 / (2.0 * sigma_px**2))
    sharp = np.zeros(data.shape, dtype=np.float32)
    _sharpness(data, bad, rms, 4.0, ratio, 1.0 / gain if gain > 0 else 0.0, sharp)
    mask = sharp > limit
    for _ in range(3):
        if not _grow(sharp, data, rms, grow_limit, mask):
            break
    return mask
