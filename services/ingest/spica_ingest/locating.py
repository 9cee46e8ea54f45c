"""From the uri in a message to a path on this host."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote, urlsplit

from spica_ingest.errors import unsupported_uri


def source_path(uri: str) -> Path:
    """Path of an absolute path or a ``file://`` URL; anything else is `unsupported_uri`."""
    if "\0" in uri:
        raise unsupported_uri(uri)
    if uri.startswith("/"):
        return Path(uri)
    parts = urlsplit(uri)
    path = unquote(parts.path)
    if (
        parts.scheme.lower() != "file"
        or parts.netloc.lower() not in ("", "localhost")
        or not path.startswith("/")
    ):
        raise unsupported_uri(uri)
    if "\0" in path:
        raise unsupported_uri(uri)
    return Path(path)
