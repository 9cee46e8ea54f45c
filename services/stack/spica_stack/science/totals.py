"""Numbers of the stack as a whole, from those of its members."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class MemberNumbers:
    """What one exposure brings into the stack's header."""

    exposure_time_s: float
    flux_scale: float
    """From adu to the stack's unit."""
    gain_e_per_adu: float
    noise_adu: float
    background_adu: float
    saturation_adu: float
    mjd_obs: float | None
    priority: float = 1.0
    """Factor on its weight in a mean."""


@dataclass(frozen=True, slots=True)
class Totals:
    """What the header of the stack says."""

    exposure_time_s: float
    gain: float
    """Electrons per unit of the stack: variance of a source's flux F, by its photons alone, is F / gain."""
    saturation: float
    """Level below which no input was saturated."""
    mjd_obs: float | None


def totals(members: Sequence[MemberNumbers], method: str) -> Totals:
    """Gain, saturation level, exposure time and mean epoch of a stack.

    With weights w (priority / variance in the stack's unit), scales f and gains g, the photon noise of
    the weighted mean is F Σ w² f / g / (Σ w)², hence gain = (Σ w)² / Σ(w² f / g). A median has
    2/π of it for many inputs.
    """
    scale = np.array([member.flux_scale for member in members])
    gain = np.array([member.gain_e_per_adu for member in members])
    noise = scale * np.array([member.noise_adu for member in members])
    # A median treats all inputs alike, however noisy.
    priority = np.array([member.priority for member in members])
    weight = np.ones(len(members)) if method == "median" else priority / noise**2
    effective = float(np.sum(weight) ** 2 / np.sum(weight**2 * scale / gain))
    if method == "median" and len(members) > 2:
        effective *= 2.0 / np.pi
    levels = [(member.saturation_adu - member.background_adu) * member.flux_scale for member in members]
    dates = [member.mjd_obs for member in members if member.mjd_obs is not None]
    return Totals(
        exposure_time_s=float(sum(member.exposure_time_s for member in members)),
        gain=effective,
        saturation=float(min(levels)),
        mjd_obs=float(np.mean(dates)) if dates else None,
    )
