"""Composition root of the stack service: which message goes to which handler, with what."""

from __future__ import annotations

from spica_runtime.service import Platform, Service

from spica_stack.handlers import Handlers
from spica_stack.settings import StackSettings
from spica_stack.store import Store


def compose(platform: Platform[StackSettings]) -> Service:
    """Put the service together."""
    handlers = Handlers(platform, Store(platform.pool))
    return Service(
        {
            "stack.requested": handlers.requested,
            "stack.calibrated": handlers.calibrated,
            "stack.failed": handlers.failed,
        }
    )
