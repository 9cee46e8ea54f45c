"""The page of a calibration in a real browser, opened from the disk as people do."""

from __future__ import annotations

from pathlib import Path

import pytest
from spica_calib.report.page import ReferenceUsed, Subject, write_image_page, write_stack_page

from tests.support.browser import Page, browser, chromium
from tests.support.calibrations import SCENES, simulate

SUBJECT = Subject(
    "744331p", ReferenceUsed("Gaia DR3", "ab" * 32, 2012.3), model_version=12,
    header={"OBJECT": "D3", "FILTER": "r.MP9601", "EXPTIME": 300.0, "AIRMASS": 1.05},
)  # fmt: skip

OVERLAPS = """
[...document.querySelectorAll('svg')].flatMap((svg) => {
  const boxes = [...svg.querySelectorAll('text')].map((one) => [one.textContent, one.getBoundingClientRect()]);
  const frame = svg.getBoundingClientRect();
  const out = boxes.filter(([, b]) => b.left < frame.left - 1 || b.right > frame.right + 1 ||
    b.top < frame.top - 1 || b.bottom > frame.bottom + 1).map(([words]) => words + ' is cut off');
  for (let i = 0; i < boxes.length; i++) for (let j = 0; j < i; j++) {
    const [a, b] = [boxes[i][1], boxes[j][1]];
    const wide = Math.min(a.right, b.right) - Math.max(a.left, b.left);
    const high = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
    if (wide > 1 && high > 0.3 * Math.min(a.height, b.height)) out.push(boxes[i][0] + ' over ' + boxes[j][0]);
  }
  return out;
})
"""
CUT_OFF = """
[...document.querySelectorAll('.strip dd, .strip dt, .cards dd, .origin dd, .noticed li')]
  .filter((one) => one.scrollWidth > one.clientWidth + 1).map((one) => one.textContent)
"""


@pytest.fixture(autouse=True)
def _needs_a_browser() -> None:
    chromium()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("calibrations")
    for name, scene in SCENES.items():
        write = write_stack_page if scene.n_exposures > 1 else write_image_page
        write(found / f"{name}.html", SUBJECT, simulate(scene))
    return found


async def opened(page: Page, path: Path, width: int, *, dark: bool = False) -> None:
    await page.open(path.as_uri(), width=width, dark=dark)
    await page.until(f"document.readyState === 'complete' && location.href.endsWith('{path.name}')")


@pytest.mark.parametrize("name", SCENES)
async def test_all_is_readable_at_every_width(folder: Path, tmp_path: Path, name: str) -> None:
    async with browser(tmp_path) as page:
        for width in (420, 1280, 1920):
            await opened(page, folder / f"{name}.html", width, dark=width == 1920)
            assert await page.value("document.documentElement.scrollWidth <= window.innerWidth"), width
            assert await page.value(CUT_OFF) == [], width
            assert await page.value(OVERLAPS) == [], width
            light = await page.value("getComputedStyle(document.body).backgroundColor")
            assert light == ("rgb(14, 19, 28)" if width == 1920 else "rgb(244, 246, 249)")
        assert page.complaints == []


async def test_texts_that_overlap_would_be_noticed(folder: Path, tmp_path: Path) -> None:
    async with browser(tmp_path) as page:
        await opened(page, folder / "small.html", 1280)
        await page.value(
            "(() => { const one = document.querySelector('svg text'); one.after(one.cloneNode(true)); })()"
        )
        assert len(await page.value(OVERLAPS)) == 1


async def test_what_is_wrong_is_on_the_first_screen(folder: Path, tmp_path: Path) -> None:
    async with browser(tmp_path) as page:
        for width in (1280, 1920):
            await opened(page, folder / "bad.html", width)
            for selector in (".state.bad", ".noticed li.g2", ".strip", ".hero .plate-name.g2"):
                box = f"document.querySelector('{selector}').getBoundingClientRect()"
                assert await page.value(f"{box}.height > 0 && {box}.bottom < window.innerHeight"), selector
            assert "ccd12 is turned" in await page.value("document.querySelector('.noticed li').textContent")
        assert page.complaints == []


async def test_links_lead_to_what_they_speak_of_and_pictures_have_names(folder: Path, tmp_path: Path) -> None:
    async with browser(tmp_path) as page:
        for name in SCENES:
            await opened(page, folder / f"{name}.html", 1280)
            lost = (
                "[...document.querySelectorAll('a')].map((one) => one.hash.slice(1))"
                ".filter((id) => !document.getElementById(id))"
            )
            assert await page.value(lost) == []
            assert await page.value(
                "[...document.querySelectorAll('svg')].every((one) => one.getAttribute('aria-label').length > 10)"
            )
            assert await page.value(
                "new Set([...document.querySelectorAll('[id]')].map((one) => one.id)).size"
                " === document.querySelectorAll('[id]').length"
            )
        assert page.complaints == []
