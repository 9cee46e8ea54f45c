"""A stack, strip by strip: only the inputs that touch a tile, in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from spica_stack.science.combine import Clipping, Method, combine
from spica_stack.science.grid import TanGrid
from spica_stack.science.resample import Mesh, resample_into

Image = NDArray[np.float32]

TILE_SIDE_PX = 1024
MIN_TILE_SIDE_PX = 64
BYTES_PER_SAMPLE = 9
"""Value, weight and outlier mark."""


@dataclass(frozen=True, slots=True)
class Member:
    """One CCD of one exposure. `data` and `weight` may be memory-mapped."""

    data: Image
    weight: Image
    mesh: Mesh
    flux_scale: float


@dataclass(slots=True)
class Exposure:
    """One exposure: CCDs that share a layer of the stack (where two overlap, the heavier sample counts)."""

    name: str
    ccds: list[Member] = field(default_factory=list)
    share: float = 0.3
    """Share of the local flux by which its samples may differ from the median."""
    priority: float = 1.0
    """Factor on its weight in a mean."""

    def touching(self, x0: int, x1: int, y0: int, y1: int) -> list[Member]:
        """CCDs that may have samples among these output pixels."""
        return [
            ccd
            for ccd in self.ccds
            if ccd.mesh.window[0] < x1
            and ccd.mesh.window[1] > x0
            and ccd.mesh.window[2] < y1
            and ccd.mesh.window[3] > y0
        ]


@dataclass(frozen=True, slots=True)
class Strip:
    """Finished rows of the stack, over its full width."""

    first_row: int
    value: Image
    weight: Image
    exposures: NDArray[np.int16]
    rejected: int


def tile_side(n_exposures: int, memory_bytes: int) -> int:
    """Side of square tiles such that all layers of one fit into the memory; never below 64 px."""
    side = int(np.sqrt(memory_bytes / (BYTES_PER_SAMPLE * max(n_exposures, 1))))
    return int(np.clip(side // 32 * 32, MIN_TILE_SIDE_PX, TILE_SIDE_PX))


def coadd(
    exposures: Sequence[Exposure],
    grid: TanGrid,
    method: Method,
    clipping: Clipping,
    memory_bytes: int = 256_000_000,
) -> Iterator[Strip]:
    """Yield the stack from its first row to its last. Tiles leave no trace in the result."""
    side = tile_side(len(exposures), memory_bytes)
    for y0 in range(0, grid.height, side):
        y1 = min(y0 + side, grid.height)
        value = np.full((y1 - y0, grid.width), np.nan, np.float32)
        weight = np.zeros_like(value)
        count = np.zeros(value.shape, np.int16)
        rejected = 0
        for x0 in range(0, grid.width, side):
            x1 = min(x0 + side, grid.width)
            rejected += _tile(exposures, (x0, x1, y0, y1), method, clipping, value, weight, count)
        yield Strip(y0, value, weight, count, rejected)


def _tile(
    exposures: Sequence[Exposure],
    box: tuple[int, int, int, int],
    method: Method,
    clipping: Clipping,
    value: Image,
    weight: Image,
    count: NDArray[np.int16],
) -> int:
    """Make one tile and put it into its strip; returns the number of rejected samples."""
    halo = clipping.halo_px if method == "clipped_mean" else 0
    x0, x1, y0, y1 = box
    outer = (x0 - halo, x1 + halo, y0 - halo, y1 + halo)
    layers = [(exposure, ccds) for exposure in exposures if (ccds := exposure.touching(*outer))]
    if not layers:
        return 0
    shape = (len(layers), outer[3] - outer[2], outer[1] - outer[0])
    samples, weights = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    for layer, (_, ccds) in enumerate(layers):
        for ccd in ccds:
            resample_into(
                ccd.data,
                ccd.weight,
                ccd.mesh,
                ccd.flux_scale,
                (outer[0], outer[2]),
                samples[layer],
                weights[layer],
            )
    share = np.array([exposure.share for exposure, _ in layers], np.float32)
    priority = np.array([exposure.priority for exposure, _ in layers], np.float32)
    tile = combine(samples, weights, method, halo=halo, share=share, priority=priority, clipping=clipping)
    inside = (slice(None), slice(x0, x1))
    value[inside], weight[inside], count[inside] = tile.value, tile.weight, tile.exposures
    return tile.rejected
