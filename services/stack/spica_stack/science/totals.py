"""Numbers of the stack as a whole, from those of its members."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spica_stack.science.combining import weighted_median as own
from spica_stack.science.combining.efficiency import median_efficiency
from spica_stack.science.pixels import Box

Numbers = NDArray[np.float64]

MAX_COLUMNS = 1000
"""Places along x at which the deepest overlap is looked for, at most."""


@dataclass(frozen=True, slots=True)
class MemberNumbers:
    """What one exposure brings into the stack's header."""

    exposure_time_s: float
    flux_scale: float
    """From adu to the stack's unit."""
    gain_e_per_adu: float
    """0 or NaN: not known."""
    noise_adu: float
    background_adu: float
    """That was subtracted: 0 where it was left in."""
    saturation_adu: float
    mjd_obs: float | None
    priority: float = 1.0
    """Factor on its weight in a mean: its seeing's and the request's; 0: it is not in the stack."""
    pixel_area: float = 1.0
    """Of its pixels per pixel of the stack, whose value is the flux of so many."""


@dataclass(frozen=True, slots=True)
class Totals:
    """What the header of the stack says. Members of priority 0 count nowhere."""

    exposure_time_s: float
    """Of all exposures that lie together, as SWarp's EXPTIME."""
    gain: float
    """Electrons per unit of the stack: variance of a source's flux F, by its photons alone, is F / gain. 0: does not
    apply (chi2, or no member's gain is known), which source extractors take for no photon noise."""
    saturation: float
    """Level below which no input was saturated (above the background), as SWarp's SATURATE."""
    mjd_obs: float | None
    effective_exposure_s: float = 0.0
    """Exposure time that would do, if all were combined as well as can be, for the noise that the stack has."""
    highest_saturation: float = 0.0
    """Level that the least sensitive input still had unsaturated: brighter stars have no value in the stack."""
    summed: int = 1
    """How many times its flux a source has in the stack: in a sum, as often as it was seen where most lie together."""


def totals(members: Sequence[MemberNumbers], method: str, together: Sequence[int] | None = None) -> Totals:
    """Gain, saturation level, exposure time and mean epoch of a stack.

    together: which members lie one on the other where most do (see `deepest_overlap`); gain and exposure time
    are of those. Default: all.

    With w = 1 / sky variance in the stack's unit, p the priority and G = gain / flux scale (electrons per unit of
    the stack), the photon noise of Σ c v with Σ c = 1 is F Σ c² / G:

    * weighted_mean, clipped_mean, sigma_clip: c ~ p w, gain = (Σ p w)² / Σ ((p w)² / G)
    * average: n² / Σ (1/G); sum: of a flux n times as large, n / Σ (1/G)
    * median: e(n) (Σ √G)² / n, e(n) its efficiency (2/π for many); as the average for n ≤ 2
    * weighted_median, with u = p √w: e(n) (Σ u √G)² / Σ u², e(n) that of its own; (Σ u)² / Σ (u² / G) for n ≤ 2
      (two fifths too large for few exposures of which some are several times as noisy as others)
    * minimum, maximum: that of one exposure, n / Σ (1/G)

    SWarp's differ for the median (1/π for 2/π) and for minimum and maximum (mean of the gains).
    Saturation levels are of pixels: (level - background) × flux scale × pixel area; n times that for a sum.
    Raises ValueError without members of positive priority.
    """
    counted = [member for member in members if member.priority > 0]
    if not counted:
        raise ValueError("a stack has members")
    chosen = counted if together is None else [members[i] for i in together if members[i].priority > 0]
    chosen = chosen or counted
    levels = [
        (member.saturation_adu - member.background_adu) * member.flux_scale * member.pixel_area
        for member in counted
    ]
    factor = len(chosen) if method == "sum" else 1
    dates = [member.mjd_obs for member in counted if member.mjd_obs is not None]
    exposure = float(sum(member.exposure_time_s for member in chosen))
    weight, priority = _weights(chosen)
    return Totals(
        exposure_time_s=exposure,
        gain=_gain(method, weight, priority, _electrons_per_unit(chosen)),
        saturation=float(min(levels)) * factor,
        mjd_obs=float(np.mean(dates)) if dates else None,
        effective_exposure_s=exposure * _share_of_depth(method, weight, priority),
        highest_saturation=float(max(levels)) * factor,
        summed=factor,
    )


def _weights(members: Sequence[MemberNumbers]) -> tuple[Numbers, Numbers]:
    """1 / variance of the sky in the stack's unit, and priority, of each; noise that is not known is taken for typical."""
    # The flux of a pixel of the stack has the noise of the area that it covers.
    noise = np.array(
        [member.flux_scale * member.noise_adu * np.sqrt(member.pixel_area) for member in members], np.float64
    )
    known = np.isfinite(noise) & (noise > 0)
    noise = np.where(known, noise, np.median(noise[known]) if known.any() else 1.0)
    return 1.0 / noise**2, np.array([member.priority for member in members], np.float64)


def _electrons_per_unit(members: Sequence[MemberNumbers]) -> Numbers:
    """G of each; where the gain is not known, the harmonic mean of the others; empty if none is."""
    gain = np.array([member.gain_e_per_adu / member.flux_scale for member in members], np.float64)
    known = np.isfinite(gain) & (gain > 0)
    if not known.any():
        return np.empty(0)
    return np.where(known, gain, 1.0 / np.mean(1.0 / gain[known]))


def _gain(method: str, weight: Numbers, priority: Numbers, gain: Numbers) -> float:
    """Electrons per unit of the stack, as `totals` says."""
    n = len(gain)
    if n == 0 or method == "chi2":
        return 0.0
    of_one = n / float(np.sum(1.0 / gain))
    if method in ("sum", "minimum", "maximum"):
        return of_one
    if method in ("median", "weighted_median") and n > 2:
        u = np.ones(n) if method == "median" else priority * np.sqrt(weight)
        return _efficiency(method, u) * float(np.sum(u * np.sqrt(gain)) ** 2 / np.sum(u**2))
    share = _shares(method, weight, priority)
    return float(1.0 / np.sum(share**2 / gain))


def _share_of_depth(method: str, weight: Numbers, priority: Numbers) -> float:
    """Weight of what comes out over the sum of those that went in."""
    n = len(weight)
    if method == "chi2":
        return 1.0
    if method in ("minimum", "maximum"):
        return 1.0 / n
    if method in ("median", "weighted_median") and n > 2:
        u = np.ones(n) if method == "median" else priority * np.sqrt(weight)
        out = _efficiency(method, u) * np.sum(u * np.sqrt(weight)) ** 2 / np.sum(u**2)
    else:
        share = _shares(method, weight, priority)
        out = 1.0 / np.sum(share**2 / weight)
    return float(out / np.sum(weight))


def _shares(method: str, weight: Numbers, priority: Numbers) -> Numbers:
    """What part of the value each exposure makes up; the sum is taken for the average, whose depth it has."""
    if method in ("average", "sum", "median"):
        part = np.ones(len(weight))
    elif method == "weighted_median":
        part = priority * np.sqrt(weight)
    else:
        part = priority * weight
    shares: Numbers = part / np.sum(part)
    return shares


def _efficiency(method: str, u: Numbers) -> float:
    """Variance of the mean over that of the median, for the number of exposures that count."""
    if method == "median":
        return float(median_efficiency(np.array(len(u), np.int16)))
    alike = float(np.sum(u) ** 2 / np.sum(u**2))
    return weighted_efficiency(len(u), alike)


def weighted_efficiency(n: int, alike: float) -> float:
    """The same of a weighted median, n_e = `alike` (see `combining.weighted_median`, whose formula this is)."""
    unlike = max(n / alike - 1.0, 0.0)
    even = n % 2 == 0
    forgets = (float(own.UNLIKE_EVEN) * unlike) ** 2 if even else float(own.UNLIKE_ODD) * unlike
    extra = float(own.BETWEEN) + (float(own.EVEN if even else own.ODD) - float(own.BETWEEN)) / (1.0 + forgets)
    return min(2.0 / np.pi * (1.0 + extra / alike), 1.0)


def deepest_overlap(boxes: Sequence[Box]) -> tuple[int, ...]:
    """Which of the members' output boxes lie one on the other where most do; ascending.

    The deepest place may be moved left and down until it meets edges of boxes: those are the places tried (every
    k-th along x where there are very many). Of equal depths, the leftmost and lowest counts.
    """
    if not boxes:
        return ()
    x0, x1, y0, y1 = np.array(boxes, np.int64).T
    columns = np.unique(x0)
    best, at = 0, (0, 0)
    for x in columns[:: -(-len(columns) // MAX_COLUMNS)]:
        here = (x0 <= x) & (x < x1) & (y0 < y1)
        rows = np.unique(y0[here])
        begun = np.searchsorted(np.sort(y0[here]), rows, side="right")
        depth = begun - np.searchsorted(np.sort(y1[here]), rows, side="right")
        if len(depth) and depth.max() > best:
            best, at = int(depth.max()), (int(x), int(rows[np.argmax(depth)]))
    inside = (x0 <= at[0]) & (at[0] < x1) & (y0 <= at[1]) & (at[1] < y1)
    return tuple(int(i) for i in np.flatnonzero(inside)) if best else ()
