"""Addresses as they may be told: a pre-authorised URL is a key, and the key is a part of its path."""

from __future__ import annotations

import logging
import re
from urllib.parse import unquote, urlsplit

_MAX_NAME = 100
_FILE_NAME = re.compile(r"[\w:.,+=~@-]+\.[A-Za-z][\w.]{0,15}", re.ASCII)


def shown(url: str) -> str:
    """Host and file name of a URL. Nothing else of it may be told.

    Archives put tokens into paths and queries, users put passwords before the host: what is not known to
    be harmless is left out.
    """
    try:
        parts = urlsplit(url)
        host = parts.hostname or "?"
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        return "(not a URL)"
    name = unquote(parts.path.rsplit("/", 1)[-1])
    if len(name) > _MAX_NAME or not _FILE_NAME.fullmatch(name):
        name = ""
    folders = "/…" if parts.path.rstrip("/").count("/") > 1 or (not name and parts.path.strip("/")) else ""
    return f"{parts.scheme}://{host}{port}{folders}{f'/{name}' if name else ''}"


def hush_libraries() -> None:
    """Keep the libraries below from logging: httpx tells every address in full, httpcore every header."""
    for name in ("httpx", "httpcore"):
        logging.getLogger(name).setLevel(logging.WARNING)
