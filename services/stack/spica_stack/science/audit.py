"""One pixel of a stack told exposure by exposure: what each gave, what share of the outcome it has, what was left out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from spica_stack.science.combining import PixelAudit, PixelSample
from spica_stack.science.parameters import Method

WEIGHTED: tuple[Method, ...] = ("clipped_mean", "sigma_clip", "weighted_mean")
EQUAL: tuple[Method, ...] = ("average", "sum")
EXTREME: tuple[Method, ...] = ("minimum", "maximum")


@dataclass(frozen=True, slots=True)
class Seen:
    """A CCD that covers a place on the sky."""

    name: str
    x_px: float
    """FITS pixel of the CCD: the first pixel's centre is 1."""
    y_px: float


@dataclass(frozen=True, slots=True)
class Contribution:
    """What one exposure has in a pixel of the stack."""

    image_id: str
    name: str
    ccds: tuple[Seen, ...]
    """That cover the pixel; as a rule one."""
    value: float | None
    """In the stack's unit; None: it has no sample there."""
    weight: float
    """1 / variance in the stack's unit, -2; 0: it covers the pixel, and has no usable sample there."""
    priority: float
    """Factor on its weight in a mean, by its seeing and as was asked for."""
    share: float | None
    """Of the outcome, from 0 to 1; None where no share can be told (medians, chi²)."""
    n_sigma: float | None
    """By how many σ it lies off the median beyond what the flux allows it to: what the limits are for."""
    off_sigma: float | None
    """The same with no allowance for the flux."""
    clipped: bool
    beside_outlier: bool
    """Left out only because a neighbour was."""

    @property
    def sigma(self) -> float | None:
        """Noise of its sample (standard deviation)."""
        return self.weight**-0.5 if self.weight > 0 else None


@dataclass(frozen=True, slots=True)
class Outcome:
    """Value and weight of a pixel. NaN and 0 where there is none."""

    value: float
    weight: float

    def same(self, other: Outcome) -> bool:
        """Whether both agree to the last bit, as float32."""
        return _bits(self.value) == _bits(other.value) and _bits(self.weight) == _bits(other.weight)


def _bits(value: float) -> bytes:
    # Any NaN is as good as another.
    return np.float32(np.nan if np.isnan(value) else value).tobytes()


def shares_of(audit: PixelAudit, method: Method) -> tuple[float | None, ...]:
    """Which share of the outcome each sample has, in the order of the layers; None: it cannot be told.

    Means: its weight over that of all that were used (times their priorities). Sum and average: all alike. Extremes:
    the sample that it is.
    """
    used = [sample.used for sample in audit.samples]
    if method in WEIGHTED:
        weights = [sample.weight * sample.priority if sample.used else 0.0 for sample in audit.samples]
    elif method in EQUAL:
        weights = [float(one) for one in used]
    elif method in EXTREME:
        weights = [
            float(sample.used and np.float32(sample.value) == np.float32(audit.value))
            for sample in audit.samples
        ]
    else:
        return tuple(None if one else 0.0 for one in used)
    total = sum(weights)
    return tuple(weight / total if total > 0 else 0.0 for weight in weights)


def contribution(
    image_id: str, name: str, ccds: Sequence[Seen], sample: PixelSample, share: float | None
) -> Contribution:
    """What an exposure has, from what was found of its layer."""
    has = sample.weight > 0
    return Contribution(
        image_id,
        name,
        tuple(ccds),
        sample.value if has else None,
        sample.weight,
        sample.priority,
        share,
        _number(sample.n_sigma),
        _number(sample.off_sigma),
        sample.clipped,
        sample.beside_outlier,
    )


def _number(value: float) -> float | None:
    return value if np.isfinite(value) else None
