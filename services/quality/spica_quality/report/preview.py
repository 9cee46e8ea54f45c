"""A small picture for lists: the CCDs as they lie on the sky, with the key figures and the grade.

The same input gives the same bytes: Pillow writes no date, and the font comes with matplotlib.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from spica_reporting.encoding import png

from spica_quality.report.gathering import CcdPictures
from spica_quality.report.layout import lay_out
from spica_quality.report.mosaics import image_mosaic

_MARGIN = 14
_LINE = 21
_INK, _DIM, _PAPER = (236, 238, 242), (150, 156, 168), (16, 18, 24)
_BADGE = {"A": (27, 127, 75), "B": (77, 124, 15), "C": (161, 92, 0), "D": (179, 38, 30)}
_COMPASS = (240, 179, 87)


@dataclass(frozen=True, slots=True)
class Caption:
    """What is written above the picture."""

    title: str
    lines: tuple[str, ...]
    grade: str
    reasons: tuple[str, ...] = ()


def draw_preview(ccds: Sequence[CcdPictures], caption: Caption, width_px: int = 900) -> bytes:
    """Draw the CCDs and the caption; returns a PNG.

    Where every CCD has a WCS they are put as on the sky, north up and east left, else side by side in order.
    """
    layout = lay_out(ccds)
    picture = Image.fromarray(image_mosaic(ccds, layout, width_px - 2 * _MARGIN))
    head = _MARGIN + _LINE * (1 + len(caption.lines) + len(caption.reasons)) + 8
    canvas = Image.new("RGB", (width_px, head + picture.height + _MARGIN), _PAPER)
    canvas.paste(picture.convert("RGB"), (_MARGIN, head))
    _write(canvas, caption)
    if layout.on_sky:
        _compass(canvas, head)
    return png(np.asarray(canvas))


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
    if y - length < top:
        return
    draw.line((x, y, x, y - length), fill=_COMPASS, width=2)
    draw.line((x, y, x - length, y), fill=_COMPASS, width=2)
    draw.text((x, y - length - 2), "N", _COMPASS, font=_font(12, True), anchor="mb")
    draw.text((x - length - 3, y), "E", _COMPASS, font=_font(12, True), anchor="rm")
