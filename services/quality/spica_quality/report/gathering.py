"""What the report keeps of one CCD while the CCDs go by: small, and ready to be sent between processes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil, isfinite, sqrt
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from spica_imaging.sections import Section
from spica_imaging.stats import median
from spica_imaging.wcs import TpvWcs, tan_project

from spica_quality.report.encoding import grey_jpeg, overlay_index, overlay_png
from spica_quality.science.binning import Binned, bin_frame
from spica_quality.science.flags import UNUSABLE, Bit, Flags
from spica_quality.science.metrics.figures import Row, number
from spica_quality.science.psf.typicalstar import Psf, TypicalStar, moffat_psf, typical_star

Pixels = NDArray[np.float32]
Floats = NDArray[np.float64]
Columns = Mapping[str, NDArray[np.generic]]

_THUMBNAIL_PX = 1200
"""A CCD's own picture has at most this many pixels a side: 4 × 4 pixels of a MegaCam CCD become one."""
_MOSAIC_PX = 1100
_STARS_PER_CELL, _LEAST_STARS = 8, 3
_MOST_CELLS = 120
"""On the whole picture, or 24 per CCD where that is more."""

STAR, SATURATED, POINT_LIKE = 1, 2, 4


class Mesh(Protocol):
    """The sky's level and noise on a mesh over the whole frame."""

    @property
    def level_mesh(self) -> Pixels:
        """Shape (my, mx), adu."""

    @property
    def rms_mesh(self) -> Pixels:
        """Shape (my, mx), adu."""

    @property
    def box_px(self) -> int:
        """Side of a box."""


@dataclass(frozen=True, slots=True)
class SkyMesh:
    """The part of the mesh that lies in the section."""

    level: Pixels
    rms: Pixels
    x0: float
    """Left edge of the first box, in pixels of the section; likewise y0."""
    y0: float
    box_x: float
    """Width of a box, px; likewise box_y."""
    box_y: float


@dataclass(frozen=True, slots=True)
class Cells:
    """Stars in cells of the CCD: medians. Arrays of shape (n,)."""

    x: Floats
    """In pixels of the section, zero-based; likewise y."""
    y: Floats
    fwhm_px: Floats
    e1: Floats
    """(1 - b/a) cos 2θ; e2 with sin 2θ."""
    e2: Floats
    n: NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class Sources:
    """What the diagrams need of the catalogue. Arrays of shape (n,)."""

    flux: Pixels
    """FLUX_AUTO, adu."""
    radius_px: Pixels
    """FLUX_RADIUS."""
    kind: NDArray[np.uint8]
    """Bits STAR (on the stellar locus), SATURATED, POINT_LIKE."""


@dataclass(frozen=True, slots=True)
class CcdPictures:
    """All that the report shows of one CCD besides its figures."""

    name: str
    hdu: int
    width_px: int
    """Of the data section."""
    height_px: int
    to_sky: Floats | None
    """Shape (2, 3): (xi, eta) in degrees = M @ (x, y, 1), zero-based pixels of the section. None: no WCS."""
    thumbnail: bytes
    """JPEG, first row of pixels at the bottom."""
    overlay: bytes | None
    """PNG of the same size: the reasons in colour. None: there is none."""
    thumbnail_px: tuple[int, int]
    """Width, height."""
    thumbnail_factor: int
    coarse: Binned
    """For the mosaics."""
    sky: SkyMesh | None
    cells: Cells
    stamps: TypicalStar | None
    sources: Sources


def gather(
    data: Pixels,
    flags: Flags,
    sky: Mesh | None,
    columns: Columns,
    row: Row,
    *,
    section: Section,
    wcs: TpvWcs | None = None,
    centre: tuple[float, float] | None = None,
    psf: Psf | None = None,
    stars: NDArray[np.bool_] | None = None,
    n_ccds: int = 1,
) -> CcdPictures:
    """Keep what is small of one CCD: some hundred kB.

    Args:
        data: pixels above the sky, shape (ny, nx), adu; of a CCD on which nothing was measured the pixels as they are.
        flags: bits of `flags.Bit`, same shape.
        sky: its mesh; None where it was not measured.
        columns: the catalogue by source-extractor's names; may be empty.
        row: the CCD's figures.
        section: the light-sensitive part, or the core of a stack's tile; only this is shown.
        wcs: of the frame, positions FITS convention; None where there is none.
        centre: RA and Dec, degrees, about which the image's CCDs are projected; the same for all of them.
        psf: model of the point spread function; None: a Moffat profile by the figures stands in.
        stars: which sources of the catalogue are on the stellar locus; None: its column SPICA_STAR tells.
        n_ccds: how many CCDs the image has: mosaics of many are made of smaller pieces.

    """
    ny, nx = section.y1 - section.y0, section.x1 - section.x0
    pixels, reasons = data[section.slices], flags[section.slices]
    factor = max(1, ceil(max(ny, nx) / _THUMBNAIL_PX))
    fine = bin_frame(pixels, reasons, factor)
    shown = fine if (fine.n_valued > 0).any() else bin_frame(_raw(pixels), np.zeros_like(reasons), factor)
    index = overlay_index(fine.reasons)[::-1]
    times = max(1, round(max(ny, nx) * sqrt(max(n_ccds, 1)) / (_MOSAIC_PX * factor)))
    stars = _stars(columns) if stars is None else stars
    if psf is None:
        psf = moffat_psf(
            *(number(row, name) for name in ("fwhm_px", "moffat_beta", "ellipticity", "angle_deg"))
        )
    bad = int(UNUSABLE | Bit.SATURATED)
    return CcdPictures(
        name=str(row.get("name", "")),
        hdu=int(number(row, "hdu")) if row.get("hdu") is not None else 0,
        width_px=nx,
        height_px=ny,
        to_sky=None if wcs is None else _plane(wcs, section, centre or wcs.crval),
        thumbnail=grey_jpeg(shown.mean),
        overlay=overlay_png(index) if index.any() else None,
        thumbnail_px=(fine.mean.shape[1], fine.mean.shape[0]),
        thumbnail_factor=factor,
        coarse=fine.coarser(times),
        sky=None if sky is None else _mesh(sky, data.shape, section),
        cells=_cells(columns, stars, row, section, max(_MOST_CELLS // max(n_ccds, 1), 24)),
        stamps=None
        if psf is None or not stars.any()
        else typical_star(data, flags, bad, columns, stars, psf),
        sources=_sources(columns, stars),
    )


def _raw(pixels: Pixels) -> Pixels:
    """Pixels of a CCD of which none is usable: shown all the same, as they are."""
    return np.where(np.isfinite(pixels), pixels, np.float32(np.nan))


def _plane(wcs: TpvWcs, section: Section, centre: tuple[float, float]) -> Floats:
    nx, ny = section.x1 - section.x0, section.y1 - section.y0
    x, y = np.array([0.0, nx - 1.0, 0.0]), np.array([0.0, 0.0, ny - 1.0])
    xi, eta = tan_project(*wcs.pixel_to_sky(x + section.x0 + 1.0, y + section.y0 + 1.0), *centre)
    return np.asarray(np.stack([xi, eta]) @ np.linalg.inv(np.stack([x, y, np.ones(3)])))


def _mesh(sky: Mesh, shape: tuple[int, int], section: Section) -> SkyMesh:
    """The boxes that lie at least half in the section; the last ones of a row or column are the smaller ones."""
    my, mx = sky.level_mesh.shape
    side_x, side_y = min(float(sky.box_px), shape[1] / mx), min(float(sky.box_px), shape[0] / my)
    if mx * sky.box_px >= shape[1] and my * sky.box_px >= shape[0]:
        side_x = side_y = float(sky.box_px)
    left, right = round(section.x0 / side_x), max(round(section.x1 / side_x), round(section.x0 / side_x) + 1)
    low, high = round(section.y0 / side_y), max(round(section.y1 / side_y), round(section.y0 / side_y) + 1)
    cut = np.s_[low:high, left:right]
    return SkyMesh(
        np.array(sky.level_mesh[cut], dtype=np.float32),
        np.array(sky.rms_mesh[cut], dtype=np.float32),
        left * side_x - section.x0,
        low * side_y - section.y0,
        side_x,
        side_y,
    )


def _stars(columns: Columns) -> NDArray[np.bool_]:
    return np.asarray(columns["SPICA_STAR"]) != 0 if "SPICA_STAR" in columns else np.zeros(0, np.bool_)


def _sources(columns: Columns, stars: NDArray[np.bool_]) -> Sources:
    if "FLUX_AUTO" not in columns:
        return Sources(np.empty(0, np.float32), np.empty(0, np.float32), np.empty(0, np.uint8))
    flux = np.asarray(columns["FLUX_AUTO"], dtype=np.float32)
    kind = np.zeros(flux.shape, np.uint8)
    if stars.size:
        kind[stars] |= STAR
    kind[(np.asarray(columns["FLAGS"], dtype=np.int64) & 4) != 0] |= SATURATED
    if "CLASS_STAR" in columns:
        kind[np.asarray(columns["CLASS_STAR"], dtype=np.float64) > 0.5] |= POINT_LIKE
    return Sources(flux, np.asarray(columns["FLUX_RADIUS"], dtype=np.float32), kind)


def _of(columns: Columns, chosen: NDArray[np.intp], *names: str) -> list[Floats]:
    return [np.asarray(columns[name], np.float64)[chosen] if chosen.size else np.empty(0) for name in names]


def _shapes(columns: Columns, chosen: NDArray[np.intp]) -> tuple[Floats, Floats]:
    """(1 - b/a) times cos 2θ and sin 2θ: from adaptive moments where there are, which no threshold cuts."""
    if "E1_ADAPT" not in columns:
        ellipticity, theta = _of(columns, chosen, "ELLIPTICITY", "THETA_IMAGE")
        return ellipticity * np.cos(2.0 * np.radians(theta)), ellipticity * np.sin(2.0 * np.radians(theta))
    e1, e2 = _of(columns, chosen, "E1_ADAPT", "E2_ADAPT")
    size = np.clip(np.hypot(e1, e2), 1e-9, 0.999)  # (a² - b²) / (a² + b²)
    share = (1.0 - np.sqrt((1.0 - size) / (1.0 + size))) / size
    return e1 * share, e2 * share


def _cells(columns: Columns, stars: NDArray[np.bool_], row: Row, section: Section, most: int) -> Cells:
    """Medians of the stars' width and shape in cells of some eight stars, at most `most` cells."""
    chosen = np.flatnonzero(stars)
    x, y, width = _of(columns, chosen, "X_IMAGE", "Y_IMAGE", "FWHM_IMAGE")
    x, y = x - 1.0 - section.x0, y - 1.0 - section.y0
    e1, e2 = _shapes(columns, chosen)
    # The catalogue's widths are to have the median that the figures state.
    typical, stated = median(width), number(row, "fwhm_px")
    width = width * (stated / typical if typical > 0 and isfinite(stated) else 1.0)
    nx, ny = section.x1 - section.x0, section.y1 - section.y0
    goal = float(np.clip(chosen.size / _STARS_PER_CELL, 1, most))
    n_columns = max(1, round(sqrt(goal * nx / ny)))
    n_rows = max(1, round(goal / n_columns))
    column = np.clip((x * n_columns / nx).astype(int), 0, n_columns - 1)
    line = np.clip((y * n_rows / ny).astype(int), 0, n_rows - 1)
    parts: list[tuple[float, ...]] = []
    for cell in np.unique(line * n_columns + column):
        own = (line * n_columns + column) == cell
        n = int(np.count_nonzero(own))
        figures = (median(width[own]), median(e1[own]), median(e2[own]), float(n))
        # Few stars say little, but where the whole CCD has no more they are what there is.
        if n >= min(_LEAST_STARS, chosen.size) and np.isfinite(figures).all():
            place = ((cell % n_columns + 0.5) * nx / n_columns, (cell // n_columns + 0.5) * ny / n_rows)
            parts.append((*place, *figures))
    x, y, width, e1, e2, counts = np.array(parts, dtype=np.float64).reshape(-1, 6).T
    return Cells(x, y, width, e1, e2, counts.astype(np.int32))
