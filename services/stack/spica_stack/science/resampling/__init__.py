"""Resampling of CCDs onto the pixel grid of a stack: where output pixels fall, and what is read there.

`wcs_from_header` reads world coordinates of any kind. `make_mesh` says once per CCD where the output's pixels fall on it:
`Mesh.window` are the output pixels that may see it, `Mesh.needs(box)` the CCD's pixels that an output box needs.
`resample_into` then makes samples from a patch of the CCD. The same mesh and pixels give the same bits, however output
and patches are cut, and on whatever host.
"""

from __future__ import annotations

from spica_stack.science.resampling.mesh import Mesh, make_mesh, window_of
from spica_stack.science.resampling.resample import resample_into
from spica_stack.science.resampling.worlds import AstropyWcs, wcs_from_header

__all__ = ["AstropyWcs", "Mesh", "make_mesh", "resample_into", "wcs_from_header", "window_of"]
