"""`spica submit`: announce files, and follow them if asked."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from spica_console import exits
from spica_console.output import JsonOption


def submit(
    files: Annotated[
        list[str],
        typer.Argument(
            help="FITS files; a folder stands for the FITS files in it. Or addresses that ingest fetches from: an "
            "archive's names, such as cadc:CFHT/2376828p.fits.fz, and http(s):// of allowed hosts."
        ),
    ],
    batch: Annotated[str | None, typer.Option(help="Label that groups files, such as a night.")] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until each is calibrated or rejected.")] = False,
    timeout: Annotated[float, typer.Option(help="Longest wait, in seconds.")] = 900.0,
    json: JsonOption = False,
) -> None:
    """Announce files for processing, with their size and checksum.

    With --wait, follows each file to its end and leaves with 1 if any was rejected or failed.
    """
    rows = exits.run(lambda: _submit(files, batch, wait, timeout, json))
    if wait and any(row["state"] in ("rejected", "failed") for row in rows):
        raise typer.Exit(exits.FAILED)


async def _submit(
    given: list[str], batch: str | None, wait: bool, timeout_s: float, as_json: bool
) -> list[dict[str, Any]]:
    from pathlib import Path

    from spica_runtime.errors import UsageError

    from spica_console import output, submitting, transfers
    from spica_console.connecting import reach
    from spica_console.following import Progress, follow
    from spica_console.store import Store
    from spica_console.tailing import last_sequence

    files = submitting.sources(given, submitting.archive_schemes())
    if not files:
        raise UsageError("no_files", "No FITS file there (*.fits, *.fits.fz, *.fits.gz, *.fit, *.fts).")
    progress = Progress()
    async with reach() as spica:
        start = await last_sequence(spica.bus) + 1
        node = spica.settings.node_id if spica.settings.placement == "nodes" else None
        with submitting.file_bar("Submitting", len(files)) as bar:
            for file in files:
                submission = await (
                    submitting.announce(spica.bus, file, batch=batch, node=node)
                    if isinstance(file, Path)
                    else submitting.announce_address(spica.bus, file, batch=batch)
                )
                submission.track(progress)
                bar.advance()
        if wait:
            async with transfers.shown(spica.bus, lambda: submitting.stage_line(progress)) as refresh:
                await follow(
                    spica.bus,
                    Store(spica.pool),
                    progress,
                    start=start,
                    timeout_s=timeout_s,
                    on_news=refresh,
                )
        rows = [await submitting.image_row(tracked, Store(spica.pool)) for tracked in progress.images]
    if as_json:
        output.print_json(rows)
    elif wait:
        output.console().print(submitting.image_table(rows))
    else:
        print(f"{len(rows)} file(s) submitted. Follow them with `spica tail` or `spica status`.")
    return rows
