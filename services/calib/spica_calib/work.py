"""What an image is solved from, put together: the job, and what will be said of it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from spica_imaging.profiles import Profile, load_profiles
from spica_proto.envelope import derived_id

from spica_calib.context import Neighbours
from spica_calib.errors import CalibrationFailed
from spica_calib.jobs import ImageJob, Limits


@dataclass(frozen=True, slots=True)
class Work:
    """One image to be solved."""

    job: ImageJob
    solution_id: str
    measurement_id: str
    model_version: int
    """Of its context's model; 0: none yet."""
    near: Neighbours
    batch: str | None


def profile_named(name: str, folder: Path | None) -> Profile:
    """Instrument profile. Raises `CalibrationFailed` (`unknown_profile`)."""
    try:
        return load_profiles(folder)[name]
    except KeyError as error:
        raise CalibrationFailed(
            "unknown_profile",
            f"There is no instrument profile {name!r}: put it back into the folder of profiles, then send this again.",
        ) from error


def solution_id_of(
    *,
    image_id: str,
    measurement_id: str,
    references: tuple[str, ...],
    engine: str,
    context: str,
    model_version: int,
    context_solutions: tuple[str, ...],
    profile: Profile,
    limits: Limits,
) -> str:
    """The id of a solution follows from all that it is made of. `references`: hashes of the reference catalogues."""
    options = {
        "limits": asdict(limits),
        **profile.model_dump(mode="json", include={"pointing", "astrometry", "photometry"}),
    }
    return derived_id(
        "solution",
        image_id,
        measurement_id,
        *references,
        engine,
        context,
        model_version,
        *context_solutions,
        json.dumps(options, sort_keys=True),
    )
