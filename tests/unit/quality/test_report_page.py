"""The page: whole, closed in itself, the same every time, and safe whatever stands in a header."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import cache
from html.parser import HTMLParser

import numpy as np
import pytest
from defusedxml import ElementTree
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from spica_imaging.sections import Section
from spica_proto.base import Reason
from spica_proto.images import Verdict
from spica_quality.report.contents import plain_value, with_unit
from spica_quality.report.diagrams import Expectation
from spica_quality.report.gathering import gather
from spica_quality.report.page import render
from spica_quality.science.flags import Bit
from spica_quality.science.metrics.figures import CCD_NAMES, IMAGE_NAMES, row
from spica_quality.science.metrics.summary import summarise

from tests.support import reporting
from tests.support.reporting import SUBJECT, VERDICTS

_VOID = {"meta", "link", "img", "input", "br", "hr"}


class _Reader(HTMLParser):
    """Checks that tags are closed in order; collects ids, addresses and text."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.addresses: list[tuple[str, str]] = []
        self.images_without_words = 0
        self.words: list[str] = []
        self.attributes: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        known = dict(attrs)
        self.attributes += known
        self.ids += [known["id"] or ""] if "id" in known else []
        self.addresses += [(tag, known[name] or "") for name in ("src", "href") if name in known]
        self.images_without_words += tag == "img" and "alt" not in known
        if tag not in _VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in _VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag, f"</{tag}> closes another"

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("style", "script"):
            self.words.append(data)


def read(page: bytes) -> _Reader:
    reader = _Reader()
    reader.feed(page.decode())
    reader.close()
    assert reader.open == []
    return reader


drawn = cache(reporting.exposure)


@pytest.fixture
def exposure() -> reporting.Exposure:
    return drawn()


@pytest.fixture(scope="module")
def page() -> bytes:
    exposure = drawn()
    expected = Expectation((18, 20, 22), (100, 300, 900), (50, 800, 9000))
    return render(SUBJECT, exposure.image, exposure.rows, exposure.ccds, VERDICTS, expected)


def test_tags_are_closed_and_ids_are_unique(page: bytes) -> None:
    reader = read(page)
    assert len(set(reader.ids)) == len(reader.ids)
    assert reader.images_without_words == 0
    inside = [address[1:] for _, address in reader.addresses if address.startswith("#")]
    assert inside
    assert set(inside) <= set(reader.ids)


def test_pictures_are_sound_xml_with_a_name(page: bytes) -> None:
    drawn = re.findall(r"<svg .*?</svg>", page.decode(), re.DOTALL)
    assert len(drawn) > 10
    for svg in drawn:
        tree = ElementTree.fromstring(svg)
        assert tree.get("aria-label")
        assert "nan" not in re.sub(r'href="[^"]*"', "", svg)


def test_nothing_is_fetched_from_elsewhere(page: bytes) -> None:
    reader = read(page)
    for tag, address in reader.addresses:
        assert address.startswith(("data:", "#")) or (tag == "a" and "//" not in address), address[:80]
    style = re.search(rb"<style>(.*?)</style>", page, re.DOTALL)
    assert style is not None
    assert b"url(" not in style[1]
    assert b"@import" not in style[1]
    assert b"http" not in re.sub(rb"<meta http-equiv", b"", page)


def test_the_same_input_gives_the_same_bytes(page: bytes) -> None:
    again = reporting.exposure()
    expected = Expectation((18, 20, 22), (100, 300, 900), (50, 800, 9000))
    assert render(SUBJECT, again.image, again.rows, again.ccds, VERDICTS, expected) == page


def test_the_page_tells_the_grade_and_why(page: bytes) -> None:
    words = " ".join(read(page).words)
    for expected in (
        "900001p", "Why C", "Spread of FWHM over CCDs 0.57 > 0.50", "CCDs not used", "no sky light falls on it",
        "weak lensing", "FWHM 0.90″ > 0.80″", "not used, dead", "r.MP9601", "Weight map", "abababababab", "How it was made",
    ):  # fmt: skip
        assert expected in words, expected
    text = page.decode()
    # The picture that shows the reason is marked, and the CCD in the table.
    assert re.search(r'<figure id="psf" class="marked">', text)
    assert re.search(r'<li class="g2" id="ccd-4">', text)
    assert re.search(r'class="odd2" data-value="5\.5">5\.50<', text)


def test_the_page_is_small(page: bytes) -> None:
    assert len(page) < 400_000


@pytest.mark.parametrize(
    "evil", ["<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "</title><b>", "'{{7*7}}"]
)
def test_hostile_words_stay_words(exposure: reporting.Exposure, evil: str) -> None:
    subject = replace(
        SUBJECT, name=evil, header={"OBJECT": evil, "EXPTIME": evil}, provenance=((evil, evil),)
    )
    reason = Reason(code="x", message=evil, keyword=evil, expected=evil)
    verdict = Verdict(policy=evil, use=evil, grade="D", reasons=(reason,), ccds_out=(evil,))
    rows = [{**exposure.rows[0], "name": evil, "condition": evil, "condition_reason": evil}]
    ccds = [replace(exposure.ccds[0], name=evil)]
    clean = render(SUBJECT, exposure.rows[0], [exposure.rows[0]], exposure.ccds[:1], VERDICTS[:1]).decode()
    dirty = render(subject, rows[0], rows, ccds, (verdict, verdict)).decode()
    read(dirty.encode())
    # Neither elements nor handlers that the page does not have by itself.
    assert dirty.count("<script") == clean.count("<script")
    assert "<" not in evil or evil not in dirty
    assert set(read(dirty.encode()).attributes) <= set(read(clean.encode()).attributes) | {"class", "title"}
    assert evil in " ".join(read(dirty.encode()).words)


@settings(max_examples=10, deadline=None, phases=(Phase.explicit, Phase.reuse, Phase.generate))
@given(
    st.lists(st.sampled_from(CCD_NAMES), min_size=1),
    st.lists(st.sampled_from(IMAGE_NAMES)),
    st.sampled_from([None, "ok", "half_dead", "trailed"]),
)
def test_whatever_was_not_measured_the_page_is_whole(
    of_ccds: list[str], of_image: list[str], condition: str | None
) -> None:
    exposure = drawn()
    rows = [{**row, "condition": condition, **dict.fromkeys(of_ccds)} for row in exposure.rows[:6]]
    image = {**summarise(rows), **dict.fromkeys(of_image), "condition": condition}
    page = read(render(SUBJECT, image, rows, exposure.ccds[:6], VERDICTS))
    assert "nan" not in re.findall(r"\w+", " ".join(page.words).lower())


def test_a_frame_on_which_nothing_was_measured_has_a_page() -> None:
    data = np.full((60, 80), np.nan, np.float32)
    flags = np.full((60, 80), Bit.NO_VALUE, np.uint16)
    nothing = row({})
    pictures = gather(data, flags, None, {}, nothing, section=Section(0, 80, 0, 60))
    image = summarise([nothing])
    for verdicts in ((), VERDICTS):
        text = render(SUBJECT, image, [nothing], [pictures], verdicts).decode()
        read(text.encode())
        assert "nan" not in " ".join(read(text.encode()).words).lower().split()
    assert "Not graded" in render(SUBJECT, image, [nothing], [pictures], ()).decode()


def test_an_image_without_ccds_has_a_page() -> None:
    page = render(SUBJECT, summarise([]), [], [], VERDICTS)
    read(page)


def test_a_blank_frame_is_shown_as_it_is() -> None:
    data = np.random.default_rng(1).normal(1000, 3, (60, 80)).astype(np.float32)
    flags = np.full((60, 80), Bit.SATURATED | Bit.MASKED, np.uint16)
    blank = row({"name": "a", "hdu": 0, "condition": "blank", "n_pixels": 4800})
    pictures = gather(data, flags, None, {}, blank, section=Section(0, 80, 0, 60))
    stack, image = replace(SUBJECT, kind="stack"), summarise([blank], {"condition": "blank"})
    text = render(stack, image, [blank], [pictures], VERDICTS[:1]).decode()
    assert "Blank" in text
    assert "1 tile" in text


def test_small_numbers_are_not_told_as_zero() -> None:
    assert plain_value(".1f", 0.0123) == "0.012"
    assert plain_value(".1f", 0.0) == "0.0"
    assert plain_value("d", 12345) == "12,345"
    assert plain_value(".2f", None) == "–"
    assert with_unit("fwhm_arcsec", 0.816) == "0.82″"
    assert with_unit("usable_fraction", 0.98765) == "98.77 %"
    assert with_unit("saturated_fraction", 2e-5) == "0.002 %"
