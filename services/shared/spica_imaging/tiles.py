"""Tile-compressed images (FITS standard 4.0, section 10), decoded straight from the bytes of their table.

What fpack and the archives write is decoded here: Rice, gzip and plain tiles, of integers and of quantized
floating-point numbers with their dithers. The rest (HCOMPRESS, PLIO, cubes) is `NotHandledError`: ask astropy.
Nothing that the table says of itself is trusted: a tile is decoded from its own bytes, to its own number
of pixels, or there is a `TileError`.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spica_imaging import rice
from spica_imaging.dither import NO_DITHER, dequantize, dither_of
from spica_imaging.tiletable import TYPES, Column, Table, TileError, whole_number

STRIP_PIXELS = 1 << 18
"""Pixels that are decoded at a time: little enough to stay in a core's own cache."""

_PIXEL_TYPES = {8: "u1", 16: "i2", 32: "i4", 64: "i8", -32: "f4", -64: "f8"}
_RICE = ("RICE_1", "RICE_ONE")
_GZIP = ("GZIP_1", "GZIP_2")
_RARE = ("HCOMPRESS_1", "PLIO_1")
_HCOMPRESS_MAGIC = b"\xdd\x99"


class NotHandledError(Exception):
    """Sound as far as is known, but of a kind that is not decoded here."""


@dataclass(frozen=True, slots=True)
class TiledImage:
    """One compressed image of two axes, ready to be decoded in strips."""

    shape: tuple[int, int]
    tile: tuple[int, int]
    """Shape of a tile; those at the upper edges may be smaller."""
    pixel_type: np.dtype[Any]
    """Type of a pixel as stored, before BSCALE and BZERO."""
    algorithm: str
    bytes_per_pixel: int
    block_size: int
    columns: tuple[Column | None, Column | None, Column | None]
    """Compressed; compressed with gzip without loss where that failed; not compressed at all."""
    scales: NDArray[np.float64] | None
    """Of quantized floating-point numbers: scale, zero and blank per tile."""
    zeros: NDArray[np.float64] | None
    blanks: NDArray[np.int64] | None
    dither: int
    dither_seed: int
    data: NDArray[np.uint8]

    @classmethod
    def of(cls, header: Mapping[str, Any], data: NDArray[np.uint8]) -> TiledImage:
        """Read what the table's header says. `data`: the HDU's data unit, table and heap, shape (n,).

        Raises `TileError` where header and table do not fit, `NotHandledError` for kinds that are not decoded here.
        """
        algorithm = str(header.get("ZCMPTYPE", "")).strip().upper()
        if algorithm not in (*_RICE, *_GZIP, *_RARE, "NOCOMPRESS"):
            raise TileError(f"ZCMPTYPE is {algorithm!r}")
        if header.get("ZNAXIS") != 2 or header.get("ZMASKCMP"):
            raise NotHandledError("not a plain image of two axes")
        shape = (whole_number(header, "ZNAXIS2"), whole_number(header, "ZNAXIS1"))
        tile = (whole_number(header, "ZTILE2", 1), whole_number(header, "ZTILE1", shape[1]))
        rows = whole_number(header, "NAXIS2")
        if min(*shape, *tile) < 1 or rows != math.prod(-(-s // t) for s, t in zip(shape, tile, strict=True)):
            raise TileError(
                f"{rows} tiles of {tile[1]}x{tile[0]} do not make up {shape[1]}x{shape[0]} pixels"
            )
        bitpix = header.get("ZBITPIX")
        if bitpix not in _PIXEL_TYPES:
            raise TileError(f"ZBITPIX is {bitpix}")
        table = Table(header, data, rows)
        scales, zeros = table.numbers("ZSCALE"), table.numbers("ZZERO")
        quantized = scales is not None and zeros is not None and bitpix < 0
        parameters = _parameters(header)
        method, seed = dither_of(header) if quantized else (NO_DITHER, 1)
        compressed = table.variable("COMPRESSED_DATA")
        if compressed is None:
            raise TileError("the table has no column COMPRESSED_DATA")
        return cls(
            shape=shape,
            tile=(min(tile[0], shape[0]), min(tile[1], shape[1])),
            pixel_type=np.dtype(_PIXEL_TYPES[bitpix]),
            algorithm="RICE_1" if algorithm in _RICE else algorithm,
            bytes_per_pixel=parameters.get("BYTEPIX", 4),
            block_size=parameters.get("BLOCKSIZE", rice.BLOCK_SIZE),
            columns=(
                compressed,
                table.variable("GZIP_COMPRESSED_DATA"),
                table.variable("UNCOMPRESSED_DATA"),
            ),
            scales=scales if quantized else None,
            zeros=zeros if quantized else None,
            blanks=table.blanks() if quantized else None,
            dither=method,
            dither_seed=seed,
            data=data,
        )

    @property
    def tiles_across(self) -> int:
        """Tiles side by side."""
        return -(-self.shape[1] // self.tile[1])

    @property
    def is_rare(self) -> bool:
        """Whether it is of a kind that is not decoded here (`decode` raises `NotHandledError`)."""
        return self.algorithm in _RARE

    def check_rare(self) -> None:
        """See that tiles of rare kinds say of themselves what the table says, before a decoder believes them.

        Raises `TileError`.
        """
        main = self.columns[0]
        assert main is not None
        for tile, (start, length) in enumerate(zip(main.starts.tolist(), main.lengths.tolist(), strict=True)):
            if not length:
                continue
            content = self.data[start : start + length].tobytes()
            rows = min(self.tile[0], self.shape[0] - tile // self.tiles_across * self.tile[0])
            columns = min(self.tile[1], self.shape[1] - tile % self.tiles_across * self.tile[1])
            if self.algorithm == "HCOMPRESS_1":
                sound = content[:2] == _HCOMPRESS_MAGIC and len(content) > 25
                sizes = tuple(int.from_bytes(content[at : at + 4], "big") for at in (2, 6))
                sound = sound and sizes in ((rows, columns), (columns, rows))
            else:
                words = np.frombuffer(content[: length // 2 * 2], ">i2").tolist()
                sound = len(words) > 5 and _plio_length(words) <= len(words)
            if not sound:
                raise TileError(f"tile {tile + 1} does not hold {columns}x{rows} pixels")

    def strips(self) -> Iterator[tuple[int, int]]:
        """Ranges of rows (first, behind the last) that are decoded at a time, whole tiles high."""
        height = self.tile[0] * max(1, STRIP_PIXELS // (self.tile[0] * self.shape[1]))
        for first in range(0, self.shape[0], height):
            yield first, min(first + height, self.shape[0])

    def decode(self, first: int, behind: int) -> NDArray[Any]:
        """Pixels of the rows of one strip as stored: shape (behind - first, nx), type `pixel_type`.

        Quantized pixels without a value are NaN; integers that mean none (BLANK) are as they are.
        Raises `TileError`, and `NotHandledError` for rare kinds of compression.
        """
        if self.is_rare:
            raise NotHandledError(f"ZCMPTYPE {self.algorithm}")
        ny, nx = self.shape
        ty, tx = self.tile
        tiles = range(first // ty * self.tiles_across, -(-behind // ty) * self.tiles_across)
        heights = np.minimum(ty, ny - np.arange(tiles.start, tiles.stop) // self.tiles_across * ty)
        widths = np.minimum(tx, nx - np.arange(tiles.start, tiles.stop) % self.tiles_across * tx)
        counts = (heights * widths).astype(np.int64)
        flat = self._decode_tiles(tiles, counts)
        if self.tiles_across == 1:
            return flat.reshape(behind - first, nx)
        out = np.empty((behind - first, nx), self.pixel_type)
        place = 0
        for index, tile in enumerate(tiles):
            y, x = tile // self.tiles_across * ty - first, tile % self.tiles_across * tx
            block = flat[place : place + counts[index]].reshape(heights[index], widths[index])
            out[y : y + heights[index], x : x + widths[index]] = block
            place += counts[index]
        return out

    def _decode_tiles(self, tiles: range, counts: NDArray[np.int64]) -> NDArray[Any]:
        """Decode tiles one behind the other, flat, type `pixel_type`."""
        main = self.columns[0]
        assert main is not None
        usual = main.lengths[tiles.start : tiles.stop] > 0
        if self.algorithm == "RICE_1" and usual.all():
            pixels = self._rice(tiles, counts)
            if self.scales is None:
                return pixels.astype(self.pixel_type, copy=False)
            return self._dequantized(tiles, counts, pixels)
        parts = [self._one(tile, int(count)) for tile, count in zip(tiles, counts, strict=True)]
        return np.concatenate(parts)

    def _rice(self, tiles: range, counts: NDArray[np.int64]) -> NDArray[Any]:
        main = self.columns[0]
        assert main is not None
        where = slice(tiles.start, tiles.stop)
        try:
            pixels, states = rice.decode_tiles(
                self.data, main.starts[where], main.lengths[where], counts,
                bytes_per_pixel=self.bytes_per_pixel, block_size=self.block_size,
            )  # fmt: skip
        except ValueError as error:
            raise TileError(str(error)) from error
        if states.any():
            bad = int(np.flatnonzero(states)[0])
            raise TileError(f"tile {tiles.start + bad + 1} {rice.STATES[int(states[bad])]}")
        return pixels

    def _dequantized(
        self, tiles: range, counts: NDArray[np.int64], pixels: NDArray[Any]
    ) -> NDArray[np.floating[Any]]:
        assert self.scales is not None and self.zeros is not None and self.blanks is not None
        where = slice(tiles.start, tiles.stop)
        return dequantize(
            pixels.astype(np.int32, copy=False), counts, self.scales[where], self.zeros[where],
            self.blanks[where], method=self.dither, first_row=tiles.start + self.dither_seed,
            kind=self.pixel_type,
        )  # fmt: skip

    def _one(self, tile: int, count: int) -> NDArray[Any]:
        """One tile by itself, from whichever column has it."""
        for place, column in enumerate(self.columns):
            if column is None or column.lengths[tile] == 0:
                continue
            start, length = int(column.starts[tile]), int(column.lengths[tile])
            if place == 0 and self.algorithm == "RICE_1":
                raw = self._rice(range(tile, tile + 1), np.array([count]))
            else:
                kind = np.dtype(">i4") if place == 0 and self.scales is not None else self.pixel_type
                if place == 2 and column.letter in TYPES:
                    kind = np.dtype(TYPES[column.letter])
                packed = place == 1 or (place == 0 and self.algorithm in _GZIP)
                content = self.data[start : start + length].tobytes()
                shuffled = place == 0 and self.algorithm == "GZIP_2"
                raw = _plain(tile, content, count, kind.newbyteorder(">"), packed=packed, shuffled=shuffled)
            if place == 0 and self.scales is not None:
                return self._dequantized(range(tile, tile + 1), np.array([count]), raw)
            return raw.astype(self.pixel_type)
        raise TileError(f"tile {tile + 1} has no bytes")


def _plio_length(words: list[int]) -> int:
    """Number of words that a line list says that it has; it has two kinds of beginnings."""
    if words[2] > 0:
        return words[2]
    return (words[4] << 15) + words[3]


def _parameters(header: Mapping[str, Any]) -> dict[str, int]:
    """ZNAMEi and ZVALi: the parameters of the algorithm."""
    found: dict[str, int] = {}
    for number in range(1, 10):
        name, value = header.get(f"ZNAME{number}"), header.get(f"ZVAL{number}")
        if isinstance(name, str) and isinstance(value, int):
            found[name.strip().upper()] = value
    return found


def _plain(
    tile: int, content: bytes, count: int, kind: np.dtype[Any], *, packed: bool, shuffled: bool
) -> NDArray[Any]:
    """Pixels of a tile that is plain or went through gzip: neither a byte less nor a byte more."""
    if packed:
        unpacking = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)
        try:
            content = unpacking.decompress(content, count * 8 + 1)
        except zlib.error as error:
            raise TileError(f"tile {tile + 1}: {error}") from error
        if not unpacking.eof or unpacking.unused_data.strip(b"\0"):
            raise TileError(f"tile {tile + 1} does not end where its bytes do")
        if kind.kind == "i" and len(content) in (count * 2, count * 4):
            # Writers may store short integers as long ones: the size tells.
            kind = np.dtype(f">i{len(content) // count}")
    if len(content) != count * kind.itemsize:
        raise TileError(f"tile {tile + 1} has {len(content)} bytes instead of {count * kind.itemsize}")
    if shuffled:
        content = np.frombuffer(content, np.uint8).reshape(kind.itemsize, count).T.tobytes()
    return np.frombuffer(content, kind)


def decode_ccd(
    header: Mapping[str, Any], data: NDArray[np.uint8], *, threads: int = 1
) -> NDArray[np.float32]:
    """Decode a whole tile-compressed image to its physical values.

    `header`: the table's; `data`: its data unit, table and heap, shape (n,). Returns shape (ny, nx): BSCALE and
    BZERO applied, NaN where there is no value (BLANK). Raises `TileError` and `NotHandledError`.
    """
    image = TiledImage.of(header, data)
    out = np.empty(image.shape, np.float32)
    blank = header.get("BLANK", header.get("ZBLANK")) if image.pixel_type.kind in "iu" else None

    def strip(rows: tuple[int, int]) -> None:
        scaled(header, image.decode(*rows), blank, out[rows[0] : rows[1]])

    if threads == 1:
        for rows in image.strips():
            strip(rows)
    else:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(strip, image.strips()))
    return out


def scaled(
    header: Mapping[str, Any], stored: NDArray[Any], blank: int | None, out: NDArray[np.float32]
) -> None:
    """Physical values of stored ones, as astropy computes them: in single precision where that holds them."""
    zero, scale = float(header.get("BZERO", 0.0)), float(header.get("BSCALE", 1.0))
    work = out if stored.dtype.itemsize <= 2 or stored.dtype == np.float32 else np.empty(out.shape)
    if scale == 1.0:
        np.add(stored, work.dtype.type(zero), out=work, casting="unsafe")
    else:
        np.multiply(stored, work.dtype.type(scale), out=work, casting="unsafe")
        work += work.dtype.type(zero)
    if work is not out:
        out[...] = work
    if isinstance(blank, int):
        out[stored == blank] = np.nan
