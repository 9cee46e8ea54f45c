"""One pixel looked at: what each exposure gave, and what became of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spica_stack.science.combining.methods import combine, halo_px
from spica_stack.science.combining.result import Combined, Layers
from spica_stack.science.combining.sigma_clip import clip_pixel
from spica_stack.science.parameters import Clipping, Method


@dataclass(frozen=True, slots=True)
class PixelSample:
    """What one layer has in a pixel."""

    layer: int
    value: float
    """NaN if it has none."""
    weight: float
    """1 / variance; 0 if it has no sample."""
    priority: float
    n_sigma: float
    """By how many σ the sample lies off the median beyond what the flux allows it to, which is what the limits are for:
    positive too bright, negative too faint, 0 within; NaN without a sample. σ is the noise of sample and median."""
    off_sigma: float
    """The same, with no allowance for the flux."""
    clipped: bool
    """Left out as an outlier, or beside one."""
    beside_outlier: bool
    """Left out only because a neighbour in the same exposure was."""

    @property
    def used(self) -> bool:
        """Whether it went into the pixel."""
        return self.weight > 0 and self.priority > 0 and not self.clipped


@dataclass(frozen=True, slots=True)
class PixelAudit:
    """A pixel of the stack, and how it came about."""

    value: float
    weight: float
    exposures: int
    median: float
    """What samples are held against: the lower median; NaN without samples."""
    local_flux: float
    """Largest median near by, of which samples may differ by a share (clipped mean; else 0)."""
    samples: tuple[PixelSample, ...]
    """One per layer, in their order."""


def examine(
    value: Layers,
    weight: Layers,
    method: Method,
    *,
    at: tuple[int, int],
    halo: int = 0,
    share: NDArray[np.float32] | None = None,
    priority: NDArray[np.float32] | None = None,
    clipping: Clipping | None = None,
) -> PixelAudit:
    """Look at the pixel x, y = `at` of a tile (halo not counted), given as for `combine`.

    Enough of the tile is `halo_px(method, clipping)` around the pixel. The outcome is the one that `combine`
    comes to for the whole tile. Raises IndexError for a place outside of the tile.
    """
    clipping = clipping or Clipping()
    n, height, width = value.shape
    x, y = at[0] + halo, at[1] + halo
    if not (halo <= x < width - halo and halo <= y < height - halo):
        raise IndexError(f"pixel {at} is not in the tile")
    reach = halo_px(method, clipping)
    x0, y0 = max(x - reach, 0), max(y - reach, 0)
    box = np.s_[:, y0 : y + reach + 1, x0 : x + reach + 1]
    value, weight = (
        np.ascontiguousarray(value[box], np.float32),
        np.ascontiguousarray(weight[box], np.float32),
    )
    x, y = x - x0, y - y0
    share = np.full(n, clipping.flux_share, np.float32) if share is None else np.asarray(share, np.float32)
    priority = np.ones(n, np.float32) if priority is None else np.asarray(priority, np.float32)
    combined = combine(
        value, weight, method, share=share, priority=priority, clipping=clipping, want_rejected=True
    )
    there = (weight > 0) & np.isfinite(weight) & np.isfinite(value) & (priority > 0)[:, None, None]
    middle = _lower_median(np.where(there, value, np.inf), there.sum(axis=0))
    flux = _local_flux(middle, x, y, clipping.radius_px) if method == "clipped_mean" else 0.0
    seen, centre = there[:, y, x], float(middle[y, x])
    values = np.where(seen, value[:, y, x], np.float32(np.nan))
    weights = np.where(seen, weight[:, y, x], np.float32(0))
    off, beyond = _deviations(values, weights, centre, share * flux)
    if method == "sigma_clip":
        beyond[seen] = _last_round(values[seen], weights[seen], clipping)
    clipped = _overrule(combined, x, y, beyond)
    samples = []
    for layer in range(n):
        out = layer in clipped
        beside = out and abs(float(beyond[layer])) <= clipping.n_sigma
        samples.append(
            PixelSample(
                layer,
                float(values[layer]),
                float(weights[layer]),
                float(priority[layer]),
                float(beyond[layer]),
                float(off[layer]),
                out,
                beside,
            )
        )
    outcome = (float(combined.value[y, x]), float(combined.weight[y, x]), int(combined.exposures[y, x]))
    return PixelAudit(*outcome, centre, flux, tuple(samples))


def _deviations(
    values: NDArray[np.float32], weights: NDArray[np.float32], centre: float, allowed: NDArray[np.float32]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """By how many σ samples are off the median, at all and beyond what they are allowed; NaN for what is none."""
    w = np.where(weights > 0, weights, np.nan).astype(np.float64)
    sigma = np.sqrt(
        1.0 / w + 0.5 * np.pi / max(float(np.sum(weights, dtype=np.float64)), np.finfo(float).tiny)
    )
    off = values.astype(np.float64) - centre
    return off / sigma, np.sign(off) * np.maximum(np.abs(off) - allowed, 0.0) / sigma


def _lower_median(ordered: Layers, n: NDArray[np.int64]) -> NDArray[np.float32]:
    """Of samples of which the missing ones are +inf; NaN where there are none."""
    if not len(ordered):
        return np.full(n.shape, np.nan, np.float32)
    place = np.maximum(n - 1, 0) // 2
    found = np.take_along_axis(np.sort(ordered, axis=0), place[None], axis=0)[0]
    return np.where(n > 0, found, np.float32(np.nan))


def _local_flux(middle: NDArray[np.float32], x: int, y: int, radius: int) -> float:
    """Largest median within the box around a pixel; NaN counts as 0 and so do negative values."""
    box = middle[max(y - radius, 0) : y + radius + 1, max(x - radius, 0) : x + radius + 1]
    return max(float(np.max(np.nan_to_num(box))), 0.0)


def _last_round(
    values: NDArray[np.float32], weights: NDArray[np.float32], clipping: Clipping
) -> NDArray[np.float32]:
    """By how many σ each sample was off when sigma clipping looked at it last."""
    m = len(values)
    off, kept = np.zeros(m, np.float32), np.zeros(m, np.uint8)
    clip_pixel(values, weights, m, np.float32(clipping.n_sigma**2), np.empty(m, np.float32), kept, off)
    return off


def _overrule(combined: Combined, x: int, y: int, beyond: NDArray[np.float64]) -> set[int]:
    """Layers left out of the pixel; what was listed with them replaces what was found here."""
    if combined.rejected is None or not len(combined.rejected):
        return set()
    listed = combined.rejected
    here = np.flatnonzero((listed.x == x) & (listed.y == y))
    beyond[listed.layer[here]] = listed.n_sigma[here]
    return {int(layer) for layer in listed.layer[here]}
