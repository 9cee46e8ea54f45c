"""Cosmic rays and hot pixels are found, stars stay."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from spica_quality.science.background.sky import measure_sky, subtract
from spica_quality.science.flags import UNUSABLE, Bit
from spica_quality.science.masking.cosmics import MARGIN, SHARPER, SHARPEST_SIGMA_PX, mark_cosmics

from tests.support.ccdsim import Exposure, PsfField, Recipe, simulate, small
from tests.unit.quality.frames import Sky, draw
from tests.unit.quality.test_masks import Even, flat, unflagged

SCALE_ARCSEC = 0.187


def found_in(
    data: np.ndarray, sigma: float, noise: float, gain: float, bad: np.ndarray | None = None
) -> np.ndarray:
    flags = unflagged(data) if bad is None else np.where(bad, Bit.NO_VALUE, np.uint16(0)).astype(np.uint16)
    n = mark_cosmics(data, flags, Even(data.shape, noise), sigma, gain)
    hit = (flags & Bit.COSMIC) != 0
    assert n == np.count_nonzero(hit)
    return hit


def naive(
    data: np.ndarray, bad: np.ndarray, noise: float, sigma: float, gain: float, limit: float
) -> np.ndarray:
    """The test of single pixels and of three, and the growing, spelt out."""
    ny, nx = data.shape
    half = 0.5 / (SHARPER * sigma) ** 2
    edge = MARGIN * np.exp(-half)
    start, grow = limit * np.clip(edge, 0.7, 1.0), limit * np.clip(edge - 0.25, 0.4, 0.7)
    mask = np.zeros(data.shape, bool)

    def blocked(j: int, i: int) -> bool:
        return j < 0 or i < 0 or j >= ny or i >= nx or bool(bad[j, i] or mask[j, i])

    def excess(p: float, n1: float, n2: float, a: int, b: int, d2: int, count: int) -> float:
        ratio, w1, w2 = MARGIN * np.exp(-a * b * d2 * half), b / (a + b), a / (a + b)
        squares = np.array([ratio**2, w1**2, w2**2])
        shot = (squares * np.maximum([p, n1, n2], 0)).sum() / gain if gain else 0.0
        return (ratio * p - w1 * n1 - w2 * n2) / np.sqrt(squares.sum() * count * noise**2 + shot)

    def sharp(j: int, i: int, limit: float, single: bool, three: bool) -> bool:
        p, pairs = float(data[j, i]), []
        for dj, di in ((0, 1), (1, 0), (1, 1), (1, -1)):
            d2 = dj * dj + di * di
            if not (blocked(j + dj, i + di) or blocked(j - dj, i - di)):
                pairs += [(data[j + dj, i + di], d2), (data[j - dj, i - di], d2)]
            tj, ti = (di, -dj) if d2 == 2 else (di, dj)
            for first in (1, 2):
                for second in (1, 2):
                    a = next((k for k in range(first, 6) if not blocked(j - k * dj, i - k * di)), 0)
                    b = next((k for k in range(second, 6) if not blocked(j + k * dj, i + k * di)), 0)
                    if not a or not b:
                        continue
                    places = [(j, i), (j - a * dj, i - a * di), (j + b * dj, i + b * di)]
                    one = excess(*(float(data[place]) for place in places), a, b, d2, 1)
                    if single and one > limit:
                        return True
                    if not three or not one > 0.4 * limit:
                        continue
                    line = [[(y + s * tj, x + s * ti) for s in (-1, 0, 1)] for y, x in places]
                    if any(blocked(*place) for three_of in line for place in three_of):
                        continue
                    sums = (float(sum(data[place] for place in three_of)) for three_of in line)
                    if excess(*sums, a, b, d2, 3) > limit:
                        return True
        if not single or not pairs:
            return False
        n = len(pairs)
        ratio = MARGIN * sum(np.exp(-d2 * half) for _, d2 in pairs) / n
        total = float(sum(value for value, _ in pairs))
        shot = (ratio**2 * max(p, 0) + max(total, 0) / n**2) / gain if gain else 0.0
        return bool((ratio * p - total / n) / np.sqrt((ratio**2 + 1 / n) * noise**2 + shot) > limit)

    with np.errstate(invalid="ignore"):
        seeds = [
            (j, i) for j, i in np.argwhere((data > 3 * noise) & ~bad)
            if sharp(j, i, start, bool(data[j, i] > 4.5 * noise), True)
        ]  # fmt: skip
    for place in seeds:
        mask[tuple(place)] = True
    queue = [tuple(place) for place in seeds]
    while queue:
        y, x = queue.pop(0)
        for j in range(max(y - 1, 0), min(y + 2, ny)):
            for i in range(max(x - 1, 0), min(x + 2, nx)):
                if not blocked(j, i) and data[j, i] > grow * noise and sharp(j, i, grow, True, False):
                    mask[j, i] = True
                    queue.append((j, i))
    return mask


@settings(max_examples=8, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    sigma=st.sampled_from([0.75, 1.2, 1.8, 4.0]),
    gain=st.sampled_from([0.0, 1.6]),
)
def test_the_kernel_agrees_with_its_plain_twin(seed: int, sigma: float, gain: float) -> None:
    random = np.random.default_rng(seed)
    data = random.normal(0.0, 5.0, (22, 30)).astype(np.float32)
    y, x = np.mgrid[:22, :30]
    data += (900 * np.exp(-((x - 11.3) ** 2 + (y - 10.8) ** 2) / (2 * sigma**2))).astype(np.float32)
    spots = random.integers(0, 22, (20, 2))
    data[spots[:, 0], spots[:, 1]] += random.uniform(15, 400, 20).astype(np.float32)
    data[6:18, 25] += 40.0
    bad = random.random(data.shape) < 0.03
    data[bad] = random.choice(np.array([np.nan, np.inf, 0.0, 1e6], np.float32), int(bad.sum()))
    quick, plain = found_in(data, sigma, 5.0, gain, bad), naive(data, bad, 5.0, sigma, gain, 5.0)
    # The quick look counts masked neighbours with their values, which may hide a pixel beside a bright masked one.
    beside = ndimage.binary_dilation(bad, np.ones((11, 11)))
    assert np.count_nonzero((quick != plain) & ~beside) == 0


@pytest.mark.parametrize(
    ("fwhm", "beta"), [(1.7, None), (2.0, None), (2.2, 3.3), (4.0, 3.3), (4.0, None), (7.0, 2.5)]
)
def test_stars_are_no_cosmics(fwhm: float, beta: float | None) -> None:
    sky = draw(fwhm=fwhm, beta=beta, n=200, flux=(500, 4e5))
    found = found_in(sky.data - np.float32(300.0), fwhm / 2.3548, sky.noise, sky.gain)
    assert found[near(sky, 2 * fwhm)].mean() < 3e-4
    # Anywhere, a peak of noise now and then.
    assert np.count_nonzero(found) < 2e-4 * found.size


def near(sky: Sky, radius: float) -> np.ndarray:
    y, x = np.ogrid[: sky.data.shape[0], : sky.data.shape[1]]
    mask = np.zeros(sky.data.shape, bool)
    for star_x, star_y in zip(sky.x, sky.y, strict=True):
        mask |= (x - star_x) ** 2 + (y - star_y) ** 2 < radius**2
    return mask


def test_stars_beside_pixels_without_value_are_no_cosmics() -> None:
    sky = draw(fwhm=3.4, n=200, flux=(2e3, 4e5), seed=7)
    data = sky.data - np.float32(300.0)
    bad = np.zeros(data.shape, bool)
    bad[:, np.rint(sky.x).astype(int) + 1] = True
    data[bad] = 0.0
    found = found_in(data, 3.4 / 2.355, sky.noise, sky.gain, bad)
    assert found[near(sky, 6.8)].mean() < 3e-4


def test_pixels_without_value_are_never_marked() -> None:
    data = flat() - np.float32(200.0)
    data[50:60] = np.nan
    data[100, 100] = 1e6
    bad = ~np.isfinite(data)
    bad[100, 100] = True
    assert not found_in(data, 1.7, 5.0, 1.6, bad)[bad].any()


def test_marks_of_an_earlier_look_are_forgotten_and_other_flags_stay() -> None:
    data = flat() - np.float32(200.0)
    data[100, 100] += 500.0
    flags = unflagged(data)
    flags[5, 5], flags[9, 9] = Bit.COSMIC, Bit.DEAD
    mark_cosmics(data, flags, Even(data.shape, 5.0), 1.7, 1.6)
    assert flags[100, 100] == Bit.COSMIC
    assert (flags[5, 5], flags[9, 9]) == (0, Bit.DEAD)


# ---- against truth ----


def exposure(seeing_arcsec: float, seed: int = 2) -> Exposure:
    recipe = small(
        Recipe(psf=PsfField(fwhm_px=seeing_arcsec / SCALE_ARCSEC), n_cosmics=3000), (640, 640), n_stars=150
    )
    return simulate(recipe, seed)


def judged(drawn: Exposure, sigma: float) -> tuple[float, float, float]:
    """Shares of cosmic-ray pixels above 5 sigma and of tracks (half of these pixels) found, and of star pixels lost."""
    data, recipe = drawn.data.copy(), drawn.recipe
    flags = np.where(drawn.saturated, Bit.SATURATED, np.uint16(0)).astype(np.uint16)
    sky = measure_sky(data, flags)
    subtract(data, flags, sky)
    mark_cosmics(data, flags, sky, SHARPEST_SIGMA_PX, recipe.gain_e_per_adu)
    mark_cosmics(data, flags, sky, sigma, recipe.gain_e_per_adu)
    found = (flags & Bit.COSMIC) != 0
    noise = np.sqrt(drawn.noise_adu**2 + np.maximum(drawn.light_adu, 0) / recipe.gain_e_per_adu)
    full = ndimage.binary_dilation(drawn.saturated, iterations=2)
    hit = (drawn.cosmic_adu > 5 * noise) & ~full
    labels, n = ndimage.label(drawn.cosmic_adu > drawn.noise_adu, np.ones((3, 3)))
    pixels = ndimage.sum(hit, labels, range(1, n + 1))
    share = ndimage.sum(hit & found, labels, range(1, n + 1))[pixels > 0] / pixels[pixels > 0]
    fwhm, truth = recipe.psf.fwhm_px, drawn.truth
    stars = truth.is_star & (truth.flux > 10 * drawn.noise_adu * fwhm * 1.4)
    near = np.zeros(data.shape, bool)
    y, x = np.ogrid[: data.shape[0], : data.shape[1]]
    for star_x, star_y in zip(truth.x[stars], truth.y[stars], strict=True):
        near |= (x - star_x) ** 2 + (y - star_y) ** 2 < (2 * fwhm) ** 2
    clean = near & ~full & (drawn.cosmic_adu < 0.5 * drawn.noise_adu)
    return float(found[hit].mean()), float((share >= 0.5).mean()), float(found[clean].mean())


@pytest.mark.parametrize("seeing_arcsec", [0.5, 0.7, 1.0, 2.5])
def test_cosmics_are_found_and_stars_kept_in_any_seeing(seeing_arcsec: float) -> None:
    drawn = exposure(seeing_arcsec)
    # As the first look sees stars: a tenth wider than the profile without the pixel.
    pixels, tracks, lost = judged(drawn, 1.1 * drawn.recipe.psf.fwhm_px / 2.3548)
    assert pixels >= 0.97
    assert tracks >= 0.96
    assert lost < 0.001


def test_long_tracks_worms_and_hits_on_galaxies() -> None:
    sky = draw(fwhm=4.0, n=60)
    data = sky.data - np.float32(300.0)
    y, x = np.mgrid[: data.shape[0], : data.shape[1]]
    galaxy = np.hypot(x - 350, (y - 300) / 0.5)
    data += (2000 * np.exp(-galaxy / 12.0)).astype(np.float32)
    track = [(100 + k // 7, 40 + k) for k in range(300)]
    worm = [(500 + round(6 * np.sin(k / 15)), 80 + k) for k in range(90)]
    on_galaxy = [(295 + k, 345) for k in range(10)]
    for places, height in ((track, 12.0), (worm, 6.0), (on_galaxy, 60.0)):
        for place in places:
            data[place] += height * sky.noise
    found = found_in(data, 4.4 / 2.3548, sky.noise, sky.gain)
    assert np.mean([found[place] for place in track]) > 0.97
    assert np.mean([found[place] for place in worm]) > 0.9
    assert np.mean([found[place] for place in on_galaxy]) > 0.7
    assert not (found & (galaxy > 15) & (galaxy < 40) & (np.abs(x - 345) > 2)).sum() > 4
    assert UNUSABLE & Bit.COSMIC
