"""CCDs and amplifiers that see nothing, or mostly themselves.

An amplifier is judged against the others of its CCD, since all look at nearly the same sky: one that is dead gives the
same number everywhere, or has neither the level nor the noise that photons bring; one that is ill has several times
the noise. A CCD that is dead as a whole shows only beside the other CCDs of the exposure (`conditions.among_others`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray
from spica_imaging.sections import Section

from spica_quality.science.flags import Bit

Pixels = NDArray[np.float32]
Flags = NDArray[np.uint16]
Mask = NDArray[np.bool_]
Condition = Literal["ok", "blank", "half_dead", "dead"]

NOISY: Final = 3.0
"""Times the noise of the other amplifiers: pick-up, a failing amplifier."""

QUIET: Final = 0.4
"""Times the noise of the others: photons make noise, and here are none."""

DARK: Final = 0.25
"""Times the level of the others."""

_DIMMER = 0.8
_LEAST_USABLE = 0.01
_LEAST_LEVEL_SIGMA = 10.0
_STEP_PX = 16
_ROW_STEP = 8
# Lower quartile of |difference of two pixels| / sigma: stars and galaxies in a field hardly reach it.
_QUARTILE_TO_SIGMA = 1.0 / (0.318639 * np.sqrt(2.0))


@dataclass(frozen=True, slots=True)
class Amplifier:
    """What one amplifier read out."""

    section: Section
    level_adu: float
    """Median of the usable pixels; NaN where there is none."""
    noise_adu: float
    """Standard deviation from pixel to pixel; NaN where there are too few."""
    usable_fraction: float
    state: Literal["ok", "dead", "noisy"]


@dataclass(frozen=True, slots=True)
class Health:
    """A CCD and its amplifiers."""

    condition: Condition
    """blank: without a value, or the same value everywhere; dead: no amplifier is well; half_dead: some are not."""
    amplifiers: tuple[Amplifier, ...]
    step_adu: float
    """Largest difference of level across a border of amplifiers; NaN where there is none."""

    @property
    def noise_ratio(self) -> float:
        """Highest noise of an amplifier over the lowest; NaN where that cannot be told."""
        noises = [amplifier.noise_adu for amplifier in self.amplifiers]
        return max(noises) / min(noises) if len(noises) > 1 and min(noises) > 0 else float("nan")


def split(section: Section, columns: int, rows: int) -> tuple[Section, ...]:
    """Sections of amplifiers that share a CCD's light-sensitive section evenly."""
    xs = np.linspace(section.x0, section.x1, columns + 1).astype(int).tolist()
    ys = np.linspace(section.y0, section.y1, rows + 1).astype(int).tolist()
    return tuple(Section(x0, x1, y0, y1) for y0, y1 in pairwise(ys) for x0, x1 in pairwise(xs))


def look_at(data: Pixels, flags: Flags, amplifiers: Sequence[Section]) -> Health:
    """Judge the amplifiers of a CCD, and mark the pixels of those that are not well DEAD.

    Args:
        data: pixels as read or detrended, the sky in them; shape (ny, nx), adu.
        flags: flag map, same shape; only pixels without any flag count.
        amplifiers: the section of each; one: only a blank CCD is recognised.

    """
    looked = [_look(data, flags, section) for section in amplifiers]
    states = _states(looked)
    result = tuple(
        Amplifier(section, level, noise, usable, state)
        for section, (level, noise, usable), state in zip(amplifiers, looked, states, strict=True)
    )
    ill = [amplifier for amplifier in result if amplifier.state != "ok"]
    step = _largest_step(data, amplifiers)
    if len(ill) == len(result):
        blank = all(not amplifier.noise_adu > 0 for amplifier in result)
        return Health("blank" if blank else "dead", result, step)
    for amplifier in ill:
        flags[amplifier.section.slices] |= Bit.DEAD
    return Health("half_dead" if ill else "ok", result, step)


def _look(data: Pixels, flags: Flags, section: Section) -> tuple[float, float, float]:
    """Level, noise and usable share of one amplifier, from every eighth row."""
    part, seen = data[section.slices][::_ROW_STEP], flags[section.slices][::_ROW_STEP] == 0
    if part.size == 0:
        return float("nan"), float("nan"), 0.0
    values = part[seen]
    values = values[np.isfinite(values)]
    usable = values.size / part.size
    if values.size < 64 or usable < _LEAST_USABLE:
        return float("nan"), float("nan"), usable
    # Two pixels apart: neighbours may share noise.
    both = seen[:, 2:] & seen[:, :-2]
    with np.errstate(invalid="ignore"):
        difference = np.abs(part[:, 2:] - part[:, :-2])[both]
    difference = difference[np.isfinite(difference)]
    if difference.size < 64:
        return float(np.median(values)), float("nan"), usable
    quartile = float(np.percentile(difference, 25.0))
    if quartile == 0.0:
        # Whole numbers of little noise: most differences are zero.
        quartile = 0.318639 * float(np.mean(np.minimum(difference, np.percentile(difference, 95.0)))) / 0.7979
    return float(np.median(values)), _QUARTILE_TO_SIGMA * quartile, usable


def _states(looked: Sequence[tuple[float, float, float]]) -> list[Literal["ok", "dead", "noisy"]]:
    states: list[Literal["ok", "dead", "noisy"]] = []
    for index, (level, noise, usable) in enumerate(looked):
        others = [look for k, look in enumerate(looked) if k != index and look[1] > 0]
        if usable < _LEAST_USABLE or not noise > 0:
            states.append("dead")
        elif not others:
            states.append("ok")
        else:
            # Against the one that is best of the others: they may be ill, too.
            other_noise = min(look[1] for look in others)
            other_level = max(look[0] for look in others)
            bright = other_level > _LEAST_LEVEL_SIGMA * other_noise
            dark = bright and level < DARK * other_level
            without_photons = bright and level < _DIMMER * other_level and noise < QUIET * other_noise
            noisy = noise > NOISY * other_noise and not _lights(level, noise, others)
            states.append("dead" if dark or without_photons else "noisy" if noisy else "ok")
    return states


def _lights(level: float, noise: float, others: Sequence[tuple[float, float, float]]) -> bool:
    """Whether the noise is that of light which the quietest of the others does not see."""
    quietest = min(others, key=lambda look: look[1])
    return quietest[0] < _DIMMER * level and quietest[1] < QUIET * noise


def _largest_step(data: Pixels, amplifiers: Sequence[Section]) -> float:
    """Difference of level across the border of two amplifiers side by side, the largest there is."""
    steps = []
    for left in amplifiers:
        for right in amplifiers:
            if left.x1 == right.x0 and (left.y0, left.y1) == (right.y0, right.y1):
                before, behind = (
                    np.s_[left.y0 : left.y1, left.x1 - _STEP_PX : left.x1],
                    np.s_[right.y0 : right.y1, right.x0 : right.x0 + _STEP_PX],
                )
            elif left.y1 == right.y0 and (left.x0, left.x1) == (right.x0, right.x1):
                before, behind = (
                    np.s_[left.y1 - _STEP_PX : left.y1, left.x0 : left.x1],
                    np.s_[right.y0 : right.y0 + _STEP_PX, right.x0 : right.x1],
                )
            else:
                continue
            # Flagged ones count too: a dead amplifier's step is what is to be told.
            one, two = data[before], data[behind]
            one, two = one[np.isfinite(one)], two[np.isfinite(two)]
            if one.size and two.size:
                steps.append(float(np.median(two)) - float(np.median(one)))
    return max(steps, key=abs, default=float("nan"))
