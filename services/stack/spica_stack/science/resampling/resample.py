"""Samples of a CCD on output pixels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from spica_stack.science.pixels import Box, Image, Patch
from spica_stack.science.resampling.mesh import Mesh, overlap
from spica_stack.science.resampling.rows import resample_rows, turned
from spica_stack.science.resampling.taps import N_TAPS

Flat = NDArray[np.float32]


def resample_into(
    patch: Patch, mesh: Mesh, tile_origin: tuple[int, int], out_value: Image, out_weight: Image
) -> None:
    """Resample one CCD into a tile of the output, in place.

    * patch: pixels of the CCD that hold `mesh.needs` of the tile.
    * tile_origin: zero-based output pixel (x, y) of the tile's first pixel.
    * out_value, out_weight: float32, shape of the tile: written where this CCD gives a sample of more weight than what
      stands there. Value: interpolated, times the flux scale and the ratio of pixel areas, so that fluxes summed over a star
      stay what they were. Weight: 1 / variance of the flux per output pixel as it holds for sums over many pixels, area ×
      flux_scale² × the input's variance, without the smoothing by the interpolation, which lowers the scatter from pixel
      to pixel but not that of a star's flux.

    There is no sample where the kernel reaches over the CCD's edge, and none where more than 5 % of the bilinear weight
    falls on unusable pixels. Raises ValueError for a patch that lacks needed pixels.
    """
    height, width = out_value.shape
    x0, y0 = tile_origin
    bounds = overlap(mesh.window, (x0, x0 + width, y0, y0 + height))
    if bounds is None:
        return
    value, stride = _flat(out_value)
    weight, weight_stride = _flat(out_weight)
    if out_weight.shape != out_value.shape or weight_stride != stride:
        raise ValueError(f"value {out_value.shape} and weight {out_weight.shape} of a tile are not alike")
    pixels, nodes, shape = patch, mesh.nodes, mesh.shape
    if mesh.turned:
        # Along an output row, neighbours are to lie side by side: 4 times faster than from row to row.
        pixels, nodes, shape = _turned(patch), nodes[[1, 0, 2]], shape[::-1]
    done = resample_rows(
        (0,) * N_TAPS[mesh.kernel], *_pixels(pixels), _extent(pixels), (0, 0, *shape[::-1]),
        nodes, (mesh.x0, mesh.y0), mesh.step, np.float32(1.0 / mesh.flux_scale), mesh.oversample,
        bounds, value, weight, (x0, y0, stride),
    )  # fmt: skip
    if not done:
        raise ValueError(f"patch {_box(patch)} lacks pixels of {mesh.needs(bounds)}")


def _box(patch: Patch) -> Box:
    ny, nx = patch.data.shape
    return patch.x0, patch.x0 + nx, patch.y0, patch.y0 + ny


def _extent(patch: Patch) -> tuple[int, int, int, int]:
    ny, nx = patch.data.shape
    return patch.x0, patch.y0, nx, ny


def _turned(patch: Patch) -> Patch:
    """Rows as columns."""
    data, weight = _pixels(patch)
    return Patch(
        turned(data.reshape(patch.data.shape)), turned(weight.reshape(patch.data.shape)), patch.y0, patch.x0
    )


def _pixels(patch: Patch) -> tuple[Flat, Flat]:
    if patch.weight.shape != patch.data.shape:
        raise ValueError(f"data {patch.data.shape} and weight {patch.weight.shape} of a patch are not alike")
    data, weight = (
        np.require(plane, np.float32, ["C", "W"]).reshape(-1) for plane in (patch.data, patch.weight)
    )
    return data, weight


def _flat(plane: Image) -> tuple[Flat, int]:
    """The memory of an array whose rows may lie apart, in one dimension; and from row to row."""
    height, width = plane.shape
    if plane.dtype != np.float32 or not plane.flags.writeable or (width > 1 and plane.strides[1] != 4):
        raise ValueError("a tile's planes must be writeable float32, pixel beside pixel")
    stride = plane.strides[0] // 4 if height > 1 else width
    if plane.size == 0 or stride < width:
        raise ValueError(
            f"a tile's plane of shape {plane.shape} and strides {plane.strides} has no pixels to write"
        )
    flat: Flat = np.lib.stride_tricks.as_strided(plane, ((height - 1) * stride + width,), (4,))
    return flat, stride
