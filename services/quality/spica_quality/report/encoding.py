"""CCDs and their masks as pictures: pixels to grey levels, reasons to colours."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from spica_imaging.stats import median_sigma
from spica_reporting.colours import NO_DATA
from spica_reporting.encoding import saved

from spica_quality.report.colours import REASONS

Pixels = NDArray[np.float32]
Bytes = NDArray[np.uint8]

_SOFT, _BOTTOM, _TOP = 5.0, 6.0, 300.0
"""Stretch in units of the noise of the binned pixels: linear up to, black below minus, white above."""


def stretch(pixels: Pixels, centre: float, sigma: float) -> Bytes:
    """Grey levels, the noise visible and bright stars not burnt out; shape as `pixels`, 0 where NaN.

    asinh, linear up to 5 sigma, from 6 sigma below to 300 sigma above the centre. The noise is kept to some ten
    levels: more would fill the file with it.
    """
    sigma = sigma if sigma > 0 and np.isfinite(sigma) else 1.0
    centre = centre if np.isfinite(centre) else 0.0
    floor, ceiling = np.arcsinh(_BOTTOM / _SOFT), np.arcsinh(_TOP / _SOFT)
    level = pixels - np.float32(centre)
    level *= np.float32(1.0 / (_SOFT * sigma))
    np.arcsinh(level, out=level)
    level += np.float32(floor)
    level *= np.float32(255.0 / (ceiling + floor))
    np.clip(level, 0.0, 255.0, out=level)
    np.nan_to_num(level, copy=False)
    return np.asarray(np.rint(level, out=level), dtype=np.uint8)


def grey_jpeg(pixels: Pixels, quality: int = 40) -> bytes:
    """A stretched picture of one CCD; the first row of pixels is the bottom one, as FITS viewers show it."""
    levels = stretch(pixels, *median_sigma(pixels[::3, ::3]))
    levels[np.isnan(pixels)] = NO_DATA[0]
    return saved(Image.fromarray(levels[::-1]), "JPEG", quality=quality, optimize=True)


def overlay_index(reasons: NDArray[np.uint16], *, leave_out: int = 0) -> Bytes:
    """Number of the reason shown per pixel, 0 for none; shape as `reasons`. `leave_out`: bits not shown."""
    index = np.zeros(reasons.shape, np.uint8)
    for number, (bit, _, _) in enumerate(REASONS, start=1):
        if not bit & leave_out:
            index[(reasons & np.uint16(bit)) != 0] = number
    return index


def overlay_png(index: Bytes) -> bytes:
    """The reasons in their colours, transparent where there is none; rows as they come."""
    picture = Image.fromarray(index, mode=None)
    palette = [0, 0, 0] + [part for _, _, colour in REASONS for part in colour]
    picture.putpalette(palette)
    alphas = bytes([0] + [225] * len(REASONS))
    # Runs of equal bytes alone (zlib's Z_RLE = 3): as small as the best for scattered points, forty times as fast.
    return saved(picture, "PNG", compress_level=6, compress_type=3, bits=4, transparency=alphas)
