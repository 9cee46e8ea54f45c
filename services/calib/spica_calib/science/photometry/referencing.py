"""From magnitudes as catalogued to what a filter would have measured, in AB."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.polynomial import polynomial
from spica_imaging.profiles import ReferenceBand

from spica_calib.science.photometry.bands import to_ab, typical_error_mag
from spica_calib.science.photometry.problem import ColourTerm
from spica_calib.science.stars import Floats

_WORST_COLOUR_ERROR_MAG = 0.1
"""Stars with a worse colour are no reference where colours count: they would flatten the colour term."""


@dataclass(frozen=True, slots=True)
class ReferenceMagnitudes:
    """Reference stars as a filter would see them. Arrays have shape (stars,); NaN where nothing can be said."""

    mag: Floats
    """AB."""
    error_mag: Floats
    colour_mag: Floats
    """In AB."""
    band: str | None
    colour_term: ColourTerm | None
    systematic_mag: float
    notes: tuple[str, ...] = ()


def choose_reference(wanted: Sequence[ReferenceBand], mags: Mapping[str, Floats]) -> ReferenceBand | None:
    """The first of these that the catalogue can serve; with none wanted, its only band. None: a wrong one would do harm."""
    for one in wanted:
        needed = (one.band, *(one.colour or ()))
        if all(band in mags and np.isfinite(mags[band]).any() for band in needed):
            return one
    if not wanted and len(mags) == 1:
        return ReferenceBand(band=next(iter(mags)))
    return None


def reference_magnitudes(
    wanted: Sequence[ReferenceBand],
    mags: Mapping[str, Floats],
    errors: Mapping[str, Floats] | None = None,
    n_stars: int | None = None,
) -> ReferenceMagnitudes:
    """Magnitudes of reference stars in a filter.

    Args:
        wanted: what the profile would compare the filter with, the best first (`Photometry.references_for`).
        mags: catalogued magnitudes by band, shape (stars,); NaN where not measured.
        errors: their standard errors by band, where the catalogue gives them; else typical ones of the band.
        n_stars: number of stars, for catalogues without any magnitude.

    """
    chosen = choose_reference(wanted, mags)
    if chosen is None:
        n = n_stars if n_stars is not None else len(next(iter(mags.values()), np.empty(0)))
        nothing = np.full(n, np.nan)
        return ReferenceMagnitudes(nothing, nothing, nothing, None, None, 0.0)
    native = np.asarray(mags[chosen.band], dtype=np.float64)
    error = _error(chosen.band, native, errors)
    ab, is_known = to_ab(chosen.band, native)
    notes = () if is_known else (f"Nothing says which system band {chosen.band!r} is in: taken for AB.",)
    if chosen.colour is None:
        return ReferenceMagnitudes(
            ab, error, np.full(len(ab), np.nan), chosen.band, None, chosen.systematic_mag, notes
        )
    blue, red = (np.asarray(mags[band], dtype=np.float64) for band in chosen.colour)
    tone = blue - red
    tone_error = np.hypot(_error(chosen.colour[0], blue, errors), _error(chosen.colour[1], red, errors))
    colour = to_ab(chosen.colour[0], blue)[0] - to_ab(chosen.colour[1], red)[0]
    # How the reference less its colour term follows an error of the colour.
    slope = np.full(len(tone), -chosen.colour_term)
    if chosen.polynomial:
        coefficients = np.array(chosen.polynomial)
        ab = native + polynomial.polyval(tone, coefficients)
        slope = slope + polynomial.polyval(tone, polynomial.polyder(coefficients))
        if chosen.colour_range is not None:
            low, high = chosen.colour_range
            ab = np.where((tone >= low) & (tone <= high), ab, np.nan)
    usable = np.isfinite(ab) & (tone_error <= _WORST_COLOUR_ERROR_MAG)
    return ReferenceMagnitudes(
        np.where(usable, ab, np.nan),
        np.hypot(error, slope * tone_error),
        np.where(usable, colour, np.nan),
        chosen.band,
        ColourTerm(chosen.colour_term, chosen.colour_term_sigma),
        chosen.systematic_mag,
        notes,
    )


def _error(band: str, mag: Floats, errors: Mapping[str, Floats] | None) -> Floats:
    typical = typical_error_mag(band, mag)
    told = (errors or {}).get(band)
    if told is None:
        return typical
    return np.where(np.isfinite(told) & (told > 0), told, typical)
