"""Events about images that are in the store already, as quality and calib say them."""

from __future__ import annotations

import itertools

from spica_proto.base import Grade, Product
from spica_proto.envelope import derived_id
from spica_proto.images import ImageCalibrated, ImageGraded, Metrics, Reference

from tests.support.rig import Rig
from tests.support.seeding import insert, seed_grade

_numbers = itertools.count()
_FILE = Product(path="none", sha256="0" * 64, size_bytes=0, kind="none")


async def graded(rig: Rig, image_id: str, grade: Grade, by: str = "policy:default@1") -> None:
    """Grade an image, and say so."""
    await seed_grade(rig, image_id, grade, by)
    await say_graded(rig, image_id, grade, by)


async def say_graded(rig: Rig, image_id: str, grade: Grade = "A", by: str = "policy:default@1") -> None:
    """Say that an image is graded."""
    await rig.publish(
        ImageGraded(
            image_id=image_id,
            name=image_id.split(".", maxsplit=1)[0],
            grade=grade,
            graded_by=by,
            measurement_id=f"m-{image_id}",
            metrics=Metrics(),
            catalogue=_FILE,
            weight=_FILE,
            preview=_FILE,
        )
    )


async def solved_again(rig: Rig, image_id: str) -> str:
    """One more version of an image's own solution, which counts from now on; and say so. Returns its id."""
    row = await rig.pool.fetchrow(
        "SELECT * FROM solutions WHERE image_id = $1 AND stack_id IS NULL AND superseded_by IS NULL", image_id
    )
    assert row is not None
    solution_id = derived_id("again", image_id, next(_numbers))
    await insert(
        rig,
        "solutions",
        {
            **{key: value for key, value in dict(row).items() if key != "created_at"},
            "solution_id": solution_id,
            "version": (row["version"] or 1) + 1,
        },
    )
    await rig.pool.execute(
        "UPDATE solutions SET superseded_by = $2, superseded_why = 'measured anew' WHERE solution_id = $1",
        row["solution_id"],
        solution_id,
    )
    await say_calibrated(rig, image_id, solution_id)
    return solution_id


async def say_calibrated(rig: Rig, image_id: str, solution_id: str = "s") -> None:
    """Say that an image is calibrated."""
    await rig.publish(
        ImageCalibrated(
            image_id=image_id,
            name=image_id.split(".", maxsplit=1)[0],
            filter="r.MP9601",
            solution_id=solution_id,
            header=_FILE,
            reference=Reference(name="truth", sha256="0" * 64, epoch_year=2016.0),
            n_matched=100,
            residual_ra_mas=5.0,
            residual_dec_mas=5.0,
            rms_ra_mas=8.0,
            rms_dec_mas=8.0,
            distortion_degree=3,
            pixel_scale_arcsec=0.2,
            rotation_deg=0.0,
            start="wcs",
            offset_arcsec=0.1,
        )
    )
