"""Limiting flux and completeness against what was drawn."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage
from spica_quality.science.background.sky import Sky, measure_sky, subtract
from spica_quality.science.detection.segmentation import detect
from spica_quality.science.detection.segments import Segments, Sources
from spica_quality.science.metrics.completeness import completeness, generator_for
from spica_quality.science.metrics.depth import (
    UNKNOWN_NOISE,
    PsfAt,
    _autocorrelation,
    limiting_flux,
    moffat_stamp,
    star_noise,
)
from spica_quality.science.metrics.figures import number
from spica_quality.science.metrics.limits import _detection, depth_figures

from tests.support.ccdsim import PsfField, Recipe, _draw_stars, simulate, small

Floats = NDArray[np.float64]
Pixels = NDArray[np.float32]

GAIN = 1.62


@cache
def _true_stamp(fwhm: float, x: float, y: float) -> Pixels:
    half = int(5 * fwhm) + 2
    stamp = np.zeros((2 * half + 1, 2 * half + 1), np.float32)
    one = np.ones(1)
    _draw_stars(stamp, half + x * one, half + y * one, 1e6 * one, fwhm * one, 0 * one, 0 * one, 3.3, 1e-3)
    return stamp / np.float32(1e6)


def true_psf(fwhm: float) -> PsfAt:
    """The profile that was drawn, to a tenth of a pixel."""
    return lambda x, y: _true_stamp(fwhm, round(x - np.rint(x), 1), round(y - np.rint(y), 1))


@dataclass(frozen=True)
class Looked:
    """A simulated CCD, detected."""

    data: Pixels
    flags: NDArray[np.uint16]
    sky: Sky
    sources: Sources
    segments: Segments
    noise_adu: float
    fwhm: float


def look(data: Pixels, noise: float, fwhm: float, threshold: float = 1.5) -> Looked:
    pixels = data.copy()
    flags = np.zeros(pixels.shape, np.uint16)
    sky = measure_sky(pixels, flags)
    subtract(pixels, flags, sky)
    sources, segments = detect(pixels, flags, sky, fwhm_px=fwhm, threshold_sigma=threshold)
    return Looked(pixels, flags, sky, sources, segments, noise, fwhm)


@pytest.fixture(scope="module", params=[2.7, 6.0])
def deep(request: pytest.FixtureRequest) -> Looked:
    """As many galaxies as a deep exposure shows, most of them below the limit."""
    exposure = simulate(
        small(Recipe(gain_e_per_adu=GAIN), (640, 640), psf=PsfField(fwhm_px=request.param)), seed=3
    )
    return look(exposure.data, exposure.noise_adu, request.param)


@pytest.fixture(scope="module")
def sparse() -> Looked:
    exposure = simulate(small(Recipe(gain_e_per_adu=GAIN), (900, 900), n_galaxies=0, n_stars=40), seed=5)
    return look(exposure.data, exposure.noise_adu, 4.0)


def figures(seen: Looked, *, inject: str | None = None) -> dict[str, object]:
    return dict(
        depth_figures(
            seen.data, seen.flags, seen.sky, seen.sources, seen.segments, true_psf(seen.fwhm),
            fwhm_px=seen.fwhm, gain_e_per_adu=GAIN, threshold_sigma=1.5, min_area=5, zeropoint_mag=33.0,
            random=None if inject is None else generator_for(inject),
        )
    )  # fmt: skip


def error_mag(found: float, truth: float) -> float:
    return -2.5 * float(np.log10(found / truth))


def test_the_limit_is_that_of_an_optimal_fit_whatever_is_too_faint_to_be_seen(deep: Looked) -> None:
    truth = limiting_flux(_true_stamp(deep.fwhm, 0.0, 0.0), deep.noise_adu, GAIN)
    found = figures(deep)
    assert error_mag(number(found, "limiting_flux_adu"), truth) == pytest.approx(0.0, abs=0.03)
    assert found["noise_correlation"] == 1.0
    assert number(found, "limiting_mag") == pytest.approx(33.0 - 2.5 * np.log10(truth), abs=0.03)


def test_stars_at_the_limit_scatter_by_a_fifth(sparse: Looked) -> None:
    """The truth, empirically: stars of that flux, each fitted with weights from its own photons."""
    limit = number(figures(sparse), "limiting_flux_adu")
    random = np.random.default_rng(8)
    stamp = _true_stamp(4.0, 0.0, 0.0)[7:-7, 7:-7].astype(np.float64)
    half = stamp.shape[0] // 2
    variance = sparse.noise_adu**2 + limit * stamp / GAIN
    weight = stamp / variance / np.sum(stamp**2 / variance)
    taken = ndimage.maximum_filter(sparse.segments.paint() > 0, size=9)
    fluxes = []
    for y in range(half, 900 - half, 19):
        for x in range(half, 900 - half, 19):
            window = np.s_[y - half : y + half + 1, x - half : x + half + 1]
            if not taken[window].any():
                photons = np.sqrt(limit * stamp / GAIN) * random.standard_normal(stamp.shape)
                fluxes.append(np.sum(weight * (sparse.data[window] + limit * stamp + photons)))
    assert len(fluxes) > 1000
    assert np.mean(fluxes) / np.std(fluxes) == pytest.approx(5.0, rel=0.06)


@pytest.mark.parametrize("zoom", [1.0, 1.6])
def test_in_resampled_images_shared_noise_counts(zoom: float) -> None:
    exposure = simulate(small(Recipe(gain_e_per_adu=GAIN), (480, 480)), seed=4)
    noise = np.random.default_rng(2).normal(0.0, exposure.noise_adu, exposure.data.shape)

    def resampled(image: Floats | Pixels) -> Pixels:
        shifted = (
            ndimage.shift(image, (0.5, 0.3), order=1) if zoom == 1.0 else ndimage.zoom(image, zoom, order=1)
        )
        return np.ascontiguousarray(shifted, dtype=np.float32)

    fwhm = 4.2 * zoom
    stamp = moffat_stamp(fwhm, 3.3)
    seen = look(resampled(exposure.data), float("nan"), fwhm, threshold=2.0)
    middle = stamp.shape[0] // 2
    core = stamp[middle - 12 : middle + 13, middle - 12 : middle + 13]
    fluxes = ndimage.correlate(resampled(noise), core, mode="constant")
    flux_error = float(np.std(fluxes[30:-30, 30:-30]) / np.sum(core.astype(np.float64) ** 2))
    found = star_noise(seen.data, seen.flags, seen.segments, stamp, seen.sky.rms_rows, fwhm)
    own = seen.sky.median_rms * found.per_pixel / float(np.sqrt(np.sum(stamp.astype(np.float64) ** 2)))
    assert found.correlation > 1.5
    assert error_mag(own, flux_error) == pytest.approx(0.0, abs=0.06)


def test_where_everything_is_covered_nothing_is_known() -> None:
    data = np.zeros((200, 200), np.float32)
    flags = np.ones((200, 200), np.uint16)
    none = np.empty(0, np.int32)
    segments = Segments((200, 200), np.zeros(201, np.int32), none, none, none)
    rms = np.ones((200, 200), np.float32)
    found = star_noise(data, flags, segments, moffat_stamp(4.0, 3.0), lambda y0, y1: rms[y0:y1], 4.0)
    assert found is UNKNOWN_NOISE


def test_the_autocorrelation_is_a_sum_over_all_pairs() -> None:
    image = np.random.default_rng(1).normal(size=(9, 12))
    reach = 3
    found = _autocorrelation(image, (9 + reach, 12 + reach), reach)
    for dy in range(-reach, reach + 1):
        for dx in range(-reach, reach + 1):
            total = 0.0
            for j in range(9):
                for i in range(12):
                    if 0 <= j + dy < 9 and 0 <= i + dx < 12:
                        total += image[j, i] * image[j + dy, i + dx]
            assert found[reach + dy, reach + dx] == pytest.approx(total, abs=1e-9)


@settings(max_examples=60, deadline=None)
@given(
    st.floats(1.5, 12.0), st.floats(0.01, 1e4), st.sampled_from([0.0, 0.3, 1.6, 50.0]), st.floats(1.0, 50.0)
)
def test_the_limiting_flux_has_the_ratio_asked_for(
    fwhm: float, noise: float, gain: float, snr: float
) -> None:
    psi = moffat_stamp(fwhm, 3.0, reach_fwhm=3.0).astype(np.float64)
    flux = limiting_flux(psi.astype(np.float32), noise, gain, snr)
    variance = noise**2 + (flux * psi / gain if gain > 0 else 0.0)
    assert flux * np.sqrt(np.sum(psi**2 / variance)) == pytest.approx(snr, rel=1e-4)


@pytest.mark.parametrize("noise", [0.0, -1.0, float("nan"), float("inf")])
def test_without_noise_there_is_no_limit(noise: float) -> None:
    assert np.isnan(limiting_flux(moffat_stamp(3.0, 3.0), noise, 1.0))


@pytest.mark.parametrize(("beta", "ellipticity"), [(2.5, 0.0), (float("inf"), 0.0), (3.3, 0.4)])
def test_a_stamp_is_normalised_and_where_it_should_be(beta: float, ellipticity: float) -> None:
    stamp = moffat_stamp(4.0, beta, 10.3, 7.8, ellipticity, 30.0).astype(np.float64)
    j, i = np.indices(stamp.shape) - stamp.shape[0] // 2
    assert stamp.sum() == pytest.approx(1.0, abs=1e-5)
    assert (
        np.sum(stamp**2 * i) / np.sum(stamp**2),
        np.sum(stamp**2 * j) / np.sum(stamp**2),
    ) == pytest.approx((0.3, -0.2), abs=0.02)


# ---- completeness ----


def test_half_of_the_stars_of_that_magnitude_are_found(deep: Looked) -> None:
    """Against a count of many more stars, of this magnitude only."""
    found = figures(deep, inject="abc")
    flux = number(found, "completeness50_flux_adu")
    psf, random = true_psf(deep.fwhm), generator_for("many")
    cell = max(24, int(8 * deep.fwhm))
    places = np.arange(cell, 640 - cell, cell)
    shares = []
    for offset_mag in (-0.2, 0.2):
        hits = tried = 0
        for _ in range(4):
            data = deep.data.copy()
            x, y = (
                grid.ravel() + random.uniform(-0.25, 0.25, places.size**2) * cell
                for grid in np.meshgrid(places, places)
            )
            for x0, y0 in zip(x, y, strict=True):
                stamp = flux * 10.0 ** (-0.4 * offset_mag) * psf(x0, y0).astype(np.float64)
                stamp += np.sqrt(np.maximum(stamp, 0.0) / GAIN) * random.standard_normal(stamp.shape)
                half = stamp.shape[0] // 2
                i, j = int(np.rint(x0)), int(np.rint(y0))
                y1, x1 = max(0, j - half), max(0, i - half)
                part = data[y1 : j + half + 1, x1 : i + half + 1]
                part += stamp[y1 - j + half :, x1 - i + half :][: part.shape[0], : part.shape[1]].astype(
                    np.float32
                )
            sources, _ = detect(data, deep.flags, deep.sky, fwhm_px=deep.fwhm)
            far = np.hypot(x[:, None] - sources.x[None, :], y[:, None] - sources.y[None, :]).min(axis=1)
            old = np.hypot(x[:, None] - deep.sources.x[None, :], y[:, None] - deep.sources.y[None, :]).min(
                axis=1
            )
            hits += np.count_nonzero((far < 0.5 * deep.fwhm + 0.5) & (old > 0.5 * deep.fwhm + 0.5))
            tried += x.size
        shares.append(hits / tried)
    bright, faint = shares
    # With a width w of 0.1 to 0.2 mag, 0.2 mag either way are 0.73 and 0.2 at least.
    middle = 0.2 * (bright + faint - 1.0) / (bright - faint)
    assert bright > 0.65 and faint < 0.35
    assert middle == pytest.approx(0.0, abs=0.1), "mag"
    assert number(found, "completeness50_error_mag") < 0.06


def test_the_same_image_has_the_same_completeness(sparse: Looked) -> None:
    once, again = (figures(sparse, inject="0123abcd") for _ in range(2))
    assert once == again
    assert once["completeness50_flux_adu"] != figures(sparse, inject="other")["completeness50_flux_adu"]


@pytest.mark.parametrize("start", [300.0, 2000.0, 15_000.0])
def test_a_wrong_start_is_overcome(sparse: Looked, start: float) -> None:
    sources = sparse.sources
    found = completeness(
        sparse.data, sparse.flags, true_psf(4.0), _detection(sparse.flags, sparse.sky, 4.0, 1.5, 5),
        (sources.x, sources.y, sources.flux), fwhm_px=4.0, start_flux_adu=start, gain_e_per_adu=GAIN,
        random=generator_for("x"),
    )  # fmt: skip
    good = number(figures(sparse, inject="y"), "completeness50_flux_adu")
    assert error_mag(found.flux50_adu, good) == pytest.approx(0.0, abs=0.12)


def test_the_frame_is_not_touched(sparse: Looked) -> None:
    before = sparse.data.copy()
    figures(sparse, inject="x")
    np.testing.assert_array_equal(sparse.data, before)


def test_where_nothing_is_ever_found_there_is_no_completeness(sparse: Looked) -> None:
    nothing = (np.empty(0),) * 3
    found = completeness(
        sparse.data, sparse.flags, true_psf(4.0), lambda window, section: nothing, nothing,
        fwhm_px=4.0, start_flux_adu=1000.0, gain_e_per_adu=GAIN, random=generator_for("x"),
    )  # fmt: skip
    assert np.isnan(found.flux50_adu)
