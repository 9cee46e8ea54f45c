"""Pixels to PNG and JPEG bytes, small and always the same for the same pixels."""

from __future__ import annotations

import base64
import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from spica_imaging.stats import median_sigma

from spica_quality.report.colours import NO_DATA, REASONS

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
    return _save(Image.fromarray(levels[::-1]), "JPEG", quality=quality, optimize=True)


def colour_jpeg(picture: Bytes, quality: int = 60) -> bytes:
    """A picture in colour or grey, rows as they come."""
    return _save(Image.fromarray(picture), "JPEG", quality=quality, optimize=True)


def png(picture: Bytes) -> bytes:
    """A picture in colour (and transparency) or grey, rows as they come."""
    return _save(Image.fromarray(picture), "PNG", compress_level=6)


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
    return _save(picture, "PNG", compress_level=6, compress_type=3, bits=4, transparency=alphas)


def _save(picture: Image.Image, form: str, **options: object) -> bytes:
    target = io.BytesIO()
    picture.save(target, format=form, **options)
    return target.getvalue()


def data_uri(content: bytes) -> str:
    """For the page itself: nothing is fetched from elsewhere."""
    kind = "jpeg" if content[:2] == b"\xff\xd8" else "png"
    return f"data:image/{kind};base64,{base64.b64encode(content).decode('ascii')}"
