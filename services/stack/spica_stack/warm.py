"""Compile the stack's kernels into numba's cache: `python -m spica_stack.warm`, after installing.

Not needed, but the first stack of a fresh installation is then no slower than the second.
"""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray
from spica_imaging.head import add_cards, format_head
from spica_imaging.wcs import TpvWcs
from spica_runtime.storage import DataFolder

from spica_stack.making.order import Base, CoaddOrder, MemberFiles
from spica_stack.making.whole import coadd_stack, remove_parts
from spica_stack.science.grid import Grid
from spica_stack.science.header import Label
from spica_stack.science.parameters import Kernel, Method, Parameters

_SIDE = 96
_STEP_DEG = 1.0 / 3600.0
_KINDS = ("float32", "int16", "rice")
"""Of the inputs: each kind is read in a way of its own."""


def warm_up() -> int:
    """Make tiny stacks in each way there is, in a folder that is gone afterwards; returns how many."""
    with tempfile.TemporaryDirectory(prefix="spica-warm-") as folder:
        root = Path(folder)
        members = tuple(_member(root, number, kind) for number, kind in enumerate(_KINDS))
        orders = list(_orders(root, members))
        for order in orders:
            coadd_stack(order)
            remove_parts(order)
        before = replace(orders[-1], members=members[:2], folder="before")
        sums = root / coadd_stack(before).products["sums"].path
        base = Base("before", sums, tuple(member.image_id for member in before.members))
        coadd_stack(replace(orders[-1], base=base, folder="after"))
        return len(orders) + 2


def _orders(root: Path, members: tuple[MemberFiles, ...]) -> list[CoaddOrder]:
    """All methods, all kernels, oversampled ones too, a turned grid, and last a mean that keeps its sums."""
    middle = 0.5 * (_SIDE + 1)
    grid = Grid(10.0, 20.0, middle, middle, 1.0, _SIDE, _SIDE)
    mean = Parameters(combine="weighted_mean")
    ways: list[tuple[Parameters, Grid]] = [
        *((Parameters(combine=method), grid) for method in get_args(Method)),
        *((replace(mean, resampling=kernel), grid) for kernel in get_args(Kernel)),
        *((replace(mean, resampling=kernel, oversampling=2), grid) for kernel in get_args(Kernel)),
        (mean, replace(grid, rotation_deg=30.0)),
        (replace(mean, subtract_background=False, rescale_weights=False), grid),
        (replace(mean, keep_sums=True), grid),
    ]
    return [
        CoaddOrder(
            data=DataFolder(root),
            stack_id="warm",
            folder=f"stack-{number}",
            name="warm",
            grid=grid,
            parameters=parameters,
            members=members,
            label=_label(parameters),
            profiles=None,
        )
        for number, (parameters, grid) in enumerate(ways)
    ]


def _label(parameters: Parameters) -> Label:
    return Label(
        stack_id="warm",
        request_id="warm",
        name="warm",
        filter="r",
        object="",
        instrument="none",
        combine=parameters.combine,
        date="2000-01-01T00:00:00",
        inputs=(),
        reference="none",
        software="warm",
    )


def _member(root: Path, number: int, kind: str) -> MemberFiles:
    """One frame of noise with its weight map and its solution."""
    middle = 0.5 * (_SIDE + 1) + 0.3 * number
    wcs = TpvWcs((10.0, 20.0), (middle, middle), ((_STEP_DEG, 0.0), (0.0, _STEP_DEG)))
    sky = np.random.default_rng(number).normal(100.0, 5.0, (_SIDE, _SIDE)).astype(np.float32)
    paths = [root / f"{number}.{suffix}" for suffix in ("fits", "weight.fits", "head")]
    for path, pixels in zip(paths, (sky, np.full_like(sky, 0.04)), strict=False):
        _write(path, pixels, kind)
    paths[2].write_text(format_head([add_cards(wcs.to_header(), [("FLXSCALE", 1.0, "")])]))
    return MemberFiles(
        image_id=str(number),
        name=str(number),
        image=paths[0],
        profile="generic",
        weight=paths[1],
        head=paths[2],
        flux_scale=1.0,
        exposure_time_s=1.0,
        mjd_obs=None,
        fwhm_arcsec=3.0,
    )


def _write(path: Path, pixels: NDArray[np.float32], kind: str) -> None:
    """A file of one CCD."""
    if kind == "rice":
        hdus = fits.HDUList(
            [fits.PrimaryHDU(), fits.CompImageHDU(pixels, quantize_level=16.0, dither_seed=1)]
        )
    elif kind == "int16" and pixels.max() > 1:
        hdus = fits.HDUList([fits.PrimaryHDU(pixels.astype(np.int16))])
    else:
        hdus = fits.HDUList([fits.PrimaryHDU(pixels)])
    hdus.writeto(path)


if __name__ == "__main__":
    print(f"Kernels of the stack service are compiled ({warm_up()} small stacks made).")
