"""Rows as ingest, quality and calib would have left them, for exposures with known truth."""

from __future__ import annotations

from typing import Any

from spica_proto.envelope import derived_id
from spica_runtime.storage import sha256_of

from tests.support.rig import Rig
from tests.unit.stack.field import Exposure


async def seed_image(
    rig: Rig, exposure: Exposure, *, grade: str = "A", calibrated: bool = True, **changes: Any
) -> str:
    """Write one image with its CCDs, measurement, grade and own solution. Returns its image_id."""
    files = exposure.files
    name = files.image.name.split(".")[0]
    sha256 = sha256_of(files.image)
    image: dict[str, Any] = {
        "image_id": f"{name}.{sha256[:12]}",
        "name": name,
        "sha256": sha256,
        "size_bytes": files.image.stat().st_size,
        "path": files.image.relative_to(rig.data.root).as_posix(),
        "profile": files.profile,
        "instrument": "TestCam",
        "run": "run1",
        "filter": "r.MP9601",
        "object": "F1",
        "exposure_time_s": files.exposure_time_s,
        "mjd_obs": files.mjd_obs,
        "airmass": 1.2,
        "ra_deg": 214.0,
        "dec_deg": 52.5,
        "wcs": "full",
        "n_ccds": len(exposure.sizes),
        "batch": "b1",
        "header": {},
    } | changes
    await insert(rig, "images", image)
    image_id = str(image["image_id"])
    for hdu, size in enumerate(exposure.sizes, 1):
        await insert(
            rig,
            "ccds",
            {
                "image_id": image_id,
                "hdu": hdu,
                "name": size.name,
                "naxis1": size.nx,
                "naxis2": size.ny,
                "header": {},
            },
        )
    await insert(
        rig,
        "measurements",
        {
            "measurement_id": f"m-{image_id}",
            "subject_kind": "image",
            "subject_id": image_id,
            "metrics": {"fwhm_arcsec": files.fwhm_arcsec, "ellipticity": 0.03},
            "catalogue_path": "none.ldac",
            "weight_path": files.weight.relative_to(rig.data.root).as_posix(),
            "preview_path": "none.png",
        },
    )
    await seed_grade(rig, image_id, grade, "policy:default@1")
    if calibrated:
        await seed_solution(rig, exposure, image_id, None)
    return image_id


async def seed_grade(rig: Rig, image_id: str, grade: str, by: str) -> None:
    """One more grade."""
    number = await rig.pool.fetchval("SELECT count(*) FROM grades")
    await insert(
        rig,
        "grades",
        {
            "grade_id": f"g{number}",
            "subject_kind": "image",
            "subject_id": image_id,
            "grade": grade,
            "graded_by": by,
        },
    )


async def seed_solution(rig: Rig, exposure: Exposure, image_id: str, stack_id: str | None) -> None:
    """The image's own solution, or its part in the joint one of a stack."""
    await insert(
        rig,
        "solutions",
        {
            "solution_id": derived_id("solution", image_id, stack_id),
            "image_id": image_id,
            "stack_id": stack_id,
            "header_path": exposure.files.head.relative_to(rig.data.root).as_posix(),
            "reference_name": "truth",
            "reference_sha256": "0" * 64,
            "zeropoint_mag": 25.0,
            "flux_scale": exposure.files.flux_scale,
            "quality": {},
        },
    )


async def insert(rig: Rig, table: str, row: dict[str, Any]) -> None:
    """One row."""
    columns, places = ", ".join(row), ", ".join(f"${index}" for index in range(1, len(row) + 1))
    await rig.pool.execute(f"INSERT INTO {table} ({columns}) VALUES ({places})", *row.values())
