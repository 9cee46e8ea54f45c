"""Per exposure: its zero point, what it stands on, and one sentence that says so with numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from spica_calib.science.photometry import anchors
from spica_calib.science.photometry.problem import (
    Anchor,
    ExposureZeroPoint,
    Options,
    PhotometricExposure,
)
from spica_calib.science.photometry.rounds import External, Spread
from spica_calib.science.photometry.system import Solved
from spica_calib.science.stars import Bools, Floats


def sentences(
    exposures: Sequence[PhotometricExposure],
    solved: Solved,
    known: Bools,
    grounded: Bools,
    component: NDArray[np.int64],
    chosen: Mapping[int, anchors.Chosen],
    n_reference: NDArray[np.int32],
    spread: Spread,
    external: External,
    options: Options,
) -> tuple[ExposureZeroPoint, ...]:
    """Zero points of all exposures. Arrays have shape (exposures,); `chosen` by component."""
    zero = solved.unknowns[: len(exposures)]
    sigma = np.hypot(solved.sigma[: len(exposures)], options.systematic_mag)
    clear = anchors.clear_sky(zero, known, exposures, options)
    told = []
    for e, exposure in enumerate(exposures):
        overlap = int(spread.numbers[e])
        seen = spread.sigma_mag[e] if np.isfinite(spread.sigma_mag[e]) else external.sigma_mag
        scatter = float(seen) if np.isfinite(seen) and overlap + n_reference[e] > 0 else None
        mag: float | None
        error: float | None
        relative: float | None = None
        if known[e]:
            mag, error = float(zero[e]), float(sigma[e])
            anchor, is_anchor, why = _standing(
                e, grounded, component, chosen, n_reference, spread, external, options
            )
            why = f"{mag:.4f} ± {error:.4f} mag: {why}."
        else:
            members = np.flatnonzero(component == component[e])
            mag, error, anchor, why = _from_context(e, members, zero, exposures, clear, options)
            is_anchor = False
            if mag is None:
                relative = float(zero[e] - np.mean(zero[members]) + anchors.NOMINAL_ZEROPOINT_MAG)
        told.append(
            ExposureZeroPoint(
                mag, error, scatter, int(n_reference[e]), overlap, anchor, is_anchor, why,
                anchors.absorption(mag, exposure, clear, options) if known[e] and mag is not None else None,
                relative,
            )
        )  # fmt: skip
    return tuple(told)


def _standing(
    e: int,
    grounded: Bools,
    component: NDArray[np.int64],
    chosen: Mapping[int, anchors.Chosen],
    n_reference: NDArray[np.int32],
    spread: Spread,
    external: External,
    options: Options,
) -> tuple[Anchor, bool, str]:
    """What a known zero point stands on, whether others hang on it, and the words for it."""
    overlap = f"{int(spread.numbers[e])} detections of stars seen on other exposures too"
    if grounded[e]:
        # Where no exposure has enough for itself, those that have any anchor together.
        richest = int(n_reference[component == component[e]].max())
        if n_reference[e] >= min(options.min_reference, richest):
            band = f" in band {options.band}" if options.band else ""
            return (
                "reference",
                True,
                f"{int(n_reference[e])} reference stars{band}, which scatter by {external.sigma_mag:.3f} mag; {overlap}",
            )
        return (
            "overlap",
            False,
            f"hangs on exposures with reference stars by {overlap} ({int(n_reference[e])} reference stars of its own)",
        )
    found = chosen[int(component[e])]
    place = np.flatnonzero(found.members == e)
    if len(place):
        why = found.claims[int(place[0])].why
        others = len(found.members) - 1
        shared = f"; {others} other anchors; {overlap}" if others else f"; {overlap}"
        return ("header" if found.kind == "header" else "reference"), True, why + shared
    kind = "photometric exposures" if found.kind == "header" else "exposures calibrated before"
    refused = f"; {found.refused[e]}" if e in found.refused else ""
    return "overlap", False, f"hangs on {len(found.members)} {kind} by {overlap}{refused}"


def _from_context(
    e: int,
    members: NDArray[np.intp],
    zero: Floats,
    exposures: Sequence[PhotometricExposure],
    clear: dict[str, anchors.ClearSky],
    options: Options,
) -> tuple[float | None, float | None, Anchor, str]:
    """A zero point where neither the exposure nor any that overlaps with it is anchored."""
    claims = {int(m): claim for m in members if (claim := anchors.expected(exposures[m], clear, options))}
    if not claims:
        return (
            None,
            None,
            "none",
            "None: no reference stars, no photometric header, no anchored exposure overlaps or shares its context.",
        )
    # Clouds only make fainter: of those that overlap, the clearest is taken to be clear.
    shift = {m: claim.mag - float(zero[m]) for m, claim in claims.items()}
    clearest = min(shift, key=lambda m: shift[m])
    claim = claims[clearest]
    mag = float(zero[e]) + shift[clearest]
    through = (
        ""
        if len(members) == 1
        else f", through {exposures[clearest].name}, the clearest of {len(members)} that overlap,"
    )
    why = f"{mag:.3f} ± {claim.sigma_mag:.2f} mag: taken over, not measured{through}: {claim.why}."
    return mag, claim.sigma_mag, "context", why
