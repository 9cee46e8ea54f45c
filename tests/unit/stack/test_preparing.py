"""Pixels made ready: true to their slow twins, and the same however they are cut."""

from __future__ import annotations

import pickle
import tracemalloc
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from spica_runtime.errors import NotRetriable
from spica_stack.making.members import CcdSource, shared_files
from spica_stack.making.order import CoaddOrder
from spica_stack.making.preparing import (
    PreparedCcd,
    PreparedMember,
    Room,
    prepare_ccd,
    prepare_member,
    prepared_key,
)
from spica_stack.science.background import Background
from spica_stack.science.parameters import Parameters
from spica_stack.science.preparing import (
    FILL_RADIUS_PX,
    NoiseSample,
    NoUsablePixels,
    fill_holes,
    mask_rows,
    prepare_rows,
    robust_sigma,
)

from tests.unit.stack.field import Exposure, order_for
from tests.unit.stack.members import GENERIC, MEGACAM, Written, floats, rice, rice16, shorts
from tests.unit.stack.sky import grid_of, render, scattered_stars

PARAMETERS = Parameters(background_mesh_px=64)
WINDOW = (0, 10, 0, 10)


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    yield
    shared_files().close()


# ---- kernels and their slow twins ----


def awkward(rng: np.random.Generator, shape: tuple[int, int], share: float) -> tuple[NDArray, NDArray]:
    """Pixels and weights of which about a share is not to be used, for all kinds of reasons."""
    data = rng.normal(10, 3, shape).astype(np.float32)
    weight = rng.uniform(0.5, 2, shape).astype(np.float32)
    bad = rng.random(shape) < share
    kind = rng.integers(0, 4, shape)
    data[bad & (kind == 0)] = rng.choice([np.nan, np.inf, -np.inf])
    weight[bad & (kind == 1)] = rng.choice([np.nan, np.inf])
    weight[bad & (kind == 2)] = 0
    weight[bad & (kind == 3)] = -1
    data[bad & (kind == 3)] = np.nan
    return data, weight


def usable(data: NDArray, weight: NDArray) -> NDArray[np.bool_]:
    return np.isfinite(data) & np.isfinite(weight) & (weight > 0)


def slow_fill(data: NDArray, good: NDArray) -> NDArray[np.float64]:
    out = data.astype(np.float64)
    ny, nx = data.shape
    for y in range(ny):
        for x in range(nx):
            if good[y, x]:
                continue
            total = norm = 0.0
            for j in range(max(y - 3, 0), min(y + 4, ny)):
                for i in range(max(x - 3, 0), min(x + 4, nx)):
                    if good[j, i]:
                        weight = np.exp(-0.5 * ((j - y) ** 2 + (i - x) ** 2))
                        total, norm = total + weight * data[j, i], norm + weight
            out[y, x] = total / norm if norm > 0 else 0.0
    return out


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**31), st.floats(0, 1), st.integers(1, 30), st.integers(1, 90))
def test_rows_are_prepared_and_filled_as_the_slow_twins_do(seed: int, share: float, ny: int, nx: int) -> None:
    rng = np.random.default_rng(seed)
    data, weight = awkward(rng, (ny, nx), share)
    good = usable(data, weight)
    sky = Background.through(rng.normal(5, 1, (3, 2)).astype(np.float32), (ny, nx))
    ready, absolute = data.copy(), weight.copy()
    prepare_rows(ready, absolute, sky, 0.25)
    np.testing.assert_array_equal(ready[good], (data - sky.rows(0, ny))[good])
    np.testing.assert_array_equal(absolute[good], weight[good] * np.float32(0.25))
    assert (ready[~good] == 0).all() and (absolute[~good] == 0).all()
    filled, kept = np.empty_like(ready), np.empty_like(ready)
    fill_holes(ready, absolute, filled, kept)
    np.testing.assert_allclose(filled, slow_fill(ready, good), rtol=2e-4, atol=1e-5)
    np.testing.assert_array_equal(filled[good], ready[good])
    np.testing.assert_array_equal(kept, absolute)
    masked = data.copy()
    assert mask_rows(masked, weight) == np.count_nonzero(good)
    np.testing.assert_array_equal(masked, np.where(good, data, np.float32(np.nan)))


def test_without_a_sky_nothing_is_subtracted() -> None:
    data, weight = awkward(np.random.default_rng(1), (20, 20), 0.1)
    good, ready = usable(data, weight), data.copy()
    prepare_rows(ready, weight, None, 1.0)
    np.testing.assert_array_equal(ready[good], data[good])


def test_robust_sigma_is_not_spoilt() -> None:
    values = np.random.default_rng(0).normal(3, 2, 50_000)
    assert robust_sigma(values) == pytest.approx(2, rel=0.02)
    values[::10] += 500
    assert robust_sigma(values) == pytest.approx(2, rel=0.05)


def test_the_sample_is_spread_and_always_the_same() -> None:
    rng = np.random.default_rng(0)
    data, weight = rng.normal(0, 1, (1300, 400)).astype(np.float32), np.ones((1300, 400), np.float32)
    flat = Background.through(np.zeros((2, 2), np.float32), (1300, 400))
    found = []
    for cut in (1, 7, 1300):
        sample = NoiseSample((1300, 400), 5000)
        for y in range(0, 1300, cut):
            sample.add(data[y : y + cut], weight[y : y + cut], y)
        found.append((len(sample), sample.scatter(flat)))
        columns = np.bincount(sample._places[: len(sample), 1], minlength=400)
        assert columns.min() > 0 and columns.max() < 40
    assert found[0] == found[1] == found[2]
    assert 4000 < found[0][0] < 6500 and found[0][1] == pytest.approx(1, rel=0.05)


# ---- a CCD ----


def frame(rng: np.random.Generator) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Sky that is not flat, stars, noise of 7 adu; and where there are no stars."""
    y, x = np.mgrid[:300, :256]
    stars = render((300, 256), grid_of(256), scattered_stars(rng, 25, 100, flux=(500, 2e4)), 4)
    sky = 800 + 0.3 * x + 60 * np.sin(y / 120)
    return sky + stars + rng.normal(0, 7, (300, 256)), stars < 0.1


def whole(ccd: PreparedCcd, source: CcdSource) -> tuple[NDArray, NDArray]:
    patch = ccd.patch(source, (0, source.shape[1], 0, source.shape[0]))
    assert patch.data.dtype == patch.weight.dtype == np.float32 and (patch.x0, patch.y0) == (0, 0)
    return patch.data, patch.weight


def test_the_sky_goes_and_weights_become_absolute(tmp_path: Path) -> None:
    data, blank = frame(np.random.default_rng(0))
    source = Written(tmp_path, [data], [np.full(data.shape, 1000.0)]).sources()[0]
    ccd = prepare_ccd(source, PARAMETERS, WINDOW)
    ready, weight = whole(ccd, source)
    assert abs(np.median(ready[blank])) < 0.6
    columns = [np.median(ready[:, k : k + 64][blank[:, k : k + 64]]) for k in range(0, 256, 64)]
    assert np.ptp(columns) < 1.5
    assert 1 / np.sqrt(np.median(weight)) == pytest.approx(7, rel=0.05)
    assert ccd.noise_adu == pytest.approx(7, rel=0.05)
    assert ccd.background_adu == pytest.approx(np.median(data), rel=0.03)
    assert (ccd.window, ccd.name, ccd.shape) == (WINDOW, source.name, data.shape)


def test_what_is_asked_of_the_sky_and_the_weights_is_done(tmp_path: Path) -> None:
    data, _ = frame(np.random.default_rng(0))
    source = Written(tmp_path, [data], [np.full(data.shape, 0.5)]).sources()[0]
    usual = whole(prepare_ccd(source, PARAMETERS, WINDOW), source)
    left = whole(prepare_ccd(source, replace(PARAMETERS, subtract_background=False), WINDOW), source)
    np.testing.assert_array_equal(left[0], data.astype(np.float32))
    np.testing.assert_array_equal(left[1], usual[1])
    ccd = prepare_ccd(source, replace(PARAMETERS, rescale_weights=False), WINDOW)
    believed = whole(ccd, source)
    np.testing.assert_array_equal(believed[0], usual[0])
    assert (believed[1] == 0.5).all() and ccd.noise_adu == pytest.approx(np.sqrt(2))
    halved = whole(prepare_ccd(source, PARAMETERS, WINDOW, 0.5), source)
    np.testing.assert_allclose(halved[1], 0.5 * usual[1], rtol=1e-6)


def test_unusable_pixels_neither_spoil_the_sky_nor_keep_weight(tmp_path: Path) -> None:
    data, blank = frame(np.random.default_rng(1))
    weight = np.ones(data.shape)
    bad = np.random.default_rng(2).random(data.shape) < 0.02
    bad[100:140, 90:130] = True
    data[bad] = 60000
    data[5, 5], weight[6, 6] = np.nan, np.nan
    weight[bad] = 0
    source = Written(tmp_path, [data], [weight]).sources()[0]
    ready, absolute = whole(prepare_ccd(source, PARAMETERS, WINDOW), source)
    assert np.isfinite(ready).all() and np.isfinite(absolute).all()
    assert (absolute[bad] == 0).all() and absolute[5, 5] == 0 and absolute[6, 6] == 0
    assert abs(np.median(ready[~bad & blank])) < 0.6
    assert np.abs(ready[bad]).max() < 5000


def test_relative_weights_are_kept(tmp_path: Path) -> None:
    data = np.random.default_rng(3).normal(0, 1, (200, 200))
    data[:, :100] *= 2
    weight = np.full(data.shape, 37.0)
    weight[:, :100] /= 4
    source = Written(tmp_path, [data + 100], [weight]).sources()[0]
    absolute = whole(prepare_ccd(source, PARAMETERS, WINDOW), source)[1]
    assert np.median(absolute[:, 100:]) == pytest.approx(1, rel=0.06)
    assert np.median(absolute[:, :100]) == pytest.approx(0.25, rel=0.06)


@pytest.mark.parametrize("what", ["no weight", "no value", "no scatter"])
def test_a_ccd_without_sky_is_refused(tmp_path: Path, what: str) -> None:
    data = np.full((64, 64), np.nan if what == "no value" else 5.0)
    weight = np.full((64, 64), 0.0 if what == "no weight" else 1.0)
    source = Written(tmp_path, [data], [weight]).sources()[0]
    with pytest.raises(NoUsablePixels):
        prepare_ccd(source, PARAMETERS, WINDOW)


def test_tiny_frames_and_few_pixels_work_too(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for shape, share in (((40, 30), 1.0), ((9, 300), 1.0), ((400, 400), 0.003)):
        data = rng.normal(50, 2, shape)
        weight = (rng.random(shape) < share).astype(float)
        source = Written(tmp_path, [data], [weight]).sources()[0]
        ccd = prepare_ccd(source, Parameters(), WINDOW)
        ready, absolute = whole(ccd, source)
        assert abs(np.median(ready[absolute > 0])) < 0.5
        assert ccd.noise_adu == pytest.approx(2, rel=0.15)


@pytest.mark.parametrize("row", range(2100, 2104))
def test_one_usable_row_of_a_high_ccd_is_enough(tmp_path: Path, row: int) -> None:
    """Only some rows of a CCD are sampled: not so where these are all there are."""
    data = np.random.default_rng(row).normal(50, 2, (4200, 300))
    weight = np.zeros(data.shape)
    weight[row] = 1
    source = Written(tmp_path, [data], [weight]).sources()[0]
    ccd = prepare_ccd(source, Parameters(), WINDOW)
    assert ccd.noise_adu == pytest.approx(2, rel=0.2)
    assert ccd.background_adu == pytest.approx(50, abs=0.5)


# ---- patches ----

FORMS: dict[str, dict[str, Any]] = {
    "floats": {},
    "shorts": {"image_hdu": shorts},
    "rice": {"image_hdu": rice, "weight_hdu": rice16},
    "rice in high tiles": {"image_hdu": rice16, "weight_hdu": floats},
}


def form(folder: Path, name: str, *, overscan: bool = False) -> CcdSource:
    rng = np.random.default_rng(8)
    data = rng.normal(1000, 20, (203, 141)) + np.arange(141)
    weight = np.full(data.shape, 2000.0)
    weight[rng.random(data.shape) < 0.02] = 0
    weight[:, 50] = weight[120:160, 20:60] = 0
    if name == "floats":
        data[30, 30:50] = np.nan
    extension = {"DATASEC": "[6:138,4:199]"} if overscan else {}
    written = Written(folder, [data], [weight], extension=extension, **FORMS[name])
    return written.sources(MEGACAM if overscan else GENERIC)[0]


@pytest.mark.parametrize("overscan", [False, True])
@pytest.mark.parametrize("name", FORMS)
def test_a_patch_is_what_the_slow_twin_makes(tmp_path: Path, name: str, overscan: bool) -> None:
    source = form(tmp_path, name, overscan=overscan)
    ny, nx = source.shape
    ccd = prepare_ccd(source, PARAMETERS, WINDOW)
    ready, absolute = whole(ccd, source)
    data, weight = source.read((0, nx, 0, ny))
    good = usable(data, weight)
    np.testing.assert_array_equal(absolute, np.where(good, weight * np.float32(ccd.weight_factor), 0))
    subtracted = np.where(good, data - ccd.sky.rows(0, ny), 0)
    np.testing.assert_allclose(ready, slow_fill(subtracted, good), rtol=2e-4, atol=1e-3)
    np.testing.assert_array_equal(ready[good], subtracted[good])


@pytest.mark.parametrize("overscan", [False, True])
@pytest.mark.parametrize("name", FORMS)
def test_a_pixel_is_the_same_in_every_patch(tmp_path: Path, name: str, overscan: bool) -> None:
    source = form(tmp_path, name, overscan=overscan)
    ny, nx = source.shape
    ccd = prepare_ccd(source, PARAMETERS, WINDOW)
    ready, absolute = whole(ccd, source)
    room = Room()

    @settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(
        st.tuples(*[st.integers(-5, nx + 5)] * 2), st.tuples(*[st.integers(-5, ny + 5)] * 2), st.booleans()
    )
    def check(columns: tuple[int, int], rows: tuple[int, int], in_room: bool) -> None:
        (x0, x1), (y0, y1) = sorted(columns), sorted(rows)
        patch = ccd.patch(source, (x0, x1, y0, y1), room if in_room else None)
        x0, y0 = max(x0, 0), max(y0, 0)
        wanted = ready[y0 : max(y1, 0), x0 : max(x1, 0)]
        np.testing.assert_array_equal(
            patch.data.view(np.uint32), np.ascontiguousarray(wanted).view(np.uint32)
        )
        np.testing.assert_array_equal(patch.weight, absolute[y0 : max(y1, 0), x0 : max(x1, 0)])
        assert patch.data.flags.c_contiguous and patch.weight.flags.c_contiguous
        assert (patch.x0, patch.y0) == (x0, y0)

    check()


def test_a_patch_reads_no_more_than_it_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = form(tmp_path, "floats")
    ccd = prepare_ccd(source, PARAMETERS, WINDOW)
    asked: list[tuple[int, int, int, int]] = []
    read_into = CcdSource.read_into

    def heard(self: CcdSource, box: tuple[int, int, int, int], *arrays: Any) -> None:
        asked.append(box)
        read_into(self, box, *arrays)

    monkeypatch.setattr(CcdSource, "read_into", heard)
    ccd.patch(source, (20, 100, 10, 190))
    margin = FILL_RADIUS_PX
    assert {(x0, x1) for x0, x1, _, _ in asked} == {(20 - margin, 100 + margin)}
    rows = [row for _, _, y0, y1 in asked for row in range(y0, y1)]
    assert rows == list(range(10 - margin, 190 + margin))


def test_preparing_holds_some_rows_only(tmp_path: Path) -> None:
    data = np.random.default_rng(0).normal(1000, 20, (4096, 512))
    source = Written(tmp_path, [data], [np.ones(data.shape)]).sources()[0]
    prepare_ccd(source, Parameters(), WINDOW)
    tracemalloc.start()
    prepare_ccd(source, Parameters(), WINDOW)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 0.35 * data.size * 8  # of image and weight


# ---- members ----


def order_of(folder: Path, parameters: Parameters = PARAMETERS, **other: Any) -> CoaddOrder:
    rng = np.random.default_rng(11)
    data = [rng.normal(1000 + 100 * k, 20, (130, 140)) for k in range(4)]
    weights = [np.full(d.shape, 1.0) for d in data]
    weights[2][:] = 0
    shifts = [(0.0, 0.0), (130.0, 0.0), (0.0, 40.0), (4000.0, 0.0)]
    folder.mkdir(parents=True, exist_ok=True)
    files = Written(folder, data, weights, shifts=shifts, **other).files()
    return order_for(folder, [Exposure(files, [], [])], grid_of(300), parameters)


def test_a_member_is_prepared_and_says_what_it_left_out(tmp_path: Path) -> None:
    order = order_of(tmp_path, head_names=["CCD00", "CCD01", "CCD02", "CCD03"])
    member = prepare_member(order, 0)
    assert [ccd.name for ccd in member.ccds] == ["CCD00", "CCD01"]
    assert {one.name: one.reason for one in member.left_out} == {"CCD02": "no_sky", "CCD03": "outside"}
    assert (member.number, member.image_id) == (0, "m.0")
    first, second = member.ccds
    assert first.background_adu == pytest.approx(1000, rel=0.01)
    assert second.background_adu == pytest.approx(1100, rel=0.01)
    assert first.noise_adu == pytest.approx(20, rel=0.05)
    assert first.window != second.window and first.window[1] - first.window[0] < 150


def test_ccds_can_be_given_weights(tmp_path: Path) -> None:
    usual = prepare_member(order_of(tmp_path), 0)
    parameters = replace(PARAMETERS, ccd_weights={"CCD00": 0.0, "CCD01": 0.25})
    member = prepare_member(order_of(tmp_path, parameters), 0)
    assert {one.name: one.reason for one in member.left_out}["CCD00"] == "by_request"
    assert member.ccds[0].weight_factor == pytest.approx(0.25 * usual.ccds[1].weight_factor)
    assert member.ccds[0].noise_adu == usual.ccds[1].noise_adu


def test_a_member_goes_through_its_file_unchanged(tmp_path: Path) -> None:
    order = order_of(tmp_path)
    member, path = prepare_member(order, 0), tmp_path / "parts" / "prepared.part"
    member.save(path)
    again, content = PreparedMember.load(path, prepared_key(order, 0)), path.read_bytes()
    assert len(content) < 4000 * len(member.ccds)
    for ccd, same in zip(member.ccds, again.ccds, strict=True):
        for name in (name for name in PreparedCcd.__slots__ if name != "sky"):
            assert getattr(same, name) == getattr(ccd, name) and type(getattr(same, name)) is type(
                getattr(ccd, name)
            )
        np.testing.assert_array_equal(same.sky.rows(0, 130), ccd.sky.rows(0, 130))
    assert again.left_out == member.left_out and again.key == member.key
    again.save(path)
    assert path.read_bytes() == content
    pickle.loads(pickle.dumps(member)).save(path)
    assert path.read_bytes() == content


def test_threads_and_repetition_give_the_same_bytes(tmp_path: Path) -> None:
    order = order_of(tmp_path)
    with ThreadPoolExecutor(3) as pool:
        members = [
            prepare_member(order, 0),
            prepare_member(order, 0, lambda tasks: list(pool.map(lambda task: task(), tasks))),
        ]
    for number, member in enumerate(members):
        member.save(tmp_path / str(number))
    assert (tmp_path / "0").read_bytes() == (tmp_path / "1").read_bytes()


def test_what_is_no_prepared_member_is_refused(tmp_path: Path) -> None:
    order, path = order_of(tmp_path), tmp_path / "p"
    prepare_member(order, 0).save(path)
    content = path.read_bytes()
    for cut in (0, 10, 30, 200, len(content) - 1):
        path.write_bytes(content[:cut])
        with pytest.raises(ValueError):
            PreparedMember.load(path)
    path.write_bytes(content)
    with pytest.raises(ValueError, match="another stack"):
        PreparedMember.load(path, prepared_key(replace(order, grid=grid_of(301)), 0))
    with pytest.raises(FileNotFoundError):
        PreparedMember.load(tmp_path / "nothing")


def test_the_key_follows_from_what_the_numbers_follow_from(tmp_path: Path) -> None:
    order = order_of(tmp_path / "a")
    other_host = order_of(tmp_path / "b")
    assert prepared_key(order, 0) == prepared_key(other_host, 0)
    keys = {prepared_key(order, 0)} | {
        prepared_key(replace(order, parameters=replace(PARAMETERS, **change)), 0)
        for change in ({"background_mesh_px": 32}, {"rescale_weights": False}, {"ccd_weights": {"CCD00": 2.0}},
                       {"oversampling": 2}, {"resampling": "bilinear"})
    }  # fmt: skip
    assert len(keys) == 6
    assert prepared_key(replace(order, parameters=replace(PARAMETERS, combine="median")), 0) in keys


def test_a_member_of_an_unknown_instrument_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotRetriable) as raised:
        prepare_member(order_of(tmp_path, profile="nobody's"), 0)
    assert raised.value.code == "unknown_profile"
