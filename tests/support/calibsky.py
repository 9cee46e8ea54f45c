"""One field with a known sky, its reference catalogue, and measured images of it in the store: for the calib service."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from astropy.io import fits
from spica_calib.science.matching.geometry import pointing_wcs
from spica_calib.science.stars import Stars
from spica_calib.settings import CalibSettings
from spica_calib.warm import warm_up
from spica_imaging.head import parse_head
from spica_imaging.ldac import LdacTable, write_ldac
from spica_imaging.wcs import TpvWcs
from spica_proto.base import Product
from spica_proto.images import ImageCalibrated, ImageGraded, Metrics
from spica_proto.stacks import Grid, StackPlanned

from tests.support.rig import Rig
from tests.support.skies import columns_of, distorted_wcs, make_stars, observe, separation_mas

CENTRE = (214.85, 52.65)
SCALE = 0.188
"""A little off what the profile says."""
SETTINGS = CalibSettings(workers=1, concurrency=2, retry_delays_s=(0.05,), max_attempts=2)


def turn(header: fits.Header, angle_deg: float) -> None:
    """Turn a header's WCS about its reference pixel."""
    c, s = np.cos(np.radians(angle_deg)), np.sin(np.radians(angle_deg))
    cd = np.array([[header[f"CD{row}_{column}"] for column in (1, 2)] for row in (1, 2)])
    for (row, column), value in np.ndenumerate(np.array([[c, -s], [s, c]]) @ cd):
        header[f"CD{row + 1}_{column + 1}"] = float(value)


@cache
def compiled() -> int:
    """Compile the kernels where the cache does not have them: no test should wait for that. Returns the matched stars."""
    return warm_up()


class Sky:
    """One field, its reference catalogue, and images of it in the store."""

    def __init__(self, rig: Rig, folder: Path) -> None:
        assert compiled() > 100
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
            truth = self.truth[f"{name}/{ccd}"] = distorted_wcs(centre, scale_arcsec=SCALE)
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
