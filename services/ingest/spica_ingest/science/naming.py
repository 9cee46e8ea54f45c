"""Names: of images from files, of folders from runs and filters, safe on every file system."""

from __future__ import annotations

import re

_SUFFIXES = re.compile(r"\.(fits|fit|fts)?(\.?(fz|gz|bz2|z))?$", re.IGNORECASE)
_UNSAFE = re.compile(r"[^A-Za-z0-9._+-]+")
FITS_NAME = re.compile(r"\.(fits|fit|fts)(\.(fz|gz|bz2|z))?$", re.IGNORECASE)
"""File names that a watched folder is searched for."""
MAX_LENGTH = 120


def safe(text: str, *, default: str = "unknown") -> str:
    """`text` as one path segment: other characters become `_`; never empty, hidden or `..`."""
    cleaned = _UNSAFE.sub("_", text.strip()).lstrip("._-")[:MAX_LENGTH].rstrip("._")
    return cleaned or default


def image_name(file_name: str) -> str:
    """Image name (odometer and suffix) of a file: `900001p.fits.fz` -> `900001p`."""
    return safe(_SUFFIXES.sub("", file_name), default="image")


def image_id(name: str, sha256: str) -> str:
    """An image is its name and its content."""
    return f"{name}.{sha256[:12]}"


def with_mark(file_name: str, sha256: str) -> str:
    """Another file name for the same image name: `900001p.fits.fz` -> `900001p.1a2b3c4d.fits.fz`."""
    found = _SUFFIXES.search(file_name)
    suffix = found.group(0) if found else ""
    return f"{file_name[: len(file_name) - len(suffix)]}.{sha256[:8]}{suffix}"
