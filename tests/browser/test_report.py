"""The report in a real browser, opened from the disk as people do."""

from __future__ import annotations

from pathlib import Path

import pytest
from spica_quality.report.page import render

from tests.support import reporting
from tests.support.browser import Page, browser, chromium
from tests.support.reporting import SUBJECT, VERDICTS


@pytest.fixture(autouse=True)
def _needs_a_browser() -> None:
    chromium()


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> str:
    found = reporting.exposure()
    path = tmp_path_factory.mktemp("report") / "900001p.html"
    path.write_bytes(render(SUBJECT, found.image, found.rows, found.ccds, VERDICTS))
    return path.as_uri()


async def opened(page: Page, url: str, width: int, *, dark: bool = False) -> None:
    await page.open(url, width=width, dark=dark)
    await page.until(
        "document.readyState === 'complete' && [...document.images].every((one) => one.complete)"
    )


async def test_the_layout_holds_at_every_width(url: str, tmp_path: Path) -> None:
    async with browser(tmp_path) as page:
        for width in (400, 1280, 1920):
            await opened(page, url, width, dark=width == 1920)
            assert await page.value("document.documentElement.scrollWidth <= window.innerWidth"), width
            assert await page.value("[...document.images].every((one) => one.naturalWidth > 0)")
            assert await page.value("document.images.length") == 18
            # Words are not cut off, the grade and the reasons are on the first screen.
            assert await page.value(
                "[...document.querySelectorAll('.cards dd, .facts dd')]"
                ".every((one) => one.scrollWidth <= one.clientWidth + 1)"
            )
            assert await page.value(
                "document.querySelector('.reasons').getBoundingClientRect().bottom < window.innerHeight"
            )
            light = await page.value("getComputedStyle(document.body).backgroundColor")
            assert light == ("rgb(14, 19, 28)" if width == 1920 else "rgb(244, 246, 249)")
        assert page.complaints == []


async def test_tables_sort_masks_hide_and_pictures_grow(url: str, tmp_path: Path) -> None:
    async with browser(tmp_path) as page:
        await opened(page, url, 1280)
        names = "[...document.querySelectorAll('#table tbody th')].map((one) => one.textContent)"
        head = "[...document.querySelectorAll('#table thead button')].find((one) => one.textContent.startsWith('{}'))"
        in_order = [f"ccd{index:02d}" for index in range(9)]
        assert await page.value(names) == in_order
        await page.value(head.format("FWHM") + ".click()")
        by_width = await page.value(names)
        assert by_width[0] == "ccd07"
        assert by_width[-1] == "ccd04"  # the dead one has none
        await page.value(head.format("FWHM") + ".click()")
        turned = await page.value(names)
        assert turned[-2:] == ["ccd07", "ccd04"]
        await page.value(head.format("CCD") + ".click()")
        assert await page.value(names) == in_order

        shown = (
            "[...document.querySelectorAll('.masks')].some((one) => getComputedStyle(one).display !== 'none')"
        )
        assert await page.value(shown)
        await page.value("document.querySelector('.masks-toggle').click()")
        assert not await page.value(shown)
        await press(page, "m")
        assert await page.value(shown)
        assert await page.value("[...document.querySelectorAll('.masks-toggle')].every((one) => one.checked)")

        # With the keyboard alone: a CCD is enlarged, the arrows go on, Escape closes.
        await page.value("document.querySelector('#ccd-8 button').focus()")
        await press(page, "Enter", "\r")
        await page.until("document.getElementById('zoom').open")
        name = "document.getElementById('zoom-name').textContent"
        assert await page.value(name) == "ccd08"
        await press(page, "ArrowRight")
        assert await page.value(name) == "ccd00"
        assert await page.value("document.querySelector('#zoom-body img').naturalWidth") == 120
        assert await page.value("document.getElementById('zoom').scrollWidth <= window.innerWidth")
        await press(page, "Escape")
        await page.until("!document.getElementById('zoom').open")
        await page.value("document.querySelector('#psf .zoomable').click()")
        assert await page.value(name) == "Point spread function over the field"
        assert await page.value("document.querySelector('#zoom-body svg').clientWidth") > 700
        assert page.complaints == []


async def press(page: Page, key: str, text: str = "") -> None:
    for kind in ("keyDown", "keyUp"):
        more = {"text": text, "windowsVirtualKeyCode": 13} if text and kind == "keyDown" else {}
        codes = {"Escape": 27, "ArrowRight": 39}
        if key in codes:
            more = {"windowsVirtualKeyCode": codes[key]}
        await page.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, **more)
