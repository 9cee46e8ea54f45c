"""Numbers of a calibration: residuals over the field, geometry of CCDs, zero points, against plain twins and truth."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from spica_calib.science.astrometry.problem import InstrumentModel
from spica_calib.science.diagnostics.ccds import ccd_figures, outlying
from spica_calib.science.diagnostics.geometry import (
    distortion,
    model_change,
    model_place_arcsec,
    placements,
)
from spica_calib.science.diagnostics.inputs import Calibration, EarlierZeroPoint, earlier_zero_points
from spica_calib.science.diagnostics.numbers import numbers
from spica_calib.science.diagnostics.plane import FocalPlane, focal_plane
from spica_calib.science.diagnostics.residuals import (
    against_magnitude,
    cloud,
    running,
    vector_map,
)
from spica_calib.science.diagnostics.zeropoints import (
    ZeroPointPoint,
    extinction,
    magnitude_residuals,
    trend,
    zero_points,
)

from tests.support.calibrations import (
    CONTEXT,
    MEGACAM,
    SCENES,
    Camera,
    Scene,
    plane_of,
    simulate,
    without_stars,
)

FOUR = Camera(2, 2, 600, 800, 0.2, 40.0, -0.5)


@pytest.fixture(scope="module")
def image() -> Calibration:
    return simulate(SCENES["image"])


@pytest.fixture(scope="module")
def stack() -> Calibration:
    return simulate(Scene(FOUR, n_exposures=3, n_stars=700, seed=5))


def with_external(plane: FocalPlane, residual: Any, kept: Any = None) -> FocalPlane:
    kept = plane.detections.kept if kept is None else kept
    return replace(plane, detections=replace(plane.detections, external_mas=residual, kept=kept))


# ---- on the focal plane ----


def test_detections_lie_where_their_wcs_puts_them(image: Calibration) -> None:
    plane = focal_plane(image)
    assert plane.names == tuple(f"ccd{index:02d}" for index in range(36))
    assert np.allclose(plane.detections.place_arcmin, 60.0 * image.astrometry.detections.field_deg, atol=1e-9)
    assert np.allclose(
        plane.detections.external_mas, image.astrometry.detections.external_mas, equal_nan=True
    )
    # The first CCD is the north-eastern corner, as MegaCam is seen here.
    assert (plane.outlines_arcmin[0] > 0).all()
    assert 0.183 < plane.pixel_scale_arcsec < 0.188


def test_residuals_turn_with_the_camera() -> None:
    turned = simulate(Scene(FOUR, n_exposures=2, n_stars=300, rotation_deg=(0.0, 180.0)))
    told = turned.astrometry.detections
    # A shift that the instrument makes points the other way on the sky once the camera is turned round.
    sign = np.where(told.exposure == 0, 1.0, -1.0)[:, None]
    shifted = replace(
        told, external_mas=np.where(np.isfinite(told.external_mas), sign * [30.0, -10.0], np.nan)
    )
    plane = focal_plane(replace(turned, astrometry=replace(turned.astrometry, detections=shifted)))
    known = plane.detections.external_mas[np.isfinite(plane.detections.external_mas[:, 0])]
    assert np.allclose(known, [30.0, -10.0], atol=0.05)
    assert set(plane.detections.exposure.tolist()) == {0, 1}


def test_internal_residuals_tell_of_single_detections() -> None:
    pair = simulate(Scene(FOUR, n_exposures=2, n_stars=3000, floor_mas=20.0, seed=2))
    plane = focal_plane(pair)
    d = plane.detections
    inner = d.internal_mas[np.isfinite(d.internal_mas[:, 0]) & d.kept]
    # With two exposures the mean takes half of the variance.
    told = pair.astrometry.detections
    raw = told.internal_mas[np.isfinite(told.internal_mas[:, 0]) & told.kept]
    expected = float(np.median(d.sigma_mas))
    assert np.std(raw) == pytest.approx(expected / np.sqrt(2), rel=0.08)
    assert np.std(inner) == pytest.approx(expected, rel=0.08)


def test_exposures_of_another_camera_stay_off_the_map(stack: Calibration) -> None:
    odd = stack.exposures[2]
    renamed = replace(odd, ccds=tuple(replace(ccd, name="x" + ccd.name) for ccd in odd.ccds))
    plane = focal_plane(replace(stack, exposures=(*stack.exposures[:2], renamed)))
    assert plane.n_left_out == 1
    assert set(plane.detections.exposure.tolist()) == {0, 1}


def test_held_exposures_are_not_what_it_is_about(stack: Calibration) -> None:
    held = tuple(replace(one, held=index > 0) for index, one in enumerate(stack.exposures))
    assert replace(stack, exposures=held).own == (0,)
    assert replace(stack, exposures=tuple(replace(one, held=True) for one in held)).own == (0, 1, 2)
    with pytest.raises(ValueError, match="2 exposures"):
        replace(stack, exposures=held[:2])


# ---- residuals ----


def test_cells_are_medians_of_what_lies_in_them(image: Calibration) -> None:
    plane = focal_plane(image)
    spots = vector_map(plane, "external")
    assert spots is not None
    assert spots.binned
    d = plane.detections
    n_found = 0
    for c, ccd in enumerate(plane.ccds):
        cells: dict[tuple[int, int], list[Any]] = {}
        wanted = min(420, spots.n_detections / 6.0) / 36
        nx = max(1, round(np.sqrt(wanted * ccd.nx / ccd.ny)))
        ny = max(1, round(wanted / nx))
        for k in np.flatnonzero(d.ccd == c):
            if np.isfinite(d.external_mas[k]).all():
                cell = (int((d.y_px[k] - 0.5) * ny / ccd.ny), int((d.x_px[k] - 0.5) * nx / ccd.nx))
                cells.setdefault(cell, []).append(d.external_mas[k])
        twin = [np.median(inside, axis=0) for _, inside in sorted(cells.items()) if len(inside) >= 3]
        own = spots.vector_mas[spots.ccd == c]
        assert np.allclose(own, twin)
        n_found += len(own)
    assert n_found == len(spots.n)
    assert np.count_nonzero(spots.strong) <= 2
    assert spots.excess == pytest.approx(1.0, abs=0.35)


def test_a_pattern_is_told_from_noise() -> None:
    plane = focal_plane(simulate(Scene(FOUR, n_stars=2500, seed=7)))
    quiet = vector_map(plane, "external")
    moved = plane.detections.external_mas + np.array([20.0, 0.0])
    shifted = vector_map(with_external(plane, moved), "external")
    assert quiet is not None
    assert shifted is not None
    assert 0.5 < quiet.excess < 1.4
    assert shifted.excess > 4.0
    every = np.ones(len(quiet.n), np.bool_)
    assert quiet.systematic_mas(every) < 2.5
    # 20 mas in one axis are 14 per axis.
    assert shifted.systematic_mas(every) == pytest.approx(20.0 / np.sqrt(2), rel=0.1)
    assert shifted.systematic_mas(~every) == 0.0
    assert np.mean(quiet.strong) < 0.01
    assert np.mean(shifted.strong) > 0.15
    assert shifted.vector_mas == pytest.approx(quiet.vector_mas + np.array([20.0, 0.0]))


def test_errors_of_the_catalogue_are_no_pattern_however_often_stars_are_seen() -> None:
    # The simulated catalogue is off by 3 mas per star; forty exposures see each of them.
    many = simulate(Scene(FOUR, n_exposures=40, n_stars=400, floor_mas=4.0, seed=11, photometry=False))
    spots = vector_map(focal_plane(many), "external")
    assert spots is not None
    assert spots.binned
    assert spots.n.max() < 40
    assert spots.excess < 1.7
    assert np.mean(spots.strong) < 0.03


def test_few_vectors_are_drawn_one_by_one() -> None:
    plane = focal_plane(simulate(SCENES["small"]))
    spots = vector_map(plane, "external")
    assert spots is not None
    assert not spots.binned
    assert spots.n.tolist() == [1] * spots.n_detections
    assert not spots.strong.any()
    assert vector_map(plane, "internal") is None


@settings(max_examples=25, deadline=None)
@given(
    st.floats(0.5, 50.0), st.floats(0.5, 50.0), st.floats(-0.9, 0.9), st.floats(-5.0, 5.0), st.integers(0, 9)
)
def test_the_ellipse_is_that_of_the_scatter(
    sx: float, sy: float, rho: float, shift: float, seed: int
) -> None:
    random = np.random.default_rng(seed)
    truth = np.array([[sx * sx, rho * sx * sy], [rho * sx * sy, sy * sy]])
    residual = random.multivariate_normal([shift, -shift], truth, 4000)
    plane = focal_plane(simulate(Scene(FOUR, n_stars=60, photometry=False)))
    d = plane.detections
    many = replace(d, external_mas=residual, kept=np.ones(4000, np.bool_))
    points = cloud(replace(plane, detections=many), "external")
    assert points is not None
    assert points.centre_mas == pytest.approx((shift, -shift), abs=0.1 * max(sx, sy))
    assert points.sigma_mas == pytest.approx((sx, sy), rel=0.1)
    long, short, _ = points.axes
    values = np.sqrt(np.linalg.eigvalsh(truth))
    assert long == pytest.approx(values[1], rel=0.12)
    # The tails beyond 3 sigma are left out of the correlation.
    assert short == pytest.approx(values[0], rel=0.15, abs=0.05 * long)
    assert points.n_outside <= 40


def test_nothing_and_nan_are_no_residuals(image: Calibration) -> None:
    plane = focal_plane(without_stars(image))
    for kind in ("external", "internal"):
        assert vector_map(plane, kind) is None
        assert cloud(plane, kind) is None
        assert against_magnitude(plane, kind) is None
    plane = focal_plane(image)
    holes = plane.detections.external_mas.copy()
    holes[::7] = np.nan
    holes[::11, 1] = np.inf
    spots, points = (
        vector_map(with_external(plane, holes), "external"),
        cloud(with_external(plane, holes), "external"),
    )
    assert spots is not None
    assert points is not None
    assert np.isfinite(spots.vector_mas).all()
    assert np.isfinite(points.residual_mas).all()


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.floats(-5, 5), st.floats(-5, 5)), max_size=90), st.integers(3, 20))
def test_running_medians_against_the_plain_way(pairs: list[tuple[float, float]], least: int) -> None:
    table = np.array([*pairs, (np.nan, 1.0), (1.0, np.inf)])
    found = running(table[:, 0], table[:, 1], least=least, most_bins=6)
    ordered = sorted(pairs, key=lambda pair: pair[0])
    n_bins = min(6, len(pairs) // least)
    assert len(found.x) == n_bins
    start = 0
    for k in range(n_bins):
        size = len(pairs) // n_bins + (k < len(pairs) % n_bins)
        part = ordered[start : start + size]
        assert found.median[k] == pytest.approx(float(np.median([y for _, y in part])))
        assert found.n[k] == size
        start += size


def test_chi2_is_one_where_errors_are_right_and_four_where_they_are_half() -> None:
    calibration = simulate(Scene(FOUR, n_stars=3000))
    plane = focal_plane(calibration)
    right = against_magnitude(plane, "external")
    small = replace(plane.detections, external_sigma_mas=0.5 * plane.detections.external_sigma_mas)
    wrong = against_magnitude(replace(plane, detections=small), "external")
    assert right is not None
    assert wrong is not None
    assert np.median(right.chi2) == pytest.approx(1.0, abs=0.15)
    assert np.allclose(wrong.chi2, 4.0 * right.chi2)
    assert (np.diff(right.mag) > 0).all()
    assert plane.detections.calibrated


def test_errors_of_stars_count_where_they_are_known(image: Calibration) -> None:
    n = int(image.astrometry.detections.star.max()) + 1
    plane = focal_plane(replace(image, star_error_mas=np.full(n, 30.0)))
    d = plane.detections
    assert np.allclose(
        d.external_sigma_mas**2, d.sigma_mas**2 + 30.0**2 + image.options.reference_floor_mas**2
    )


# ---- geometry ----


def test_the_distortion_is_that_of_the_wcs(image: Calibration) -> None:
    plane = focal_plane(image)
    found = distortion(plane)
    assert found is not None
    low, high = found.scale_range_arcsec
    # r (1 - 0.02 r²), r in degrees: the scale falls by the root of (1 - 0.06 r²)(1 - 0.02 r²).
    assert high == pytest.approx(MEGACAM.scale_arcsec, rel=1e-3)
    radius2 = (np.concatenate(found.place_arcmin) ** 2).sum(axis=1).max() / 3600.0
    expected = MEGACAM.scale_arcsec * np.sqrt((1 - 0.06 * radius2) * (1 - 0.02 * radius2))
    assert low == pytest.approx(expected, rel=2e-3)
    for bend in found.bend_arcsec:
        assert np.abs(bend.mean(axis=0)).max() < 1e-9
    straight = distortion(focal_plane(simulate(SCENES["small"])))
    assert straight is not None
    assert straight.largest_bend_arcsec < 1e-9


def test_a_turned_ccd_is_found_however_the_camera_stands() -> None:
    scene = Scene(n_stars=400, turned={12: 40.0, 20: -15.0}, rotation_deg=(3.0,), photometry=False)
    calibration = simulate(scene)
    found = placements(focal_plane(calibration), calibration.previous[CONTEXT])
    assert found["ccd12"].turn_arcsec == pytest.approx(40.0, abs=0.05)
    assert found["ccd20"].turn_arcsec == pytest.approx(-15.0, abs=0.05)
    others = [one for name, one in found.items() if name not in ("ccd12", "ccd20")]
    assert max(one.edge_arcsec for one in others) < 1e-3
    assert max(abs(one.turn_arcsec) for one in others) < 0.05
    # Half the CCD's diagonal is 472".
    assert found["ccd12"].edge_arcsec == pytest.approx(np.radians(40.0 / 3600) * 472.0 * 2 / 3, rel=0.1)


def test_of_one_or_two_ccds_nobody_can_say_which_one_moved(image: Calibration) -> None:
    plane = focal_plane(image)
    model = image.astrometry.models[CONTEXT]
    two = replace(model, ccds={name: model.ccds[name] for name in ("ccd00", "ccd01")})
    assert placements(plane, two) == {}
    assert placements(focal_plane(simulate(SCENES["small"])), model) == {}


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(-2.0, 2.0), min_size=6, max_size=6))
def test_what_exposures_have_for_themselves_is_no_change_of_the_model(values: list[float]) -> None:
    calibration = simulate(Scene(FOUR, n_stars=20, photometry=False))
    now = calibration.astrometry.models[CONTEXT]
    linear = np.array([[1 + 1e-3 * values[0], 1e-3 * values[1]], [1e-3 * values[2], 1 + 1e-3 * values[3]]])
    moved = {}
    for name, ccd in now.ccds.items():
        coefficients = ccd.coefficients @ linear.T
        coefficients[0] += values[4:]
        moved[name] = replace(ccd, coefficients=coefficients)
    change = model_change(focal_plane(calibration), replace(now, ccds=moved), now)
    assert change is not None
    assert change.largest_mas < 1e-3
    first = moved["ccd01"].coefficients.copy()
    first[4] += 0.02
    bent = replace(now, ccds={**moved, "ccd01": replace(moved["ccd01"], coefficients=first)})
    change = model_change(focal_plane(calibration), bent, now)
    assert change is not None
    assert 2.0 < change.largest_mas < 25.0


def test_no_ccd_in_common_is_no_change(image: Calibration) -> None:
    model = image.astrometry.models[CONTEXT]
    other = InstrumentModel("x", {"other": plane_of(MEGACAM, 0)}, 1, 1, 1.0)
    assert model_change(focal_plane(image), model, other) is None
    place = model_place_arcsec(model.ccds["ccd00"], np.array([1024.5]), np.array([2306.5]))
    assert place[0] == pytest.approx(model.ccds["ccd00"].coefficients[0])


# ---- CCDs ----


def test_ccd_figures_against_the_plain_way(image: Calibration) -> None:
    plane = focal_plane(image)
    told = image.astrometry.detections
    for index, row in enumerate(ccd_figures(image, plane)):
        own = (told.ccd == index) & (told.star >= 0)
        assert row.n_matched == np.count_nonzero(own)
        assert row.n_kept == np.count_nonzero(own & told.kept)
        good = told.external_mas[own & told.kept]
        assert row.external_mas == pytest.approx(1.4826022 * np.median(np.abs(good), axis=0), rel=1e-6)
        assert row.located is True
        assert row.n_internal == 0
        assert np.isnan(row.internal_mas).all()
        assert row.placement is not None


def test_a_ccd_without_stars_has_no_figures() -> None:
    calibration = simulate(SCENES["bad"])
    rows = {row.name: row for row in ccd_figures(calibration, focal_plane(calibration))}
    empty = rows["ccd30"]
    assert (empty.n_matched, empty.n_kept, empty.located) == (0, 0, False)
    assert np.isnan([*empty.external_mas, *empty.mean_mas, empty.cut_share, empty.worse_mas]).all()
    assert rows["ccd12"].cut_share > 0.3


def test_what_stands_out() -> None:
    values = [10.0, 10.2, 9.9, 10.1, 10.0, 10.8, 30.0, float("nan")]
    assert outlying(values, 0.1) == [0, 0, 0, 0, 0, 1, 2, 0]
    assert outlying(values, 5.0) == [0] * 8
    assert outlying([1.0, 2.0, 300.0, 1.0], 0.1) == [0] * 4
    assert outlying([7.0] * 9, 0.0) == [0] * 9


# ---- photometry ----


def point(airmass: float | None, mag: float, name: str = "a") -> ZeroPointPoint:
    return ZeroPointPoint(name, mag, 0.003, airmass, None, "reference", True, True, None, None)


@settings(max_examples=40, deadline=None)
@given(st.floats(-0.5, 0.0), st.integers(0, 50))
def test_extinction_is_found_through_clouds(slope: float, seed: int) -> None:
    random = np.random.default_rng(seed)
    airmass = np.linspace(1.0, 1.9, 20)
    mags = 26.0 + slope * (airmass - 1.0) + random.normal(0, 0.003, 20)
    mags[[3, 11, 17]] -= (0.2, 0.6, 0.1)
    line = extinction([point(float(x), float(y)) for x, y in zip(airmass, mags, strict=True)])
    assert line is not None
    assert line.slope_mag == pytest.approx(slope, abs=6 * max(line.slope_sigma_mag, 0.002))
    assert line.mag == pytest.approx(26.0, abs=0.01)
    assert line.n <= 17


def test_no_extinction_from_too_little() -> None:
    assert extinction([]) is None
    assert extinction([point(1.0 + 0.01 * k, 26.0) for k in range(9)]) is None
    assert extinction([point(1.0, 26.0), point(1.5, 25.9), point(1.9, 25.8)]) is None
    assert extinction([point(None, 26.0)] * 9) is None


def test_zero_points_of_the_run_in_order_of_time(image: Calibration) -> None:
    found = zero_points(image)
    assert len(found) == 15
    assert [one.name for one in found if one.own] == ["744331p"]
    times = [one.mjd_obs for one in found]
    assert times == sorted(times, key=float)  # type: ignore[arg-type]
    (own,) = (one for one in found if one.own)
    assert own.expected_mag == pytest.approx(26.10 - 0.10 * 0.05)
    assert zero_points(replace(image, photometry=None, earlier=())) == []


def test_exposures_are_called_what_people_call_them(stack: Calibration) -> None:
    called = replace(stack, titles={"744331p": "first", "744333p": "third"})
    assert [row["name"] for row in numbers(called)["exposures"]] == ["first", "744332p", "third"]
    assert {one.name for one in zero_points(called)} == {"first", "744332p", "third"}


def test_zero_points_found_before_are_those_that_stand_on_something(image: Calibration) -> None:
    assert image.photometry is not None
    (header,) = image.photometry.exposures
    known = replace(
        header, name="x", own_zeropoint_mag=26.1, own_zeropoint_sigma_mag=0.01, own_anchor="reference"
    )
    nothing = replace(known, own_anchor="none")
    assert earlier_zero_points([header, known, nothing]) == (
        EarlierZeroPoint("x", 26.1, 0.01, 1.05, 56_000.31),
    )


def test_a_wrong_colour_term_shows() -> None:
    calibration = simulate(SCENES["cloudy"])
    rest = magnitude_residuals(calibration)
    assert rest is not None
    slope = trend(rest.colour_mag[rest.kept], rest.residual_mag[rest.kept])
    assert slope is not None
    assert slope.slope == pytest.approx(0.05, abs=0.003)
    assert slope.significant
    none = trend(rest.mag[:10], rest.residual_mag[:10])
    assert none is None
    assert trend(np.full(50, 1.0), np.arange(50.0)) is None


# ---- all together ----


@pytest.mark.parametrize("name", [*SCENES, "bare"])
def test_numbers_are_json_and_flat(name: str) -> None:
    calibration = without_stars(simulate(SCENES["image"])) if name == "bare" else simulate(SCENES[name])
    found = numbers(calibration)
    again = json.loads(json.dumps(found, allow_nan=False))
    assert again == found
    assert found == numbers(calibration)
    for key, value in found.items():
        if key in ("ccds", "exposures"):
            assert all(not isinstance(one, (list, dict)) for row in value for one in row.values())
        else:
            assert value is None or isinstance(value, (int, float, str)), key
    whole = calibration.astrometry
    assert found["n_external"] == whole.n_external
    assert found["n_exposures"] == len(calibration.exposures)
    if name != "bare":
        assert found["external_ra_mas"] == whole.external_mas[0]
        assert found["expected_mas"] == pytest.approx(found["external_ra_mas"], rel=0.6)


def test_numbers_of_one_exposure_of_many(stack: Calibration) -> None:
    one, every = numbers(stack, 1), numbers(stack)
    assert one["external_ra_mas"] == stack.astrometry.exposures[1].external_mas[0]
    assert one["offset_arcsec"] == 0.39
    assert "offset_arcsec" not in every
    assert [row["name"] for row in every["exposures"]] == ["744331p", "744332p", "744333p"]
    assert sum(row["n_matched"] for row in every["ccds"]) == every["n_matched"]
