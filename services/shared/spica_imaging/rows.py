"""Pixels of FITS images, some rows at a time: only what is asked for is read, and it is the same whichever rows go with it.

A `RowFile` knows the images of a file by their places; an `ImageRows` reads rows of one of them as float32, with the
values that `frame.iter_ccds` gives, to the bit. Plain images are read where they stand. Of tile-compressed ones
the tiles that hold the rows are decoded. Files that are compressed as a whole are unpacked once into an
unnamed scratch file and are plain from there on. What is left (HCOMPRESS, PLIO, images that are one single tile, files
whose structure only a general reader can follow) is decoded whole, once, and kept as long as there is room.
"""

from __future__ import annotations

import math
import os
import tempfile
import threading
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias, cast

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray

from spica_imaging.cards import BLOCK, Cards, CompressedCards, end_of_header
from spica_imaging.frame import is_image
from spica_imaging.keeping import Kept
from spica_imaging.packed import START_BYTES, PackedError, Unpacked, is_readable, packing
from spica_imaging.plainpixels import PlainPixels, own_buffer
from spica_imaging.tiles import NotHandledError, TiledImage, scaled
from spica_imaging.tiletable import TileError

Pixels = NDArray[np.float32]

_FIRST_LOOK = 8 * BLOCK
_MOST_HEADER_BYTES = 4000 * BLOCK
_LARGEST_TILE_PIXELS = 1 << 20
"""Images whose rows of tiles hold more than this are decoded whole, and kept."""
_BEYOND = 1024
"""Bytes behind a tile that the Rice decoder may look at."""

Header: TypeAlias = Cards | CompressedCards | fits.Header


class _NotFollowedError(Exception):
    """The file's structure is not what this reader can follow."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where an image stands in its file (of one that was packed: in what it holds)."""

    index: int
    """Number of the HDU."""
    start: int
    """First byte of its header; -1: only a general reader finds it."""
    data: int
    """First byte of its data."""
    behind: int
    """First byte behind its data."""


class RowFile:
    """A FITS file open for reading; any thread may read from it."""

    def __init__(self, path: Path, kept: Kept | None = None) -> None:
        """Open; compressed as a whole, it is unpacked now. Raises OSError."""
        self.path = path
        self.kept = kept or Kept(0)
        self._file = path.open("rb")
        try:
            self._stat = os.fstat(self._file.fileno())
            name = packing(os.pread(self._file.fileno(), START_BYTES, 0))
            self.is_packed = name is not None
            if name is not None:
                self._unpack(name)
        except BaseException:
            self._file.close()
            raise
        self.size = os.fstat(self._file.fileno()).st_size
        self._lock = threading.RLock()
        self._images: tuple[ImageRows, ...] | None = None
        self._primary: Header | None = None
        self._found: dict[Place, ImageRows] = {}

    def _unpack(self, name: str) -> None:
        if not is_readable(name):
            raise OSError(f"{self.path.name} is compressed with {name}, which is not read here.")
        target = tempfile.TemporaryFile(prefix="spica-unpacked-")  # noqa: SIM115 - closed with this object
        try:
            with self._file as raw:
                stream = Unpacked(raw, name)
                while part := stream.read(1 << 20):
                    target.write(part)
            target.flush()
        except PackedError as error:
            target.close()
            raise OSError(f"{self.path.name} is damaged: {error}.") from error
        except BaseException:
            target.close()
            raise
        self._file = cast(Any, target)

    def images(self) -> tuple[ImageRows, ...]:
        """All images of two axes, in the order of their HDUs. Raises OSError."""
        with self._lock:
            if self._images is None:
                try:
                    self._images = self._followed()
                except _NotFollowedError:
                    self._images = self._by_astropy()
            return self._images

    @property
    def primary(self) -> Header:
        """The primary header."""
        self.images()
        assert self._primary is not None
        return self._primary

    def at(self, place: Place) -> ImageRows:
        """Find the image at a place that is known from before. Raises OSError where there is none."""
        found = self._found.get(place)
        if found is None:
            if place.start < 0:
                found = next((image for image in self.images() if image.place == place), None)
            elif place.behind <= self.size:
                found = self._image_at(place)
            if found is None:
                raise OSError(f"{self.path.name}, HDU {place.index}: there is no such image any more.")
            self._found[place] = found
        return found

    def _image_at(self, place: Place) -> ImageRows | None:
        cards = Cards(self.read(place.start, place.data - place.start))
        try:
            return self._image(place, cards) if place.behind == place.data + _data_bytes(cards) else None
        except _NotFollowedError:
            return None

    def read(self, start: int, size: int) -> bytes:
        """Bytes from `start` on, fewer at the end of the file."""
        return os.pread(self._file.fileno(), max(min(size, self.size - start), 0), start)

    def read_into(self, start: int, target: NDArray[np.uint8]) -> None:
        """Fill `target`, shape (n,), with the bytes from `start` on. Raises OSError where the file ends before."""
        view, done = memoryview(cast(Any, target)), 0
        while done < len(target):
            n = os.preadv(self._file.fileno(), [view[done:]], start + done)
            if n == 0:
                raise OSError(f"{self.path.name} ends before its pixels do.")
            done += n

    def is_current(self) -> bool:
        """Whether it still is the file that stands at its path. Raises OSError where none does."""
        now = self.path.stat()
        return os.path.samestat(now, self._stat) and now.st_mtime_ns == self._stat.st_mtime_ns

    def close(self) -> None:
        """Close the file, and forget what was kept of it."""
        self._file.close()
        self.kept.forget(lambda key: isinstance(key, tuple) and key[0] == id(self))

    # ---- where images stand ----

    def _followed(self) -> tuple[ImageRows, ...]:
        images, start, index = [], 0, 0
        while start < self.size:
            content = self._header_at(start)
            data = start + len(content)
            cards = Cards(content[: end_of_header(content)])
            if not content.startswith(b"SIMPLE  =" if index == 0 else b"XTENSION="):
                raise _NotFollowedError
            behind = data + _data_bytes(cards)
            image = self._image(Place(index, start, data, behind), cards)
            if index == 0:
                self._primary = cards
            if image is not None:
                images.append(image)
            start, index = -(-behind // BLOCK) * BLOCK, index + 1
        if index == 0:
            raise _NotFollowedError
        return tuple(images)

    def _header_at(self, start: int) -> bytes:
        """Blocks of a header, END and what fills the last one included."""
        size = _FIRST_LOOK
        while True:
            content = self.read(start, size)
            end = end_of_header(content)
            if end >= 0:
                blocks = (end // BLOCK + 1) * BLOCK
                if blocks > len(content):
                    raise _NotFollowedError
                return content[:blocks]
            if len(content) < size or size > _MOST_HEADER_BYTES:
                raise _NotFollowedError
            size *= 2

    def _image(self, place: Place, cards: Cards) -> ImageRows | None:
        """The image that a header tells of; None for tables, cubes, empty HDUs."""
        kind = cards.get("XTENSION", "IMAGE" if cards.get("SIMPLE") is True else None)
        if kind == "IMAGE":
            if cards.get("NAXIS") != 2 or cards.get("GROUPS") is True:
                return None
            return PlainRows(self, place, cards)
        if kind in ("BINTABLE", "A3DTABLE") and cards.get("ZIMAGE") is True:
            if cards.get("ZNAXIS") != 2:
                return None
            return TiledRows(self, place, CompressedCards(cards))
        if kind is None:
            raise _NotFollowedError
        return None

    def _by_astropy(self) -> tuple[ImageRows, ...]:
        with fits.open(self._again(), memmap=False, lazy_load_hdus=True) as hdus:
            self._primary = hdus[0].header
            return tuple(
                WholeRows(self, Place(index, -1, -1, -1), hdu.header)
                for index, hdu in enumerate(hdus)
                if is_image(hdu)
            )

    def whole(self, index: int) -> Pixels:
        """All pixels of one HDU, as astropy reads them."""

        def decode() -> Pixels:
            with self._lock, fits.open(self._again(), memmap=False, lazy_load_hdus=True) as hdus:
                return np.ascontiguousarray(hdus[index].data, np.float32)

        try:
            return self.kept.get((id(self), index), decode, lambda pixels: pixels.nbytes)
        except (TypeError, ValueError, IndexError) as error:
            raise OSError(f"{self.path}, HDU {index}: {error}.") from error

    def _again(self) -> Any:
        """The file for a reader that goes through it; where it was unpacked, under the lock only."""
        if not self.is_packed:
            return self.path
        again = os.fdopen(os.dup(self._file.fileno()), "rb")
        again.seek(0)
        return again


def _data_bytes(cards: Cards) -> int:
    """Length of the data that a header tells of."""
    try:
        axes = [int(cards[f"NAXIS{axis + 1}"]) for axis in range(int(cards["NAXIS"]))]
        if "SIMPLE" in cards and cards.get("GROUPS") is True and axes and axes[0] == 0:
            axes = axes[1:]
        items = (math.prod(axes) if axes else 0) + int(cards.get("PCOUNT", 0))
        size = abs(int(cards["BITPIX"])) // 8 * items * int(cards.get("GCOUNT", 1))
    except (KeyError, TypeError, ValueError) as error:
        raise _NotFollowedError from error
    if size < 0 or min(axes, default=0) < 0:
        raise _NotFollowedError
    return size


class ImageRows:
    """One image of a file: its header, its size, and its rows when they are asked for."""

    grain = 1
    """Rows that are decoded at a time, counted from the first row: reading is cheapest by whole multiples."""

    def __init__(self, file: RowFile, place: Place, header: Header) -> None:
        self.file, self.place, self.header = file, place, header

    @cached_property
    def shape(self) -> tuple[int, int]:
        """(ny, nx)."""
        return int(self.header["NAXIS2"]), int(self.header["NAXIS1"])

    def read(self, y0: int, y1: int, x0: int, x1: int, out: Pixels) -> None:
        """Fill `out`, shape (y1 - y0, x1 - x0). Raises OSError."""
        raise NotImplementedError


class PlainRows(ImageRows):
    """Pixels that stand in the file as they are."""

    @cached_property
    def pixels(self) -> PlainPixels:
        """How they are written."""
        return PlainPixels.of(cast(Mapping[str, Any], self.header), self.shape[1])

    def read(self, y0: int, y1: int, x0: int, x1: int, out: Pixels) -> None:
        """See `ImageRows.read`."""
        self.pixels.read(self.file.read_into, self.place.data, (y0, y1, x0, x1), out)


class TiledRows(ImageRows):
    """Pixels of a tile-compressed image."""

    @cached_property
    def grain(self) -> int:  # type: ignore[override]
        """Height of a tile, where tiles are decoded by themselves."""
        height = self._table.get("ZTILE2", 1)
        if not isinstance(height, int) or height < 1 or not self._by_tiles(height):
            return 1
        return min(height, self.shape[0])

    def _by_tiles(self, height: int) -> bool:
        return min(height, self.shape[0]) * self.shape[1] <= _LARGEST_TILE_PIXELS

    @property
    def _table(self) -> Cards:
        return cast(CompressedCards, self.header).table

    @property
    def _tiled(self) -> TiledImage | None:
        """The table of tiles, without their bytes; None for what is left to astropy."""
        return self.file.kept.get((id(self.file), self.place.index, "table"), self._read_table, _table_bytes)

    def _read_table(self) -> TiledImage | None:
        start, size = self.place.data, self.place.behind - self.place.data
        try:
            rows = int(self._table["NAXIS1"]) * int(self._table["NAXIS2"])
            # As long as the data unit, since places are checked against that; what is not touched takes no memory.
            data = np.empty(size, np.uint8)
            self.file.read_into(start, data[: min(rows, size)])
            tiled = TiledImage.of(self._table, data)
        except NotHandledError:
            return None
        except (TileError, KeyError, TypeError, ValueError) as error:
            raise OSError(f"{self.file.path}, HDU {self.place.index}: {error}.") from error
        return None if tiled.is_rare else replace(tiled, data=np.empty(0, np.uint8))

    def read(self, y0: int, y1: int, x0: int, x1: int, out: Pixels) -> None:
        """See `ImageRows.read`."""
        tiled = self._tiled
        if tiled is None:
            out[...] = self.file.whole(self.place.index)[y0:y1, x0:x1]
            return
        grain = tiled.tile[0]
        if not self._by_tiles(grain):
            out[...] = self._decoded(tiled)[y0:y1, x0:x1]
            return
        whole = (
            y0 % grain == 0 and (y1 % grain == 0 or y1 == tiled.shape[0]) and (x0, x1) == (0, tiled.shape[1])
        )
        first, behind = y0 // grain * grain, min(-(-y1 // grain) * grain, tiled.shape[0])
        target = out if whole else np.empty((behind - first, tiled.shape[1]), np.float32)
        self._decode(tiled, first, behind, target)
        if not whole:
            out[...] = target[y0 - first : y1 - first, x0:x1]

    def _decoded(self, tiled: TiledImage) -> Pixels:
        """All of an image of large tiles; kept."""

        def decode() -> Pixels:
            pixels = np.empty(self.shape, np.float32)
            self._decode(tiled, 0, self.shape[0], pixels)
            return pixels

        return self.file.kept.get((id(self.file), self.place.index), decode, lambda pixels: pixels.nbytes)

    def _decode(self, tiled: TiledImage, first: int, behind: int, out: Pixels) -> None:
        blank = self._table.get("BLANK", self._table.get("ZBLANK")) if tiled.pixel_type.kind in "iu" else None
        try:
            with_bytes = self._with_bytes(tiled, first, behind)
            scaled(self._table, with_bytes.decode(first, behind), blank, out)
        except TileError as error:
            raise OSError(f"{self.file.path}, HDU {self.place.index}: {error}.") from error

    def _with_bytes(self, tiled: TiledImage, first: int, behind: int) -> TiledImage:
        """The same image with the bytes of the tiles of some rows."""
        across, height = tiled.tiles_across, tiled.tile[0]
        where = slice(first // height * across, -(-behind // height) * across)
        columns = [column for column in tiled.columns if column is not None]
        used = [(c.starts[where], c.starts[where] + c.lengths[where], c.lengths[where] > 0) for c in columns]
        low = min((int(s[u].min()) for s, _, u in used if u.any()), default=0)
        high = max((int(e[u].max()) for _, e, u in used if u.any()), default=0)
        behind_data = self.place.behind - self.place.data
        data = own_buffer(min(high + _BEYOND, behind_data) - low)
        self.file.read_into(self.place.data + low, data)
        moved = tuple(None if c is None else replace(c, starts=c.starts - low) for c in tiled.columns)
        return replace(tiled, columns=cast(Any, moved), data=data)


def _table_bytes(tiled: TiledImage | None) -> int:
    """Memory that a table of tiles takes, about."""
    columns = [] if tiled is None else [column for column in tiled.columns if column is not None]
    return 1000 + sum(3 * column.starts.nbytes for column in columns)


class WholeRows(ImageRows):
    """Pixels that only a general reader finds."""

    def read(self, y0: int, y1: int, x0: int, x1: int, out: Pixels) -> None:
        """See `ImageRows.read`."""
        out[...] = self.file.whole(self.place.index)[y0:y1, x0:x1]


def read_rows(
    image: ImageRows, y0: int, y1: int, x0: int = 0, x1: int | None = None, out: Pixels | None = None
) -> Pixels:
    """Read rows of an image, zero-based and half-open: physical values, NaN where there is none.

    `out`: where they go, shape (y1 - y0, x1 - x0), contiguous; by default a new array. Raises OSError where they
    cannot be read, and IndexError for pixels that the image does not have.
    """
    ny, nx = image.shape
    x1 = nx if x1 is None else x1
    if not (0 <= y0 <= y1 <= ny and 0 <= x0 <= x1 <= nx):
        raise IndexError(f"[{x0}:{x1}, {y0}:{y1}] is not within {nx} x {ny} pixels.")
    if out is None:
        out = np.empty((y1 - y0, x1 - x0), np.float32)
    if out.size:
        image.read(y0, y1, x0, x1, out)
    return out
