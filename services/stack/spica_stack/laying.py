"""From a request to members and grid, the store asked: what planning and a dry run have in common. Nothing is written."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from spica_imaging.head import parse_head
from spica_imaging.wcs import TpvWcs, WcsError
from spica_proto.stacks import StackRequested
from spica_runtime.errors import NotRetriable

from spica_stack.choosing import Choice, Floats, Source, queries, select_now, solved_corners
from spica_stack.deciding import base_of
from spica_stack.errors import input_unreadable
from spica_stack.extending import extension_of
from spica_stack.planning import Placed, in_order, lay_out, pixel_scale_arcsec, science_grid
from spica_stack.processing import engine_of, filled
from spica_stack.science.choosing.table import Footprints
from spica_stack.science.grid import Grid
from spica_stack.science.selection import Candidate
from spica_stack.settings import StackSettings

Locate = Callable[[Sequence[str]], Awaitable[Mapping[str, Path]]]
"""Where files of the data folder are on this host, by their paths in it."""

_SCALE_SAMPLE = 100
"""So many members tell the pixel scale of all, taken evenly from first to last."""


@dataclass(frozen=True)
class Laid:
    """What a request takes, and where it comes to lie."""

    choice: Choice
    placed: Placed
    grid: Grid


async def lay_out_now(
    source: Source, request: StackRequested, settings: StackSettings, locate: Locate
) -> Laid:
    """Members and grid of a request, as they would be now.

    Raises
    ------
    NotRetriable
        As `select_now`; what `Choice.problem` has; no_common_plane, stack_too_large, no_overlap, cannot_extend.

    """
    return await lay_out_choice(source, await select_now(source, request, settings), settings, locate)


async def lay_out_choice(source: Source, choice: Choice, settings: StackSettings, locate: Locate) -> Laid:
    """The same for what is chosen already."""
    choice.require()
    if choice.request.extends is not None:
        return await _extended(source, choice, settings, locate)
    placed = await place(source, choice.members, locate)
    return Laid(choice, placed, lay_out(choice.request, placed, settings))


async def _extended(source: Source, choice: Choice, settings: StackSettings, locate: Locate) -> Laid:
    """On the grid of the stack that it goes on from, whose members come first."""
    request = choice.request
    assert request.extends is not None
    base = await base_of(source, stack_id=request.extends)
    members = extension_of(
        request,
        base,
        filter=choice.filter,
        members=[(member.image_id, member.solution_id) for member in choice.members],
        processing=filled(request, settings).model_dump(mode="json"),
        engine=engine_of(request, settings),
    )
    assert base is not None
    choice = in_order(choice, [image_id for image_id, _ in members])
    return Laid(choice, await place(source, choice.members, locate), science_grid(base.grid))


async def place(source: Source, members: Sequence[Candidate], locate: Locate) -> Placed:
    """Where the CCDs of members lie: as their solutions say it in the store, else as their `.head` files do."""
    numbers = range(len(members))
    found = await solved_corners(source, members, list(numbers))
    if rest := [number for number in numbers if not len(found.get(number, ()))]:
        found |= await _from_heads(source, members, rest, locate)
    footprints = Footprints.of([found[number] for number in numbers])
    return Placed(footprints, await _scale(source, members, found))


async def _scale(source: Source, members: Sequence[Candidate], corners: Mapping[int, Floats]) -> float:
    sample = np.unique(np.linspace(0, len(members) - 1, _SCALE_SAMPLE).astype(int)).tolist()
    sizes = await _sizes(source, [members[number].image_id for number in sample])
    scales = []
    for number in sample:
        own = sizes[members[number].image_id]
        if len(own) == len(corners[number]):
            nx, ny = np.array([(x, y) for _, x, y in own], dtype=np.float64).T
            scales.append(pixel_scale_arcsec(corners[number], nx, ny))
    if not scales:
        raise NotRetriable(
            "pixel_scale_unknown",
            "The store does not know how large the pixels are: name `pixel_scale_arcsec`.",
        )
    return float(np.median(np.concatenate(scales)))


async def _sizes(source: Source, image_ids: Sequence[str]) -> dict[str, list[tuple[str, int, int]]]:
    sizes: dict[str, list[tuple[str, int, int]]] = {image_id: [] for image_id in image_ids}
    async for row in queries.ccd_sizes(source, image_ids=list(image_ids)):
        sizes[row["image_id"]].append((row["name"], row["naxis1"], row["naxis2"]))
    return sizes


async def _from_heads(
    source: Source, members: Sequence[Candidate], numbers: Sequence[int], locate: Locate
) -> dict[int, Floats]:
    """Of solutions that were made before the store kept their corners."""
    sizes = await _sizes(source, [members[number].image_id for number in numbers])
    paths = {number: members[number].header_path or "" for number in numbers}
    where = await locate(list(paths.values()))

    def read() -> dict[int, Floats]:
        return {
            number: corners_of_head(where[path], sizes[members[number].image_id])
            for number, path in paths.items()
        }

    return await asyncio.to_thread(read)


def corners_of_head(path: Path, sizes: Sequence[tuple[str, int, int]]) -> Floats:
    """Corners (k, 4, 2; RA, Dec in degrees) of the CCDs of a `.head` file; those that were not solved are left out.

    sizes: name and size in pixels of each CCD of the image. Blocks belong to CCDs by EXTNAME where all have one, else by
    their order. Raises `NotRetriable` (`input_unreadable`).
    """
    try:
        blocks = parse_head(path.read_text(encoding="ascii"))
        by_name = {str(block["EXTNAME"]).strip(): block for block in blocks if "EXTNAME" in block}
        named = len(by_name) == len(blocks) and set(by_name) <= {name for name, _, _ in sizes}
        if not named and len(blocks) != len(sizes):
            raise ValueError(f"it has {len(blocks)} header blocks, the image {len(sizes)} CCDs")
        corners = []
        for order, (name, nx, ny) in enumerate(sizes):
            block = by_name.get(name) if named else blocks[order]
            if block is not None:
                x = np.array([0.5, nx + 0.5, nx + 0.5, 0.5])
                y = np.array([0.5, 0.5, ny + 0.5, ny + 0.5])
                corners.append(np.stack(TpvWcs.from_header(block).pixel_to_sky(x, y), axis=-1))
    except (OSError, ValueError, WcsError) as error:
        raise input_unreadable(path, error) from error
    return np.array(corners).reshape(-1, 4, 2)
