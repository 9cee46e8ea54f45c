"""An archive in trouble and an ingest that is killed: every version of every file must come in once, and whole.

The archive is the stand-in, in its own process. Files appear in it one after the other, some to be released later,
some replaced, many with transfers that break. Two ingest services share the work and are killed all the while.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import random
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from spica_ingest.watching.store import WatchStore
from spica_proto.streams import STREAM
from spica_runtime.bus import connect_bus
from spica_runtime.embedded.process import Child
from spica_runtime.pg import Pool
from spica_runtime.settings import PlatformSettings
from spica_runtime.storage import sha256_of

from tests.support.archive_plan import DECOYS, WATCH, File, frame, make_files, trouble
from tests.support.cadc import CadcProcess

REPLICAS = ("a", "b")
HOLD_S = 3.0
"""A killed service holds the watch for so long. In life it is two minutes: most of the test."""
TAKEN_WITHIN_S = 150.0
ASK_AGAIN_S = 1.0
"""And so long nobody asks a registry again that answered nonsense; in life a minute."""

_RUN_INGEST = f"""
import runpy
import spica_ingest.archive.registry, spica_ingest.watching.loop, spica_ingest.watching.store
spica_ingest.watching.store.HOLD_S = spica_ingest.watching.loop.HOLD_S = {HOLD_S}
spica_ingest.archive.registry._ASK_AGAIN_S = spica_ingest.archive.registry._STALE_RETRY_S = {ASK_AGAIN_S}
runpy.run_module("spica_ingest", run_name="__main__")
"""


@dataclass
class Report:
    """What was done, and what was found afterwards."""

    kills: Counter[str] = field(default_factory=Counter)
    in_flow: int = 0
    """Kills while files were still to come."""
    elapsed_s: float = 0.0
    resumed: int = 0
    """Transfers that went on where an earlier one broke."""
    sent_ratio: float = 0.0
    """Bytes that the archive sent, by bytes of all files."""
    answers: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)


class Ingests:
    """Two ingest processes, started again as soon as they end."""

    def __init__(self, settings: PlatformSettings, registry_url: str, folder: Path) -> None:
        self._folder = folder
        self._environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("SPICA_")},
            "OMP_NUM_THREADS": "1",
            "SPICA_NATS_URL": settings.nats_url,
            "SPICA_DATABASE_URL": settings.database_url,
            "SPICA_DATA": str(settings.data),
            "SPICA_LOG_FORMAT": "json",
            "SPICA_INGEST_WORKERS": "1",
            "SPICA_INGEST_RETRY_DELAYS_S": "[0.2, 0.5, 1.0]",
            "SPICA_INGEST_ARCHIVE_REGISTRY_URL": registry_url,
            "SPICA_INGEST_ARCHIVE_RETRY_FIRST_S": "0.1",
            "SPICA_INGEST_ARCHIVE_RETRY_LONGEST_S": "1",
            "SPICA_INGEST_FETCH_RESERVE_BYTES": "0",
        }
        self._children: dict[str, Child] = {}
        self.ended: list[str] = []
        """Those that ended by themselves, with the end of their log."""

    def start(self, name: str) -> None:
        """Start one."""
        log = self._folder / f"ingest-{name}.log"
        self._children[name] = Child(
            name, [sys.executable, "-W", "error", "-c", _RUN_INGEST], log, environment=self._environment
        )

    def kill(self, name: str) -> None:
        """End one at once, and start it again."""
        child = self._children[name]
        if child.exit_code() is not None:
            self.ended.append(f"{name} ended with {child.exit_code()}: {child.last_lines()}")
        child.kill()
        self.start(name)

    async def stop(self) -> None:
        """Let both end in order."""
        await asyncio.gather(*(child.stop(grace_s=30) for child in self._children.values()))
        self.ended += [
            f"{name} ended with {child.exit_code()}: {child.last_lines()}"
            for name, child in self._children.items()
            if child.exit_code() != 0
        ]

    def complaints(self) -> list[str]:
        """What they logged as an error of their own, and what Python said besides."""
        found = []
        for name in REPLICAS:
            for line in (self._folder / f"ingest-{name}.log").read_text().splitlines():
                try:
                    said = json.loads(line)
                except ValueError:
                    # A line that a kill cut off is no complaint.
                    said = {} if line.startswith("{") else {"level": "error", "event": line}
                if said.get("level") in ("error", "critical"):
                    found.append(f"{name}: {said.get('event')} {said.get('code', '')}")
        return found


@asynccontextmanager
async def ingests(settings: PlatformSettings, registry_url: str, folder: Path) -> AsyncIterator[Ingests]:
    """Both, until the block ends."""
    both = Ingests(settings, registry_url, folder)
    try:
        for name in REPLICAS:
            both.start(name)
        yield both
    finally:
        await both.stop()


class Chaos:
    """One run."""

    def __init__(
        self, settings: PlatformSettings, pool: Pool, folder: Path, *, files: int, seed: int
    ) -> None:
        self._settings = settings
        self._pool = pool
        self._folder = folder
        self._chance = random.Random(seed)
        self.files = make_files(files, self._chance)
        self.report = Report()

    async def run(self, *, kills: int, pause_s: tuple[float, float], timeout_s: float) -> Report:
        """Let files appear while services are killed; wait; look at what is there."""
        begun = time.monotonic()
        self._settings.data.mkdir(parents=True, exist_ok=True)
        await WatchStore(self._pool).add(WATCH)
        async with CadcProcess() as cadc:
            async with ingests(self._settings, cadc.registry_url, self._folder) as both:
                killing = asyncio.create_task(self._kill(both, kills, pause_s))
                try:
                    await self._feed(cadc, kills)
                    self.report.in_flow = sum(self.report.kills.values())
                    await killing
                    await self._settled(timeout_s)
                finally:
                    killing.cancel()
                    await asyncio.gather(killing, return_exceptions=True)
            self.report.faults += [*both.ended, *both.complaints()]
            await self._ask_the_archive(cadc)
        self.report.elapsed_s = time.monotonic() - begun
        await self._examine()
        return self.report

    async def _kill(self, both: Ingests, kills: int, pause_s: tuple[float, float]) -> None:
        """One, sometimes both, at any moment: also while they start."""
        while (done := sum(self.report.kills.values())) < kills:
            await asyncio.sleep(self._chance.uniform(*pause_s))
            victims = list(REPLICAS) if self._chance.random() < 0.3 else [self._chance.choice(REPLICAS)]
            for name in victims[: kills - done]:
                both.kill(name)
                self.report.kills[name] += 1

    async def _feed(self, cadc: CadcProcess, kills: int) -> None:
        """Files appear, spread over the kills so that each finds some on their way."""
        chance = random.Random(self._chance.random())
        for index, (uri, facts) in enumerate(DECOYS):
            await cadc.add(uri, frame(len(self.files) + index, 0, compressed=False), **facts)
        async with asyncio.TaskGroup() as changes:
            for number, file in enumerate(self.files):
                while sum(self.report.kills.values()) < kills * number // len(self.files):
                    await asyncio.sleep(0.02)
                await self._appear(cadc, file)
                if file.change is not None:
                    changes.create_task(self._change(cadc, file))
                if (accident := trouble(chance)) is not None:
                    await cadc.fault(accident[0], **accident[1])
                await asyncio.sleep(chance.uniform(0, 0.05))

    @staticmethod
    async def _appear(cadc: CadcProcess, file: File) -> None:
        for kind, details in file.faults:
            await cadc.fault(kind, uri=file.uri, **details)
        release = (
            {} if file.release_s is None else dict.fromkeys(("data_release", "meta_release"), file.release_s)
        )
        await cadc.add(file.uri, file.versions[0], **file.facts, **release)

    async def _change(self, cadc: CadcProcess, file: File) -> None:
        """The second version takes the place of the first."""
        if file.change == "any":
            await asyncio.sleep(file.change_s)
        else:
            table = "images" if file.change == "taken" else "archive_ledger"
            deadline = time.monotonic() + TAKEN_WITHIN_S
            while not await self._pool.fetchval(f"SELECT true FROM {table} WHERE uri = $1", file.uri):
                if time.monotonic() > deadline:
                    self.report.faults.append(f"{file.uri} was not {file.change} in {TAKEN_WITHIN_S:.0f} s")
                    break
                await asyncio.sleep(0.2 if file.change == "taken" else 0.05)
        await cadc.replace(file.uri, file.versions[1])

    async def _settled(self, timeout_s: float) -> None:
        """Until the last version of every file is in, and nothing is on its way."""
        wanted = [(file.uri, file.sha256(-1)) for file in self.files]
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            there = await self._pool.fetchval(
                "SELECT count(*) FROM images JOIN unnest($1::text[], $2::text[]) AS w (uri, sha256) "
                "USING (uri, sha256)",
                *zip(*wanted, strict=True),
            )
            open_ends = await self._pool.fetchval(
                "SELECT (SELECT count(*) FROM outbox WHERE sent_at IS NULL) + (SELECT count(*) FROM attempts) "
                "+ (SELECT count(*) FROM archive_ledger WHERE state = 'announced')"
            )
            if there == len(wanted) and open_ends == 0:
                return
            await asyncio.sleep(0.3)
        self.report.faults.append(f"not settled after {timeout_s} s")

    async def _ask_the_archive(self, cadc: CadcProcess) -> None:
        log = await cadc.requests(service="minoc")
        self.report.resumed = sum(
            entry.status == 206 and not entry.headers["range"].startswith("bytes=0-") for entry in log
        )
        self.report.answers = Counter(entry.fault or str(entry.status) for entry in log)
        whole = sum(len(version) for file in self.files for version in file.versions)
        self.report.sent_ratio = sum(entry.sent_bytes for entry in log if "META" not in entry.query) / whole

    async def _examine(self) -> None:
        """Every version once, with the right bytes; nothing else; nothing left over."""
        await self._examine_store()
        await self._examine_images()
        await self._examine_ledger()
        await self._examine_events()
        if left := await self._left_running():
            self.report.faults.append(f"processes left behind: {left}")
        begun = list((self._settings.data / ".staging").glob("fetch-*"))
        if begun:
            self.report.faults.append(f"{len(begun)} fetches left behind, such as {begun[0].name}")

    async def _left_running(self) -> list[str]:
        """Worker processes of services that were killed: they must notice, and end."""
        for _ in range(100):
            left = [
                f"{process.pid}: {' '.join(process.info['cmdline'] or ())[:80]}"
                for process in psutil.process_iter(["cmdline", "environ"])
                if (process.info["environ"] or {}).get("SPICA_DATA") == str(self._settings.data)
            ]
            if not left:
                break
            await asyncio.sleep(0.1)
        return left

    async def _examine_store(self) -> None:
        nothing = {
            "dead letters": "SELECT count(*) FROM dead_letters",
            "events not sent": "SELECT count(*) FROM outbox WHERE sent_at IS NULL",
            "attempts left open": "SELECT count(*) FROM attempts",
            "rejections but for newer versions": "SELECT count(*) FROM rejections "
            "WHERE reasons #>> '{0,code}' <> 'archive_newer_version'",
        }
        for name, query in nothing.items():
            found = self.report.counts[name] = await self._pool.fetchval(query)
            if found:
                self.report.faults.append(f"{name}: {found} instead of 0")
        for row in await self._pool.fetch("SELECT code, message FROM dead_letters LIMIT 5"):
            self.report.faults.append(f"dead letter: {row['code']}: {row['message']}")
        for row in await self._pool.fetch("SELECT uri, reasons FROM rejections LIMIT 200"):
            if row["reasons"][0]["code"] != "archive_newer_version":
                self.report.faults.append(f"rejected: {row['uri']}: {row['reasons'][0]}")

    def _may_be_missing(self) -> set[tuple[str, str]]:
        """First versions that may have been replaced before anyone came for them."""
        return {(file.uri, file.sha256(0)) for file in self.files if file.change in ("announced", "any")}

    def _all_versions(self) -> dict[tuple[str, str], bytes]:
        return {
            (file.uri, file.sha256(index)): content
            for file in self.files
            for index, content in enumerate(file.versions)
        }

    async def _examine_images(self) -> None:
        rows = await self._pool.fetch(
            "SELECT i.uri, i.sha256, i.path, i.size_bytes, s.sha256 AS newer FROM images AS i "
            "LEFT JOIN images AS s ON s.image_id = i.superseded_by"
        )
        self._compare("images", [(row["uri"], row["sha256"]) for row in rows])
        here = {(row["uri"], row["sha256"]) for row in rows}
        passed_over = Counter(
            [row["uri"] for row in await self._pool.fetch("SELECT uri FROM rejections ORDER BY uri")]
        )
        announced = Counter(
            row["uri"]
            for row in await self._pool.fetch("SELECT uri FROM archive_ledger WHERE state = 'handled'")
        )
        self.report.counts["announced, and replaced before they were fetched"] = passed_over.total()
        if announced - Counter(uri for uri, _ in here) != passed_over:
            self.report.faults.append(f"passed over: {passed_over}; announced and not here is something else")
        newest = {file.uri: file.sha256(-1) for file in self.files}
        for row in rows:
            path = self._settings.data / row["path"]
            whole = path.exists() and path.stat().st_size == row["size_bytes"]
            if not whole or sha256_of(path) != row["sha256"]:
                self.report.faults.append(f"{row['path']} is not the file that the store names")
            expected = None if row["sha256"] == newest.get(row["uri"]) else newest.get(row["uri"])
            if row["newer"] != expected:
                self.report.faults.append(f"{row['uri']} {row['sha256'][:8]} is superseded by {row['newer']}")

    def _compare(self, what: str, found: list[tuple[str, str]]) -> None:
        """Each once; all that must be there, and nothing else."""
        times, everything = Counter(found), self._all_versions()
        self.report.counts[what] = len(found)
        self.report.faults += [f"{what}: {key} {count} times" for key, count in times.items() if count != 1]
        self.report.faults += [f"{what}: {key} is not wanted" for key in times.keys() - everything.keys()]
        missing = everything.keys() - self._may_be_missing() - times.keys()
        self.report.faults += [f"{what}: {key} is missing" for key in missing]

    async def _examine_ledger(self) -> None:
        rows = await self._pool.fetch("SELECT uri, checksum, state FROM archive_ledger")
        by_md5 = {
            (uri, f"md5:{hashlib.md5(content).hexdigest()}"): (uri, sha256)
            for (uri, sha256), content in self._all_versions().items()
        }
        handled = [(row["uri"], row["checksum"]) for row in rows if row["state"] == "handled"]
        self._compare("ledger", [by_md5.get(key, key) for key in handled])
        waiting = {row["uri"] for row in rows if row["state"] == "waiting"}
        if waiting != {"cadc:CFHT/2500008p.fits.fz"}:
            self.report.faults.append(f"waiting for their release: {sorted(waiting)}")
        marks = await WatchStore(self._pool).bookmarks(WATCH.name)
        changed = max(
            row["modified_at"] for row in await self._pool.fetch("SELECT modified_at FROM archive_ledger")
        )
        released = await self._pool.fetchval("SELECT max(released_at) FROM archive_ledger")
        for sweep, least in (("changed", changed), ("released", released)):
            mark = marks.get(sweep)  # type: ignore[call-overload]
            if mark is None or mark.done < least:
                self.report.faults.append(f"the bookmark of {sweep} is {mark}, and not behind {least}")

    async def _examine_events(self) -> None:
        """What the stream holds. One that was published twice carries one id."""
        verified: dict[tuple[str, str], set[str]] = {}
        arrived: dict[tuple[str, str], set[str]] = {}
        async with connect_bus(self._settings, name="chaos") as bus:
            subscription = await bus.js.subscribe(">", stream=STREAM, ordered_consumer=True)
            for _ in range((await bus.js.stream_info(STREAM)).state.messages):
                message = await subscription.next_msg(timeout=10)
                body, identity = json.loads(message.data), (message.headers or {}).get("ce-id", "")
                if message.subject == "image.verified":
                    verified.setdefault((body["uri"], body["file"]["sha256"]), set()).add(identity)
                elif message.subject == "image.arrived":
                    arrived.setdefault((body["uri"], body["md5"]), set()).add(identity)
            await subscription.unsubscribe()
        self._compare("image.verified", [key for key, ids in verified.items() for _ in ids])
        by_md5 = {
            (uri, hashlib.md5(content).hexdigest()): (uri, sha256)
            for (uri, sha256), content in self._all_versions().items()
        }
        self._compare("image.arrived", [by_md5.get(key, key) for key, ids in arrived.items() for _ in ids])


def show(report: Report, write: Callable[[str], object] = print) -> None:
    """Tell it in a few lines."""
    total = sum(report.kills.values())
    write(
        f"{total} kills in {report.elapsed_s:.0f} s, {report.in_flow} of them while files were still to come"
    )
    write(f"  the archive answered: {dict(report.answers)}")
    write(
        f"  {report.resumed} transfers resumed; {report.sent_ratio:.2f} times the bytes of all files were sent"
    )
    for name, count in report.counts.items():
        write(f"  {name}: {count}")
    for fault in report.faults[:40]:
        write(f"  FAULT {fault}")
