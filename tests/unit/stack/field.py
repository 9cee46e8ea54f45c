"""Exposures on disk with known truth: images, weight maps and solved headers of one field."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray
from spica_imaging.head import add_cards, format_head
from spica_imaging.wcs import TpvWcs
from spica_runtime.storage import DataFolder
from spica_stack.making.order import CoaddOrder, MemberFiles
from spica_stack.science.grid import TanGrid, covering_grid, outline
from spica_stack.science.header import Label
from spica_stack.science.parameters import Parameters

from tests.unit.stack.sky import Stars, render, wcs_at

SIDE = 192
SCALE = 0.2
ADU_PER_COUNT = (1.0, 0.8, 1.25)
"""How many adu a flux of one count of the stack gives: differs between exposures."""


@dataclass(frozen=True)
class CcdSize:
    """Name and size of one CCD, as the store knows it."""

    name: str
    nx: int
    ny: int


@dataclass(frozen=True)
class Exposure:
    """One exposure as it stands on disk."""

    files: MemberFiles
    sizes: list[CcdSize]
    wcs: list[TpvWcs]


def write_exposure(
    folder: Path,
    number: int,
    stars: Stars,
    rng: np.random.Generator,
    *,
    fwhm_px: float = 4.5,
    noise: float = 5.0,
    side: int = SIDE,
    ccds: int = 2,
    compressed: bool = True,
) -> Exposure:
    """Two CCDs side by side, a few pixels apart, dithered and turned a little; cosmic rays; a bad column."""
    adu = ADU_PER_COUNT[number % len(ADU_PER_COUNT)] * 50
    turn, dither = rng.uniform(-2, 2), rng.uniform(-12, 12, 2)
    images, weights, heads, all_wcs = [fits.PrimaryHDU()], [fits.PrimaryHDU()], [], []
    images[0].header.update(
        {"EXPTIME": 50.0, "FILTER": "r", "OBJECT": "F1", "GAIN": 2.0, "SATURATE": 60000.0}
    )
    for ccd in range(ccds):
        name = f"CCD{ccd:02d}"
        offset = ((ccds - 1) / 2 - ccd) * (side + 4)
        wcs = wcs_at((side, side), scale=SCALE, rotation=turn, shift=(offset + dither[0], dither[1]))
        data = 300 + 0.05 * np.arange(side) + rng.normal(0, noise, (side, side))
        data += render((side, side), wcs, Stars(stars.ra, stars.dec, stars.flux * adu), fwhm_px)
        weight = np.full((side, side), 1 / noise**2, np.float32)
        for y, x in rng.integers(5, side - 5, (12, 2)):
            data[y, x : x + 4] += rng.uniform(500, 5000)
        data[:, 40] = 65000
        weight[:, 40] = 0
        images.append(_hdu(data.astype(np.float32), name, compressed))
        weights.append(_hdu(weight, name, compressed))
        head = wcs.to_header()
        add_cards(head, [("EXTNAME", name, ""), ("FLXSCALE", 1 / adu, "")])
        heads.append(head)
        all_wcs.append(wcs)
    suffix = ".fits.fz" if compressed else ".fits"
    stem = f"{700 + number}p"
    files = MemberFiles(
        image_id=f"{stem}.0",
        name=stem,
        image=folder / f"{stem}{suffix}",
        profile="generic",
        weight=folder / f"{stem}.weight{suffix}",
        head=folder / f"{stem}.head",
        flux_scale=1 / adu,
        exposure_time_s=50.0,
        mjd_obs=60000.0 + number,
        fwhm_arcsec=fwhm_px * SCALE,
    )
    folder.mkdir(parents=True, exist_ok=True)
    fits.HDUList(images).writeto(files.image)
    fits.HDUList(weights).writeto(files.weight)
    files.head.write_text(format_head(heads))
    return Exposure(files, [CcdSize(f"CCD{k:02d}", side, side) for k in range(ccds)], all_wcs)


def _hdu(data: NDArray[np.float32], name: str, compressed: bool) -> fits.ImageHDU | fits.CompImageHDU:
    if compressed:
        # Quantised finely, with a fixed seed: the truth is to be seen through it.
        return fits.CompImageHDU(
            data, name=name, compression_type="RICE_1", quantize_level=64.0, dither_seed=7
        )
    return fits.ImageHDU(data, name=name)


PARAMETERS = Parameters(background_mesh_px=48, psf_weight_power=0.0)


def order_for(
    root: Path,
    exposures: list[Exposure],
    grid: TanGrid,
    parameters: Parameters = PARAMETERS,
    **other: Any,
) -> CoaddOrder:
    """What a worker is given to stack these exposures."""
    members = tuple(exposure.files for exposure in exposures)
    order = CoaddOrder(
        data=DataFolder(root),
        stack_id="s1",
        folder="stacks/s1",
        name="F1_r",
        grid=grid,
        parameters=parameters,
        members=members,
        label=Label(
            stack_id="s1",
            request_id="q1",
            name="F1_r",
            filter="r",
            object="F1",
            instrument="test",
            combine=parameters.combine,
            date="2004-12-24T00:00:00",
            inputs=tuple(member.image.name for member in members),
            reference="truth",
            software="0.1.0",
        ),
        profiles=None,
    )
    return replace(order, **other)


def covering(exposures: list[Exposure]) -> TanGrid:
    """The grid that covers them all."""
    outlines = [
        outline(wcs, 0, size.nx, 0, size.ny)
        for exposure in exposures
        for wcs, size in zip(exposure.wcs, exposure.sizes, strict=True)
    ]
    return covering_grid(outlines, SCALE)
