"""The catalogue against the truth of simulated CCDs, and against source-extractor on the same frame."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass

import numpy as np
import pytest
from astropy.io import fits
from scipy.spatial import cKDTree
from spica_imaging.ldac import read_ldac
from spica_quality.science.background.sky import measure_sky, subtract
from spica_quality.science.detection.segmentation import detect
from spica_quality.science.photometry.catalogue import Columns, measure_catalogue

from tests.support.ccdsim import VARYING, Exposure, Recipe, Truth, simulate, small
from tests.support.realdata import peer_program
from tests.unit.quality.placed import true_psf

GAIN, ZEROPOINT = 1.62, 33.0
Floats = np.ndarray


@dataclass(frozen=True)
class Field:
    """A simulated frame, our catalogue of it, and the truth."""

    exposure: Exposure
    columns: Columns
    fwhm: float

    @property
    def truth(self) -> Truth:
        return self.exposure.truth


def catalogued(recipe: Recipe, seed: int) -> Field:
    exposure = simulate(recipe, seed)
    data = exposure.data.copy()
    flags = np.where(exposure.saturated, 4, 0).astype(np.uint16)
    sky = measure_sky(data, flags)
    subtract(data, flags, sky)
    sources, segments = detect(data, flags, sky, fwhm_px=recipe.psf.fwhm_px)
    psf = true_psf(recipe.psf, recipe.shape)
    columns = measure_catalogue(
        data, flags, sky, sources, segments, gain=GAIN, fwhm_px=4.1, psf=psf, zeropoint=ZEROPOINT
    )
    return Field(exposure, columns, 4.1)


@pytest.fixture(scope="module")
def sky_field() -> Field:
    """Stars and galaxies, less crowded than the deepest frames."""
    recipe = small(
        Recipe(psf=VARYING),
        (1400, 1400),
        n_stars=350,
        n_galaxies=600,
        star_mags=(18.5, 24.5),
        galaxy_mags=(19.0, 24.5),
    )
    return catalogued(recipe, 11)


def matched(columns: Columns, truth: Truth, among: Floats) -> tuple[Floats, Floats]:
    """Rows of the catalogue and of the truth that are each other's nearest and alone within 14 px."""
    x, y = columns["XWIN_IMAGE"] - 1.0, columns["YWIN_IMAGE"] - 1.0
    tree = cKDTree(np.column_stack([truth.x, truth.y]))
    near = tree.query_ball_point(np.column_stack([truth.x, truth.y]), 14.0)
    alone = np.array(
        [not any(truth.flux[j] > 0.02 * truth.flux[k] for j in at if j != k) for k, at in enumerate(near)]
    )
    distance, rows = cKDTree(np.column_stack([x, y])).query(np.column_stack([truth.x, truth.y]))
    wanted = np.flatnonzero(alone & among & (distance < 1.5))
    clean = columns["FLAGS"][rows[wanted]] == 0
    return rows[wanted][clean], wanted[clean]


def loss_beyond(radius: float, fwhm: Floats, beta: float = 3.3) -> Floats:
    """Share of a Moffat star's light beyond a radius."""
    a2 = (0.5 * fwhm) ** 2 / (2 ** (1 / beta) - 1)
    return (1 + radius**2 / a2) ** (1 - beta)


def spread(values: Floats) -> float:
    return float(1.4826 * np.median(np.abs(values - np.median(values))))


def test_psf_fluxes_are_unbiased_and_less_noisy_than_apertures(sky_field: Field) -> None:
    columns, truth = sky_field.columns, sky_field.truth
    rows, index = matched(columns, truth, truth.is_star)
    # The model holds what is within its 12 px; the rest of a Moffat profile is beyond.
    ratio = columns["FLUX_PSF"][rows] / (truth.flux * (1.0 - loss_beyond(12.5, truth.fwhm_px)))[index]
    bright = columns["SNR_WIN"][rows] > 100
    assert np.count_nonzero(bright) > 50
    assert np.median(ratio[bright]) == pytest.approx(1.0, abs=0.005)
    faint = ~bright & (columns["SNR_WIN"][rows] > 10)
    aperture = columns["FLUX_APER"][rows, 2] / truth.flux[index]
    assert np.count_nonzero(faint) > 50
    assert spread(ratio[faint]) < spread(aperture[faint] / np.median(aperture[bright]))
    pull = (columns["FLUX_PSF"][rows] - truth.flux[index]) / columns["FLUXERR_PSF"][rows]
    assert spread(pull[faint]) == pytest.approx(1.0, abs=0.3)


def test_apertures_hold_what_they_must(sky_field: Field) -> None:
    columns, truth = sky_field.columns, sky_field.truth
    rows, index = matched(columns, truth, truth.is_star & (truth.mag < 21.5))
    # The truth is without the pixel's own width: the smaller the circle, the more that matters.
    for k, diameters, tolerance in ((0, 4.0, 0.005), (2, 2.0, 0.015), (3, 3.0, 0.01)):
        inside = 1.0 - loss_beyond(0.5 * diameters * sky_field.fwhm, truth.fwhm_px[index])
        ratio = columns["FLUX_APER"][rows, k] / truth.flux[index] / inside
        assert np.median(ratio) == pytest.approx(1.0, abs=tolerance), diameters


def test_positions_are_as_good_as_their_errors_say(sky_field: Field) -> None:
    columns, truth = sky_field.columns, sky_field.truth
    rows, index = matched(columns, truth, truth.is_star)
    for part, error in (("WIN", "ERRAWIN_IMAGE"), ("PSF", "ERRAPSF_IMAGE")):
        good = np.isfinite(columns[error][rows])
        for axis, true in (("X", truth.x), ("Y", truth.y)):
            off = (columns[f"{axis}{part}_IMAGE"][rows] - 1.0 - true[index])[good]
            assert abs(np.median(off)) < 0.01
            assert spread(off / columns[error][rows][good]) == pytest.approx(1.0, abs=0.25)


def area_under_curve(score: Floats, is_star: Floats) -> float:
    """Share of pairs of a star and a galaxy in which the star has the higher score."""
    from scipy.stats import rankdata

    ranks, n = rankdata(score), int(is_star.sum())
    return float((ranks[is_star].sum() - n * (n + 1) / 2) / (n * (len(score) - n)))


def test_spread_model_and_class_star_tell_stars_from_galaxies(sky_field: Field) -> None:
    columns, truth = sky_field.columns, sky_field.truth
    rows, index = matched(columns, truth, np.ones(len(truth.x), bool))
    for low, high, least in ((18.5, 22.5, 0.99), (22.5, 23.7, 0.95)):
        some = (truth.mag[index] >= low) & (truth.mag[index] < high)
        star = truth.is_star[index][some]
        assert star.sum() > 20
        assert (~star).sum() > 20
        assert area_under_curve(-columns["SPREAD_MODEL"][rows][some], star) > least
        assert area_under_curve(columns["CLASS_STAR"][rows][some], star) > least - 0.02
        assert np.median(columns["CLASS_STAR"][rows][some][star]) > 0.8
        assert np.median(columns["CLASS_STAR"][rows][some][~star]) < 0.1
    stars = truth.is_star[index]
    significance = columns["SPREAD_MODEL"][rows][stars] / columns["SPREADERR_MODEL"][rows][stars]
    assert spread(significance) == pytest.approx(1.0, abs=0.3)


@pytest.fixture(scope="module")
def peer(sky_field: Field, tmp_path_factory: pytest.TempPathFactory) -> Columns:
    """Source-extractor's catalogue of the same frame."""
    program = peer_program("source-extractor", "sex")
    folder = tmp_path_factory.mktemp("peer")
    fits.PrimaryHDU(sky_field.exposure.data).writeto(folder / "frame.fits")
    names = ("X_IMAGE", "Y_IMAGE", "XWIN_IMAGE", "YWIN_IMAGE", "ERRAWIN_IMAGE", "FLUX_AUTO", "FLUXERR_AUTO")
    names += ("FLUX_APER(5)", "FLUX_RADIUS", "KRON_RADIUS", "SNR_WIN", "AWIN_IMAGE", "FLAGS")
    (folder / "columns").write_text("\n".join(names))
    axis = np.arange(-3, 4)
    taps = np.exp(-4 * np.log(2) * (axis[:, None] ** 2 + axis**2) / 4.0**2)
    rows = "\n".join(" ".join(f"{tap:.6f}" for tap in row) for row in taps)
    (folder / "filter.conv").write_text(f"CONV NORM\n{rows}\n")
    diameters = ",".join(f"{factor * sky_field.fwhm:.4f}" for factor in (4.0, 1.0, 2.0, 3.0, 6.0))
    command = [
        *(
            program,
            "frame.fits",
            "-c",
            "/dev/null",
            "-PARAMETERS_NAME",
            "columns",
            "-CATALOG_TYPE",
            "FITS_LDAC",
        ),
        *(
            "-CATALOG_NAME",
            "peer.ldac",
            "-FILTER_NAME",
            "filter.conv",
            "-DETECT_THRESH",
            "1.5",
            "-ANALYSIS_THRESH",
            "1.5",
        ),
        *("-PHOT_APERTURES", diameters, "-GAIN", str(GAIN), "-SATUR_LEVEL", "64000", "-BACK_SIZE", "128"),
        *(
            "-HEADER_SUFFIX",
            ".none",
            "-VERBOSE_TYPE",
            "QUIET",
            "-DETECT_MINAREA",
            "5",
            "-BACKPHOTO_TYPE",
            "GLOBAL",
        ),
    ]
    subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=120)
    (table,) = read_ldac(folder / "peer.ldac")
    return table.columns


@pytest.mark.peer
def test_fluxes_and_positions_are_no_worse_than_source_extractors(sky_field: Field, peer: Columns) -> None:
    ours, truth = sky_field.columns, sky_field.truth
    for kind, least in ((truth.is_star, 100), (~truth.is_star, 60)):
        rows, index = matched(ours, truth, kind)
        theirs, known = matched(peer, truth, kind)
        both, first, second = np.intersect1d(index, known, return_indices=True)
        rows, theirs = rows[first], theirs[second]
        assert len(both) > least
        flux = truth.flux[both]
        for name in ("FLUX_AUTO", "FLUX_APER"):
            mine, other = (table[name][at] for table, at in ((ours, rows), (peer, theirs)))
            ratios = [(values if values.ndim == 1 else values[:, 0]) / flux for values in (mine, other)]
            bias = [abs(float(np.median(ratio)) - 1.0) for ratio in ratios]
            assert bias[0] < bias[1] + 0.01, name
            assert spread(ratios[0]) < 1.1 * spread(ratios[1]) + 0.002, name
        # In units of the peer's own errors, so that bright and faint ones count alike; mistakes count as 4 sigma.
        errors = [
            np.hypot(table["XWIN_IMAGE"][at] - 1 - truth.x[both], table["YWIN_IMAGE"][at] - 1 - truth.y[both])
            / peer["ERRAWIN_IMAGE"][theirs]
            for table, at in ((ours, rows), (peer, theirs))
        ]
        size = [np.sqrt(np.mean(np.minimum(error, 4.0) ** 2)) for error in errors]
        assert size[0] < 1.02 * size[1]
        assert np.median(ours["SNR_WIN"][rows] / peer["SNR_WIN"][theirs]) == pytest.approx(1.0, abs=0.03)
        assert np.median(ours["FLUX_RADIUS"][rows] / peer["FLUX_RADIUS"][theirs]) == pytest.approx(
            1.0, abs=0.03
        )
