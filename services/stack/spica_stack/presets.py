"""Recipes by name: what surveys ask of their stacks, as TOML files. `presets/` has those that come with Spica.

A preset is the body of `stack.requested`, with what the preset is, where it comes from, and what differs by filter:

    description = "Who makes such stacks."
    source = "Where these numbers stand."
    combine = "weighted_median"
    [selection]
    fwhm_max_arcsec = 1.3
    [[by_filter]]
    filters = ["u.MP9301"]
    fwhm_max_arcsec = 1.4
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spica_proto.stacks import Rules, StackRequested
from spica_runtime.errors import NotRetriable

from spica_stack.strict import faults_of, nearest

_SHIPPED = Path(__file__).parent / "presets"
_ABOUT = ("description", "source", "by_filter")


@dataclass(frozen=True, slots=True)
class Preset:
    """One recipe."""

    name: str
    description: str
    source: str
    path: Path
    shipped: bool
    body: Mapping[str, Any]
    """Of `stack.requested`."""
    by_filter: tuple[tuple[tuple[str, ...], Mapping[str, Any]], ...] = ()
    """Filters, and the rules that differ for them."""


def load_presets(folder: Path | None = None) -> dict[str, Preset]:
    """All presets by name: those shipped, and over them those of a folder of one's own.

    Raises `NotRetriable` (`bad_preset`): a file is no preset; the message names file and field.
    """
    if folder is not None and not folder.is_dir():
        raise NotRetriable("bad_preset", f"SPICA_STACK_PRESETS names {folder}, but there is no such folder.")
    folders = [(_SHIPPED, True), *([(folder, False)] if folder else [])]
    found = [_read(path, shipped) for place, shipped in folders for path in sorted(place.glob("*.toml"))]
    return {preset.name: preset for preset in found}


def preset_named(name: str, presets: Mapping[str, Preset]) -> Preset:
    """The preset of this name. Raises `NotRetriable` (`unknown_preset`) with the one that looks like it."""
    if name not in presets:
        raise NotRetriable(
            "unknown_preset",
            f"No preset is called {name!r}{nearest(name, presets)}. There are {', '.join(sorted(presets))}.",
        )
    return presets[name]


def _read(path: Path, shipped: bool) -> Preset:
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise NotRetriable("bad_preset", f"The preset {path} cannot be read as TOML: {error}.") from error
    body = {name: value for name, value in table.items() if name not in _ABOUT}
    faults = faults_of(StackRequested, body)
    parts = []
    for number, part in enumerate(table.get("by_filter", ()), 1):
        rules = {name: value for name, value in part.items() if name != "filters"}
        filters = part.get("filters")
        if not isinstance(filters, list) or not filters or not all(isinstance(name, str) for name in filters):
            faults.append(f"by_filter[{number}].filters: a list of names of filters")
            continue
        faults += [f"by_filter[{number}].{fault}" for fault in faults_of(Rules, rules)]
        parts.append((tuple(filters), rules))
    if faults:
        raise NotRetriable("bad_preset", f"The preset {path} does not fit: {'; '.join(faults)}.")
    return Preset(
        name=path.stem,
        description=str(table.get("description", "")),
        source=str(table.get("source", "")),
        path=path,
        shipped=shipped,
        body=body,
        by_filter=tuple(parts),
    )
