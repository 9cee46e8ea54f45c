"""The sky's level and noise over a frame."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import sep
from numpy.typing import NDArray
from spica_imaging.stats import SIGMA_PER_MAD

Pixels = NDArray[np.float32]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Background:
    """Sky level and noise per pixel, shape (ny, nx), and their medians over the frame."""

    level: Pixels
    rms: Pixels
    median_level: float
    median_rms: float


def estimate_background(data: Pixels, bad: Mask, box_px: int = 128) -> Background:
    """Sky level and noise in boxes, clipped against stars, smoothed 3×3 and interpolated by splines.

    The method is source-extractor's (Bertin & Arnouts 1996, A&AS 117, 393), as the library `sep`
    implements it. Noise that comes out as zero or not at all (boxes without spread) is replaced by
    that of the whole frame.

    Args:
        data: pixels in adu, shape (ny, nx); finite where `bad` is False.
        bad: True where a pixel must not be used.
        box_px: side of a box; made smaller on small frames, so that there are at least 4×4.

    """
    side = int(np.clip(min(data.shape) // 4, 16, box_px))
    mesh = sep.Background(data, mask=bad, bw=side, bh=side, fw=3, fh=3)
    level, rms = mesh.back(dtype=np.float32), mesh.rms(dtype=np.float32)
    sound = np.isfinite(rms) & (rms > 0)
    typical = float(np.median(rms[::7, ::7][sound[::7, ::7]])) if sound[::7, ::7].any() else 0.0
    if typical <= 0.0 or not np.isfinite(typical):
        typical = _plain_rms(data, bad)
    # Splines overshoot at the rim of large holes: the noise may not fall far below the typical one.
    np.clip(np.where(sound, rms, typical), 0.25 * typical, None, out=rms)
    return Background(level, rms, float(np.median(level[::7, ::7])), float(np.median(rms[::7, ::7])))


def _plain_rms(data: Pixels, bad: Mask) -> float:
    sample = data[~bad].astype(np.float64)
    if not sample.size:
        return 0.0
    return SIGMA_PER_MAD * float(np.median(np.abs(sample - np.median(sample))))
