"""Floating-point pixels that were quantized to integers, with dither or without (FITS standard 4.0, 10.2)."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spica_imaging._jit import kernel

NO_DITHER, DITHER_1, DITHER_2 = range(3)
_METHODS = {"NO_DITHER": NO_DITHER, "SUBTRACTIVE_DITHER_1": DITHER_1, "SUBTRACTIVE_DITHER_2": DITHER_2}
_N_RANDOM = 10000
_ZERO = -2147483646
"""Stands for an exact zero under SUBTRACTIVE_DITHER_2."""


def dither_of(header: Mapping[str, Any]) -> tuple[int, int]:
    """Method (ZQUANTIZ) and seed (ZDITHER0) of a quantized image; an unknown method counts as none."""
    method = _METHODS.get(str(header.get("ZQUANTIZ", "")).strip().upper(), NO_DITHER)
    seed = header.get("ZDITHER0", 1)
    if isinstance(seed, bool) or not isinstance(seed, int):
        return method, 1
    return method, (seed - 1) % _N_RANDOM + 1


@cache
def _random() -> NDArray[np.float32]:
    """The 10,000 numbers that every writer and reader of FITS uses: Park and Miller's generator from 1."""
    numbers = np.empty(_N_RANDOM, np.float32)
    seed = 1
    for index in range(_N_RANDOM):
        seed = 16807 * seed % 2147483647
        numbers[index] = seed / 2147483647
    return numbers


@kernel
def _dequantize(pixels, counts, scales, zeros, blanks, method, first_row, numbers, out):  # type: ignore[no-untyped-def]
    place = 0
    for tile in range(len(counts)):
        row = (first_row + tile - 1) % len(numbers)
        following = int(numbers[row] * np.float32(500))
        for index in range(place, place + counts[tile]):
            pixel = pixels[index]
            if pixel == blanks[tile]:
                out[index] = np.nan
            elif method == 0:
                out[index] = pixel * scales[tile] + zeros[tile]
            elif method == 2 and pixel == _ZERO:
                out[index] = 0.0
            else:
                out[index] = (pixel - numbers[following] + 0.5) * scales[tile] + zeros[tile]
            if method != 0:
                following += 1
                if following == len(numbers):
                    row = (row + 1) % len(numbers)
                    following = int(numbers[row] * np.float32(500))
        place += counts[tile]


def dequantize(
    pixels: NDArray[np.int32],
    counts: NDArray[np.int64],
    scales: NDArray[np.float64],
    zeros: NDArray[np.float64],
    blanks: NDArray[np.int64],
    *,
    method: int,
    first_row: int,
    kind: np.dtype[Any],
) -> NDArray[np.floating[Any]]:
    """Values of quantized tiles that stand one behind the other.

    `pixels`: shape (sum of counts,); `counts`, `scales`, `zeros`, `blanks`: per tile; `first_row`: number of the
    first tile, counted from the seed. NaN where the pixel is the tile's blank.
    """
    out = np.empty(len(pixels), kind)
    _dequantize(pixels, counts, scales, zeros, blanks, method, first_row, _random(), out)
    return out
