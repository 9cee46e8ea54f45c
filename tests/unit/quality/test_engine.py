"""The whole engine on frames with known truth."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from spica_imaging.sections import Section
from spica_quality.science.engine import Frame, Measurement, Options, measure
from spica_quality.science.flags import Bit

from tests.support.ccdsim import PsfField, Recipe, simulate, small
from tests.unit.quality.frames import Sky, draw, nearest, weight_of


@pytest.fixture(scope="module")
def sky() -> Sky:
    return draw(n=150, fwhm=4.0, beta=3.3)


@pytest.fixture(scope="module")
def measured(sky: Sky) -> Measurement:
    return measure(sky.frame())


@pytest.mark.parametrize("beta", [None, 4.765, 2.5])
@pytest.mark.parametrize("fwhm", [2.0, 2.2, 3.0, 4.0, 7.0])
def test_fwhm_within_three_percent(fwhm: float, beta: float | None) -> None:
    psf = measure(draw(fwhm=fwhm, beta=beta, n=100, seed=3).frame()).figures
    assert psf["fwhm_with_pixel_px"] == pytest.approx(fwhm, rel=0.03)
    assert psf["n_stars"] > 60
    assert psf["ellipticity"] < 0.02


@pytest.mark.parametrize("ellipticity", [0.05, 0.2, 0.5])
def test_ellipticity_and_its_direction(ellipticity: float) -> None:
    psf = measure(draw(ellipticity=ellipticity, angle_rad=0.6, seed=5).frame()).figures
    assert psf["ellipticity"] == pytest.approx(ellipticity, abs=0.012)
    assert psf["angle_deg"] == pytest.approx(np.degrees(0.6), abs=6)
    assert psf["fwhm_with_pixel_px"] == pytest.approx(4.0, rel=0.03)


def test_noise_does_not_make_round_stars_elongated() -> None:
    faint = draw(flux=(2.2e3, 4e3), n=200, seed=6)
    found = measure(faint.frame())
    single = 1.0 - found.columns["B_IMAGE"] / found.columns["A_IMAGE"]
    assert np.median(single) > 0.05
    assert found.figures["ellipticity"] < 0.02


def test_background_and_noise(sky: Sky, measured: Measurement) -> None:
    assert measured.figures["background_adu"] == pytest.approx(300.0, abs=0.5)
    assert measured.figures["background_rms_adu"] == pytest.approx(sky.noise, rel=0.03)
    assert measured.figures["noise_correlation"] == pytest.approx(1.0, abs=0.05)


def test_all_bright_stars_are_found_where_they_are(sky: Sky, measured: Measurement) -> None:
    columns = measured.columns
    index, distance = nearest(columns["XWIN_IMAGE"] - 1, columns["YWIN_IMAGE"] - 1, sky.x, sky.y)
    assert np.mean(distance < 0.5) > 0.97
    assert measured.figures["n_sources"] < 1.05 * len(sky.x)
    bright = (distance < 0.5) & (sky.flux > 2e4) & (columns["FLAGS"][index] == 0)
    assert np.count_nonzero(bright) > 50
    dx = columns["XWIN_IMAGE"][index][bright] - 1 - sky.x[bright]
    dy = columns["YWIN_IMAGE"][index][bright] - 1 - sky.y[bright]
    assert abs(np.median(dx)) < 0.01
    assert abs(np.median(dy)) < 0.01
    error = columns["ERRAWIN_IMAGE"][index][bright]
    assert 1.4826 * np.median(np.abs(np.concatenate([dx / error, dy / error]))) == pytest.approx(1, abs=0.3)


def test_fluxes(sky: Sky, measured: Measurement) -> None:
    columns = measured.columns
    index, distance = nearest(columns["X_IMAGE"] - 1, columns["Y_IMAGE"] - 1, sky.x, sky.y)
    clean = (distance < 0.5) & (sky.flux > 1e4) & (columns["FLAGS"][index] == 0)
    ratio = columns["FLUX_AUTO"][index][clean] / sky.flux[clean]
    assert np.median(ratio) == pytest.approx(0.965, abs=0.03)  # Kron apertures miss the wings
    assert 1.4826 * np.median(np.abs(ratio - np.median(ratio))) < 0.02
    assert np.median(columns["FLUX_APER"][index, 0][clean] / sky.flux[clean]) == pytest.approx(0.97, abs=0.02)


def test_the_catalogue_is_complete_and_finite(measured: Measurement) -> None:
    wanted = {
        *("X_IMAGE", "Y_IMAGE", "XWIN_IMAGE", "YWIN_IMAGE", "ERRAWIN_IMAGE", "ERRBWIN_IMAGE"),
        *("ERRTHETAWIN_IMAGE", "FLUX_AUTO", "FLUXERR_AUTO", "FLUX_APER", "FLUXERR_APER", "FLUX_RADIUS"),
        *("FWHM_IMAGE", "ELLIPTICITY", "A_IMAGE", "B_IMAGE", "THETA_IMAGE", "FLUX_MAX", "BACKGROUND"),
        *("FLAGS", "SNR_WIN", "CLASS_STAR"),
    }
    assert wanted <= set(measured.columns)
    for name, values in measured.columns.items():
        if name.startswith(("MAG_", "MU_")):
            assert np.isnan(values).all(), name  # there is no zero point
        else:
            assert np.isfinite(values).mean() > 0.97, name
        assert len(values) == measured.figures["n_sources"]
    for name in ("ERRAWIN_IMAGE", "ERRBWIN_IMAGE", "FLUXERR_AUTO", "FLUXERR_APER"):
        assert (measured.columns[name] > 0).all(), name
    assert ((measured.columns["CLASS_STAR"] >= 0) & (measured.columns["CLASS_STAR"] <= 1)).all()


def test_half_of_the_stars_at_the_limiting_flux_are_brighter_than_five_sigma() -> None:
    """A point source of the limiting flux, measured with the profile as weight, has S/N 5."""
    sky = draw(n=150, fwhm=4.0, beta=None, seed=8)
    figures = measure(sky.frame()).figures
    limit, sigma = figures["limiting_flux_adu"], 4.0 / 2.3548
    assert isinstance(limit, float)
    random = np.random.default_rng(9)
    j, i = np.mgrid[:31, :31] - 15
    psf = np.exp(-0.5 * (i**2 + j**2) / sigma**2)
    psf /= psf.sum()
    noisy = random.poisson((limit * psf + 300.0) * 1.6, (3000, 31, 31)) / 1.6 - 300.0
    noisy += random.normal(0.0, 5.0 / 1.6, noisy.shape)
    fluxes = (noisy * psf).sum(axis=(1, 2)) / (psf**2).sum()
    assert np.mean(fluxes) / np.std(fluxes) == pytest.approx(5.0, rel=0.06)


def test_hot_pixels_and_cosmics_are_no_stars_and_have_no_weight() -> None:
    sky = draw(n=100, fwhm=2.2, beta=None, seed=11)
    random = np.random.default_rng(12)
    rows, columns = random.integers(5, 595, 1500), random.integers(5, 695, 1500)
    sky.data[rows, columns] += np.exp(random.uniform(5.5, 9.5, 1500)).astype(np.float32)
    found = measure(sky.frame())
    assert found.figures["fwhm_with_pixel_px"] == pytest.approx(2.2, rel=0.03)
    assert np.mean(weight_of(found)[rows, columns] == 0) > 0.95
    stars = found.columns["SPICA_STAR"] == 1
    _, distance = nearest(
        sky.x, sky.y, found.columns["X_IMAGE"][stars] - 1, found.columns["Y_IMAGE"][stars] - 1
    )
    assert np.mean(distance < 1.0) > 0.97
    assert np.count_nonzero(stars) > 60


def test_galaxies_of_all_sizes_are_no_stars() -> None:
    stars = draw(n=60, seed=13)
    data = stars.data.copy()
    for k, fwhm in enumerate((5.5, 7.0, 9.0, 12.0, 15.0)):
        data += draw(n=16, fwhm=fwhm, beta=2.0, flux=(2e4, 3e5), seed=30 + k).data - np.float32(300.0)
    both = Sky(data, stars.x, stars.y, stars.flux, 1.6, stars.noise)
    found = measure(both.frame())
    assert found.figures["fwhm_with_pixel_px"] == pytest.approx(4.0, rel=0.03)
    chosen = found.columns["SPICA_STAR"] == 1
    _, distance = nearest(
        stars.x, stars.y, found.columns["X_IMAGE"][chosen] - 1, found.columns["Y_IMAGE"][chosen] - 1
    )
    assert np.mean(distance < 1.0) > 0.95


def test_touching_stars_are_divided() -> None:
    sky = draw(n=30, fwhm=4.0, flux=(3e4, 6e4), seed=15)
    j, i = np.mgrid[: sky.data.shape[0], : sky.data.shape[1]]
    for x, y in zip(sky.x, sky.y, strict=True):
        sky.data[...] += (1500.0 * np.exp(-0.5 * ((i - x - 8) ** 2 + (j - y) ** 2) / 1.7**2)).astype("f4")
    found = measure(sky.frame()).columns
    _, distance = nearest(found["X_IMAGE"] - 1, found["Y_IMAGE"] - 1, sky.x + 8, sky.y)
    assert np.mean(distance < 1.0) > 0.9
    assert np.count_nonzero(found["FLAGS"] & 2) >= 30


def test_saturated_stars_are_flagged_and_have_no_weight() -> None:
    sky = draw(n=60, flux=(2e4, 2e6), seed=16)
    np.clip(sky.data, None, 5000.0, out=sky.data)
    found = measure(sky.frame(saturation_adu=5000.0))
    piled = np.argwhere(sky.data >= 5000.0)
    assert len(piled) == found.figures["n_saturated"] > 20
    assert (weight_of(found)[piled[:, 0], piled[:, 1]] == 0).all()
    flagged = (found.columns["FLAGS"] & 4) != 0
    assert (found.columns["FLUX_MAX"][~flagged] < 5000.0).all()
    assert not found.columns["SPICA_STAR"][flagged].any()


def test_overscan_is_no_sky_but_counts_in_coordinates() -> None:
    sky = draw(n=60, seed=17)
    wide = np.full((600, 764), 1000.0, np.float32)
    wide[:, 32:732] = sky.data
    found = measure(Frame(wide, Section(32, 732, 0, 600), 1.6, 6e4))
    assert (weight_of(found)[:, :32] == 0).all()
    assert (weight_of(found)[:, 732:] == 0).all()
    assert found.figures["n_pixels"] == 600 * 700
    index, distance = nearest(
        found.columns["XWIN_IMAGE"] - 1, found.columns["YWIN_IMAGE"] - 1, sky.x + 32, sky.y
    )
    assert np.mean(distance < 0.3) > 0.95
    assert len(np.unique(index)) > 0.95 * len(sky.x)


def test_a_weight_tells_where_noise_is_higher() -> None:
    sky = draw(n=60, seed=18)
    random = np.random.default_rng(19)
    weight = np.ones(sky.data.shape, np.float32)
    weight[:, 350:] = 0.25
    weight[:50] = 0.0
    sky.data[:, 350:] += random.normal(0, np.sqrt(3) * sky.noise, (600, 350)).astype(np.float32)
    found = measure(Frame(sky.data, Section(0, 700, 0, 600), 0.0, np.inf, weight))
    assert (weight_of(found)[:50] == 0).all()
    ratio = np.median(weight_of(found)[100:, :350]) / np.median(weight_of(found)[100:, 350:])
    assert ratio == pytest.approx(4.0, rel=0.1)
    assert np.sqrt(1 / np.median(weight_of(found)[100:, :350])) == pytest.approx(sky.noise, rel=0.1)


def test_a_ring_has_a_dip_and_a_star_has_none(measured: Measurement) -> None:
    ring = measure(draw(n=40, defocus=9.0, flux=(2e4, 3e5), seed=20).frame()).figures
    assert ring["central_dip"] > 0.4
    assert ring["n_sources"] < 60
    assert measured.figures["central_dip"] < 0.05


@pytest.mark.parametrize(
    "data",
    [
        np.full((200, 240), 300.0, np.float32),
        np.zeros((200, 240), np.float32),
        np.full((200, 240), np.nan, np.float32),
        np.full((200, 240), 65_535.0, np.float32),
        np.ones((3, 5), np.float32),
        np.full((200, 240), np.inf, np.float32),
        np.full((200, 240), -1e30, np.float32),
    ],
    ids=["constant", "zeros", "nan", "saturated", "tiny", "inf", "huge"],
)
def test_nothing_to_be_measured_is_a_result(data: np.ndarray) -> None:
    found = measure(Frame(data, Section(0, data.shape[1], 0, data.shape[0]), 1.6, 6e4))
    assert found.sky is None
    assert found.figures["n_stars"] == 0
    assert not weight_of(found).any()
    assert weight_of(found).shape == data.shape


@pytest.mark.parametrize("spoil", ["nan half", "zero half", "one value", "few pixels"])
def test_half_a_frame_is_measured(spoil: str) -> None:
    sky = draw(n=80, seed=21)
    data = sky.data
    if spoil == "few pixels":
        data[40:] = np.nan
    else:
        data[300:] = {"nan half": np.nan, "zero half": 0.0, "one value": 10.0}[spoil]
    found = measure(sky.frame())
    assert found.sky is not None
    if spoil in ("nan half", "zero half"):
        assert found.figures["fwhm_with_pixel_px"] == pytest.approx(4.0, rel=0.03)
        assert found.figures["n_usable"] == pytest.approx(300 * 700, rel=0.01)


def test_a_dark_frame_has_no_stars() -> None:
    random = np.random.default_rng(22)
    data = random.normal(100.0, 3.0, (500, 600)).astype(np.float32)
    rows, columns = random.integers(0, 500, 2000), random.integers(0, 600, 2000)
    data[rows, columns] += np.exp(random.uniform(4, 10, 2000)).astype(np.float32)
    found = measure(Frame(data, Section(0, 600, 0, 500), 1.6, 6e4))
    assert found.figures["n_stars"] <= 3


def test_the_same_pixels_give_the_same_numbers(sky: Sky, measured: Measurement) -> None:
    again = measure(sky.frame())
    assert again.figures == measured.figures
    for name, values in measured.columns.items():
        assert np.array_equal(values, again.columns[name], equal_nan=values.dtype.kind == "f"), name
    assert np.array_equal(weight_of(again), weight_of(measured))


@pytest.mark.parametrize("sizes", [(3.0, 30.0), (2.0, 60.0), (3.0,)])
def test_a_few_sources_of_which_no_two_are_alike(sizes: tuple[float, ...]) -> None:
    data = np.full((400, 400), -300.0 * (len(sizes) - 1), np.float32)
    for k, fwhm in enumerate(sizes):
        data += draw(n=1, fwhm=fwhm, flux=(3e5, 4e5), shape=(400, 400), seed=40 + k).data
    assert measure(Frame(data, Section(0, 400, 0, 400), 1.6, 6e4)).sky is not None


def test_a_gain_that_cannot_be_is_not_believed() -> None:
    """Calibrated pixels in units of their own, with the detector's gain still in the header."""
    sky = draw(n=60, seed=23)
    scaled = replace(sky, data=((sky.data - np.float32(300.0)) * np.float32(1e-4)))
    raw, calibrated = measure(sky.frame()).figures, measure(scaled.frame()).figures
    sky_limited = 5.0 * sky.noise * np.sqrt(raw["psf_noise_area_px"])
    assert calibrated["limiting_flux_adu"] == pytest.approx(1e-4 * sky_limited, rel=0.05)
    assert calibrated["fwhm_with_pixel_px"] == pytest.approx(raw["fwhm_with_pixel_px"], rel=0.01)


def test_flag_bits_do_not_overlap() -> None:
    bits = [int(value) for name, value in vars(Bit).items() if name.isupper()]
    assert len(bits) == 10
    assert sum(bits) == int(np.bitwise_or.reduce(bits)) == 1023


@pytest.mark.parametrize("fwhm_px", [2.7, 3.5, 5.0])
def test_a_few_stars_among_galaxies_are_no_cosmic_rays(fwhm_px: float) -> None:
    """The galaxies are many and of one size; how sharp the image is, only the stars tell."""
    lost = stars = 0
    for seed in (1, 4, 5):
        recipe = small(
            Recipe(psf=PsfField(fwhm_px=fwhm_px)),
            (640, 640),
            n_stars=4,
            n_galaxies=300,
            n_cosmics=40,
            star_mags=(17.5, 22.0),
        )
        exposure = simulate(recipe, seed)
        done = measure(
            Frame(exposure.data.astype(np.float32), Section(0, 640, 0, 640), 1.62, 64_000.0),
            Options(injected_stars=0),
            np.random.default_rng(1),
        )
        marked = ((done.flags & Bit.COSMIC) != 0) & (exposure.cosmic_adu <= 0)
        truth = exposure.truth
        for x, y in np.rint(np.column_stack((truth.x, truth.y))[truth.is_star]).astype(int):
            stars += 1
            lost += bool(marked[max(y - 1, 0) : y + 2, max(x - 1, 0) : x + 2].any())
        assert np.mean((done.flags & Bit.COSMIC)[exposure.cosmic_adu > 5.0 * exposure.noise_adu] != 0) > 0.95
    assert lost <= 0.1 * stars
