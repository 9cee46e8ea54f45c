"""CAOM's tables on a real SQL engine: Observation, Plane, Artifact, and ObsCore as a view of them."""

from __future__ import annotations

import re
import sqlite3
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Literal

from tests.support.cadc import shapes
from tests.support.cadc.adql import BadQuery, to_sqlite
from tests.support.cadc.clock import Clock, written

LONG_AGO = datetime(2010, 1, 1, tzinfo=UTC)

Type = Literal["char", "int", "long", "double", "time", "shape"]
COLUMNS: dict[str, dict[str, Type]] = {
    "Observation": {
        **dict.fromkeys(("observationURI", "obsID", "collection", "observationID", "algorithm_name"), "char"),
        **dict.fromkeys(("type", "intent"), "char"),
        "sequenceNumber": "int",
        "metaRelease": "time",
        **dict.fromkeys(("proposal_id", "proposal_pi", "proposal_project", "proposal_title"), "char"),
        "target_name": "char",
        "targetPosition_coordinates_cval1": "double",
        "targetPosition_coordinates_cval2": "double",
        **dict.fromkeys(("telescope_name", "instrument_name", "typeCode"), "char"),
        "lastModified": "time",
        "maxLastModified": "time",
    },
    "Plane": {
        **dict.fromkeys(("publisherID", "planeURI", "planeID", "obsID", "productID"), "char"),
        "metaRelease": "time",
        "dataRelease": "time",
        "dataProductType": "char",
        "calibrationLevel": "int",
        **dict.fromkeys(("provenance_name", "provenance_version", "provenance_runID"), "char"),
        "quality_flag": "char",
        "position_bounds": "shape",
        "energy_bandpassName": "char",
        "time_bounds_lower": "double",
        "time_bounds_upper": "double",
        "time_exposure": "double",
        "lastModified": "time",
        "maxLastModified": "time",
    },
    "Artifact": {
        **dict.fromkeys(
            ("uri", "planeID", "artifactID", "productType", "releaseType", "contentType"), "char"
        ),
        "contentLength": "long",
        "contentChecksum": "char",
        "contentRelease": "time",
        "lastModified": "time",
        "maxLastModified": "time",
    },
}
OBSCORE: dict[str, str] = {
    "dataproduct_type": "p.dataProductType",
    "calib_level": "p.calibrationLevel",
    "obs_collection": "o.collection",
    "facility_name": "o.telescope_name",
    "instrument_name": "o.instrument_name",
    "obs_id": "o.observationID",
    "obs_publisher_did": "p.publisherID",
    "obs_release_date": "p.dataRelease",
    "target_name": "o.target_name",
    "s_ra": "o.targetPosition_coordinates_cval1",
    "s_dec": "o.targetPosition_coordinates_cval2",
    "s_region": "p.position_bounds",
    "t_min": "p.time_bounds_lower",
    "t_max": "p.time_bounds_upper",
    "t_exptime": "p.time_exposure",
    "lastModified": "o.maxLastModified",
}
_SQL_TYPES = {"char": "TEXT", "int": "INTEGER", "long": "INTEGER", "double": "REAL", "shape": "TEXT"}


@dataclass(frozen=True)
class Facts:
    """What CAOM knows of a file, from its observation down. Defaults: a public MegaPrime frame."""

    collection: str = "CFHT"
    observation_id: str = ""
    product_id: str = ""
    instrument: str = "MegaPrime"
    telescope: str = "CFHT 3.6m"
    type: str = "OBJECT"
    intent: str = "science"
    target: str | None = "D3"
    proposal_id: str | None = "10BD90"
    camera_run: str | None = "10Bm03"
    filter: str | None = "r.MP9602"
    calibration_level: int = 2
    product_type: str = "science"
    content_type: str = "application/fits"
    quality_flag: str | None = None
    exposure_time_s: float | None = 120.0
    mjd_obs: float | None = 60000.25
    position: str | None = shapes.circle_text(214.85, 52.65, 0.7)
    """As in position_bounds: `circle ra dec radius` or `polygon ra dec ra dec …`, degrees."""
    meta_release: datetime | None = LONG_AGO
    data_release: datetime | None = LONG_AGO

    @classmethod
    def of(cls, uri: str, **given: Any) -> Facts:
        """What the name says, and what is given: cadc:CFHT/2376828p.fits.fz is plane p of 2376828."""
        _, _, path = uri.partition(":")
        name = path.rpartition("/")[2]
        product = re.sub(r"\.(fits?|fz|gz|bz2|Z)(?=\.|$)", "", name)
        match = re.fullmatch(r"(\d+)([a-z])", product)
        guessed = cls(
            collection=path.partition("/")[0],
            product_id=product,
            observation_id=match[1] if match else product,
            calibration_level=1 if match and match[2] != "p" else 2,
        )
        return replace(guessed, **given)


class Caom:
    """The tables, and queries on them as one user sees them."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._granted: frozenset[str] = frozenset()
        self._db = sqlite3.connect(":memory:", isolation_level=None)
        self._db.execute("ATTACH ':memory:' AS caom2")
        self._db.execute("PRAGMA case_sensitive_like = ON")
        self._db.create_collation("times", _compare_times)
        self._db.create_function("seen", 2, self._seen)
        self._db.create_function("SPLIT_PART", 3, _split_part, deterministic=True)
        shapes.install(self._db)
        for table, columns in COLUMNS.items():
            parts = ", ".join(
                f"{name} TEXT COLLATE times" if kind == "time" else f"{name} {_SQL_TYPES[kind]}"
                for name, kind in columns.items()
            )
            self._db.execute(f"CREATE TABLE caom2.{table}_rows ({parts})")
            self._db.execute(f"CREATE UNIQUE INDEX caom2.{table}_key ON {table}_rows ({_KEYS[table]})")
            # Who may not see the metadata yet does not find the row; artifacts are not filtered.
            where = " WHERE seen(metaRelease, obsID)" if "metaRelease" in columns else ""
            self._db.execute(
                f"CREATE VIEW caom2.{table} AS SELECT {', '.join(columns)} FROM {table}_rows{where}"
            )
        listed = ", ".join(f"{source} AS {name}" for name, source in OBSCORE.items())
        self._db.execute(
            f"CREATE VIEW caom2.ObsCore AS SELECT {listed} FROM Observation AS o JOIN Plane AS p "
            "ON o.obsID = p.obsID WHERE o.intent = 'science' AND p.calibrationLevel BETWEEN 0 AND 4"
        )

    def close(self) -> None:
        """Forget everything."""
        self._db.close()

    def query(
        self, adql: str, *, limit: int | None, granted: Iterable[Facts] = ()
    ) -> tuple[list[str], list[tuple[Any, ...]]]:
        """Column names and rows, at most `limit` of them. Raises BadQuery.

        What is not public yet is seen where it is granted.
        """
        self._granted = frozenset(_id(_observation_uri(facts)) for facts in granted)
        try:
            cursor = self._db.execute(to_sqlite(adql))
            rows = cursor.fetchall() if limit is None else cursor.fetchmany(limit)
        except (sqlite3.Error, ValueError) as error:
            raise BadQuery(str(error)) from error
        return [column[0] for column in cursor.description], rows

    def put(self, uri: str, facts: Facts, checksum: str, size_bytes: int, modified: datetime) -> None:
        """A file, with its plane and observation, is new or has changed."""
        now = written(modified)
        observation_uri = _observation_uri(facts)
        plane_uri = f"{observation_uri}/{facts.product_id}"
        obs_id, plane_id, artifact_id = _id(observation_uri), _id(plane_uri), _id(uri)
        ra, dec = _middle(facts.position)
        self._upsert(
            "Observation",
            observationURI=observation_uri,
            obsID=obs_id,
            collection=facts.collection,
            observationID=facts.observation_id,
            algorithm_name="exposure",
            type=facts.type,
            intent=facts.intent,
            sequenceNumber=int(facts.observation_id) if facts.observation_id.isdecimal() else None,
            metaRelease=_time(facts.meta_release),
            proposal_id=facts.proposal_id,
            target_name=facts.target,
            targetPosition_coordinates_cval1=ra,
            targetPosition_coordinates_cval2=dec,
            telescope_name=facts.telescope,
            instrument_name=facts.instrument,
            typeCode="S",
            lastModified=now,
            maxLastModified=now,
        )
        end = None if facts.mjd_obs is None else facts.mjd_obs + (facts.exposure_time_s or 0.0) / 86400
        self._upsert(
            "Plane",
            publisherID=f"ivo://cadc.nrc.ca/{facts.collection}?{facts.observation_id}/{facts.product_id}",
            planeURI=plane_uri,
            planeID=plane_id,
            obsID=obs_id,
            productID=facts.product_id,
            metaRelease=_time(facts.meta_release),
            dataRelease=_time(facts.data_release),
            dataProductType="image",
            calibrationLevel=facts.calibration_level,
            provenance_name="ELIXIR" if facts.calibration_level == 2 else None,
            provenance_version="2.0" if facts.calibration_level == 2 else None,
            provenance_runID=facts.camera_run,
            quality_flag=facts.quality_flag,
            position_bounds=facts.position,
            energy_bandpassName=facts.filter,
            time_bounds_lower=facts.mjd_obs,
            time_bounds_upper=end,
            time_exposure=facts.exposure_time_s,
            lastModified=now,
            maxLastModified=now,
        )
        self._upsert(
            "Artifact",
            uri=uri,
            planeID=plane_id,
            artifactID=artifact_id,
            productType=facts.product_type,
            releaseType="data",
            contentType=facts.content_type,
            contentLength=size_bytes,
            contentChecksum=checksum,
            lastModified=now,
            maxLastModified=now,
        )

    def release(self, uri: str, column: Literal["metaRelease", "dataRelease"], time: datetime | None) -> None:
        """Set a release date; no time of change moves, as when such a date simply passes."""
        plane = "(SELECT planeID FROM caom2.Artifact_rows WHERE uri = ?)"
        arguments = (_time(time), uri)
        self._db.execute(f"UPDATE caom2.Plane_rows SET {column} = ? WHERE planeID = {plane}", arguments)
        if column == "metaRelease":
            observation = f"(SELECT obsID FROM caom2.Plane_rows WHERE planeID = {plane})"
            self._db.execute(
                f"UPDATE caom2.Observation_rows SET metaRelease = ? WHERE obsID = {observation}", arguments
            )

    def _upsert(self, table: str, **row: Any) -> None:
        keys = _KEYS[table]
        places = ", ".join("?" * len(row))
        # A changed file changes its own times; of its plane and observation only the maximum moves.
        updates = {name: f"excluded.{name}" for name in row if name != keys}
        updates["maxLastModified"] = "max(maxLastModified, excluded.maxLastModified)"
        if table != "Artifact":
            del updates["lastModified"]
        changes = ", ".join(f"{name} = {update}" for name, update in updates.items())
        self._db.execute(
            f"INSERT INTO caom2.{table}_rows ({', '.join(row)}) VALUES ({places}) "
            f"ON CONFLICT ({keys}) DO UPDATE SET {changes}",
            tuple(row.values()),
        )

    def _seen(self, meta_release: str | None, obs_id: str) -> bool:
        if obs_id in self._granted:
            return True
        return meta_release is not None and meta_release < written(self._clock.now())


_KEYS = {"Observation": "obsID", "Plane": "planeID", "Artifact": "uri"}


def _observation_uri(facts: Facts) -> str:
    return f"caom:{facts.collection}/{facts.observation_id}"


def _id(uri: str) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_URL, uri))


def type_of(column: str, values: Sequence[Any]) -> Type:
    """Of a result's column: by its name if it is one of CAOM's, else by what is in it."""
    for columns in COLUMNS.values():
        for name, kind in columns.items():
            if name.lower() == column.lower():
                return kind
    present = [value for value in values if value is not None]
    if present and all(isinstance(value, int) for value in present):
        return "long"
    return "double" if present and all(isinstance(value, int | float) for value in present) else "char"


def _time(time: datetime | None) -> str | None:
    return None if time is None else written(time)


def _middle(position: str | None) -> tuple[float | None, float | None]:
    if position is None:
        return None, None
    kind, *numbers = position.split()
    ra, dec = [float(part) for part in numbers[0::2]], [float(part) for part in numbers[1::2]]
    if kind == "circle":
        return ra[0], dec[0]
    return sum(ra) / len(ra), sum(dec) / len(dec)


def _compare_times(a: str, b: str) -> int:
    a, b = _full(a), _full(b)
    return (a > b) - (a < b)


def _full(time: str) -> str:
    """Any ISO time, or the beginning of one, to microseconds: 2026-01-02 is its midnight."""
    time = time.strip().replace(" ", "T", 1).removesuffix("Z")
    return time + "0000-01-01T00:00:00.000000"[len(time) :]


def _split_part(text: str | None, by: str, number: int) -> str | None:
    if text is None:
        return None
    parts = text.split(by)
    return parts[number - 1] if number <= len(parts) else ""
