"""Announcing files, and showing what became of them."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError
from spica_proto.envelope import new_traceparent, seal
from spica_proto.images import ImageArrived
from spica_runtime.bus import Bus
from spica_runtime.errors import UsageError
from spica_runtime.storage import sha256_of

from spica_console import output
from spica_console.following import Progress, Tracked
from spica_console.store import Store

if TYPE_CHECKING:
    from rich.table import Table

FITS_SUFFIXES = (".fits", ".fit", ".fts")
_COMPRESSED = (".fz", ".gz")
SOURCE = "/spica/console"

_STAGES = ("arrived", "verified", "graded", "calibrated", "rejected", "failed")


def archive_schemes() -> tuple[str, ...]:
    """Schemes of an archive's names for files, as ingest is set to understand them."""
    from spica_ingest.settings import IngestSettings

    try:
        return IngestSettings().archive_schemes
    except ValidationError as error:
        raise UsageError("bad_settings", f"The settings of ingest do not fit: {error}") from error


def sources(given: Iterable[str], schemes: Iterable[str]) -> list[Path | str]:
    """What is to be submitted: paths of files, and addresses as they were given.

    Args:
        given: files, folders (for the FITS files in them, by name), addresses.
        schemes: which ones an archive's names for files have.

    Raises:
        UsageError: neither a file nor a folder of that name, nor an address.

    """
    known, found = {"http", "https", *schemes}, list[Path | str]()
    for text in given:
        path = Path(text)
        if path.exists():
            found += fits_files([path])
        elif text.partition(":")[0].lower() in known and ":" in text:
            found.append(text)
        else:
            raise UsageError(
                "no_such_file",
                f"There is no file {text}, and it is no address ({', '.join(f'{name}:' for name in sorted(known))}).",
            )
    return found


def fits_files(given: Iterable[Path]) -> list[Path]:
    """Files as given; a folder stands for the FITS files in it, by name."""
    files: list[Path] = []
    for path in given:
        if path.is_dir():
            files += sorted(file for file in path.iterdir() if is_fits(file))
        else:
            files.append(path)
    return files


def is_fits(path: Path) -> bool:
    """Whether a file's name is one of FITS."""
    name = path.name.lower()
    for suffix in _COMPRESSED:
        name = name.removesuffix(suffix)
    return path.is_file() and not path.name.startswith(".") and name.endswith(FITS_SUFFIXES)


@dataclass(frozen=True, slots=True)
class Submission:
    """A file that was announced."""

    path: Path
    uri: str
    sha256: str | None
    event_id: str
    trace_id: str
    sequence: int

    def track(self, progress: Progress) -> Tracked:
        """Follow it from here on."""
        tracked = progress.expect_image(
            self.path.name, uri=self.uri, trace_id=self.trace_id, sha256=self.sha256
        )
        tracked.last_event = ("image.arrived", self.event_id)
        return tracked


async def announce(
    bus: Bus,
    path: Path,
    *,
    batch: str | None = None,
    sha256: str | None = None,
    source: str = "submit",
    node: str | None = None,
) -> Submission:
    """Publish `image.arrived` for a file, in a trace of its own.

    Args:
        bus: where to say it.
        path: the file; hashed unless `sha256` is given (what the sender knows it should be).
        batch: free label that groups files.
        sha256: expected checksum.
        source: who brought it.
        node: whose disk the file is on, where images are placed on nodes.

    """
    # Not resolved: a link's own name is the image's name.
    path = Path(os.path.abspath(path))  # noqa: ASYNC240, PTH100 - touches no disk
    sha256 = sha256 or await asyncio.to_thread(sha256_of, path)
    size_bytes = (await asyncio.to_thread(path.stat)).st_size
    trace = new_traceparent()
    uri = path.as_uri()
    message = ImageArrived(
        uri=uri, source=source, size_bytes=size_bytes, sha256=sha256, batch=batch, node=node
    )
    envelope = seal(message, source=SOURCE, traceparent=trace)
    sequence = await bus.publish(envelope)
    return Submission(path, uri, sha256, envelope.event_id, trace.split("-")[1], sequence)


async def announce_address(bus: Bus, uri: str, *, batch: str | None = None) -> Submission:
    """Publish `image.arrived` for a file that is in an archive or on a web server, in a trace of its own."""
    trace = new_traceparent()
    envelope = seal(ImageArrived(uri=uri, source="submit", batch=batch), source=SOURCE, traceparent=trace)
    sequence = await bus.publish(envelope)
    name = Path(uri.partition("?")[0].rsplit("/", 1)[-1] or uri)
    return Submission(name, uri, None, envelope.event_id, trace.split("-")[1], sequence)


async def image_row(tracked: Tracked, store: Store) -> dict[str, Any]:
    """What became of a file, as programs and tables show it."""
    graded = tracked.said.get("image.graded", {})
    calibrated = tracked.said.get("image.calibrated", {})
    metrics = graded.get("metrics", {})
    row: dict[str, Any] = {
        "file": tracked.label,
        "state": tracked.state,
        "image_id": tracked.id,
        "grade": tracked.grade,
        "fwhm_arcsec": metrics.get("fwhm_arcsec"),
        "rms_ra_mas": calibrated.get("rms_ra_mas"),
        "rms_dec_mas": calibrated.get("rms_dec_mas"),
        "zeropoint_mag": calibrated.get("zeropoint_mag"),
        "reasons": tracked.why,
    }
    if tracked.settled and tracked.id is None:
        # Ingest had nothing to say: these bytes were taken in before.
        known = None
        if tracked.sha256:
            known = await store.image_with_sha256(tracked.sha256)
        elif tracked.uri:
            known = await store.image_with_uri(tracked.uri)
        if known:
            now = (await store.images(image_id=known["image_id"]))[0]
            row |= {
                "state": "known already",
                "image_id": known["image_id"],
                "grade": now["grade"],
                "fwhm_arcsec": (now["metrics"] or {}).get("fwhm_arcsec"),
                "zeropoint_mag": now["zeropoint_mag"],
            }
    return row


def image_table(rows: Iterable[dict[str, Any]]) -> Table:
    """Table of what became of files."""
    number = output.number
    return output.table(
        "",
        ("file", "state", "grade", "FWHM ″", "rms mas", "zero point", "why"),
        (
            (
                row["file"],
                output.styled_state(row["state"]),
                output.styled_grade(row["grade"]),
                number(row["fwhm_arcsec"]),
                f"{number(row['rms_ra_mas'], 1)}·{number(row['rms_dec_mas'], 1)}"
                if row["rms_ra_mas"]
                else "",
                number(row["zeropoint_mag"], 3),
                output.reasons_line(row["reasons"]),
            )
            for row in rows
        ),
    )


class Bar:
    """A progress bar on standard error."""

    def __init__(self, advance: Callable[[], None]) -> None:
        self.advance = advance


@contextmanager
def file_bar(title: str, total: int) -> Iterator[Bar]:
    """Show a bar while files are worked through; nothing where nobody looks."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    console = output.console(stderr=True)
    if not console.is_terminal:
        yield Bar(lambda: None)
        return
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
        transient=True,
        # Else what is printed meanwhile for a pipe would go to the terminal.
        redirect_stdout=sys.stdout.isatty(),
    ) as bar:
        task = bar.add_task(title, total=total)
        yield Bar(lambda: bar.advance(task))


def stage_line(progress: Progress) -> str:
    """How many files have reached each stage, on one line."""
    counts = progress.counts()
    ended = sum(tracked.ended for tracked in progress.images)
    stages = "  ".join(f"{stage} {counts[stage]}" for stage in _STAGES if counts[stage])
    return f"{ended} of {len(progress.images)} ended   {stages}"
