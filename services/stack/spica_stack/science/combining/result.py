"""What comes out of combining."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.float32]
Counts = NDArray[np.int16]
Layers = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Rejected:
    """Samples left out as outliers, ordered by row, column and layer. All of one length."""

    x: NDArray[np.int32]
    """Column in the tile, zero-based, halo not counted."""
    y: NDArray[np.int32]
    """Row in the tile."""
    layer: NDArray[np.int16]
    """Which exposure: index into the layers that were combined."""
    n_sigma: NDArray[np.float32]
    """By how many σ it lay off the median beyond what the flux allows it to (that is what the limits are for);
    positive: too bright."""

    def __len__(self) -> int:
        return len(self.x)

    @classmethod
    def none(cls) -> Rejected:
        """No samples at all."""
        return cls(
            np.empty(0, np.int32), np.empty(0, np.int32), np.empty(0, np.int16), np.empty(0, np.float32)
        )


@dataclass(frozen=True, slots=True)
class Combined:
    """One tile of the stack. All images of the tile's shape."""

    value: Image
    """NaN where no layer has weight."""
    weight: Image
    """1 / variance; 0 where there is no value."""
    exposures: Counts
    """How many layers went into the pixel."""
    n_rejected: int = 0
    """Samples left out as outliers."""
    rejected: Rejected | None = None
    """Which ones, if that was asked for."""
