"""Composition root of the quality service: which message goes to which handler, with what."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError
from spica_runtime.service import Platform, Service

from spica_quality.errors import bad_policy
from spica_quality.handlers import Handlers
from spica_quality.science.grading import Policy, parse_policy
from spica_quality.settings import QualitySettings
from spica_quality.store import Store

DEFAULT_POLICY = Path(__file__).parent / "policies" / "default.toml"


def load_policy(path: Path | None) -> Policy:
    """Read the policy of the settings, or the one shipped; `UsageError` says what is wrong with it."""
    chosen = path or DEFAULT_POLICY
    try:
        return parse_policy(chosen.read_text(encoding="utf-8"))
    except (OSError, ValueError, ValidationError) as error:
        raise bad_policy(chosen, error) from error


def compose(platform: Platform[QualitySettings]) -> Service:
    """Put the service together."""
    handlers = Handlers(platform, Store(platform.pool), load_policy(platform.settings.policy))
    return Service({"image.verified": handlers.verified, "stack.coadded": handlers.coadded})
