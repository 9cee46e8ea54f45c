"""What minoc makes of FITS files: all headers as text, and cutouts in pixels."""

from __future__ import annotations

import io
import re
import warnings

from astropy.io import fits
from astropy.utils.exceptions import AstropyWarning


class BadCutout(ValueError):
    """Not a cutout, or none of this file."""


def headers(content: bytes) -> bytes:
    """Every card of every HDU on a line of its own, compressed images as the tables that they are."""
    with warnings.catch_warnings(), fits.open(io.BytesIO(content), disable_image_compression=True) as hdus:
        warnings.simplefilter("ignore", AstropyWarning)
        text = "".join(hdu.header.tostring(sep="\n", padding=False) + "\n" for hdu in hdus)
    return text.encode("ascii")


def cutout(content: bytes, asked: list[str]) -> bytes:
    """`[ext]`, `[name,version]` or `[ext][x1:x2,y1:y2]`, pixels from 1, both ends included; one HDU each."""
    found: list[fits.hdu.base.ExtensionHDU] = []
    with fits.open(io.BytesIO(content)) as hdus:
        for text in asked:
            match = re.fullmatch(r"\[([^\]]+)\](?:\[(\d+):(\d+),(\d+):(\d+)\])?", text)
            if match is None:
                raise BadCutout(f"invalid cutout: {text}")
            try:
                hdu = hdus[_extension(match[1])]
            except (KeyError, IndexError) as error:
                raise BadCutout(f"no such extension: {text}") from error
            if hdu.data is None or hdu.data.ndim != 2:
                raise BadCutout(f"not an image: {text}")
            x1, x2, y1, y2 = (int(part) for part in match.groups()[1:]) if match[2] else (1, *_size(hdu))
            data = hdu.data[y1 - 1 : y2, x1 - 1 : x2]
            if not data.size:
                raise BadCutout(f"no overlap: {text}")
            header = hdu.header.copy()
            for key, first in (("CRPIX1", x1), ("CRPIX2", y1)):
                if key in header:
                    header[key] -= first - 1
            found.append(fits.ImageHDU(data, header))
    written = io.BytesIO()
    fits.HDUList([fits.PrimaryHDU(), *found]).writeto(written)
    return written.getvalue()


def _size(hdu: fits.hdu.base.ExtensionHDU) -> tuple[int, int, int]:
    return hdu.data.shape[1], 1, hdu.data.shape[0]


def _extension(text: str) -> int | str | tuple[str, int]:
    name, _, version = text.partition(",")
    if name.strip().isdecimal():
        return int(name)
    return (name.strip(), int(version)) if version else name.strip()
