"""A frame made small for people: means of blocks of pixels, and what stands against them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spica_quality.science._jit import jit
from spica_quality.science.flags import UNUSABLE, Flags

Pixels = NDArray[np.float32]
Counts = NDArray[np.uint16]
"""Blocks of up to 255 × 255 pixels can be counted: a CCD of 65,000 px a side made 255 px wide."""


@dataclass(frozen=True, slots=True)
class Binned:
    """Blocks of factor × factor pixels; those at the upper and right rim may be cut. Arrays of shape (ny, nx)."""

    factor: int
    mean: Pixels
    """Of the pixels that have a value, in their unit; NaN where none has."""
    n_valued: Counts
    """Pixels with a value (saturated ones are among them)."""
    n_clean: Counts
    """Pixels without any flag."""
    n_pixels: Counts
    """Pixels of the block."""
    reasons: Flags
    """All bits of the block's pixels together."""

    def coarser(self, times: int) -> Binned:
        """Blocks of `times` × `times` of these blocks."""
        if times <= 1:
            return self
        result = _empty(self.mean.shape, times, self.factor * times)
        parts = (self.mean, self.n_valued, self.n_clean, self.n_pixels, self.reasons)
        join_blocks(*parts, times, *_arrays(result))
        return result


def _empty(shape: tuple[int, ...], step: int, factor: int) -> Binned:
    ny, nx = (-(-size // step) for size in shape)
    if factor > 255:
        raise ValueError(f"blocks of {factor} px a side are more than the 255 that can be counted")
    valued, clean, pixels, reasons = (np.zeros((ny, nx), np.uint16) for _ in range(4))
    return Binned(factor, np.full((ny, nx), np.nan, np.float32), valued, clean, pixels, reasons)


def _arrays(binned: Binned) -> tuple[Pixels, Counts, Counts, Counts, Flags]:
    return binned.mean, binned.n_valued, binned.n_clean, binned.n_pixels, binned.reasons


def bin_frame(data: Pixels, flags: Flags, factor: int) -> Binned:
    """Bin pixels and flags in one pass.

    Args:
        data: shape (ny, nx), any unit; pixels with a bit of `UNUSABLE`, NaN and infinities have no value.
        flags: bits of `flags.Bit`, same shape.
        factor: side of the blocks, px.

    """
    result = _empty(data.shape, factor, factor)
    bin_blocks(data, flags, factor, np.uint16(UNUSABLE), *_arrays(result))
    return result


@jit
def bin_blocks(
    data: Pixels,
    flags: Flags,
    factor: int,
    unusable: np.uint16,
    mean: Pixels,
    valued: Counts,
    clean: Counts,
    pixels: Counts,
    reasons: Flags,
) -> None:
    """Fill the last five, shape (ceil(ny / factor), ceil(nx / factor)), from the first two."""
    ny, nx = data.shape
    for block_y in range(mean.shape[0]):
        y0, y1 = block_y * factor, min((block_y + 1) * factor, ny)
        for block_x in range(mean.shape[1]):
            x0, x1 = block_x * factor, min((block_x + 1) * factor, nx)
            total, n, n_clean, bits = 0.0, 0, 0, np.uint16(0)
            for y in range(y0, y1):
                for x in range(x0, x1):
                    flag = flags[y, x]
                    bits |= flag
                    n_clean += flag == 0
                    value = data[y, x]
                    if (flag & unusable) == 0 and np.isfinite(value):
                        total += value
                        n += 1
            mean[block_y, block_x] = total / n if n else np.nan
            valued[block_y, block_x] = n
            clean[block_y, block_x] = n_clean
            pixels[block_y, block_x] = (y1 - y0) * (x1 - x0)
            reasons[block_y, block_x] = bits


@jit
def join_blocks(
    from_mean: Pixels,
    from_valued: Counts,
    from_clean: Counts,
    from_pixels: Counts,
    from_reasons: Flags,
    times: int,
    mean: Pixels,
    valued: Counts,
    clean: Counts,
    pixels: Counts,
    reasons: Flags,
) -> None:
    """Fill the last five, of shape (ceil(ny / times), ceil(nx / times)), from the first five, shape (ny, nx)."""
    ny, nx = from_mean.shape
    for block_y in range(mean.shape[0]):
        for block_x in range(mean.shape[1]):
            total = 0.0
            for y in range(block_y * times, min((block_y + 1) * times, ny)):
                for x in range(block_x * times, min((block_x + 1) * times, nx)):
                    n = from_valued[y, x]
                    if n:
                        total += from_mean[y, x] * n
                    valued[block_y, block_x] += n
                    clean[block_y, block_x] += from_clean[y, x]
                    pixels[block_y, block_x] += from_pixels[y, x]
                    reasons[block_y, block_x] |= from_reasons[y, x]
            if valued[block_y, block_x]:
                mean[block_y, block_x] = total / valued[block_y, block_x]
