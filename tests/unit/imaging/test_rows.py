"""Images read by rows: the values that whole frames have, to the bit, whichever rows and columns are asked for."""

from __future__ import annotations

import bz2
import gzip
import pickle
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from spica_imaging import frame
from spica_imaging.frame import ccd_name, is_sky, iter_ccds
from spica_imaging.keeping import Kept
from spica_imaging.openfiles import OpenFiles
from spica_imaging.profiles import load_profiles
from spica_imaging.rows import Place, RowFile, WholeRows, read_rows

from tests.support.realdata import real_data

GENERIC = load_profiles()["generic"]
NY, NX = 53, 71

Make = Callable[[NDArray[Any]], fits.ImageHDU | fits.CompImageHDU]


def plain(kind: str, **cards: Any) -> Make:
    """An image of numbers of this kind as they are stored; the cards say what they mean."""

    def make(pixels: NDArray[Any]) -> fits.ImageHDU:
        hdu = fits.ImageHDU(pixels.astype(kind))
        hdu.header.update(cards)
        return hdu

    return make


def unsigned(kind: str) -> Make:
    return lambda pixels: fits.ImageHDU(pixels.astype(kind))


def packed(kind: str, how: str, tile: tuple[int, int] = (1, NX), **options: Any) -> Make:
    def make(pixels: NDArray[Any]) -> fits.CompImageHDU:
        values = pixels.astype(kind)
        if kind.startswith("f"):
            values[3:5, 7:9] = np.nan
        return fits.CompImageHDU(values, compression_type=how, tile_shape=tile, **options)

    return make


KINDS: dict[str, Make] = {
    "bytes": plain("u1"),
    "signed bytes": unsigned("i1"),
    "bytes scaled": plain("u1", BSCALE=0.1, BZERO=3.3, BLANK=100),
    "short": plain("i2"),
    "short scaled": plain("i2", BSCALE=0.013, BZERO=-7.25),
    "short scaled with blank": plain("i2", BSCALE=0.013, BZERO=-7.25, BLANK=101),
    "short with blank": plain("i2", BLANK=101),
    "short with blank 0": plain("i2", BLANK=0),
    "unsigned short": unsigned("u2"),
    "long": plain("i4"),
    "long scaled": plain("i4", BSCALE=1e-3, BZERO=1e6, BLANK=99),
    "unsigned long": unsigned("u4"),
    "64 bits": plain("i8"),
    "unsigned 64 bits": unsigned("u8"),
    "float": plain("f4"),
    "float scaled": plain("f4", BSCALE=2.7, BZERO=0.1),
    "double": plain("f8"),
    "double scaled": plain("f8", BSCALE=2.7),
    "rice short": packed("i2", "RICE_1"),
    "rice short, tiles of 16 rows": packed("i2", "RICE_1", (16, NX)),
    "rice unsigned": packed("u2", "RICE_1", (5, NX)),
    "rice long, square tiles": packed("i4", "RICE_1", (20, 30)),
    "quantized": packed("f4", "RICE_1", quantize_level=8),
    "quantized with dither": packed("f4", "RICE_1", (7, NX), quantize_level=8, quantize_method=1, dither_seed=11),
    "quantized with dither 2": packed("f4", "RICE_1", quantize_level=8, quantize_method=2, dither_seed=3),
    "gzip": packed("i4", "GZIP_1", (10, NX)),
    "gzip 2, lossless": packed("f4", "GZIP_2", quantize_level=0),
    "not compressed": packed("i2", "NOCOMPRESS"),
    "one tile": packed("i2", "RICE_1", (NY, NX)),
    "hcompress": packed("i2", "HCOMPRESS_1", (16, NX)),
    "plio": packed("i2", "PLIO_1"),
}  # fmt: skip


def pixels_of(seed: int) -> NDArray[np.float64]:
    pixels = np.random.default_rng(seed).normal(100, 9, (NY, NX)).round(3)
    pixels[10, 10:20] = 0
    return np.clip(pixels, 0, 127)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


def written(folder: Path, make: Make, *, ccds: int = 2) -> Path:
    path = folder / "frame.fits"
    hdus = [fits.PrimaryHDU()]
    for ccd in range(ccds):
        hdu = make(pixels_of(ccd))
        hdu.header["EXTNAME"] = f"c{ccd}"
        hdus.append(hdu)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", fits.verify.VerifyWarning)
        fits.HDUList(hdus).writeto(path)
    return path


def same(found: NDArray[np.float32], wanted: NDArray[np.float32]) -> None:
    assert found.dtype == np.float32 and found.shape == wanted.shape
    assert np.array_equal(found.view(np.uint32) & 0x7FFFFFFF, wanted.view(np.uint32) & 0x7FFFFFFF) or (
        np.array_equal(found, wanted, equal_nan=True)
    )


@pytest.mark.filterwarnings("ignore::astropy.io.fits.verify.VerifyWarning")
@pytest.mark.parametrize("kind", KINDS)
def test_rows_are_those_of_the_frame(folder: Path, kind: str) -> None:
    path = written(folder, KINDS[kind])
    file = RowFile(path, Kept(10**7))
    images, ccds = file.images(), list(iter_ccds(path, GENERIC))
    assert len(images) == len(ccds) == 2
    for image, ccd in zip(images, ccds, strict=True):
        assert image.shape == ccd.data.shape
        assert ccd_name(image.header, image.place.index) == ccd.name
        same(read_rows(image, 0, NY), ccd.data)
        for y0, y1, x0, x1 in [
            (0, 1, 0, NX),
            (5, 20, 3, 60),
            (16, 32, 0, NX),
            (NY - 1, NY, 70, NX),
            (4, 4, 0, 9),
        ]:
            same(read_rows(image, y0, y1, x0, x1), np.ascontiguousarray(ccd.data[y0:y1, x0:x1]))
        # An image is found again by its place, in a file that was never gone through.
        again = pickle.loads(pickle.dumps(image.place))
        same(read_rows(RowFile(path).at(again), 7, 9), ccd.data[7:9])
    file.close()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(kind=st.sampled_from(sorted(KINDS)), rows=st.tuples(*[st.integers(0, NY)] * 2),
       columns=st.tuples(*[st.integers(0, NX)] * 2))  # fmt: skip
@pytest.mark.filterwarnings("ignore::astropy.io.fits.verify.VerifyWarning")
def test_any_box_of_any_kind(
    tmp_path_factory: pytest.TempPathFactory, kind: str, rows: tuple[int, int], columns: tuple[int, int]
) -> None:
    path = written(tmp_path_factory.mktemp("box"), KINDS[kind], ccds=1)
    image = RowFile(path, Kept(10**7)).images()[0]
    (y0, y1), (x0, x1) = sorted(rows), sorted(columns)
    whole = next(iter_ccds(path, GENERIC)).data
    same(read_rows(image, y0, y1, x0, x1), np.ascontiguousarray(whole[y0:y1, x0:x1]))


@pytest.mark.parametrize("kind", ["float", "rice short, tiles of 16 rows", "hcompress"])
@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress])
def test_files_compressed_as_a_whole(folder: Path, kind: str, pack: Callable[[bytes], bytes]) -> None:
    path = written(folder, KINDS[kind])
    other = folder / "packed.fits.x"
    other.write_bytes(pack(path.read_bytes()))
    file = RowFile(other, Kept(10**7))
    assert file.is_packed
    for image, ccd in zip(file.images(), iter_ccds(other, GENERIC), strict=True):
        same(read_rows(image, 10, 31), ccd.data[10:31])
    file.close()


def test_pixels_outside_are_refused(folder: Path) -> None:
    image = RowFile(written(folder, KINDS["short"])).images()[0]
    for box in [(-1, 3), (0, NY + 1), (5, 4), (0, 1, 0, NX + 1)]:
        with pytest.raises(IndexError):
            read_rows(image, *box)


def test_a_file_that_ends_too_early_is_told(folder: Path) -> None:
    for kind in ("float", "rice short"):
        path = written(folder, KINDS[kind], ccds=1)
        content = path.read_bytes()
        path.write_bytes(content[: len(content) - 2880 * (2 if kind == "float" else 1)])
        with pytest.raises(OSError, match=r"frame\.fits"):
            read_rows(RowFile(path).images()[0], 0, NY)
        path.unlink()


def test_a_damaged_tile_is_told_and_others_are_read(folder: Path) -> None:
    path = written(folder, KINDS["rice short"], ccds=1)
    image = RowFile(path).images()[0]
    wanted = read_rows(image, 0, 20)
    content = bytearray(path.read_bytes())
    place = image.place.data + 8 * NY  # the heap begins behind the table
    content[place + 2000 : place + 2040] = b"\xff" * 40
    path.write_bytes(content)
    image = RowFile(path).images()[0]
    same(read_rows(image, 0, 20), wanted)
    with pytest.raises(OSError, match="tile"):
        read_rows(image, 0, NY)


def test_a_damaged_packed_file_is_told(folder: Path) -> None:
    path = folder / "frame.fits.gz"
    path.write_bytes(gzip.compress(written(folder, KINDS["float"]).read_bytes())[:3000])
    with pytest.raises(OSError, match="damaged"):
        RowFile(path)
    path.write_bytes(b"PK\x03\x04" + b"\0" * 100)
    with pytest.raises(OSError, match="zip"):
        RowFile(path)


def test_an_image_in_the_primary_hdu(folder: Path) -> None:
    path = folder / "frame.fits"
    fits.PrimaryHDU(pixels_of(0).astype(np.float32)).writeto(path)
    (image,) = RowFile(path).images()
    assert image.place == Place(0, 0, 2880, 2880 + 4 * NY * NX)
    same(read_rows(image, 1, 3), next(iter_ccds(path, GENERIC)).data[1:3])


def test_tables_and_cubes_are_no_images(folder: Path) -> None:
    path = folder / "frame.fits"
    table = fits.BinTableHDU.from_columns([fits.Column("a", "J", array=np.arange(5))])
    cube, image = fits.ImageHDU(np.zeros((2, 3, 4), np.int16)), fits.ImageHDU(np.ones((3, 4), np.int16))
    fits.HDUList([fits.PrimaryHDU(), table, cube, image]).writeto(path)
    (found,) = RowFile(path).images()
    assert found.place.index == 3 and read_rows(found, 0, 3).tolist() == [[1.0] * 4] * 3


def test_a_structure_that_is_not_followed_is_left_to_astropy(folder: Path) -> None:
    path = written(folder, KINDS["float"])
    # Blanks belong behind END; some writers put zeros there.
    path.write_bytes(path.read_bytes().replace(b"END" + b" " * 77, b"END" + b"\0" * 77))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        images = RowFile(path, Kept(10**7)).images()
        assert all(isinstance(image, WholeRows) for image in images)
        same(read_rows(images[1], 5, 8), pixels_of(1).astype(np.float32)[5:8])


# ---- files kept open, things kept ----


def test_no_more_files_are_open_than_allowed(folder: Path) -> None:
    paths = []
    for number in range(5):
        written(folder, KINDS["short"], ccds=1).rename(folder / f"{number}.fits")
        paths.append(folder / f"{number}.fits")
    files = OpenFiles(most_files=2)
    with files.file(paths[0]) as first:
        for path in paths:
            with files.file(path) as file:
                read_rows(file.images()[0], 0, 1)
        # The one in use is still open.
        assert read_rows(first.images()[0], 0, 1).shape == (1, NX)
        with files.file(paths[0]) as again:
            assert again is first
    assert len(files._files) == 2
    files.close()
    assert not files._files
    with pytest.raises(ValueError, match="closed"):
        read_rows(first.images()[0], 0, 1)
    with files.file(paths[0]) as file:
        assert file is not first


def test_a_file_that_was_replaced_is_opened_anew(folder: Path) -> None:
    path, files = written(folder, KINDS["short"], ccds=1), OpenFiles()
    other = folder / "other.fits"
    fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(np.full((2, 2), 7, np.int16))]).writeto(other)
    with files.file(path) as before:
        old = read_rows(before.images()[0], 0, 2)
        other.replace(path)
        with files.file(path) as now:
            assert read_rows(now.images()[0], 0, 2).tolist() == [[7.0, 7.0]] * 2
        same(read_rows(before.images()[0], 0, 2), old)
    with pytest.raises(ValueError, match="closed"):
        read_rows(before.images()[0], 0, 1)
    path.unlink()
    with pytest.raises(FileNotFoundError), files.file(path):
        pass
    files.close()


def test_what_is_decoded_whole_is_decoded_once_within_its_budget(folder: Path) -> None:
    path, size = written(folder, KINDS["hcompress"], ccds=3), 4 * NX * NY
    kept = Kept(2 * size + 5000)
    images = RowFile(path, kept).images()
    for image in (*images, *images):
        for y in range(0, NY, 8):
            read_rows(image, y, y + 1)
        assert kept.n_bytes <= kept.most_bytes
    images[0].file.close()
    assert kept.n_bytes == 0


def test_kept_lets_the_oldest_go() -> None:
    kept, made = Kept(10), list[str]()

    def make(key: str) -> str:
        made.append(key)
        return key

    for key in ("a", "bbbb", "a", "ccccc", "a", "bbbb", "x" * 11, "x" * 11):
        assert kept.get(key, lambda key=key: make(key), len) == key
    assert made == ["a", "bbbb", "ccccc", "x" * 11, "x" * 11] and kept.n_bytes == 10
    assert kept.get("dd", lambda: make("dd"), len) == "dd" and kept.n_bytes == 7
    kept.get("ccccc", lambda: make("ccccc"), len)
    assert made[-2:] == ["dd", "ccccc"]


def test_making_that_fails_is_tried_again() -> None:
    kept = Kept(10)

    def fail() -> str:
        raise OSError("no")

    for _ in range(2):
        with pytest.raises(OSError, match="no"):
            kept.get("a", fail, len)
    assert kept.get("a", lambda: "yes", len) == "yes"


# ---- real frames ----


@pytest.mark.parametrize(
    "name",
    [
        "decam/DECam_00241238_01.fits.fz",
        "ngc7789/stack_V_300.fit",
        "sdss2583/frame-r-002583-2-0136.fits.bz2",
        "hatp32",
    ],
)
def test_real_frames(name: str) -> None:
    path = real_data(name)
    if path.is_dir():
        path = sorted(path.glob("*.[fF][iI][tT]*"))[0]
    file = RowFile(path, Kept(10**8))
    images = [image for image in file.images() if is_sky(image.header)]
    ccds = list(iter_ccds(path, GENERIC))
    assert len(images) == len(ccds) > 0
    for image, ccd in zip(images, ccds, strict=True):
        same(read_rows(image, 0, image.shape[0]), ccd.data)
        same(read_rows(image, 101, 307, 11, 400), np.ascontiguousarray(ccd.data[101:307, 11:400]))
    file.close()


def odd_files() -> list[Path]:
    root = Path(__file__).parents[4] / "shared" / "data" / "odd_fits"
    return sorted(path for path in root.rglob("*") if path.is_file())


def test_odd_files_are_there() -> None:
    assert len(list(real_data("odd_fits").rglob("*.f*"))) > 30


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("path", odd_files(), ids=lambda path: path.name)
def test_odd_files_give_what_the_frame_gives_or_an_error(path: Path) -> None:
    try:
        wanted = {ccd.hdu: ccd.data for ccd in frame.iter_ccds(path, GENERIC)}
    except Exception:
        wanted = None
    try:
        file = RowFile(path, Kept(10**8))
        found = {
            image.place.index: read_rows(image, 0, image.shape[0])
            for image in file.images()
            if is_sky(image.header)
        }
    except OSError:
        assert wanted is None
        return
    if wanted is not None:
        assert found.keys() == wanted.keys()
        for index, pixels in wanted.items():
            same(found[index], pixels)
