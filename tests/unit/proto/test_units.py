"""Quantities refuse what cannot be."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError
from spica_proto import units

LIMITS: dict[str, tuple[Any, float | None, float | None]] = {
    "RightAscensionDeg": (units.RightAscensionDeg, 0.0, 360.0),
    "DeclinationDeg": (units.DeclinationDeg, -90.0, 90.0),
    "Arcsec": (units.Arcsec, 0.0, None),
    "Mas": (units.Mas, 0.0, None),
    "Seconds": (units.Seconds, 0.0, None),
    "Mag": (units.Mag, None, None),
    "MjdDay": (units.MjdDay, None, None),
    "Fraction": (units.Fraction, 0.0, 1.0),
}


def accepted(kind: Any, value: float) -> bool:
    try:
        TypeAdapter(kind).validate_python(value)
    except ValidationError:
        return False
    return True


@pytest.mark.parametrize("name", LIMITS)
@given(value=st.floats())
def test_only_finite_values_within_the_limits_are_taken(name: str, value: float) -> None:
    kind, low, high = LIMITS[name]
    inside = math.isfinite(value) and (low is None or value >= low)
    if high is not None:
        inside = inside and (value < high if name == "RightAscensionDeg" else value <= high)
    assert accepted(kind, value) == inside


@pytest.mark.parametrize("text", ["", "0" * 63, "0" * 65, "G" * 64, "A" * 64])
def test_checksums_are_lower_case_hexadecimal_of_full_length(text: str) -> None:
    assert not accepted(units.Sha256, text)  # type: ignore[arg-type]
    assert accepted(units.Sha256, "0a" * 32)  # type: ignore[arg-type]
