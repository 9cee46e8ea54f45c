"""Folders at the destination belong to one stack each."""

from __future__ import annotations

import errno
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest
from spica_export import claiming
from spica_export.claiming import MARK, claim, owner, sweep_deliveries
from spica_export.jobs import export_stack
from spica_runtime.errors import NotRetriable, Unavailable

from tests.unit.export.dossiers import dossier
from tests.unit.export.test_delivery import order

NAMES_A, NAMES_B = ("M33", "M33_a", "M33_a1"), ("M33", "M33_b", "M33_b1")


def files(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


def no_links(*_: object) -> None:
    raise OSError(errno.EPERM, "no links here")


@pytest.mark.parametrize("links", [True, False])
def test_the_first_has_the_name_and_each_finds_its_own_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool
) -> None:
    if not links:
        monkeypatch.setattr(claiming.os, "link", no_links)
    for _ in range(2):
        assert claim(tmp_path, NAMES_A, "a1").name == "M33"
        assert claim(tmp_path, NAMES_B, "b1").name == "M33_b"
    assert [path.name for path in (tmp_path / "M33").iterdir()] == [MARK]
    # Also when the better name has become free.
    (tmp_path / "M33" / MARK).unlink()
    assert claim(tmp_path, NAMES_B, "b1").name == "M33_b"


def test_what_says_nothing_is_nobodys_to_replace(tmp_path: Path) -> None:
    (tmp_path / "M33").mkdir()
    (tmp_path / "M33" / "M33.fits").write_text("mine")
    assert claim(tmp_path, NAMES_A, "a1").name == "M33_a"
    with pytest.raises(NotRetriable) as caught:
        claim(tmp_path, ("M33",), "b1")
    assert caught.value.code == "destination_taken"


def test_a_delivery_from_before_there_were_marks_is_known_by_its_list(tmp_path: Path) -> None:
    made = export_stack(order(tmp_path))
    (Path(made.destination) / MARK).unlink()
    assert owner(Path(made.destination)) == "0a1b2c3d"
    assert export_stack(order(tmp_path)) == made


def test_one_of_many_at_once_gets_the_name(tmp_path: Path) -> None:
    barrier = Barrier(8)

    def one(number: int) -> str:
        barrier.wait()
        return claim(tmp_path, ("M33", f"M33_{number}"), str(number)).name

    with ThreadPoolExecutor(8) as threads:
        names = list(threads.map(one, range(8)))
    assert len(set(names)) == 8
    assert all(owner(tmp_path / name) == str(number) for number, name in enumerate(names))


def test_a_claim_that_was_cut_short_is_none(tmp_path: Path) -> None:
    (tmp_path / "M33").mkdir()
    (tmp_path / "M33" / f"{MARK}-x1y2").write_text("")
    assert claim(tmp_path, NAMES_A, "a1").name == "M33"


def test_another_stack_of_the_same_clean_name_replaces_nothing(tmp_path: Path) -> None:
    first = export_stack(order(tmp_path / "one", destination=tmp_path / "out", names=NAMES_A))
    before = files(Path(first.destination))
    changes = {"stack_id": "b1", "names": NAMES_B, "dossier": dossier(stack_id="b1", name="M33.")}
    second = export_stack(order(tmp_path / "two", destination=tmp_path / "out", **changes))
    assert Path(second.destination).name == "M33_b" and second.receipts[0].name == "M33_b.fits"
    assert files(Path(first.destination)) == before
    assert export_stack(order(tmp_path / "two", destination=tmp_path / "out", **changes)) == second


def test_a_destination_that_cannot_be_written_to_waits(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("in the way")
    with pytest.raises(Unavailable) as caught:
        claim(tmp_path / "out", NAMES_A, "a1")
    assert caught.value.code == "destination_unavailable"


def test_only_old_leftovers_in_deliveries_are_swept(tmp_path: Path) -> None:
    ours, foreign = claim(tmp_path, NAMES_A, "a1"), tmp_path / "foreign"
    for folder in (ours / ".part-old", ours / ".part-new", ours / "kept", foreign / ".part-old"):
        folder.mkdir(parents=True)
        (folder / "x.fits").write_bytes(b"half")
    for folder in (ours / ".part-old", ours / "kept", foreign / ".part-old"):
        os.utime(folder, (1e9, 1e9))
    (tmp_path / "file").write_text("x")
    assert sweep_deliveries(tmp_path) == 1
    assert sorted(path.name for path in ours.iterdir()) == [".part-new", MARK, "kept"]
    assert (foreign / ".part-old").exists()
    assert sweep_deliveries(tmp_path / "nowhere") == 0
