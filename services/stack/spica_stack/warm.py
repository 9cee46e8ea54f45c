"""Compile the stack's kernels into numba's cache: `python -m spica_stack.warm`, after installing.

Not needed, but the first stack of a fresh installation is then no slower than the second.
"""

from __future__ import annotations

import numpy as np
from spica_imaging.wcs import TpvWcs

from spica_stack.science.coadd import Exposure, Member, coadd
from spica_stack.science.combine import Clipping, Method
from spica_stack.science.grid import TanGrid
from spica_stack.science.prepare import prepare_ccd
from spica_stack.science.resample import make_mesh

_SIDE = 48
_METHODS: tuple[Method, ...] = ("clipped_mean", "weighted_mean", "median")


def warm_up() -> int:
    """Make a tiny stack in each way there is; returns the number of pixels it has."""
    step = 1.0 / 3600.0
    middle = 0.5 * (_SIDE + 1)
    wcs = TpvWcs((10.0, 20.0), (middle, middle), ((-step, 0.0), (0.0, step)))
    grid = TanGrid(10.0, 20.0, middle, middle, 1.0, _SIDE, _SIDE)
    shape = (_SIDE, _SIDE)
    mesh = make_mesh(grid, wcs, shape, 1.0)
    if mesh is None:
        raise AssertionError("the frame lies on the grid")
    exposures = []
    for number in range(3):
        sky = np.random.default_rng(number).normal(100.0, 5.0, shape).astype(np.float32)
        ready = prepare_ccd(sky, np.ones(shape, np.float32), _SIDE)
        exposures.append(Exposure(str(number), [Member(ready.data, ready.weight, mesh, 1.0)]))
    return sum(
        strip.value.size
        for method in _METHODS
        for strip in coadd(exposures, grid, method, Clipping(), memory_bytes=1_000_000)
    )


if __name__ == "__main__":
    print(f"Kernels of the stack service are compiled ({warm_up()} pixels made).")
