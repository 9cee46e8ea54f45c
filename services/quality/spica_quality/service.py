"""Composition root of the quality service: which message goes to which handler, with what."""

from __future__ import annotations

from spica_runtime.service import Platform, Service

from spica_quality.handlers import Handlers
from spica_quality.policyfiles import load_policies
from spica_quality.settings import QualitySettings
from spica_quality.store import Store


def compose(platform: Platform[QualitySettings]) -> Service:
    """Put the service together."""
    handlers = Handlers(platform, Store(platform.pool), load_policies(platform.settings.policies))
    return Service({"image.verified": handlers.verified, "stack.coadded": handlers.coadded})
