"""The live page in a real browser."""

from __future__ import annotations

from pathlib import Path

import pytest
from spica_proto.images import ImageArrived, ImageGraded
from spica_proto.stacks import StackExported

from tests.support import standin
from tests.support.browser import browser, chromium
from tests.support.rig import Rig
from tests.support.site import start_console


@pytest.fixture(autouse=True)
def _needs_a_browser() -> None:
    chromium()


async def arrive(rig: Rig, *files: Path) -> None:
    for path in files:
        await rig.publish(ImageArrived(uri=str(path), batch="n1"))


async def test_the_page_shows_what_is_there_and_what_comes(rig: Rig, tmp_path: Path) -> None:
    await standin.start_stages(rig)
    url = await start_console(rig)
    files = standin.frames(tmp_path / "in", "good1", "blurred1", "bad1", "good2")
    await arrive(rig, *files[:3])
    await rig.wait_for(ImageGraded, count=2)
    async with browser(tmp_path) as page:
        await page.open(url)
        await page.until("document.querySelectorAll('#images tr').length === 2")
        await page.until("document.getElementById('live').textContent === 'live'")
        row = await page.value("document.querySelector('[data-image^=good1]').innerText")
        assert "0.84" in row
        assert "26.214" in row
        assert "32 · 30" in row
        assert await page.value("document.querySelector('[data-image^=blurred1] .grade').textContent") == "D"
        await page.until(
            "document.querySelector('[data-subject=\"image.arrived\"] strong').textContent === '3'"
        )
        assert await page.value("document.getElementById('rejected-count').textContent") == "1"
        await page.until("document.querySelector('.thumb img').naturalWidth > 0")

        # Without a reload: a new image, a filter, a stack asked for on the page, its details.
        await arrive(rig, files[3])
        await page.until("document.querySelectorAll('#images tr').length === 3")
        await page.value(
            "const grade = document.getElementById('by-grade'); grade.value = 'D';"
            "grade.dispatchEvent(new Event('change'))"
        )
        assert await page.value("document.querySelectorAll('#images tr').length") == 1
        await page.value("document.getElementById('ask').click()")
        await page.value("document.querySelector('#request-form [name=name]').value = 'FromPage'")
        await page.value("document.querySelector('#request-form [type=submit]').click()")
        (exported,) = await rig.wait_for(StackExported)
        assert exported.name == "FromPage"
        await page.until("document.querySelector('#stacks .state.exported') !== null")
        await page.value("document.querySelector('#stacks li').click()")
        detail = await page.until(
            "document.getElementById('detail').open && document.getElementById('detail').innerText"
        )
        assert "FromPage" in detail
        assert "good2" in detail

        # The picture and the files of an image lead to its products.
        await page.value("document.getElementById('detail').close()")
        await page.value("document.querySelector('[data-image^=blurred1]').click()")
        files = await page.until(
            "[...document.querySelectorAll('#detail .files a')].map((one) => [one.textContent, one.pathname])"
        )
        assert [name for name, _ in files] == ["catalogue", "weight"]
        assert all(path.startswith("/products/") for _, path in files)
        assert page.complaints == []


@pytest.mark.parametrize("width", [1280, 1920])
async def test_nothing_is_wider_than_the_window(rig: Rig, tmp_path: Path, width: int) -> None:
    await standin.start_stages(rig)
    url = await start_console(rig)
    await arrive(rig, *standin.frames(tmp_path / "in", *(f"good{number}" for number in range(6))))
    await rig.wait_for(ImageGraded, count=6)
    async with browser(tmp_path) as page:
        await page.open(url, width=width)
        await page.until("document.querySelectorAll('#images tr').length === 6")
        assert await page.value("document.documentElement.scrollWidth <= window.innerWidth")
        assert await page.value(
            "[...document.querySelectorAll('.scroll')].every((node) => node.scrollWidth <= node.clientWidth)"
        ), "the table is cut off"
        assert await page.value(
            "[...document.querySelectorAll('.lane li')].every((node) => node.scrollWidth <= node.clientWidth + 1)"
        ), "a label of the flow is cut off"
