"""Standing watches as people and programs see them: tables, lines, JSON."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from rich.filesize import decimal
from rich.markup import escape
from spica_ingest.watching.discovery import Pass
from spica_ingest.watching.preview import Preview
from spica_ingest.watching.store import Seen

from spica_console import output

_LISTED = 50


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
    size = decimal(sum(found.size_bytes or 0 for found in taken))
    more = "  There is more: --limit shows it." if shown.more else ""
    print(f"{len(taken)} would be taken ({size}), {len(shown.seen) - len(taken)} would wait.{more}")


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
    return escape(text or "")


def _observed(mjd: float | None) -> str:
    try:
        return output.moment(mjd)[:16]
    except OverflowError:
        return ""


def _size(size_bytes: int | None) -> str:
    return "" if size_bytes is None else decimal(size_bytes)


def _time(moment: datetime | None) -> str:
    return "" if moment is None else f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S}"


def _silence(row: dict[str, Any]) -> str:
    silent_s = (datetime.now(UTC) - row["looked_at"]).total_seconds()
    return "no service looks through it now" if silent_s > 60 + 3 * row["every_s"] else ""
