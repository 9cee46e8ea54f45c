"""Files of finished tiles: planes of pixels in the byte order of FITS, with what is needed to join them.

Layout: JSON in the first `HEAD_BYTES`, planes one after the other, row by row, then what was rejected and what was
found for the gains. A file has its name only when it is whole, and says for which order and which box it was made.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from spica_runtime.errors import Unavailable
from spica_runtime.storage import fsync_folder

from spica_stack.science.fitswords import big_endian, folded
from spica_stack.science.pixels import Box

HEAD_BYTES = 8192
REJECTED = np.dtype([("x", ">i4"), ("y", ">i4"), ("exposure", ">i4"), ("n_sigma", ">f4")])
"""Pixel (FITS: the first is 1) of the stack, number of the exposure (from 1), and by how many sigma it was off."""


MANY_RECORDS = 1_000_000
"""Of what was rejected: more are not held at a time where that can be helped."""


class PartFile:
    """A tile's file that stands whole. Reading it needs no lock."""

    def __init__(self, path: Path) -> None:
        with path.open("rb") as file:
            head = json.loads(file.read(HEAD_BYTES).rstrip(b"\0 "))
        self.path = path
        self.key: str = head["key"]
        self.box: Box = tuple(head["box"])
        self.n_rejected: int = head["n_rejected"]
        """Samples left out."""
        self.n_records: int = head["n_records"]
        """How many of them are listed: all, or none."""
        self.sums: Mapping[str, int] = head["sums"]
        """By plane, and of the rejected samples: their share of the DATASUM. Of the gains: to know them again."""
        self.gains_shape: tuple[int, int] = tuple(head["gains_shape"])
        self._planes: Mapping[str, tuple[str, int]] = {k: (v[0], v[1]) for k, v in head["planes"].items()}
        self._rejected_at: int = head["rejected_at"]
        self._grid_width: int = head["grid_width"]
        self.size: int = head["size"]

    def rows(self, plane: str, first: int, last: int) -> NDArray[Any]:
        """Rows [first, last) of a plane, counted from the tile's first, as they go into a FITS file."""
        kind, offset = self._planes[plane]
        dtype, width = np.dtype(kind), self.box[1] - self.box[0]
        count = (last - first) * width
        place = offset + first * width * dtype.itemsize
        return self._read(place, count, dtype).reshape(last - first, width)

    def rejected(self, first_row: int | None = None, last_row: int | None = None) -> NDArray[Any]:
        """Samples left out: records of type `REJECTED`, in the order of row, column, exposure.

        With rows (of the stack, zero-based, half-open) those of these only.
        """
        first = 0 if first_row is None else self._records_before(first_row)
        last = self.n_records if last_row is None else self._records_before(last_row)
        return self._records(first, last)

    def _records(self, first: int, last: int) -> NDArray[Any]:
        return self._read(self._rejected_at + first * REJECTED.itemsize, last - first, REJECTED)

    def _records_before(self, row: int) -> int:
        low, high = 0, self.n_records
        while low < high:
            middle = (low + high) // 2
            if self._records(middle, middle + 1)["y"][0] <= row:  # the first row of FITS is 1
                low = middle + 1
            else:
                high = middle
        return low

    def gains(self) -> NDArray[np.float32]:
        """Shape (members, sampled pixels): see `gains.py`."""
        count = self.gains_shape[0] * self.gains_shape[1]
        place = self._rejected_at + self.n_records * REJECTED.itemsize
        return self._read(place, count, np.dtype(np.float32)).reshape(self.gains_shape)

    def is_sound(self) -> bool:
        """Whether its bytes are those that were written: a power cut may have left others."""
        if self.path.stat().st_size != self.size:
            return False
        x0, _, y0, y1 = self.box
        for plane in self._planes:
            total = 0
            for first in range(0, y1 - y0, 256):
                rows = self.rows(plane, first, min(first + 256, y1 - y0))
                native = rows.astype(rows.dtype.newbyteorder("="))
                total += big_endian(native, (y0 + first) * self._grid_width + x0, self._grid_width)[1]
            if folded(total) != self.sums[plane]:
                return False
        words = sum(
            _words(self._records(first, min(first + MANY_RECORDS, self.n_records)))
            for first in range(0, self.n_records, MANY_RECORDS)
        )
        return folded(words) == self.sums["rejected"] and _words(self.gains()) == self.sums["gains"]

    def _read(self, place: int, count: int, dtype: np.dtype[Any]) -> NDArray[Any]:
        out = np.empty(count, dtype)
        view, got = _bytes(out), 0
        with self.path.open("rb", buffering=0) as file:
            file.seek(place)
            while got < len(view):
                n = file.readinto(view[got:])
                if not n:
                    raise OSError(errno.EIO, "The file of a tile is shorter than it says", str(self.path))
                got += n
        return out


def _bytes(pixels: NDArray[Any]) -> memoryview:
    """The memory of pixels in a line."""
    flat: Any = pixels.view(np.uint8)
    return memoryview(flat)


def _words(records: NDArray[Any]) -> int:
    """Sum of the words of records."""
    return folded(int(records.reshape(-1).view(">u4").sum(dtype=np.uint64))) if records.size else 0


def by_rows(pieces: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """Join records of pieces, each in the order of the image, into the order of the image."""
    if len(pieces) == 1:
        return pieces[0]
    # The type said: joining would turn the bytes of records round.
    records = np.concatenate([np.empty(0, REJECTED), *pieces], dtype=REJECTED)
    # Those of one pixel are in one piece, in their order. Pieces side by side need not begin in the same row.
    pixels = records["y"].astype(np.int64) << 32 | records["x"].astype(np.int64)
    if np.any(pixels[1:] < pixels[:-1]):
        records = records[np.argsort(pixels, kind="stable")]
    return records


def together(pieces: Sequence[tuple[int, int, NDArray[Any]]]) -> Iterator[list[NDArray[Any]]]:
    """Pieces (row and column at which they begin, zero-based, and records) that have rows in common, from below.

    Without pieces that have no records.
    """
    found: list[NDArray[Any]] = []
    end = 0
    for y, _, records in sorted((piece for piece in pieces if len(piece[2])), key=lambda piece: piece[:2]):
        if found and y >= end:
            yield found
            found = []
        found.append(records)
        end = max(end, int(records["y"][-1]))
    if found:
        yield found


def standing(path: Path, key: str, box: Box, *, doubted: bool = False) -> PartFile | None:
    """The tile's file, if it was made for this order and this box. `doubted`: its pixels are read and summed again."""
    try:
        part = PartFile(path)
        if (part.key, part.box) == (key, box) and (not doubted or part.is_sound()):
            return part
    except (OSError, ValueError, KeyError, TypeError, IndexError):
        pass
    return None


class PartWriter:
    """Context manager that writes a tile's file, in any order and from several threads; it appears whole.

    sync: wait until it is on the disk, so that whoever is told of it can rely on it.
    A full disk becomes `Unavailable`: the work waits instead of becoming a dead letter.
    """

    def __init__(
        self,
        path: Path,
        key: str,
        box: Box,
        grid_width: int,
        planes: Mapping[str, np.dtype[Any]],
        *,
        sync: bool,
    ) -> None:
        self._path, self._key, self._box, self._grid_width, self._sync = path, key, box, grid_width, sync
        self._width, self._height = box[1] - box[0], box[3] - box[2]
        self._lock = threading.Lock()
        self._planes: dict[str, tuple[np.dtype[Any], int]] = {}
        self._sums = dict.fromkeys(planes, 0)
        offset = HEAD_BYTES
        for plane, dtype in planes.items():
            self._planes[plane] = (dtype.newbyteorder(">"), offset)
            offset += self._width * self._height * dtype.itemsize
        self._rejected_at = offset
        self._rejected: list[tuple[int, int, NDArray[Any]]] = []
        self._gains: NDArray[np.float32] = np.zeros((0, 0), np.float32)
        self.n_rejected = 0

    def put(self, plane: str, x: int, y: int, pixels: NDArray[Any]) -> None:
        """Write pixels (native byte order) whose first is the stack's pixel (x, y), zero-based."""
        dtype, offset = self._planes[plane]
        swapped, total = big_endian(pixels, y * self._grid_width + x, self._grid_width)
        with self._lock:
            self._sums[plane] = folded(self._sums[plane] + total)
        place = offset + ((y - self._box[2]) * self._width + x - self._box[0]) * dtype.itemsize
        if swapped.shape[1] == self._width:
            self._write(_bytes(swapped.reshape(-1)), place)
            return
        for row in swapped:
            self._write(_bytes(row), place)
            place += self._width * dtype.itemsize

    def put_rejected(self, x: int, y: int, records: NDArray[Any]) -> None:
        """Samples left out of a piece that begins at the stack's pixel (x, y): of type `REJECTED`, in their order."""
        with self._lock:
            self._rejected.append((y, x, records))

    def count_rejected(self, count: int) -> None:
        """So many samples more were left out."""
        with self._lock:
            self.n_rejected += count

    def put_gains(self, gains: NDArray[np.float32]) -> None:
        """Shape (members, sampled pixels)."""
        self._gains = np.ascontiguousarray(gains)

    def _write(self, data: memoryview, place: int) -> None:
        while data:
            written = os.pwrite(self._file.fileno(), data, place)
            data, place = data[written:], place + written

    def _finish(self) -> None:
        place, words = self._rejected_at, 0
        # There may be as many as pixels: they are never all copied.
        for pieces in together(self._rejected):
            records = by_rows(pieces)
            self._write(_bytes(records), place)
            place, words = place + records.nbytes, folded(words + _words(records))
        n_records = (place - self._rejected_at) // REJECTED.itemsize
        self._write(memoryview(self._gains.tobytes()), place)
        size = place + self._gains.nbytes
        head = {
            "key": self._key,
            "box": self._box,
            "grid_width": self._grid_width,
            "planes": {plane: [dtype.str, offset] for plane, (dtype, offset) in self._planes.items()},
            "sums": {**self._sums, "rejected": words, "gains": _words(self._gains)},
            "n_rejected": self.n_rejected,
            "n_records": n_records,
            "rejected_at": self._rejected_at,
            "gains_shape": self._gains.shape,
            "size": size,
        }
        text = json.dumps(head).encode()
        if len(text) > HEAD_BYTES:
            raise AssertionError("the head of a tile's file is larger than its room")
        self._write(memoryview(text.ljust(HEAD_BYTES, b" ")), 0)
        os.ftruncate(self._file.fileno(), size)
        if self._sync:
            os.fsync(self._file.fileno())

    def __enter__(self) -> PartWriter:
        with disk_full_waits(self._path):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            # A folder of its own, as other writers have: what a killed one leaves is swept alike.
            self._scratch = Path(tempfile.mkdtemp(prefix=".part-", dir=self._path.parent))
            self._file = (self._scratch / self._path.name).open("wb", buffering=0)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            with disk_full_waits(self._path), self._file:
                if kind is None:
                    self._finish()
                    (self._scratch / self._path.name).replace(self._path)
                    if self._sync:
                        fsync_folder(self._path.parent)
        finally:
            shutil.rmtree(self._scratch, ignore_errors=True)


@contextlib.contextmanager
def disk_full_waits(path: Path) -> Iterator[None]:
    """A full disk becomes `Unavailable`."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        free = shutil.disk_usage(path.parent).free
        raise Unavailable(
            "disk_full",
            f"No space left to write {path}: {free / 1e6:.0f} MB free. Free some space; the work goes on by itself.",
            {"free_bytes": free},
        ) from error
