"""Standing watches for people: what they wish for as a watch, and looking now."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime
from typing import Any

from pydantic import ValidationError
from spica_ingest.archive import Archive
from spica_ingest.settings import IngestSettings
from spica_ingest.watching import setup
from spica_ingest.watching.announcing import trace_id
from spica_ingest.watching.discovery import Pass
from spica_ingest.watching.loop import make_pass
from spica_ingest.watching.model import LONG_AGO, Cone, Polygon, Watch
from spica_ingest.watching.preview import Preview, preview
from spica_ingest.watching.store import WatchStore, new_holder
from spica_runtime.errors import NotRetriable, UsageError

from spica_console import output, transfers
from spica_console.connecting import Reached
from spica_console.following import Progress, Tracked, follow
from spica_console.stacking import faults
from spica_console.store import Store
from spica_console.tailing import last_sequence, parse_since
from spica_console.watch_tables import file_row, summary

_BUSY_WAIT_S = 60.0
_CONE = ("RA,DEC,RADIUS", "214.9,52.7,0.5")
_POLYGON = ("RA,DEC RA,DEC RA,DEC …", "'214,52 216,52 216,53 214,53'")
_OPTIONS = {
    "name": "NAME",
    "filters": "--filter",
    "programmes": "--programme",
    "targets": "--target",
    "calibration_level": "--level",
    "interval_s": "--interval",
    "max_per_pass": "--max-per-pass",
    "ra_deg": "--cone",
    "dec_deg": "--cone",
    "radius_deg": "--cone",
    "corners_deg": "--polygon",
}
"""What people gave a field by, where its option has another name."""
ENDS = ("verified", "graded", "calibrated", "rejected", "failed")


def wish(given: dict[str, Any], cone: str | None, polygon: str | None, since: str | None) -> Watch:
    """Make a watch of what was given on the command line. Raises UsageError with what does not fit."""
    if cone is not None and polygon is not None:
        raise UsageError("two_regions", "Give --cone or --polygon, not both.")
    values = {name: value for name, value in given.items() if value is not None}
    if since is not None:
        start = parse_since(since, datetime.now(UTC))
        values["since"] = LONG_AGO if start.everything else start.time
        if start.time is not None and start.time > datetime.now(UTC):
            raise UsageError("bad_since", f"--since {since} lies in the future.")
    try:
        if cone is not None:
            values["region"] = _cone(cone)
        if polygon is not None:
            values["region"] = _polygon(polygon)
        return Watch.model_validate(values)
    except ValidationError as error:
        raise UsageError("bad_watch", f"This is no watch: {_fault(error)}.") from error


def _cone(text: str) -> Cone:
    numbers = _numbers(text, "--cone", _CONE)
    if len(numbers) != 3:
        raise _not_numbers(text, "--cone", _CONE)
    return Cone.model_validate(dict(zip(Cone.model_fields, numbers, strict=True)))


def _polygon(text: str) -> Polygon:
    numbers = _numbers(text, "--polygon", _POLYGON)
    if len(numbers) < 6 or len(numbers) % 2:
        raise _not_numbers(text, "--polygon", _POLYGON)
    return Polygon.model_validate({"corners_deg": list(zip(numbers[::2], numbers[1::2], strict=True))})


def _fault(error: ValidationError) -> str:
    """The first fault, in the words of the command line."""
    first = error.errors(include_url=False)[0]
    field, told = str(first["loc"][0]), str(first["msg"])
    if first["type"] == "string_pattern_mismatch":
        told = str(Watch.model_fields[field].description).rstrip(".")
    return f"{_OPTIONS.get(field, f'--{field}')}: {told} (found {str(first['input'])[:80]!r})"


def _numbers(text: str, option: str, form: tuple[str, str]) -> list[float]:
    try:
        return [float(part) for part in text.replace(",", " ").split()]
    except ValueError as error:
        raise _not_numbers(text, option, form) from error


def _not_numbers(text: str, option: str, form: tuple[str, str]) -> UsageError:
    return UsageError("bad_region", f"{option} {text!r} is not {form[0]} in degrees, such as {form[1]}.")


@asynccontextmanager
async def archive() -> AsyncIterator[tuple[Archive, IngestSettings]]:
    """Reach the archive as the ingest service of these settings does."""
    try:
        settings = IngestSettings()
    except ValidationError as error:
        raise UsageError("bad_settings", f"The settings of ingest do not fit: {faults(error)}.") from error
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
