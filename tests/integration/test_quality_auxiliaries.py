"""An image waits for the master flat and mask that ingest is fetching, uses them, or does without and says so."""

from __future__ import annotations

import asyncio

import numpy as np
from astropy.io import fits
from spica_proto.base import Product
from spica_proto.images import ImageGraded
from spica_quality.service import compose

from tests.integration.test_quality import IMAGE_ID, SETTINGS, arrive
from tests.support.rig import Rig

MASK = "2003A.mask.0.36.02"


async def name_mask(rig: Rig, state: str) -> None:
    await rig.pool.execute(
        """INSERT INTO auxiliaries (kind, name, state, keyword, image_id, uris, asked_at)
           VALUES ('mask', $1, $2, 'IMRED_MK', $3, '{}', now())""",
        MASK, state, IMAGE_ID,
    )  # fmt: skip
    await rig.pool.execute("INSERT INTO image_auxiliaries VALUES ($1, 'mask', $2)", IMAGE_ID, MASK)


async def bring_mask(rig: Rig) -> Product:
    path = rig.data.path(f"auxiliary/mask/{MASK}.fits")
    path.parent.mkdir(parents=True)
    plane = np.ones((400, 500), np.int16)
    plane[100:120, 200:260] = 0
    fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(plane)]).writeto(path)
    product = rig.data.product(path, "mask")
    await rig.pool.execute(
        "UPDATE auxiliaries SET state = 'here', path = $1, sha256 = $2, size_bytes = $3",
        product.path, product.sha256, product.size_bytes,
    )  # fmt: skip
    return product


async def log_of(rig: Rig) -> str:
    return str(
        await rig.pool.fetchval("SELECT log FROM activities WHERE about = $1 AND name = 'verified'", IMAGE_ID)
    )


async def test_an_image_waits_for_its_mask_and_uses_it(rig: Rig) -> None:
    await arrive(rig)
    await name_mask(rig, "wanted")
    await rig.start("quality", SETTINGS.model_copy(update={"auxiliary_wait_s": 60.0}), compose)
    await asyncio.sleep(1.5)
    assert await rig.events(ImageGraded) == []
    mask = await bring_mask(rig)
    (graded,) = await rig.wait_for(ImageGraded, timeout_s=90)
    assert await rig.pool.fetchval("SELECT count(*) FROM dead_letters") == 0
    used = {
        row["path"] for row in await rig.pool.fetch("SELECT path FROM products JOIN used USING (product_id)")
    }
    assert mask.path in used
    assert "mask: bad pixels are zero" in await log_of(rig)
    with fits.open(rig.data.path(graded.weight.path)) as weights:
        assert not weights[1].data[100:120, 200:260].any()
        assert weights[1].data[130:150, 200:260].any()


async def test_one_that_does_not_come_is_done_without(rig: Rig) -> None:
    await arrive(rig)
    await name_mask(rig, "wanted")
    await rig.start("quality", SETTINGS.model_copy(update={"auxiliary_wait_s": 0.0}), compose)
    await rig.wait_for(ImageGraded)
    assert f"measured without the mask {MASK}: it was not here within 0 s" in await log_of(rig)
    assert await rig.pool.fetchval("SELECT count(*) FROM used") == 1
