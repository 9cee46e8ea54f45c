"""Looking back at a pixel of a stack that stands: its samples made again from the inputs, by the code that made the stack.

Only the CCDs that see the pixel are prepared. What comes out is held against the stack's own files, bit by bit: if it
differs, an input, its solution or the code changed since.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray
from spica_imaging.profiles import load_profiles
from spica_runtime.errors import UsageError

from spica_stack.errors import input_unreadable
from spica_stack.making.gains import wanted
from spica_stack.making.layers import Desk, Layers, touches
from spica_stack.making.members import CcdSource, open_member, shared_files
from spica_stack.making.order import CoaddOrder
from spica_stack.making.preparing import PreparedCcd, PreparedMember, prepare_ccd, prepared_key
from spica_stack.making.roster import seeing_of
from spica_stack.science.audit import Contribution, Outcome, Seen, contribution, shares_of
from spica_stack.science.combining import PixelAudit, Sums, accumulate, examine, finish, halo_px
from spica_stack.science.pixels import Box
from spica_stack.science.preparing import NoUsablePixels
from spica_stack.science.resampling import make_mesh

_MARGIN_PX = 64.0
"""Around a CCD, in its own pixels: nothing that counts for the pixel's neighbourhood may be missed."""


NOTHING = PixelAudit(float("nan"), 0.0, 0, float("nan"), 0.0, ())
"""Of a pixel that no exposure comes near."""


@dataclass(frozen=True, slots=True)
class AuditedPixel:
    """A pixel of a stack, and all that went into it."""

    x: int
    """FITS pixel of the stack."""
    y: int
    ra_deg: float
    """Of the pixel's centre."""
    dec_deg: float
    stack: Outcome
    """As the stack's files have it."""
    again: Outcome
    """As it comes out of the samples now."""
    median: float | None
    """What samples are held against; None: there are none."""
    local_flux: float
    """Of which samples may differ by a share (clipped mean)."""
    contributions: tuple[Contribution, ...]
    n_elsewhere: int
    """Exposures of the stack that do not cover the pixel."""

    @property
    def agrees(self) -> bool:
        """Whether what comes out now is what the stack has, to the last bit."""
        return self.stack.same(self.again)


def audit_pixel(
    order: CoaddOrder, left_out: Collection[str], files: tuple[Path, Path], x: int, y: int
) -> AuditedPixel:
    """Look at one pixel. Blocking; reads the CCDs that see it, whole, once.

    Parameters
    ----------
    order
        As the stack was made with.
    left_out
        Ids of members that added nothing to it.
    files
        The stack's image and weight.
    x, y
        FITS pixel: the first one is 1, 1.

    Raises
    ------
    UsageError
        The pixel is not in the stack (`outside_stack`).
    NotRetriable
        A file cannot be read (`input_unreadable`).

    """
    grid = order.grid
    if not (1 <= x <= grid.width and 1 <= y <= grid.height):
        raise UsageError(
            "outside_stack",
            f"Pixel {x}, {y} is not in {order.name}, which has {grid.width} x {grid.height} pixels.",
        )
    # All members are looked at, those whose sums were taken over, too.
    order = replace(order, base=None)
    members = [
        n for n, one in enumerate(order.members) if one.image_id not in left_out and one.weight_factor > 0
    ]
    ra, dec = (float(one) for one in grid.pixel_to_sky(np.float64(x), np.float64(y)))
    halo = halo_px(order.parameters.combine, order.parameters.clipping)
    box = (x - 1 - halo, x + halo, y - 1 - halo, y + halo)
    try:
        prepared, seen = _prepared(order, members, box, (ra, dec))
        with Desk(order, prepared) as desk:
            # Also those that only cover it: they may have no sample there.
            layers = desk.layers(box, [member.number for member in prepared])
            return _told(order, members, layers, seen, files, (x, y), (ra, dec), halo)
    finally:
        shared_files().close()  # nobody is likely to look at the same ones next


def _prepared(
    order: CoaddOrder, members: list[int], box: Box, place: tuple[float, float]
) -> tuple[list[PreparedMember], dict[int, tuple[Seen, ...]]]:
    """The members that have to do with a box, and which CCDs of each cover the place itself."""
    prepared, seen = [], {}
    for number in members:
        ccds, seen[number] = _ccds(order, number, box, place)
        if ccds:
            image_id = order.members[number].image_id
            prepared.append(PreparedMember(number, image_id, ccds, (), prepared_key(order, number)))
    return prepared, seen


def _ccds(
    order: CoaddOrder, number: int, box: Box, place: tuple[float, float]
) -> tuple[tuple[PreparedCcd, ...], tuple[Seen, ...]]:
    """CCDs of a member that have to do with a box of the stack, prepared; and those that cover the place itself."""
    files, parameters, grid = order.members[number], order.parameters, order.grid
    profile = load_profiles(order.profiles)[files.profile]
    prepared, seen = [], []
    for source in open_member(files, profile):
        if not isinstance(source, CcdSource):
            continue
        ccd_weight = parameters.ccd_weights.get(source.name, 1.0)
        near = _near(source, grid.scale_arcsec * (box[1] - box[0]), place)
        if near is None or not ccd_weight > 0:
            continue
        if near.covers:
            seen.append(Seen(source.name, near.x, near.y))
        mesh = make_mesh(
            grid, source.wcs, source.shape, source.flux_scale, source.origin,
            parameters.resampling, parameters.oversampling,
        )  # fmt: skip
        if mesh is None or not touches(mesh.window, box):
            continue
        try:
            prepared.append(prepare_ccd(source, parameters, mesh.window, ccd_weight))
        except NoUsablePixels:
            continue
    return tuple(prepared), tuple(seen)


@dataclass(frozen=True, slots=True)
class _Near:
    x: float
    y: float
    covers: bool


def _near(source: CcdSource, size_arcsec: float, place: tuple[float, float]) -> _Near | None:
    """Where on a CCD a place is; None: far beside it. A quick look, before anything is worked out."""
    x, y = (float(one) for one in source.wcs.sky_to_pixel(np.float64(place[0]), np.float64(place[1])))
    (ox, oy), (ny, nx) = source.origin, source.shape
    # In pixels of the CCD, however small those are beside the stack's.
    middle = (ox + 0.5 * (nx + 1), oy + 0.5 * (ny + 1))
    ra, dec = source.wcs.pixel_to_sky(
        np.array([middle[0], middle[0] + 1.0]), np.array([middle[1], middle[1]])
    )
    across = np.hypot((ra[1] - ra[0]) * np.cos(np.radians(dec[0])), dec[1] - dec[0]) * 3600.0
    margin = _MARGIN_PX + 2.0 * size_arcsec / max(float(across), 1e-6)
    inside_x, inside_y = x - ox, y - oy
    if not (-margin < inside_x < nx + margin and -margin < inside_y < ny + margin):
        return None
    return _Near(x, y, 0.5 <= inside_x <= nx + 0.5 and 0.5 <= inside_y <= ny + 0.5)


def _told(
    order: CoaddOrder,
    members: list[int],
    layers: Layers,
    seen: dict[int, tuple[Seen, ...]],
    files: tuple[Path, Path],
    pixel: tuple[int, int],
    place: tuple[float, float],
    halo: int,
) -> AuditedPixel:
    parameters = order.parameters
    shares, priorities = seeing_of(order, [order.members[number] for number in members])
    by_number = dict(zip(members, zip(shares, priorities, strict=True), strict=True))
    share, priority = (
        np.array([by_number[number][one] for number in layers.numbers], np.float32) for one in (0, 1)
    )
    audit = NOTHING if not layers.numbers else examine(
        layers.value, layers.weight, parameters.combine,
        at=(0, 0), halo=halo, share=share, priority=priority, clipping=parameters.clipping,
    )  # fmt: skip
    of_outcome = shares_of(audit, parameters.combine)
    contributions = [
        contribution(
            order.members[number].image_id,
            order.members[number].name,
            seen[number],
            sample,
            of_outcome[layer],
        )
        for layer, (number, sample) in enumerate(zip(layers.numbers, audit.samples, strict=True))
        if sample.weight > 0 or seen[number]
    ]
    again = Outcome(audit.value, audit.weight)
    if wanted(order):
        again = _added(layers, priority, halo)
    return AuditedPixel(
        *pixel,
        *place,
        stack=Outcome(*(_pixel(path, *pixel) for path in files)),
        again=again,
        median=audit.median if np.isfinite(audit.median) else None,
        local_flux=audit.local_flux,
        contributions=tuple(contributions),
        n_elsewhere=len(members) - len(contributions),
    )


def _added(layers: Layers, priority: NDArray[np.float32], halo: int) -> Outcome:
    """As stacks are made whose sums are kept: one exposure after the other."""
    sums = Sums.empty((1, 1))
    middle = np.s_[:, halo : halo + 1, halo : halo + 1]
    accumulate(sums, layers.value[middle], layers.weight[middle], priority)
    done = finish(sums)
    return Outcome(float(done.value[0, 0]), float(done.weight[0, 0]))


def _pixel(path: Path, x: int, y: int) -> float:
    """One pixel of a FITS image."""
    try:
        with fits.open(path, memmap=True) as hdus:
            return float(hdus[0].section[y - 1 : y, x - 1 : x][0, 0])
    except (OSError, IndexError, ValueError) as error:
        raise input_unreadable(path, error) from error
