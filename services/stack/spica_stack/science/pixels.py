"""Pixels on their way from a CCD into the stack."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.float32]
Box = tuple[int, int, int, int]
"""x0, x1, y0, y1: zero-based, half-open."""


@dataclass(frozen=True, slots=True)
class Patch:
    """Pixels of a CCD from (x0, y0) on, ready to be resampled.

    Positions count from the first pixel of the CCD's light-sensitive part, zero-based. What a patch holds does not
    depend on how much of the CCD it is: the same pixels have the same bits in every patch.
    """

    data: Image
    """Shape (ny, nx): background-subtracted adu, finite everywhere (unusable pixels filled from their neighbours)."""
    weight: Image
    """Shape (ny, nx): 1 / variance in adu⁻²; 0 = unusable."""
    x0: int
    y0: int
