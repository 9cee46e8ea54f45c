"""The coverage of a planned stack, as people see it."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image
from rich.console import Console
from spica_console import coverage_view, output, planning_view
from spica_proto.stacks import StackRequested
from spica_runtime.errors import UsageError
from spica_stack.choosing import choose, selection_of
from spica_stack.dryrun import DryRun, _predict
from spica_stack.laying import Laid
from spica_stack.planning import Placed, lay_out
from spica_stack.science.choosing.table import Footprints, Table
from spica_stack.science.selection import Candidate
from spica_stack.settings import StackSettings

from tests.support.many_exposures import make_night, mosaic
from tests.unit.stack.test_selection import many

SETTINGS = StackSettings()


def dry_run_of(n: int, **request: Any) -> DryRun:
    """Of exposures with six CCDs each, one of them graded D."""
    night = make_night(n, fields=("D1",), ccds=mosaic(3, 2))
    rows: list[Candidate] = many(n, fwhm_arcsec=night.fwhm_arcsec.tolist(), grade=["D", *["A"] * (n - 1)])
    asked = StackRequested.model_validate({"pixel_scale_arcsec": 2.0, **request})
    choice = choose(asked, selection_of(asked.selection), Table.of(rows))
    if choice.problem is not None:
        return DryRun(choice, choice.problem, None, None, tuple(choice.advice), SETTINGS)
    places = [night.corners_deg[int(member.name)] for member in choice.members]
    placed = Placed(Footprints.of(places), 0.186)
    laid = Laid(choice, placed, lay_out(asked, placed, SETTINGS))
    return DryRun(choice, None, laid, _predict(laid, SETTINGS), tuple(choice.advice), SETTINGS)


@pytest.fixture(scope="module")
def told() -> DryRun:
    return dry_run_of(8)


def test_the_picture_has_the_map_and_every_ccd(told: DryRun, tmp_path: Path) -> None:
    path = tmp_path / "a.svg"
    coverage_view.write(told, "D1 <r>", path)
    root = ElementTree.fromstring(path.read_text())
    space = "{http://www.w3.org/2000/svg}"
    assert len([one for one in root.iter(f"{space}path") if one.get("class") == "ccd"]) == 7 * 6
    assert len(list(root.iter(f"{space}image"))) == 1
    words = " ".join(one.text or "" for one in root.iter(f"{space}text"))
    assert "D1 <r>" in words and "7 exposures" in words
    before = path.read_bytes()
    coverage_view.write(told, "D1 <r>", path)
    assert path.read_bytes() == before


def test_the_picture_as_pixels_is_the_same_twice(told: DryRun, tmp_path: Path) -> None:
    first, second = tmp_path / "a.png", tmp_path / "b.png"
    for path in (first, second):
        coverage_view.write(told, "D1", path)
    assert first.read_bytes() == second.read_bytes()
    pixels = np.asarray(Image.open(first).convert("RGB"))
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 20


def test_of_very_many_ccds_whole_exposures_are_drawn(told: DryRun, monkeypatch: pytest.MonkeyPatch) -> None:
    assert told.prediction is not None
    coverage = told.prediction.coverage
    assert len(coverage_view.outlines(coverage)) == 42
    monkeypatch.setattr(coverage_view, "MOST_OUTLINES", 13)
    assert len(coverage_view.outlines(coverage)) == 12
    nowhere = replace(coverage, outlines_px=np.full_like(coverage.outlines_px, np.nan))
    assert len(coverage_view.outlines(nowhere)) == 0


def test_a_picture_has_a_known_kind_and_a_folder(told: DryRun, tmp_path: Path) -> None:
    for path, words in ((tmp_path / "a.pdf", "svg or"), (tmp_path / "none" / "a.svg", "no folder")):
        with pytest.raises(UsageError, match=words):
            coverage_view.write(told, "x", path)
    with pytest.raises(UsageError, match="nothing to draw"):
        coverage_view.write(dry_run_of(2, selection={"object": "D9"}), "x", tmp_path / "a.svg")


def test_the_small_map_tells_the_most_and_the_empty(told: DryRun) -> None:
    assert told.prediction is not None
    lines = coverage_view.small_plain(told.prediction.coverage).split("\n")
    assert len({len(line) for line in lines}) == 1
    assert "·" in "".join(lines) and 8 < len(lines) <= 20
    assert str(told.prediction.exposures_most) in "".join(lines)
    coloured = coverage_view.small(told.prediction.coverage)
    assert {len(line) for line in coloured.plain.rstrip("\n").split("\n")} == {len(lines[0])}


def printed(told: DryRun, monkeypatch: pytest.MonkeyPatch, *, full: bool = False) -> str:
    console = Console(record=True, width=150, file=io.StringIO())
    monkeypatch.setattr(output, "console", lambda **_: console)
    planning_view.print_plan(told, full=full)
    return console.export_text()


def test_people_read_what_is_left_out_by_rule_and_what_is_predicted(
    told: DryRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = printed(told, monkeypatch)
    assert "7 of 8 candidate images would be taken" in text
    assert "grades" in text and "000: D by policy:survey@1" in text
    assert "taking D lets 1 in" in text
    assert "3,500 s in all" in text and "mag over most of it" in text
    full = printed(told, monkeypatch, full=True)
    assert all(f"{k:03d}" in full for k in range(8))


def test_people_read_why_there_would_be_no_stack(monkeypatch: pytest.MonkeyPatch) -> None:
    text = printed(dry_run_of(3, selection={"fwhm_max_arcsec": 0.1}), monkeypatch)
    assert "No stack would be made (nothing_selected)" in text and "coverage" not in text
