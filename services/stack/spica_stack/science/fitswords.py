"""Pixels in the byte order of FITS, and their sum as DATASUM wants it (FITS standard 4.0, appendix J).

The sum is one of 32-bit words in ones' complement: it does not depend on the order of the words, so the sums of
the parts of an image add up to the sum of the whole, however it was cut.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from spica_stack.science._jit import jit

_BYTE = np.uint32(0xFF)
_HALF = np.uint16(0xFF)
_EIGHT, _SIXTEEN, _TWENTY_FOUR = np.uint32(8), np.uint32(16), np.uint32(24)
_MIDDLE_LOW, _MIDDLE_HIGH = np.uint32(0xFF00), np.uint32(0xFF0000)


def folded(total: int) -> int:
    """A sum of words brought into 32 bits: what is carried out comes in again at the low end."""
    while total >> 32:
        total = (total & 0xFFFFFFFF) + (total >> 32)
    return total


@jit
def _swap_words(words: NDArray[np.uint32], out: NDArray[np.uint32]) -> np.uint64:
    """Write words with their bytes turned round; give back the sum of the words."""
    total = np.uint64(0)
    for row in range(words.shape[0]):
        here, there = words[row], out[row]
        for i in range(here.shape[0]):
            v = here[i]
            total += np.uint64(v)
            there[i] = (
                (v << _TWENTY_FOUR)
                | ((v & _MIDDLE_LOW) << _EIGHT)
                | ((v & _MIDDLE_HIGH) >> _EIGHT)
                | (v >> _TWENTY_FOUR)
            )
    return total


@jit
def _swap_halves(halves: NDArray[np.uint16], first: int, width: int, out: NDArray[np.uint16]) -> np.uint64:
    """The same for 16 bits. `first`: place of the first one in the whole image, `width`: of a row of that image."""
    total = np.uint64(0)
    for row in range(halves.shape[0]):
        here, there = halves[row], out[row]
        odd = (first + row * width) & 1
        for i in range(here.shape[0]):
            v = here[i]
            # The first half of a word is its high one.
            total += np.uint64(v) if (i + odd) & 1 else np.uint64(v) << np.uint64(16)
            there[i] = np.uint16(v << np.uint16(8)) | (v >> np.uint16(8))
    return total


def big_endian(pixels: NDArray[Any], first: int = 0, width: int = 0) -> tuple[NDArray[Any], int]:
    """The same pixels as FITS has them, and their part of the DATASUM.

    * pixels: shape (height, width of the part), float32, float64, int32 or int16, rows contiguous.
    * first: for int16, index of the part's first pixel within the whole image, whose rows are `width` long.
    """
    dtype = pixels.dtype.newbyteorder(">")
    if pixels.dtype.itemsize == 2:
        out = np.empty(pixels.shape, np.uint16)
        total = _swap_halves(pixels.view(np.uint16), first, width or pixels.shape[1], out)
        return out.view(dtype), folded(int(total))
    out_words = np.empty((pixels.shape[0], pixels.shape[1] * pixels.dtype.itemsize // 4), np.uint32)
    total = _swap_words(pixels.view(np.uint32), out_words)
    if pixels.dtype.itemsize == 8:
        # The two words of a number change places too.
        out_words = np.ascontiguousarray(out_words.reshape(pixels.shape[0], -1, 2)[:, :, ::-1])
        out_words = out_words.reshape(pixels.shape[0], -1)
    return out_words.view(dtype), folded(int(total))
