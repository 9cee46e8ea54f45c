"""The XML and the list of checksums."""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
from pathlib import Path

import numpy as np
from astropy.io.votable import parse, validate
from spica_export.science.checksums import checksum_list
from spica_export.science.dossier import File
from spica_export.science.votable import build_votable

from tests.support.realdata import peer_program
from tests.unit.export.dossiers import dossier


def test_the_votable_tells_all_inputs_with_what_is_known_of_them() -> None:
    table = parse(io.BytesIO(build_votable(dossier())), verify="exception")
    resource = table.resources[0]
    inputs = table.get_table_by_id("inputs").to_table(use_names_over_ids=True)
    assert list(inputs["name"]) == ["744331p", "744331p"]
    assert list(inputs["grade"]) == ["A", "A"] and inputs["graded_by"][0] == "person:Yannick"
    assert inputs["object"][0] == "D3 <&> Ω"
    assert inputs["zeropoint_mag"][0] == 26.1 and str(inputs["zeropoint_mag"].unit) == "mag"
    assert inputs["sha256"][0] == "a" * 64
    assert np.ma.is_masked(inputs["mjd_obs"][0]) or np.isnan(inputs["mjd_obs"][0])
    left_out = table.get_table_by_id("left_out").to_table(use_names_over_ids=True)
    assert (left_out["rule"][0], left_out["found"][0]) == ("fwhm_max_arcsec", "1.7 arcsec")
    steps = table.get_table_by_id("steps").to_table(use_names_over_ids=True)
    assert json.loads(steps["configuration"][0]) == {"clip_sigma": 4.0}
    files = table.get_table_by_id("files").to_table(use_names_over_ids=True)
    assert list(files["size_bytes"]) == [2880, 5760]
    values = {param.name: param.value for param in resource.params}
    assert values["stack_id"] == "0a1b2c3d" and values["zeropoint_mag"] == 30.0
    assert values["fwhm_arcsec"] == 0.8 and values["crval_ra_deg"] == 214.8
    assert json.loads(values["request"]) == {"combine": "clipped_mean"}


def test_the_votable_is_valid_and_the_same_each_time(tmp_path: Path) -> None:
    content = build_votable(dossier())
    assert build_votable(dossier()) == content
    path = tmp_path / "x.xml"
    path.write_bytes(content)
    report = io.StringIO()
    assert validate(path, output=report), report.getvalue()


def test_a_stack_of_one_without_anything_left_out_works_too() -> None:
    content = build_votable(dossier(inputs=(), left_out=(), steps=(), files=()))
    assert len(parse(io.BytesIO(content)).get_table_by_id("inputs").to_table(use_names_over_ids=True)) == 0


def test_sha256sum_reads_the_list(tmp_path: Path) -> None:
    sha256sum = peer_program("sha256sum")
    files = []
    for name in ("a.fits", "b.fits"):
        (tmp_path / name).write_text(name)
        files.append(File(name, "image", len(name), hashlib.sha256(name.encode()).hexdigest()))
    listing = checksum_list(dossier(files=tuple(files)))
    (tmp_path / "x.txt").write_text(listing)
    command = [sha256sum, "--strict", "-c", "x.txt"]
    assert subprocess.run(command, cwd=tmp_path, check=False, capture_output=True).returncode == 0
    (tmp_path / "b.fits").write_text("B")
    assert subprocess.run(command, cwd=tmp_path, check=False, capture_output=True).returncode != 0
    assert "2 exposures, 1000 s, filter r.MP9601, grade B" in listing
    assert "median FWHM of stars 0.80 arcsec" in listing and "27.50 mag" in listing
