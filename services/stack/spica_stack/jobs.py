"""Work for worker processes: reading solutions, making a stack. Files in, files out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from spica_imaging.profiles import load_profiles
from spica_proto.base import Product
from spica_runtime.storage import DataFolder, segment, whole_file

from spica_stack.errors import no_joint_solution, no_overlap, unknown_profile
from spica_stack.fitsout import ImageWriter
from spica_stack.inputs import CcdSize, SolvedCcd, head_for, read_head, read_member, wcs_of
from spica_stack.science.coadd import Exposure, Member, coadd
from spica_stack.science.combine import Clipping, Method, seeing_priorities, seeing_shares
from spica_stack.science.grid import TanGrid, outline
from spica_stack.science.header import Label, stack_header
from spica_stack.science.prepare import NoUsablePixels, prepare_ccd
from spica_stack.science.resample import make_mesh
from spica_stack.science.totals import MemberNumbers, totals
from spica_stack.spool import Spool

Floats = NDArray[np.float64]


# ---- planning ----


@dataclass(frozen=True, slots=True)
class CcdFootprint:
    """Outline of one CCD on the sky, and its pixel scale."""

    ra_deg: Floats
    dec_deg: Floats
    scale_arcsec: float


@dataclass(frozen=True, slots=True)
class Footprint:
    """Outlines of all solved CCDs of one exposure."""

    image_id: str
    ccds: tuple[CcdFootprint, ...]


def footprints(solutions: Sequence[tuple[str, Path, list[CcdSize]]]) -> list[Footprint]:
    """Read where exposures lie. `solutions`: image_id, path of the `.head` file, CCDs in HDU order."""
    found = []
    for image_id, path, sizes in solutions:
        heads = head_for(read_head(path), [size.name for size in sizes], path)
        ccds = []
        for head, size in zip(heads, sizes, strict=True):
            if head is not None:
                wcs = wcs_of(head, path)
                scale = wcs.scale_at(0.5 * (size.nx + 1), 0.5 * (size.ny + 1))
                ccds.append(CcdFootprint(*outline(wcs, 0, size.nx, 0, size.ny), scale))
        found.append(Footprint(image_id, tuple(ccds)))
    return found


# ---- coadding ----


@dataclass(frozen=True, slots=True)
class MemberFiles:
    """One exposure to be stacked."""

    image_id: str
    image: Path
    profile: str
    weight: Path
    head: Path
    flux_scale: float | None
    """Used for CCDs whose header block has no FLXSCALE."""
    exposure_time_s: float
    mjd_obs: float | None
    fwhm_arcsec: float | None
    ellipticity: float | None = None


@dataclass(frozen=True, slots=True)
class CoaddOrder:
    """All that a worker needs to make one stack."""

    data: DataFolder
    folder: str
    """Relative to the data folder."""
    name: str
    grid: TanGrid
    combine: Method
    clipping: Clipping
    members: tuple[MemberFiles, ...]
    label: Label
    profiles: Path | None
    background_mesh_px: int
    memory_bytes: int
    tile_memory_bytes: int
    psf_weight_power: float = 0.0


@dataclass(frozen=True, slots=True)
class CoaddResult:
    """What came of it."""

    image: Product
    weight: Product
    exposures: Product
    n_exposures: int
    exposure_time_s: float
    rejected: int
    left_out: tuple[str, ...]
    log: tuple[str, ...]


@dataclass(slots=True)
class _Loaded:
    """One exposure, prepared."""

    exposure: Exposure
    numbers: list[MemberNumbers] = field(default_factory=list)
    log: list[str] = field(default_factory=list)


def coadd_stack(order: CoaddOrder) -> CoaddResult:
    """Make the stack's image, weight map and exposure map."""
    paths = _paths(order)
    with Spool(order.data.path(order.folder), order.memory_bytes) as spool:
        loaded = [_load(order, member, spool) for member in order.members]
        kept = [(member, part) for member, part in zip(order.members, loaded, strict=True) if part.numbers]
        if not kept:
            if any("flux scale" in line for part in loaded for line in part.log):
                raise no_joint_solution({member.image_id for member in order.members}, len(order.members))
            raise no_overlap(order.grid)
        _set_seeing(order, kept)
        numbers = [_mean_numbers(part) for _, part in kept]
        total = totals(numbers, order.combine)
        products, rejected = _write(order, paths, [part.exposure for _, part in kept], numbers)
    left_out = {member.image_id for member in order.members} - {member.image_id for member, _ in kept}
    return CoaddResult(
        image=products["image"],
        weight=products["weight"],
        exposures=products["exposures"],
        n_exposures=len(kept),
        exposure_time_s=total.exposure_time_s,
        rejected=rejected,
        left_out=tuple(sorted(left_out)),
        log=tuple(line for part in loaded for line in part.log),
    )


def _load(order: CoaddOrder, member: MemberFiles, spool: Spool) -> _Loaded:
    """Read and prepare one exposure; what cannot be used is left out, and said."""
    profiles = load_profiles(order.profiles)
    if member.profile not in profiles:
        raise unknown_profile(member.profile, profiles)
    profile = profiles[member.profile]
    part = _Loaded(Exposure(member.image.name, share=order.clipping.flux_share))
    for name, solved in read_member(member.image, profile, member.weight, member.head):
        where = f"{member.image.name}[{name}]"
        if solved is None:
            part.log.append(f"{where} left out: no solution or no weight map")
            continue
        scale = solved.flux_scale if solved.flux_scale is not None else member.flux_scale
        if scale is None or not (np.isfinite(scale) and scale > 0):
            part.log.append(f"{where} left out: no flux scale")
            continue
        try:
            _add_ccd(order, member, part, solved, scale, spool)
        except NoUsablePixels as error:
            part.log.append(f"{where} left out: {error}")
    return part


def _add_ccd(
    order: CoaddOrder, member: MemberFiles, part: _Loaded, solved: SolvedCcd, scale: float, spool: Spool
) -> None:
    mesh = make_mesh(order.grid, solved.wcs, solved.data.shape, scale, solved.origin)
    if mesh is None:
        part.log.append(f"{member.image.name}[{solved.ccd.name}] does not touch the stack")
        return
    ready = prepare_ccd(solved.data, solved.weight, order.background_mesh_px)
    part.exposure.ccds.append(Member(spool.keep(ready.data), spool.keep(ready.weight), mesh, scale))
    part.numbers.append(
        MemberNumbers(
            exposure_time_s=member.exposure_time_s,
            flux_scale=scale,
            gain_e_per_adu=solved.ccd.gain_e_per_adu,
            noise_adu=ready.noise_adu,
            background_adu=ready.background_adu,
            saturation_adu=solved.ccd.saturation_adu,
            mjd_obs=member.mjd_obs,
        )
    )


def _set_seeing(order: CoaddOrder, kept: Sequence[tuple[MemberFiles, _Loaded]]) -> None:
    """What the seeing of each exposure means for clipping and weighting."""
    fwhm = np.array([member.fwhm_arcsec or np.nan for member, _ in kept], np.float64)
    ellipticity = np.array(
        [np.nan if member.ellipticity is None else member.ellipticity for member, _ in kept], np.float64
    )
    shares = seeing_shares(fwhm, order.clipping.flux_share)
    priorities = seeing_priorities(fwhm, ellipticity, order.psf_weight_power)
    for (_, part), share, priority in zip(kept, shares, priorities, strict=True):
        part.exposure.share, part.exposure.priority = float(share), float(priority)


def _mean_numbers(part: _Loaded) -> MemberNumbers:
    """One exposure's numbers from those of its CCDs; the lowest saturation level counts."""
    ccds = part.numbers
    return MemberNumbers(
        exposure_time_s=ccds[0].exposure_time_s,
        flux_scale=float(np.mean([ccd.flux_scale for ccd in ccds])),
        gain_e_per_adu=float(np.mean([ccd.gain_e_per_adu for ccd in ccds])),
        noise_adu=float(np.mean([ccd.noise_adu for ccd in ccds])),
        background_adu=float(np.mean([ccd.background_adu for ccd in ccds])),
        saturation_adu=min(ccd.saturation_adu for ccd in ccds),
        mjd_obs=ccds[0].mjd_obs,
        priority=part.exposure.priority,
    )


_FILES = {"image": (".fits", -32), "weight": (".weight.fits", -32), "exposures": (".nexp.fits", 16)}


def _paths(order: CoaddOrder) -> dict[str, Path]:
    """Where the files of the stack will stand, by role."""
    name = segment("stack name", order.name)
    return {role: order.data.path(f"{order.folder}/{name}{suffix}") for role, (suffix, _) in _FILES.items()}


def _write(
    order: CoaddOrder,
    paths: Mapping[str, Path],
    exposures: Sequence[Exposure],
    numbers: Sequence[MemberNumbers],
) -> tuple[dict[str, Product], int]:
    """Coadd into three files, which appear whole; returns them and the number of rejected samples."""
    total = totals(numbers, order.combine)
    label = order.label
    rejected = 0
    with ExitStack() as stack:
        writers = {}
        for role, (_, bitpix) in _FILES.items():
            header = stack_header(order.grid, label, total, bitpix=bitpix, role=role)
            part = stack.enter_context(whole_file(paths[role]))
            writers[role] = stack.enter_context(ImageWriter(part, header))
        for strip in coadd(exposures, order.grid, order.combine, order.clipping, order.tile_memory_bytes):
            writers["image"].append(strip.value)
            writers["weight"].append(strip.weight)
            writers["exposures"].append(strip.exposures)
            rejected += strip.rejected
    return {role: order.data.product(path, role) for role, path in paths.items()}, rejected


def software_version() -> str:
    """Version of the code that makes the pixels."""
    return version("spica")
