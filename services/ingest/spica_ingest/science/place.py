"""Where an exposure lies on the sky, as search needs it: outline, corners of all CCDs, reach, cells."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from spica_imaging.profiles import Profile
from spica_imaging.skycells import Floats, cells_touching, order_for, uniq, unit_vectors
from spica_imaging.skyshapes import Cone
from spica_imaging.sphere import outline, quad_distance_rad, separation_rad

from spica_ingest.science.facts import HeaderValues
from spica_ingest.science.geometry import Geometry, middle_of, pixel_scale_arcsec

MAS_PER_DEG = 3_600_000
_MARGIN_RAD = 1e-8
"""2 mas: corners are rounded to one, and cells must hold what the rounded ones do."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where one exposure lies. Columns of `images`, and its cells."""

    footprint: tuple[float, ...] | None
    """ra, dec (deg) of the corners of the outline of all CCDs; None without a WCS."""
    corners: bytes | None
    """ra, dec of four corners of every CCD, in mas as little-endian int32; None without a WCS."""
    centre: tuple[float, float, float]
    radius_rad: float
    """No corner is further from the centre; without a WCS, as far as it may reach."""
    reach: tuple[float, float]
    """Sines of how far it reaches, east or west of the centre and north or south of it: no direction in it has a larger
    component along either."""
    cells: tuple[int, ...]
    """Cells (uniq) of one order that it touches."""


def place_of_exposure(
    profile: Profile, header: HeaderValues, geometry: Geometry, shapes: Sequence[tuple[int, ...]]
) -> Place:
    """Place of an exposure whose CCDs have these shapes (ny, nx): by its footprints, else about its pointing."""
    footprints = [item.corners for item in geometry.footprints if item is not None]
    if footprints:
        return place_of(footprints)
    scale = pixel_scale_arcsec(profile, header) or 1.0
    radius = rough_radius_deg(shapes, scale, profile.pointing.radius_arcmin / 60)
    return rough_place(geometry.ra_deg, geometry.dec_deg, radius)


def place_of(footprints: Sequence[Sequence[float]]) -> Place:
    """Place of an exposure whose CCDs have these corners (ra, dec in degrees, four each)."""
    places = np.asarray(footprints, dtype=np.float64).reshape(len(footprints), -1, 2)
    packed = np.rint(np.mod(places, [360.0, 1e9]) * MAS_PER_DEG)
    packed[..., 1] = np.rint(places[..., 1] * MAS_PER_DEG)
    quads = unit_vectors(packed[..., 0] / MAS_PER_DEG, packed[..., 1] / MAS_PER_DEG)
    ra, dec = middle_of([(float(a), float(d)) for a, d in places.reshape(-1, 2)])
    centre = unit_vectors(ra, dec)
    radius = float(separation_rad(quads, centre).max()) + _MARGIN_RAD

    def may_touch(middles: Floats, reach_rad: float) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
        near = separation_rad(middles, centre) <= reach_rad + radius
        near[near] = (quad_distance_rad(middles[near], quads) <= reach_rad + _MARGIN_RAD).any(axis=1)
        return near

    order = order_for(2 * math.degrees(radius))
    edge = outline(quads)
    return Place(
        footprint=None if edge is None else tuple(float(v) for v in edge.ravel()),
        corners=packed.astype("<i4").tobytes(),
        centre=(float(centre[0]), float(centre[1]), float(centre[2])),
        radius_rad=radius,
        reach=_reach(quads, centre, radius),
        cells=tuple(uniq(cells_touching(may_touch, order), order).tolist()),
    )


def rough_place(ra_deg: float, dec_deg: float, radius_deg: float) -> Place:
    """Place of an exposure of which only the pointing is known, and how far it may reach from there."""
    disc = Cone(ra_deg, dec_deg, min(radius_deg, 90.0))
    order = order_for(2 * disc.radius_deg)
    cells = cells_touching(disc.touches_discs, order)
    x, y, z = (float(part) for part in disc.middle)
    reach = math.sin(disc.radius_rad)
    return Place(None, None, (x, y, z), disc.radius_rad, (reach, reach), tuple(uniq(cells, order).tolist()))


def _reach(quads: Floats, centre: Floats, radius_rad: float) -> tuple[float, float]:
    """On the plane that touches the sky in the centre, edges are lines: their ends reach furthest."""
    across = math.hypot(centre[0], centre[1])
    if across < 1e-9 or radius_rad > 1.0:  # nothing is east of a pole
        return 1.0, 1.0
    east = np.array([-centre[1], centre[0], 0.0]) / across
    north = np.cross(centre, east)
    flat = np.abs(quads @ np.stack([east, north]).T) / (quads @ centre)[..., None]
    furthest = np.arctan(flat.max(axis=(0, 1))) + _MARGIN_RAD
    return float(np.sin(furthest[0])), float(np.sin(furthest[1]))


def rough_radius_deg(
    shapes: Sequence[tuple[int, ...]], scale_arcsec: float, pointing_error_deg: float
) -> float:
    """How far CCDs of these shapes (ny, nx), side by side in a square, reach from a pointing that may be off."""
    area = sum(ny * nx for ny, nx in shapes)
    longest = max(math.hypot(ny, nx) for ny, nx in shapes)
    # Gaps between CCDs, and mosaics that are not square: a quarter more.
    reach = longest / 2 if len(shapes) == 1 else max(longest / 2, 1.25 * math.sqrt(area / 2))
    return reach * scale_arcsec / 3600 + pointing_error_deg
