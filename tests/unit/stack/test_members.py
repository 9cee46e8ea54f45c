"""Members are opened by their headers; what cannot be used is left out or told by name."""

from __future__ import annotations

import gzip
import pickle
import resource
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from numpy.typing import NDArray
from spica_imaging.frame import iter_ccds
from spica_imaging.openfiles import OpenFiles
from spica_imaging.wcs import TpvWcs
from spica_runtime.errors import NotRetriable, Retriable, Unavailable
from spica_stack.errors import input_unreadable
from spica_stack.making.members import CcdSource, LeftOut, head_for, open_member, read_head, shared_files

from tests.unit.stack.members import GENERIC, MEGACAM, Written, floats, rice, rice16, shorts


@pytest.fixture(autouse=True)
def closed() -> Any:
    yield
    shared_files().close()


def noise(seed: int, shape: tuple[int, int] = (60, 80)) -> NDArray[np.float64]:
    return np.random.default_rng(seed).normal(1000, 20, shape)


def member(folder: Path, ccds: int = 3, **other: Any) -> Written:
    data = [noise(k) for k in range(ccds)]
    return Written(folder, data, [np.full(d.shape, k + 1.0) for k, d in enumerate(data)], **other)


@pytest.mark.parametrize("kind", [floats, shorts, rice, rice16])
def test_ccds_come_with_their_pixels_weights_and_solutions(tmp_path: Path, kind: Any) -> None:
    written = member(
        tmp_path, image_hdu=kind, weight_hdu=rice16, primary={"GAIN": 2.5}, extension={"SATURATE": 51234.0}
    )
    sources, files = written.sources(), written.files()
    assert [source.name for source in sources] == ["CCD00", "CCD01", "CCD02"]
    for number, (source, ccd) in enumerate(zip(sources, iter_ccds(files.image, GENERIC), strict=True)):
        assert (source.shape, source.origin) == ((60, 80), (0, 0))
        assert (source.gain_e_per_adu, source.saturation_adu, source.flux_scale) == (2.5, 51234.0, 0.01)
        assert isinstance(source.wcs, TpvWcs)
        data, weight = source.read((3, 70, 5, 40))
        np.testing.assert_array_equal(data, ccd.data[5:40, 3:70])
        assert (weight == number + 1).all() and weight.shape == (35, 67) and weight.dtype == np.float32
        again = pickle.loads(pickle.dumps(source))
        assert again == source
        np.testing.assert_array_equal(again.read((3, 70, 5, 40))[0], data)


def test_overscan_is_cut_off(tmp_path: Path) -> None:
    written = member(tmp_path, extension={"DATASEC": "[5:74,3:58]"}, weight_hdu=rice16, profile="megacam")
    source = written.sources(MEGACAM)[1]
    assert (source.shape, source.origin) == ((56, 70), (4, 2))
    np.testing.assert_array_equal(
        source.read((0, 70, 0, 56))[0], written.data[1].astype(np.float32)[2:58, 4:74]
    )
    np.testing.assert_array_equal(
        source.read((9, 10, 7, 9))[0], written.data[1].astype(np.float32)[9:11, 13:14]
    )
    with pytest.raises(NotRetriable) as raised:
        source.read((0, 80, 0, 56))
    assert raised.value.code == "input_unreadable"


def test_solutions_are_found_by_name_or_else_by_order(tmp_path: Path) -> None:
    shifts = [(1.0, 0.0), (2.0, 0.0), (3.0, 0.0)]
    for names, wanted in (
        (["CCD02", "CCD00", "CCD01"], [2, 3, 1]),
        ([None, None, None], [1, 2, 3]),
        (["a", "b", "c"], [1, 2, 3]),
    ):
        sources = member(tmp_path, head_names=names, shifts=shifts).sources()
        assert [source.wcs.crpix[0] - 40.5 for source in sources] == wanted


def test_a_ccd_without_solution_is_left_out(tmp_path: Path) -> None:
    files = member(tmp_path, head_names=["CCD02", "CCD00"]).files()
    found = open_member(files, GENERIC)
    assert found[1] == LeftOut("CCD01", "no_solution", "no solution")
    assert [one.name for one in found] == ["CCD00", "CCD01", "CCD02"]


def test_a_solution_of_another_number_of_ccds_is_told(tmp_path: Path) -> None:
    with pytest.raises(NotRetriable, match=r"m\.head has 2 header blocks, its image 3 CCDs") as raised:
        open_member(member(tmp_path, head_names=[None, None]).files(), GENERIC)
    assert raised.value.code == "header_does_not_fit"


def test_weights_are_found_by_name_or_else_by_order(tmp_path: Path) -> None:
    for names, wanted in ((["CCD01", "CCD02", "CCD00"], [3, 1, 2]), (["x", "y", "z"], [1, 2, 3])):
        sources = member(tmp_path, weight_names=names).sources()
        assert [source.read((0, 1, 0, 1))[1][0, 0] for source in sources] == wanted
    found = open_member(member(tmp_path, weight_names=["CCD02", "CCD00"]).files(), GENERIC)
    assert found[1] == LeftOut("CCD01", "no_weight", "no weight map")
    assert isinstance(found[0], CcdSource) and found[0].read((0, 1, 0, 1))[1][0, 0] == 2


def test_ccds_of_one_name_are_told_apart(tmp_path: Path) -> None:
    sources = member(tmp_path, names=["A", "A", "A"], head_names=[None] * 3).sources()
    assert [source.name for source in sources] == ["A", "A#2", "A#3"]
    assert [source.read((0, 1, 0, 1))[1][0, 0] for source in sources] == [1, 2, 3]


def test_masks_that_travel_with_an_image_are_no_ccds(tmp_path: Path) -> None:
    data = [noise(0), noise(1)]
    files = Written(tmp_path, data, data[:1], names=["S29", "MASK"], head_names=["S29"]).files()
    assert [one.name for one in open_member(files, GENERIC)] == ["S29"]


def test_a_weight_of_another_size_is_told(tmp_path: Path) -> None:
    written = member(tmp_path)
    written.weight = [weight[:-1] for weight in written.weight]
    with pytest.raises(NotRetriable, match=r"m\.weight\.fits\[CCD00\]") as raised:
        written.sources()
    assert raised.value.code == "weight_does_not_fit"


def test_the_flux_scale_is_the_blocks_or_else_the_members(tmp_path: Path) -> None:
    assert {s.flux_scale for s in member(tmp_path, member_flux_scale=7.0).sources()} == {0.01}
    assert {s.flux_scale for s in member(tmp_path, flux_scale=None, member_flux_scale=7.0).sources()} == {7.0}
    for block, of_member in (
        (None, None),
        (0.0, None),
        (-1.0, 7.0),
        ("none", 7.0),
        (None, np.nan),
        (None, np.inf),
    ):
        found = open_member(member(tmp_path, flux_scale=block, member_flux_scale=of_member).files(), GENERIC)
        assert {one.reason for one in found if isinstance(one, LeftOut)} == {"no_flux_scale"} and len(
            found
        ) == 3


@pytest.mark.filterwarnings("ignore::astropy.io.fits.verify.VerifyWarning")
@pytest.mark.parametrize("which", ["image", "weight", "head"])
@pytest.mark.parametrize("how", ["absent", "torn", "empty"])
def test_files_that_cannot_be_read_are_told_by_name(tmp_path: Path, which: str, how: str) -> None:
    files = member(tmp_path).files()
    path: Path = getattr(files, which)
    content = path.read_bytes()
    path.unlink()
    if how != "absent":
        path.write_bytes(content[: len(content) - 200 if which == "head" else 1234] if how == "torn" else b"")
    with pytest.raises(NotRetriable) as raised:
        open_member(files, GENERIC)
    assert path.name in str(raised.value)
    assert raised.value.code == (
        "header_does_not_fit" if (which, how) == ("head", "empty") else "input_unreadable"
    )


def test_a_host_in_need_is_no_fault_of_the_file(tmp_path: Path) -> None:
    files = Written(tmp_path, [np.ones((20, 20))], [np.ones((20, 20))]).files()
    most, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        with pytest.raises(Retriable, match="Too many open files") as caught:
            open_member(files, GENERIC, OpenFiles())
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    assert not isinstance(caught.value, Unavailable)
    assert len(open_member(files, GENERIC, OpenFiles())) == 1


def test_a_full_disk_is_waited_for() -> None:
    with pytest.raises(OSError, match="No space left") as full, Path("/dev/full").open("wb", 0) as file:
        file.write(b"unpacked")
    assert isinstance(input_unreadable(Path("m.fits.gz"), full.value), Unavailable)


def test_pixels_that_are_not_there_are_told_when_they_are_read(tmp_path: Path) -> None:
    written = member(tmp_path)
    source = written.sources()[2]
    content = source.image.read_bytes()
    shared_files().close()
    source.image.write_bytes(content[:-5760])
    with pytest.raises(NotRetriable, match=r"m\.fits") as raised:
        source.read((0, 80, 0, 60))
    assert raised.value.code == "input_unreadable"


def test_a_file_without_ccds_is_told(tmp_path: Path) -> None:
    files = member(tmp_path).files()
    fits.HDUList([fits.PrimaryHDU()]).writeto(files.image, overwrite=True)
    with pytest.raises(NotRetriable) as raised:
        open_member(files, GENERIC)
    assert raised.value.code == "header_does_not_fit"


def test_a_wcs_that_is_not_understood_is_told(tmp_path: Path) -> None:
    files = member(tmp_path, ccds=1).files()
    files.head.write_text(files.head.read_text().replace("RA---TAN", "LINEAR"))
    with pytest.raises(NotRetriable, match=r"m\.head") as raised:
        open_member(files, GENERIC)
    assert raised.value.code == "input_unreadable"


def test_other_projections_are_astropys(tmp_path: Path) -> None:
    files = member(tmp_path, ccds=1).files()
    text = files.head.read_text().replace("RA---TAN", "RA---ZEA").replace("DEC--TAN", "DEC--ZEA")
    files.head.write_text(text)
    (source,) = open_member(files, GENERIC)
    assert isinstance(source, CcdSource) and not isinstance(source.wcs, TpvWcs)
    again = pickle.loads(pickle.dumps(source))
    x, y = again.wcs.sky_to_pixel(*source.wcs.pixel_to_sky(10.0, 20.0))
    assert (float(x), float(y)) == pytest.approx((10.0, 20.0), abs=1e-6)


def test_packed_members_are_unpacked(tmp_path: Path) -> None:
    written = member(tmp_path)
    files = written.files()
    files.image.write_bytes(gzip.compress(files.image.read_bytes()))
    cabinet = OpenFiles()
    source = open_member(files, GENERIC, cabinet)[1]
    assert isinstance(source, CcdSource)
    np.testing.assert_array_equal(source.read((0, 80, 10, 12))[0], written.data[1].astype(np.float32)[10:12])
    assert not shared_files()._files
    cabinet.close()


def test_heads_of_scamp_with_accents_and_blank_lines(tmp_path: Path) -> None:
    path = tmp_path / "a.head"
    path.write_bytes(
        "HISTORY Emmanuel à Paris\n\nEXTNAME = 'x'  \nEND     \nFLXSCALE=  2.0\nEND\n".encode("latin-1")
    )
    first, second = read_head(path)
    assert first["EXTNAME"] == "x" and second["FLXSCALE"] == 2.0
    # Not all blocks have a name: by order, then.
    assert head_for([first, second], ["y", "x"], path) == [first, second]
