"""What matching gives back."""

from __future__ import annotations

from dataclasses import dataclass

from spica_imaging.wcs import TpvWcs


@dataclass(frozen=True, slots=True)
class Located:
    """An exposure whose CCDs are known to lie where their WCS say, to about `radius_arcsec`."""

    wcs: tuple[TpvWcs, ...]
    radius_arcsec: tuple[float, ...]
    """Per CCD: how well its WCS is known."""
    found: tuple[bool, ...]
    """Per CCD: matched by itself; else placed by its neighbours, or left where the frame puts it."""
    log10_false: float
    """Of the least credible match that was needed."""
    expected_by_chance: float
    n_matched: int
    offset_arcsec: float
    """How far the exposure's centre is from where it was thought to be."""
    rotation_deg: float
    """By how much it is turned against what was thought."""
    scale: float
    """Its pixel scale over what was thought."""
    mirrored: bool
