"""From a request to a plan: rules, members, grid, name and identity of a stack."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from spica_proto.base import Pointing
from spica_proto.envelope import derived_id
from spica_proto.stacks import Grid, Selection, StackPlanned, StackRequested

from spica_stack.errors import (
    no_overlap,
    no_plane,
    nothing_selected,
    several_filters,
    too_few_exposures,
    too_large,
)
from spica_stack.jobs import Footprint
from spica_stack.science.grid import TanGrid, covering_grid
from spica_stack.science.naming import stack_name
from spica_stack.science.selection import Candidate, Rules, Verdict, select
from spica_stack.settings import StackSettings


@dataclass(frozen=True, slots=True)
class Choice:
    """Which candidates are members, and the filter of the stack."""

    filter: str
    verdicts: tuple[Verdict, ...]

    @property
    def members(self) -> tuple[Candidate, ...]:
        """The selected ones, in their order."""
        return tuple(verdict.candidate for verdict in self.verdicts if verdict.selected)


def rules_of(selection: Selection) -> Rules:
    """The contract's rules, as the science part takes them."""
    near = selection.near
    return Rules(
        near=None if near is None else (near.centre.ra_deg, near.centre.dec_deg, near.radius_deg),
        **selection.model_dump(exclude={"near"}),
    )


def choose(rules: Rules, candidates: Sequence[Candidate], min_exposures: int) -> Choice:
    """Apply the rules. A request without a filter takes the one filter of all that passes.

    Raises `NotRetriable`: nothing_selected, several_filters, too_few_exposures.
    """
    verdicts = select(rules, candidates)
    filters = Counter(verdict.candidate.filter for verdict in verdicts if verdict.selected)
    if not filters:
        raise nothing_selected(verdicts)
    if len(filters) > 1:
        raise several_filters(filters)
    if filters.total() < min_exposures:
        raise too_few_exposures(verdicts, min_exposures)
    return Choice(next(iter(filters)), tuple(verdicts))


def lay_out(request: StackRequested, footprints: Sequence[Footprint], settings: StackSettings) -> TanGrid:
    """The output grid: what is asked for, else what covers all members at their median scale.

    Raises `NotRetriable`: no_common_plane, stack_too_large, no_overlap.
    """
    outlines = [(ccd.ra_deg, ccd.dec_deg) for footprint in footprints for ccd in footprint.ccds]
    scales = [ccd.scale_arcsec for footprint in footprints for ccd in footprint.ccds]
    # Rounded, so that the header says exactly what was computed with.
    scale = request.pixel_scale_arcsec or round(float(np.median(scales)), 4)
    centre = None if request.centre is None else (request.centre.ra_deg, request.centre.dec_deg)
    try:
        grid = covering_grid(outlines, scale, centre, request.width_px, request.height_px)
    except ValueError as error:
        raise no_plane(error) from error
    if max(grid.width, grid.height) > settings.max_side_px or grid.width * grid.height > settings.max_pixels:
        raise too_large(grid, settings.max_side_px, settings.max_pixels)
    if not any(_touches(grid, outline) for outline in outlines):
        raise no_overlap(grid)
    return grid


def _touches(grid: TanGrid, outline: tuple[np.ndarray, np.ndarray]) -> bool:
    x, y = grid.sky_to_pixel(*outline)
    return bool(
        np.nanmax(x, initial=-np.inf) > 0.5
        and np.nanmin(x, initial=np.inf) < grid.width + 0.5
        and np.nanmax(y, initial=-np.inf) > 0.5
        and np.nanmin(y, initial=np.inf) < grid.height + 0.5
    )


def contract_grid(grid: TanGrid) -> Grid:
    """The grid as the contract says it."""
    return Grid(
        crval_ra_deg=grid.ra_deg,
        crval_dec_deg=grid.dec_deg,
        crpix_x=grid.crpix_x,
        crpix_y=grid.crpix_y,
        pixel_scale_arcsec=grid.scale_arcsec,
        width_px=grid.width,
        height_px=grid.height,
    )


def science_grid(grid: Grid) -> TanGrid:
    """The contract's grid, as the science part takes it."""
    return TanGrid(
        grid.crval_ra_deg,
        grid.crval_dec_deg,
        grid.crpix_x,
        grid.crpix_y,
        grid.pixel_scale_arcsec,
        grid.width_px,
        grid.height_px,
    )


def processing(settings: StackSettings) -> dict[str, float | int]:
    """Settings that change the pixels of a stack."""
    return settings.model_dump(
        include={
            "background_mesh_px",
            "clip_sigma",
            "clip_sigma_grown",
            "clip_flux_share",
            "psf_weight_power",
        }
    )


def plan(
    request: StackRequested, request_id: str, choice: Choice, grid: TanGrid, settings: StackSettings
) -> StackPlanned:
    """Put the plan together. The stack's id follows from what it will be made of, and how."""
    members = choice.members
    centre = Pointing(ra_deg=grid.ra_deg, dec_deg=grid.dec_deg)
    objects = {member.object for member in members if member.object}
    parameters = {
        "members": [(member.image_id, member.solution_id) for member in members],
        "grid": contract_grid(grid).model_dump(),
        "combine": request.combine,
        **processing(settings),
    }
    return StackPlanned(
        stack_id=derived_id("stack", request_id, json.dumps(parameters, sort_keys=True)),
        request_id=request_id,
        name=request.name or stack_name(objects, choice.filter, centre.ra_deg, centre.dec_deg),
        filter=choice.filter,
        image_ids=tuple(member.image_id for member in members),
        n_left_out=len(choice.verdicts) - len(members),
        grid=contract_grid(grid),
        combine=request.combine,
    )
