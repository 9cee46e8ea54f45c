"""Pixels of all CCDs in one picture: the image, its weight, the sky's level, and what is masked."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from spica_imaging.stats import median, median_sigma
from spica_reporting.colours import NO_DATA

from spica_quality.report.colours import REASONS
from spica_quality.report.encoding import overlay_index, stretch
from spica_quality.report.gathering import CcdPictures, SkyMesh
from spica_quality.report.layout import Layout
from spica_quality.science.flags import Bit

Floats = NDArray[np.float64]
Pixels = NDArray[np.float32]
Bytes = NDArray[np.uint8]


def _assemble(
    ccds: Sequence[CcdPictures],
    layout: Layout,
    width: int,
    canvas: NDArray[np.generic],
    of_ccd: Callable[[CcdPictures], NDArray[np.generic] | None],
    cell: Callable[[CcdPictures], tuple[float, float, float, float]],
) -> None:
    """Write each CCD's small array into the canvas, nearest cell; `cell`: left, low edge, width, height of a cell in px."""
    for index, ccd in enumerate(ccds):
        own = of_ccd(ccd)
        if own is None or not own.size:
            continue
        x0, y0, box_x, box_y = cell(ccd)
        rows, columns, x, y = layout.pixels(index, width)
        inside = (x >= -0.5) & (x < ccd.width_px - 0.5) & (y >= -0.5) & (y < ccd.height_px - 0.5)
        column = np.clip(((x + 0.5 - x0) / box_x).astype(int), 0, own.shape[1] - 1)
        row = np.clip(((y + 0.5 - y0) / box_y).astype(int), 0, own.shape[0] - 1)
        canvas[rows, columns][inside] = own[row[inside], column[inside]]


def _block(ccd: CcdPictures) -> tuple[float, float, float, float]:
    factor = float(ccd.coarse.factor)
    return 0.0, 0.0, factor, factor


def _canvas(layout: Layout, width: int, fill: float = np.nan) -> Pixels:
    return np.full((max(round(layout.height * width), 1), width), fill, dtype=np.float32)


def image_mosaic(ccds: Sequence[CcdPictures], layout: Layout, width: int) -> Bytes:
    """The sky-subtracted image, grey levels of shape (rows, width), one stretch for all CCDs."""
    canvas = _canvas(layout, width)
    _assemble(ccds, layout, width, canvas, lambda ccd: ccd.coarse.mean, _block)
    sample = [ccd.coarse.mean.ravel()[::2] for ccd in ccds]
    centre, sigma = median_sigma(np.concatenate(sample)) if sample else (0.0, 1.0)
    grey = stretch(canvas, centre, sigma)
    grey[np.isnan(canvas)] = NO_DATA[0]
    return grey


def mask_mosaic(ccds: Sequence[CcdPictures], layout: Layout, width: int) -> Bytes:
    """Number of the reason to distrust a place, shape (rows, width).

    Cosmic rays are shown only where single pixels are: in blocks of many pixels there is one almost everywhere.
    """
    canvas = np.zeros((max(round(layout.height * width), 1), width), np.uint8)

    def shown(ccd: CcdPictures) -> Bytes:
        return overlay_index(ccd.coarse.reasons, leave_out=int(Bit.COSMIC) if ccd.coarse.factor > 2 else 0)

    _assemble(ccds, layout, width, canvas, shown, _block)
    # Lines and points of one pixel would not be seen on a picture that the page makes smaller.
    thin = np.isin(canvas, [number for number, (bit, _, _) in enumerate(REASONS, start=1) if bit & _THIN])
    return np.where(canvas > 0, canvas, ndimage.maximum_filter(np.where(thin, canvas, np.uint8(0)), size=3))


_THIN = int(Bit.COLUMN | Bit.COSMIC)


def weight_mosaic(ccds: Sequence[CcdPictures], layout: Layout, width: int) -> Pixels:
    """1 / variance of the sky, relative to the image's median, times the share of usable pixels; NaN beside the CCDs."""
    canvas, share = _canvas(layout, width), _canvas(layout, width)
    _assemble(ccds, layout, width, canvas, lambda ccd: None if ccd.sky is None else ccd.sky.rms**-2.0, _box)
    _assemble(ccds, layout, width, share, lambda ccd: ccd.coarse.n_clean / ccd.coarse.n_pixels, _block)
    typical = median(canvas)
    weight = np.where(np.isnan(share), np.nan, np.nan_to_num(canvas / typical, posinf=0.0) * share)
    return np.asarray(weight, dtype=np.float32)


def _box(ccd: CcdPictures) -> tuple[float, float, float, float]:
    assert ccd.sky is not None
    return ccd.sky.x0, ccd.sky.y0, ccd.sky.box_x, ccd.sky.box_y


def level_mosaic(ccds: Sequence[CcdPictures], layout: Layout, width: int) -> Pixels:
    """The sky's level, adu; NaN where it was not measured."""
    canvas = _canvas(layout, width)
    _assemble(ccds, layout, width, canvas, lambda ccd: None if ccd.sky is None else ccd.sky.level, _box)
    return canvas


def deviation_mosaic(ccds: Sequence[CcdPictures], layout: Layout, width: int) -> Pixels:
    """The sky's level less one plane for the whole image and each CCD's own offset, adu.

    What is left is stray light, haloes, fringes and what flat-fielding left; different gains of the CCDs are not.
    """
    deviations = dict(zip((id(ccd) for ccd in ccds), _off_plane(ccds, layout), strict=True))
    canvas = _canvas(layout, width)
    _assemble(ccds, layout, width, canvas, lambda ccd: deviations[id(ccd)], _box)
    return canvas


def _off_plane(ccds: Sequence[CcdPictures], layout: Layout) -> list[Pixels | None]:
    places = [None if ccd.sky is None else _places(index, ccd.sky, layout) for index, ccd in enumerate(ccds)]
    meshes = [
        (place, ccd.sky.level)
        for place, ccd in zip(places, ccds, strict=True)
        if place is not None and ccd.sky is not None and np.count_nonzero(np.isfinite(ccd.sky.level)) >= 4
    ]
    kept = [np.isfinite(level).ravel() for _, level in meshes]
    slope = np.zeros(2)
    for _ in range(5):
        # Each CCD's offset drops out when level and place are taken relative to its own means.
        design, target = [], []
        for (place, level), own in zip(meshes, kept, strict=True):
            if np.count_nonzero(own) >= 4:
                values = level.ravel()[own].astype(np.float64)
                design.append(place[own] - place[own].mean(axis=0))
                target.append(values - values.mean())
        if not design:
            break
        every, wanted = np.concatenate(design), np.concatenate(target)
        slope = np.linalg.lstsq(every, wanted, rcond=None)[0]
        _, sigma = median_sigma(wanted - every @ slope)
        # Haloes of bright stars are no part of the plane.
        kept = [np.abs(_less_plane(level, place, slope).ravel()) <= 3.0 * sigma for place, level in meshes]
    return [
        None if place is None or ccd.sky is None else _less_plane(ccd.sky.level, place, slope)
        for place, ccd in zip(places, ccds, strict=True)
    ]


def _places(index: int, sky: SkyMesh, layout: Layout) -> Floats:
    rows, columns = np.indices(sky.level.shape).reshape(2, -1) + 0.5
    return layout.place(index, sky.x0 + columns * sky.box_x - 0.5, sky.y0 + rows * sky.box_y - 0.5)


def _less_plane(level: Pixels, place: Floats, slope: Floats) -> Pixels:
    rest = level.astype(np.float64) - (place @ slope).reshape(level.shape)
    return np.asarray(rest - median(rest), dtype=np.float32)
