"""A page of one file: base style, templates, and what the page may do."""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, StrictUndefined


@cache
def base_style() -> str:
    """Style that all pages share: colours for light, dark and paper, the grid, tables, diagrams."""
    return (files("spica_reporting") / "base.css").read_text("utf-8")


def template(source: str) -> Any:
    """A template in which everything is escaped that is not marked as markup, and nothing may be left out."""
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.from_string(source)


def security(script: str = "") -> str:
    """Content security policy: the page's own script (none: no script at all) and pictures, nothing from elsewhere."""
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    if not script:
        return policy
    own = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
    return f"{policy}; script-src 'sha256-{own}'"
