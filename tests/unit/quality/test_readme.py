"""The page about the service says what the code does: its tables are held against the code."""

from __future__ import annotations

import re
from pathlib import Path

import spica_quality
from spica_imaging.columns import COLUMNS
from spica_quality.science.flags import MEANINGS
from spica_quality.science.metrics.conditions import CCD_CONDITIONS, FRAME_CONDITIONS
from spica_quality.settings import QualitySettings
from spica_runtime.settings import ServiceSettings

PAGE = (Path(spica_quality.__file__).parents[1] / "README.md").read_text()


def section(title: str) -> str:
    """What stands under a heading."""
    return re.split(r"^##+ ", PAGE.split(f"## {title}\n", 1)[1], maxsplit=1, flags=re.MULTILINE)[0]


def rows(title: str) -> list[list[str]]:
    """Cells of the tables under a heading."""
    lines = [line for line in section(title).splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[1:]]


def test_settings_are_all_there_with_their_defaults() -> None:
    told = {cells[0].strip("`"): cells[1] for cells in rows("Settings")}
    own = {
        name: field
        for name, field in QualitySettings.model_fields.items()
        if name not in ServiceSettings.model_fields
    }
    assert told.keys() == own.keys()
    for name, field in own.items():
        if isinstance(field.default, int | float):
            assert float(told[name]) == field.default, name


def test_bits_of_the_flag_map() -> None:
    told = [(int(bit), int(value), name.strip("`")) for bit, value, name, _ in rows("Flags and weights")]
    assert told == [(bit, 1 << bit, name) for bit, name, _ in MEANINGS]


def test_conditions_in_their_order() -> None:
    assert {cells[0].strip("`"): cells[1] for cells in rows("Conditions")} == FRAME_CONDITIONS
    assert [cells[0].strip("`") for cells in rows("Conditions")] == list(FRAME_CONDITIONS)
    last = section("Conditions").rsplit("A CCD is", 1)[1]
    assert set(re.findall(r"`(\w+)`", last)) == {*CCD_CONDITIONS, "ok"}


def test_columns_that_are_named_exist() -> None:
    named = set(re.findall(r"`([A-Z][A-Z0-9_]+)`", section("The catalogue's columns")))
    named = {name for name in named if not name.endswith("_")} - {"SEXAPED1"}
    assert len(named) > 30
    assert named <= COLUMNS.keys()
