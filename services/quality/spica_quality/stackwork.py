"""Measuring one stack, tile by tile. Runs in a worker process."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from math import inf, isfinite
from pathlib import PurePosixPath
from typing import Any

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray
from spica_imaging.frame import Section, is_image
from spica_imaging.ldac import LdacTable
from spica_imaging.wcs import TpvWcs
from spica_runtime.storage import segment

from spica_quality.errors import unreadable
from spica_quality.jobs import Assessment, StackOrder
from spica_quality.products import caption_of, metrics_of, reasons_of, write_catalogue, write_preview
from spica_quality.science.detect import Columns
from spica_quality.science.engine import Frame, measure
from spica_quality.science.figures import CcdFigures
from spica_quality.science.grading import grade
from spica_quality.science.preview import Panel, bin_pixels, plane_matrix
from spica_quality.science.summary import summarise

_OVERLAP_PX = 128
"""Tiles see this much of their neighbours, so that sources at the seams are measured whole."""

_PREVIEW_PX = 870
_POSITIONS_X = ("X_IMAGE", "XWIN_IMAGE")
_POSITIONS_Y = ("Y_IMAGE", "YWIN_IMAGE")


@dataclass(frozen=True, slots=True)
class Tile:
    """A tile's own pixels, and the larger rectangle it is measured on."""

    core: Section
    seen: Section


def tiles(nx: int, ny: int, side: int, overlap: int = _OVERLAP_PX) -> Iterator[Tile]:
    """Cover nx × ny pixels with tiles of equal size, at most `side` each way, row by row."""
    columns, rows = -(-nx // side), -(-ny // side)
    xs = [nx * index // columns for index in range(columns + 1)]
    ys = [ny * index // rows for index in range(rows + 1)]
    for y0, y1 in pairwise(ys):
        for x0, x1 in pairwise(xs):
            seen = Section(
                max(x0 - overlap, 0), min(x1 + overlap, nx), max(y0 - overlap, 0), min(y1 + overlap, ny)
            )
            yield Tile(Section(x0, x1, y0, y1), seen)


def assess_stack(order: StackOrder) -> Assessment:
    """See `jobs.measure_stack`."""
    segment("name", order.name)  # before the work, not after it
    image_path, weight_path = order.data.path(order.image), order.data.path(order.weight)
    try:
        with fits.open(image_path) as image, fits.open(weight_path) as weight:
            pixels, weights = _image_hdu(image), _image_hdu(weight)
            work = _StackWork(order, pixels.header)
            for tile in tiles(pixels.shape[1], pixels.shape[0], order.tile_px):
                rows, columns = tile.seen.slices
                work.take(tile, _native(pixels.data[rows, columns]), _native(weights.data[rows, columns]))
    except (OSError, TypeError, IndexError) as error:
        raise unreadable(image_path, error) from error
    return work.finish()


def _image_hdu(hdus: fits.HDUList) -> Any:
    return next(hdu for hdu in hdus if is_image(hdu))


def _native(part: NDArray[Any]) -> NDArray[np.float32]:
    return np.ascontiguousarray(part, dtype=np.float32)


class _StackWork:
    """What is gathered while the tiles go by."""

    def __init__(self, order: StackOrder, header: fits.Header) -> None:
        self.order, self.header = order, header
        self.wcs = TpvWcs.from_header(header)
        self.nx, self.ny = int(header["NAXIS1"]), int(header["NAXIS2"])
        self.scale = self.wcs.scale_at(0.5 * self.nx, 0.5 * self.ny)
        self.factor = max(1, -(-max(self.nx, self.ny) // _PREVIEW_PX))
        self.figures: list[CcdFigures] = []
        self.columns: list[Columns] = []
        self.panels: list[Panel] = []
        self.gain = _positive(header.get("GAIN"), 0.0)
        self.saturation = _positive(header.get("SATURATE"), inf)

    def take(self, tile: Tile, data: NDArray[np.float32], weight: NDArray[np.float32]) -> None:
        """Measure one tile, keep the sources of its core."""
        ny, nx = data.shape
        frame = Frame(data, Section(0, nx, 0, ny), self.gain, self.saturation, weight)
        measured = measure(frame, self.order.tuning.options())
        name = f"{tile.core.x0}+{tile.core.y0}"
        if measured.figures.n_usable or not self.figures:
            self.figures.append(CcdFigures(len(self.figures), name, measured.figures, self.scale))
        if measured.columns:
            self.columns.append(_own(measured.columns, tile))
        core = np.s_[
            tile.core.y0 - tile.seen.y0 : tile.core.y1 - tile.seen.y0,
            tile.core.x0 - tile.seen.x0 : tile.core.x1 - tile.seen.x0,
        ]
        small = bin_pixels(measured.subtracted[core], measured.subtracted[core] != 0, self.factor)
        matrix = plane_matrix(self.wcs, tile.core.x0, tile.core.y0, self.factor, small, self.wcs.crval)
        self.panels.append(Panel(small, matrix))

    def finish(self) -> Assessment:
        """Write catalogue and preview, and judge."""
        order, zeropoint = self.order, self.order.zeropoint_mag
        columns = self._catalogue()
        figures = summarise(self.figures, zeropoint)
        verdict = grade(figures, order.policy, order.profile, "stack")
        caption = caption_of(order.name, order.label, figures, verdict, order.policy.label)
        base = PurePosixPath(order.image).parent / order.name
        return Assessment(
            metrics=metrics_of(figures),
            per_ccd=tuple(tile.row() for tile in self.figures),
            grade=verdict.letter,
            reasons=reasons_of(verdict),
            catalogue=write_catalogue(
                order.data, order.data.path(f"{base}.ldac"), [LdacTable(self.header, columns)]
            ),
            preview=write_preview(order.data, order.data.path(f"{base}.png"), self.panels, caption),
            sources=source_rows(columns, self.scale) if columns else (),
        )

    def _catalogue(self) -> Columns:
        """All tiles together, with sky positions and magnitudes."""
        if not self.columns:
            return {}
        columns = {name: np.concatenate([part[name] for part in self.columns]) for name in self.columns[0]}
        columns["NUMBER"] = np.arange(1, len(columns["NUMBER"]) + 1, dtype=np.int32)
        ra, dec = self.wcs.pixel_to_sky(columns["XWIN_IMAGE"], columns["YWIN_IMAGE"])
        columns["ALPHA_J2000"], columns["DELTA_J2000"] = ra, dec
        flux, error = columns["FLUX_AUTO"].astype(np.float64), columns["FLUXERR_AUTO"].astype(np.float64)
        positive = flux > 0
        safe = np.where(positive, flux, 1.0)
        # 99: source-extractor's way to say that there is no magnitude.
        mag = np.where(positive, self.order.zeropoint_mag - 2.5 * np.log10(safe), 99.0)
        mag_error = np.where(positive, 2.5 / np.log(10.0) * error / safe, 99.0)
        columns["MAG_AUTO"], columns["MAGERR_AUTO"] = mag.astype(np.float32), mag_error.astype(np.float32)
        columns["FWHM_WORLD"] = (columns["FWHM_IMAGE"] * self.scale / 3600.0).astype(np.float32)
        return columns


def _positive(value: Any, default: float) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return default
    return number if isfinite(number) and number > 0 else default


def _own(columns: Columns, tile: Tile) -> Columns:
    """The sources whose position lies in the tile's core, in coordinates of the stack."""
    moved = dict(columns)
    for name in _POSITIONS_X:
        moved[name] = columns[name] + tile.seen.x0
    for name in _POSITIONS_Y:
        moved[name] = columns[name] + tile.seen.y0
    # Pixel i covers [i + 0.5, i + 1.5) in FITS coordinates.
    x, y = moved["X_IMAGE"] - 0.5, moved["Y_IMAGE"] - 0.5
    core = tile.core
    own = (x >= core.x0) & (x < core.x1) & (y >= core.y0) & (y < core.y1)
    return {name: values[own] for name, values in moved.items()}


def source_rows(columns: Columns, scale_arcsec: float) -> tuple[tuple[Any, ...], ...]:
    """Rows of the table `sources`: plain numbers, None where there is no magnitude or size."""

    def optional(values: NDArray[Any], usable: NDArray[np.bool_]) -> list[float | None]:
        return [float(value) if ok else None for value, ok in zip(values, usable, strict=True)]

    bright = columns["FLUX_AUTO"] > 0
    fwhm = columns["FWHM_IMAGE"] * scale_arcsec
    return tuple(
        zip(
            columns["NUMBER"].tolist(),
            columns["ALPHA_J2000"].tolist(),
            columns["DELTA_J2000"].tolist(),
            optional(columns["MAG_AUTO"], bright),
            optional(columns["MAGERR_AUTO"], bright),
            optional(fwhm, np.isfinite(fwhm)),
            optional(columns["ELLIPTICITY"], np.isfinite(columns["ELLIPTICITY"])),
            columns["FLAGS"].tolist(),
            strict=True,
        )
    )
