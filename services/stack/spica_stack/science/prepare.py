"""What is done to a CCD before it is resampled: sky subtracted, weights made absolute, holes filled."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import sep
from numba import prange
from numpy.typing import NDArray

from spica_stack.science._jit import parallel_kernel

Image = NDArray[np.float32]

FILL_RADIUS_PX = 3
MAD_TO_SIGMA = 1.4826
_SUBSAMPLE = 60_000


class NoUsablePixels(ValueError):
    """A CCD has too few pixels with weight to tell its sky."""


@dataclass(frozen=True, slots=True)
class PreparedCcd:
    """Ready to be resampled. Arrays of shape (ny, nx)."""

    data: Image
    """Background-subtracted adu, finite everywhere."""
    weight: Image
    """1 / variance in adu⁻²; 0 = unusable."""
    background_adu: float
    noise_adu: float
    """Sky noise per pixel (standard deviation) where the weight is the typical one."""


@parallel_kernel
def _fill(data: Image, good: NDArray[np.bool_], kernel_weights: NDArray[np.float32], out: Image) -> None:
    """Replace pixels that are not good by a weighted mean of good ones around them, or by 0 (the sky)."""
    ny, nx = data.shape
    radius = kernel_weights.shape[0] // 2
    for y in prange(ny):
        for x in range(nx):
            if good[y, x]:
                out[y, x] = data[y, x]
                continue
            total, norm = np.float32(0.0), np.float32(0.0)
            for j in range(max(y - radius, 0), min(y + radius + 1, ny)):
                for i in range(max(x - radius, 0), min(x + radius + 1, nx)):
                    if good[j, i]:
                        w = kernel_weights[j - y + radius, i - x + radius]
                        total += w * data[j, i]
                        norm += w
            out[y, x] = total / norm if norm > 0 else np.float32(0.0)


def fill_unusable(data: Image, good: NDArray[np.bool_]) -> Image:
    """Fill pixels that are not good from their neighbours (Gaussian of sigma 1 px, 7×7 px).

    Only so that interpolation nearby has something smooth to work with: filled pixels themselves
    never get weight. `data` may hold NaN where `good` is false.
    """
    offsets = np.arange(-FILL_RADIUS_PX, FILL_RADIUS_PX + 1)
    weights = np.exp(-0.5 * (offsets[:, None] ** 2 + offsets[None, :] ** 2)).astype(np.float32)
    out = np.empty_like(data)
    _fill(data, good, weights, out)
    return out


def robust_sigma(values: NDArray[np.floating]) -> float:
    """Standard deviation of Gaussian noise with stars in it: median absolute deviation, clipped at 3 sigma."""
    kept = values
    sigma = 0.0
    for _ in range(4):
        middle = np.median(kept)
        sigma = float(MAD_TO_SIGMA * np.median(np.abs(kept - middle)))
        kept = kept[np.abs(kept - middle) <= 3.0 * sigma]
    return sigma


def prepare_ccd(data: Image, weight: Image, mesh_px: int) -> PreparedCcd:
    """Subtract a mesh background, scale weights by the noise that is really there, fill holes.

    Weight maps are often known up to a factor only. The factor is found from the frame itself:
    the scatter of (pixel - sky) × sqrt(weight) is 1 for weights that are 1 / variance.
    Raises NoUsablePixels.
    """
    good = (weight > 0) & np.isfinite(data) & np.isfinite(weight)
    if np.count_nonzero(good) < 100:
        raise NoUsablePixels(f"{np.count_nonzero(good)} pixels have weight")
    filled = np.where(good, data, np.float32(0.0))
    ny, nx = data.shape
    # At least four meshes a side: a small frame must not have its sky taken from one value.
    box = max(8, min(mesh_px, nx // 4, ny // 4))
    sky = sep.Background(filled, mask=~good, bw=box, bh=box, fw=3, fh=3)
    sky.subfrom(filled)
    # The same pixels every time, spread over the frame.
    flat_good = np.flatnonzero(good)
    sample = flat_good[:: max(1, len(flat_good) // _SUBSAMPLE)]
    chi = filled.ravel()[sample] * np.sqrt(weight.ravel()[sample])
    sigma = robust_sigma(chi)
    if not (np.isfinite(sigma) and sigma > 0):
        raise NoUsablePixels("the pixels with weight do not scatter at all")
    absolute = np.where(good, weight / np.float32(sigma * sigma), np.float32(0.0)).astype(np.float32)
    noise = float(1.0 / np.sqrt(np.median(absolute.ravel()[sample])))
    return PreparedCcd(fill_unusable(filled, good), absolute, float(sky.globalback), noise)
