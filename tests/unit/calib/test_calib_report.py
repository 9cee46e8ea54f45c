"""The page of a calibration: what is wrong is said in words, what is missing too, and the page is one small file."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from html import unescape
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from spica_calib.plots import write_plot
from spica_calib.report.page import (
    ReferenceUsed,
    Subject,
    look,
    render,
    write_image_page,
    write_stack_page,
)
from spica_calib.report.remarks import Remark, level, marks, remarks
from spica_calib.report.skyplane import round_length
from spica_calib.report.words import angle, angles, count, listed, plain, raised, signed
from spica_calib.science.diagnostics.inputs import Calibration
from spica_reporting.svg import Axes, Drawing

from tests.support.calibrations import SCENES, Camera, Scene, simulate, without_stars

SUBJECT = Subject("744331p", ReferenceUsed("Gaia DR3", "ab" * 32, 2012.3), model_version=12)
FOUR = Camera(2, 2, 600, 800, 0.2, 40.0, -0.5)
_CALIBRATIONS: dict[str, Calibration] = {}


def calibration(name: str) -> Calibration:
    if name not in _CALIBRATIONS:
        scene = SCENES["image" if name == "bare" else name]
        _CALIBRATIONS[name] = without_stars(simulate(scene)) if name == "bare" else simulate(scene)
    return _CALIBRATIONS[name]


def page(name: str) -> str:
    found = calibration(name)
    stack = len(found.exposures) > 1
    return render(SUBJECT, found, found.own, stack=stack).decode()


class _Reader(HTMLParser):
    """Text that people see, and whether every element is closed."""

    VOID = ("meta", "br", "img", "input", "hr", "path", "image")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in self.VOID:
            self.open.append(tag)
        self.text += [value or "" for key, value in attrs if key in ("title", "aria-label")]

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.text.append(data)


def words(text: str) -> str:
    reader = _Reader(text)
    assert reader.open == []
    return re.sub(r"\s+", " ", " ".join(reader.text))


def told(name: str) -> list[Remark]:
    found = calibration(name)
    return remarks(look(found, found.own))


@pytest.mark.parametrize("name", [*SCENES, "bare"])
def test_the_page_is_whole_small_and_always_the_same(name: str) -> None:
    text = page(name)
    seen = words(text)
    assert text == page(name)
    assert len(text) < 1_500_000
    assert not re.search(r"\b(nan|inf|None|NaN|undefined)\b", seen), name
    assert not re.search(r"\b(nan|inf)\b", re.sub(r'href="data:[^"]*"', "", text))
    assert "default-src 'none'" in unescape(text)
    assert "<script" not in text
    assert not re.search(r"(src|href)=\"http", text)
    assert "Gaia DR3" in seen
    assert "ab" * 32 in seen


def test_a_good_image_is_called_good() -> None:
    assert [remark for remark in told("image") if remark.grave] == []
    seen = words(page("image"))
    assert seen.count("Good") == 1
    assert "Nothing stands out" in seen
    for part in (
        "external residuals",
        "0.39″",
        "26.115 ± 0.002",
        "degree 3",
        "version 12",
        "10⁻⁴⁰",
        "mag per airmass",
    ):
        assert part.lower() in seen.lower(), part


def test_a_turned_ccd_is_named_first_and_the_empty_one_too() -> None:
    found = told("bad")
    assert found[0].grave == 2
    assert found[0].words.startswith(
        "ccd12 is turned by +40.0″ (east of north) against the model of 14 earlier"
    )
    text = " ".join(remark.words for remark in found)
    assert "No reference star on ccd30: it lies where" in text
    assert "of the stars of ccd12 were cut" in text
    noted = marks(found)
    assert set(noted) == {"ccd12", "ccd30"}
    assert noted["ccd12"][0] == 2
    assert noted["ccd12"][1].startswith("turned")
    assert noted["ccd30"] == (1, "no stars")
    seen = words(page("bad"))
    assert "Bad" in seen
    assert "by neighbours" in seen


def test_clouds_pattern_and_colour_are_told() -> None:
    text = " ".join(remark.words for remark in told("cloudy"))
    # The wave has 12 mas in each axis, 8.5 rms; errors allow 8.9: worth a look, not bad.
    (pattern,) = (remark for remark in told("cloudy") if "pattern" in remark.words)
    rms = re.match(
        r"External residuals have a pattern over the field: (\d+\.\d) mas rms per axis", pattern.words
    )
    assert rms is not None
    assert float(rms[1]) == pytest.approx(8.5, rel=0.15)
    assert pattern.grave == 1
    assert "Clouds on 744333p: 0.35 mag below the clear sky" in text
    assert "Clouds on 744334p: 0.12 mag" in text
    assert "Magnitudes depend on colour: +0.049" in text
    seen = words(page("cloudy"))
    assert "3 of 5 exposures are anchors" in seen
    assert "set by stars in common with its neighbours" in seen


def test_a_residual_far_over_the_errors_is_bad_and_told_in_their_measure() -> None:
    found = calibration("image")
    one = replace(found.astrometry.exposures[0], external_mas=(181.0, 174.0), chi2_external=440.0)
    worse = replace(found, astrometry=replace(found.astrometry, exposures=(one,)))
    first = remarks(look(worse, (0,)))[0]
    assert first.grave == 2
    assert re.match(r"External residual 181 mas per axis: 2\d\.\d times what the errors allow", first.words)
    assert 'class="g2"' in render(SUBJECT, worse, (0,)).decode()


def test_a_few_stars_are_not_called_good() -> None:
    few = simulate(Scene(FOUR, n_stars=14, photometry=False))
    assert any("reference star" in remark.words and remark.grave for remark in remarks(look(few, (0,))))


def test_a_doubtful_match_and_a_far_pointing() -> None:
    found = calibration("small")
    name = found.exposures[0].name
    doubtful = replace(found.located[name], log10_false=-3.2, offset_arcsec=75.0)
    text = [remark.words for remark in remarks(look(replace(found, located={name: doubtful}), (0,)))]
    assert "The match may be chance: probability 10⁻³" in text
    assert "The header's pointing was off by 75.0″" in text


@pytest.mark.parametrize(
    ("name", "reasons"),
    [
        ("bare", ("No reference star took part", "There is no photometric solution", "no model of this context",
                  "no photometric solution", "no other exposure overlaps")),
        ("no_photometry", ("There is no photometric solution", "There is no version before",
                           "No source of it was seen in another exposure")),
        ("small", ("There is none: one scale of 5.1700″ per px", "known of one exposure only")),
        ("stack", ("see the pages of the members", "There is no version before")),
    ],
)  # fmt: skip
def test_what_is_missing_is_told_with_its_reason(name: str, reasons: tuple[str, ...]) -> None:
    seen = words(page(name))
    for reason in reasons:
        assert reason in seen, reason


def test_without_a_zero_point_and_without_a_name_for_the_reference() -> None:
    found = calibration("small")
    assert found.photometry is not None
    none = replace(
        found.photometry.solution.exposures[0], mag=None, sigma_mag=None, scatter_mag=None, anchor="none",
        is_anchor=False, why="The reference catalogue has no band for this filter.",
    )  # fmt: skip
    unknown = np.full(len(found.photometry.detections.mag), np.nan)
    solution = replace(found.photometry.solution, exposures=(none,), residual_mag=unknown, band=None)
    lost = replace(found, photometry=replace(found.photometry, solution=solution))
    seen = words(render(Subject("x", None), lost, (0,)).decode())
    assert "The zero point is anchored on nothing" in seen
    assert "The reference catalogue has no band for this filter." in seen
    assert "none was told" in seen
    assert "No star has a residual magnitude" in seen


@pytest.mark.parametrize("n", [1, 2, 3, 40, 700])
@pytest.mark.parametrize("size", [0.0, 1e-9, 1e9])
def test_the_strangest_residuals_give_a_page_all_the_same(n: int, size: float) -> None:
    found = simulate(Scene(FOUR, n_stars=1200, photometry=False))
    told = found.astrometry.detections
    n = min(n, len(told.row))
    some = {name: getattr(told, name)[:n] for name in told.__slots__}
    some["external_mas"] = size * np.random.default_rng(0).standard_normal((n, 2))
    odd = replace(found, astrometry=replace(found.astrometry, detections=replace(told, **some)))
    text = render(SUBJECT, odd, (0,)).decode()
    drawn = re.sub(r"<style>.*?</style>", "", text, flags=re.S)
    assert not re.search(r"\b(nan|inf)\b", drawn)


def test_names_are_never_markup() -> None:
    found = calibration("small")
    evil = "<b>&\"'"
    ccd = replace(found.exposures[0].ccds[0], name=evil)
    named = replace(found, exposures=(replace(found.exposures[0], name=evil, ccds=(ccd,)),), located={})
    text = render(
        Subject(evil, ReferenceUsed(evil, evil, 2000.0), evil, header={"OBJECT": evil}), named, (0,)
    ).decode()
    assert "<b>&" not in text
    assert words(text).count(evil) >= 4


def test_files_are_written_whole(tmp_path: Path) -> None:
    image, stack = calibration("image"), calibration("stack")
    write_image_page(tmp_path / "a.html", SUBJECT, image)
    write_stack_page(tmp_path / "b.html", SUBJECT, stack)
    write_image_page(tmp_path / "c.html", SUBJECT, stack, exposure=3)
    assert (tmp_path / "a.html").read_text() == page("image")
    assert (tmp_path / "b.html").read_text() == page("stack")
    single = words((tmp_path / "c.html").read_text())
    assert "Calibration of one image" in single
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.html", "b.html", "c.html"]


def test_a_page_of_thousands_of_stars_stays_small(tmp_path: Path) -> None:
    image = calibration("image")
    assert len(image.astrometry.detections.exposure) > 4000
    write_image_page(tmp_path / "a.html", SUBJECT, image)
    assert (tmp_path / "a.html").stat().st_size < 1_500_000


@pytest.mark.parametrize("name", ["bad", "small", "stack", "bare"])
def test_the_picture_for_lists_is_always_the_same(name: str, tmp_path: Path) -> None:
    write_plot(tmp_path / "a.png", calibration(name))
    write_plot(tmp_path / "b.png", calibration(name))
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.size == (900, 460)
        assert len(picture.convert("RGB").getcolors(1 << 24) or []) > 20


def test_every_picture_has_a_name_and_ids_are_unique() -> None:
    for name in SCENES:
        text = page(name)
        assert text.count("<svg") == len(re.findall(r'<svg [^>]*role="img" aria-label="[^"]{10,}"', text))
        ids = re.findall(r' id="([^"]+)"', text)
        assert len(ids) == len(set(ids))
        assert set(re.findall(r'href="#([^"]+)"', text)) <= set(ids)


def test_numbers_are_told_as_people_read_them() -> None:
    assert [plain(value, 2) for value in (1234.567, -0.001, -2.5, None, float("nan"))] == [
        "1,234.57", "0.00", "−2.50", "–", "–",
    ]  # fmt: skip
    assert [signed(value) for value in (0.26, -0.26, 0.01, None)] == ["+0.3", "−0.3", "0.0", "–"]
    assert [angle(value) for value in (8.74, 180.2, 1450.0, 75_000.0, None)] == [
        "8.7 mas", "180 mas", "1.45″", "75.0″", "–",
    ]  # fmt: skip
    assert angles((8.7, 8.51)) == "8.7 / 8.5 mas"
    assert angles((880.0, 1340.0)) == "0.88 / 1.34″"
    assert angles((float("nan"), 1.0)) == "–"
    assert listed([f"ccd{k}" for k in range(9)], 2) == "ccd0, ccd1 and 7 more"
    assert (count(1, "star"), count(1200, "star")) == ("1 star", "1,200 stars")
    assert raised(-40.2) == "⁻⁴⁰"
    assert [round_length(value) for value in (0.7, 1.0, 4.9, 23.0)] == [0.5, 1.0, 2.0, 20.0]
    assert [level(value, (1.0, 2.0)) for value in (0.5, 1.5, 3.0, float("nan"))] == [0, 1, 2, 0]
    assert [level(value, (20.0, 8.0)) for value in (30.0, 10.0, 3.0)] == [0, 1, 2]


def _ticks(low: float, high: float) -> Iterator[str]:
    d = Drawing(200.0, 200.0)
    axes = Axes(d, (0.0, 1.0), (low, high), log_y=True)
    axes.frame("x", "y", x_ticks=False)
    yield from re.findall(r'class="tick end">([^<]+)<', d.finish("about"))


def test_a_short_logarithmic_axis_has_ticks_too() -> None:
    assert list(_ticks(3.0, 30.0)) == ["5", "10", "20"]
    assert list(_ticks(0.5, 3e5)) == ["1", "10", "100", "1000", "10⁴", "10⁵"]
    assert list(_ticks(2e3, 4e4)) == ["10⁴"]
