"""Detection, deblending, cleaning: against slow twins, and what must hold on any frame."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage
from spica_quality.science.background.sky import Sky, measure_sky, subtract, with_weight
from spica_quality.science.detection.deblending import BRANCH_AREA, CONTRAST, N_LEVELS, divide
from spica_quality.science.detection.filtering import LEAST_SEEN, gaussian_taps
from spica_quality.science.detection.segmentation import BLENDED, detect
from spica_quality.science.detection.segments import Segments, Sources
from spica_quality.science.flags import Bit

from tests.support.ccdsim import Exposure, Recipe, simulate, small
from tests.unit.quality.frames import nearest

Floats = NDArray[np.float64]
Pixels = NDArray[np.float32]
Flags = NDArray[np.uint16]
Mask = NDArray[np.bool_]
EIGHT = np.ones((3, 3), int)


def flat(shape: tuple[int, int], rms: float = 1.0) -> Sky:
    """A sky of level zero and of the same noise everywhere."""
    return Sky(
        np.zeros((1, 1), np.float32), np.full((1, 1), rms, np.float32), 128, shape, 0.0, rms,
        np.zeros((1, 1)), np.zeros((1, 1)),
    )  # fmt: skip


def good(data: Pixels) -> Flags:
    return np.zeros(data.shape, np.uint16)


def stars(shape: tuple[int, int], places: list[tuple[float, float, float]], fwhm: float = 4.0) -> Pixels:
    """Gaussian stars (x, y, peak)."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    image = np.zeros(shape)
    for x0, y0, peak in places:
        image += peak * np.exp(-4.0 * np.log(2.0) * ((x - x0) ** 2 + (y - y0) ** 2) / fwhm**2)
    return image.astype(np.float32)


def field(seed: int, shape: tuple[int, int] = (80, 110), n: int = 25) -> Pixels:
    """Stars of all brightnesses, and noise of 1."""
    random = np.random.default_rng(seed)
    ny, nx = shape
    places = [(random.uniform(0, nx), random.uniform(0, ny), 10 ** random.uniform(0, 3)) for _ in range(n)]
    return stars(shape, places) + random.standard_normal(shape).astype(np.float32)


def naive_filter(data: Pixels, bad: Mask, fwhm: float) -> tuple[Floats, Floats]:
    """Significance and height of every pixel, straight from their definition."""
    taps = gaussian_taps(fwhm).astype(np.float64)
    kernel = np.outer(taps, taps)
    total = ndimage.convolve(np.where(bad, 0.0, data.astype(np.float64)), kernel, mode="constant")
    lost = ndimage.convolve(bad.astype(np.float64), kernel**2, mode="constant") / (kernel**2).sum()
    seen = 1.0 - lost
    told = seen >= LEAST_SEEN
    safe = np.where(told, seen, 1.0)
    return np.where(told, total / np.sqrt(safe), 0.0), np.where(told, total / safe, 0.0)


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 2**32 - 1), st.sampled_from([1.5, 2.5, 4.0, 6.0]), st.sampled_from([0.0, 0.02, 0.4]), st.integers(1, 9)
)  # fmt: skip
def test_groups_are_those_of_the_slow_twin(seed: int, fwhm: float, bad_share: float, min_area: int) -> None:
    random = np.random.default_rng(seed)
    data = field(seed)
    bad = random.random(data.shape) < bad_share
    data[bad] = random.choice(np.array([np.nan, np.inf, -np.inf, 1e30], np.float32), int(bad.sum()))
    flags = np.where(bad, Bit.COSMIC, 0).astype(np.uint16)
    significance, _ = naive_filter(np.where(bad, 0, data), bad, fwhm)
    # Single precision may see pixels just at the threshold differently.
    threshold = 1.5
    if np.any(np.abs(significance - threshold) < 1e-5):
        return
    groups, n = ndimage.label(significance > threshold, EIGHT)
    area = ndimage.sum_labels(~bad, groups, np.arange(n + 1))
    area[0] = 0
    expected = (area >= min_area)[groups] & ~bad
    sources, segments = detect(
        data,
        flags,
        flat(data.shape),
        fwhm_px=fwhm,
        threshold_sigma=threshold,
        min_area=min_area,
        deblend=False,
    )
    labels = segments.paint()
    np.testing.assert_array_equal(labels > 0, expected)
    # Cleaning may unite groups, but nothing takes one apart.
    for group in range(1, n + 1):
        assert len(np.unique(labels[(groups == group) & ~bad])) <= 1
    check(sources, segments, data, flags)


def check(sources: Sources, segments: Segments, data: Pixels, flags: Flags) -> None:
    """What holds of any result: runs in order and apart, sources in order, and what they tell is true of their pixels."""
    ny, nx = segments.shape
    assert segments.row_start[0] == 0
    assert segments.row_start[-1] == len(segments.x0)
    for y in range(ny):
        runs = slice(segments.row_start[y], segments.row_start[y + 1])
        assert np.all(segments.x0[runs] < segments.x1[runs])
        assert np.all(segments.x0[runs][1:] >= segments.x1[runs][:-1])
        assert np.all((segments.x0[runs] >= 0) & (segments.x1[runs] <= nx))
    labels = segments.paint()
    assert not labels[flags != 0].any()
    index = np.arange(1, len(sources) + 1)
    np.testing.assert_array_equal(np.unique(labels[labels > 0]), index)
    if not len(index):
        return
    np.testing.assert_array_equal(np.lexsort((sources.x, sources.y)), index - 1)
    kept = np.where(labels > 0, data, 0.0).astype(np.float64)
    np.testing.assert_array_equal(ndimage.sum_labels(labels > 0, labels, index), sources.n_pixels)
    np.testing.assert_allclose(ndimage.sum_labels(kept, labels, index), sources.flux, rtol=1e-9, atol=1e-6)
    np.testing.assert_array_equal(ndimage.maximum(kept, labels, index), sources.peak)
    np.testing.assert_array_equal(data[sources.y_peak, sources.x_peak], sources.peak)
    boxes = ndimage.find_objects(labels)
    for k, (rows, columns) in enumerate(boxes):
        assert (rows.start, rows.stop) == (sources.y_min[k], sources.y_max[k] + 1)
        assert (columns.start, columns.stop) == (sources.x_min[k], sources.x_max[k] + 1)
    for values in (sources.x, sources.y, sources.xx, sources.yy, sources.xy, sources.threshold):
        assert np.isfinite(values).all()
    assert np.all(sources.xx * sources.yy > sources.xy**2)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, 20), st.integers(0, 20))
def test_a_frame_moved_by_whole_pixels_has_the_same_sources(seed: int, dx: int, dy: int) -> None:
    tile = field(seed, (60, 70))
    frame, moved = (np.zeros((100, 110), np.float32) for _ in range(2))
    frame[8:68, 8:78] = tile
    moved[8 + dy : 68 + dy, 8 + dx : 78 + dx] = tile
    before, runs = detect(frame, good(frame), flat(frame.shape), fwhm_px=3.0)
    after, moved_runs = detect(moved, good(moved), flat(frame.shape), fwhm_px=3.0)
    assert len(before) == len(after) > 3
    np.testing.assert_allclose(after.x - dx, before.x, atol=1e-4)
    np.testing.assert_allclose(after.y - dy, before.y, atol=1e-4)
    np.testing.assert_allclose(after.flux, before.flux, rtol=1e-5)
    np.testing.assert_array_equal(after.flags, before.flags)
    np.testing.assert_array_equal(np.roll(runs.paint(), (dy, dx), (0, 1)), moved_runs.paint())


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_deblended_sources_share_out_all_pixels_of_their_group(seed: int) -> None:
    data = field(seed, n=60)
    whole, whole_runs = detect(data, good(data), flat(data.shape), fwhm_px=3.0, deblend=False)
    parts, part_runs = detect(data, good(data), flat(data.shape), fwhm_px=3.0)
    assert len(parts) >= len(whole)
    np.testing.assert_array_equal(part_runs.paint() > 0, whole_runs.paint() > 0)
    check(parts, part_runs, data, good(data))


def naive_tree(height: Floats, floor: float, min_area: int, contrast: float) -> list[Mask]:
    """Branches that are sources, by cutting at every level and labelling what is left."""
    peak, least = height.max(), contrast * height[height > 0].sum()
    levels = floor * (peak / floor) ** (np.arange(N_LEVELS + 1) / N_LEVELS)
    levels[0] = 0.0

    def grow(region: Mask, k: int) -> tuple[list[Mask], bool]:
        if k + 1 >= N_LEVELS:
            return [], False
        labels, n = ndimage.label(region & (height >= levels[k + 1]), EIGHT)
        children = [labels == i for i in range(1, n + 1) if np.count_nonzero(labels == i) >= min_area]
        grown = [grow(child, k + 1) for child in children]
        strong = [(height[child] - levels[k + 1]).sum() > least for child in children]
        parts = [part for some, divided in grown if divided for part in some]
        if sum(strong) < 2:
            return parts, any(divided for _, divided in grown)
        parts += [
            child
            for child, (_, divided), ok in zip(children, grown, strong, strict=True)
            if ok and not divided
        ]
        return parts, True

    return grow(height > 0, 0)[0]


def as_runs(inside: Mask) -> tuple[NDArray[np.int32], ...]:
    rows, x0, x1 = [], [], []
    for y, row in enumerate(inside):
        steps = np.flatnonzero(np.diff(np.r_[0, row.astype(int), 0]))
        rows += [y] * (len(steps) // 2)
        x0 += list(steps[::2])
        x1 += list(steps[1::2])
    length = np.array(x1) - np.array(x0)
    first = np.r_[0, np.cumsum(length)[:-1]]
    return tuple(np.array(values, np.int32) for values in (rows, x0, x1, first))


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([0.001, CONTRAST, 0.05]), st.integers(1, 6))
def test_the_tree_is_that_of_the_slow_twin(seed: int, contrast: float, min_area: int) -> None:
    random = np.random.default_rng(seed)
    shape = (36, 44)
    places = [
        (random.uniform(6, 38), random.uniform(6, 30), 10 ** random.uniform(0.5, 3))
        for _ in range(random.integers(1, 9))
    ]
    image = ndimage.gaussian_filter(random.standard_normal(shape), 1.2) + stars(shape, places, 5.0) + 0.5
    labels, n = ndimage.label(image > 1.0, EIGHT)
    biggest = 1 + int(np.argmax(ndimage.sum_labels(np.ones(shape), labels, np.arange(1, n + 1)))) if n else 0
    inside = (labels == biggest) & (image > 1.0)
    if np.count_nonzero(inside) < 2 * min_area:
        return
    rows, x0, x1, first = as_runs(inside)
    heights = image[inside].astype(np.float32)
    own = np.zeros(heights.size, np.int32)
    bases = np.zeros(heights.size, np.float32)
    n_parts = divide(rows, x0, x1, first, heights, 1.0, min_area, contrast, own, 1, bases)
    height = np.zeros(shape)
    height[inside] = heights
    expected = naive_tree(height, 1.0, min(min_area, BRANCH_AREA), contrast)
    assert n_parts == max(len(expected), 1)
    if n_parts == 1:
        assert not own.any()
        return
    assert set(own) == set(range(1, n_parts + 1))
    parts = np.zeros(shape, int)
    parts[inside] = own
    seen = {int(parts[core][0]) for core in expected}
    assert len(seen) == n_parts
    for core in expected:
        assert len(np.unique(parts[core])) == 1
        assert bases[parts[core][0] - 1] == pytest.approx(height[core].min())


def test_two_stars_that_touch_are_two_sources() -> None:
    data = stars((60, 60), [(25.0, 30.0, 500.0), (33.5, 30.0, 200.0)])
    sources, _ = detect(data, good(data), flat(data.shape), fwhm_px=4.0)
    assert len(sources) == 2
    assert np.all(sources.flags == BLENDED)
    np.testing.assert_allclose(np.sort(sources.x), [25.0, 33.5], atol=0.2)
    single, _ = detect(data, good(data), flat(data.shape), fwhm_px=4.0, deblend=False)
    assert len(single) == 1
    assert single.flags[0] == 0


@pytest.mark.parametrize("width", [1, 2, 3])
def test_a_bad_column_does_not_divide_a_star(width: int) -> None:
    data = stars((60, 60), [(30.3, 28.8, 300.0)])
    flags = good(data)
    flags[:, 30 : 30 + width] = Bit.COLUMN
    data[:, 30 : 30 + width] = 0.0
    sources, segments = detect(data, flags, flat(data.shape), fwhm_px=4.0)
    assert len(sources) == 1
    assert np.hypot(sources.x[0] - 30.3, sources.y[0] - 28.8) < (0.3 if width < 3 else 0.7)
    labels = segments.paint()
    assert labels[29, 29] == 1
    assert labels[29, 30 + width] == 1
    assert not labels[:, 30 : 30 + width].any()


def test_missing_pixels_do_not_make_detections_of_noise() -> None:
    """The filtered noise is the same beside missing pixels as elsewhere, and so is the rate of false sources."""
    random = np.random.default_rng(7)
    data = random.standard_normal((1200, 1200)).astype(np.float32)
    bad = random.random(data.shape) < 0.15
    rates = []
    for mask in (np.zeros_like(bad), bad):
        flags = np.where(mask, Bit.COSMIC, 0).astype(np.uint16)
        found, _ = detect(data, flags, flat(data.shape), fwhm_px=3.0, threshold_sigma=0.75, min_area=1)
        rates.append(len(found) / np.count_nonzero(~mask))
    assert rates[0] * data.size > 100
    assert rates[1] == pytest.approx(rates[0], rel=0.3)


def test_nothing_in_an_empty_field() -> None:
    data = np.zeros((70, 90), np.float32)
    sources, segments = detect(data, good(data), flat(data.shape), fwhm_px=3.0)
    assert len(sources) == 0
    assert all(len(getattr(sources, field.name)) == 0 for field in fields(sources))
    assert not segments.paint().any()


def test_nothing_where_all_is_flagged() -> None:
    data = np.full((50, 50), np.nan, np.float32)
    sources, segments = detect(data, np.full((50, 50), Bit.DEAD, np.uint16), flat(data.shape), fwhm_px=3.0)
    assert len(sources) == 0
    assert len(segments.x0) == 0


def test_everything_above_the_threshold_is_one_source() -> None:
    data = np.full((200, 300), 100.0, np.float32)
    sources, segments = detect(data, good(data), flat(data.shape), fwhm_px=3.0)
    assert len(sources) == 1
    assert sources.n_pixels[0] == data.size
    assert sources.flags[0] & 8
    assert np.all(segments.paint() == 1)


@pytest.mark.parametrize("shape", [(1, 1), (1, 400), (400, 1), (2, 3)])
def test_frames_one_pixel_wide(shape: tuple[int, int]) -> None:
    data = np.zeros(shape, np.float32)
    data[shape[0] // 2, shape[1] // 2] = 1e4
    sources, segments = detect(data, good(data), flat(shape), fwhm_px=3.0, min_area=1)
    assert len(sources) == 1
    check(sources, segments, data, good(data))
    # Two stars and noise along a line: thin groups with many small tops.
    random = np.random.default_rng(1)
    for _ in range(20):
        data = np.abs(random.standard_normal(shape)).astype(np.float32) * 10
        sources, segments = detect(data, good(data), flat(shape, 0.1), fwhm_px=1.2, min_area=1)
        check(sources, segments, data, good(data))


def test_a_huge_saturated_star_is_one_source_with_those_beside_it_found() -> None:
    shape = (900, 900)
    y, x = np.mgrid[: shape[0], : shape[1]]
    r2 = (x - 450.0) ** 2 + (y - 440.0) ** 2
    star = 3e6 * (1.0 + r2 / 60.0) ** -1.5
    companions = [(450.0 + 160 * np.cos(a), 440.0 + 160 * np.sin(a), 4000.0) for a in np.arange(6)]
    light = star + stars(shape, companions)
    random = np.random.default_rng(2)
    data = random.poisson(light + 100.0) - 100.0
    data = np.minimum(data, 60_000.0).astype(np.float32)
    flags = np.where(data >= 60_000.0, Bit.SATURATED, 0).astype(np.uint16)
    sources, segments = detect(data, flags, flat(shape, 10.0), fwhm_px=4.0, contrast=1e-4)
    biggest = int(np.argmax(sources.n_pixels))
    assert sources.n_pixels[biggest] > 100_000
    assert segments.paint()[440, 450] == biggest + 1
    index, distance = nearest(
        sources.x, sources.y, np.array([c[0] for c in companions]), np.array([c[1] for c in companions])
    )
    assert np.all(distance < 1.0)
    assert len(set(index)) == 6
    # The wings' own noise makes no sources: six companions, the star, and hardly anything else.
    assert len(sources) < 12


def test_a_bump_on_a_wing_belongs_to_the_star_and_a_real_source_does_not() -> None:
    shape = (120, 120)
    y, x = np.mgrid[:120, :120]
    wings = 2000.0 * (1.0 + ((x - 60.0) ** 2 + (y - 60.0) ** 2) / 9.0) ** -2.0
    edge = np.sqrt(9.0 * (np.sqrt(2000.0 / 1.5) - 1.0))
    bump = stars(shape, [(60.0 + edge + 5.0, 60.0, 1.5)])
    source = stars(shape, [(60.0, 60.0 - edge - 8.0, 12.0)])
    for extra, n in ((bump, 1), (source, 2)):
        data = (wings + extra).astype(np.float32)
        sources, segments = detect(data, good(data), flat(shape), fwhm_px=4.0, contrast=1.0)
        assert len(sources) == n
        check(sources, segments, data, good(data))


def test_the_overscan_is_an_edge() -> None:
    data = stars((60, 80), [(20.0, 30.0, 100.0), (50.0, 30.0, 100.0), (70.0, 4.0, 100.0)])
    flags = good(data)
    flags[:, :18] = Bit.OUTSIDE
    sources, _ = detect(data, flags, flat(data.shape), fwhm_px=4.0)
    by_x = np.argsort(sources.x)
    assert list(sources.flags[by_x] & 8) == [8, 0, 8]


def test_where_the_weight_is_low_noise_is_not_a_source() -> None:
    random = np.random.default_rng(4)
    weight = np.ones((600, 600), np.float32)
    weight[:, 300:] = 0.04
    data = (random.standard_normal((600, 600)) / np.sqrt(weight)).astype(np.float32)
    flags = good(data)
    sky = with_weight(measure_sky(data, flags), weight, flags)
    found, _ = detect(data, flags, sky, fwhm_px=3.0, threshold_sigma=1.5)
    blind, _ = detect(data, flags, flat(data.shape), fwhm_px=3.0, threshold_sigma=1.5)
    assert len(found) < 25
    assert len(blind) > 500


@pytest.fixture(scope="module")
def crowded() -> Exposure:
    return simulate(small(Recipe(n_stars=15_000), shape=(768, 768)), 11)


def test_a_crowded_field(crowded: Exposure) -> None:
    data, flags = crowded.data.copy(), good(crowded.data)
    sky = measure_sky(data, flags)
    subtract(data, flags, sky)
    sources, segments = detect(data, flags, sky, fwhm_px=4.0)
    check(sources, segments, data, flags)
    truth = crowded.truth
    _, distance = nearest(sources.x, sources.y, truth.x[truth.mag < 22], truth.y[truth.mag < 22])
    assert np.mean(distance < 2.0) > 0.9
    seen = truth.mag < 26
    _, distance = nearest(truth.x[seen], truth.y[seen], sources.x, sources.y)
    assert np.mean(distance < 2.0) > 0.96
    again, _ = detect(data, flags, sky, fwhm_px=4.0)
    for name in (field.name for field in fields(sources)):
        np.testing.assert_array_equal(getattr(sources, name), getattr(again, name))
