"""Standing watches on real PostgreSQL, against a stand-in of the archive."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from spica_ingest.archive import Archive
from spica_ingest.settings import IngestSettings
from spica_ingest.watching import setup, store
from spica_ingest.watching.discovery import Discovery, Pass
from spica_ingest.watching.loop import Poller, make_pass
from spica_ingest.watching.model import Cone, Watch
from spica_ingest.watching.preview import preview
from spica_ingest.watching.store import Held, LostHold, WatchStore, new_holder
from spica_ingest.watching.tap import Asks
from spica_proto.images import ImageArrived
from spica_runtime.database import connect_pool
from spica_runtime.errors import NotRetriable, Retriable, SpicaError, Unavailable, UsageError
from spica_runtime.pg import Pool
from spica_runtime.tasks import end

from tests.support.cadc import CadcStandIn
from tests.support.cadc.caom import Facts

D3 = Watch(
    name="d3",
    collection="CFHT",
    instrument="MegaPrime",
    filters=("r.MP9602",),
    calibration_level=2,
    suffix="p",
    batch="deep",
)


@pytest.fixture
async def pool(database_url: str) -> AsyncIterator[Pool]:
    made = await connect_pool(database_url)
    yield made
    await made.close()


@pytest.fixture
async def cadc() -> AsyncIterator[CadcStandIn]:
    async with CadcStandIn() as archive:
        yield archive


def settings_for(cadc: CadcStandIn, **changes: Any) -> IngestSettings:
    return IngestSettings(
        archive_registry_url=cadc.registry_url, archive_retry_first_s=0.05, archive_retries=1, **changes
    )


class Site:
    """One service's view: the archive, the store, and passes made by hand."""

    def __init__(self, archive: Archive, settings: IngestSettings, pool: Pool) -> None:
        self.archive, self.settings, self.pool = archive, settings, pool
        self.store = WatchStore(pool)
        self.tap: Asks = setup.catalogue(archive, settings)
        self.policy = setup.policy_of(settings)

    def discovery(self, tap: Asks | None = None) -> Discovery:
        return Discovery(
            tap or self.tap, self.store, self.policy, setup.permission(self.archive, self.settings)
        )

    async def add(self, watch: Watch = D3, **changes: Any) -> Watch:
        watch = Watch.model_validate(watch.model_dump() | changes)
        await self.store.add(watch)
        return watch

    async def look(self, name: str = "d3", tap: Asks | None = None) -> Pass:
        held = await self.claim(name)
        return await make_pass(held, self.store, self.discovery(tap), interval_s=60)

    async def claim(self, name: str = "d3") -> Held:
        held = await self.store.claim(new_holder(), name)
        assert held is not None
        return held

    async def said(self) -> list[ImageArrived]:
        rows = await self.pool.fetch(
            "SELECT body FROM outbox WHERE subject = 'image.arrived' ORDER BY outbox_id"
        )
        return [ImageArrived.model_validate_json(row["body"]) for row in rows]

    async def names(self) -> list[str]:
        return [str(message.name) for message in await self.said()]

    async def ledger(self) -> list[tuple[str, str]]:
        rows = await self.pool.fetch("SELECT uri, state FROM archive_ledger ORDER BY uri, found_at, state")
        return [(row["uri"].rsplit("/", 1)[1].removesuffix(".fits.fz"), row["state"]) for row in rows]


@asynccontextmanager
async def site_of(cadc: CadcStandIn, pool: Pool, **changes: Any) -> AsyncIterator[Site]:
    settings = settings_for(cadc, **changes)
    archive = Archive.from_settings(settings)
    try:
        yield Site(archive, settings, pool)
    finally:
        await archive.close()


@pytest.fixture
async def site(cadc: CadcStandIn, pool: Pool) -> AsyncIterator[Site]:
    async with site_of(cadc, pool) as made:
        yield made


def put(cadc: CadcStandIn, *numbers: int, content: bytes = b"x", **facts: Any) -> None:
    for number in numbers:
        cadc.add(f"cadc:CFHT/{number}p.fits.fz", content + str(number).encode(), **facts)


async def test_what_arrives_is_announced_once_with_all_that_is_known_of_it(
    cadc: CadcStandIn, site: Site
) -> None:
    put(cadc, 1)
    await site.add()
    put(cadc, 2, 3)
    made = await site.look()
    # What came just before the watch was added may be taken with it, for the sake of clocks that differ.
    assert sorted(await site.names()) == ["1p", "2p", "3p"]
    assert (made.read, len(made.announced), made.full) == (3, 3, False)
    first = (await site.said())[0]
    stored = cadc.files["cadc:CFHT/1p.fits.fz"]
    assert (first.uri, first.source, first.batch) == ("cadc:CFHT/1p.fits.fz", "cadc", "deep")
    assert (first.size_bytes, first.md5) == (2, stored.md5.hex())
    assert first.modified_at is not None and abs(first.modified_at - stored.modified) < timedelta(
        milliseconds=1
    )
    again = await site.look()
    assert (again.announced, again.known) == ([], 3)
    assert len(await site.said()) == 3


async def test_what_is_stored_late_is_met_by_looking_back(cadc: CadcStandIn, site: Site) -> None:
    await site.add(since=datetime.now(UTC) - timedelta(days=3))
    put(cadc, 1)
    await site.look()
    put(cadc, 2, late_s=300)  # an entry of five minutes ago appears now, behind the bookmark
    put(cadc, 3, late_s=7200)
    await site.look()
    assert await site.names() == ["1p", "2p"]
    # What comes later than that is met once a day.
    cadc.clock.advance(86400)
    await site.look()
    assert await site.names() == ["1p", "2p", "3p"]


async def test_what_is_not_public_waits_and_is_announced_when_its_day_comes(
    cadc: CadcStandIn, site: Site
) -> None:
    put(cadc, 1, late_s=90_000, data_release=3600.0)  # changed long before the watch was added
    await site.add()
    put(cadc, 2, data_release=3600.0)
    put(cadc, 3, data_release=None)
    made = await site.look()
    assert made.announced == [] and {seen.found.file_name for seen in made.waiting} == {
        "2p.fits.fz",
        "3p.fits.fz",
    }
    assert await site.ledger() == [("2p", "waiting"), ("3p", "waiting")]
    assert (await site.look()).waiting == []
    cadc.clock.advance(3602)
    made = await site.look()
    assert {seen.found.file_name: seen.decision.why for seen in made.announced} == {
        "1p.fits.fz": "new",
        "2p.fits.fz": "released",
    }
    assert sorted(await site.names()) == ["1p", "2p"]
    await site.look()
    assert len(await site.said()) == 2


async def test_metadata_that_become_visible_bring_their_file(cadc: CadcStandIn, site: Site) -> None:
    await site.add(since=datetime.now(UTC) - timedelta(days=3))
    put(cadc, 1)
    put(cadc, 2, meta_release=None)
    put(cadc, 3, meta_release=7200.0, data_release=7200.0)
    await site.look()
    assert await site.names() == ["1p"]
    cadc.clock.advance(7202)
    await site.look()
    assert await site.names() == ["1p", "3p"]


async def test_another_content_is_announced_again_and_the_first_one_back_too(
    cadc: CadcStandIn, site: Site
) -> None:
    await site.add()
    uri = "cadc:CFHT/1p.fits.fz"
    put(cadc, 1)
    await site.look()
    cadc.touch(uri)  # the archive works over its metadata: the same content is no news
    assert (await site.look()).announced == []
    cadc.replace(uri, b"better")
    made = await site.look()
    assert [seen.decision.why for seen in made.announced] == ["changed"]
    cadc.replace(uri, b"x1")
    assert len((await site.look()).announced) == 1
    assert (await site.look()).announced == []
    said = await site.said()
    assert len({message.md5 for message in said}) == 2 and len(said) == 3
    times = [message.modified_at for message in said]
    assert times == sorted(times, key=lambda time: time or datetime.min)
    ids = [row["message_id"] for row in await site.pool.fetch("SELECT message_id FROM outbox")]
    assert len(set(ids)) == 3


async def test_a_content_that_was_replaced_before_its_release_is_never_announced(
    cadc: CadcStandIn, site: Site
) -> None:
    await site.add()
    put(cadc, 1, data_release=3600.0)
    await site.look()
    cadc.replace("cadc:CFHT/1p.fits.fz", b"better")
    await site.look()
    assert await site.ledger() == [("1p", "replaced"), ("1p", "waiting")]
    cadc.clock.advance(3602)
    await site.look()
    assert [message.size_bytes for message in await site.said()] == [6]


@pytest.mark.parametrize("page_rows", [1, 3])
async def test_answers_that_are_full_are_gone_on_with(cadc: CadcStandIn, pool: Pool, page_rows: int) -> None:
    async with site_of(cadc, pool, archive_page_rows=page_rows) as site:
        await site.add()
        put(cadc, *range(10, 17))
        stamp = cadc.clock.stamp().replace(microsecond=4000)
        for number in range(20, 27):  # all in one millisecond, in an order of their own
            at_once(cadc, number, stamp.replace(microsecond=4000 + (number * 37) % 11))
        put(cadc, *range(30, 33))
        made = await site.look()
        wanted = [f"{number}p" for number in (*range(10, 17), *range(20, 27), *range(30, 33))]
        assert sorted(await site.names()) == wanted
        assert len(made.announced) == 17
        assert (await site.look()).announced == []


def at_once(cadc: CadcStandIn, number: int, time: datetime, **facts: Any) -> None:
    """A file whose row says that it was changed at just this time."""
    uri = f"cadc:CFHT/{number}p.fits.fz"
    known = Facts.of(uri, **facts)
    cadc.caom.put(uri, known, f"md5:{number:032x}", 100, time)


async def test_many_rows_of_one_time_end(cadc: CadcStandIn, pool: Pool) -> None:
    """As when an archive is filled from another one: far more rows of one moment than an answer may have."""
    async with site_of(cadc, pool, archive_page_rows=300) as site:
        await site.add(max_per_pass=100_000)
        stamp = cadc.clock.stamp()
        for number in range(1000, 2000):
            at_once(cadc, number, stamp)
        made = await asyncio.wait_for(site.look(), timeout=60)
        assert len(made.announced) == 1000
        assert await pool.fetchval("SELECT count(DISTINCT message_id) FROM outbox") == 1000
        queries = len(cadc.requests("argus", method="GET", status=200))
        assert queries <= 2 + 1 + 4 + 1 + 2


class Broken(Exception):
    """As when the process is killed."""


class Pages:
    """The archive's catalogue, until it is killed after so many pages."""

    def __init__(self, tap: Asks, pages: int) -> None:
        self._tap, self._left = tap, pages

    async def newest(self, collection: str) -> tuple[datetime, datetime]:
        return await self._tap.newest(collection)

    async def page(self, query: str, page_rows: int) -> Any:
        if not self._left:
            raise Broken
        self._left -= 1
        return await self._tap.page(query, page_rows)


async def test_killed_between_pages_nothing_is_lost_and_nothing_said_twice(
    cadc: CadcStandIn, pool: Pool
) -> None:
    async with site_of(cadc, pool, archive_page_rows=3) as site:
        await site.add(since=datetime.now(UTC) - timedelta(days=30))
        put(cadc, *range(10, 20), late_s=86_400 * 5)
        put(cadc, *range(20, 30))
        for pages in (0, 1, 2, 1, 3, 2, 1, 4):
            with pytest.raises(Broken):
                await site.look(tap=Pages(site.tap, pages))
        await site.look()
        assert sorted(await site.names()) == [f"{number}p" for number in range(10, 30)]


@pytest.mark.parametrize("place", ["upsert_bookmark", "enter"])
async def test_killed_within_a_page_all_of_it_is_undone(
    cadc: CadcStandIn, site: Site, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await site.add()
    put(cadc, 1, 2)

    async def killed(*_: object, **__: object) -> None:
        raise Broken

    with monkeypatch.context() as patch:
        patch.setattr(store.queries, place, killed)
        with pytest.raises(Broken):
            await site.look()
    assert await site.said() == [] and await site.ledger() == []
    assert await site.pool.fetchval("SELECT count(*) FROM bookmarks") == 0
    await site.look()
    assert sorted(await site.names()) == ["1p", "2p"]


async def test_many_services_and_watches_at_once_announce_each_file_once(
    cadc: CadcStandIn, pool: Pool, database_url: str
) -> None:
    async with site_of(cadc, pool, archive_page_rows=3) as first:
        for number in range(4):
            await first.add(name=f"w{number}", interval_s=0.05, filters=() if number % 2 else ("r.MP9602",))
        stop = asyncio.Event()
        other_pool = await connect_pool(database_url)
        async with site_of(cadc, other_pool, archive_page_rows=3) as second:
            pollers = [Poller(site.store, site.discovery(), interval_s=60) for site in (first, second)]
            tasks = [asyncio.create_task(poller.run(stop)) for poller in pollers]
            for number in range(10, 30):
                put(cadc, number)
                await asyncio.sleep(0.03)
            await until(pool, "SELECT count(*) >= 20 FROM archive_ledger")
            await asyncio.sleep(0.3)
            stop.set()
            await asyncio.wait_for(asyncio.gather(*tasks), timeout=10)
        await other_pool.close()
        assert sorted(await first.names()) == [f"{number}p" for number in range(10, 30)]
        rows = await first.store.listing()
        assert [row["error"] for row in rows] == [None] * 4 and all(row["good_at"] for row in rows)
        assert sum(row["on_the_way"] for row in rows) == 20


async def until(pool: Pool, query: str, timeout_s: float = 20) -> Any:
    async with asyncio.timeout(timeout_s):
        while not (value := await pool.fetchval(query)):
            await asyncio.sleep(0.05)
    return value


async def test_a_watch_has_one_holder_and_one_that_was_silent_too_long_writes_nothing(
    cadc: CadcStandIn, site: Site
) -> None:
    await site.add()
    put(cadc, 1)
    first = await site.claim()
    assert await site.store.claim(new_holder(), "d3") is None
    assert await site.store.claim(new_holder()) is None
    # The first is suspended; its hold ends, and another takes the watch over.
    await site.pool.execute("UPDATE watches SET held_until = now() - interval '1 second'")
    second = await site.claim()
    with pytest.raises(LostHold):
        await make_pass(first, site.store, site.discovery(), interval_s=60)
    assert await site.said() == []
    await make_pass(second, site.store, site.discovery(), interval_s=60)
    assert await site.names() == ["1p"]
    # It was given back, and the first, awake again, does not spoil that.
    await site.store.end(first, error=SpicaError("late", "late"), next_s=0)
    assert (await site.store.listing())[0]["error"] is None


async def test_a_pass_that_is_ended_in_a_hurry_still_gives_its_watch_back(
    cadc: CadcStandIn, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    await site.add()
    held, asked = await site.claim(), asyncio.Event()

    class Silent:
        async def newest(self, collection: str) -> tuple[datetime, datetime]:
            asked.set()
            await asyncio.sleep(60)
            raise AssertionError

        async def page(self, query: str, page_rows: int) -> Any:
            raise AssertionError

    let_go = site.store.let_go

    async def slowly(held: Held) -> None:
        await asyncio.sleep(0.6)  # a store under load; whoever ends tasks cancels again after 0.2 s
        await let_go(held)

    monkeypatch.setattr(site.store, "let_go", slowly)
    task = asyncio.create_task(make_pass(held, site.store, site.discovery(Silent()), interval_s=60))
    await asked.wait()
    await end(task)
    await until(site.pool, "SELECT holder IS NULL FROM watches")


async def test_a_watch_that_is_added_paused_is_never_polled(site: Site) -> None:
    await site.store.add(D3, active=False)
    assert await site.store.claim(new_holder()) is None
    assert (await site.store.listing())[0]["state"] == "paused"
    assert await site.store.seconds_to_next() is None


async def test_a_watch_that_was_removed_meanwhile_announces_nothing(cadc: CadcStandIn, site: Site) -> None:
    await site.add()
    put(cadc, 1)
    held = await site.claim()
    await site.store.remove("d3")
    with pytest.raises(LostHold):
        await make_pass(held, site.store, site.discovery(), interval_s=60)
    assert await site.said() == []
    assert await site.pool.fetchval("SELECT count(*) FROM bookmarks") == 0


@pytest.mark.parametrize("kind", ["html", "refuse", "cut", "close"])
async def test_an_archive_that_answers_rubbish_moves_no_bookmark(
    cadc: CadcStandIn, site: Site, kind: str
) -> None:
    await site.add()
    put(cadc, 1)
    await site.look()
    put(cadc, 2)
    before = await site.pool.fetch("SELECT name, value FROM bookmarks ORDER BY name")
    # Every second answer: the pages, not what the catalogue is asked before.
    cadc.fault(kind, service="argus", method="GET", times=None, after=150)
    with pytest.raises((Retriable, Unavailable)):
        await site.look()
    assert await site.pool.fetch("SELECT name, value FROM bookmarks ORDER BY name") == before
    (row,) = await site.store.listing()
    assert row["failures"] == 1 and row["error"]["message"]
    assert row["next_at"] > row["polled_at"] + timedelta(seconds=50)
    cadc.faults.clear()
    await site.look()
    assert await site.names() == ["1p", "2p"]
    assert (await site.store.listing())[0]["error"] is None


async def test_a_watch_that_fails_does_not_hold_the_others(cadc: CadcStandIn, site: Site) -> None:
    await site.add(name="misspelt", collection="CHFT", interval_s=0.05)
    await site.add(interval_s=0.05)
    put(cadc, 1)
    stop = asyncio.Event()
    task = asyncio.create_task(Poller(site.store, site.discovery(), interval_s=60).run(stop))
    await until(site.pool, "SELECT count(*) = 1 FROM outbox")
    await until(site.pool, "SELECT bool_and(polled_at IS NOT NULL) FROM watches")
    stop.set()
    await asyncio.wait_for(task, timeout=10)
    d3, misspelt = await site.store.listing()
    assert d3["error"] is None and d3["on_the_way"] == 1
    assert misspelt["error"]["code"] == "archive_collection" and "'CHFT'" in misspelt["error"]["message"]
    assert misspelt["holder"] is None and d3["holder"] is None


async def test_a_watch_that_this_version_does_not_understand_is_left_alone_and_told(
    cadc: CadcStandIn, site: Site
) -> None:
    await site.add(name="a")
    await site.add()
    await site.pool.execute(
        """UPDATE watches SET definition = definition || '{"moon": "new"}', next_at = now() - interval '1 hour'"""
        " WHERE name = 'a'"
    )
    held = await site.store.claim(new_holder())
    assert held is not None and held.watch.name == "d3"
    assert await site.store.claim(new_holder()) is None
    (row, _) = await site.store.listing()
    assert row["error"]["code"] == "watch_unreadable" and "added by another version" in row["what"]
    with pytest.raises(UsageError, match="cannot be read by this version"):
        await site.claim("a")


async def test_one_that_is_paused_is_not_polled(cadc: CadcStandIn, site: Site) -> None:
    await site.add(interval_s=0.05)
    await site.store.set_active("d3", active=False)
    assert await site.store.claim(new_holder()) is None
    assert await site.store.seconds_to_next() is None
    await site.store.set_active("d3", active=True)
    assert await site.store.claim(new_holder()) is not None


async def test_with_credentials_what_they_open_is_taken_at_once(cadc: CadcStandIn, pool: Pool) -> None:
    token = cadc.user("pi")
    ours: dict[str, Any] = {"readers": ["pi"], "data_release": 86_400.0, "meta_release": 86_400.0}
    put(cadc, 1, **ours)
    put(cadc, 2, data_release=86_400.0)
    put(cadc, 3)
    async with site_of(cadc, pool) as anonymous:
        await anonymous.add()
        await anonymous.look()
        assert await anonymous.names() == ["3p"]
    async with site_of(cadc, pool, archive_token=token) as site:
        made = await site.look()
        assert [seen.found.file_name for seen in made.announced] == ["1p.fits.fz"]
        assert await site.names() == ["3p", "1p"]
        assert await site.ledger() == [("1p", "announced"), ("2p", "waiting"), ("3p", "announced")]
        asked = len(cadc.requests("raven"))
        assert (await site.look()).announced == []
        assert len(cadc.requests("raven")) == asked, "what is closed is not tried at every pass"
        cadc.clock.advance(86_402)
        await site.look()
        assert await site.names() == ["3p", "1p", "2p"], "what was taken early is no news when its day comes"


async def test_what_was_announced_early_and_not_given_is_announced_when_it_is_public(
    cadc: CadcStandIn, pool: Pool
) -> None:
    async with site_of(cadc, pool, archive_token=cadc.user("pi")) as site:
        await site.add()
        put(cadc, 1, readers=["pi"], data_release=3600.0)
        await site.look()
        fetch = await pool.fetchval("SELECT fetch_id FROM archive_ledger")
        await pool.execute(
            "INSERT INTO dead_letters (dead_letter_id, service, event_id, subject, headers, body, code, message,"
            " attempts) VALUES ('l', 'ingest', $1, 'image.wanted', '{}', '{}', 'archive_forbidden', 'no', 1)",
            fetch,
        )
        await site.look()
        assert await site.names() == ["1p"]
        cadc.clock.advance(3602)
        await site.look()
        await site.look()
        assert await site.names() == ["1p", "1p"]


async def test_a_backfill_trickles_and_does_not_stand_in_the_way_of_news(
    cadc: CadcStandIn, site: Site
) -> None:
    put(cadc, *range(10, 20), late_s=86_400 * 100)
    await site.add(since=datetime.now(UTC) - timedelta(days=365), max_per_pass=4)
    put(cadc, 90)
    made = await site.look()
    assert made.full and (await site.names())[0] == "90p" and len(made.announced) == 4
    # All of those are on their way still: nothing more is said.
    assert (await site.look()).announced == []
    put(cadc, 91)
    await site.pool.execute(
        "INSERT INTO inbox (service, event_id, subject)"
        " SELECT 'ingest', event_id, 'image.arrived' FROM archive_ledger"
    )
    made = await site.look()
    assert made.on_the_way == 0 and made.announced[0].found.file_name == "91p.fits.fz"
    for _ in range(3):
        await site.pool.execute(
            "INSERT INTO inbox (service, event_id, subject)"
            " SELECT 'ingest', event_id, 'image.arrived' FROM archive_ledger ON CONFLICT DO NOTHING"
        )
        made = await site.look()
    assert not made.full
    assert sorted(await site.names()) == [f"{number}p" for number in (*range(10, 20), 90, 91)]
    sweeps = (await site.store.listing())[0]["sweeps"]
    assert set(sweeps) == {"changed", "released", "backfill_changed", "backfill_released"}
    assert all(sweep["reading"] is None for sweep in sweeps.values())


async def test_a_file_is_on_its_way_until_its_fetch_is_through(cadc: CadcStandIn, site: Site) -> None:
    await site.add()
    put(cadc, 1)
    await site.look()
    row = await site.pool.fetchrow("SELECT event_id, fetch_id FROM archive_ledger")
    assert row is not None
    insert = "INSERT INTO inbox (service, event_id, subject) VALUES ('ingest', $1, 'x')"
    await site.pool.execute(
        "INSERT INTO outbox (message_id, subject, headers, body) VALUES ($1, 'image.wanted', '{}', '{}')",
        row["fetch_id"],
    )
    await site.pool.execute(insert, row["event_id"])
    assert await site.store.on_the_way("d3") == 1
    await site.pool.execute(insert, row["fetch_id"])
    assert await site.store.on_the_way("d3") == 0
    assert await site.ledger() == [("1p", "handled")]


HOSTILE = ["O'Neil", "'; DROP TABLE x; --", 'say "hi"', "100%_sure", "a\\'b", "*", "naïve 星", "?,:#&=+"]


async def test_names_are_only_names(cadc: CadcStandIn, site: Site) -> None:
    put(cadc, 20, target="100XXsure", proposal_id="o'neil")
    for number, target in enumerate(HOSTILE, start=10):
        put(cadc, number, target=target, proposal_id=target)
    for number, target in enumerate(HOSTILE, start=10):
        watch = D3.model_copy(update={"targets": (target,), "programmes": (target,)})
        shown = await preview(watch, site.tap, site.policy, limit=100)
        found = sorted(int(seen.found.file_name.removesuffix("p.fits.fz")) for seen in shown.seen)
        assert found == ([*range(10, 10 + len(HOSTILE)), 20] if target == "*" else [number]), target
    await site.add(targets=HOSTILE[:3], programmes=HOSTILE[:3])
    await site.look()
    assert sorted(await site.names()) == ["10p", "11p", "12p"]


async def test_all_that_is_given_must_fit(cadc: CadcStandIn, site: Site) -> None:
    put(cadc, 1)
    put(cadc, 2, filter="i.MP9703")
    put(cadc, 3, instrument="WIRCam")
    put(cadc, 4, quality_flag="junk")
    put(cadc, 5, intent="calibration", product_type="calibration")
    put(cadc, 6, position="circle 10 10 0.5")
    put(cadc, 7, position=None)
    put(cadc, 8, target="D3-extra", proposal_id="10BF02")
    cadc.add("cadc:CFHT/9o.fits.fz", b"raw")
    cadc.add("cadc:CFHT/1p_flag.fits.fz", b"mask", calibration_level=2)
    cadc.add("cadc:OTHER/1p.fits.fz", b"other")
    cadc.add("cadc:CFHT/1p_preview_256.jpg", b"jpeg", product_type="preview")
    cases: Sequence[tuple[dict[str, Any], list[str]]] = [
        ({}, ["1p", "3p", "6p", "7p", "8p"]),
        ({"instrument": "Mega*"}, ["1p", "6p", "7p", "8p"]),
        ({"filters": ("i.MP9703", "g.*")}, ["2p"]),
        ({"targets": ("D3*",), "programmes": ("10BD*", "10BF02")}, ["1p", "3p", "6p", "7p", "8p"]),
        ({"targets": ("D3-*",)}, ["8p"]),
        ({"programmes": ("10BF02", "nobody")}, ["8p"]),
        ({"intent": "calibration"}, ["5p"]),
        ({"region": Cone(ra_deg=214.0, dec_deg=52.0, radius_deg=1.0)}, ["1p", "3p", "8p"]),
        ({"region": {"corners_deg": [[9, 9], [11, 9], [11, 11], [9, 11]]}}, ["6p"]),
        ({"calibration_level": 1, "suffix": "o"}, ["9o"]),
        ({"collection": "OTHER"}, ["1p"]),
    ]
    for number, (changes, expected) in enumerate(cases):
        watch = Watch.model_validate({"name": f"w{number}", "collection": "CFHT", "suffix": "p"} | changes)
        if "filters" not in changes:
            watch = watch.model_copy(update={"filters": ("r.MP9602",)})
        shown = await preview(watch, site.tap, site.policy, limit=100)
        found = sorted(seen.found.file_name.removesuffix(".fits.fz") for seen in shown.seen)
        assert found == expected, changes


async def test_a_preview_writes_nothing_and_tells_what_and_why(cadc: CadcStandIn, site: Site) -> None:
    put(cadc, 1, late_s=86_400 * 10)
    put(cadc, 2, late_s=86_400 * 10, data_release=3600.0)
    put(cadc, 3)
    watch = D3.model_copy(update={"since": datetime.now(UTC) - timedelta(days=30)})
    shown = await preview(watch, site.tap, site.policy, limit=10)
    told = {seen.found.file_name[0]: (seen.decision.step, seen.decision.why) for seen in shown.seen}
    assert told["1"] == told["3"] == ("announce", "new")
    assert told["2"][0] == "wait" and told["2"][1].startswith("waits for its release on 20")
    short = await preview(watch, site.tap, site.policy, limit=2)
    assert (len(short.seen), short.more, shown.more) == (2, True, False)
    assert await site.pool.fetchval("SELECT count(*) FROM bookmarks") == 0 and await site.ledger() == []
    # Of a watch that is there: only what is still to come.
    await site.add()
    await site.look()
    put(cadc, 4)
    found = await site.store.find("d3")
    left = await preview(
        found.watch, site.tap, site.policy, limit=9, created_at=found.created_at, store=site.store
    )
    assert [seen.found.file_name for seen in left.seen] == ["4p.fits.fz"]


async def test_a_file_without_a_checksum_goes_by_the_time_of_its_entry(cadc: CadcStandIn, site: Site) -> None:
    await site.add()
    uri = "cadc:CFHT/1p.fits.fz"
    facts = Facts.of(uri)
    cadc.caom.put(uri, facts, "", 123, cadc.clock.stamp())
    await site.look()
    await site.look()
    (message,) = await site.said()
    assert (message.md5, message.size_bytes) == (None, 123)
    cadc.caom.put(uri, facts, "", 124, cadc.clock.stamp())
    await site.look()
    assert [message.size_bytes for message in await site.said()] == [123, 124]


async def test_names_of_watches(site: Site) -> None:
    await site.add()
    with pytest.raises(UsageError, match="There is a watch d3 already"):
        await site.add()
    for wrong in (
        site.store.remove("d4"),
        site.store.set_active("d4", active=True),
        site.store.find("d4"),
    ):
        with pytest.raises(UsageError, match=r"no watch 'd4'\. There are: d3"):
            await wrong
    await site.store.remove("d3")
    await site.add()


async def test_a_query_that_the_archive_refuses_is_told_with_its_words(site: Site) -> None:
    tap = setup.catalogue(site.archive, site.settings)
    with pytest.raises(NotRetriable, match=r"LIMIT is not ADQL.*SELECT uri FROM caom2.Artifact LIMIT 3"):
        await tap.query("SELECT uri FROM caom2.Artifact LIMIT 3", maxrec=3, columns=None)
    with pytest.raises(Retriable, match="columns 'uri' where uri, another"):
        await tap.query("SELECT uri FROM caom2.Artifact", maxrec=3, columns=("uri", "another"))
