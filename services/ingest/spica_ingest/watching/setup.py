"""The parts of the watches put together from settings: for the service, and for commands that make one pass."""

from __future__ import annotations

from datetime import timedelta

from spica_runtime.errors import SpicaError
from spica_runtime.pg import Pool

from spica_ingest.archive import Archive
from spica_ingest.archive.credentials import ANONYMOUS
from spica_ingest.archive.locate import Locator
from spica_ingest.settings import IngestSettings
from spica_ingest.watching.discovery import Discovery, Permitted, Policy
from spica_ingest.watching.loop import Poller
from spica_ingest.watching.store import WatchStore
from spica_ingest.watching.tap import TapClient

_CLOSED = ("archive_forbidden", "archive_no_such_file", "archive_refused", "unsupported_uri")


def policy_of(settings: IngestSettings) -> Policy:
    """How the archive is asked."""
    return Policy(
        look_back=timedelta(seconds=settings.archive_look_back_s),
        recheck=timedelta(days=settings.archive_recheck_days),
        page_rows=settings.archive_page_rows,
    )


def catalogue(archive: Archive, settings: IngestSettings) -> TapClient:
    """The archive's catalogue."""
    return TapClient(archive.http, archive.registry, settings.archive_tap_id)


def discovery(archive: Archive, settings: IngestSettings, store: WatchStore) -> Discovery:
    """What makes passes over watches."""
    return Discovery(catalogue(archive, settings), store, policy_of(settings), permission(archive, settings))


def poller(archive: Archive, settings: IngestSettings, pool: Pool) -> Poller:
    """What polls all watches in the background."""
    store = WatchStore(pool)
    return Poller(store, discovery(archive, settings, store), interval_s=settings.archive_poll_s)


def permission(archive: Archive, settings: IngestSettings) -> Permitted | None:
    """How to find out whether our credential opens a file that is not public; None without a credential.

    By asking where its bytes are: the archive answers that only to whom it would give them.
    """
    if archive.http.credential.method == ANONYMOUS:
        return None
    locator = Locator(archive.http, archive.registry, settings.archive_locate_id)

    async def permitted(uri: str) -> bool:
        try:
            archive.check(uri)
            await locator.addresses(uri)
        except SpicaError as error:
            if error.code in _CLOSED:
                return False
            raise
        return True

    return permitted
