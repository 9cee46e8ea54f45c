"""From a choice to a plan: the output grid, the name and the identity of a stack."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from spica_imaging.skyshapes import Cone, Polygon
from spica_proto import stacks as contract
from spica_proto.base import Pointing
from spica_proto.envelope import derived_id
from spica_proto.stacks import StackPlanned, StackRequested

from spica_stack.choosing import Choice, rules_of
from spica_stack.errors import no_overlap, no_plane, too_large
from spica_stack.processing import engine_of, filled, identity
from spica_stack.science.choosing.table import Footprints
from spica_stack.science.grid import Grid, covering_grid
from spica_stack.science.naming import stack_name
from spica_stack.settings import StackSettings

Floats = NDArray[np.float64]

MARGIN = 0.002
"""Of the longest side of a CCD, around what covers all corners: between its corners, the edge of a CCD on a distorted focal
plane bulges. A cubic distortion of 1 % in scale, as MegaCam's, makes that 1.7 of 4612 pixels, a fifth of this."""
_CIRCLE_POINTS = 72
_EDGE_POINTS = 17
_AT_A_TIME = 4000


@dataclass(frozen=True, slots=True)
class Placed:
    """Where the CCDs of all members lie, and how large their pixels are."""

    footprints: Footprints
    """Its owners are indices of the members."""
    scale_arcsec: float
    """Median of the members'."""


def lay_out(request: StackRequested, placed: Placed, settings: StackSettings) -> Grid:
    """The output grid: what is asked for, else what covers the area asked for (mode `area`), or all members.

    Raises `NotRetriable`: no_common_plane, stack_too_large, no_overlap.
    """
    footprints = placed.footprints
    corners = footprints.corners_deg
    # Rounded, so that the header says exactly what was computed with.
    scale = request.pixel_scale_arcsec or round(placed.scale_arcsec, 4)
    centre = None if request.centre is None else (request.centre.ra_deg, request.centre.dec_deg)
    area = outline_of_area(request) if request.mode == "area" else None
    outlines = area if area is not None else (corners[..., 0].ravel(), corners[..., 1].ravel())
    if centre is not None and request.width_px is not None and request.height_px is not None:
        # Nothing is to be found out: members may lie anywhere.
        outlines = (np.array([centre[0]]), np.array([centre[1]]))
    try:
        grid = covering_grid(
            [outlines],
            scale,
            centre,
            request.width_px,
            request.height_px,
            rotation_deg=request.rotation_deg,
            mirrored=request.mirrored,
            projection=request.projection,
        )
    except ValueError as error:
        raise no_plane(error) from error
    if area is None:
        grid = _with_margin(grid, request, footprints)
    if max(grid.width, grid.height) > settings.max_side_px or grid.width * grid.height > settings.max_pixels:
        raise too_large(grid, settings.max_side_px, settings.max_pixels)
    if not _anything_on(grid, corners):
        raise no_overlap(grid)
    return grid


def _anything_on(grid: Grid, corners_deg: Floats) -> bool:
    """Whether any CCD has pixels on the grid; of very many, a few are enough to see it."""
    parts = (corners_deg[start : start + _AT_A_TIME] for start in range(0, len(corners_deg), _AT_A_TIME))
    return any(touched(grid, part).any() for part in parts)


def _with_margin(grid: Grid, request: StackRequested, footprints: Footprints) -> Grid:
    """Wider by `MARGIN` wherever the size is not asked for."""
    corners = footprints.corners_deg
    across = np.diff(corners, axis=1, append=corners[:, :1])
    east = ((across[..., 0] + 180.0) % 360.0 - 180.0) * np.cos(np.radians(corners[..., 1]))
    longest_deg = float(np.hypot(east, across[..., 1]).max())
    margin = int(np.ceil(MARGIN * longest_deg * 3600.0 / grid.scale_arcsec))
    wide = margin if request.width_px is None else 0
    high = margin if request.height_px is None else 0
    return replace(
        grid,
        width=grid.width + 2 * wide,
        height=grid.height + 2 * high,
        crpix_x=grid.crpix_x + wide,
        crpix_y=grid.crpix_y + high,
    )


def touched(grid: Grid, corners_deg: Floats) -> NDArray[np.bool_]:
    """Which CCDs, by their corners (n, 4, 2; RA, Dec in degrees), may have pixels on the grid. Shape: (n,)."""
    x, y = grid.sky_to_pixel(corners_deg[..., 0], corners_deg[..., 1])
    with np.errstate(invalid="ignore"):
        inside = (
            (x.max(axis=1) > 0.5)
            & (x.min(axis=1) < grid.width + 0.5)
            & (y.max(axis=1) > 0.5)
            & (y.min(axis=1) < grid.height + 0.5)
        )
    return np.asarray(inside)


def outline_of_area(request: StackRequested) -> tuple[Floats, Floats] | None:
    """RA and Dec (deg) of points along the edge of the area asked for; None: none is."""
    rules = rules_of(request.selection)
    area = rules.touches or rules.near
    if isinstance(area, Cone):
        return _circle(area)
    return _edges(area) if isinstance(area, Polygon) else None


def _circle(cone: Cone) -> tuple[Floats, Floats]:
    angles = np.linspace(0.0, 2.0 * np.pi, _CIRCLE_POINTS, endpoint=False)
    ra, dec, radius = np.radians(cone.ra_deg), np.radians(cone.dec_deg), cone.radius_rad
    sine = np.sin(dec) * np.cos(radius) + np.cos(dec) * np.sin(radius) * np.cos(angles)
    east = np.arctan2(np.sin(angles) * np.sin(radius) * np.cos(dec), np.cos(radius) - np.sin(dec) * sine)
    return np.degrees(ra + east) % 360.0, np.degrees(np.arcsin(np.clip(sine, -1.0, 1.0)))


def _edges(polygon: Polygon) -> tuple[Floats, Floats]:
    """Along great circles: chords between the corners, drawn out to the sphere."""
    ra, dec = np.radians(np.array(polygon.corners, dtype=np.float64).T)
    corners = np.stack([np.cos(dec) * np.cos(ra), np.cos(dec) * np.sin(ra), np.sin(dec)], axis=-1)
    along = np.linspace(0.0, 1.0, _EDGE_POINTS)[:, None, None]
    points = ((1.0 - along) * corners + along * np.roll(corners, -1, axis=0)).reshape(-1, 3)
    return (
        np.degrees(np.arctan2(points[:, 1], points[:, 0])) % 360.0,
        np.degrees(np.arctan2(points[:, 2], np.hypot(points[:, 0], points[:, 1]))),
    )


def pixel_scale_arcsec(corners_deg: Floats, nx: Floats, ny: Floats) -> Floats:
    """Pixel scales of CCDs: square root of their area on the sky over their number of pixels.

    Parameters
    ----------
    corners_deg
        Shape (n, 4, 2): RA and Dec of the outer edges of the corner pixels, around each.
    nx, ny
        Their sizes in pixels.

    """
    ra, dec = corners_deg[..., 0], corners_deg[..., 1]
    middle = dec.mean(axis=1)
    x = ((ra - ra[:, :1] + 180.0) % 360.0 - 180.0) * np.cos(np.radians(middle))[:, None]
    first = np.stack([x[:, 2] - x[:, 0], dec[:, 2] - dec[:, 0]])
    second = np.stack([x[:, 3] - x[:, 1], dec[:, 3] - dec[:, 1]])
    area = 0.5 * np.abs(first[0] * second[1] - first[1] * second[0])
    return np.asarray(3600.0 * np.sqrt(area / (nx * ny)))


def contract_grid(grid: Grid) -> contract.Grid:
    """The grid as the contract says it."""
    return contract.Grid(
        crval_ra_deg=grid.ra_deg,
        crval_dec_deg=grid.dec_deg,
        crpix_x=grid.crpix_x,
        crpix_y=grid.crpix_y,
        pixel_scale_arcsec=grid.scale_arcsec,
        width_px=grid.width,
        height_px=grid.height,
        rotation_deg=grid.rotation_deg,
        mirrored=grid.mirrored,
        projection=grid.projection,
    )


def science_grid(grid: contract.Grid) -> Grid:
    """The contract's grid, as the science part takes it."""
    return Grid(
        grid.crval_ra_deg,
        grid.crval_dec_deg,
        grid.crpix_x,
        grid.crpix_y,
        grid.pixel_scale_arcsec,
        grid.width_px,
        grid.height_px,
        grid.rotation_deg,
        grid.mirrored,
        grid.projection,
    )


def plan(
    request: StackRequested, request_id: str, choice: Choice, grid: Grid, settings: StackSettings
) -> StackPlanned:
    """Put the plan together. The stack's id follows from what it will be made of, and how.

    `request` with its preset filled in (`choice.request`).
    """
    members = choice.members
    planned = StackPlanned(
        stack_id="",
        request_id=request_id,
        name=name_of(request, choice, grid),
        filter=choice.filter,
        image_ids=tuple(member.image_id for member in members),
        n_left_out=len(choice.verdicts) - len(members),
        grid=contract_grid(grid),
        combine=request.combine,
        processing=filled(request, settings),
        solutions=request.solutions,
        engine=engine_of(request, settings),
        extends=request.extends,
        survey=request.survey,
    )
    parameters = {
        "members": [(member.image_id, member.solution_id) for member in members],
        **identity(planned),
    }
    stack_id = derived_id("stack", request_id, json.dumps(parameters, sort_keys=True))
    return planned.model_copy(update={"stack_id": stack_id})


def name_of(request: StackRequested, choice: Choice, grid: Grid) -> str:
    """The name asked for, else one from object, filter and place."""
    objects = {member.object for member in choice.members if member.object}
    centre = Pointing(ra_deg=grid.ra_deg, dec_deg=grid.dec_deg)
    return request.name or stack_name(objects, choice.filter, centre.ra_deg, centre.dec_deg)


def in_order(choice: Choice, image_ids: Sequence[str]) -> Choice:
    """The same choice, its members in this order, before all that are not."""
    places = {image_id: place for place, image_id in enumerate(image_ids)}
    last = len(places)
    verdicts = sorted(
        choice.verdicts,
        key=lambda one: places.get(one.candidate.image_id, last) if one.selected else last,
    )
    return replace(choice, judged=replace(choice.judged, verdicts=tuple(verdicts)))
