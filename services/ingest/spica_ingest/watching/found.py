"""A file that an archive has, as one row of its answer tells."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from spica_runtime.errors import Retriable

COLUMNS = (
    "o.observationID",
    "o.instrument_name",
    "o.target_name",
    "o.proposal_id",
    "o.maxLastModified",
    "p.productID",
    "p.calibrationLevel",
    "p.dataRelease",
    "p.energy_bandpassName",
    "p.provenance_runID",
    "p.time_bounds_lower",
    "p.time_exposure",
    "p.quality_flag",
    "a.uri",
    "a.contentChecksum",
    "a.contentLength",
    "a.contentType",
    "a.lastModified",
)
"""What is asked for; the table's header must name these columns (without the prefix), in this order."""
HEADER = tuple(column.partition(".")[2] for column in COLUMNS)

_DIGITS = {"md5": 32, "sha256": 64}


@dataclass(frozen=True, slots=True)
class Found:
    """One version of one file. Times are UTC, to the millisecond (the archive cuts the rest off)."""

    uri: str
    checksum: str
    """What tells versions apart: `md5:<hex>` as the archive says, or a substitute (see `_version`)."""
    size_bytes: int | None
    modified_at: datetime
    """When the file's own entry was last changed."""
    changed_at: datetime
    """When anything of its observation was last changed: what bookmarks stand on."""
    released_at: datetime | None
    """When it is, or was, public; None: not said, so not public."""
    observation: str | None = None
    product: str | None = None
    instrument: str | None = None
    filter: str | None = None
    target: str | None = None
    programme: str | None = None
    run: str | None = None
    level: int | None = None
    quality: str | None = None
    mjd: float | None = None
    """Start of the exposure."""
    exposure_s: float | None = None

    @property
    def file_name(self) -> str:
        """Last part of the uri."""
        return self.uri.rsplit("/", 1)[-1].rsplit(":", 1)[-1]

    @property
    def md5(self) -> str | None:
        """MD5 that the archive states, in hex."""
        return digest(self.checksum, "md5")

    def public(self, now: datetime) -> bool:
        """Whether anyone may fetch it."""
        return self.released_at is not None and self.released_at <= now

    def details(self) -> dict[str, Any]:
        """What people want to see of it besides name, size and dates."""
        facts = {
            "instrument": self.instrument,
            "filter": self.filter,
            "target": self.target,
            "programme": self.programme,
            "run": self.run,
            "level": self.level,
            "mjd": self.mjd,
            "exposure_s": self.exposure_s,
        }
        return {name: value for name, value in facts.items() if value is not None}


def whole_milliseconds(moment: datetime) -> datetime:
    """Cut a time off where the archive's answers are cut off, so that both can be compared."""
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)


def digest(checksum: str, algorithm: str) -> str | None:
    """Hex digits of a `checksum` of this algorithm; None if it is of another."""
    name, _, digits = checksum.partition(":")
    return digits if name == algorithm and len(digits) == _DIGITS[algorithm] else None


def read_row(row: Mapping[str, str]) -> Found:
    """Read one row of an answer (names of `HEADER`).

    A row without a name or with times that cannot be read is an error: it must not be lost, and has no place.
    """
    try:
        uri = row["uri"].strip()
        if not uri or not uri.isprintable():
            raise ValueError(f"uri {uri[:80]!r}")
        changed_at = _time(row["maxLastModified"])
        if changed_at is None:
            raise ValueError("no maxLastModified")
        modified_at = _time(row["lastModified"]) or changed_at
        size_bytes = _integer(row["contentLength"])
        return Found(
            uri=uri,
            checksum=_version(row["contentChecksum"], size_bytes, modified_at),
            size_bytes=size_bytes,
            modified_at=modified_at,
            changed_at=changed_at,
            released_at=_time(row["dataRelease"]),
            observation=_text(row["observationID"]),
            product=_text(row["productID"]),
            instrument=_text(row["instrument_name"]),
            filter=_text(row["energy_bandpassName"]),
            target=_text(row["target_name"]),
            programme=_text(row["proposal_id"]),
            run=_text(row["provenance_runID"]),
            level=_integer(row["calibrationLevel"]),
            quality=_text(row["quality_flag"]),
            mjd=_number(row["time_bounds_lower"]),
            exposure_s=_number(row["time_exposure"]),
        )
    except (ValueError, OverflowError) as error:
        raise Retriable(
            "archive_row",
            f"The archive's row of {row.get('uri', '')[:120]!r} cannot be read: {error}. Nothing of this answer is taken.",
        ) from error


def _version(checksum: str, size_bytes: int | None, modified_at: datetime) -> str:
    """What tells this version of a file from others.

    Where the archive states no checksum, the time of the entry's last change stands in: every change of the entry
    then counts as a new version. That fetches a file again at worst (the same content is no second image), while
    the size alone would miss a change.
    """
    name, _, digits = checksum.strip().lower().partition(":")
    if name in _DIGITS and re.fullmatch(rf"[0-9a-f]{{{_DIGITS[name]}}}", digits):
        return f"{name}:{digits}"
    if checksum.strip():
        return "other:" + "".join(c if c.isprintable() else "?" for c in checksum.strip()[:200])
    return f"modified:{modified_at:%Y-%m-%dT%H:%M:%S.%f}:{size_bytes if size_bytes is not None else ''}"


def _text(value: str) -> str | None:
    # PostgreSQL keeps any text but NUL.
    return value.strip().replace("\0", "?") or None


def _time(value: str) -> datetime | None:
    if not value.strip():
        return None
    read = whole_milliseconds(datetime.fromisoformat(value.strip()))
    return read.astimezone(UTC) if read.tzinfo else read.replace(tzinfo=UTC)


def _integer(value: str) -> int | None:
    """A whole number of the archive's; what is none says nothing, and must not hold the file back."""
    try:
        number = int(value)
    except ValueError:
        return None
    return number if 0 <= number < 2**63 else None


def _number(value: str) -> float | None:
    try:
        number = float(value)
    except ValueError:
        return None
    return number if math.isfinite(number) else None
