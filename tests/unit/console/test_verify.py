"""`spica verify`: the command, as people and programs run it."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from spica_console.verifying import chosen_files, together
from spica_ingest.science.facts import Finding
from spica_runtime.errors import UsageError

from tests.unit.ingest.frames import frame, write


def spica(*arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "spica_console.cli", *map(str, arguments)],
        capture_output=True, text=True, check=False, timeout=120, cwd=cwd, env=os.environ | {"COLUMNS": "220"},
    )  # fmt: skip


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with good frames and bad ones."""
    folder = tmp_path_factory.mktemp("night")
    write(folder / "good.fits", frame())
    write(folder / "below" / "tiles.fits.fz", frame(compressed=True))
    write(folder / "noted.fits", frame(primary={"AIRMASS": 0.0}))
    write(folder / "cut.fits", frame()[:9000])
    write(folder / "notes.txt", b"no frame")
    return folder


def test_all_good_leaves_with_zero(night: Path) -> None:
    ended = spica("verify", night / "good.fits", night / "below")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert "2 good, 0 rejected" in ended.stdout
    assert "megasim, 2 CCD(s), r.SIM, 120 s, run 25BQ07" in ended.stdout


def test_a_rejected_file_leaves_with_one_and_says_why(night: Path) -> None:
    ended = spica("verify", night)
    assert ended.returncode == 1
    assert "3 good, 1 rejected" in ended.stdout
    lines = [line for line in ended.stdout.splitlines() if "truncated" in line]
    assert "reason" in lines[0] and "The file ends before its data does." in lines[0]
    assert any("airmass_unknown" in line and "noted" in line for line in ended.stdout.splitlines())


def test_json_has_all_that_was_said(night: Path) -> None:
    ended = spica("verify", "--json", night)
    rows: dict[str, Any] = {Path(row["file"]).name: row for row in json.loads(ended.stdout)}
    assert ended.returncode == 1
    assert {name: row["accepted"] for name, row in rows.items()} == {
        "good.fits": True, "tiles.fits.fz": True, "noted.fits": True, "cut.fits": False,
    }  # fmt: skip
    good = rows["good.fits"]
    content = (night / "good.fits").read_bytes()
    assert (good["sha256"], good["md5"], good["size_bytes"]) == (
        hashlib.sha256(content).hexdigest(),
        hashlib.md5(content).hexdigest(),
        len(content),
    )
    assert (good["profile"], good["n_ccds"], good["wcs"], good["reasons"]) == ("megasim", 2, "full", [])
    (reason,) = [item for item in rows["cut.fits"]["reasons"] if item["code"] == "truncated"]
    assert {"hdu", "found", "expected", "message"} <= reason.keys()


def test_wrong_usage_leaves_with_two(night: Path, tmp_path: Path) -> None:
    write(tmp_path / "profiles" / "bad.toml", b"name = 'bad'\nunheard_of = 1\n")
    for arguments in (
        ("verify",),
        ("verify", "/gone.fits"),
        ("verify", tmp_path),
        ("verify", "--profiles", "/gone", night / "good.fits"),
        ("verify", "--profiles", tmp_path / "profiles", night / "good.fits"),
        ("verify", "--jobs", "0", night / "good.fits"),
    ):
        ended = spica(*arguments)
        assert ended.returncode == 2, (arguments, ended)
        assert ended.stdout == "" and ended.stderr


def test_profiles_of_ones_own_count(night: Path, tmp_path: Path) -> None:
    own = "name = 'mine'\ntitle = 'Mine'\n[match]\nINSTRUME = 'MegaSim'\nQRUNID = '25B'\n[keywords]\nrequired = ['SEEING']\n"
    write(tmp_path / "mine.toml", own.encode())
    (row,) = json.loads(spica("verify", "--json", "--profiles", tmp_path, night / "good.fits").stdout)
    assert [(item["code"], item["keyword"]) for item in row["reasons"]] == [("keyword_missing", "SEEING")]


def test_modules_of_the_folder_one_is_in_are_not_imported(night: Path, tmp_path: Path) -> None:
    write(tmp_path / "numpy.py", b"raise SystemExit('imported')")
    write(tmp_path / "spica_ingest" / "__init__.py", b"raise SystemExit('imported')")
    command = Path(sys.executable).with_name("spica")
    ended = subprocess.run(
        [command, "verify", night / "good.fits"],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        cwd=tmp_path,
    )
    assert (ended.returncode, ended.stderr) == (0, "")


def test_ctrl_c_ends_it_and_leaves_nobody(tmp_path: Path) -> None:
    first = write(tmp_path / "0.fits", frame(ccds=60))
    for number in range(1, 400):
        os.link(first, tmp_path / f"{number}.fits")
    running = subprocess.Popen(
        [sys.executable, "-m", "spica_console.cli", "verify", tmp_path],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    deadline = time.monotonic() + 30
    while len(started := psutil.Process(running.pid).children(recursive=True)) < 2:  # a helper and its child
        assert running.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    os.killpg(running.pid, signal.SIGINT)
    assert running.wait(timeout=30) == 130
    _, alive = psutil.wait_procs(started, timeout=10)
    assert alive == []


def test_files_are_chosen(night: Path) -> None:
    def names(*given: object) -> list[str]:
        return [path.relative_to(night).as_posix() for path in chosen_files(map(str, given))]

    assert names(night) == ["below/tiles.fits.fz", "cut.fits", "good.fits", "noted.fits"]
    assert names(night / "*o*.fits") == ["good.fits", "noted.fits"]
    assert names(night / "**" / "*.fz") == ["below/tiles.fits.fz"]
    assert names(night / "notes.txt", night / "notes.txt") == ["notes.txt"]
    with pytest.raises(UsageError):
        names(night / "*.bz2")


def test_findings_of_many_hdus_are_told_on_one_line() -> None:
    findings = [Finding("a", "m", hdu) for hdu in (3, 1, 2, 7, 9, 10)] + [
        Finding("b", "m"),
        Finding("a", "n", 5),
    ]
    assert [(item.finding.code, item.where) for item in together(findings)] == [
        ("a", "1-3, 7, 9-10"),
        ("b", ""),
        ("a", "5"),
    ]
