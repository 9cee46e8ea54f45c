"""Standing watches for people: what they wish for as a watch, looking now, and how it all is shown."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

from pydantic import ValidationError
from spica_ingest.archive import Archive
from spica_ingest.settings import IngestSettings
from spica_ingest.watching import setup
from spica_ingest.watching.announcing import trace_id
from spica_ingest.watching.discovery import Pass
from spica_ingest.watching.loop import make_pass
from spica_ingest.watching.model import LONG_AGO, Watch
from spica_ingest.watching.preview import Preview, preview
from spica_ingest.watching.store import Seen, WatchStore, new_holder
from spica_runtime.errors import NotRetriable, UsageError

from spica_console import output, transfers
from spica_console.connecting import Reached
from spica_console.following import Progress, Tracked, follow
from spica_console.store import Store
from spica_console.tailing import last_sequence, parse_since

_BUSY_WAIT_S = 60.0
_LISTED = 50
_MJD_0 = datetime(1858, 11, 17, tzinfo=UTC)
ENDS = ("verified", "graded", "calibrated", "rejected", "failed")


def wish(given: dict[str, Any], cone: str | None, polygon: str | None, since: str | None) -> Watch:
    """Make a watch of what was given on the command line. Raises UsageError with what does not fit."""
    if cone is not None and polygon is not None:
        raise UsageError("two_regions", "Give --cone or --polygon, not both.")
    values = {name: value for name, value in given.items() if value is not None}
    if cone is not None:
        numbers = _numbers(cone, "--cone", "RA,DEC,RADIUS")
        if len(numbers) != 3:
            raise _not_numbers(cone, "--cone", "RA,DEC,RADIUS")
        values["region"] = dict(zip(("ra_deg", "dec_deg", "radius_deg"), numbers, strict=True))
    if polygon is not None:
        numbers = _numbers(polygon, "--polygon", "RA,DEC RA,DEC RA,DEC …")
        if len(numbers) < 6 or len(numbers) % 2:
            raise _not_numbers(polygon, "--polygon", "RA,DEC RA,DEC RA,DEC …")
        values["region"] = {"corners_deg": list(zip(numbers[::2], numbers[1::2], strict=True))}
    if since is not None:
        start = parse_since(since, datetime.now(UTC))
        values["since"] = LONG_AGO if start.everything else start.time
        if start.time is not None and start.time > datetime.now(UTC):
            raise UsageError("bad_since", f"--since {since} lies in the future.")
    try:
        return Watch.model_validate({name: value for name, value in values.items() if value is not None})
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise UsageError(
            "bad_watch", f"This is no watch: {place}: {first['msg']} (found {str(first['input'])[:80]!r})."
        ) from error


def _numbers(text: str, option: str, form: str) -> list[float]:
    try:
        return [float(part) for part in text.replace(",", " ").split()]
    except ValueError as error:
        raise _not_numbers(text, option, form) from error


def _not_numbers(text: str, option: str, form: str) -> UsageError:
    return UsageError("bad_region", f"{option} {text!r} is not {form} in degrees, such as 214.9,52.7,0.5.")


@asynccontextmanager
async def archive() -> AsyncIterator[tuple[Archive, IngestSettings]]:
    """Reach the archive as the ingest service of these settings does."""
    try:
        settings = IngestSettings()
    except ValidationError as error:
        raise UsageError("bad_settings", f"The settings of ingest do not fit: {error}") from error
    reached = Archive.from_settings(settings)
    try:
        yield reached, settings
    finally:
        await reached.close()


async def look_ahead(watch: Watch, reached: Archive, settings: IngestSettings, limit: int) -> Preview:
    """List what a watch would take that is not there yet."""
    with told("Asking the archive"):
        return await preview(
            watch, setup.catalogue(reached, settings), setup.policy_of(settings), limit=limit
        )


async def look_ahead_of(
    name: str, store: WatchStore, reached: Archive, settings: IngestSettings, limit: int
) -> Preview:
    """List what is still to come of a watch that is there."""
    found = await store.find(name)
    with told("Asking the archive"):
        return await preview(
            found.watch,
            setup.catalogue(reached, settings),
            setup.policy_of(settings),
            limit=limit,
            created_at=found.created_at,
            store=store,
        )


async def look_now(name: str, store: WatchStore, reached: Archive, settings: IngestSettings) -> Pass:
    """Make one pass from here, as an ingest service would; waits while one of those is at it."""
    deadline = asyncio.get_running_loop().time() + _BUSY_WAIT_S
    while (held := await store.claim(new_holder(), name)) is None:
        await store.find(name)
        if asyncio.get_running_loop().time() > deadline:
            raise NotRetriable(
                "watch_busy",
                f"Watch {name} is being polled by a service: see `spica watch list`, and try again.",
            )
        await asyncio.sleep(0.5)
    with told(f"{name}: asking the archive") as say:
        return await make_pass(
            held,
            store,
            setup.discovery(reached, settings, store),
            interval_s=settings.archive_poll_s,
            tell=lambda made: say(f"{name}: {summary(made)}"),
        )


async def look_and_follow(
    name: str, spica: Reached, reached: Archive, settings: IngestSettings, timeout_s: float
) -> list[dict[str, Any]]:
    """Make one pass, and follow each file that it announced until it is taken in or not."""
    start = await last_sequence(spica.bus) + 1
    made = await look_now(name, WatchStore(spica.pool), reached, settings)
    progress = Progress()
    for seen in made.announced:
        found = seen.found
        progress.expect_image(
            found.file_name, uri=found.uri, trace_id=trace_id(seen.decision.event_id(found))
        )

    def ended(tracked: Tracked) -> bool:
        return tracked.settled or tracked.state in ENDS

    def line() -> str:
        counts = progress.counts()
        stages = "  ".join(f"{stage} {counts[stage]}" for stage in ENDS if counts[stage])
        return f"{sum(map(ended, progress.images))} of {len(progress.images)} ended   {stages}"

    if progress.images:
        async with transfers.shown(spica.bus, line) as refresh:
            await follow(
                spica.bus,
                Store(spica.pool),
                progress,
                start=start,
                timeout_s=timeout_s,
                done=lambda: all(map(ended, progress.images)),
                on_news=refresh,
            )
    return [
        file_row(seen)
        | {
            "state": "known already" if tracked.settled and tracked.id is None else tracked.state,
            "image_id": tracked.id,
            "reasons": tracked.why if tracked.state in ("rejected", "failed") else [],
        }
        for seen, tracked in zip(made.announced, progress.images, strict=True)
    ]


@contextmanager
def told(text: str) -> Iterator[Callable[[str], None]]:
    """Show one line on standard error while something goes on; nothing where nobody looks."""
    console = output.console(stderr=True)
    if not console.is_terminal:
        yield lambda _: None
        return
    with console.status(text) as status:
        yield status.update


def summary(made: Pass) -> str:
    """What came of a pass, in one line."""
    parts = [f"{made.read} rows read", f"{len(made.announced)} announced", f"{len(made.waiting)} waiting"]
    if made.on_the_way:
        parts.append(f"{made.on_the_way} from earlier on their way")
    return ", ".join(parts)


def file_row(seen: Seen) -> dict[str, Any]:
    """One file as programs see it."""
    found = seen.found
    return {
        "uri": found.uri,
        "checksum": found.checksum,
        "size_bytes": found.size_bytes,
        "step": seen.decision.step,
        "why": seen.decision.why,
        "modified_at": found.modified_at,
        "released_at": found.released_at,
        **found.details(),
    }


def print_preview(shown: Preview, *, as_json: bool) -> None:
    """Show what would be taken."""
    if as_json:
        output.print_json({"files": [file_row(seen) for seen in shown.seen], "more": shown.more})
        return
    if not shown.seen:
        print("Nothing would be taken now. A longer look back: --since 30d, or --since all.")
        return
    output.console().print(_file_table(shown.seen))
    taken = [seen.found for seen in shown.seen if seen.decision.step == "announce"]
    gigabytes = sum(found.size_bytes or 0 for found in taken) / 1e9
    more = "  There is more: --limit shows it." if shown.more else ""
    print(
        f"{len(taken)} would be taken ({gigabytes:.2f} GB), {len(shown.seen) - len(taken)} would wait.{more}"
    )


def print_pass(name: str, made: Pass, *, as_json: bool) -> None:
    """Show what came of a pass."""
    files = [*made.announced, *made.waiting]
    if as_json:
        output.print_json(
            {
                "watch": name,
                "read": made.read,
                "announced": [file_row(seen) for seen in made.announced],
                "waiting": [file_row(seen) for seen in made.waiting],
                "on_the_way": made.on_the_way,
                "more": made.full,
            }
        )
        return
    if files:
        output.console().print(_file_table(files[:_LISTED]))
        if len(files) > _LISTED:
            print(f"  and {len(files) - _LISTED} more")
    more = "  There is more: it follows as these are taken in." if made.full else ""
    print(f"{name}: {summary(made)}.{more}")


def print_followed(rows: list[dict[str, Any]], *, as_json: bool) -> None:
    """Show what became of the files of a pass."""
    if as_json:
        output.print_json(rows)
        return
    if not rows:
        print("Nothing new.")
        return
    output.console().print(
        output.table(
            "",
            ("file", "filter", "size", "state", "image", "why"),
            (
                (
                    _plain(row["uri"].rsplit("/", 1)[-1]),
                    _plain(row.get("filter")),
                    _size(row["size_bytes"]),
                    output.styled_state(row["state"]),
                    row["image_id"],
                    _plain(output.reasons_line(row["reasons"])),
                )
                for row in rows
            ),
        )
    )


def print_listing(watches: list[dict[str, Any]], folders: list[dict[str, Any]]) -> None:
    """Show all watches and watched folders."""
    if not watches and not folders:
        print(
            "Nothing is watched: `spica watch add` adds a watch, the setting SPICA_INGEST_WATCH names folders."
        )
        return
    console = output.console()
    if watches:
        console.print(
            output.table(
                "",
                (
                    "watch",
                    "looks for",
                    "state",
                    "last look",
                    "next",
                    "waiting",
                    "on the way",
                    "through",
                    "problem",
                ),
                (
                    (
                        row["name"],
                        _plain(row["what"]),
                        "polled now" if row["holder"] else row["state"],
                        _time(row["polled_at"]),
                        _time(row["next_at"]) if row["state"] == "active" else "",
                        row["waiting"],
                        row["on_the_way"],
                        row["handled"],
                        _plain(row["error"]["message"]) if row["error"] else "",
                    )
                    for row in watches
                ),
            )
        )
    if folders:
        console.print(
            output.table(
                "",
                ("folder", "host", "how", "last look", "files", "problem"),
                (
                    (
                        _plain(row["folder"]),
                        row["host"],
                        row["method"],
                        _time(row["looked_at"]),
                        row["announced"],
                        row["error"] or _silence(row),
                    )
                    for row in folders
                ),
            )
        )


def print_watch(row: dict[str, Any]) -> None:
    """Show one watch."""
    console = output.console()
    console.print(f"[bold]{row['name']}[/]  {row['state']}  {_plain(row['what'])}")
    for key, value in row["definition"].items():
        text = output.as_json(value) if isinstance(value, dict | list) else str(value)
        console.print(f"  [dim]{key}[/] {_plain(text)}")
    console.print(
        f"  last look {_time(row['polled_at']) or 'never'}, went well {_time(row['good_at']) or 'never'}, "
        f"next {_time(row['next_at']) if row['state'] == 'active' else 'when resumed'}"
    )
    console.print(
        f"  files: {row['waiting']} waiting for their release, {row['on_the_way']} on their way, "
        f"{row['handled']} through"
    )
    for name, sweep in row["sweeps"].items():
        under_way = f", reading {_time(sweep['reading'])} of {_time(sweep['to'])}" if sweep["reading"] else ""
        console.print(f"  {name.replace('_', ' ')}: seen to {_time(sweep['seen_to'])}{under_way}")
    if row["error"]:
        code, message = row["error"]["code"], _plain(row["error"]["message"])
        console.print(f"  [red]{code}[/] ({row['failures']} in a row): {message}")


def _file_table(files: Iterable[Seen]) -> Any:
    return output.table(
        "",
        ("file", "observed", "filter", "target", "size", "released", "what"),
        (
            (
                _plain(seen.found.uri),
                _observed(seen.found.mjd),
                _plain(seen.found.filter),
                _plain(seen.found.target),
                _size(seen.found.size_bytes),
                f"{seen.found.released_at:%Y-%m-%d}" if seen.found.released_at else "–",
                seen.decision.why,
            )
            for seen in files
        ),
    )


def _plain(text: str | None) -> str:
    """Text of others as it is: square brackets are no markup of ours."""
    from rich.markup import escape

    return escape(text or "")


def _observed(mjd: float | None) -> str:
    try:
        return "" if mjd is None else f"{_MJD_0 + timedelta(days=mjd):%Y-%m-%d %H:%M}"
    except OverflowError:
        return ""


def _size(size_bytes: int | None) -> str:
    return "" if size_bytes is None else f"{size_bytes / 1e6:.1f} MB"


def _time(moment: datetime | None) -> str:
    return "" if moment is None else f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S}"


def _silence(row: dict[str, Any]) -> str:
    silent_s = (datetime.now(UTC) - row["looked_at"]).total_seconds()
    return "no service looks through it now" if silent_s > 60 + 3 * row["every_s"] else ""
