"""Pixels as FITS files hold them (standard 4.0, sections 4.4.1.1 and 5.3), turned to physical values as float32.

The values are those that astropy's reader gives, to the bit: the same precision at the same step.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spica_imaging._jit import kernel, swap16, swap32

Pixels = NDArray[np.float32]
Bytes = NDArray[np.uint8]

_KINDS = {8: ">u1", 16: ">i2", 32: ">i4", 64: ">i8", -32: ">f4", -64: ">f8"}
_CHUNK = 1 << 18
"""Bytes that are read at a time: little enough to stay in a core's own cache until they are turned."""

ReadInto = Callable[[int, Bytes], None]
_own = threading.local()


@dataclass(frozen=True, slots=True)
class PlainPixels:
    """How the pixels of an image are written."""

    kind: str
    columns: int
    scale: float
    zero: float
    blank: int | None

    @classmethod
    def of(cls, header: Mapping[str, Any], columns: int) -> PlainPixels:
        """Read what the header says. Raises OSError for what no FITS image has."""
        bitpix = header.get("BITPIX")
        scale, zero, blank = header.get("BSCALE", 1), header.get("BZERO", 0), header.get("BLANK")
        if bitpix not in _KINDS or not isinstance(scale, int | float) or not isinstance(zero, int | float):
            raise OSError(f"BITPIX is {bitpix}, BSCALE {scale}, BZERO {zero}")
        if isinstance(blank, bool) or not isinstance(blank, int) or bitpix < 0:
            blank = None
        return cls(_KINDS[bitpix], columns, scale, zero, blank)

    def read(self, source: ReadInto, start: int, box: tuple[int, int, int, int], out: Pixels) -> None:
        """Read the box (y0, y1, x0, x1) of the image whose first byte is at `start` into `out`.

        Whole rows are read even where only some columns are wanted.
        """
        y0, y1, x0, x1 = box
        row = self.columns * np.dtype(self.kind).itemsize
        rows = max(1, _CHUNK // row)
        for y in range(y0, y1, rows):
            n = min(rows, y1 - y)
            raw = own_buffer(n * row)
            source(start + y * row, raw)
            self.turn(raw.reshape(n, row), x0, x1, out[y - y0 : y - y0 + n])

    def turn(self, raw: Bytes, x0: int, x1: int, out: Pixels) -> None:
        """Physical values of columns x0 to x1 of some rows; `raw`: their bytes, shape (rows, bytes per row)."""
        plain = self.scale == 1 and self.zero == 0 and self.blank is None
        if self.kind == ">f4" and plain:
            _swapped(raw.view(np.uint32), x0, x1, out.view(np.uint32))
            return
        if self.kind == ">i2" and self.blank is None:
            # Unsigned numbers, which BZERO = 32768 means, come out the same this way: all of them fit.
            _shorts(raw.view(np.uint16), x0, x1, np.float32(self.scale), np.float32(self.zero), out)
            return
        values = raw.view(self.kind)[:, x0:x1]
        out[...] = values if plain else self._scaled(values)

    def _scaled(self, stored: NDArray[Any]) -> NDArray[Any]:
        bits = 8 * stored.dtype.itemsize
        # BLANK = 0 means nothing to astropy where pixels are scaled; so does BLANK of pseudo-unsigned integers.
        blank = stored == self.blank if self.blank else None
        if self.scale == 1 and stored.dtype.kind == "i" and self.zero == 1 << (bits - 1):
            unsigned = stored.astype(f"u{bits // 8}")
            unsigned -= unsigned.dtype.type(1 << (bits - 1))
            return unsigned
        native = stored.dtype.newbyteorder("=") if stored.dtype.kind == "f" else None
        values = stored.astype(native or (np.float64 if bits > 16 else np.float32))
        if self.scale != 1:
            values *= self.scale
        if self.zero != 0:
            values += self.zero
        if blank is not None:
            values[blank] = np.nan
        return values


def own_buffer(size: int) -> Bytes:
    """Memory of this thread's own, used again and again: fresh memory costs more than reading into it."""
    found: Bytes | None = getattr(_own, "buffer", None)
    if found is None or len(found) < size:
        found = _own.buffer = np.empty(max(size, _CHUNK), np.uint8)
    return found[:size]


@kernel
def _swapped(raw: NDArray[np.uint32], x0: int, x1: int, out: NDArray[np.uint32]) -> None:
    for j in range(out.shape[0]):
        for i in range(x1 - x0):
            out[j, i] = swap32(raw[j, x0 + i])


@kernel
def _shorts(
    raw: NDArray[np.uint16], x0: int, x1: int, scale: np.float32, zero: np.float32, out: Pixels
) -> None:
    for j in range(out.shape[0]):
        for i in range(x1 - x0):
            out[j, i] = np.float32(np.int16(swap16(raw[j, x0 + i]))) * scale + zero
