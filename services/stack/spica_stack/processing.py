"""How pixels are made: the contract's words, filled in from the settings, and turned into what the engine takes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from spica_proto.stacks import Combine, Processing, StackEngine, StackPlanned, StackRequested
from spica_runtime.jsonb import storable

from spica_stack.science.parameters import Clipping, Parameters
from spica_stack.settings import StackSettings

_FROM_SETTINGS = (
    "resampling",
    "subtract_background",
    "background_mesh_px",
    "rescale_weights",
    "psf_weight_power",
    "clip_sigma",
    "clip_sigma_grown",
    "clip_flux_share",
    "rejection_map",
)
_NOT_IN_PIXELS = {"rejection_map"}
_MEANT_FOR_CLIPPING = ("clipped_mean", "sigma_clip")


def filled(request: StackRequested, settings: StackSettings) -> Processing:
    """What the request says of how pixels are made, and the settings where it says nothing."""
    asked = request.processing
    given = {name: getattr(settings, name) for name in _FROM_SETTINGS if getattr(asked, name) is None}
    return asked.model_copy(update=given)


def engine_of(request: StackRequested, settings: StackSettings) -> StackEngine:
    """What makes the pixels."""
    return request.engine or settings.engine


def identity(planned: StackPlanned) -> dict[str, Any]:
    """All of a plan that changes pixels, besides the members and their solutions: the stack's id follows from it."""
    return {
        "grid": planned.grid.model_dump(mode="json"),
        "combine": planned.combine,
        "processing": planned.processing.model_dump(mode="json", exclude=_NOT_IN_PIXELS),
        "solutions": planned.solutions,
        "engine": planned.engine,
        "extends": planned.extends,
    }


def parameters_of(
    combine: Combine, processing: Processing, fwhm_px: Sequence[float], *, keep_sums: bool
) -> Parameters:
    """What the engine takes.

    Parameters
    ----------
    combine, processing
        As planned, with the settings filled in.
    fwhm_px
        Seeing of the members where it is known, in output pixels.
    keep_sums
        Whether another stack may go on from this one.

    """
    told = {
        name: value
        for name in _FROM_SETTINGS
        if not name.startswith("clip_") and (value := getattr(processing, name)) is not None
    }
    limits = {
        name: value
        for name, value in (
            ("n_sigma", processing.clip_sigma),
            ("n_sigma_grown", processing.clip_sigma_grown),
            ("flux_share", processing.clip_flux_share),
        )
        if value is not None
    }
    # At least 2: the flank of an undersampled star falls from its core within two pixels.
    radius_px = min(max(round(0.5 * max(fwhm_px, default=4.0)), 2), 8)
    told["rejection_map"] = bool(told.get("rejection_map")) and combine in _MEANT_FOR_CLIPPING
    return Parameters(
        combine=combine,
        oversampling=processing.oversampling,
        ccd_weights=dict(sorted(processing.ccd_weights.items())),
        clipping=Clipping(radius_px=radius_px, **limits),
        keep_sums=keep_sums,
        **told,
    )


def configuration(combine: Combine, processing: Processing, engine: StackEngine) -> dict[str, Any]:
    """The same for provenance."""
    told: dict[str, Any] = storable(processing.model_dump(mode="json", exclude_none=True))
    return {"combine": combine, "engine": engine, **told}
