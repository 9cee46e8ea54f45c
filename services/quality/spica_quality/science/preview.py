"""A picture of the frame for people: the CCDs as they lie on the sky, with the key figures.

The same input gives the same bytes: Pillow writes no date, and the font comes with matplotlib.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from spica_imaging.stats import median_sigma
from spica_imaging.wcs import TpvWcs, tan_project

Pixels = NDArray[np.float32]
Floats = NDArray[np.float64]

_MARGIN = 14
_LINE = 21
_INK, _DIM, _PAPER, _NO_DATA = (236, 238, 242), (150, 156, 168), (16, 18, 24), (44, 47, 58)
_BADGE = {"A": (64, 160, 96), "B": (92, 132, 190), "C": (206, 152, 52), "D": (196, 72, 64)}


@dataclass(frozen=True, slots=True)
class Panel:
    """One CCD, binned."""

    pixels: Pixels
    """Shape (ny, nx); NaN where no pixel is usable."""
    to_sky: Floats | None
    """Shape (2, 3): (xi, eta) in degrees = M @ (column, row, 1), zero-based binned pixels. None: no WCS."""


@dataclass(frozen=True, slots=True)
class Caption:
    """What is written above the picture."""

    title: str
    lines: tuple[str, ...]
    grade: str
    reasons: tuple[str, ...] = ()


def bin_pixels(subtracted: Pixels, usable: NDArray[np.bool_], factor: int) -> Pixels:
    """Means over factor × factor pixels, NaN where none of them is usable. Rims that do not fill a block go.

    Shapes: (ny, nx) to (ny // factor, nx // factor).
    """
    ny, nx = (max(size // factor, 1) for size in subtracted.shape)
    rows, columns = min(factor, subtracted.shape[0]), min(factor, subtracted.shape[1])
    cut = np.s_[: ny * rows, : nx * columns]
    shape = (ny, rows, nx, columns)
    good = usable[cut].reshape(shape)
    counts = good.sum(axis=(1, 3), dtype=np.int32)
    sums = np.where(good, subtracted[cut].reshape(shape), np.float32(0.0)).sum(axis=(1, 3), dtype=np.float32)
    return np.divide(sums, counts, out=np.full((ny, nx), np.nan, np.float32), where=counts > 0)


def plane_matrix(
    wcs: TpvWcs, x0: int, y0: int, factor: int, small: Pixels, centre: tuple[float, float]
) -> Floats:
    """Linear map from binned pixels to the tangent plane at `centre`, shape (2, 3), degrees."""
    ny, nx = small.shape
    columns, rows = np.array([0.0, nx - 1.0, 0.0]), np.array([0.0, 0.0, ny - 1.0])
    x = x0 + 0.5 + factor * (columns + 0.5)
    y = y0 + 0.5 + factor * (rows + 0.5)
    xi, eta = tan_project(*wcs.pixel_to_sky(x, y), *centre)
    points = np.stack([columns, rows, np.ones(3)])
    return np.asarray(np.stack([xi, eta]) @ np.linalg.inv(points))


def draw_preview(panels: Sequence[Panel], caption: Caption, width_px: int = 900) -> bytes:
    """Draw the panels and the caption; returns a PNG.

    Where every panel has a WCS they are put as on the sky, north up and east left, else side by
    side in order. The stretch is asinh, from 2 sigma below the median to 60 above, the same for all.
    """
    grey, has_sky = _mosaic(panels, width_px - 2 * _MARGIN)
    picture = Image.fromarray(grey, mode="RGB")
    head = _MARGIN + _LINE * (1 + len(caption.lines) + len(caption.reasons)) + 8
    canvas = Image.new("RGB", (width_px, head + picture.height + _MARGIN), _PAPER)
    canvas.paste(picture, ((width_px - picture.width) // 2, head))
    _write(canvas, caption)
    if has_sky:
        _compass(canvas, head)
    target = io.BytesIO()
    canvas.save(target, format="PNG", compress_level=6)
    return target.getvalue()


def _stretch(panels: Sequence[Panel], mosaic: Pixels) -> NDArray[np.uint8]:
    values = np.concatenate([panel.pixels.ravel()[::3] for panel in panels]) if panels else np.empty(0)
    centre, sigma = median_sigma(values)
    if not np.isfinite(centre):
        centre, sigma = 0.0, 1.0
    sigma = sigma if sigma > 0 else 1.0
    with np.errstate(invalid="ignore"):
        level = np.arcsinh((mosaic - (centre - 2.0 * sigma)) / (2.0 * sigma)) / np.arcsinh(31.0)
    shown = np.clip(np.nan_to_num(level, nan=0.0), 0.0, 1.0)
    grey = (255.0 * shown + 0.5).astype(np.uint8)
    colour = np.repeat(grey[:, :, None], 3, axis=2)
    colour[np.isnan(mosaic)] = _NO_DATA
    return colour


def _mosaic(panels: Sequence[Panel], width: int) -> tuple[NDArray[np.uint8], bool]:
    on_sky = bool(panels) and all(panel.to_sky is not None for panel in panels)
    mosaic = _as_on_sky(panels, width) if on_sky else _side_by_side(panels, width)
    return np.ascontiguousarray(_stretch(panels, mosaic)), on_sky


def _as_on_sky(panels: Sequence[Panel], width: int) -> Pixels:
    corners = []
    for panel in panels:
        ny, nx = panel.pixels.shape
        box = np.array([[-0.5, nx - 0.5, -0.5, nx - 0.5], [-0.5, -0.5, ny - 0.5, ny - 0.5], [1, 1, 1, 1]])
        corners.append(_matrix(panel)[:2] @ box)
    every = np.concatenate(corners, axis=1)
    low, high = every.min(axis=1), every.max(axis=1)
    scale = max(float((high - low).max()) / width, 1e-12)
    size = np.maximum(np.ceil((high - low) / scale).astype(int), 1)
    mosaic = np.full((int(size[1]), int(size[0])), np.nan, dtype=np.float32)
    for panel, own in zip(panels, corners, strict=True):
        # East is left: the picture's columns run towards smaller xi; its rows towards smaller eta.
        left, right = ((high[0] - own[0]) / scale).min(), ((high[0] - own[0]) / scale).max()
        top, bottom = ((high[1] - own[1]) / scale).min(), ((high[1] - own[1]) / scale).max()
        columns = np.arange(max(int(left), 0), min(int(np.ceil(right)), size[0]))
        rows = np.arange(max(int(top), 0), min(int(np.ceil(bottom)), size[1]))
        xi = high[0] - (columns + 0.5) * scale
        eta = high[1] - (rows + 0.5) * scale
        inverse = np.linalg.inv(_matrix(panel))
        column = np.rint(inverse[0, 0] * xi[None, :] + inverse[0, 1] * eta[:, None] + inverse[0, 2]).astype(
            int
        )
        row = np.rint(inverse[1, 0] * xi[None, :] + inverse[1, 1] * eta[:, None] + inverse[1, 2]).astype(int)
        ny, nx = panel.pixels.shape
        inside = (column >= 0) & (column < nx) & (row >= 0) & (row < ny)
        part = mosaic[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        part[inside] = panel.pixels[row[inside], column[inside]]
    return mosaic


def _matrix(panel: Panel) -> Floats:
    assert panel.to_sky is not None
    return np.vstack([panel.to_sky, [0.0, 0.0, 1.0]])


def _side_by_side(panels: Sequence[Panel], width: int, gap: int = 4) -> Pixels:
    if not panels:
        return np.full((80, width), np.nan, dtype=np.float32)
    ny = max(panel.pixels.shape[0] for panel in panels)
    nx = max(panel.pixels.shape[1] for panel in panels)
    columns = max(1, min(len(panels), round(float(np.sqrt(len(panels) * ny / nx)))))
    rows = -(-len(panels) // columns)
    sheet = np.full((rows * (ny + gap) - gap, columns * (nx + gap) - gap), np.nan, dtype=np.float32)
    for index, panel in enumerate(panels):
        row, column = divmod(index, columns)
        y, x = row * (ny + gap), column * (nx + gap)
        height, breadth = panel.pixels.shape
        # The first row of pixels is the bottom one, as FITS viewers show it.
        sheet[y : y + height, x : x + breadth] = panel.pixels[::-1]
    zoom = width / max(sheet.shape)
    target = [max(int(size * zoom), 1) for size in sheet.shape]
    take = [
        np.minimum((np.arange(size) / zoom).astype(int), full - 1)
        for size, full in zip(target, sheet.shape, strict=True)
    ]
    return sheet[take[0][:, None], take[1][None, :]]


@cache
def _font(size: int, bold: bool = False) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    spec = find_spec("matplotlib")
    if spec is not None and spec.origin is not None:
        name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
        path = Path(spec.origin).parent / "mpl-data" / "fonts" / "ttf" / name
        if path.is_file():
            return ImageFont.truetype(str(path), size, layout_engine=ImageFont.Layout.BASIC)
    return ImageFont.load_default(size)


def _write(canvas: Image.Image, caption: Caption) -> None:
    draw = ImageDraw.Draw(canvas)
    right = canvas.width - _MARGIN - 46
    y = _MARGIN
    draw.text((_MARGIN, y), _fit(draw, caption.title, 17, right, bold=True), _INK, font=_font(17, True))
    y += _LINE + 2
    for line in caption.lines:
        draw.text((_MARGIN, y), _fit(draw, line, 13, right), _INK, font=_font(13))
        y += _LINE
    for line in caption.reasons:
        draw.text((_MARGIN, y), _fit(draw, line, 13, right), _DIM, font=_font(13))
        y += _LINE
    box = (right + 6, _MARGIN, canvas.width - _MARGIN, _MARGIN + 40)
    draw.rounded_rectangle(box, 8, fill=_BADGE.get(caption.grade, _DIM))
    middle = ((box[0] + box[2]) / 2, (box[1] + box[3]) / 2)
    draw.text(middle, caption.grade, _INK, font=_font(26, True), anchor="mm")


def _fit(draw: ImageDraw.ImageDraw, text: str, size: int, right: int, bold: bool = False) -> str:
    """Shorten with an ellipsis what would run out of the picture."""
    font = _font(size, bold)
    if draw.textlength(text, font=font) <= right - _MARGIN:
        return text
    while text and draw.textlength(text + "…", font=font) > right - _MARGIN:
        text = text[:-1]
    return text + "…"


def _compass(canvas: Image.Image, top: int) -> None:
    draw = ImageDraw.Draw(canvas)
    x, y, length = canvas.width - _MARGIN - 14, canvas.height - _MARGIN - 14, 28
    draw.line((x, y, x, y - length), fill=_BADGE["C"], width=2)
    draw.line((x, y, x - length, y), fill=_BADGE["C"], width=2)
    draw.text((x, y - length - 2), "N", _BADGE["C"], font=_font(12, True), anchor="mb")
    draw.text((x - length - 3, y), "E", _BADGE["C"], font=_font(12, True), anchor="rm")
