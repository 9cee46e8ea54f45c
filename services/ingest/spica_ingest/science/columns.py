"""What rules select on, taken from headers into columns: of the right type, in a possible range, or not known."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from spica_imaging.profiles import Auxiliary, Profile

from spica_ingest.science import naming
from spica_ingest.science.facts import Finding, HeaderValues
from spica_ingest.science.keywords import RANGES
from spica_ingest.science.values import as_number, as_observed_at, as_text

VERSION = 1
"""Rises when this module reads something else than before: images in the store are then read again."""

MAX_TEXT = 200
_MAX_INTEGER = 2.0**53
_FITS_ENDING = re.compile(r"\.(fits|fit|fts)(\.(fz|gz|bz2|z))?$", re.IGNORECASE)
_NO_NAMES = ("none", "null", "no", "n_a", "na", "unknown", "undefined", "image")


@dataclass(frozen=True, slots=True)
class Columns:
    """Columns of `images`, by the same names. None: not known."""

    canonical_filter: str
    agency_run: str | None = None
    queue_run: str | None = None
    camera_run: str | None = None
    sequence_number: int | None = None
    observation_type: str | None = None
    principal_investigator: str | None = None
    released_at: datetime | None = None
    mjd_end: float | None = None
    seeing_arcsec: float | None = None
    sky_absorption_mag: float | None = None
    background_adu_per_s: float | None = None
    is_photometric: bool | None = None
    queue_grade: int | None = None
    header_zeropoint_mag: float | None = None
    header_zeropoint_sigma_mag: float | None = None
    header_zeropoint_nominal_mag: float | None = None
    header_airmass_term_mag: float | None = None
    header_colour_term: float | None = None


@dataclass(frozen=True, slots=True)
class Named:
    """A calibration frame that a header names."""

    kind: str
    name: str
    keyword: str
    uris: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Rule:
    """How a value is read, and what it must be."""

    read: Callable[[Any], Any]
    expected: str
    low: float = -math.inf
    high: float = math.inf


def _whole(value: Any) -> int | None:
    number = as_number(value)
    return (
        int(number) if number is not None and number == int(number) and abs(number) < _MAX_INTEGER else None
    )


def _text(value: Any) -> str | None:
    text = as_text(value)
    return text[:MAX_TEXT] if text else None


def _flag(value: Any) -> bool | None:
    if isinstance(value, bool):
        return value
    return {"T": True, "TRUE": True, "YES": True, "F": False, "FALSE": False, "NO": False}.get(
        str(value).strip().upper()
    )


def _moment(value: Any) -> datetime | None:
    moment = as_observed_at(value)
    return moment.utc if moment else None


def _number(low: float, high: float, unit: str = "") -> _Rule:
    return _Rule(as_number, f"{low:g} to {high:g}{unit and f' {unit}'}", low, high)


_RULES: dict[str, _Rule] = {
    "agency_run": _Rule(_text, "text"),
    "queue_run": _Rule(_text, "text"),
    "camera_run": _Rule(_text, "text"),
    "sequence_number": _Rule(_whole, "a whole number from 0", 0),
    "observation_type": _Rule(_text, "text"),
    "principal_investigator": _Rule(_text, "text"),
    "released_at": _Rule(_moment, "a date such as 2012-02-28T00:00:00"),
    "mjd_end": _number(*RANGES["mjd_obs"], "d"),
    "seeing_arcsec": _number(0.05, 30, "arcsec"),
    "sky_absorption_mag": _number(-1, 20, "mag"),
    "background_adu_per_s": _number(0, 1e6, "adu/s"),
    "is_photometric": _Rule(_flag, "T or F"),
    "queue_grade": _Rule(_whole, "1 to 5", 1, 5),
    "header_zeropoint_mag": _number(5, 40, "mag"),
    "header_zeropoint_sigma_mag": _number(0, 5, "mag"),
    "header_zeropoint_nominal_mag": _number(5, 40, "mag"),
    "header_airmass_term_mag": _number(-3, 3, "mag per airmass"),
    "header_colour_term": _number(-5, 5, "mag per mag"),
}


def load_columns(profile: Profile, header: HeaderValues, filter_name: str) -> tuple[Columns, list[Finding]]:
    """Read the columns as this profile says. What is there and cannot be is not known, and a repair says so."""
    values: dict[str, Any] = {}
    repairs: list[Finding] = []
    for column, rule in _RULES.items():
        for keyword in getattr(profile.columns, column):
            raw = header.get(keyword)
            if raw is None or str(raw).strip() == "":
                continue
            value = rule.read(raw) if profile.value(header, (keyword,)) is not None else None
            if value is None or not _possible(value, rule):
                repairs.append(_not_known(column, keyword, raw, rule))
                continue
            values[column] = value
            break
    return Columns(profile.canonical_filter(filter_name), **values), repairs


def _possible(value: Any, rule: _Rule) -> bool:
    return not isinstance(value, int | float) or rule.low <= value <= rule.high


def _not_known(column: str, keyword: str, raw: Any, rule: _Rule) -> Finding:
    return Finding(
        "column_unknown",
        f"{keyword} cannot be right: {column} counts as not known.",
        keyword=keyword,
        found=f"{raw!s:.60}",
        expected=rule.expected,
    )


def named_auxiliaries(profile: Profile, header: HeaderValues) -> tuple[Named, ...]:
    """Calibration frames that the header names: one of each kind at most, in the order of their kinds."""
    found: dict[str, Named] = {}
    for auxiliary in profile.auxiliaries:
        name = _frame_name(profile, header, auxiliary)
        if name is not None and auxiliary.kind not in found:
            uris = tuple(uri.replace("{name}", name) for uri in auxiliary.uris)
            found[auxiliary.kind] = Named(auxiliary.kind, name, auxiliary.keyword, uris)
    return tuple(found[kind] for kind in sorted(found))


def _frame_name(profile: Profile, header: HeaderValues, auxiliary: Auxiliary) -> str | None:
    """Name of a frame, of whatever the header made of it: a path, a file, an extension of a file, or nothing.

    What no file can be called after that is no name.
    """
    value = profile.value(header, (auxiliary.keyword,))
    if not isinstance(value, str):
        return None
    last = value.replace("\\", "/").rstrip("/").rsplit("/", 1)[-1].split("[", 1)[0].strip()
    name = _FITS_ENDING.sub("", last)
    nothing = {*_NO_NAMES, *(sentinel.lower() for sentinel in profile.keywords.sentinels)}
    # What would have to be changed to be a file's name is no name that anybody's file has.
    return name if naming.safe(name) == name and name.lower() not in nothing else None
