"""A job that needs more of the sky than was prepared gets it, and does not wait for ever."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from spica_calib.errors import CalibrationFailed, ReferenceUnavailable
from spica_calib.jobs import JointJob, Limits
from spica_calib.reference.file import identify
from spica_calib.settings import CalibSettings
from spica_calib.sky import Sky
from spica_runtime.compute import Compute


def job_in(folder: Path) -> JointJob:
    return JointJob(
        "s",
        "s",
        (),
        None,
        identify(folder / "stars"),
        None,
        Limits(-6, None, 9),
        {},
        {},
        "spica",
        folder / "tried",
    )


def hungry(job: JointJob) -> int:
    """Has enough at the second attempt, as it counts them in a file."""
    tried = job.page.stat().st_size if job.page.exists() else 0
    job.page.write_bytes(b"x" * (tried + 1))
    if tried < 1:
        raise ReferenceUnavailable(
            "reference_area", "more", {"ra_deg": 1.0, "dec_deg": 2.0, "radius_deg": 3.0}
        )
    return tried


def never_enough(job: JointJob) -> int:
    """As it says."""
    raise ReferenceUnavailable("reference_area", "more", {"ra_deg": 1.0, "dec_deg": 2.0, "radius_deg": 3.0})


def unreadable(job: JointJob) -> int:
    """Another trouble."""
    raise ReferenceUnavailable("reference_unreadable", "no stars")


@pytest.fixture
async def sky(tmp_path: Path) -> AsyncIterator[tuple[Sky, Compute]]:
    (tmp_path / "stars").write_text("x")
    made = Sky(CalibSettings(reference=tmp_path / "stars"), tmp_path), Compute(1)
    yield made
    made[1].close()
    await made[0].close()


async def test_more_of_the_sky_is_fetched_where_it_is_needed(
    sky: tuple[Sky, Compute], tmp_path: Path
) -> None:
    source, compute = sky
    job, tried = await source.run(compute, hungry, job_in(tmp_path), [(1.0, 2.0, 0.1)])
    assert (tried, job.stack_id) == (1, "s")
    with pytest.raises(CalibrationFailed) as failed:
        await source.run(compute, never_enough, job_in(tmp_path), [(1.0, 2.0, 0.1)])
    assert failed.value.code == "reference_area"
    assert failed.value.numbers == {"n_cones": 4}
    with pytest.raises(ReferenceUnavailable) as waits:
        await source.run(compute, unreadable, job_in(tmp_path), [])
    assert waits.value.code == "reference_unreadable"
