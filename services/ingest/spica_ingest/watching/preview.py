"""What a watch would take, without taking it: nothing is written anywhere."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from spica_ingest.watching.deciding import decide
from spica_ingest.watching.discovery import Policy, page_query, since_of, sweeps_of
from spica_ingest.watching.model import Watch
from spica_ingest.watching.store import Seen, SweepName, WatchStore
from spica_ingest.watching.sweep import Bookmark, check, next_place
from spica_ingest.watching.tap import Asks


@dataclass(slots=True)
class Preview:
    """Files that the next passes would announce, or would wait for."""

    seen: list[Seen] = field(default_factory=list)
    read: int = 0
    more: bool = False
    """There are more than were to be listed."""


async def preview(
    watch: Watch,
    tap: Asks,
    policy: Policy,
    *,
    limit: int,
    created_at: datetime | None = None,
    store: WatchStore | None = None,
) -> Preview:
    """List what a watch would find.

    Args:
        watch: which files.
        tap: the archive's catalogue.
        policy: how it is asked.
        limit: files to be listed, at most.
        created_at: when the watch was added; None: it is not yet.
        store: where its bookmarks and the ledger are; None: as if nothing had been seen.

    """
    shown = Preview()
    newest, now = await tap.newest(watch.collection)
    created_at = created_at or now
    marks: Mapping[SweepName, Bookmark] = {} if store is None else await store.bookmarks(watch.name)
    met = set()
    for sweep in sweeps_of(watch, created_at, newest, now, policy):
        bookmark = sweep.begun(marks.get(sweep.name), now, policy)
        if bookmark is None:
            continue
        since = since_of(watch, created_at, policy)
        while bookmark.end is not None:
            assert bookmark.place is not None
            page, _ = await tap.page(page_query(watch, sweep.kind, bookmark, since), policy.page_rows)
            check(page, sweep.kind, bookmark.place, bookmark.end)
            shown.read += len(page)
            known = {} if store is None else await store.known([found.uri for found in page])
            for found in page:
                decision = decide(found, known.get(found.uri, []), now)
                if (found.uri, found.checksum) in met or decision.step == "nothing" or not watch.wants(found):
                    continue
                if len(shown.seen) == limit:
                    shown.more = True
                    return shown
                met.add((found.uri, found.checksum))
                shown.seen.append(Seen(found, decision))
            bookmark = bookmark.moved(next_place(page, sweep.kind, bookmark.place, policy.page_rows))
    return shown
