"""What is wrong with a frame, or with one of its CCDs, at first sight: by name, with the numbers that say so.

A condition is no judgement: policies say what it means for a use. The limits here are where a frame is no longer
what it was meant to be; what is merely poor is for the figures to tell.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite, log10

import numpy as np
from numpy.typing import NDArray

from spica_quality.science.metrics.figures import Figures, Row, number

Floats = NDArray[np.float64]
Pixels = NDArray[np.float32]

OK = "ok"

FRAME_CONDITIONS: dict[str, str] = {
    "no_pixels": "The file holds no image.",
    "blank": "All pixels are equal, or without a value.",
    "saturated": "Most of the frame is saturated.",
    "twilight": "The sky is as bright as at dusk or dawn.",
    "dark": "No light from the sky: a dark, a bias, or a closed dome.",
    "no_stars": "There is light, but no star.",
    "clouded": "Far fewer stars than there are in this direction.",
    "out_of_focus": "The stars are rings or wide discs.",
    "doubled": "Every star is there twice.",
    "trailed": "The stars are lines.",
    "half_empty": "A large part of the frame got no light.",
    "missing_ccds": "A large part of the CCDs is missing or dead.",
    "wrong_counts": "Far more sources than there are in this direction.",
}
"""In the order in which they are looked for: the first that fits is the frame's."""

CCD_CONDITIONS: dict[str, str] = {
    "blank": "All pixels are equal, or without a value.",
    "dead": "No light, while the other CCDs saw the sky.",
    "half_dead": "A large part got no light, or is masked.",
    "no_stars": "There is light, but no star.",
}

SATURATED_FRACTION = 0.3
SKY_OF_SATURATION = 0.9
TWILIGHT_OF_SATURATION = 0.45
TWILIGHT_MAG = 16.5
"""Per square arcsec (AB): the full moon leaves 17.5 or fainter in all bands."""
DARK_READ_NOISES = 1.3
"""A sky noise below this times the read noise: no light to speak of."""
STAR_SHARE = 0.08
"""Of the bright sources; 0.2 to 1 on fields with stars, below 0.06 on darks and behind thick clouds."""
DOUBTFUL_SHARE, DOUBTFUL_WIDTH_PX = 0.2, 1.4
"""So few, and narrower than a star on any pixels or on a frame without light: what is left of cosmic rays."""
LEAST_BRIGHT = 15
DIP = 0.2
WIDE_PX, WIDE_ARCSEC = 12.0, 4.0
LENGTH_TO_WIDTH = 1.5
"""Where ellipticities of optics end."""
LEAST_TRAIL_PX = 4.0
"""Coarse pixels: a drift by two of them makes stars long, but the frame is of use."""
FEW_STARS, MANY = 0.25, 4.0
"""Found over expected. The models are good to a third, clouds of one magnitude leave 0.7."""
LIT_FRACTION = 0.75
USABLE_FRACTION = 0.6
MISSING_CCDS = 0.1
DEAD_LEVEL, DEAD_NOISE = 0.1, 0.5
"""Of the other CCDs' median."""
_UNLIT_LEVEL, _UNLIT_NOISE = 0.35, 0.6
_SAME_NOISE, _PLATEAU = 0.2, 0.15


@dataclass(frozen=True, slots=True)
class Condition:
    """A name out of `FRAME_CONDITIONS` or `CCD_CONDITIONS`, or `ok`, and the numbers that led to it."""

    name: str = OK
    reason: str = ""

    def figures(self) -> Figures:
        """As it stands among the figures."""
        return {"condition": self.name, "condition_reason": self.reason or None}


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What is known of a frame besides its figures."""

    gain_e_per_adu: float = 0.0
    """0: unknown, or the pixels are no counts."""
    read_noise_e: float = 0.0
    n_expected_ccds: tuple[int, ...] = ()
    """Numbers of CCDs that the instrument's files may have; empty: any."""
    is_stack: bool = False
    """Stacks have no read noise, and empty corners by their nature."""


NOTHING_KNOWN = Circumstances()


def lit_fraction(level_mesh: Pixels, rms_mesh: Pixels) -> float:
    """Share of the sky's boxes on which light falls.

    A box is in the dark if its noise is below 0.6 of that of the bright part (read noise where others have
    the sky's), or, where the sky stands well above its noise, if its level is below 0.35 of theirs. The
    noise tells it in raw frames too, where a pedestal is below everything.

    Args:
        level_mesh: sky level in boxes, adu, shape (my, mx); not for stacks, whose noise varies by their making.
        rms_mesh: its noise, same shape.

    """
    level, rms = level_mesh.astype(np.float64).ravel(), rms_mesh.astype(np.float64).ravel()
    sound = np.isfinite(level) & np.isfinite(rms) & (rms > 0)
    if np.count_nonzero(sound) < 4:
        return float("nan")
    level, rms = level[sound], rms[sound]
    alike = _bright_part(rms)
    bright_level, bright_rms = float(np.median(level[alike])), float(np.median(rms[alike]))
    unlit = rms < _UNLIT_NOISE * bright_rms
    if bright_level > 3.0 * bright_rms:
        unlit |= level < _UNLIT_LEVEL * bright_level
    return float(1.0 - np.count_nonzero(unlit) / sound.size)


def _bright_part(rms: Floats) -> NDArray[np.bool_]:
    """The boxes of the brightest sky that fills a good part of the frame: a large galaxy is brighter, but uneven."""
    alike = np.ones(rms.shape, np.bool_)
    for percentile in (80.0, 70.0, 60.0, 50.0):
        alike = np.abs(rms / np.percentile(rms, percentile) - 1.0) < _SAME_NOISE
        if np.mean(alike) >= _PLATEAU:
            break
    return alike


def ccd_condition(figures: Row) -> Condition:
    """What one CCD shows by itself; `among_others` tells besides which are dead."""
    noise = number(figures, "background_rms_adu")
    if not noise > 0.0:
        return Condition("blank", "No spread in its pixels, or none with a value.")
    usable, lit = number(figures, "usable_fraction"), number(figures, "lit_fraction")
    if usable < USABLE_FRACTION:
        return Condition("half_dead", f"{usable:.2f} of its pixels can be used.")
    if lit < LIT_FRACTION:
        return Condition("half_dead", f"Light on {lit:.2f} of it.")
    return _starless(figures) or Condition()


def _starless(figures: Row, *, no_light: bool = False) -> Condition | None:
    n_bright, n_alike, n_stars = (number(figures, name) for name in ("n_bright", "n_star_like", "n_stars"))
    narrow = number(figures, "star_width_px") < DOUBTFUL_WIDTH_PX
    share = DOUBTFUL_SHARE if narrow or no_light else STAR_SHARE
    if n_bright >= LEAST_BRIGHT and n_alike < max(share * n_bright, 2.0):
        return Condition("no_stars", f"{n_alike:.0f} of {n_bright:.0f} bright sources look like stars.")
    if not n_stars > 0:
        n_sources = max(number(figures, "n_sources"), 0.0)
        return Condition("no_stars", f"{n_sources:.0f} sources, none of them a star.")
    return None


def among_others(rows: Sequence[Row]) -> list[Figures]:
    """The rows of all CCDs of an exposure with the dead ones named: no sky where the others have it, and no star."""
    alive = [row for row in rows if number(row, "background_rms_adu") > 0.0]
    if len(alive) < 3:
        return [dict(row) for row in rows]
    level = float(np.median([number(row, "background_adu") for row in alive]))
    noise = float(np.median([number(row, "background_rms_adu") for row in alive]))
    return [_named_dead(row, level, noise) for row in rows]


def _named_dead(row: Row, level: float, noise: float) -> Figures:
    own_level, own_noise = number(row, "background_adu"), number(row, "background_rms_adu")
    without_sky = abs(own_level) < DEAD_LEVEL * level and own_noise < DEAD_NOISE * noise
    if not without_sky or row.get("condition") not in ("no_stars", OK, None) or _starless(row) is None:
        return dict(row)
    reason = f"Sky {own_level:.4g} ± {own_noise:.3g} adu, on the others {level:.4g} ± {noise:.3g}."
    return {**row, **Condition("dead", reason).figures()}


def frame_condition(figures: Row, about: Circumstances = NOTHING_KNOWN) -> Condition:
    """Name what is wrong with an image.

    Args:
        figures: of the image, as `summary.summarise` makes them.
        about: what else is known.

    """
    if not number(figures, "n_ccds") > 0:
        return Condition("no_pixels", "No CCD in the file.")
    for look in (_too_bright, _blank, _without_stars, _distorted, _incomplete, _off_counts):
        if found := look(figures, about):
            return found
    return Condition()


def _blank(figures: Row, about: Circumstances) -> Condition | None:
    if number(figures, "background_rms_adu") > 0.0:
        return None
    return Condition("blank", "No spread in the pixels, or none with a value.")


def _too_bright(figures: Row, about: Circumstances) -> Condition | None:
    share, saturation = number(figures, "saturated_fraction"), number(figures, "saturation_adu")
    sky = number(figures, "background_adu")
    if share > SATURATED_FRACTION:
        return Condition("saturated", f"{100 * share:.0f} % of the pixels are saturated.")
    if about.is_stack:
        return None
    if sky > SKY_OF_SATURATION * saturation:
        return Condition("saturated", f"The sky is at {sky:.0f} adu, saturation at {saturation:.0f}.")
    brightness = _sky_mag(figures)
    if isfinite(brightness):
        if brightness < TWILIGHT_MAG:
            return Condition("twilight", f"The sky has {brightness:.1f} mag per square arcsec.")
    elif sky > TWILIGHT_OF_SATURATION * saturation:
        return Condition("twilight", f"The sky is at {sky:.0f} adu, {sky / saturation:.2f} of saturation.")
    return None


def _sky_mag(figures: Row) -> float:
    """Magnitude of a square arcsec of sky; NaN without zero point, and where a pedestal is in the level."""
    sky, zero = number(figures, "background_adu"), number(figures, "zeropoint_mag")
    area = number(figures, "pixel_scale_arcsec") ** 2
    return zero - 2.5 * log10(sky / area) if sky > 0 and area > 0 else float("nan")


def _without_stars(figures: Row, about: Circumstances) -> Condition | None:
    noise_e = number(figures, "background_rms_adu") * about.gain_e_per_adu
    no_light = not about.is_stack and 0.0 < noise_e < DARK_READ_NOISES * about.read_noise_e
    found = _starless(figures, no_light=no_light)
    if found is None:
        return None
    if no_light:
        told = f"The noise is {noise_e:.1f} e, the detector's own {about.read_noise_e:.1f} e."
        return Condition("dark", f"{found.reason} {told}")
    if number(figures, "counts_ratio_stars") < FEW_STARS:
        return Condition("clouded", f"{found.reason} {_counts(figures, 'stars')}")
    # The edge of the light is full of false sources: that the frame is half empty says more.
    return _incomplete(figures, about) or found


def _distorted(figures: Row, about: Circumstances) -> Condition | None:
    width, length = number(figures, "star_width_px"), number(figures, "star_length_px")
    second, dip = number(figures, "doubling"), number(figures, "central_dip")
    if dip > DIP:
        return Condition("out_of_focus", f"Stars are {100 * dip:.0f} % darker at the centre than around it.")
    scale = number(figures, "pixel_scale_arcsec")
    if width > WIDE_PX and not width * scale <= WIDE_ARCSEC:
        size = f"{width:.0f} px" + (f", {width * scale:.1f} arcsec" if isfinite(scale) else "")
        return Condition("out_of_focus", f"Stars are {size} wide.")
    if second > 0.0:
        apart = number(figures, "doubling_px")
        return Condition(
            "doubled", f"A second image {apart:.1f} px from the first, with {second:.2f} of its flux."
        )
    line = number(figures, "trail_length_px")
    if length > LENGTH_TO_WIDTH * width and line > LEAST_TRAIL_PX:
        told = f"Stars are {length:.1f} px long and {width:.1f} px wide, as if smeared over {line:.1f} px."
        return Condition("trailed", told)
    return None


def _incomplete(figures: Row, about: Circumstances) -> Condition | None:
    if about.is_stack:
        return None
    lit, usable = number(figures, "lit_fraction"), number(figures, "usable_fraction")
    n, lost = number(figures, "n_ccds"), number(figures, "n_ccds_blank") + number(figures, "n_ccds_missing")
    if isfinite(lost) and lost > MISSING_CCDS * (n + number(figures, "n_ccds_missing")):
        return Condition("missing_ccds", f"{lost:.0f} CCDs are missing or dead, {n:.0f} are in the file.")
    if lit < LIT_FRACTION:
        return Condition("half_empty", f"Light on {lit:.2f} of the frame.")
    if usable < USABLE_FRACTION:
        return Condition("half_empty", f"{usable:.2f} of the pixels can be used.")
    return None


def _off_counts(figures: Row, about: Circumstances) -> Condition | None:
    stars, galaxies = number(figures, "counts_ratio_stars"), number(figures, "counts_ratio_galaxies")
    if stars < FEW_STARS and not galaxies > FEW_STARS:
        return Condition("clouded", _counts(figures, "stars"))
    if galaxies > MANY and not stars < 1.0:
        return Condition("wrong_counts", _counts(figures, "galaxies"))
    return None


def _counts(figures: Row, what: str) -> str:
    ratio, limit = number(figures, f"counts_ratio_{what}"), number(figures, "counts_mag")
    return f"{ratio:.2f} times the {what} expected down to magnitude {limit:.1f}."


def missing_ccds(n_ccds: int, allowed: Sequence[int]) -> int:
    """How many CCDs a file lacks to be one that the instrument writes; 0 where any number will do."""
    if not allowed or n_ccds in allowed:
        return 0
    return min((count - n_ccds for count in allowed if count > n_ccds), default=0)
