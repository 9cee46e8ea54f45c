"""Which part of the reference catalogue an image or a stack needs: cones on the sky, wide enough for the search."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from spica_imaging.profiles import Profile

from spica_calib.records import Place
from spica_calib.store import ImageRecord

Cone = tuple[float, float, float]
"""ra, dec, radius, degrees."""

_WIDER = 1.05
"""What the worker needs is reckoned from the same numbers in another way."""
_STACK_MARGIN_DEG = 0.02


def cones_of_image(image: ImageRecord, profile: Profile) -> list[Cone]:
    """Where an image's stars are looked for: around its WCS, and around its pointing if that leads nowhere."""
    error_deg = profile.pointing.radius_arcmin / 60.0
    cones = [cone_from_pointing(image, profile)]
    if image.has_wcs and image.place is not None:
        cones.append(_cone(image.place, error_deg))
    return cones


def cone_from_pointing(image: ImageRecord, profile: Profile) -> Cone:
    """All that may be on an image of which only the pointing is known.

    Its CCDs lie anywhere in the mosaic, which is about as wide as high; see `imagework.prior_of`.
    """
    longest_px = max((math.hypot(nx, ny) for _, nx, ny in image.ccds), default=0.0)
    spread_px = 0.5 * longest_px * (1.0 + (math.sqrt(len(image.ccds)) if len(image.ccds) > 1 else 0.0))
    scale_deg = pixel_scale_arcsec(profile, image.facts.header) / 3600.0
    radius = _WIDER * (spread_px * scale_deg + profile.pointing.radius_arcmin / 60.0)
    return (*image.facts.pointing, min(180.0, radius))


def cone_of_stack(places: Iterable[Place]) -> Cone:
    """One cone around all members of a stack."""
    from spica_calib.records import place_of_corners

    corners = [value for place in places for value in place.corners or ()]
    return _cone(place_of_corners(corners), _STACK_MARGIN_DEG)


def pixel_scale_arcsec(profile: Profile, header: Mapping[str, Any]) -> float:
    """From the header, else from the profile; 1 where nobody tells."""
    value = profile.value(header, profile.keywords.pixel_scale_arcsec)
    try:
        scale = abs(float(value)) if value is not None else 0.0
    except (TypeError, ValueError):
        scale = 0.0
    return scale or profile.detector.pixel_scale_arcsec or 1.0


def _cone(place: Place, margin_deg: float) -> Cone:
    x, y, z = place.centre
    ra, dec = math.degrees(math.atan2(y, x)) % 360.0, math.degrees(math.atan2(z, math.hypot(x, y)))
    return ra, dec, min(180.0, _WIDER * (math.degrees(place.radius_rad) + margin_deg))
