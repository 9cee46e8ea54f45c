"""The board of transfers: what is told, drawn; what is no longer told, gone."""

from __future__ import annotations

import asyncio
import io
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from rich.console import Console
from spica_console import output
from spica_console import transfers as board
from spica_console.submitting import sources
from spica_console.transfers import Transfers, amount
from spica_proto.images import ImageProgress
from spica_runtime.errors import UsageError


def told(name: str, done: int, *, ended: bool = False, total: int | None = 200_000_000) -> ImageProgress:
    return ImageProgress(
        name=name, stage="fetch", uri=f"cadc:A/{name}", done=done, total=total, per_second=2.5e6, ended=ended
    )


def drawn(transfers: Transfers) -> str:
    console = Console(width=120, record=True, file=open("/dev/null", "w"))  # noqa: SIM115, PTH123
    console.print(transfers)
    console.file.close()
    return console.export_text()


def test_what_is_under_way_is_drawn_until_it_ends() -> None:
    transfers = Transfers()
    transfers.hear(told("a", 50_000_000))
    transfers.hear(told("b", 0, total=None))
    transfers.hear(told("a", 100_000_000))
    text = drawn(transfers)
    assert "100.0 of 200.0 MB" in text and "2.5 MB/s" in text and "0.0 MB" in text
    transfers.hear(told("a", 200_000_000, ended=True))
    assert [message.name for message in transfers.now()] == ["b"]


def test_one_that_fell_silent_is_not_shown() -> None:
    now = 0.0
    transfers = Transfers(clock=lambda: now)
    transfers.hear(told("a", 1))
    now = 29.0
    assert transfers.now()
    now = 31.0
    assert not transfers.now()


def test_names_are_no_markup_and_many_are_counted() -> None:
    transfers = Transfers()
    transfers.hear(told("[/] [bold]x", 1))
    for number in range(10):
        transfers.hear(told(f"n{number}", 1))
    text = drawn(transfers)
    assert "[/] [bold]x" in text and "and 3 more" in text


def test_other_units_are_written_out() -> None:
    assert amount(ImageProgress(name="a", stage="move", done=3, total=7, unit="images")) == "3 of 7 images"
    assert amount(ImageProgress(name="a", stage="move", done=3, unit="images")) == "3 images"


def test_files_folders_and_addresses_are_told_apart(tmp_path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.chdir(tmp_path)
    for name in ("cadc:A", "in/b.fits", "in/c.txt"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
    given = ["cadc:A", "in", "cadc:CFHT/1p.fits.fz", "https://a.org/x.fits"]
    files = [str(item) for item in sources(given, ("cadc",))]
    assert files == ["cadc:A", "in/b.fits", "cadc:CFHT/1p.fits.fz", "https://a.org/x.fits"]
    assert [type(item).__name__ for item in sources(given, ("cadc",))][2:] == ["str", "str"]
    for text in ("missing.fits", "mast:HST/a", "cadc"):
        with pytest.raises(UsageError, match=f"no file {text}"):
            sources([text], ("cadc",))


async def test_it_is_drawn_where_it_is_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not in a thread of rich's own, which would meet transfers that come and go meanwhile."""
    drawn_in: set[int] = set()

    class Watched(Transfers):
        def now(self) -> list[ImageProgress]:
            drawn_in.add(threading.get_ident())
            return super().now()

    @asynccontextmanager
    async def heard(_: object) -> AsyncIterator[Transfers]:
        yield Watched()

    screen = Console(file=io.StringIO(), force_terminal=True, width=80)
    monkeypatch.setattr(board, "heard", heard)
    monkeypatch.setattr(output, "console", lambda stderr: screen)
    async with board.shown(None, lambda: "2 of 3 ended"):  # type: ignore[arg-type]
        await asyncio.sleep(0.6)
    assert drawn_in == {threading.get_ident()}
    assert "2 of 3 ended" in screen.file.getvalue()  # type: ignore[attr-defined]
