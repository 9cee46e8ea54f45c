"""Composition root: which message goes to which handler, with what."""

from __future__ import annotations

from spica_runtime.service import Platform, Service

from spica_calib.handlers import Handlers
from spica_calib.settings import CalibSettings


def compose(platform: Platform[CalibSettings]) -> Service:
    """Put the calib service together."""
    handlers = Handlers(platform)
    return Service(
        routes={
            "image.graded": handlers.image_graded,
            "image.calibration_requested": handlers.calibration_requested,
            "stack.planned": handlers.stack_planned,
        },
        close=(handlers.close,),
    )
