"""What can go wrong with a file besides its content.

Content that is not good is a result (`image.rejected`), not an error. These are errors:

    file_not_found      Retriable     nothing there (yet): a copy may be on its way
    file_not_readable   Retriable     permissions, a network file system that stutters
    file_changing       Retriable     still being written
    file_in_the_way     Retriable     both names it could have hold other content
    not_a_file          NotRetriable  a folder, a pipe
    unsupported_uri     NotRetriable  neither a path, a file:// URL, an archive's name nor an allowed address
    watch_in_data       UsageError    the watched folder and the data folder lie in each other
    auxiliary_unknown   NotRetriable  a calibration frame is wanted that no image's header names
    disk_full           Unavailable   waits, without counting as an attempt

What can go wrong with an archive stands in `archive.errors`.
"""

from __future__ import annotations

from spica_runtime.errors import NotRetriable

from spica_ingest.science.values import kept


def unsupported_uri(uri: str) -> NotRetriable:
    """Neither an absolute path nor a file:// URL of this host."""
    return NotRetriable(
        "unsupported_uri",
        f"Cannot take in {kept(uri)!r}: give an absolute path or a file:// URL that the ingest service can read, or an "
        "archive's name for a file (cadc:CFHT/2376828p.fits.fz).",
        {"uri": kept(uri)},
    )


def auxiliary_unknown(kind: str, name: str) -> NotRetriable:
    """Somebody wants a calibration frame that no header names: only ingest itself asks for them."""
    return NotRetriable(
        "auxiliary_unknown",
        f"No image's header names the {kind} {kept(name)!r}: calibration frames are fetched for images that were "
        "verified here. Submit such an image, and it is asked for.",
    )
