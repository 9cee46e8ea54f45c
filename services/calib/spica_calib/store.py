"""The calib service's SQL."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiosql
from spica_proto.base import Product
from spica_proto.envelope import derived_id
from spica_runtime.pg import Connection, Pool, Record

from spica_calib.errors import CalibrationFailed
from spica_calib.ownwork import OwnMember
from spica_calib.records import Facts, Measured, Place, SolvedRecord
from spica_calib.reference.area import ReferenceArea

queries: Any = aiosql.from_path(Path(__file__).with_name("queries.sql"), "asyncpg")

_COLUMNS = (
    "header_zeropoint_mag",
    "header_zeropoint_sigma_mag",
    "header_zeropoint_nominal_mag",
    "header_airmass_term_mag",
    "header_colour_term",
    "sky_absorption_mag",
    "is_photometric",
)


@dataclass(frozen=True, slots=True)
class ImageRecord:
    """What the store knows of an image."""

    facts: Facts
    has_wcs: bool
    ccds: tuple[tuple[str, int, int], ...]
    """Name, columns and rows, in the order of HDUs."""
    place: Place | None
    """None: it was taken in before places were kept."""
    corners_mas: bytes | None
    """ra, dec of four corners of every CCD, as its header has them."""
    batch: str | None

    @property
    def ccd_names(self) -> tuple[str, ...]:
        """Names of its CCDs."""
        return tuple(name for name, _, _ in self.ccds)


@dataclass(frozen=True, slots=True)
class KnownSolution:
    """What was solved before, and from what."""

    solution_id: str
    header_path: str
    model_version: int | None
    context_solutions: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Model:
    """One version of what a run has taught of an instrument."""

    version: int
    json: Mapping[str, Any]
    illumination: Mapping[str, Any] | None


@dataclass(frozen=True, slots=True)
class NewSolution:
    """A solution to be kept."""

    solution_id: str
    image_id: str
    stack_id: str | None
    header: Product
    reference: ReferenceArea
    zeropoint_mag: float | None
    flux_scale: float | None
    limiting_mag: float | None
    quality: Mapping[str, Any]
    engine: str
    place: Place
    measurement_id: str | None
    context: str | None
    model_version: int | None
    context_solutions: tuple[str, ...] = ()


def _facts(row: Record) -> Facts:
    return Facts(
        image_id=row["image_id"],
        name=row["name"],
        profile=row["profile"],
        filter=row["filter"],
        exposure_time_s=row["exposure_time_s"],
        mjd_obs=row["mjd_obs"],
        airmass=row["airmass"],
        pointing=(row["ra_deg"], row["dec_deg"]),
        header=row["header"],
        **{name: row[name] for name in _COLUMNS},
    )


def _measured(row: Record) -> Measured:
    # Exponents of the Moffat profiles of stars; CCDs on which they were not measured are left out.
    betas = {
        str(ccd["name"]): float(ccd["moffat_beta"]) for ccd in row["per_ccd"] or [] if ccd.get("moffat_beta")
    }
    return Measured(
        row["measurement_id"], row["catalogue_path"], betas, row["metrics"].get("limiting_flux_adu")
    )


def _solved(row: Record) -> SolvedRecord:
    return SolvedRecord(
        facts=_facts(row),
        measured=_measured(row),
        solution_id=row["solution_id"],
        header_path=row["header_path"],
        zeropoint_mag=row["zeropoint_mag"],
        quality=row["quality"],
        corners=tuple(row["corners"]) if row["corners"] else None,
    )


async def image(pool: Pool, image_id: str) -> ImageRecord:
    """Look an image up. Raises `CalibrationFailed` (`unknown_image`)."""
    row: Record | None = await queries.image(pool, image_id=image_id)
    if row is None:
        raise CalibrationFailed("unknown_image", f"The store knows no image {image_id!r}.")
    ccds = [
        (ccd["name"], ccd["naxis1"], ccd["naxis2"]) async for ccd in queries.ccds(pool, image_id=image_id)
    ]
    place = None
    if row["centre_x"] is not None:
        place = Place((row["centre_x"], row["centre_y"], row["centre_z"]), row["radius_rad"])
    return ImageRecord(_facts(row), row["wcs"] == "full", tuple(ccds), place, row["corners"], row["batch"])


async def is_unfit(connection: Connection, image_id: str) -> bool:
    """Whether an image is graded D, not to be used."""
    grade: str | None = await queries.grade(connection, image_id=image_id)
    return grade == "D"


async def measurement(pool: Pool, image_id: str, measurement_id: str | None = None) -> Measured:
    """One measurement of an image, by default its latest. Raises `CalibrationFailed` (`not_measured`)."""
    row: Record | None = await queries.measurement(pool, image_id=image_id, measurement_id=measurement_id)
    if row is None:
        raise CalibrationFailed(
            "not_measured",
            f"The store knows no measurement {measurement_id or ''} of image {image_id}. Measure it first: "
            "send its image.verified again.",
        )
    return _measured(row)


async def solved(
    pool: Pool | Connection, image_id: str, measurement_id: str, reference_sha256: str, engine: str
) -> KnownSolution | None:
    """What counts of an image, if it was solved from this measurement, against this reference, by this engine."""
    row: Record | None = await queries.solved(
        pool,
        image_id=image_id,
        measurement_id=measurement_id,
        reference_sha256=reference_sha256,
        engine=engine,
    )
    if row is None:
        return None
    return KnownSolution(
        row["solution_id"], row["header_path"], row["model_version"], tuple(row["context_solutions"])
    )


async def solution_exists(pool: Pool, solution_id: str) -> bool:
    """Whether this solution was found before."""
    return bool(await queries.solution_exists(pool, solution_id=solution_id))


async def id_to_count(pool: Pool, solution_id: str) -> str:
    """The id under which a solution counts: another one where it was found before and superseded since.

    So what is chosen again (a reference catalogue, an engine) counts again, as a version of its own.
    """
    while (by := await queries.superseded_by(pool, solution_id=solution_id)) is not None:
        solution_id = derived_id("solution", "again", solution_id, by)
    return solution_id


async def overtaken(pool: Pool | Connection, image_id: str, measurement_id: str) -> bool:
    """Whether what counts of an image stands on a later measurement than this one."""
    return bool(await queries.overtaken(pool, image_id=image_id, measurement_id=measurement_id))


async def neighbours(
    pool: Pool,
    context: str,
    image_id: str,
    place: Place,
    reference: ReferenceArea,
    only: Sequence[str] | None,
    max_rows: int,
) -> list[SolvedRecord]:
    """Images of a context near a place, solved by this reference, the nearest first; with `only`, these solutions alone."""
    x, y, z = place.centre
    rows = queries.neighbours(
        pool,
        context=context,
        image_id=image_id,
        x=x,
        y=y,
        z=z,
        radius_rad=place.radius_rad,
        reference_name=reference.name,
        # Areas of one catalogue's tiles have hashes of their own.
        reference_sha256=reference.sha256 if reference.order is None else None,
        solution_ids=list(only) if only is not None else None,
        max_rows=max_rows,
    )
    return [_solved(row) async for row in rows]


async def newest_model(pool: Pool | Connection, context: str) -> Model | None:
    """What new images of a context start from; None: nothing is known of it yet."""
    row: Record | None = await queries.newest_model(pool, context=context)
    return Model(row["version"], row["model"], row["illumination"]) if row else None


async def model(pool: Pool | Connection, context: str, version: int) -> Model | None:
    """One version of a context's model."""
    row: Record | None = await queries.model(pool, context=context, version=version)
    return Model(row["version"], row["model"], row["illumination"]) if row else None


async def models_at_planning(pool: Pool, contexts: Sequence[str], stack_id: str) -> dict[str, Model]:
    """By context, the newest model that there was when a stack was planned."""
    rows = queries.models_at_planning(pool, contexts=list(contexts), stack_id=stack_id)
    return {row["context"]: Model(row["version"], row["model"], row["illumination"]) async for row in rows}


async def members(pool: Pool, stack_id: str) -> list[SolvedRecord]:
    """Selected members of a stack, in order. Raises `CalibrationFailed` (`no_solution`) if one is not solved."""
    found = []
    async for row in queries.members(pool, stack_id=stack_id):
        if row["solution_id"] is None or row["catalogue_path"] is None:
            raise CalibrationFailed(
                "no_solution", f"Member {row['image_id']} of stack {stack_id} has no solution of its own."
            )
        found.append(_solved(row))
    if not found:
        raise CalibrationFailed("no_members", f"Stack {stack_id} has no selected members in the store.")
    return found


@dataclass(frozen=True, slots=True)
class Version:
    """Which of an image's own solutions one is."""

    number: int
    supersedes: str | None = None
    why: str | None = None


async def add_version(connection: Connection, new: NewSolution, why: str | None) -> Version | None:
    """Keep an image's own solution as the one that counts; None when it was there already.

    `why`: what was before is superseded for; None: what differs tells. The caller has the image's turn: see `turn`.
    """
    before: Record | None = await queries.current(connection, image_id=new.image_id)
    number = ((before["highest"] or 0) if before else 0) + 1
    if not await _add(connection, new, number):
        return None
    if before is None:
        return Version(number)
    why = why or _why(before, new)
    await queries.supersede(connection, image_id=new.image_id, solution_id=new.solution_id, why=why)
    return Version(number, before["solution_id"], why)


def _why(before: Record, new: NewSolution) -> str:
    """What a solution differs in from the one before."""
    if before["measurement_id"] != new.measurement_id:
        return "measured anew"
    if before["reference_sha256"] != new.reference.sha256:
        return f"another reference catalogue: {new.reference.name}"
    if before["engine"] != new.engine:
        return f"another engine: {new.engine}"
    return "its files were gone"


async def add_joint(connection: Connection, new: NewSolution) -> bool:
    """Keep an image's part in the joint solution of a stack; False when it was there already."""
    return await _add(connection, new, None)


async def _add(connection: Connection, new: NewSolution, version: int | None) -> bool:
    x, y, z = new.place.centre
    added = await queries.add_solution(
        connection,
        solution_id=new.solution_id,
        image_id=new.image_id,
        stack_id=new.stack_id,
        header_path=new.header.path,
        reference_name=new.reference.name,
        reference_sha256=new.reference.sha256,
        zeropoint_mag=new.zeropoint_mag,
        flux_scale=new.flux_scale,
        limiting_mag=new.limiting_mag,
        quality=dict(new.quality),
        version=version,
        engine=new.engine,
        measurement_id=new.measurement_id,
        context=new.context,
        model_version=new.model_version,
        context_solutions=list(new.context_solutions),
        corners=list(new.place.corners) if new.place.corners else None,
        centre_x=x,
        centre_y=y,
        centre_z=z,
        radius_rad=new.place.radius_rad,
    )
    return added is not None


async def turn(connection: Connection, kind: str, key: str) -> None:
    """Wait until nobody else has the turn of this image or context, and keep it until the transaction ends.

    An image's is taken before its context's, contexts in the order of their names: nobody waits for who waits for them.
    """
    await queries.turn(connection, key=f"spica calib {kind} {key}")


async def has_taught(connection: Connection, context: str, image_id: str) -> bool:
    """Whether what an image teaches of a context is in its model already."""
    return bool(await queries.has_taught(connection, context=context, image_id=image_id))


async def add_model(
    connection: Connection,
    *,
    version: int,
    json: Mapping[str, Any],
    illumination: Mapping[str, Any] | None,
    started_from: int,
    merged_with: int | None,
    solution_id: str,
    image_id: str,
) -> None:
    """One more version of a context's model."""
    await queries.add_model(
        connection,
        context=json["context"],
        version=version,
        model=dict(json),
        illumination=dict(illumination) if illumination is not None else None,
        n_exposures=json["n_exposures"],
        repeat_mas=json["repeat_mas"],
        started_from=started_from,
        merged_with=merged_with,
        solution_id=solution_id,
        image_id=image_id,
    )


async def stack_state(pool: Pool, stack_id: str) -> tuple[str, str | None]:
    """How far a stack has come, and the engine that its request names. Raises `CalibrationFailed` (`unknown_stack`)."""
    row: Record | None = await queries.stack_state(pool, stack_id=stack_id)
    if row is None:
        raise CalibrationFailed("unknown_stack", f"The store knows no stack {stack_id!r}.")
    return row["state"], row["engine"]


async def own_members(pool: Pool, stack_id: str) -> list[OwnMember]:
    """Selected members of a stack, in order, each with the solution of its own that it was planned with."""
    return [OwnMember(**row) async for row in queries.own_members(pool, stack_id=stack_id)]


async def enter_own(connection: Connection, stack_id: str, entries: Mapping[str, str]) -> None:
    """Enter own solutions as those of a stack: by the own ones, the ids of the new entries."""
    await queries.enter_own(
        connection, stack_id=stack_id, own_ids=list(entries), new_ids=list(entries.values())
    )


async def mark_calibrated(connection: Connection, stack_id: str) -> bool:
    """Take a planned stack one step further; False when it was there already."""
    return await queries.mark_calibrated(connection, stack_id=stack_id) is not None


async def products_at(pool: Pool, paths: Sequence[str]) -> tuple[Product, ...]:
    """What the store knows of these files; unknown ones are left out."""
    return tuple([Product(**row) async for row in queries.products_at(pool, paths=list(paths))])
