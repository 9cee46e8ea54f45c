"""What runs teach: models compared and put together, an affine map apart."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from spica_calib.science.astrometry.problem import CcdPlane, InstrumentModel
from spica_calib.science.lessons import difference_mas, merged
from spica_imaging.polynomial import design, terms

from tests.unit.calib.naive_lessons import apart_mas

NAMES = ("ccd00", "ccd01")


def model(
    seed: int, *, degree: int = 3, detections: int = 1000, bend_arcsec: float = 0.2, exposures: int = 4
) -> InstrumentModel:
    """Two CCDs of 2048 x 4096 pixels side by side, with a bend of their own."""
    rng = np.random.default_rng(seed)
    n = len(terms(degree))
    ccds = {}
    for number, name in enumerate(NAMES):
        coefficients = np.zeros((n, 2))
        coefficients[0] = (-200.0 + 400.0 * number, 0.0)
        coefficients[1:3] = 400.0 * np.array([[-1.0, 0.0], [0.0, 1.0]])
        coefficients[3:] = bend_arcsec * rng.standard_normal((n - 3, 2))
        ccds[name] = CcdPlane(name, (1024.5, 2048.5), 2048.0, degree, coefficients, 1e-6 * np.eye(n))
    return InstrumentModel("c", ccds, exposures, detections, 3.0)


def turned(
    told: InstrumentModel, angle_deg: float, shift: tuple[float, float], scale: float
) -> InstrumentModel:
    """The same model as another exposure's pointing would have it."""
    c, s = np.cos(np.radians(angle_deg)), np.sin(np.radians(angle_deg))
    matrix = scale * np.array([[c, s], [-s, c]])
    ccds = {}
    for name, ccd in told.ccds.items():
        coefficients = ccd.coefficients @ matrix
        coefficients[0] += shift
        ccds[name] = replace(ccd, coefficients=coefficients)
    return replace(told, ccds=ccds)


def mixed(parts: list[tuple[float, InstrumentModel]], detections: int) -> InstrumentModel:
    """Weighted sum of models of one gauge."""
    first = parts[0][1]
    ccds = {
        name: replace(ccd, coefficients=sum(w * part.ccds[name].coefficients for w, part in parts))
        for name, ccd in first.ccds.items()
    }
    return replace(first, ccds=ccds, n_detections=detections)


@given(
    st.integers(0, 2**32 - 1),
    st.floats(-180, 180),
    st.tuples(st.floats(-50, 50), st.floats(-50, 50)),
    st.floats(0.9, 1.1),
)
def test_an_affine_map_is_no_difference(
    seed: int, angle: float, shift: tuple[float, float], scale: float
) -> None:
    told = model(seed)
    found = difference_mas(told, turned(told, angle, shift, scale))
    assert found == pytest.approx(0.0, abs=1e-5)


@given(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1), st.integers(2, 4), st.integers(2, 4))
def test_the_difference_is_what_plain_loops_find(one: int, other: int, first: int, second: int) -> None:
    a, b = model(one, degree=first), model(other, degree=second)
    assert difference_mas(a, b) == pytest.approx(apart_mas(a, b), rel=1e-6, abs=1e-5)


def test_models_without_a_ccd_in_common_are_not_compared() -> None:
    a = model(1)
    b = replace(a, ccds={"other": replace(a.ccds["ccd00"], name="other")})
    assert difference_mas(a, b) is None
    resized = replace(a, ccds={n: replace(ccd, half_px=1024.0) for n, ccd in a.ccds.items()})
    assert difference_mas(a, resized) is None


@given(st.integers(0, 2**31), st.integers(0, 2000), st.integers(1, 2000), st.integers(1, 2000))
def test_two_lessons_weigh_as_much_as_their_detections(seed: int, n: int, first: int, second: int) -> None:
    parent, alone, other = model(seed, detections=n), model(seed + 1), model(seed + 2)
    newest = mixed([(n / (n + first), parent), (first / (n + first), alone)], n + first)
    taught = mixed([(n / (n + second), parent), (second / (n + second), other)], n + second)
    total = n + first + second
    truth = mixed([(n / total, parent), (first / total, alone), (second / total, other)], total)
    found = merged(newest, taught, parent if n else None)
    assert found.n_detections == total
    # Gauges are aligned by the models themselves, which differ by their bends: to that order only.
    assert difference_mas(found, truth) == pytest.approx(
        0.0, abs=0.01 * max(difference_mas(alone, other) or 0.0, 1e-3)
    )


def test_the_gauge_of_the_second_does_not_matter() -> None:
    parent, taught = model(1, detections=500), model(2, detections=900)
    newest = model(3, detections=700)
    plain = merged(newest, taught, parent)
    moved = merged(newest, turned(taught, 3.0, (5.0, -2.0), 1.001), turned(parent, -1.0, (1.0, 1.0), 0.999))
    for name in NAMES:
        np.testing.assert_allclose(moved.ccds[name].coefficients, plain.ccds[name].coefficients, atol=1e-7)


def test_nothing_learnt_leaves_the_newest_alone() -> None:
    newest, parent = model(1, detections=700), model(2, detections=500)
    assert merged(newest, parent, parent) is newest


def test_ccds_and_degrees_that_one_of_them_lacks_are_taken_over() -> None:
    newest, taught = model(1, degree=2, detections=100), model(2, degree=4, detections=300)
    newest = replace(newest, ccds={"ccd00": newest.ccds["ccd00"]})
    found = merged(newest, taught, None)
    assert set(found.ccds) == set(NAMES)
    assert found.ccds["ccd00"].degree == found.ccds["ccd01"].degree == 4
    assert found.ccds["ccd00"].covariance.shape == (15, 15)
    assert found.n_exposures == newest.n_exposures + taught.n_exposures
    u = np.linspace(-0.5, 0.5, 5)
    places = design(u, u, 4) @ found.ccds["ccd00"].coefficients
    assert np.isfinite(places).all()


def test_more_detections_make_it_surer() -> None:
    newest, taught = model(1, detections=100), model(2, detections=300)
    found = merged(newest, taught, None)
    np.testing.assert_allclose(found.ccds["ccd00"].covariance, newest.ccds["ccd00"].covariance / 4)
    again = InstrumentModel.from_json(found.to_json())
    assert difference_mas(again, found) == pytest.approx(0.0, abs=1e-9)
