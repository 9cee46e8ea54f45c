"""Colours: one sequential and one diverging map.

The maps are straight lines in the Oklab space (B. Ottosson 2020, "A perceptual color space for image
processing"): their lightness rises evenly, so that they read right in grey and with any colour vision; blue and
yellow are what nearly everyone tells apart.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Rgb = NDArray[np.uint8]

NO_DATA = (44, 47, 58)
"""Where there is no pixel with a value: visible beside black and beside white."""

_LINEAR_FROM_LMS = np.array(
    [
        [4.0767416621, -3.3077115913, 0.2309699292],
        [-1.2684380046, 2.6097574011, -0.3413193965],
        [-0.0041960863, -0.7034186147, 1.7076147010],
    ]
)
_LMS_FROM_OKLAB = np.array(
    [
        [1.0, 0.3963377774, 0.2158037573],
        [1.0, -0.1055613458, -0.0638541728],
        [1.0, -0.0894841775, -1.2914855480],
    ]
)


def _rgb(lab: Floats) -> Rgb:
    """Oklab, shape (n, 3), to sRGB bytes."""
    linear = np.clip((lab @ _LMS_FROM_OKLAB.T) ** 3 @ _LINEAR_FROM_LMS.T, 0.0, 1.0)
    encoded = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return np.asarray(np.rint(255.0 * encoded), dtype=np.uint8)


@cache
def sequential() -> Rgb:
    """256 colours from dark blue over grey-green to pale yellow, shape (256, 3)."""
    stops = np.array([[0.26, -0.01, -0.11], [0.45, -0.05, -0.08], [0.66, -0.08, 0.04], [0.93, -0.03, 0.14]])
    return _rgb(_between(stops))


@cache
def diverging() -> Rgb:
    """256 colours from blue over a light grey to orange, shape (256, 3)."""
    stops = np.array(
        [[0.42, -0.04, -0.16], [0.68, -0.05, -0.09], [0.93, 0.0, 0.0], [0.72, 0.08, 0.11], [0.50, 0.12, 0.10]]
    )
    return _rgb(_between(stops))


def _between(stops: Floats) -> Floats:
    places = np.linspace(0.0, 1.0, 256)
    known = np.linspace(0.0, 1.0, len(stops))
    return np.stack([np.interp(places, known, stops[:, axis]) for axis in range(3)], axis=1)


def scaled(values: Floats, low: float, high: float) -> Floats:
    """Values as 0 (low) to 1 (high), cut at both ends; 0.5 where the two are equal."""
    if not high > low:
        return np.full(np.shape(values), 0.5)
    with np.errstate(invalid="ignore"):
        return np.clip((np.asarray(values, dtype=np.float64) - low) / (high - low), 0.0, 1.0)


def paint(values: Floats, low: float, high: float, colours: Rgb) -> Rgb:
    """Colours of values, shape (..., 3); `NO_DATA` where there is none."""
    share = scaled(values, low, high)
    picture = colours[np.rint(255.0 * np.nan_to_num(share)).astype(np.uint8)]
    picture[~np.isfinite(values)] = NO_DATA
    return np.asarray(picture)


def css(value: float, low: float, high: float, colours: Rgb) -> str:
    """Colour of one value for SVG and CSS."""
    red, green, blue = colours[round(255.0 * float(scaled(np.array(value), low, high)))]
    return f"#{red:02x}{green:02x}{blue:02x}"
