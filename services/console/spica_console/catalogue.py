"""All settings of all parts, found where they are defined."""

from __future__ import annotations

import importlib
import tomllib
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_settings import BaseSettings
from spica_proto.streams import CONSUMERS
from spica_runtime.home import HomeSettings
from spica_runtime.settings import PlatformSettings
from spica_runtime.urls import without_password

SERVICES = (*dict.fromkeys(consumer.service for consumer in CONSUMERS), "console")


def settings_of(service: str) -> type[BaseSettings]:
    """Find the settings class of a service, where all services keep it."""
    module = importlib.import_module(f"spica_{service}.settings")
    found: type[BaseSettings] = getattr(module, f"{service.capitalize()}Settings")
    return found


def settings_classes() -> dict[str, tuple[type[BaseSettings], ...]]:
    """Name of each table to its settings classes: the platform's, then each service's."""
    return {
        "spica": (PlatformSettings, HomeSettings),
        **{service: (settings_of(service),) for service in SERVICES},
    }


async def all_settings() -> list[dict[str, Any]]:
    """One row per setting: part, name in the environment, default, value now, meaning."""
    rows = []
    for part, cls in ((part, cls) for part, classes in settings_classes().items() for cls in classes):
        try:
            now: BaseSettings | None = cls()
        except ValidationError:
            # Something without a default is missing, or a value does not fit: the list is shown all the same.
            now = None
        for name, field in cls.model_fields.items():
            default = (
                "required" if field.is_required() else _text(field.get_default(call_default_factory=False))
            )
            rows.append(
                {
                    "part": part,
                    "name": name,
                    "env": f"{cls.model_config.get('env_prefix', '')}{name}".upper(),
                    "default": default,
                    "now": _text(getattr(now, name)) if now is not None else "does not fit",
                    "meaning": field.description or "",
                }
            )
    return rows


def unknown_in_file(path: Path) -> list[str]:
    """Tables and keys of a settings file that no part of Spica knows: misspelt, most likely."""
    classes = settings_classes()
    unknown = []
    for table, values in tomllib.loads(path.read_text()).items():
        if table not in classes or not isinstance(values, dict):
            unknown.append(f"[{table}]")
            continue
        known = {name for cls in classes[table] for name in cls.model_fields}
        unknown += [f"[{table}] {key}" for key in values if key not in known]
    return unknown


def _text(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, tuple | list):
        return ", ".join(str(part) for part in value)
    text = str(value)
    return without_password(text) if "://" in text else text
