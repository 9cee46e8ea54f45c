from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from spica_quality.science.preview import Caption, Panel, bin_pixels, draw_preview

CAPTION = Caption("900001p", ("MegaSim   filter r",), "B", ("B: FWHM 1.12″ > 1.00″",))


def picture(panels: list[Panel]) -> np.ndarray:
    with Image.open(io.BytesIO(draw_preview(panels, CAPTION))) as image:
        return np.asarray(image.convert("L")).astype(int)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 7), st.integers(0, 2**32 - 1))
def test_bins_are_means_of_usable_pixels(ny: int, nx: int, factor: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    data = random.normal(0, 1, (ny, nx)).astype(np.float32)
    usable = random.random((ny, nx)) < 0.6
    found = bin_pixels(data, usable, factor)
    assert found.shape == (max(ny // factor, 1), max(nx // factor, 1))
    for j in range(found.shape[0]):
        for i in range(found.shape[1]):
            block = np.s_[j * factor : (j + 1) * factor, i * factor : (i + 1) * factor]
            values = data[block][usable[block]]
            if values.size:
                assert found[j, i] == pytest.approx(values.mean(), abs=1e-5)
            else:
                assert np.isnan(found[j, i])


def bright_corner(row: int, column: int) -> np.ndarray:
    pixels = np.random.default_rng(1).normal(0, 1, (60, 60)).astype(np.float32)
    pixels[row : row + 6, column : column + 6] = 1000.0
    return pixels


def centre_of_light(grey: np.ndarray) -> tuple[float, float]:
    """Fractions from the left and from the top, of the picture below the caption, without the compass."""
    body = grey[120:].copy()
    body[-80:, -80:] = 0
    rows, columns = np.nonzero(body == 255)
    return float(columns.mean() / grey.shape[1]), float(rows.mean() / body.shape[0])


@pytest.mark.parametrize(
    ("matrix", "left", "top"),
    [
        # x towards west, y towards north, the usual way: the last row is up.
        ([[-1e-4, 0, 0], [0, 1e-4, 0]], 0.2, 0.2),
        # Turned by 180 degrees.
        ([[1e-4, 0, 0], [0, -1e-4, 0]], 0.8, 0.8),
        # By 90 degrees: y towards east.
        ([[0, 1e-4, 0], [1e-4, 0, 0]], 0.2, 0.8),
    ],
)
def test_north_is_up_and_east_is_left(matrix: list[list[float]], left: float, top: float) -> None:
    found = centre_of_light(picture([Panel(bright_corner(48, 6), np.array(matrix))]))
    assert found == pytest.approx((left, top), abs=0.15)


def test_without_wcs_the_first_row_is_at_the_bottom() -> None:
    found = centre_of_light(picture([Panel(bright_corner(48, 6), None)]))
    assert found == pytest.approx((0.2, 0.2), abs=0.15)


@pytest.mark.parametrize("n", [0, 1, 3, 36])
def test_any_number_of_panels_makes_a_picture(n: int) -> None:
    assert picture([Panel(bright_corner(5, 5), None)] * n).shape[1] == 900


@pytest.mark.parametrize("value", [np.nan, 0.0, 1e30])
def test_a_panel_without_spread_makes_a_picture(value: float) -> None:
    assert picture([Panel(np.full((20, 30), value, np.float32), None)]).shape[1] == 900


def test_the_same_panels_give_the_same_bytes() -> None:
    panels = [Panel(bright_corner(5, 5), None)]
    assert draw_preview(panels, CAPTION) == draw_preview(panels, CAPTION)


def test_a_long_line_is_cut_not_drawn_over_the_grade() -> None:
    long = Caption("x" * 400, ("y" * 400,), "D", ("z" * 400,) * 3)
    with Image.open(io.BytesIO(draw_preview([], long))) as image:
        assert image.width == 900
