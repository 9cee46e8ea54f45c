"""The quality service on real NATS and PostgreSQL."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from spica_imaging.ldac import read_ldac
from spica_proto.base import Pointing, Product
from spica_proto.images import ImageGraded, ImageVerified
from spica_proto.stacks import StackCoadded, StackDone
from spica_quality.service import compose
from spica_quality.settings import QualitySettings
from spica_runtime.storage import sha256_of

from tests.support.rig import Rig
from tests.support.seeding import insert
from tests.unit.quality.frames import draw

SETTINGS = QualitySettings(workers=1, concurrency=1, retry_delays_s=(0.1,), max_attempts=2)
IMAGE_ID = "900001p.0123456789ab"
SCALE_DEG = 0.186 / 3600.0


def tan(nx: int, ny: int) -> fits.Header:
    header = fits.Header()
    header["CTYPE1"], header["CTYPE2"] = "RA---TAN", "DEC--TAN"
    header["CRVAL1"], header["CRVAL2"] = 150.0, 2.0
    header["CRPIX1"], header["CRPIX2"] = 0.5 * (nx + 1), 0.5 * (ny + 1)
    header["CD1_1"], header["CD2_2"] = -SCALE_DEG, SCALE_DEG
    return header


async def insert_image(rig: Rig, product: Product) -> None:
    await rig.pool.execute(
        """INSERT INTO images (image_id, name, sha256, size_bytes, path, profile, instrument, run, filter,
                               exposure_time_s, ra_deg, dec_deg, wcs, n_ccds, header)
           VALUES ($1, '900001p', $2, $3, $4, 'megasim', 'MegaSim', 'run', 'r', 60, 150, 2, 'full', 1, '{}')""",
        IMAGE_ID,
        product.sha256,
        product.size_bytes,
        product.path,
    )


def product_of(rig: Rig, path: Path, kind: str) -> Product:
    return rig.data.product(path, kind)


async def arrive(rig: Rig, defocus: float | None = None) -> ImageVerified:
    """File a drawn frame as ingest would, and say so."""
    sky = draw(n=60, shape=(400, 500), seed=4, defocus=defocus, flux=(3e4, 3e5) if defocus else (3e3, 2e5))
    path = rig.data.path("images/run/r/900001p.fits.fz")
    path.parent.mkdir(parents=True)
    primary = fits.PrimaryHDU()
    primary.header["INSTRUME"] = "MegaSim"
    header = tan(500, 400)
    header["EXTNAME"] = "ccd00"
    counts = np.clip(np.rint(sky.data), 0, 65535).astype(np.uint16)
    fits.HDUList([primary, fits.CompImageHDU(counts, header, compression_type="RICE_1")]).writeto(path)
    file = product_of(rig, path, "image")
    await insert_image(rig, file)
    message = ImageVerified(
        image_id=IMAGE_ID,
        name="900001p",
        file=file,
        profile="megasim",
        instrument="MegaSim",
        run="run",
        filter="r",
        exposure_time_s=60.0,
        pointing=Pointing(ra_deg=150.0, dec_deg=2.0),
        wcs="full",
        n_ccds=1,
        batch="night",
    )
    await rig.publish(message, event_id="verified-1")
    return message


async def test_a_verified_image_is_graded_once_with_all_that_belongs_to_it(rig: Rig) -> None:
    message = await arrive(rig)
    await rig.start("quality", SETTINGS, compose)
    (graded,) = await rig.wait_for(ImageGraded)
    assert graded.grade == "A"
    assert graded.graded_by == "policy:default@2"
    assert (graded.image_id, graded.name, graded.batch) == (IMAGE_ID, "900001p", "night")
    assert graded.metrics.fwhm_px == pytest.approx(4.0, rel=0.03)

    row = await rig.pool.fetchrow("SELECT * FROM measurements")
    assert row["measurement_id"] == graded.measurement_id
    assert (row["subject_kind"], row["subject_id"]) == ("image", IMAGE_ID)
    assert row["metrics"]["n_stars"] == graded.metrics.n_stars > 30
    assert row["per_ccd"][0]["name"] == "ccd00"
    assert row["catalogue_path"] == graded.catalogue.path
    grade = await rig.pool.fetchrow("SELECT * FROM grades")
    assert (grade["grade"], grade["graded_by"]) == ("A", "policy:default@2")
    assert grade["measurement_id"] == graded.measurement_id
    sent = await rig.pool.fetchval("SELECT headers ->> 'ce-id' FROM outbox WHERE subject = 'image.graded'")
    assert grade["grade_id"] == sent
    # What every policy says of it, in the event and on record; and what it was held against.
    said = {verdict.policy: verdict for verdict in graded.verdicts}
    assert (said["default@2"].grade, said["default@2"].reasons) == (graded.grade, graded.reasons)
    assert {"weak_lensing@1", "photometric_calibration@2", "low_surface_brightness@1"} < said.keys()
    rows = await rig.pool.fetch("SELECT * FROM verdicts WHERE measurement_id = $1", graded.measurement_id)
    assert {row["policy"]: row["grade"] for row in rows} == {tag: one.grade for tag, one in said.items()}
    assert row["figures"]["fwhm_px"] == pytest.approx(graded.metrics.fwhm_px)
    configuration = await rig.pool.fetchval("SELECT configuration FROM activities")
    assert configuration["policies"][0]["name"] == "default"
    assert configuration["run"] == {"run": "run", "filter": "r", "figures": {}}

    made = {
        record["path"]
        for record in await rig.pool.fetch(
            "SELECT path FROM products JOIN was_generated_by USING (product_id)"
        )
    }
    named = (
        graded.catalogue,
        graded.weight,
        graded.flag_map,
        graded.psf_model,
        graded.preview,
        graded.report,
    )
    said_of = {product.path for product in (*named, *graded.products) if product is not None}
    assert made == said_of
    assert len(made) == 8
    kept = await rig.pool.fetchval("SELECT products FROM measurements")
    assert set(kept.values()) == made
    used = await rig.pool.fetchval("SELECT path FROM products JOIN used USING (product_id)")
    assert used == message.file.path
    for product in (graded.catalogue, graded.weight, graded.preview):
        assert sha256_of(rig.data.path(product.path)) == product.sha256

    # The same image announced once more: one more grade event, the same measurement.
    await rig.publish(message, event_id="verified-2")
    again = await rig.wait_for(ImageGraded, count=2)
    assert again[1] == again[0]
    assert await rig.pool.fetchval("SELECT count(*) FROM measurements") == 1
    assert await rig.pool.fetchval("SELECT count(*) FROM grades") == 2
    assert await rig.pool.fetchval("SELECT count(*) FROM verdicts") == 2 * len(said)


async def test_an_image_is_held_against_its_run(rig: Rig) -> None:
    """Twelve others were measured before, all far sharper: what is an A by itself is none in this night."""
    await arrive(rig)
    for number in range(12):
        await insert(
            rig,
            "images",
            {"image_id": f"other{number}", "name": f"o{number}", "sha256": "0" * 64, "size_bytes": 1, "path": "p",
             "profile": "megasim", "instrument": "MegaSim", "run": "run", "filter": "r", "exposure_time_s": 60.0,
             "ra_deg": 150.0, "dec_deg": 2.0, "wcs": "full", "n_ccds": 1, "header": {}},
        )  # fmt: skip
        await insert(
            rig,
            "measurements",
            {"measurement_id": f"m{number}", "subject_kind": "image", "subject_id": f"other{number}", "metrics": {},
             "figures": {"fwhm_arcsec": 0.4 + 0.01 * (number % 2)}, "catalogue_path": "c", "weight_path": "w",
             "preview_path": "p"},
        )  # fmt: skip
    await rig.start("quality", SETTINGS, compose)
    (graded,) = await rig.wait_for(ImageGraded)
    (reason,) = graded.reasons
    assert (graded.grade, reason.code) == ("B", "poor_seeing")
    assert "σ above this run" in reason.message
    assert "in 12 images" in reason.message
    configuration = await rig.pool.fetchval("SELECT configuration FROM activities")
    assert configuration["run"]["figures"]["fwhm_arcsec"]["n_images"] == 12


async def test_an_image_out_of_focus_is_d_and_says_why(rig: Rig) -> None:
    await arrive(rig, defocus=9.0)
    await rig.start("quality", SETTINGS, compose)
    (graded,) = await rig.wait_for(ImageGraded)
    assert graded.grade == "D"
    assert "out_of_focus" in {reason.code for reason in graded.reasons}
    reasons = await rig.pool.fetchval("SELECT reasons FROM grades")
    assert reasons[0]["found"]
    assert await rig.pool.fetchval("SELECT count(*) FROM dead_letters") == 0


async def test_a_file_that_cannot_be_read_any_more_is_a_dead_letter_with_its_name(rig: Rig) -> None:
    path = rig.data.path("images/run/r/900001p.fits.fz")
    path.parent.mkdir(parents=True)
    path.write_bytes(b"not FITS" * 1000)
    file = product_of(rig, path, "image")
    await insert_image(rig, file)
    await rig.publish(
        ImageVerified(
            image_id=IMAGE_ID,
            name="900001p",
            file=file,
            profile="megasim",
            instrument="MegaSim",
            run="run",
            filter="r",
            exposure_time_s=60.0,
            pointing=Pointing(ra_deg=150.0, dec_deg=2.0),
            wcs="full",
            n_ccds=1,
        )
    )
    await rig.start("quality", SETTINGS, compose)
    assert await rig.until("SELECT code FROM dead_letters", timeout_s=60) == "unreadable_frame"
    assert await rig.pool.fetchval("SELECT count(*) FROM measurements") == 0


async def insert_stack(rig: Rig) -> None:
    await rig.pool.execute(
        """INSERT INTO stacks (stack_id, request_id, name, filter, state, request, requested_at, grid, combine)
           VALUES ('s1', 'r1', 'deep', 'r', 'coadded', '{}', now(), '{}', 'clipped_mean')"""
    )


async def coadd(rig: Rig) -> StackCoadded:
    sky = draw(n=150, shape=(500, 600), seed=6)
    folder = rig.data.path("stacks/s1")
    folder.mkdir(parents=True)
    weight = np.full(sky.data.shape, 0.4, np.float32)
    weight[:, :30] = 0.0
    header = tan(600, 500)
    pixels = np.where(weight > 0, sky.data - np.float32(300.0), np.float32(0.0))
    fits.PrimaryHDU(pixels, header).writeto(folder / "deep.fits")
    fits.PrimaryHDU(weight, header).writeto(folder / "deep.weight.fits")
    await insert_stack(rig)
    message = StackCoadded(
        stack_id="s1",
        name="deep",
        filter="r",
        image=product_of(rig, folder / "deep.fits", "image"),
        weight=product_of(rig, folder / "deep.weight.fits", "weight"),
        n_exposures=3,
        exposure_time_s=180.0,
        zeropoint_mag=30.0,
    )
    await rig.publish(message)
    return message


async def test_a_coadded_stack_is_done_measured_graded_and_searchable(rig: Rig) -> None:
    message = await coadd(rig)
    await rig.start("quality", SETTINGS, compose)
    (done,) = await rig.wait_for(StackDone)
    assert (done.stack_id, done.request_id, done.grade) == ("s1", "r1", "A")
    assert done.image == message.image
    assert done.metrics.limiting_mag is not None
    assert 20.0 < done.metrics.limiting_mag < 25.0

    stack = await rig.pool.fetchrow("SELECT * FROM stacks")
    assert stack["state"] == "done"
    assert stack["result"]["done"]["grade"] == "A"
    assert stack["result"]["done"]["catalogue"]["path"] == done.catalogue.path
    (table,) = read_ldac(rig.data.path(done.catalogue.path))
    rows = await rig.pool.fetch("SELECT * FROM sources ORDER BY number")
    assert len(rows) == len(table) == done.metrics.n_sources > 130
    assert rows[0]["ra_deg"] == pytest.approx(table.columns["ALPHA_J2000"][0])
    assert rows[0]["mag_auto"] == pytest.approx(float(table.columns["MAG_AUTO"][0]), abs=1e-4)
    near = await rig.pool.fetchval(
        "SELECT count(*) FROM sources WHERE dec_deg BETWEEN 1.98 AND 2.02 AND ra_deg BETWEEN 149.98 AND 150.02"
    )
    assert near == len(rows)
    grade = await rig.pool.fetchrow("SELECT * FROM grades")
    assert (grade["subject_kind"], grade["subject_id"], grade["grade"]) == ("stack", "s1", "A")


async def test_a_stack_measured_again_replaces_its_sources_and_stays_exported(rig: Rig) -> None:
    message = await coadd(rig)
    await rig.start("quality", SETTINGS, compose)
    await rig.wait_for(StackDone)
    n = await rig.pool.fetchval("SELECT count(*) FROM sources")
    await rig.pool.execute("UPDATE stacks SET state = 'exported'")
    await rig.publish(message)
    first, second = await rig.wait_for(StackDone, count=2)
    assert first == second
    assert await rig.pool.fetchval("SELECT count(*) FROM sources") == n
    assert await rig.pool.fetchval("SELECT state FROM stacks") == "exported"


async def test_a_stack_that_nobody_planned_is_a_dead_letter(rig: Rig) -> None:
    product = Product(path="stacks/x/x.fits", sha256="0" * 64, size_bytes=1, kind="image")
    await rig.publish(
        StackCoadded(
            stack_id="x",
            name="x",
            filter="r",
            image=product,
            weight=product,
            n_exposures=1,
            exposure_time_s=1.0,
            zeropoint_mag=30.0,
        )
    )
    await rig.start("quality", SETTINGS, compose)
    assert await rig.until("SELECT code FROM dead_letters", timeout_s=60) == "unknown_stack"
