"""From what stands in the store to the order that a worker takes."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

from spica_proto.stacks import Combine, Processing, StackEngine, StackRequested
from spica_runtime.service import Platform

from spica_stack.errors import lost_base, no_joint_solution, unknown_stack
from spica_stack.making.order import Base, CoaddOrder, MemberFiles
from spica_stack.planning import science_grid
from spica_stack.processing import configuration, filled, parameters_of
from spica_stack.science.header import Label
from spica_stack.settings import StackSettings
from spica_stack.store import BaseRow, Making, MemberRow, Stack, Store


@dataclass(frozen=True, slots=True)
class Work:
    """A stack that is to be made: for the worker, and for what is said of it afterwards."""

    stack: Stack
    members: tuple[MemberRow, ...]
    """Those that can be used, in the order in which they go in."""
    order: CoaddOrder
    engine: StackEngine
    processing: Processing
    base: BaseRow | None

    @property
    def configuration(self) -> dict[str, Any]:
        """How its pixels are made, for provenance."""
        return configuration(self.order.parameters.combine, self.processing, self.engine)


async def work_on(
    platform: Platform[StackSettings],
    store: Store,
    stack_id: str,
    *,
    reference: str,
    making: Making | None = None,
) -> Work:
    """All that is needed to make a stack, its files found.

    `reference` is the name of the catalogue that its solutions stand on; `making` what was decided when it began (None: it
    begins now, by this host's settings).

    Raises
    ------
    NotRetriable
        unknown_stack, no_joint_solution, lost_base.

    """
    stack = await store.stack(stack_id)
    if stack is None:
        raise unknown_stack(stack_id)
    base = await _base(store, stack)
    rows = await store.members(stack_id)
    members = tuple(_usable(rows, base))
    if not members:
        raise no_joint_solution({row.image_id for row in rows} or {"none"}, len(rows))
    found = await platform.files.locate(list(_paths(members, base)))
    settings = platform.settings
    # A stack that was planned before this was kept: as the settings are today.
    processing = filled(StackRequested(processing=Processing(**stack.plan.get("processing", {}))), settings)
    engine: StackEngine = stack.plan.get("engine") or settings.engine
    grid = science_grid(stack.grid)
    combine = cast(Combine, stack.combine)
    order = CoaddOrder(
        data=platform.data,
        stack_id=stack.stack_id,
        folder=f"stacks/{stack.stack_id}",
        name=stack.name,
        grid=grid,
        parameters=parameters_of(
            combine,
            processing,
            [row.fwhm_arcsec / stack.grid.pixel_scale_arcsec for row in members if row.fwhm_arcsec],
            keep_sums=combine == "weighted_mean" and stack.plan.get("solutions") == "own",
        ),
        members=tuple(_files(row, found, processing.exposure_weights) for row in members),
        label=_label(stack, members, found, reference),
        profiles=platform.platform_settings.profiles,
        memory_bytes=making.memory_bytes if making else settings.memory_mb * 1_000_000,
        tile_samples=making.tile_samples if making else round(settings.tile_megasamples * 1e6),
        threads=threads_of_each(settings.workers),
        base=None if base is None else Base(base.stack_id, found[base.sums or ""], base.image_ids),
    )
    return Work(stack, members, order, engine, processing, base)


async def _base(store: Store, stack: Stack) -> BaseRow | None:
    if stack.extends is None:
        return None
    base = await store.base(stack.extends)
    if base is None or base.sums is None:
        raise lost_base(stack.extends)
    return base


def _usable(rows: Sequence[MemberRow], base: BaseRow | None) -> Iterator[MemberRow]:
    """Members that have a solution and a weight map; those of the base first, as they are in its sums."""
    usable = {row.image_id: row for row in rows if row.header_path and row.weight_path}
    if base is not None:
        if not set(base.image_ids) <= set(usable):
            raise lost_base(base.stack_id)
        yield from (usable.pop(image_id) for image_id in base.image_ids)
    yield from usable.values()


def _paths(members: Sequence[MemberRow], base: BaseRow | None) -> Iterator[str]:
    """Files of the members, and of the base, in the data folder of whichever node holds them."""
    for row in members:
        yield from paths_of(row)
    if base is not None and base.sums is not None:
        yield base.sums


def paths_of(row: MemberRow) -> tuple[str, str, str]:
    """Image, weight map and header of a member that can be used."""
    assert row.weight_path is not None and row.header_path is not None
    return row.image.path, row.weight_path, row.header_path


def _files(row: MemberRow, found: Mapping[str, Path], weights: Mapping[str, float]) -> MemberFiles:
    image, weight, head = (found[path] for path in paths_of(row))
    return MemberFiles(
        image_id=row.image_id,
        name=row.name,
        image=image,
        profile=row.profile,
        weight=weight,
        head=head,
        flux_scale=row.flux_scale,
        exposure_time_s=row.exposure_time_s,
        mjd_obs=row.mjd_obs,
        fwhm_arcsec=row.fwhm_arcsec,
        ellipticity=row.ellipticity,
        limiting_mag=row.limiting_mag,
        weight_factor=weights.get(row.image_id, weights.get(row.name, 1.0)),
    )


def _label(stack: Stack, members: Sequence[MemberRow], found: Mapping[str, Path], reference: str) -> Label:
    objects = sorted({row.object for row in members if row.object})
    return Label(
        stack_id=stack.stack_id,
        request_id=stack.request_id,
        name=stack.name,
        filter=stack.filter,
        object=objects[0] if len(objects) == 1 else stack.name,
        instrument="+".join(sorted({row.instrument for row in members})),
        combine=stack.combine,
        date=stack.requested_at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S"),
        inputs=tuple(found[row.image.path].name for row in members),
        reference=reference,
        software=version("spica"),
    )


def threads_of_each(workers: int) -> int:
    """How many threads each of so many workers has: together as many as there are cores."""
    return max(1, len(os.sched_getaffinity(0)) // workers)
