"""From the uri in a message to a path on this host, and back."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import quote_from_bytes, unquote_to_bytes, urlsplit

from spica_ingest.errors import unsupported_uri


def source_path(uri: str) -> Path:
    """Path of an absolute path or a ``file://`` URL; anything else is `unsupported_uri`."""
    if "\0" in uri:
        raise unsupported_uri(uri)
    if uri.startswith("/"):
        return Path(uri)
    try:
        parts = urlsplit(uri)
    except ValueError as error:  # brackets that are no IPv6 address
        raise unsupported_uri(uri) from error
    # A file name is bytes, which need not be UTF-8.
    path = os.fsdecode(unquote_to_bytes(parts.path))
    if (
        parts.scheme.lower() != "file"
        or parts.netloc.lower() not in ("", "localhost")
        or not path.startswith("/")
        or "\0" in path
    ):
        raise unsupported_uri(uri)
    return Path(path)


def address(path: Path | str) -> str:
    """Say an absolute path in a message: as it is, or as a ``file://`` URL where its bytes are not UTF-8."""
    text = os.fspath(path)
    try:
        text.encode()
    except UnicodeEncodeError:
        return f"file://{quote_from_bytes(os.fsencode(text))}"
    return text


def shown(path: Path | str) -> str:
    """A path for people, whatever its bytes are."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")
