"""The calib service on real NATS and PostgreSQL: graded images in, solutions out."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.io import fits
from spica_calib.reference.area import ReferenceArea
from spica_calib.reference.file import identify
from spica_calib.science.matching.frame import pointing_wcs
from spica_calib.science.stars import Stars
from spica_calib.service import compose
from spica_calib.settings import CalibSettings
from spica_imaging.head import parse_head
from spica_imaging.ldac import LdacTable, write_ldac
from spica_imaging.wcs import TpvWcs
from spica_proto.base import Product
from spica_proto.images import ImageCalibrated, ImageFailed, ImageGraded, Metrics
from spica_proto.stacks import Grid, StackCalibrated, StackPlanned
from spica_runtime.storage import sha256_of

from tests.support.rig import Rig
from tests.support.skies import (
    ZEROPOINT,
    columns_of,
    distorted_wcs,
    make_stars,
    observe,
    separation_mas,
    shuffled,
)

CENTRE = (214.85, 52.65)
SETTINGS = CalibSettings(workers=1, concurrency=2, retry_delays_s=(0.05,), max_attempts=2)


def turn(header: fits.Header, angle_deg: float) -> None:
    """Turn a header's WCS about its reference pixel."""
    c, s = np.cos(np.radians(angle_deg)), np.sin(np.radians(angle_deg))
    cd = np.array([[header[f"CD{row}_{column}"] for column in (1, 2)] for row in (1, 2)])
    for (row, column), value in np.ndenumerate(np.array([[c, -s], [s, c]]) @ cd):
        header[f"CD{row + 1}_{column + 1}"] = float(value)


class Sky:
    """One field, its reference catalogue, and images of it in the store."""

    def __init__(self, rig: Rig, folder: Path) -> None:
        self.rig, self.rng = rig, np.random.default_rng(20050)
        self.stars = make_stars(self.rng, 900, CENTRE, 0.08)
        self.reference = folder / "stars.parquet"
        self.truth: dict[str, TpvWcs] = {}

    def settings(self) -> CalibSettings:
        return SETTINGS.model_copy(update={"reference": self.reference})

    def write_reference(self, stars: Stars | None = None) -> None:
        stars = stars or self.stars
        columns = {"ra_deg": stars.ra_deg, "dec_deg": stars.dec_deg, "mag_r": stars.mags["r"]}
        pq.write_table(pa.table(columns), self.reference)

    async def image(
        self, name: str, *, wcs: str = "full", dither: float = 0.0, grade: str = "A", turned_deg: float = 0.0
    ) -> ImageGraded:
        """A two-CCD exposure: catalogue on disk, rows in the store; returns the event that says it is graded."""
        image_id = f"{name}.0123456789ab"
        folder = self.rig.data.path(f"quality/{image_id}")
        folder.mkdir(parents=True, exist_ok=True)
        tables, names = [], ("ccd00", "ccd01")
        for number, ccd in enumerate(names):
            side = -0.03 if number == 0 else 0.03
            centre = pointing_wcs(*CENTRE, 1, 1, 1.0, 0.0, False).moved(side + dither, dither).crval
            truth = self.truth[f"{name}/{ccd}"] = distorted_wcs(centre)
            assumed = truth.moved(1e-3, 5e-4)
            scene = observe(self.rng, self.stars, truth, assumed, name=ccd)
            header = fits.Header([("NAXIS1", 1024), ("NAXIS2", 1024), ("EXTNAME", ccd)])
            if wcs == "full":
                header.update(replace(assumed, pv1=(0.0, 1.0), pv2=(0.0, 1.0)).to_header())
                turn(header, turned_deg)
            tables.append(LdacTable(header, columns_of(scene)))
        path = folder / f"{name}.ldac"
        write_ldac(path, tables)
        measurement_id = f"m-{name}"
        await self._rows(name, image_id, names, wcs, measurement_id, path)
        product = self.rig.data.product(path, "catalogue")
        other = Product(path="quality/x", sha256="0" * 64, size_bytes=0, kind="weight")
        return ImageGraded(
            image_id=image_id,
            name=name,
            grade=grade,  # type: ignore[arg-type]
            graded_by="policy:test@1",
            measurement_id=measurement_id,
            metrics=Metrics(limiting_flux_adu=100.0),
            catalogue=product,
            weight=other,
            preview=other,
            batch="night",
        )

    async def _rows(
        self, name: str, image_id: str, ccds: tuple[str, ...], wcs: str, measurement_id: str, path: Path
    ) -> None:
        pool = self.rig.pool
        await pool.execute(
            """INSERT INTO images (image_id, name, sha256, size_bytes, path, profile, instrument, run, filter,
                   exposure_time_s, mjd_obs, ra_deg, dec_deg, wcs, n_ccds, header)
               VALUES ($1, $2, $3, 1, 'images/x', 'megasim', 'MegaSim', 'run', 'r.SIM', 60.0, 60980.0, $4, $5, $6, 2, $7)""",
            image_id, name, "a" * 64, *CENTRE, wcs, {"FILTER": "r.SIM"},
        )  # fmt: skip
        for hdu, ccd in enumerate(ccds, start=1):
            await pool.execute(
                "INSERT INTO ccds (image_id, hdu, name, naxis1, naxis2, header) VALUES ($1, $2, $3, 1024, 1024, '{}')",
                image_id, hdu, ccd,
            )  # fmt: skip
        await pool.execute(
            """INSERT INTO measurements (measurement_id, subject_kind, subject_id, metrics, per_ccd, catalogue_path,
                   weight_path, preview_path) VALUES ($1, 'image', $2, $3, '[]', $4, 'w', 'p')""",
            measurement_id, image_id, {"limiting_flux_adu": 100.0}, path.relative_to(self.rig.data.root).as_posix(),
        )  # fmt: skip

    def off_mas(self, head: Path, name: str) -> float:
        """Largest error of a `.head` file's solution."""
        blocks = parse_head(head.read_text())
        return max(
            separation_mas(TpvWcs.from_header(block), self.truth[f"{name}/{block['EXTNAME']}"])
            for block in blocks
        )


@pytest.fixture
def sky(rig: Rig, tmp_path: Path) -> Sky:
    return Sky(rig, tmp_path)


async def test_a_plausible_but_wrong_wcs_is_solved_from_the_pointing(rig: Rig, sky: Sky) -> None:
    sky.write_reference()
    await rig.start("calib", sky.settings(), compose)
    await rig.publish(await sky.image("100p", turned_deg=20.0))
    (event,) = await rig.wait_for(ImageCalibrated)
    assert event.start == "pointing"
    assert sky.off_mas(rig.data.path(event.header.path), "100p") < 50


async def test_images_are_calibrated_once_and_only_if_fit_for_use(rig: Rig, sky: Sky) -> None:
    sky.write_reference()
    await rig.start("calib", sky.settings(), compose)
    full, rough = await sky.image("100p"), await sky.image("101p", wcs="pointing")
    bad = await sky.image("102p", grade="D")
    for message in (full, rough, bad):
        await rig.publish(message)
    found = {event.name: event for event in await rig.wait_for(ImageCalibrated, count=2)}
    assert {name: event.start for name, event in found.items()} == {"100p": "wcs", "101p": "pointing"}
    for name, event in found.items():
        path = rig.data.path(event.header.path)
        assert sha256_of(path) == event.header.sha256
        assert sky.off_mas(path, name) < 50
        assert event.zeropoint_mag == pytest.approx(ZEROPOINT, abs=0.01)
        assert event.n_matched > 100
        assert event.rms_ra_mas < 15
        assert event.distortion_degree == 3
        assert event.limiting_mag == pytest.approx(ZEROPOINT - 2.5 * np.log10(100 / 60), abs=0.01)
        assert event.reference.sha256 == sha256_of(sky.reference)
        assert event.reference.epoch_year == pytest.approx(2025.83, abs=0.01)
        assert event.batch == "night"
    row = await rig.pool.fetchrow("SELECT * FROM solutions WHERE image_id = $1", full.image_id)
    assert row is not None
    assert row["solution_id"] == found["100p"].solution_id
    assert row["quality"]["measurement_id"] == "m-100p"
    assert row["flux_scale"] == pytest.approx(10 ** (0.4 * (30 - row["zeropoint_mag"])) / 60)
    assert (await outcome(rig, bad)).startswith("grade D")

    # A person thinks better of the bad one, and again of a good one: only the first is work.
    await rig.publish(bad.model_copy(update={"grade": "B", "graded_by": "person:ann"}))
    await rig.wait_for(ImageCalibrated, where=lambda event: event.name == "102p")
    await rig.publish(full.model_copy(update={"grade": "C", "graded_by": "person:ann"}))
    await rig.until(
        "SELECT count(*) FROM activities WHERE about = $1 AND outcome LIKE 'measurement already calibrated%'",
        full.image_id,
    )
    assert len(await rig.events(ImageCalibrated)) == 3
    assert await rig.pool.fetchval("SELECT count(*) FROM solutions") == 3


async def outcome(rig: Rig, message: ImageGraded) -> str:
    text: str = await rig.until("SELECT outcome FROM activities WHERE about = $1", message.image_id)
    return text


async def test_without_reference_images_wait_and_then_go_on(
    rig: Rig, sky: Sky, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("spica_runtime.dispatch._UNAVAILABLE_DELAY_S", 0.1)
    asked = 0

    def counting(path: Path | None, *more: Any) -> ReferenceArea:
        nonlocal asked
        asked += 1
        return identify(path, *more)

    monkeypatch.setattr("spica_calib.reference.source.identify", counting)
    await rig.start("calib", sky.settings(), compose)
    message = await sky.image("100p")
    await rig.publish(message)
    async with asyncio.timeout(20):
        while asked < 5:  # more than max_attempts
            await asyncio.sleep(0.05)
    assert await rig.events(ImageFailed) == []
    sky.write_reference()
    (event,) = await rig.wait_for(ImageCalibrated)
    assert event.image_id == message.image_id


async def test_another_sky_is_refused_with_the_numbers(rig: Rig, sky: Sky) -> None:
    sky.write_reference(shuffled(sky.rng, sky.stars))
    await rig.start("calib", sky.settings(), compose)
    message = await sky.image("100p", wcs="pointing")
    await rig.publish(message)
    (failed,) = await rig.wait_for(ImageFailed)
    assert (failed.stage, failed.code, failed.attempts) == ("calib", "no_match", 1)
    assert failed.image_id == message.image_id
    assert {"n_sources", "n_reference", "limit_log10_false_match"} <= set(failed.numbers)
    assert await rig.pool.fetchval("SELECT count(*) FROM solutions") == 0


async def test_members_of_a_stack_are_solved_together_once(rig: Rig, sky: Sky) -> None:
    sky.write_reference()
    await rig.start("calib", sky.settings(), compose)
    images = [await sky.image(f"{100 + k}p", dither=0.002 * k) for k in range(3)]
    for message in images:
        await rig.publish(message)
    single = {event.image_id: event for event in await rig.wait_for(ImageCalibrated, count=3)}
    planned = await plan(rig, [message.image_id for message in images], single)
    await rig.publish(planned, event_id="first")
    (event,) = await rig.wait_for(StackCalibrated)
    assert event.n_members == 3
    assert event.n_internal_matches > 150
    assert event.internal_rms_ra_mas == pytest.approx(6.0, rel=0.3)
    assert event.flux_scatter_mag == pytest.approx(0.007, rel=0.5)
    rows = await rig.pool.fetch("SELECT * FROM solutions WHERE stack_id = 's1' ORDER BY image_id")
    assert [row["image_id"] for row in rows] == [message.image_id for message in images]
    for row, message in zip(rows, images, strict=True):
        assert sky.off_mas(rig.data.path(row["header_path"]), message.name) < 40
        assert row["zeropoint_mag"] == pytest.approx(ZEROPOINT, abs=0.01)
        assert row["quality"]["flux_scale"] == "absolute"
    assert await rig.pool.fetchval("SELECT state FROM stacks") == "calibrated"

    await rig.publish(planned, event_id="again")
    await rig.until("SELECT count(*) FROM activities WHERE outcome = 'stack is calibrated already'")
    assert len(await rig.events(StackCalibrated)) == 1


async def plan(rig: Rig, image_ids: list[str], single: dict[str, ImageCalibrated]) -> StackPlanned:
    """What the stack service leaves in the store when it has planned."""
    grid = Grid(
        crval_ra_deg=CENTRE[0],
        crval_dec_deg=CENTRE[1],
        crpix_x=1000.5,
        crpix_y=1000.5,
        pixel_scale_arcsec=0.2,
        width_px=2000,
        height_px=2000,
    )
    await rig.pool.execute(
        """INSERT INTO stacks (stack_id, request_id, name, filter, state, request, requested_at, grid, combine)
           VALUES ('s1', 'r1', 'stack', 'r.SIM', 'planned', '{}', now(), $1, 'median')""",
        grid.model_dump(),
    )
    for ordinal, image_id in enumerate(image_ids):
        await rig.pool.execute(
            """INSERT INTO stack_members (stack_id, image_id, ordinal, selected, rule, solution_id)
               VALUES ('s1', $1, $2, true, 'all', $3)""",
            image_id, ordinal, single[image_id].solution_id,
        )  # fmt: skip
    return StackPlanned(
        stack_id="s1",
        request_id="r1",
        name="stack",
        filter="r.SIM",
        image_ids=tuple(image_ids),
        n_left_out=0,
        grid=grid,
        combine="median",
    )
