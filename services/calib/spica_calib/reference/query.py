"""From a tile to the question that is asked, and from an answer's columns to Spica's own."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from spica_imaging.references import separation_deg
from spica_imaging.skycells import Cells, cell_of, points_in_cells, unit_vectors

from spica_calib.reference.catalogue import POSITION, Chosen, Column, Service
from spica_calib.reference.votable import Malformed

Floats = NDArray[np.float64]
Columns = dict[str, Floats]

_MJD_J2000 = 51544.5
_MAG_PER_RELATIVE_FLUX = 2.5 / np.log(10.0)
_FACTORS = {"arcsec": 1000.0, "arcsec/yr": 1000.0, "deg": 3.6e6}
_EDGE = [(u, v) for u in (0.0, 0.5, 1.0) for v in (0.0, 0.5, 1.0)]
_MARGIN_DEG = 1.0 / 3600.0
_ROUNDING_DEG = 0.01 / 3600.0
"""What positions may lie outside of a cone by, written with few digits."""


@dataclass(frozen=True, slots=True)
class Cone:
    """A circle of the sky, degrees."""

    ra_deg: float
    dec_deg: float
    radius_deg: float


def cone_around(tile: int, order: int) -> Cone:
    """The smallest cone around a tile's middle that holds it, and one arcsecond more."""
    cell = np.array([tile])
    middle = points_in_cells(cell, order)[0]
    # The furthest point is a corner; sides are hardly bent.
    edge = [points_in_cells(cell, order, u, v)[0] for u, v in _EDGE]
    radius = float(np.degrees(2.0 * np.arcsin(np.linalg.norm(np.array(edge) - middle, axis=1).max() / 2.0)))
    ra, dec = np.degrees(np.arctan2(middle[1], middle[0])), np.degrees(np.arcsin(np.clip(middle[2], -1, 1)))
    return Cone(round(float(ra) % 360.0, 8), round(float(dec), 8), round(1.001 * radius + _MARGIN_DEG, 8))


def tile_of(ra_deg: Floats, dec_deg: Floats, order: int) -> Cells:
    """Numbers of the tiles in which positions lie."""
    return cell_of(unit_vectors(ra_deg, dec_deg), order)


def names_asked(service: Service) -> list[str]:
    """The service's own columns that a query selects, each once, in order."""
    own = [column.name for column in service.columns.values()]
    return list(dict.fromkeys([*own, *(bits.column for bits in service.bits)]))


def adql(service: Service, cone: Cone) -> str:
    """All stars of a cone."""
    return f"SELECT {', '.join(map(service.quoted, names_asked(service)))} {_from_where(service, cone)}"


def adql_count(service: Service, cone: Cone) -> str:
    """How many there are."""
    return f"SELECT COUNT(*) AS n {_from_where(service, cone)}"


def _from_where(service: Service, cone: Cone) -> str:
    ra, dec = (service.quoted(service.columns[name].name) for name in POSITION)
    inside = (
        f"1=CONTAINS(POINT('ICRS', {ra}, {dec}), "
        f"CIRCLE('ICRS', {cone.ra_deg:.8f}, {cone.dec_deg:.8f}, {cone.radius_deg:.8f}))"
    )
    return f"FROM {service.table} WHERE {' AND '.join((inside, *service.where))}"


def canonical(chosen: Chosen, answer: Columns, cone: Cone) -> Columns:
    """An answer's columns as Spica names them, in its units, cut by the flags' bits.

    Raises `Malformed` where positions are none, or of another part of the sky than was asked for.
    """
    service = chosen.service
    keep = np.ones(len(next(iter(answer.values()))), dtype=bool)
    for bits in service.bits:
        flags = np.nan_to_num(answer[bits.column]).astype(np.int64)
        keep &= ((flags & bits.all) == bits.all) & ((flags & bits.none) == 0)
    columns = {
        name: _converted(answer[column.name], column, service) for name, column in service.columns.items()
    }
    _check_positions(columns["ra_deg"], columns["dec_deg"], cone)
    if "epoch_year" not in columns:
        columns["epoch_year"] = np.full(len(keep), chosen.catalogue.epoch_year, dtype=np.float64)
    return {name: values[keep] for name, values in columns.items()}


def _converted(values: Floats, column: Column, service: Service) -> Floats:
    if service.null is not None:
        values = np.where(values == service.null, np.nan, values)
    match column.unit:
        case "mjd":
            return 2000.0 + (values - _MJD_J2000) / 365.25
        case "snr":
            return np.asarray(_MAG_PER_RELATIVE_FLUX / np.where(values > 0, values, np.nan))
        case unit:
            return values * _FACTORS.get(unit, 1.0)


def _check_positions(ra: Floats, dec: Floats, cone: Cone) -> None:
    good = np.isfinite(ra) & np.isfinite(dec) & (np.abs(dec) <= 90.0) & (ra >= 0.0) & (ra <= 360.0)
    if not good.all():
        raise Malformed(f"{int((~good).sum())} of {len(ra)} stars have no position on the sky")
    apart = separation_deg(ra, dec, cone.ra_deg, cone.dec_deg)
    if len(ra) and float(apart.max()) > cone.radius_deg + _ROUNDING_DEG:
        far = int((apart > cone.radius_deg + _ROUNDING_DEG).sum())
        raise Malformed(f"{far} of {len(ra)} stars are not in the cone that was asked for")


def ordered(columns: Columns) -> Columns:
    """Stars by declination and right ascension, so that the same stars are the same bytes."""
    order = np.lexsort((columns["ra_deg"], columns["dec_deg"]))
    return {name: values[order] for name, values in columns.items()}


def joined(parts: list[Columns]) -> Columns:
    """The parts of a tile as one."""
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
