"""What can go wrong with a stack, in words that say what to do."""

from __future__ import annotations

import errno
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from spica_runtime.errors import NotRetriable, Retriable, Unavailable

from spica_stack.science.grid import TanGrid


def several_filters(filters: Mapping[str, int]) -> NotRetriable:
    """The request names no filter, and images of several pass."""
    found = ", ".join(f"{name} ({count})" for name, count in sorted(filters.items()))
    return NotRetriable(
        "several_filters",
        f"Images of several filters pass: {found}. Name one in `selection.filter`.",
        {f"images_in_{name}": count for name, count in filters.items()},
    )


def too_large(grid: TanGrid, max_side_px: int, max_pixels: int) -> NotRetriable:
    """The stack would be larger than the settings allow."""
    width_deg, height_deg = (side * grid.scale_arcsec / 3600.0 for side in (grid.width, grid.height))
    return NotRetriable(
        "stack_too_large",
        f"The stack would have {grid.width} x {grid.height} pixels of {grid.scale_arcsec:g} arcsec "
        f"({width_deg:.2f} x {height_deg:.2f} deg); allowed are {max_side_px} a side and {max_pixels:.3g} in all. "
        "Narrow the selection (`near`, `object`), name `centre`, `width_px` and `height_px`, or raise "
        "SPICA_STACK_MAX_SIDE_PX and SPICA_STACK_MAX_PIXELS.",
        {"width_px": grid.width, "height_px": grid.height, "pixel_scale_arcsec": grid.scale_arcsec},
    )


def no_plane(error: ValueError) -> NotRetriable:
    """The selected images lie so far apart that no projection holds them."""
    return NotRetriable("no_common_plane", f"{error} Narrow the selection with `near` or `object`.")


def no_overlap(grid: TanGrid) -> NotRetriable:
    """No selected image touches the area asked for."""
    return NotRetriable(
        "no_overlap",
        f"None of the selected images touches the area of {grid.width} x {grid.height} pixels of "
        f"{grid.scale_arcsec:g} arcsec around RA {grid.ra_deg:.5f}, Dec {grid.dec_deg:.5f}.",
        {"ra_deg": grid.ra_deg, "dec_deg": grid.dec_deg},
    )


def no_usable_pixels(n_members: int, left_out: Sequence[str]) -> NotRetriable:
    """All that touches the area was left out."""
    return NotRetriable(
        "no_usable_pixels",
        f"None of the {n_members} members has pixels for the stack: {left_out[0]}"
        + (f" (and {len(left_out) - 1} more CCDs)." if len(left_out) > 1 else "."),
        {"members": n_members, "ccds_left_out": len(left_out)},
    )


_FULL = (errno.ENOSPC, errno.EDQUOT)
_PASSING = (
    *(errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN),
    *(errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.ENOTCONN, errno.EHOSTDOWN, errno.EHOSTUNREACH),
)
"""What a file server that is away, or a host in need, says of files that there is nothing wrong with."""


def input_unreadable(path: Path, error: Exception) -> NotRetriable | Retriable:
    """A file of a member cannot be read, or is not what it should be.

    Where the fault is the host's or the file server's, it is tried again; a disk that is too full to unpack is waited for.
    """
    text = f"{path.name} cannot be used: {error} (at {path})."
    number = error.errno if isinstance(error, OSError) else None
    if number in _FULL:
        return Unavailable("disk_full", f"{text} Free some space; the work goes on by itself.")
    return (Retriable if number in _PASSING else NotRetriable)("input_unreadable", text)


def head_does_not_fit(path: Path, blocks: int, ccds: int) -> NotRetriable:
    """A solution has another number of CCDs than its image."""
    return NotRetriable(
        "header_does_not_fit",
        f"{path.name} has {blocks} header blocks, its image {ccds} CCDs.",
        {"blocks": blocks, "ccds": ccds},
    )


def weight_does_not_fit(
    path: Path, ccd: str, found: tuple[int, ...], expected: tuple[int, ...]
) -> NotRetriable:
    """A weight map has another size than its image."""
    return NotRetriable(
        "weight_does_not_fit",
        f"{path.name}[{ccd}] has pixels of shape {found}, its image {expected}.",
    )


def unknown_profile(name: str, known: Collection[str]) -> NotRetriable:
    """A member was taken in with an instrument profile that is not here."""
    return NotRetriable(
        "unknown_profile",
        f"There is no instrument profile {name!r} here; there are {', '.join(sorted(known))} (see SPICA_PROFILES).",
    )


def unknown_stack(stack_id: str) -> NotRetriable:
    """An event names a stack that the store does not know."""
    return NotRetriable("unknown_stack", f"The store knows no stack {stack_id}: it was not planned here.")


def no_joint_solution(missing: Collection[str], n_members: int) -> NotRetriable:
    """The joint solution has no usable member."""
    return NotRetriable(
        "no_joint_solution",
        f"None of the {n_members} members has a joint solution with a flux scale (such as {min(missing)}).",
        {"members": n_members},
    )


def lost_base(stack_id: str) -> NotRetriable:
    """The stack to go on from is not what it was."""
    return NotRetriable(
        "lost_base",
        f"Stack {stack_id} cannot be gone on from: its sums were not kept, or a member of it has no solution or weight "
        "map any more. Ask again without `extends`.",
    )
