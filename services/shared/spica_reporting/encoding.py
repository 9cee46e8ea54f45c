"""Pixels to PNG and JPEG bytes, small and always the same for the same pixels."""

from __future__ import annotations

import base64
import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Bytes = NDArray[np.uint8]


def colour_jpeg(picture: Bytes, quality: int = 60) -> bytes:
    """A picture in colour or grey, rows as they come."""
    return saved(Image.fromarray(picture), "JPEG", quality=quality, optimize=True)


def png(picture: Bytes) -> bytes:
    """A picture in colour (and transparency) or grey, rows as they come."""
    return saved(Image.fromarray(picture), "PNG", compress_level=6)


def saved(picture: Image.Image, form: str, **options: object) -> bytes:
    """A picture's bytes; `form` and `options` as Pillow names them."""
    target = io.BytesIO()
    picture.save(target, format=form, **options)
    return target.getvalue()


def data_uri(content: bytes) -> str:
    """For the page itself: nothing is fetched from elsewhere."""
    kind = "jpeg" if content[:2] == b"\xff\xd8" else "png"
    return f"data:image/{kind};base64,{base64.b64encode(content).decode('ascii')}"
