"""What would become of a request now: what it takes and leaves, and what the stack would be like. Nothing is written."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from spica_proto.stacks import StackRequested
from spica_runtime.errors import NotRetriable

from spica_stack.choosing import Choice, Source, select_now
from spica_stack.laying import Laid, Locate, lay_out_choice
from spica_stack.planning import contract_grid, name_of
from spica_stack.processing import engine_of, filled
from spica_stack.science.choosing.advice import Advice
from spica_stack.science.prediction import Exposures, Prediction, predict
from spica_stack.science.selection import left_out_by
from spica_stack.settings import StackSettings

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class DryRun:
    """A request that was not made."""

    choice: Choice
    problem: NotRetriable | None
    """Why no stack would be made; None: one would."""
    laid: Laid | None
    prediction: Prediction | None
    advice: tuple[Advice, ...]
    settings: StackSettings

    @property
    def name(self) -> str | None:
        """Of the stack; None where there would be none."""
        return None if self.laid is None else name_of(self.choice.request, self.choice, self.laid.grid)

    def told(self) -> dict[str, Any]:
        """All of it, for programs."""
        choice, laid = self.choice, self.laid
        request = choice.request
        return {
            "name": self.name,
            "mode": request.mode,
            "preset": request.preset,
            "filter": choice.filter or None,
            "combine": request.combine,
            "solutions": request.solutions,
            "engine": engine_of(request, self.settings),
            "candidates": len(choice.verdicts),
            "selected": len(choice.members),
            "left_out": left_out_by(choice.verdicts),
            "problem": None
            if self.problem is None
            else {"code": self.problem.code, "message": self.problem.message},
            "advice": [{"rule": one.rule, "words": one.words, "lets_in": one.lets_in} for one in self.advice],
            "grid": None if laid is None else contract_grid(laid.grid).model_dump(mode="json"),
            "predicted": None if self.prediction is None else _predicted(self.prediction),
            "coverage": None if self.prediction is None else _coverage(self.prediction),
            "images": [
                {
                    "image_id": verdict.candidate.image_id,
                    "name": verdict.candidate.name,
                    "selected": verdict.selected,
                    "rule": verdict.rule,
                    "found": verdict.found,
                }
                for verdict in choice.verdicts
            ],
            "request": request.model_dump(mode="json", exclude_unset=True, exclude_none=True),
        }


def _predicted(told: Prediction) -> dict[str, Any]:
    return {
        "depth_mag": _rounded(told.depth_mag, 3),
        "deepest_mag": _rounded(told.deepest_mag, 3),
        "fwhm_arcsec": _rounded(told.fwhm_arcsec, 3),
        "exposure_time_s": told.exposure_time_s,
        "n_depth_unknown": told.n_depth_unknown,
        "covered": round(told.covered, 4),
        "exposures_median": told.exposures_median,
        "exposures_most": told.exposures_most,
    }


def _coverage(told: Prediction) -> dict[str, Any]:
    """Exposures per cell, row by row from the lower edge of the grid."""
    return {"cell_px": told.coverage.cell_px, "exposures": told.coverage.exposures.tolist()}


def _rounded(value: float | None, digits: int) -> float | None:
    return None if value is None else round(value, digits)


async def dry_run(source: Source, request: StackRequested, settings: StackSettings, locate: Locate) -> DryRun:
    """Choose, lay out and predict as a request would. What the store holds is told in `DryRun.problem`.

    Raises
    ------
    NotRetriable
        The request itself does not fit, as `select_now`.

    """
    choice = await select_now(source, request, settings)
    advice = tuple(choice.advice)
    if choice.problem is not None:
        return DryRun(choice, choice.problem, None, None, advice, settings)
    try:
        laid = await lay_out_choice(source, choice, settings, locate)
    except NotRetriable as problem:
        return DryRun(choice, problem, None, None, advice, settings)
    prediction = await asyncio.to_thread(_predict, laid, settings)
    return DryRun(laid.choice, None, laid, prediction, advice, settings)


def _predict(laid: Laid, settings: StackSettings) -> Prediction:
    members, request = laid.choice.members, laid.choice.request
    processing = filled(request, settings)
    weights = processing.exposure_weights
    exposures = Exposures(
        limiting_mag=np.array([one.limiting_mag for one in members], dtype=np.float64),
        fwhm_arcsec=np.array([one.fwhm_arcsec for one in members], dtype=np.float64),
        ellipticity=np.array([one.ellipticity for one in members], dtype=np.float64),
        exposure_time_s=np.array([one.exposure_time_s for one in members], dtype=np.float64),
        factor=np.array([weights.get(one.image_id, weights.get(one.name, 1.0)) for one in members]),
    )
    power = processing.psf_weight_power or 0.0
    return predict(laid.grid, laid.placed.footprints, exposures, request.combine, power)
