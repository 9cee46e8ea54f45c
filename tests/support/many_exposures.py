"""Thousands of exposures as ingest, quality and calib would have left them in the store: rows only, no pixels."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import asyncpg
import numpy as np
from numpy.typing import NDArray
from spica_imaging.skycells import unit_vectors
from spica_runtime.pg import Connection

Floats = NDArray[np.float64]

FIELDS = {"D1": (36.5, -4.5), "D2": (150.1, 2.2), "D3": (214.9, 52.7), "D4": (333.9, -17.7)}
FILTERS = ("u.MP9301", "g.MP9401", "r.MP9601", "i.MP9702", "z.MP9801")
NX, NY, SCALE_ARCSEC = 2048, 4612, 0.186
_GAP_DEG = 0.004
_FIRST_MJD = 53_000.0


@dataclass(frozen=True)
class Night:
    """Exposures, all columns of one length."""

    field: NDArray[np.object_]
    filter: NDArray[np.object_]
    ra_deg: Floats
    dec_deg: Floats
    mjd: Floats
    airmass: Floats
    fwhm_arcsec: Floats
    exposure_time_s: Floats
    sky_absorption_mag: Floats
    limiting_mag: Floats
    grade: NDArray[np.object_]
    corners_deg: Floats
    """Of their CCDs, (n, ccds, 4, 2)."""

    def __len__(self) -> int:
        return len(self.mjd)

    def name(self, index: int) -> str:
        """As CFHT names them."""
        return f"{700_000 + index}p"

    def image_id(self, index: int) -> str:
        """Name and content."""
        return f"{self.name(index)}.{index:012x}"


def mosaic(columns: int, rows: int) -> Floats:
    """CCDs in a grid on the tangent plane: (n, 4, 2) in degrees from the middle."""
    width, height = NX * SCALE_ARCSEC / 3600.0, NY * SCALE_ARCSEC / 3600.0
    x, y = np.meshgrid(
        (np.arange(columns) - (columns - 1) / 2) * (width + _GAP_DEG),
        (np.arange(rows) - (rows - 1) / 2) * (height + _GAP_DEG),
    )
    corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * [width / 2, height / 2]
    return np.asarray(np.stack([x.ravel(), y.ravel()], axis=-1)[:, None] + corners)


def make_night(
    count: int, *, fields: Sequence[str] = tuple(FIELDS), ccds: Floats | None = None, seed: int = 20030601
) -> Night:
    """Dithered exposures of these fields, in sequences of ten of one field and filter."""
    chance = np.random.default_rng(seed)
    sequence = np.arange(count) // 10
    filters = np.array(FILTERS, dtype=object)
    n_sequences = int(sequence[-1]) + 1
    field = np.array(fields, dtype=object)[np.arange(n_sequences) % len(fields)][sequence]
    band = filters[chance.choice(len(filters), n_sequences, p=(0.1, 0.2, 0.3, 0.3, 0.1))][sequence]
    centre = np.array([FIELDS[name] for name in field])
    dither = chance.normal(0.0, 0.03, (2, count))
    dec = centre[:, 1] + dither[1]
    ra = (centre[:, 0] + dither[0] / np.cos(np.radians(dec))) % 360.0
    fwhm = (0.5 + chance.gamma(3.0, 0.13, n_sequences))[sequence] * chance.normal(1.0, 0.04, count)
    return Night(
        field=field,
        filter=band,
        ra_deg=ra,
        dec_deg=dec,
        mjd=_FIRST_MJD + sequence * 0.3 + (np.arange(count) % 10) * 0.004,
        airmass=np.clip(1.0 + chance.exponential(0.2, count), 1.0, 3.0),
        fwhm_arcsec=np.abs(fwhm),
        exposure_time_s=chance.choice([60.0, 300.0, 500.0], count, p=(0.1, 0.3, 0.6)),
        sky_absorption_mag=np.abs(chance.normal(0.0, 0.5, count)),
        limiting_mag=25.3 - 2.5 * np.log10(np.abs(fwhm) / 0.7) + chance.normal(0.0, 0.1, count),
        grade=np.array(["A", "B", "C", "D"], dtype=object)[chance.choice(4, count, p=(0.5, 0.3, 0.1, 0.1))],
        corners_deg=_corners(ra, dec, mosaic(9, 4) if ccds is None else ccds),
    )


def _corners(ra_deg: Floats, dec_deg: Floats, ccds: Floats) -> Floats:
    """Corners on the sky of CCDs on the tangent planes of these pointings."""
    flat = np.radians(ccds)
    ra, dec = np.radians(ra_deg)[:, None, None], np.radians(dec_deg)[:, None, None]
    xi, eta = flat[None, ..., 0], flat[None, ..., 1]
    below = np.cos(dec) - eta * np.sin(dec)
    east = np.arctan2(xi, below)
    north = np.arctan2((np.sin(dec) + eta * np.cos(dec)) * np.cos(east), below)
    return np.stack([np.degrees(ra + east) % 360.0, np.degrees(north)], axis=-1)


async def fill_exposures(url: str, night: Night) -> None:
    """Write all of them into a migrated store: images, CCDs, measurements, grades and own solutions."""
    # A connection of its own: only one without codecs of ours copies jsonb.
    connection = await asyncpg.connect(url)
    try:
        await _fill(connection, night)
    finally:
        await connection.close()


async def _fill(connection: Connection, night: Night) -> None:
    for table, rows in (
        ("images", _images(night)),
        ("ccds", _ccds(night)),
        ("measurements", _measurements(night)),
        ("grades", _grades(night)),
        ("solutions", _solutions(night)),
    ):
        first = next(rows)
        await connection.copy_records_to_table(
            table,
            records=[tuple(first.values()), *(tuple(row.values()) for row in rows)],
            columns=list(first),
        )
        await connection.execute(f"ANALYZE {table}")


def _places(night: Night) -> tuple[Floats, Floats]:
    """Middle of each exposure as a direction, and how far it reaches."""
    vectors = unit_vectors(night.corners_deg[..., 0], night.corners_deg[..., 1]).reshape(len(night), -1, 3)
    middle = vectors.mean(axis=1)
    middle /= np.linalg.norm(middle, axis=1)[:, None]
    chords = np.linalg.norm(vectors - middle[:, None], axis=-1).max(axis=1)
    return middle, 2.0 * np.arcsin(chords / 2.0)


def _images(night: Night) -> Iterator[dict[str, Any]]:
    middle, radius = _places(night)
    packed = np.rint(night.corners_deg * 3_600_000).astype("<i4")
    for k in range(len(night)):
        yield {
            "image_id": night.image_id(k),
            "name": night.name(k),
            "sha256": f"{k:064x}",
            "size_bytes": 1000,
            "path": f"images/{night.name(k)}.fits",
            "profile": "megacam",
            "instrument": "MegaPrime",
            "run": f"run{k // 1000}",
            "filter": night.filter[k],
            "canonical_filter": night.filter[k],
            "object": night.field[k],
            "exposure_time_s": float(night.exposure_time_s[k]),
            "mjd_obs": float(night.mjd[k]),
            "airmass": float(night.airmass[k]),
            "ra_deg": float(night.ra_deg[k]),
            "dec_deg": float(night.dec_deg[k]),
            "wcs": "full",
            "n_ccds": night.corners_deg.shape[1],
            "batch": "night",
            "header": "{}",
            "sky_absorption_mag": float(night.sky_absorption_mag[k]),
            "corners": packed[k].tobytes(),
            "centre_x": float(middle[k, 0]),
            "centre_y": float(middle[k, 1]),
            "centre_z": float(middle[k, 2]),
            "radius_rad": float(radius[k]),
        }


def _ccds(night: Night) -> Iterator[dict[str, Any]]:
    for k in range(len(night)):
        for ccd in range(night.corners_deg.shape[1]):
            yield {
                "image_id": night.image_id(k),
                "hdu": ccd + 1,
                "name": f"ccd{ccd:02d}",
                "naxis1": NX,
                "naxis2": NY,
                "header": "{}",
            }


def _measurements(night: Night) -> Iterator[dict[str, Any]]:
    for k in range(len(night)):
        metrics = {
            "fwhm_arcsec": round(float(night.fwhm_arcsec[k]), 4),
            "ellipticity": 0.05,
            "background_adu": 900.0,
            "n_sources": 20_000,
            "n_stars": 5_000,
            "background_rms_adu": 30.0,
        }
        yield {
            "measurement_id": f"m{k}",
            "subject_kind": "image",
            "subject_id": night.image_id(k),
            "metrics": json.dumps(metrics),
            "catalogue_path": "none.ldac",
            "weight_path": "none.fits",
            "preview_path": "none.png",
        }


def _grades(night: Night) -> Iterator[dict[str, Any]]:
    for k in range(len(night)):
        yield {
            "grade_id": f"g{k}",
            "subject_kind": "image",
            "subject_id": night.image_id(k),
            "grade": night.grade[k],
            "graded_by": "policy:default@1",
            "measurement_id": f"m{k}",
        }


def _solutions(night: Night) -> Iterator[dict[str, Any]]:
    middle, radius = _places(night)
    for k in range(len(night)):
        yield {
            "solution_id": f"s{k}",
            "image_id": night.image_id(k),
            "header_path": f"calib/{night.name(k)}.head",
            "reference_name": "truth",
            "reference_sha256": "0" * 64,
            "zeropoint_mag": 26.0,
            "flux_scale": 1.0,
            "limiting_mag": float(night.limiting_mag[k]),
            "quality": "{}",
            "version": 1,
            "corners": night.corners_deg[k].ravel().tolist(),
            "centre_x": float(middle[k, 0]),
            "centre_y": float(middle[k, 1]),
            "centre_z": float(middle[k, 2]),
            "radius_rad": float(radius[k]),
        }
