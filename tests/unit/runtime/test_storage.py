from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from spica_runtime.errors import NotRetriable, Unavailable
from spica_runtime.storage import DataFolder, sha256_of, sweep_parts, whole_file


def test_a_file_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "folder" / "a.fits.fz"
    with whole_file(target) as part:
        assert part.name == target.name
        part.write_bytes(b"new")
        assert not target.exists()
    assert target.read_bytes() == b"new"
    with pytest.raises(ZeroDivisionError), whole_file(target) as part:
        part.write_bytes(b"half")
        raise ZeroDivisionError
    assert target.read_bytes() == b"new"
    assert [path.name for path in target.parent.iterdir()] == [target.name]


def test_a_full_disk_waits_instead_of_failing(tmp_path: Path) -> None:
    with pytest.raises(Unavailable) as caught, whole_file(tmp_path / "a"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert caught.value.code == "disk_full"
    assert list(tmp_path.iterdir()) == []


def test_other_faults_of_the_disk_are_not_hidden(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="Input/output"), whole_file(tmp_path / "a"):
        raise OSError(errno.EIO, os.strerror(errno.EIO))


def test_a_product_is_its_path_and_its_bytes(tmp_path: Path) -> None:
    data = DataFolder(tmp_path)
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "a").write_bytes(b"abc")
    product = data.product(tmp_path / "x" / "a", "image")
    assert (product.path, product.size_bytes, product.kind) == ("x/a", 3, "image")
    assert product.sha256 == sha256_of(tmp_path / "x" / "a")
    assert product.sha256 == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


@pytest.mark.parametrize("path", ["../outside", "/etc/passwd", "a/../../outside"])
def test_products_stay_in_the_data_folder(tmp_path: Path, path: str) -> None:
    with pytest.raises(NotRetriable, match="leaves the data folder"):
        DataFolder(tmp_path).path(path)


def test_what_killed_writers_left_is_swept_when_it_is_old(tmp_path: Path) -> None:
    for name in ("old", "new"):
        (tmp_path / "images" / f".part-{name}").mkdir(parents=True)
        (tmp_path / "images" / f".part-{name}" / "a.fits").write_text("half")
    (tmp_path / "images" / "whole.fits").write_text("whole")
    os.utime(tmp_path / "images" / ".part-old", (0, 0))
    assert sweep_parts(tmp_path) == 1
    assert sorted(path.name for path in (tmp_path / "images").iterdir()) == [".part-new", "whole.fits"]


def test_a_data_folder_may_be_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    data = DataFolder(tmp_path / "link")
    path = data.path("a")
    path.write_bytes(b"abc")
    assert data.product(path, "image").path == "a"
