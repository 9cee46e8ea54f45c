"""Jobs: files in, files out."""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from PIL import Image
from spica_imaging.ldac import read_ldac
from spica_quality import jobs
from spica_quality.policyfiles import load_policies
from spica_quality.stackwork import tiles
from spica_runtime.errors import NotRetriable, Retriable
from spica_runtime.storage import DataFolder, sha256_of

from tests.unit.quality.frames import Sky, draw, nearest

TUNING = jobs.Tuning(threshold_sigma=1.5, star_snr=20.0, background_box_px=128, cosmic_sigma=5.0)
SCALE = 0.186 / 3600.0


def tan(nx: int, ny: int, dx_px: float = 0.0, turned: bool = False) -> fits.Header:
    header = fits.Header()
    header["CTYPE1"], header["CTYPE2"] = "RA---TAN", "DEC--TAN"
    header["CRVAL1"], header["CRVAL2"] = 150.0, 2.0
    header["CRPIX1"], header["CRPIX2"] = 0.5 * (nx + 1) + dx_px, 0.5 * (ny + 1)
    sign = -1.0 if turned else 1.0
    header["CD1_1"], header["CD2_2"] = -sign * SCALE, sign * SCALE
    return header


def write_image(path: Path, skies: list[Sky], **cards: float | str) -> None:
    primary = fits.PrimaryHDU()
    primary.header.update(INSTRUME="MegaSim", EXPTIME=60.0, **cards)
    hdus: list[object] = [primary]
    for number, sky in enumerate(skies):
        ny, nx = sky.data.shape
        header = tan(nx, ny, (-1) ** number * 0.55 * nx, turned=bool(number % 2))
        header["EXTNAME"] = f"ccd{number:02d}"
        counts = np.clip(np.rint(sky.data), 0, 65535).astype(np.uint16)
        hdus.append(fits.CompImageHDU(counts, header, compression_type="RICE_1"))
    path.parent.mkdir(parents=True, exist_ok=True)
    fits.HDUList(hdus).writeto(path)


def image_order(data: DataFolder, n_ccds: int = 2, on_sky: bool = True) -> jobs.ImageOrder:
    return jobs.ImageOrder(
        data=data,
        image_id="900001p.0123456789ab",
        name="900001p",
        path="images/run/r/900001p.fits.fz",
        profile="megasim",
        profiles=None,
        n_ccds=n_ccds,
        on_sky=on_sky,
        exposure_time_s=60.0,
        label=("MegaSim", "filter r"),
        policies=load_policies(),
        tuning=TUNING,
    )


@pytest.fixture(scope="module")
def skies() -> list[Sky]:
    return [draw(n=60, shape=(400, 300), seed=1), draw(n=60, shape=(400, 300), seed=2)]


@pytest.fixture
def data(tmp_path: Path, skies: list[Sky]) -> DataFolder:
    folder = DataFolder(tmp_path)
    write_image(folder.path("images/run/r/900001p.fits.fz"), skies)
    return folder


def test_an_image_becomes_catalogue_weight_and_preview(data: DataFolder, skies: list[Sky]) -> None:
    why = "No astrometric offset is measured: gaia-dr3 is no file here."
    found = jobs.measure_image(replace(image_order(data), why_no_reference=why))
    assert found.notes == (why,) and found.figures["offset_ra_arcsec"] is None
    assert found.report is not None and why in data.path(found.report.path).read_text()
    assert found.grade == "A"
    assert found.reasons == ()
    assert found.metrics.fwhm_px == pytest.approx(4.0, rel=0.03)
    assert found.metrics.fwhm_arcsec == pytest.approx(4.0 * 0.186, rel=0.03)
    assert found.metrics.pixel_scale_arcsec == pytest.approx(0.186, rel=1e-3)
    assert found.metrics.limiting_mag is None
    assert [row["name"] for row in found.per_ccd] == ["ccd00", "ccd01"]
    assert found.weight is not None
    folder = "quality/900001p.0123456789ab"
    assert [found.catalogue.path, found.weight.path, found.preview.path] == [
        f"{folder}/900001p.ldac",
        f"{folder}/900001p.weight.fits.fz",
        f"{folder}/900001p.png",
    ]
    for product in (found.catalogue, found.weight, found.preview):
        assert sha256_of(data.path(product.path)) == product.sha256
    tables = read_ldac(data.path(found.catalogue.path))
    assert [table.header["EXTNAME"] for table in tables] == ["ccd00", "ccd01"]
    for table, sky in zip(tables, skies, strict=True):
        columns = table.columns
        _, distance = nearest(columns["XWIN_IMAGE"] - 1, columns["YWIN_IMAGE"] - 1, sky.x, sky.y)
        assert np.mean(distance < 0.3) > 0.9
        assert table.header["NAXIS1"] == 300
        assert table.header["CRVAL1"] == 150.0
        assert table.header["EXPTIME"] == 60.0


def test_the_weight_map_has_the_ccds_names_and_exact_zeros(tmp_path: Path, skies: list[Sky]) -> None:
    bad_column = skies[0].data.copy()
    bad_column[:, 77] = 0.0
    data = DataFolder(tmp_path)
    spoilt = [replace(skies[0], data=bad_column), skies[1]]
    write_image(data.path("images/run/r/900001p.fits.fz"), spoilt)
    found = jobs.measure_image(image_order(data))
    assert found.weight is not None
    with fits.open(data.path(found.weight.path)) as hdus:
        assert [hdu.header["EXTNAME"] for hdu in hdus[1:]] == ["ccd00", "ccd01"]
        assert hdus[0].data is None
        for hdu, sky in zip(hdus[1:], skies, strict=True):
            assert hdu.data.shape == sky.data.shape
            assert np.median(hdu.data) == pytest.approx(1.0 / sky.noise**2, rel=0.12)
            assert hdu.data.min() >= 0.0
        assert (hdus[1].data[:, 77] == 0.0).all()
        assert np.mean(hdus[1].data == 0.0) < 0.02


def test_a_bad_ccd_leaves_alone_though_another_has_its_name(tmp_path: Path) -> None:
    three = [draw(n=60, shape=(400, 300), seed=seed) for seed in (1, 2, 3)]
    three[1] = replace(three[1], data=np.full_like(three[1].data, 300.0))
    data = DataFolder(tmp_path)
    path = data.path("images/run/r/900001p.fits.fz")
    write_image(path, three)
    with fits.open(path, mode="update", memmap=False) as hdus:
        for hdu in hdus[1:]:
            hdu.header["EXTNAME"] = "CHIP"
    found = jobs.measure_image(image_order(data, n_ccds=3))
    assert found.weight is not None
    with fits.open(data.path(found.weight.path)) as hdus:
        assert [bool((hdu.data > 0).any()) for hdu in hdus[1:]] == [True, False, True]


def test_the_preview_is_a_picture(data: DataFolder) -> None:
    found = jobs.measure_image(image_order(data))
    with Image.open(data.path(found.preview.path)) as picture:
        assert picture.format == "PNG"
        assert picture.width == 900
        assert 300 < picture.height < 1300
        # Not a blank sheet.
        assert np.asarray(picture.convert("L")).std() > 10


def test_the_same_image_gives_the_same_bytes(data: DataFolder) -> None:
    first = jobs.measure_image(image_order(data))
    time.sleep(1.1)  # what hangs on the clock would show
    assert jobs.measure_image(image_order(data)) == first


def test_without_wcs_the_profile_tells_the_scale(data: DataFolder) -> None:
    found = jobs.measure_image(image_order(data, on_sky=False))
    assert found.metrics.pixel_scale_arcsec == 0.186


def test_a_nominal_zero_point_makes_a_limiting_magnitude(tmp_path: Path, skies: list[Sky]) -> None:
    own = tmp_path / "profiles"
    own.mkdir()
    (own / "zp.toml").write_text(
        'name = "zp"\ntitle = "zp"\n[match]\n[keywords]\nnominal_zeropoint = ["PHOT_C"]\n'
    )
    data = DataFolder(tmp_path)
    write_image(data.path("images/run/r/900001p.fits.fz"), skies, PHOT_C=26.0)
    found = jobs.measure_image(replace(image_order(data), profile="zp", profiles=own))
    assert found.metrics.limiting_flux_adu is not None
    expected = 26.0 - 2.5 * np.log10(found.metrics.limiting_flux_adu / 60.0)
    assert found.metrics.limiting_mag == pytest.approx(expected, abs=1e-3)


def test_a_ccd_without_light_does_not_spoil_the_others(tmp_path: Path, skies: list[Sky]) -> None:
    dead = replace(skies[1], data=np.full((400, 300), 7.0, np.float32))
    data = DataFolder(tmp_path)
    write_image(data.path("images/run/r/900001p.fits.fz"), [skies[0], dead])
    found = jobs.measure_image(image_order(data))
    assert found.per_ccd[1]["condition"] == "blank"
    assert found.per_ccd[1]["fwhm_px"] is None
    assert found.metrics.fwhm_px == pytest.approx(4.0, rel=0.03)
    assert {reason.code for reason in found.reasons} >= {"ccds_without_stars", "masked"}
    assert len(read_ldac(data.path(found.catalogue.path))[1]) == 0


def test_a_blank_image_is_d_and_has_all_its_products(tmp_path: Path, skies: list[Sky]) -> None:
    dead = replace(skies[1], data=np.full((400, 300), 7.0, np.float32))
    data = DataFolder(tmp_path)
    write_image(data.path("images/run/r/900001p.fits.fz"), [dead, dead])
    found = jobs.measure_image(image_order(data))
    assert (found.grade, [reason.code for reason in found.reasons]) == ("D", ["blank"])
    assert found.weight is not None
    assert all(data.path(p.path).is_file() for p in (found.catalogue, found.weight, found.preview))


def test_an_image_without_pixels_is_d(tmp_path: Path) -> None:
    data = DataFolder(tmp_path)
    path = data.path("images/run/r/900001p.fits.fz")
    path.parent.mkdir(parents=True)
    header = fits.Header([("NAXIS", 2), ("NAXIS1", 0), ("NAXIS2", 300)])
    fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(np.zeros((300, 0), np.int16), header)]).writeto(path)
    found = jobs.measure_image(image_order(data))
    assert (found.grade, [reason.code for reason in found.reasons]) == ("D", ["no_pixels"])


def test_an_absent_file_may_come_back(data: DataFolder) -> None:
    with pytest.raises(Retriable, match="is not there") as caught:
        jobs.measure_image(replace(image_order(data), path="images/absent.fits"))
    assert caught.value.code == "frame_missing"


def test_a_damaged_file_is_told_and_leaves_no_half_product(data: DataFolder) -> None:
    path = data.path("images/run/r/900001p.fits.fz")
    path.write_bytes(b"SIMPLE  = nonsense" * 400)
    with pytest.raises(NotRetriable) as caught:
        jobs.measure_image(image_order(data))
    assert caught.value.code == "unreadable_frame"
    assert not [left for left in data.path("quality").rglob("*") if left.is_file()]


def test_an_unknown_profile_is_told(data: DataFolder) -> None:
    with pytest.raises(NotRetriable, match="known are") as caught:
        jobs.measure_image(replace(image_order(data), profile="absent"))
    assert caught.value.code == "unknown_profile"


# ---- stacks ----


def write_stack(data: DataFolder, sky: Sky) -> None:
    ny, nx = sky.data.shape
    header = tan(nx, ny)
    header["GAIN"] = 0.0
    folder = data.path("stacks/s1")
    folder.mkdir(parents=True)
    weight = np.full(sky.data.shape, 0.5, np.float32)
    weight[:40] = 0.0
    pixels = np.where(weight > 0, sky.data - np.float32(300.0), np.float32(0.0))
    fits.PrimaryHDU(pixels, header).writeto(folder / "deep.fits")
    fits.PrimaryHDU(weight, header).writeto(folder / "deep.weight.fits")


def stack_order(data: DataFolder, tile_px: int = 4096) -> jobs.StackOrder:
    return jobs.StackOrder(
        data=data,
        stack_id="s1",
        name="deep",
        image="stacks/s1/deep.fits",
        weight="stacks/s1/deep.weight.fits",
        profile="megasim",
        zeropoint_mag=30.0,
        label=("stack of 3 exposures",),
        policies=load_policies(),
        tuning=TUNING,
        tile_px=tile_px,
    )


@pytest.fixture(scope="module")
def stack_sky() -> Sky:
    return draw(n=200, shape=(620, 900), seed=5)


def test_a_stack_becomes_a_catalogue_with_sky_positions_and_magnitudes(
    tmp_path: Path, stack_sky: Sky
) -> None:
    data = DataFolder(tmp_path)
    write_stack(data, stack_sky)
    found = jobs.measure_stack(stack_order(data))
    assert found.grade == "A"
    assert found.weight is None
    assert [found.catalogue.path, found.preview.path] == ["stacks/s1/deep.ldac", "stacks/s1/deep.png"]
    assert found.metrics.fwhm_px == pytest.approx(4.0, rel=0.03)
    assert found.metrics.limiting_flux_adu is not None
    expected = 30.0 - 2.5 * np.log10(found.metrics.limiting_flux_adu)
    assert found.metrics.limiting_mag == pytest.approx(expected, abs=1e-3)
    (table,) = read_ldac(data.path(found.catalogue.path))
    columns = table.columns
    assert len(found.sources) == len(table) == found.metrics.n_sources
    assert columns["Y_IMAGE"].min() > 40
    # RA and Dec by the small-angle formula at this declination: good to 0.01 px so close to the centre.
    x = 450.5 - (columns["ALPHAWIN_J2000"] - 150.0) * np.cos(np.radians(columns["DELTAWIN_J2000"])) / SCALE
    y = 310.5 + (columns["DELTAWIN_J2000"] - 2.0) / SCALE
    assert x == pytest.approx(columns["XWIN_IMAGE"], abs=0.02)
    assert y == pytest.approx(columns["YWIN_IMAGE"], abs=0.02)
    bright = columns["FLUX_AUTO"] > 1e4
    assert columns["MAG_AUTO"][bright] == pytest.approx(
        30.0 - 2.5 * np.log10(columns["FLUX_AUTO"][bright]), abs=1e-3
    )
    number, ra, dec, mag, mag_error, fwhm, ellipticity, flags = found.sources[0]
    assert (number, flags) == (1, int(columns["FLAGS"][0]))
    assert (ra, dec) == (columns["ALPHAWIN_J2000"][0], columns["DELTAWIN_J2000"][0])
    assert mag == pytest.approx(float(columns["MAG_AUTO"][0]))
    assert None not in (mag_error, fwhm, ellipticity)


def test_tiles_find_the_same_sources_once(tmp_path: Path, stack_sky: Sky) -> None:
    data = DataFolder(tmp_path)
    write_stack(data, stack_sky)
    whole = jobs.measure_stack(stack_order(data))
    reference = read_ldac(data.path(whole.catalogue.path))[0].columns
    tiled = jobs.measure_stack(stack_order(data, tile_px=320))
    columns = read_ldac(data.path(tiled.catalogue.path))[0].columns
    assert len(tiled.per_ccd) == 6
    assert np.array_equal(columns["NUMBER"], np.arange(1, len(columns["NUMBER"]) + 1))
    bright = reference["FLUX_AUTO"] > 1e4
    _, distance = nearest(
        columns["XWIN_IMAGE"],
        columns["YWIN_IMAGE"],
        reference["XWIN_IMAGE"][bright],
        reference["YWIN_IMAGE"][bright],
    )
    assert (distance < 0.05).all()
    for name in ("X", "Y"):  # all places are in the stack's own pixels, not in the tiles'
        assert (columns[f"{name}MIN_IMAGE"] <= columns[f"{name}PEAK_IMAGE"]).all()
        assert (np.abs(columns[f"{name}PEAK_IMAGE"] - columns[f"{name}_IMAGE"]) < 30).all()
        assert (columns[f"{name}PEAK_IMAGE"] <= columns[f"{name}MAX_IMAGE"]).all()
    again = np.count_nonzero(columns["FLUX_AUTO"] > 1e4)
    assert again == pytest.approx(np.count_nonzero(bright), abs=2)
    assert tiled.metrics.fwhm_px == pytest.approx(whole.metrics.fwhm_px, rel=0.02)
    # What lies in the overlaps counts once.
    assert tiled.metrics.n_sources == len(columns["NUMBER"]) == len(tiled.sources)
    assert tiled.metrics.n_stars == np.count_nonzero(columns["SPICA_STAR"])
    assert tiled.figures["n_pixels"] == whole.figures["n_pixels"] == 620 * 900
    assert tiled.figures["n_usable"] == pytest.approx(whole.figures["n_usable"], rel=1e-3)


def test_tiles_that_no_exposure_covers_do_not_count(tmp_path: Path, stack_sky: Sky) -> None:
    data = DataFolder(tmp_path)
    write_stack(data, stack_sky)
    weight = data.path("stacks/s1/deep.weight.fits")
    with fits.open(weight, mode="update", memmap=False) as hdus:
        hdus[0].data[:310, :300] = 0.0
    found = jobs.measure_stack(stack_order(data, tile_px=320))
    assert [row["name"] for row in found.per_ccd] == ["300+0", "600+0", "0+310", "300+310", "600+310"]
    assert [row["hdu"] for row in found.per_ccd] == [0, 1, 2, 3, 4]
    assert (found.figures["n_ccds"], found.figures["n_ccds_blank"]) == (5, 0)


@pytest.mark.parametrize(("nx", "ny", "side"), [(900, 620, 320), (4096, 4096, 4096), (5000, 300, 4096)])
def test_tiles_cover_every_pixel_once(nx: int, ny: int, side: int) -> None:
    count = np.zeros((ny, nx), np.int32)
    for tile in tiles(nx, ny, side):
        count[tile.core.slices] += 1
        assert tile.core.x1 - tile.core.x0 <= side
        assert tile.seen.x0 <= tile.core.x0 < tile.core.x1 <= tile.seen.x1 <= nx
        assert tile.seen.y0 <= tile.core.y0 < tile.core.y1 <= tile.seen.y1 <= ny
    assert (count == 1).all()


def test_the_service_starts_without_numerical_libraries() -> None:
    heavy = "numba sep scipy matplotlib astropy"
    script = (
        "import sys, spica_quality.service, spica_quality.settings\n"
        f"print([name for name in '{heavy}'.split() if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


ESCAPES = ["../../escaped", "/escaped", "a/b", "..\\b", "..", "", "a\0b", "a\nb"]


@pytest.mark.parametrize("name", ESCAPES)
def test_names_and_ids_of_messages_lead_nowhere_else(data: DataFolder, name: str) -> None:
    before = {path for path in data.root.parent.rglob("*") if path.is_file()}
    for change in ({"name": name}, {"image_id": name}):
        with pytest.raises(NotRetriable) as caught:
            jobs.measure_image(replace(image_order(data), **change))
        assert caught.value.code == "unsafe_name"
    with pytest.raises(NotRetriable) as caught:
        jobs.measure_stack(stack_order_named(data, name))
    assert caught.value.code == "unsafe_name"
    assert {path for path in data.root.parent.rglob("*") if path.is_file()} == before


def stack_order_named(data: DataFolder, name: str) -> jobs.StackOrder:
    return jobs.StackOrder(
        data=data,
        stack_id="s1",
        name=name,
        image="stacks/s1/a.fits",
        weight="stacks/s1/a.weight.fits",
        profile=None,
        zeropoint_mag=30.0,
        label=(),
        policies=load_policies(),
        tuning=TUNING,
        tile_px=4096,
    )


def test_a_link_in_the_data_folder_does_not_lead_out_of_it(
    data: DataFolder, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The file's own place is looked at, not only its folder's."""
    outside = tmp_path_factory.mktemp("outside") / "victim"
    outside.write_text("kept")
    link = data.root / "quality/900001p.0123456789ab/900001p.weight.fits.fz"
    link.parent.mkdir(parents=True)
    link.symlink_to(outside)
    with pytest.raises(NotRetriable) as caught:
        jobs.measure_image(image_order(data))
    assert caught.value.code == "path_outside_data"
    assert outside.read_text() == "kept"
