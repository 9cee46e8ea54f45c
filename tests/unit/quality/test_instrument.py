"""Master masks, flats and masks that travel with an image: whichever way round, in whatever layout."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from hypothesis import given, settings
from hypothesis import strategies as st
from spica_imaging.frame import Ccd, iter_ccds, make_ccd
from spica_imaging.profiles import load_profiles
from spica_imaging.sections import Section
from spica_proto.base import Product
from spica_quality.auxiliaries import CalibrationFrame, Misfit
from spica_quality.instrument import InstrumentWord
from spica_quality.science.flags import Bit
from spica_quality.science.masking import marking as masks
from spica_quality.science.masking.instrumentmask import flat_field, mark_masked
from spica_runtime.storage import DataFolder, sha256_of

from tests.support.realdata import real_data

PROFILES = load_profiles()
SHAPE = (60, 50)
SECTION = Section(4, 46, 0, 55)


def ccd(
    name: str = "ccd01", shape: tuple[int, int] = SHAPE, section: Section = SECTION, **cards: object
) -> Ccd:
    header = fits.Header({"EXTNAME": name, **cards})
    header["DATASEC"] = f"[{section.x0 + 1}:{section.x1},{section.y0 + 1}:{section.y1}]"
    return make_ccd(2, np.ones(shape, np.float32), header, PROFILES["megacam"])


def spots(seed: int = 0, shape: tuple[int, int] = SHAPE) -> np.ndarray:
    return np.random.default_rng(seed).random(shape) < 0.05


def write(path: Path, *planes: np.ndarray, names: tuple[str, ...] = (), packed: bool = False) -> Path:
    hdus: list[object] = [fits.PrimaryHDU()]
    for index, plane in enumerate(planes):
        kind = fits.CompImageHDU if packed else fits.ImageHDU
        hdu = kind(plane)
        if names:
            hdu.header["EXTNAME"] = names[index]
        hdus.append(hdu)
    fits.HDUList(hdus).writeto(path)
    return path


def masked(path: Path, one: Ccd, place: int = 1, n_ccds: int = 3) -> np.ndarray:
    flags = masks.initial_flags(one.data, one.section)
    with CalibrationFrame(path) as frame:
        mark_masked(frame.plane(one, place, n_ccds), flags, one.section)
    return (flags & Bit.MASKED) != 0


def expected(bad: np.ndarray) -> np.ndarray:
    inside = np.zeros(SHAPE, bool)
    inside[SECTION.slices] = True
    return bad & inside


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("good", [0, 1])
@pytest.mark.parametrize("suffix", [".fits", ".fits.gz"])
def test_masks_either_way_round_plain_compressed_or_packed(
    tmp_path: Path, packed: bool, good: int, suffix: str
) -> None:
    planes = [np.where(spots(seed), 1 - good, good).astype(np.int16) for seed in range(3)]
    path = write(tmp_path / f"mask{suffix}", *planes, packed=packed, names=("ccd02", "ccd01", "ccd00"))
    np.testing.assert_array_equal(masked(path, ccd("ccd01")), expected(spots(1)))
    np.testing.assert_array_equal(masked(path, ccd("ccd02")), expected(spots(0)))  # by name, not by place


def test_planes_without_names_go_by_their_order(tmp_path: Path) -> None:
    path = write(tmp_path / "mask.fits", *(spots(seed).astype(np.uint8) for seed in range(3)))
    np.testing.assert_array_equal(masked(path, ccd(), place=2), expected(spots(2)))


def test_a_trimmed_mask_lies_on_the_light_sensitive_section(tmp_path: Path) -> None:
    bad = spots(5, (55, 42))
    path = write(tmp_path / "mask.fits", bad.astype(np.uint8))
    found = masked(path, ccd(), place=0, n_ccds=1)
    np.testing.assert_array_equal(found[SECTION.slices], bad)
    assert np.count_nonzero(found) == np.count_nonzero(bad)


@pytest.mark.parametrize(
    ("detsec", "index"),
    [
        ("[43:84,56:110]", np.s_[55:110, 42:84]),
        ("[84:43,56:110]", np.s_[55:110, 83:41:-1]),
        ("[84:43,110:56]", np.s_[109:54:-1, 83:41:-1]),
        ("[42:1,55:1]", np.s_[54::-1, 41::-1]),
    ],
)
def test_a_mosaic_is_cut_where_detsec_says_turned_as_it_says(
    tmp_path: Path, detsec: str, index: object
) -> None:
    mosaic = spots(8, (110, 126))
    path = write(tmp_path / "mask.fits", mosaic.astype(np.int32), packed=True)
    found = masked(path, ccd(DETSEC=detsec))
    np.testing.assert_array_equal(found[SECTION.slices], mosaic[index])  # type: ignore[index]


def test_what_does_not_fit_is_said_with_numbers(tmp_path: Path) -> None:
    small = write(tmp_path / "small.fits", np.zeros((10, 20), np.uint8))
    with pytest.raises(Misfit, match=r"calibration_geometry.*small.fits.*20x10 pixels.*50x60"):
        masked(small, ccd())
    two = write(tmp_path / "two.fits", *(np.zeros(SHAPE, np.uint8) for _ in range(2)))
    with pytest.raises(Misfit, match=r"calibration_planes.*2 planes.*named ccd01, 3 in the order"):
        masked(two, ccd())
    with pytest.raises(Misfit, match=r"calibration_geometry.*DETSEC \[100:141,1:55\]"):
        masked(write(tmp_path / "mosaic.fits", np.zeros((110, 126), np.uint8)), ccd(DETSEC="[100:141,1:55]"))
    (tmp_path / "bad.fits").write_bytes(b"nothing of the kind")
    with pytest.raises(Misfit, match="calibration_unreadable"):
        CalibrationFrame(tmp_path / "bad.fits")


def test_a_mask_of_one_value_masks_nothing(tmp_path: Path) -> None:
    for value in (0, 1):
        path = write(tmp_path / f"{value}.fits", np.full(SHAPE, value, np.int16))
        assert not masked(path, ccd(), 0, 1).any()


def test_a_single_bad_pixel_is_seen_wherever_it_is(tmp_path: Path) -> None:
    shape, section = (700, 40), Section(0, 40, 0, 700)
    plane = np.ones(shape, np.int16)
    plane[333, 7] = 0
    path = write(tmp_path / "mask.fits", plane)
    found = masked(path, ccd(shape=shape, section=section), 0, 1)
    assert np.argwhere(found).tolist() == [[333, 7]]


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_bits_of_masks_become_flags_as_told(seed: int) -> None:
    random = np.random.default_rng(seed)
    values = random.integers(0, 64, SHAPE).astype(np.float32)
    values[random.random(SHAPE) < 0.05] = np.nan

    class Plane:
        shape, over = SHAPE, Section(0, 50, 0, 60)

        def rows(self, y0: int, y1: int) -> np.ndarray:
            return values[y0:y1]

    flags = np.zeros(SHAPE, np.uint16)
    mark_masked(Plane(), flags, SECTION, {1: 256, 2: 4, 16: 32})
    for j in range(SHAPE[0]):
        for i in range(SHAPE[1]):
            inside = SECTION.y0 <= j < SECTION.y1 and SECTION.x0 <= i < SECTION.x1
            value = int(values[j, i]) if inside and np.isfinite(values[j, i]) else 0
            bits = (256 if value & 1 else 0) | (4 if value & 2 else 0) | (32 if value & 16 else 0)
            assert flags[j, i] == bits


# ---- flats ----


def test_a_flat_is_taken_relative_to_its_surroundings_and_masks_what_has_no_light(tmp_path: Path) -> None:
    shape, section = (400, 500), Section(20, 480, 0, 390)
    x = np.arange(shape[1])[None, :]
    smooth = 12_000.0 * (1.0 - 0.3 * ((x - 250) / 250.0) ** 2)
    pixels = smooth * np.random.default_rng(1).normal(1.0, 0.01, shape)
    pixels[100, 200], pixels[101, 200], pixels[102, 200] = 600.0, 0.6 * smooth[0, 200], np.nan
    path = write(tmp_path / "flat.fits", pixels.astype(np.float32))
    one = ccd(shape=shape, section=section)
    flags = masks.initial_flags(one.data, section)
    with CalibrationFrame(path) as frame:
        flat = flat_field(frame.plane(one, 0, 1), flags, section)
        assert flat is not None
        assert flat.typical == pytest.approx(11_000, rel=0.05)
        assert np.argwhere(flags & Bit.MASKED).tolist() == [[100, 200], [102, 200]]
        rows = flat.relative_rows(90, 390)
    inside = rows[:, 40:460]
    assert rows[11, 200] == pytest.approx(0.6, abs=0.01)
    assert np.nanmean(inside) == pytest.approx(1.0, abs=0.01)
    assert np.nanstd(inside - 1.0) < 0.03


def test_a_flat_of_nothing_is_no_flat(tmp_path: Path) -> None:
    path = write(tmp_path / "flat.fits", np.zeros(SHAPE, np.float32))
    one = ccd()
    with CalibrationFrame(path) as frame:
        assert flat_field(frame.plane(one, 0, 1), np.zeros(SHAPE, np.uint16), SECTION) is None


# ---- together ----


def product(path: Path, root: Path, kind: str) -> Product:
    return Product(
        path=path.relative_to(root).as_posix(),
        sha256=sha256_of(path),
        size_bytes=path.stat().st_size,
        kind=kind,
    )


def test_what_was_used_and_what_was_not_is_told(tmp_path: Path) -> None:
    image = write(tmp_path / "image.fits", np.ones(SHAPE, np.float32))
    mask = write(tmp_path / "mask.fits", spots(3).astype(np.uint8))
    flat = write(tmp_path / "flat.fits", np.ones((5, 5), np.float32))
    files = {"mask": product(mask, tmp_path, "mask"), "flat": product(flat, tmp_path, "flat")}
    one = ccd()
    flags = masks.initial_flags(one.data, one.section)
    with InstrumentWord(image, PROFILES["megacam"], 1, DataFolder(tmp_path), files) as word:
        assert word.mark(one, 0, flags) is None
        assert word.used == (files["mask"],)
        assert any(note.startswith("calibration_geometry: flat.fits") for note in word.notes)
        assert "mask: bad pixels are nonzero" in word.notes
    np.testing.assert_array_equal((flags & Bit.MASKED) != 0, expected(spots(3)))


def test_a_real_mosaic_mask_of_36_ccds() -> None:
    path = real_data("megacam/2004B.mask.0.36.01.fits.gz")
    section = Section(32, 2080, 0, 4612)
    one = ccd("ccd03", (4644, 2112), section)
    flags = masks.initial_flags(one.data, section)
    with CalibrationFrame(path) as frame:
        assert len(frame) == 36
        reading = mark_masked(frame.plane(one, 3, 36), flags, section)
    assert reading.bad_is == "zero"
    assert 1000 < reading.n_bad == np.count_nonzero(flags & Bit.MASKED) < 0.05 * 2048 * 4612


def test_a_real_mask_and_weight_that_travel_in_the_file() -> None:
    path = real_data("decam/DECam_00241238_01.fits.fz")
    profile = PROFILES["decam"]
    (one,) = iter_ccds(path, profile)
    flags = masks.initial_flags(one.data, one.section)
    with InstrumentWord(path, profile, 1, DataFolder(path.parent)) as word:
        word.mark(one, 0, flags)
    with fits.open(path) as hdus:
        weight, bits = hdus[3].data, hdus[2].data.astype(np.int64) - 32768 * (hdus[2].data.min() >= 32768)
    # What the observatory gives no weight is flagged, the halos of its bright stars are not.
    np.testing.assert_array_equal(flags != 0, weight == 0)
    assert (flags[(bits & 2) != 0] & Bit.SATURATED).all()
    assert (flags[(bits & 16) != 0] & Bit.COSMIC).all()
    assert not flags[bits == 32].any()


def test_planes_are_read_in_several_threads_at_a_time(tmp_path: Path) -> None:
    """They share the file, and with it the place from which it is read."""
    shape, section = (1500, 400), Section(0, 400, 0, 1500)
    planes = [np.full(shape, number, np.int16) for number in range(4)]
    path = write(tmp_path / "mask.fits", *planes, names=tuple(f"ccd{number:02d}" for number in range(4)))

    def read(frame: CalibrationFrame, number: int) -> bool:
        plane = frame.plane(ccd(f"ccd{number:02d}", shape, section), number, 4)
        return all((plane.rows(y, y + 10) == number).all() for y in range(0, 1500, 10))

    with CalibrationFrame(path) as frame, ThreadPoolExecutor(4) as pool:
        assert all(pool.map(lambda number: read(frame, number % 4), range(16)))
