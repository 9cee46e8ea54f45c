"""The queries of a watch, in ADQL. Pure: text out.

Two different things make a file news (CAOM, as CADC's argus serves it):

* **changed**: `Observation.maxLastModified`, the newest change of an observation or of anything in it. It is the
  one such column with an index;
* **released**: `Plane.dataRelease`. That this date passes changes no row, so the first query never tells.

Windows are half open and in whole milliseconds: answers show times cut off at the millisecond while the archive
compares with what it cut off, so `>` the last time seen would lose its neighbours, and `<=` it would lose the row itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Literal

from spica_ingest.watching.found import COLUMNS
from spica_ingest.watching.model import JUNK, PRODUCT_TYPES, Cone, Watch

Kind = Literal["changed", "released"]
KEY: dict[Kind, str] = {"changed": "o.maxLastModified", "released": "p.dataRelease"}
"""Column that each kind of news stands on."""
MILLISECOND = timedelta(milliseconds=1)

_TABLES = (
    "caom2.Observation AS o JOIN caom2.Plane AS p ON o.obsID = p.obsID "
    "JOIN caom2.Artifact AS a ON p.planeID = a.planeID"
)


def literal(text: str) -> str:
    """Text as an ADQL literal."""
    if "\0" in text:
        raise ValueError("A text with NUL cannot be said in ADQL.")
    return "'" + text.replace("'", "''") + "'"


def time_literal(moment: datetime) -> str:
    """Time as an ADQL literal: UTC, without zone, cut off at the millisecond."""
    utc = moment.astimezone(UTC)
    return f"'{utc:%Y-%m-%dT%H:%M:%S}.{utc.microsecond // 1000:03d}'"


def newest(collection: str) -> str:
    """Ask when anything of a collection was last changed, by the archive's own clock."""
    return (
        "SELECT max(o.maxLastModified) AS newest FROM caom2.Observation AS o "
        f"WHERE o.collection = {literal(collection)}"
    )


def page(
    watch: Watch,
    kind: Kind,
    *,
    begin: datetime,
    end: datetime,
    after_uri: str | None = None,
    modified_since: datetime | None = None,
) -> str:
    """Ask for the watch's files in ``begin <= time < end``, by time and uri.

    Args:
        watch: which files.
        kind: which time.
        begin: start of the window.
        end: its end.
        after_uri: only files behind this uri, by uri alone: for a window of one millisecond that holds more rows
            than an answer may have.
        modified_since: only files whose own entry was changed since, whatever else of the observation was.

    """
    key = KEY[kind]
    rules = [
        f"o.collection = {literal(watch.collection)}",
        f"{key} >= {time_literal(begin)}",
        f"{key} < {time_literal(end)}",
        *_rules(watch),
    ]
    if modified_since is not None:
        rules.append(f"a.lastModified >= {time_literal(modified_since)}")
    if after_uri is not None:
        rules.append(f"a.uri > {literal(after_uri)}")
    order = "a.uri" if after_uri is not None else f"{key}, a.uri"
    return f"SELECT {', '.join(COLUMNS)} FROM {_TABLES} WHERE {' AND '.join(rules)} ORDER BY {order}"


def _rules(watch: Watch) -> list[str]:
    rules = [f"a.productType IN ({', '.join(map(literal, PRODUCT_TYPES[watch.intent]))})"]
    if watch.intent != "any":
        rules.append(f"o.intent = {literal(watch.intent)}")
    if watch.calibration_level is not None:
        rules.append(f"p.calibrationLevel = {watch.calibration_level}")
    for column, patterns in (
        ("o.instrument_name", (watch.instrument,) if watch.instrument else ()),
        ("p.energy_bandpassName", watch.filters),
        ("o.proposal_id", watch.programmes),
        ("o.target_name", watch.targets),
    ):
        if patterns:
            rules.append(_any_of(column, patterns))
    ending = f"%{watch.suffix or ''}.fits%"
    rules.append(f"a.uri LIKE {literal(ending)}")
    rules.append(f"(p.quality_flag IS NULL OR p.quality_flag <> {literal(JUNK)})")
    if watch.region is not None:
        rules.append(f"INTERSECTS({_shape(watch)}, p.position_bounds) = 1")
    return rules


def _any_of(column: str, patterns: Sequence[str]) -> str:
    exact = [pattern for pattern in patterns if "*" not in pattern]
    parts = [f"{column} LIKE {literal(pattern.replace('*', '%'))}" for pattern in patterns if "*" in pattern]
    if len(exact) == 1:
        parts.insert(0, f"{column} = {literal(exact[0])}")
    elif exact:
        parts.insert(0, f"{column} IN ({', '.join(map(literal, exact))})")
    return parts[0] if len(parts) == 1 else f"({' OR '.join(parts)})"


def _shape(watch: Watch) -> str:
    region = watch.region
    assert region is not None
    if isinstance(region, Cone):
        return f"CIRCLE('ICRS', {_degrees(region.ra_deg, region.dec_deg, region.radius_deg)})"
    return f"POLYGON('ICRS', {', '.join(_degrees(*corner) for corner in region.corners_deg)})"


def _degrees(*values: float) -> str:
    # Never with an exponent, which not every ADQL parser reads.
    return ", ".join(f"{value:.9f}".rstrip("0").rstrip(".") for value in values)
