"""Stamps, against a twin of plain loops."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from spica_quality.science.flags import UNUSABLE, Bit
from spica_quality.science.photometry import stamps

from tests.unit.quality.placed import segments_of


def naive_cut(
    data: np.ndarray, flags: np.ndarray, labels: np.ndarray, label: int, x: float, y: float, half: int
) -> tuple[int, int, np.ndarray, np.ndarray]:
    """What a stamp is, pixel by pixel."""
    ny, nx = data.shape
    row, column = int(np.floor(y + 0.5)), int(np.floor(x + 0.5))
    rows = [j for j in range(row - half, row + half + 1) if 0 <= j < ny]
    columns = [i for i in range(column - half, column + half + 1) if 0 <= i < nx]
    first = (rows[0] if rows else 0, columns[0] if columns else 0)

    def own(j: int, i: int) -> tuple[float, int]:
        if labels[j, i] not in (0, label) or flags[j, i] & UNUSABLE or not np.isfinite(data[j, i]):
            return 0.0, stamps.LOST
        return data[j, i], stamps.PILED if flags[j, i] & Bit.SATURATED else stamps.SOUND

    values, state = (
        np.zeros((len(rows), len(columns)), np.float32),
        np.zeros((len(rows), len(columns)), np.uint8),
    )
    for j in rows:
        for i in columns:
            value, kind = own(j, i)
            if kind == stamps.LOST:
                # In the stamp's coordinates, as the kernel computes it: ties are broken alike.
                other = (
                    int(np.floor(2.0 * (y - first[0]) - (j - first[0]) + 0.5)) + first[0],
                    int(np.floor(2.0 * (x - first[1]) - (i - first[1]) + 0.5)) + first[1],
                )
                if other[0] in rows and other[1] in columns and own(*other)[1] != stamps.LOST:
                    value, kind = own(*other)[0], stamps.MIRRORED
            values[j - first[0], i - first[1]], state[j - first[0], i - first[1]] = value, kind
    return *first, values, state


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 2**31),
    st.floats(-3.0, 16.0),
    st.floats(-3.0, 14.0),
    st.integers(0, 9),
)
def test_a_stamp_is_what_its_plain_twin_says(seed: int, x: float, y: float, half: int) -> None:
    random = np.random.default_rng(seed)
    shape = (12, 14)
    data = random.normal(0.0, 1.0, shape).astype(np.float32)
    data[random.random(shape) < 0.05] = random.choice([np.nan, np.inf, -np.inf])
    flags = random.choice(np.array([0, 0, 0, 0, 4, 32, 36], np.uint16), shape)
    labels = (random.integers(0, 4, (3, 7)).repeat(4, 0).repeat(2, 1)).astype(np.int32)
    field = stamps.field_of(data, flags, segments_of(labels))
    y0, x0, values, state = stamps.cut_stamp(field, 2, x, y, half, stamps.buffers_for(half))
    top, left, expected, kinds = naive_cut(data, flags, labels, 2, x, y, half)
    assert values.shape == expected.shape
    if values.size:
        assert (y0, x0) == (top, left)
    assert np.array_equal(values, expected)
    assert np.array_equal(state, kinds)


def test_arrays_of_different_shape_are_refused() -> None:
    data, flags = np.zeros((4, 5), np.float32), np.zeros((4, 6), np.uint16)
    with pytest.raises(ValueError, match="not of one frame"):
        stamps.field_of(data, flags, segments_of(np.zeros((4, 5), np.int32)))
