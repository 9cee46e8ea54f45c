"""Files copied, verified, and put where they belong."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from pathlib import Path

import pytest
from spica_ingest import filing
from spica_ingest.filing import file_away, set_aside, staged_copy, sweep_staging
from spica_ingest.jobs import Arrival, Taken, take_in
from spica_ingest.locating import source_path
from spica_runtime.errors import NotRetriable, Retriable, Unavailable
from spica_runtime.storage import DataFolder

from tests.unit.ingest.frames import LIMITS, frame, write


@pytest.fixture
def data(tmp_path: Path) -> DataFolder:
    return DataFolder(tmp_path / "data")


def file(source: Path, data: DataFolder) -> str:
    with staged_copy(source, data) as staged:
        return file_away(staged, data, "25BQ07", "r.SIM").path


def take(data: DataFolder, path: Path, **expected: str | int) -> Taken:
    return take_in(Arrival(path, **expected), data, LIMITS, None)  # type: ignore[arg-type]


def everything(data: DataFolder) -> set[str]:
    return {path.relative_to(data.root).as_posix() for path in data.root.rglob("*") if path.is_file()}


def test_the_same_file_again_is_there_once(data: DataFolder, tmp_path: Path) -> None:
    source = write(tmp_path / "900001p.fits", b"content")
    assert file(source, data) == file(source, data) == "images/25BQ07/r.SIM/900001p.fits"
    assert everything(data) == {"images/25BQ07/r.SIM/900001p.fits"}


def test_another_content_under_the_same_name_replaces_nothing(data: DataFolder, tmp_path: Path) -> None:
    first = file(write(tmp_path / "a" / "x.fits.fz", b"one"), data)
    second = file(write(tmp_path / "b" / "x.fits.fz", b"two"), data)
    mark = hashlib.sha256(b"two").hexdigest()[:8]
    assert second == f"images/25BQ07/r.SIM/x.{mark}.fits.fz"
    assert data.path(first).read_bytes() == b"one"
    assert data.path(second).read_bytes() == b"two"
    assert file(tmp_path / "b" / "x.fits.fz", data) == second


def test_run_and_filter_cannot_lead_out_of_the_folder(data: DataFolder, tmp_path: Path) -> None:
    with staged_copy(write(tmp_path / "x.fits", b"x"), data) as staged:
        product = file_away(staged, data, "../../up", "r /../ .")
    assert product.path == "images/up/r/x.fits" or product.path.startswith("images/up/r_")
    assert data.path(product.path).is_relative_to(data.root)


def test_rejected_files_stand_under_their_content(data: DataFolder, tmp_path: Path) -> None:
    with staged_copy(write(tmp_path / "x y.fits", b"x"), data) as staged:
        product = set_aside(staged, data)
    assert product.path == f"rejected/{hashlib.sha256(b'x').hexdigest()[:8]}_x_y.fits"
    assert product.sha256 == hashlib.sha256(b"x").hexdigest()
    assert stat.S_IMODE(data.path(product.path).stat().st_mode) == 0o600


def test_a_name_that_is_not_utf_8_is_told_so_that_it_can_be_sent(data: DataFolder, tmp_path: Path) -> None:
    gone = source_path(f"file://{tmp_path}/%E9.fits")
    with pytest.raises(Retriable) as caught, staged_copy(gone, data):
        pass
    assert f"{tmp_path}/\\xe9.fits".encode() in caught.value.message.encode()


@pytest.mark.parametrize("links", [True, False])
def test_a_file_system_without_links_will_do(
    data: DataFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EPERM, "no links here")

    if not links:
        monkeypatch.setattr(filing.os, "link", refuse)
    source = write(tmp_path / "x.fits", b"x")
    assert file(source, data) == file(source, data)
    other = write(tmp_path / "other" / "x.fits", b"y")
    assert file(other, data) != file(source, data)
    assert len(everything(data)) == 2


def test_what_is_not_there_or_no_file_is_told_by_class(data: DataFolder, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path, kind, code in (
        (tmp_path / "gone.fits", Retriable, "file_not_found"),
        (tmp_path, NotRetriable, "not_a_file"),
        (tmp_path / "pipe", NotRetriable, "not_a_file"),
    ):
        with pytest.raises(kind) as caught, staged_copy(path, data):
            pass
        assert caught.value.code == code
        assert str(path) in caught.value.message
    assert everything(data) == set()


def test_a_full_disk_waits(data: DataFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    source = write(tmp_path / "x.fits", b"x")
    monkeypatch.setattr(filing.os, "fsync", full)
    with pytest.raises(Unavailable) as caught, staged_copy(source, data):
        pass
    assert caught.value.code == "disk_full"
    assert everything(data) == set()


def test_a_file_that_grows_while_it_is_read_comes_again_later(
    data: DataFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write(tmp_path / "x.fits", b"x" * 100)
    real = os.fsync

    def grow(descriptor: int) -> None:
        real(descriptor)
        with source.open("ab") as writer:
            writer.write(b"more")

    monkeypatch.setattr(filing.os, "fsync", grow)
    with pytest.raises(Retriable) as caught, staged_copy(source, data):
        pass
    assert caught.value.code == "file_changing"


def test_only_old_leftovers_are_swept(data: DataFolder, tmp_path: Path) -> None:
    source = write(tmp_path / "x.fits", b"x")
    old = data.root / ".staging" / "killed"
    write(old / "y.fits", b"y")
    os.utime(old, (1e9, 1e9))
    with staged_copy(source, data) as staged:
        assert sweep_staging(data) == 1
        assert staged.path.exists()
    assert not old.exists()


def test_a_good_frame_is_filed_and_a_bad_one_set_aside(data: DataFolder, tmp_path: Path) -> None:
    content = frame(compressed=True)
    good = take(data, write(tmp_path / "900001p.fits.fz", content))
    assert good.exposure is not None and good.reasons == ()
    assert good.product.path == "images/25BQ07/r.SIM/900001p.fits.fz"
    assert good.product.sha256 == hashlib.sha256(content).hexdigest()
    assert good.product.size_bytes == len(content)
    bad = take(data, write(tmp_path / "900002p.fits.fz", content[:9000]))
    assert bad.exposure is None and bad.reasons
    assert bad.product.path.startswith("rejected/")
    assert everything(data) == {good.product.path, bad.product.path}


def test_a_transfer_that_changed_the_file_is_told_apart_from_a_bad_file(
    data: DataFolder, tmp_path: Path
) -> None:
    content = frame()
    path = write(tmp_path / "900001p.fits", content)
    right = {
        "size_bytes": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
        "md5": hashlib.md5(content).hexdigest(),
    }
    assert take(data, path, **right).exposure is not None
    wrong = take(data, path, size_bytes=1, sha256="0" * 64, md5="0" * 32)
    assert [reason.code for reason in wrong.reasons] == ["size_mismatch", "sha256_mismatch", "md5_mismatch"]
    assert wrong.reasons[0].expected == "1" and wrong.reasons[0].found == str(len(content))
