"""How far newer solutions move what a stack was made of."""

from __future__ import annotations

import math

import pytest
from spica_console import calib_tables
from spica_console.calibrating import Moved, Stale, corners_moved_mas


@pytest.mark.parametrize("dec", [0.0, 60.0, -89.9])
def test_corners_move_as_on_the_sky(dec: float) -> None:
    old = [359.99999, dec, 0.1, dec]
    new = [359.99999, dec, 0.1 + 1e-6, dec]
    assert corners_moved_mas(old, new) == pytest.approx(3.6 * math.cos(math.radians(dec)), rel=1e-3)
    assert corners_moved_mas(old, [old[0] - 360.0, *old[1:]]) == pytest.approx(0.0, abs=1e-6)
    assert corners_moved_mas([10.0, dec], [10.0, dec + 1e-7]) == pytest.approx(0.36, rel=1e-3)


def test_what_cannot_be_compared_is_not_known() -> None:
    assert corners_moved_mas(None, [1.0, 2.0]) is None
    assert corners_moved_mas([1.0, 2.0], []) is None
    assert corners_moved_mas([1.0, 2.0], [1.0, 2.0, 3.0, 4.0]) is None


def test_a_stack_is_as_stale_as_its_worst_member() -> None:
    def moved(mas: float | None, mmag: float | None) -> Moved:
        return Moved("i", "n", 1, 2, None, mas, mmag)

    stale = Stale("s", "stack", "r", "done", 3, [moved(None, 1.0), moved(12.0, -4.0), moved(3.0, None)])
    assert (stale.moves_mas, stale.changes_mmag) == (12.0, -4.0)
    assert stale.plain()["members"][1]["moves_mas"] == 12.0
    assert Stale("s", "stack", "r", "done", 1, [moved(None, None)]).moves_mas is None


@pytest.mark.parametrize(
    ("pair", "cell"),
    [
        ((1.25, 2.0), "1.2/2.0"),
        ((None, 2.0), "–/2.0"),
        ((1.25, None), "1.2/–"),
        ((None, None), ""),
        (None, ""),
    ],
)
def test_of_two_numbers_each_keeps_its_place(
    pair: tuple[float | None, float | None] | None, cell: str
) -> None:
    assert calib_tables._pair(pair) == cell
