"""What ingest needs of an archive: where its services are, who may ask, headers, and whole files.

    Archive       what the rest of ingest uses: `header` and `fetch` of one file
    Registry      from a service's identifier to its address
    ArchiveHttp   requests: credentials to the archive's hosts alone, redirects, patience, nothing secret in a log

Written after the interfaces of the Canadian Astronomy Data Centre (registry, `raven`, `minoc`), which are VOSI,
VOSpace transfer documents and plain HTTP; any archive that speaks these can be named in the settings.
"""

from spica_ingest.archive.access import Archive
from spica_ingest.archive.http import Answer, ArchiveHttp
from spica_ingest.archive.registry import Registry
from spica_ingest.archive.transfer import Fetched, Transfer, Wanted

__all__ = ["Answer", "Archive", "ArchiveHttp", "Fetched", "Registry", "Transfer", "Wanted"]
