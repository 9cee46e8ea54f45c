"""A store full of images as an observatory has them: deep fields, surveys, programmes anywhere, clustered in time."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import asyncpg
import numpy as np
from numpy.typing import NDArray
from spica_imaging.skycells import (
    cell_of,
    cell_radius_rad,
    order_for,
    points_in_cells,
    uniq,
    unit_vectors,
)
from spica_ingest.science.columns import VERSION
from spica_ingest.science.place import MAS_PER_DEG

Floats = NDArray[np.float64]

FILTERS = ("u.MP9301", "g.MP9401", "r.MP9601", "i.MP9702", "z.MP9801", "CaHK.MP9303")
_SHARES = (0.1, 0.2, 0.3, 0.27, 0.12, 0.01)
_FIRST_MJD, _DAYS, _RUNS = 52_700, 6_200, 400
_CHUNK = 20_000


@dataclass(frozen=True, slots=True)
class Camera:
    """CCDs on the tangent plane: (n, 4, 2) in degrees."""

    name: str
    share: float
    ccds: Floats

    @property
    def radius_deg(self) -> float:
        """From the middle to the furthest corner."""
        return float(np.hypot(self.ccds[..., 0], self.ccds[..., 1]).max())

    @property
    def reach(self) -> tuple[float, float]:
        """Sines of how far it reaches to either side, and up or down."""
        east, north = np.radians(np.abs(self.ccds).max(axis=(0, 1)))
        return math.sin(math.atan(east)) + 1e-8, math.sin(math.atan(north)) + 1e-8


def _mosaic(columns: int, rows: int, width: float, height: float, gap: float, within: float = 1e9) -> Floats:
    """CCDs in a grid, those whose middle is within a circle."""
    x, y = np.meshgrid(
        (np.arange(columns) - (columns - 1) / 2) * (width + gap),
        (np.arange(rows) - (rows - 1) / 2) * (height + gap),
    )
    middles = np.stack([x.ravel(), y.ravel()], axis=-1)
    middles = middles[np.hypot(*middles.T) <= within]
    corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * [width / 2, height / 2]
    return np.asarray(middles[:, None] + corners)


CAMERAS = (
    Camera("MegaPrime", 0.75, _mosaic(9, 4, 0.105, 0.236, 0.004)),
    Camera("DECam", 0.15, _mosaic(8, 13, 0.29, 0.145, 0.014, within=0.98)),
    Camera("Imager", 0.10, _mosaic(1, 1, 0.22, 0.17, 0.0)),
)


@dataclass(frozen=True)
class Sky:
    """What the images are. Arrays of one length; number i + 1 is the one at i."""

    ra_deg: Floats
    dec_deg: Floats
    mjd: Floats
    camera: NDArray[np.int64]
    filter: NDArray[np.int64]
    run: NDArray[np.int64]
    seeing_arcsec: Floats
    """NaN: not known."""
    airmass: Floats

    @cached_property
    def centres(self) -> Floats:
        """Directions (n, 3)."""
        return unit_vectors(self.ra_deg, self.dec_deg)

    @cached_property
    def radii_rad(self) -> Floats:
        """Reach of each."""
        return np.radians(np.array([camera.radius_deg for camera in CAMERAS]))[self.camera] + 1e-8


def make_sky(count: int, seed: int = 20030101) -> Sky:
    """Sequences of some eight dithered exposures of one field: 30 % of them of forty deep fields (some with tens of
    thousands of exposures), 40 % of the tiles of surveys, the rest anywhere."""
    chance = np.random.default_rng(seed)
    lengths = chance.geometric(1 / 8, count)
    sequence = np.repeat(np.arange(count), lengths)[:count]
    number = int(sequence[-1]) + 1
    kind = chance.choice(3, number, p=(0.3, 0.4, 0.3))
    place = chance.normal(size=(number, 3))
    place /= np.linalg.norm(place, axis=1)[:, None]
    ra = np.degrees(np.arctan2(place[:, 1], place[:, 0])) % 360
    dec = np.degrees(np.arcsin(place[:, 2]))
    field = np.minimum(chance.geometric(0.08, number) - 1, 39)
    field_ra, field_dec = chance.uniform(0, 360, 40), np.degrees(np.arcsin(chance.uniform(-1, 1, 40)))
    field_dec[:3], field_ra[3] = (89.7, -89.5, 0.0), 359.97  # poles, and where right ascension begins again
    deep, tile = kind == 0, kind == 1
    dec = np.where(deep, field_dec[field], np.where(tile, np.clip(np.rint(dec / 2.5), -10, 24) * 2.5, dec))
    ra = np.where(deep, field_ra[field], np.where(tile, np.rint(ra / 3) * 3, ra))
    dither = chance.normal(0, 0.05, (2, count)) * np.where(deep, 1.0, 0.3)[sequence]
    dec = dec[sequence] + dither[1]
    over = np.abs(dec) > 90
    dec = np.where(over, np.sign(dec) * 180 - dec, dec)
    ra = (ra[sequence] + dither[0] / np.maximum(np.cos(np.radians(dec)), 1e-3) + 180 * over) % 360
    runs = chance.integers(0, _RUNS, number)
    begun = np.sort((runs + chance.uniform(0, 1, number) ** 2) * _DAYS / _RUNS)
    since_begun = np.arange(count) - np.searchsorted(sequence, sequence)
    mjd = _FIRST_MJD + begun[sequence] + since_begun * 320 / 86_400
    order = np.argsort(mjd, kind="stable")  # as they were taken in
    seeing = (0.45 + chance.gamma(3.0, 0.13, number))[sequence] * chance.normal(1, 0.05, count)
    return Sky(
        ra_deg=ra[order],
        dec_deg=dec[order],
        mjd=mjd[order],
        camera=chance.choice(len(CAMERAS), number, p=[camera.share for camera in CAMERAS])[sequence][order],
        filter=chance.choice(len(FILTERS), number, p=_SHARES)[sequence][order],
        run=np.minimum(_RUNS - 1, begun * _RUNS / _DAYS).astype(np.int64)[sequence][order],
        seeing_arcsec=np.where(chance.uniform(size=count) < 0.9, seeing, np.nan)[order],
        airmass=(1 + chance.exponential(0.18, number))[sequence][order] + 0.002 * since_begun[order],
    )


def corners_of(sky: Sky, which: NDArray[np.int64], camera: Camera) -> Floats:
    """Corners of all CCDs of these images of one camera: (n, ccds, 4, 2), ra and dec in degrees."""
    flat = np.radians(camera.ccds)
    own = np.concatenate([np.ones((*flat.shape[:-1], 1)), flat], axis=-1)
    own /= np.linalg.norm(own, axis=-1, keepdims=True)
    ra, dec = np.radians(sky.ra_deg[which]), np.radians(sky.dec_deg[which])
    outward = sky.centres[which]
    east = np.stack([-np.sin(ra), np.cos(ra), 0 * ra], axis=-1)
    north = np.stack([-np.sin(dec) * np.cos(ra), -np.sin(dec) * np.sin(ra), np.cos(dec)], axis=-1)
    axes = np.stack([outward, east, north], axis=1)
    vectors = np.einsum("cki,nij->nckj", own, axes)
    return np.stack(
        [
            np.degrees(np.arctan2(vectors[..., 1], vectors[..., 0])) % 360,
            np.degrees(np.arcsin(np.clip(vectors[..., 2], -1, 1))),
        ],
        axis=-1,
    )


def packed(corners: Floats) -> NDArray[np.int32]:
    """Corners as the store keeps them."""
    return np.rint(corners * MAS_PER_DEG).astype("<i4")


def cells_in_bulk(sky: Sky) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Pairs (cell, index of image): all cells that each image's circle touches, for thousands at a time."""
    centres, radii = sky.centres, sky.radii_rad
    for number, camera in enumerate(CAMERAS):
        order = order_for(2 * camera.radius_deg)
        homes = cell_of(centres, order)
        used, home = np.unique(homes, return_inverse=True)
        near = _neighbours(used, order, float(np.radians(camera.radius_deg)))
        radius = radii[sky.camera == number][0]
        middles = points_in_cells(np.arange(12 << (2 * order)), order)
        for part in np.array_split(np.flatnonzero(sky.camera == number), max(1, len(sky.mjd) // _CHUNK)):
            cells = near[home[part]]
            cosines = np.einsum("nci,ni->nc", middles[cells], centres[part])
            touched = cosines >= np.cos(radius)
            # Those that only their edge may touch, by their sixteen parts.
            rows, columns = np.nonzero(~touched & (cosines >= np.cos(radius + cell_radius_rad(order))))
            finer = points_in_cells(cells[rows, columns][:, None] * 16 + np.arange(16), order + 2)
            inside = np.einsum("nfi,ni->nf", finer, centres[part[rows]])
            touched[rows, columns] = (inside >= np.cos(radius + cell_radius_rad(order + 2))).any(axis=1)
            touched[:, 1:] &= cells[:, 1:] != cells[:, :-1]  # what fills up a row
            rows, columns = np.nonzero(touched)
            yield uniq(cells[rows, columns], order), part[rows]


def _neighbours(used: NDArray[np.int64], order: int, radius_rad: float) -> NDArray[np.int64]:
    """For each of these cells those that an image in it may reach, the last one repeated to fill up."""
    from scipy.spatial import cKDTree

    middles = points_in_cells(np.arange(12 << (2 * order)), order)
    reach = 2 * np.sin(min(np.pi, radius_rad + 2 * cell_radius_rad(order)) / 2)
    found = [sorted(group) for group in cKDTree(middles).query_ball_point(middles[used], reach)]
    longest = max(map(len, found))
    return np.array([group + group[-1:] * (longest - len(group)) for group in found])


async def fill(url: str, sky: Sky) -> None:
    """Write all images and cells into an empty, migrated store."""
    connection = await asyncpg.connect(url)
    try:
        indexes = await connection.fetch(
            "SELECT indexname, indexdef FROM pg_indexes WHERE tablename = 'images' "
            "AND indexname NOT IN ('images_pkey', 'images_number_key')"
        )
        for row in indexes:
            await connection.execute(f"DROP INDEX {row['indexname']}")
        await connection.execute("ALTER TABLE sky_cells DROP CONSTRAINT sky_cells_pkey")
        for start in range(0, len(sky.mjd), _CHUNK):
            await connection.copy_records_to_table("images", records=_records(sky, start), columns=_COLUMNS)
        for cells, images in cells_in_bulk(sky):
            await connection.copy_to_table(
                "sky_cells", source=_binary(cells, sky.mjd[images], images + 1), format="binary"
            )
        await connection.execute("SET maintenance_work_mem = '512MB'")
        await connection.execute("ALTER TABLE sky_cells ADD PRIMARY KEY (cell, mjd_obs, number)")
        for row in indexes:
            await connection.execute(row["indexdef"])
        await connection.execute("VACUUM ANALYZE images")
        await connection.execute("VACUUM ANALYZE sky_cells")
    finally:
        await connection.close()


_COLUMNS = (
    "number", "image_id", "name", "sha256", "size_bytes", "path", "profile", "instrument", "run", "filter", "object",
    "exposure_time_s", "mjd_obs", "airmass", "ra_deg", "dec_deg", "wcs", "n_ccds", "header", "canonical_filter",
    "seeing_arcsec", "corners", "centre_x", "centre_y", "centre_z", "radius_rad", "reach_east", "reach_north",
    "columns_version",
)  # fmt: skip


def _records(sky: Sky, start: int) -> Iterator[tuple[Any, ...]]:
    end = min(start + _CHUNK, len(sky.mjd))
    corners: dict[int, bytes] = {}
    for number, camera in enumerate(CAMERAS):
        which = np.arange(start, end)[sky.camera[start:end] == number]
        rows = packed(corners_of(sky, which, camera))
        corners |= {index: row.tobytes() for index, row in zip(which.tolist(), rows, strict=True)}
    centres, radii = sky.centres[start:end].tolist(), sky.radii_rad.tolist()
    reaches = [camera.reach for camera in CAMERAS]
    for index in range(start, end):
        camera = CAMERAS[sky.camera[index]]
        name = f"{100_000 + index}p"
        run, band = f"R{sky.run[index]:03d}", FILTERS[sky.filter[index]]
        seeing = float(sky.seeing_arcsec[index])
        yield (
            index + 1, f"{name}.{index:012x}", name, f"{index:064x}", 350_000_000, f"images/{run}/{band}/{name}.fits.fz",
            "megacam", camera.name, run, band, "FIELD", 300.0, float(sky.mjd[index]), float(sky.airmass[index]),
            float(sky.ra_deg[index]), float(sky.dec_deg[index]), "full", len(camera.ccds), "{}", band,
            None if math.isnan(seeing) else seeing, corners[index], *centres[index - start], radii[index],
            *reaches[sky.camera[index]], VERSION,
        )  # fmt: skip


async def _binary(cells: NDArray[np.int64], mjd: Floats, numbers: NDArray[np.int64]) -> AsyncIterator[bytes]:
    """PostgreSQL's binary COPY format of three columns of eight bytes."""
    layout = [
        ("n", ">i2"),
        ("a", ">i4"),
        ("cell", ">i8"),
        ("b", ">i4"),
        ("mjd", ">f8"),
        ("c", ">i4"),
        ("number", ">i8"),
    ]
    rows = np.zeros(len(cells), dtype=layout)
    rows["n"], rows["a"], rows["b"], rows["c"] = 3, 8, 8, 8
    rows["cell"], rows["mjd"], rows["number"] = cells, mjd, numbers
    yield b"PGCOPY\n\xff\r\n\0" + bytes(8)
    data = rows.tobytes()
    for start in range(0, len(data), 1 << 22):
        yield data[start : start + (1 << 22)]
        await asyncio.sleep(0)
    yield b"\xff\xff"
