"""Composition root of the export service: which message goes to which handler, with what."""

from __future__ import annotations

from spica_runtime.service import Platform, Service

from spica_export.handlers import Handlers
from spica_export.settings import ExportSettings
from spica_export.store import Store


def compose(platform: Platform[ExportSettings]) -> Service:
    """Put the service together."""
    return Service({"stack.done": Handlers(platform, Store(platform.pool)).done})
