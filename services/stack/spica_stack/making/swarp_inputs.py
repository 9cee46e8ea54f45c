"""What SWarp is given: plain files of the members' CCDs and weights, their solved headers, and the output grid.

The members' files are written anew: compressed ones SWarp does not read in all their kinds, overscan it would take for
sky, it knows no CCD without a solution, and what a NaN does to it depends on where it meets it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray
from spica_imaging.head import add_cards, format_head
from spica_imaging.profiles import load_profiles

from spica_stack.errors import no_joint_solution, no_overlap, unknown_profile
from spica_stack.making.members import CcdSource, LeftOut, open_member
from spica_stack.making.order import CoaddOrder, MemberFiles, Tell
from spica_stack.making.swarp_words import CONFIGURATION, GRID, INPUTS, as_text, configuration
from spica_stack.science.grid import Grid
from spica_stack.science.resampling import make_mesh

_BLOCK = 2880


@dataclass(frozen=True, slots=True)
class Input:
    """One exposure as SWarp finds it."""

    number: int
    """Of the member, from 0."""
    files: MemberFiles
    ccds: tuple[CcdSource, ...]

    @property
    def stem(self) -> str:
        """Of its files: names of images may be anything, these are not."""
        return f"member{self.number:05d}"

    def resampled(self, ccd: int) -> str:
        """What SWarp calls the resampled weights of one of its CCDs."""
        return f"{self.stem}.{ccd + 1:04d}.resamp.weight.fits"


def write_inputs(order: CoaddOrder, scratch: Path, tell: Tell) -> tuple[list[Input], list[str]]:
    """Write all that SWarp needs; returns what it is given, and what was left out, in words.

    Raises `NotRetriable`: `unknown_profile`, `input_unreadable` and the like, `no_overlap`, `no_joint_solution`.
    """
    profiles = load_profiles(order.profiles)
    inputs: list[Input] = []
    log: list[str] = []
    tell("prepare", 0, len(order.members))
    for number, files in enumerate(order.members):
        if files.profile not in profiles:
            raise unknown_profile(files.profile, profiles)
        used, left = _sorted_out(order, files, open_member(files, profiles[files.profile]))
        log += left
        if used:
            one = Input(number, files, tuple(used))
            _write_member(one, scratch)
            inputs.append(one)
        tell("prepare", number + 1, len(order.members))
    if not inputs:
        if any("flux scale" in line for line in log):
            raise no_joint_solution({member.image_id for member in order.members}, len(order.members))
        raise no_overlap(order.grid)
    (scratch / GRID).write_text(grid_head(order.grid))
    (scratch / CONFIGURATION).write_text(as_text(configuration(order)))
    (scratch / INPUTS).write_text("".join(f"{one.stem}.fits\n" for one in inputs))
    return inputs, log


def grid_head(grid: Grid) -> str:
    """The output grid as SWarp takes it: a header file beside its output."""
    size = [("NAXIS", 2, ""), ("NAXIS1", grid.width, ""), ("NAXIS2", grid.height, "")]
    return format_head([add_cards(add_cards(fits.Header(), size), grid.wcs_cards())])


def _sorted_out(
    order: CoaddOrder, files: MemberFiles, found: Sequence[CcdSource | LeftOut]
) -> tuple[list[CcdSource], list[str]]:
    """CCDs that SWarp is given, and the others, in words."""
    used: list[CcdSource] = []
    left: list[str] = []
    for one in found:
        where = f"{files.image.name}[{one.name}]"
        if isinstance(one, LeftOut):
            left.append(f"{where} left out: {one.why}")
        elif files.weight_factor == 0 or order.parameters.ccd_weights.get(one.name) == 0:
            left.append(f"{where} left out: weight 0 was asked for")
        elif make_mesh(order.grid, one.wcs, one.shape, one.flux_scale, one.origin) is None:
            left.append(f"{where} does not touch the stack")
        else:
            used.append(one)
    return used, left


def _write_member(one: Input, scratch: Path) -> None:
    heads = []
    with (
        (scratch / f"{one.stem}.fits").open("wb") as image,
        (scratch / f"{one.stem}.weight.fits").open("wb") as weights,
    ):
        primary = fits.PrimaryHDU().header.tostring().encode("ascii")
        image.write(primary)
        weights.write(primary)
        for ccd in one.ccds:
            ny, nx = ccd.shape
            data, weight = usable(*ccd.read((0, nx, 0, ny)))
            _append(image, ccd.name, data, [("GAIN", ccd.gain_e_per_adu), ("SATURATE", ccd.saturation_adu)])
            _append(weights, ccd.name, weight, [])
            crpix = (ccd.wcs.crpix[0] - ccd.origin[0], ccd.wcs.crpix[1] - ccd.origin[1])
            head = replace(ccd.wcs, crpix=crpix).to_header()
            heads.append(add_cards(head, [("EXTNAME", ccd.name, ""), ("FLXSCALE", ccd.flux_scale, "")]))
    (scratch / f"{one.stem}.head").write_text(format_head(heads))


def usable(
    data: NDArray[np.float32], weight: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Pixels that are all finite, and weights that are 0 where they were not. Shapes (ny, nx)."""
    good = np.isfinite(data) & np.isfinite(weight) & (weight > 0)
    known = data[good]
    # The sky, so that nothing rings.
    level = np.float32(np.median(known[:: max(known.size // 100_000, 1)])) if known.size else np.float32(0.0)
    return np.where(np.isfinite(data), data, level), np.where(good, weight, np.float32(0.0))


def _append(file: BinaryIO, name: str, data: NDArray[Any], cards: Sequence[tuple[str, float]]) -> None:
    """One image extension."""
    header = fits.ImageHDU(data).header
    add_cards(header, [("EXTNAME", name, ""), *((keyword, float(value), "") for keyword, value in cards)])
    file.write(header.tostring().encode("ascii"))
    file.write(data.astype(">f4").data)
    file.write(b"\0" * (-4 * data.size % _BLOCK))


def fields_of(inputs: Sequence[Input]) -> Iterator[tuple[Input, int]]:
    """Inputs and CCDs in the order in which SWarp counts them."""
    for one in inputs:
        for ccd in range(len(one.ccds)):
            yield one, ccd
