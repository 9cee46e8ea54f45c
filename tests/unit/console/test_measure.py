"""`spica measure`: the command, as people and programs run it."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from astropy.io import fits
from spica_console.measuring import without_products
from spica_imaging.ldac import read_ldac
from spica_proto.base import Product
from spica_quality import jobs
from spica_quality.policyfiles import load_policies
from spica_quality.settings import QualitySettings
from spica_runtime.errors import UsageError
from spica_runtime.storage import DataFolder

from tests.unit.ingest.frames import frame, write
from tests.unit.quality.frames import draw

PRODUCTS = {
    "catalogue", "catalogue_parquet", "weight", "flag_map", "psf_model", "preview", "report", "votable",
}  # fmt: skip


def spica(*arguments: object, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "spica_console.cli", *map(str, arguments)],
        capture_output=True, text=True, check=False, timeout=120, cwd=cwd, env=os.environ | {"COLUMNS": "220"} | environment,
    )  # fmt: skip


def state(folder: Path) -> dict[str, tuple[str, int]]:
    """Content and time of all files."""
    return {
        path.relative_to(folder).as_posix(): (
            hashlib.sha256(path.read_bytes()).hexdigest(),
            path.stat().st_mtime_ns,
        )
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def stars() -> np.ndarray[Any, np.dtype[Any]]:
    return np.round(draw(fwhm=4.0, n=90, shape=(480, 500)).data).clip(0, 65_535).astype(np.uint16)


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a frame of stars, one without light, and one that was cut off."""
    folder = tmp_path_factory.mktemp("night")
    pixels = stars()
    dark = np.random.default_rng(3).normal(200.0, 4.0, (300, 320)).round().astype(np.uint16)
    write(folder / "stars.fits", frame(pixels=pixels))
    write(folder / "below" / "dark.fits.fz", frame(pixels=dark, ccds=1, compressed=True))
    shutil.copytree(folder / "below", folder / "again")
    write(folder / "cut.fits", frame(pixels=pixels)[:90_000])
    return folder


@pytest.fixture(scope="module")
def measured(night: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    """All of it, measured once: the rows by name, and the folder of the products."""
    here = tmp_path_factory.mktemp("here")
    before = state(night)
    ended = spica("measure", "--json", night, "--jobs", 2, cwd=here)
    assert (ended.returncode, ended.stderr) == (1, "")
    assert state(night) == before, "the files were touched"
    rows = {Path(row["file"]).relative_to(night).as_posix(): row for row in json.loads(ended.stdout)}
    return rows, here


def test_json_has_verification_figures_verdicts_and_products(
    measured: tuple[dict[str, Any], Path], night: Path
) -> None:
    rows, here = measured
    assert list(rows) == ["again/dark.fits.fz", "below/dark.fits.fz", "cut.fits", "stars.fits"]
    row, found = rows["stars.fits"], rows["stars.fits"]["measurement"]
    assert (row["accepted"], row["profile"], row["failure"]) == (True, "megasim", None)
    figures = found["figures"]
    assert figures["fwhm_with_pixel_px"] == pytest.approx(4.0, rel=0.03)
    assert figures["fwhm_arcsec"] == pytest.approx(figures["fwhm_px"] * 0.186, rel=0.01)
    assert figures["condition"] == "ok" and figures["n_stars"] > 100
    assert [ccd["name"] for ccd in found["ccds"]] == ["ccd00", "ccd01"]
    policies = {verdict["policy"].partition("@")[0]: verdict["grade"] for verdict in found["verdicts"]}
    assert policies.keys() == {policy.name for policy in load_policies()}
    assert policies["default"] == found["grade"]
    assert found["products"].keys() == PRODUCTS
    for product in found["products"].values():
        content = (here / product["path"]).read_bytes()
        assert Path(product["path"]).parent == Path("quality/stars")
        assert (product["sha256"], product["size_bytes"]) == (
            hashlib.sha256(content).hexdigest(),
            len(content),
        )
    tables = read_ldac(here / found["products"]["catalogue"]["path"])
    assert sum(len(table.columns["X_IMAGE"]) for table in tables) == figures["n_sources"]
    with fits.open(here / found["products"]["weight"]["path"]) as hdus:
        assert [hdu.name for hdu in hdus[1:]] == ["ccd00", "ccd01"]
    assert str(night / "stars.fits") in (here / "quality/stars/stars.html").read_text()


def test_a_dark_is_measured_and_a_damaged_file_is_not(measured: tuple[dict[str, Any], Path]) -> None:
    rows, here = measured
    dark = rows["below/dark.fits.fz"]["measurement"]
    assert (dark["grade"], dark["figures"]["condition"]) == ("D", "dark")
    assert dark["reasons"] and dark["products"].keys() == PRODUCTS
    cut = rows["cut.fits"]
    assert (cut["accepted"], cut["measurement"]) == (False, None)
    assert "truncated" in {reason["code"] for reason in cut["reasons"]}
    assert sorted(path.name for path in (here / "quality").iterdir())[-1] == "stars"
    assert len(list((here / "quality").iterdir())) == 3


def test_it_is_what_the_service_measures(
    measured: tuple[dict[str, Any], Path], night: Path, tmp_path: Path
) -> None:
    rows, _ = measured
    found = rows["stars.fits"]
    shutil.copy(night / "stars.fits", tmp_path / "stars.fits")
    data = DataFolder(tmp_path)
    order = jobs.ImageOrder(
        data=data, image_id=f"stars.{found['sha256'][:12]}", name="stars", path="stars.fits", profile="megasim",
        profiles=None, n_ccds=2, on_sky=True, exposure_time_s=120.0,
        label=("MegaSim", "D3", "filter r.SIM", "run 25BQ07", "120 s"), policies=load_policies(),
        tuning=jobs.Tuning.of(QualitySettings()), filter="r.SIM", mjd_obs=found["mjd_obs"],
        pointing_deg=(found["ra_deg"], found["dec_deg"]), sha256=found["sha256"],
    )  # fmt: skip
    service = jobs.measure_image(order)

    def hashes(products: tuple[Product, ...]) -> dict[str, str]:
        return {product.kind: product.sha256 for product in products if product.kind != "report"}

    said = {kind: product["sha256"] for kind, product in found["measurement"]["products"].items()}
    assert hashes(service.made).items() <= said.items()
    assert json.loads(json.dumps(dict(service.figures))) == found["measurement"]["figures"]


def test_people_are_told_grade_figures_reasons_and_report(night: Path, tmp_path: Path) -> None:
    own = tmp_path / "policies"
    strict = "name = 'strict'\nversion = 1\n[rules.fwhm_px]\nmost = [0.1, 0.2, 0.3]\n"
    write(own / "strict.toml", strict.encode())
    ended = spica(
        "measure", night / "stars.fits", night / "below", "--out", tmp_path / "of", "--policies", own, cwd=tmp_path
    )  # fmt: skip
    assert (ended.returncode, ended.stderr) == (0, "")
    lines = ended.stdout.splitlines()
    (first,) = [line for line in lines if "stars.fits" in line]
    assert first[0] in "ABCD" and "FWHM 0.7" in first and "condition: ok" in first and " stars, " in first
    (of_dark,) = [line for line in lines if "dark.fits.fz" in line]
    assert of_dark.startswith("D ") and "no FWHM" in of_dark and "condition: dark" in of_dark
    assert any(line.strip().startswith("dark: ") for line in lines)
    assert any(line.strip().startswith("strict ") and "> 0.3 px" in line for line in lines)
    assert str(tmp_path / "of" / "stars" / "stars.html") in ended.stdout
    assert "2 measured" in lines[-1] and "0 could not be" in lines[-1]


def test_files_of_one_name_do_not_get_in_each_others_way(
    measured: tuple[dict[str, Any], Path], night: Path
) -> None:
    rows, here = measured
    mark = rows["below/dark.fits.fz"]["sha256"][:12]
    for name, folder in (("again", f"dark.{mark}"), ("below", f"dark.{mark}-2")):
        report = rows[f"{name}/dark.fits.fz"]["measurement"]["products"]["report"]["path"]
        assert report == f"quality/{folder}/dark.html"
        assert str(night / name / "dark.fits.fz") in (here / report).read_text()


def test_wrong_usage_leaves_with_two(night: Path, tmp_path: Path) -> None:
    write(tmp_path / "policies" / "bad.toml", b"name = 'bad'\nunheard_of = 1\n")
    write(tmp_path / "stars.csv", b"these are, no stars\n")
    good = night / "stars.fits"
    for arguments, environment in (
        (("measure",), {}),
        (("measure", "--policies", tmp_path / "policies", good), {}),
        (("measure", "--reference", tmp_path / "stars.csv", good), {}),
        (("measure", "--jobs", "0", good), {}),
        (("measure", "--out", good / "below", good), {}),
        (("measure", good), {"SPICA_QUALITY_STAR_SNR": "many"}),
    ):
        ended = spica(*arguments, cwd=tmp_path, **environment)
        assert ended.returncode == 2, (arguments, ended)
        assert ended.stdout == "" and ended.stderr and "Traceback" not in ended.stderr
    assert not (tmp_path / "quality").exists()


def test_products_of_an_earlier_run_are_left_alone(tmp_path: Path) -> None:
    out = tmp_path / "quality"
    mine = [
        tmp_path / "a.fits",
        out / "a.weight.fits.fz",
        out / "b" / "a.weight.fits.fz",
        out / "a" / "a.fits",
    ]
    theirs = [out / "a" / "a.weight.fits.fz", out / "a.0123" / "a.flag.fits.fz"]
    assert without_products([*mine, *theirs], out) == mine
    with pytest.raises(UsageError, match="nothing to measure"):
        without_products(theirs, out)


def test_ctrl_c_ends_it_and_leaves_nobody_and_nothing_half_done(tmp_path: Path) -> None:
    first = write(tmp_path / "0.fits", frame(pixels=stars(), ccds=12))
    for number in range(1, 3):
        os.link(first, tmp_path / f"{number}.fits")
    running = subprocess.Popen(
        [sys.executable, "-m", "spica_console.cli", "measure", tmp_path, "--jobs", "2", "--out", tmp_path / "of"],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while not list((tmp_path / "of").glob("*/.part-*")):  # a worker writes the maps of the first CCDs
        assert running.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    started = psutil.Process(running.pid).children(recursive=True)
    os.killpg(running.pid, signal.SIGINT)
    _, said = running.communicate(timeout=30)
    assert (running.returncode, said) == (130, "")
    assert started
    _, alive = psutil.wait_procs(started, timeout=10)
    assert alive == []
    assert list((tmp_path / "of").rglob("*")) == []
