"""Every pixel of an image decoded and looked at, in parts that threads share."""

from __future__ import annotations

import io
import math
import re
import warnings
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray
from spica_imaging.tiles import NotHandledError, TiledImage
from spica_imaging.tiletable import MAX_FIELDS, TileError

from spica_ingest.science.checksum import add_to_sum
from spica_ingest.science.facts import Finding, HduFacts, PixelFacts

PART_BYTES = 8 << 20
"""Of a plain image, looked at in one go."""
_PART_PIXELS = 1 << 21
_TYPES = {8: "u1", 16: ">i2", 32: ">i4", 64: ">i8", -32: ">f4", -64: ">f8"}
_BLOCK = 2880


@dataclass(frozen=True, slots=True)
class _Part:
    """Figures of some pixels, as stored."""

    pixels: int
    finite: int
    low: float = math.inf
    high: float = -math.inf
    data_sum: int = 0


def _figures(stored: NDArray[Any], blank: int | None) -> _Part:
    """Look at pixels as stored: those that are numbers and not the blank count."""
    if stored.dtype.kind == "f":
        low, high = np.min(stored), np.max(stored)
        if math.isfinite(low) and math.isfinite(high):
            return _Part(stored.size, stored.size, float(low), float(high))
        good = stored[np.isfinite(stored)]
    elif blank is not None:
        good = stored[stored != blank]
    else:
        good = stored
    if not good.size:
        return _Part(stored.size, 0)
    return _Part(stored.size, good.size, float(good.min()), float(good.max()))


class Pixels:
    """The pixels of one HDU while they are looked at."""

    def __init__(self, hdu: HduFacts, values: Mapping[str, Any]) -> None:
        self.hdu, self._values = hdu, values
        self._futures: list[Future[list[_Part]]] = []
        self._error: Exception | None = None
        blank = values.get("BLANK", values.get("ZBLANK"))
        self._blank = blank if isinstance(blank, int) and not isinstance(blank, bool) else None
        self._with_sum = False
        self._scale = _Scale.of(values)

    def plain(self, pool: ThreadPoolExecutor, window: memoryview) -> list[Future[Any]]:
        """Look at a part of a plain image: whole pixels."""
        kind = np.dtype(_TYPES[self._values["BITPIX"]])
        started = pool.submit(lambda: [_figures(_native(np.frombuffer(window, kind)), self._blank)])
        self._futures.append(started)
        return [started]

    def compressed(self, pool: ThreadPoolExecutor, window: memoryview) -> list[Future[list[_Part]]]:
        """Decode a tile-compressed image from its data unit."""
        try:
            image: TiledImage | None = TiledImage.of(self._values, np.frombuffer(window, np.uint8))
            if image is not None and image.is_rare:
                image.check_rare()
        except NotHandledError:
            image = None
        except MemoryError:
            raise
        except Exception as error:  # what nobody thought of means the same: `result` tells
            self._error = error
            return []
        if image is None or image.is_rare:
            self._scale = _Scale(1.0, 0.0)  # astropy has applied it
            self._futures.append(pool.submit(self._by_astropy, bytes(window)))
            return self._futures
        self._with_sum = self._has_sum(image.scales is not None)
        strips = list(image.strips())
        step = max(1, _PART_PIXELS // max(1, (strips[0][1] - strips[0][0]) * image.shape[1]))
        self._futures += [
            pool.submit(self._strips, image, strips[start : start + step])
            for start in range(0, len(strips), step)
        ]
        return self._futures

    def _strips(self, image: TiledImage, strips: list[tuple[int, int]]) -> list[_Part]:
        parts = []
        with np.errstate(all="ignore"):
            for first, behind in strips:
                stored = image.decode(first, behind)
                part = _figures(stored, self._blank)
                if self._with_sum:
                    offset = first * image.shape[1] * stored.itemsize
                    part = _with_sum(part, stored, offset)
                parts.append(part)
        return parts

    def _by_astropy(self, data: bytes) -> list[_Part]:
        """Kinds of compression that are rare: astropy decodes them, strip by strip where tiles are small."""
        start = fits.PrimaryHDU().header.tostring() + _table_header(self._values).tostring()
        whole = start.encode("ascii") + data + bytes(-len(data) % _BLOCK)
        with warnings.catch_warnings(), fits.open(io.BytesIO(whole), lazy_load_hdus=True) as opened:
            warnings.simplefilter("ignore")
            hdu = opened[1]
            if hdu.shape != self.hdu.shape:
                raise TileError(f"decoded to {hdu.shape}")
            return [_figures(_native(hdu.section[rows]), None) for rows in _sections(hdu)]

    def _has_sum(self, quantized: bool) -> bool:
        """Whether the sum over the uncompressed data is stated and must come out again."""
        return not quantized and str(self._values.get("ZDATASUM", "")).strip().isdigit()

    def result(self) -> tuple[HduFacts, list[Finding]]:
        """Wait for all parts: the HDU with its figures, or why it cannot be decoded."""
        try:
            if self._error is not None:
                raise self._error
            parts = [part for future in self._futures for part in future.result()]
        except MemoryError:
            raise
        except Exception as error:  # decoders raise whatever they like on bad input; all of it means the same
            return self.hdu, [_undecodable(self.hdu, error)]
        findings = []
        if self._with_sum:
            total = 0
            for part in parts:
                total = add_to_sum(total, part.data_sum.to_bytes(4, "big"))
            stated = int(self._values["ZDATASUM"])
            if total != stated:
                message = "The pixels are not those that were compressed."
                findings.append(
                    Finding("datasum_mismatch", message, self.hdu.index, "ZDATASUM", str(total), str(stated))
                )
        return _with_figures(self.hdu, parts, self._scale), findings


@dataclass(frozen=True, slots=True)
class _Scale:
    scale: float
    zero: float

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> _Scale:
        found = []
        for keyword, default in (("BSCALE", 1.0), ("BZERO", 0.0)):
            value = values.get(keyword, default)
            found.append(float(value) if isinstance(value, int | float) else default)
        return cls(*found)


def _with_figures(hdu: HduFacts, parts: list[_Part], scale: _Scale) -> HduFacts:
    pixels, finite = sum(part.pixels for part in parts), sum(part.finite for part in parts)
    facts = PixelFacts(0.0, None, None)
    if finite:
        ends = (min(part.low for part in parts), max(part.high for part in parts))
        low, high = sorted(scale.scale * end + scale.zero for end in ends)
        facts = PixelFacts(finite / pixels, low, high)
    return HduFacts(hdu.index, hdu.header, hdu.is_image, hdu.shape, facts, hdu.fingerprint)


def _with_sum(part: _Part, stored: NDArray[Any], offset: int) -> _Part:
    content = stored.astype(stored.dtype.newbyteorder(">"), copy=False).tobytes()
    return _Part(part.pixels, part.finite, part.low, part.high, add_to_sum(0, content, offset))


def _native(stored: NDArray[Any]) -> NDArray[Any]:
    return stored.astype(stored.dtype.newbyteorder("="), copy=False)


_TABLE = re.compile(
    r"XTENSION|BITPIX|NAXIS[12]?|[PG]COUNT|TFIELDS|THEAP|(TTYPE|TFORM)\d{1,3}|ZIMAGE|ZBITPIX|ZNAXIS\d{0,3}|ZTILE\d{1,3}"
    r"|ZCMPTYPE|(ZNAME|ZVAL)\d|ZBLANK|ZQUANTIZ|ZDITHER0|ZSCALE|ZZERO|ZMASKCMP|BSCALE|BZERO|BLANK"
)


def _table_header(values: Mapping[str, Any]) -> fits.Header:
    """What decoding needs of a table's header, and nothing else: astropy is not to stumble over the rest."""
    fields, axes = values.get("TFIELDS"), values.get("ZNAXIS")
    if not isinstance(fields, int) or fields > MAX_FIELDS or not isinstance(axes, int) or axes > 99:
        raise TileError(f"TFIELDS is {fields}, ZNAXIS is {axes}")
    return fits.Header([(key, value) for key, value in values.items() if _TABLE.fullmatch(key)])


def _sections(hdu: fits.CompImageHDU) -> Iterator[tuple[slice, ...]]:
    """Strips of whole tiles along the slowest axis."""
    height = int(hdu.tile_shape[0])
    row = max(1, math.prod(hdu.shape[1:]))
    step = height * max(1, _PART_PIXELS // (height * row))
    for start in range(0, hdu.shape[0], step):
        yield (slice(start, min(start + step, hdu.shape[0])), *(slice(None) for _ in hdu.shape[1:]))


def _undecodable(hdu: HduFacts, error: Exception) -> Finding:
    return Finding(
        "undecodable",
        "The pixels of this HDU cannot be decoded.",
        hdu=hdu.index,
        found=f"{type(error).__name__}: {error}"[:200],
        expected="x".join(map(str, reversed(hdu.shape))) + " pixels",
    )
