"""Models of the point spread function, as other programs read them."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from scipy.spatial import cKDTree
from spica_imaging.ldac import LdacTable, read_ldac, write_ldac
from spica_quality.psffile import read_psfex, write_psfex
from spica_quality.science.psf.model import PsfModel

from tests.support.ccdsim import Exposure, PsfField, Recipe, simulate, small
from tests.support.realdata import peer_program
from tests.unit.quality.psfscenes import Scene, scene_of

TRUTH = PsfField(fwhm_px=4.4, e1=(0.02, 0.03, -0.01), e2=(0.0, 0.01, 0.03), fwhm_slope=(0.05, -0.03))


@pytest.fixture(scope="module")
def exposure() -> Exposure:
    return simulate(small(Recipe(psf=TRUTH, bleed=False), n_stars=350, n_galaxies=300), seed=3)


@pytest.fixture(scope="module")
def scene(exposure: Exposure) -> Scene:
    return scene_of(exposure)


@pytest.fixture(scope="module")
def models(scene: Scene) -> list[PsfModel]:
    """One of each degree."""
    made = [scene.measure(degree=degree).model for degree in range(4)]
    assert None not in made
    return [model for model in made if model is not None]


def test_what_is_written_is_read_back(tmp_path: Path, models: list[PsfModel]) -> None:
    path = tmp_path / "image.psf"
    given = [*((f"ccd{number:02}", model) for number, model in enumerate(models)), ("dead", None)]
    write_psfex(path, given)
    first = path.read_bytes()
    found = read_psfex(path)
    assert [name for name, _ in found] == ["ccd00", "ccd01", "ccd02", "ccd03", "dead"]
    assert found[-1][1] is None
    for (_, before), (_, after) in zip(given[:-1], found, strict=False):
        assert before is not None
        assert after is not None
        for place in ((100.3, 900.7), (512.0, 512.0)):
            star = before.at(*place)
            np.testing.assert_allclose(after.at(*place, len(star)), star, atol=3e-4 * star.max())
        assert after.zero == pytest.approx(before.zero)
        assert after.scale == pytest.approx(before.scale)
        assert (after.degree, after.n_stars, after.n_candidates) == (
            before.degree,
            before.n_stars,
            before.n_candidates,
        )
    write_psfex(path, given)
    assert path.read_bytes() == first


def test_other_files_are_refused(tmp_path: Path, models: list[PsfModel]) -> None:
    fits.PrimaryHDU(np.zeros((4, 4))).writeto(tmp_path / "no.psf")
    with pytest.raises(ValueError, match="no PSF_DATA table"):
        read_psfex(tmp_path / "no.psf")
    write_psfex(tmp_path / "other.psf", [("a", models[2])])
    with fits.open(tmp_path / "other.psf", mode="update") as hdus:
        hdus[1].header["POLNAME2"] = "MAG_AUTO"
    with pytest.raises(ValueError, match="varies with X_IMAGE, MAG_AUTO; expected X_IMAGE and Y_IMAGE"):
        read_psfex(tmp_path / "other.psf")
    write_psfex(tmp_path / "short.psf", [("a", models[2])])
    with fits.open(tmp_path / "short.psf", mode="update") as hdus:
        hdus[1].header["POLDEG1"] = 3
    with pytest.raises(ValueError, match="degree 3 has 10 square planes"):
        read_psfex(tmp_path / "short.psf")


def test_galsim_draws_the_same_star(tmp_path: Path, models: list[PsfModel]) -> None:
    """What is read is the same to 1e-3 of the peak: the file's values drawn with galsim's own interpolation.

    Between the file's values, galsim puts plain Lanczos-3 and Spica splines: that may differ by 0.6 % of the peak.
    """
    galsim = pytest.importorskip("galsim")
    des = pytest.importorskip("galsim.des")
    for model in models:
        write_psfex(tmp_path / "image.psf", [("a", model)])
        theirs = des.DES_PSFEx(str(tmp_path / "image.psf"))
        for x, y in ((100.3, 900.2), (512.0, 500.5), (900.45, 50.7)):
            profile = theirs.getPSF(galsim.PositionD(x + 1.0, y + 1.0))
            ours, plain = model.at(x, y), plainly_drawn(model, x, y)
            offset = (x - np.floor(x + 0.5), y - np.floor(y + 0.5))
            drawn = profile.drawImage(
                nx=len(ours), ny=len(ours), scale=1.0, method="no_pixel", offset=offset
            ).array
            assert np.abs(plain - drawn).max() < 1e-3 * drawn.max()
            assert np.abs(ours - drawn).max() < 6e-3 * drawn.max()


def plainly_drawn(model: PsfModel, x: float, y: float) -> np.ndarray:
    """The model's values at its points, with Lanczos-3 between them."""
    values, size = model.samples(x, y).astype(np.float64), model.full_size
    m, step = len(values), model.step_px

    def weights(shift: float) -> np.ndarray:
        t = ((np.arange(size) - size // 2 - shift) / step + m // 2)[:, None] - np.arange(-3, m + 3)[None, :]
        found = np.sinc(t) * np.sinc(t / 3.0) * (np.abs(t) < 3.0)
        return (found / np.maximum(found.sum(axis=1, keepdims=True), 0.5))[:, 3:-3]

    dx, dy = x - np.floor(x + 0.5), y - np.floor(y + 0.5)
    return np.asarray(weights(dy) @ (values / values.sum()) @ weights(dx).T / step**2)


def test_source_extractor_measures_fluxes_with_it(
    tmp_path: Path, exposure: Exposure, models: list[PsfModel]
) -> None:
    """PSF magnitudes by source-extractor with our model are those that were drawn."""
    program = peer_program("source-extractor", "sex")
    fits.writeto(tmp_path / "image.fits", exposure.data)
    write_psfex(tmp_path / "image.psf", [("a", models[2])])
    names = ["X_IMAGE", "Y_IMAGE", "XPSF_IMAGE", "YPSF_IMAGE", "FLUX_PSF", "FLUXERR_PSF", "FLAGS"]
    (tmp_path / "columns").write_text("\n".join(names) + "\n")
    (tmp_path / "filter").write_text("CONV NORM\n1 2 1\n2 4 2\n1 2 1\n")
    options = {
        "PARAMETERS_NAME": "columns",
        "FILTER_NAME": "filter",
        "CATALOG_NAME": "found.cat",
        "CATALOG_TYPE": "FITS_LDAC",
        "PSF_NAME": "image.psf",
        "GAIN": "1.62",
        "SATUR_LEVEL": "60000",
        "BACK_SIZE": "128",
        "DETECT_THRESH": "10",
        "HEADER_SUFFIX": ".none",
        "VERBOSE_TYPE": "QUIET",
    }
    arguments = [word for name, value in options.items() for word in (f"-{name}", value)]
    done = subprocess.run(
        [program, "image.fits", "-c", "/dev/null", *arguments],
        cwd=tmp_path,
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    (table,) = read_ldac(tmp_path / "found.cat")
    columns, truth = table.columns, exposure.truth
    stars = truth.is_star & (truth.flux > 2e4) & (truth.flux < 1e6)
    tree = cKDTree(np.column_stack([truth.x, truth.y])[stars])
    found = np.column_stack([columns["XPSF_IMAGE"], columns["YPSF_IMAGE"]]) - 1.0
    distance, index = tree.query(found)
    good = (distance < 0.2) & (columns["FLAGS"] == 0)
    assert np.count_nonzero(good) > 40
    ratio = columns["FLUX_PSF"][good] / truth.flux[stars][index[good]]
    assert np.median(ratio) == pytest.approx(1.0, abs=0.01)
    assert 1.4826 * np.median(np.abs(ratio - np.median(ratio))) < 0.02
    assert np.median(distance[good]) < 0.04


def test_a_model_of_psfex_is_read(tmp_path: Path, scene: Scene) -> None:
    """And it is a worse description of no star than ours is, but the same star."""
    program = peer_program("psfex")
    ours = scene.measure(degree=2)
    assert ours.model is not None
    chosen = np.flatnonzero(ours.accepted)
    x, y = scene.moments.x[chosen], scene.moments.y[chosen]
    size = 35
    flux = np.empty(len(chosen), np.float32)
    vignettes = np.full((len(chosen), size, size), -1e30, np.float32)
    padded = np.pad(scene.data, size, constant_values=-1e30)
    for k, (x0, y0) in enumerate(zip(x, y, strict=True)):
        i, j = int(x0 + 0.5) + size - size // 2, int(y0 + 0.5) + size - size // 2
        vignettes[k] = padded[j : j + size, i : i + size]
        inner = vignettes[k][9:-9, 9:-9]
        flux[k] = inner[inner > -1e29].sum()
    columns = {
        "X_IMAGE": x + 1.0,
        "Y_IMAGE": y + 1.0,
        "FLUX_APER": flux,
        "FLUXERR_APER": np.full_like(flux, 10.0 * size),
        "FLUX_RADIUS": np.full_like(flux, 2.6),
        "ELONGATION": np.ones_like(flux),
        "FLAGS": np.zeros(len(flux), np.int16),
        "SNR_WIN": scene.moments.snr[chosen].astype(np.float32),
        "VIGNET": vignettes,
    }
    header = fits.Header(
        [("NAXIS1", 1024), ("NAXIS2", 1024), ("SEXBKDEV", float(scene.rms.mean())), ("SEXGAIN", scene.gain)]
    )
    write_ldac(tmp_path / "stars.cat", [LdacTable(header, columns)])
    quiet = [
        "-CHECKPLOT_TYPE",
        "NONE",
        "-CHECKIMAGE_TYPE",
        "NONE",
        "-WRITE_XML",
        "N",
        "-VERBOSE_TYPE",
        "QUIET",
    ]
    done = subprocess.run(
        [program, "stars.cat", "-c", "/dev/null", *quiet],
        cwd=tmp_path,
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    ((_, peer),) = read_psfex(tmp_path / "stars.psf")
    assert peer is not None
    for place in ((300.0, 300.0), (512.0, 512.0), (800.0, 700.0)):
        mine, theirs = ours.model.at(*place, 21), peer.at(*place, 21)
        assert np.abs(mine / mine.sum() - theirs / theirs.sum()).max() < 0.04 * mine.max()
