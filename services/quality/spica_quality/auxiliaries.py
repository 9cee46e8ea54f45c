"""The instrument's own word on its pixels: master masks and flats, and masks that travel with an image.

A frame of planes (one per CCD, or one mosaic) is laid over the CCDs of an image by name, by number, by order or by
the place in the mosaic (DETSEC), and read some rows at a time. What does not fit is a `Misfit` with a reason.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from threading import RLock
from types import TracebackType
from typing import Any, Self

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray
from spica_imaging.frame import Ccd, is_image
from spica_imaging.packed import START_BYTES, packing
from spica_imaging.sections import Section

Rows = NDArray[Any]

_DETSEC = re.compile(r"\[\s*(\d+)\s*:\s*(\d+)\s*,\s*(\d+)\s*:\s*(\d+)\s*\]")
_UNNAMED = ("", "COMPRESSED_IMAGE", "PRIMARY")
_COMPANIONS = {
    "mask": re.compile(r"(MASK|DQ|BPM)(_\w*)?$", re.IGNORECASE),
    "weight": re.compile(r"(WEIGHT|WGT|WHT|INVVAR)(_\w*)?$", re.IGNORECASE),
}


class Misfit(Exception):
    """A calibration frame that cannot be laid over a CCD."""

    def __init__(self, code: str, message: str, found: str, expected: str) -> None:
        super().__init__(message)
        self.code, self.message, self.found, self.expected = code, message, found, expected

    def __str__(self) -> str:
        return f"{self.code}: {self.message} Found {self.found}, expected {self.expected}."


@dataclass(frozen=True, slots=True)
class Plane:
    """One plane laid over one CCD."""

    shape: tuple[int, int]
    """Of the CCD, (ny, nx)."""
    _pixels: Any
    """An array, or what astropy calls a section: indexed, it reads what is asked for."""
    _x: slice
    """Columns of the plane, in the CCD's order."""
    _first_row: int
    _row_step: int
    _over: Section
    """The part of the CCD that it covers."""
    _one_at_a_time: RLock
    """CCDs are worked on in several threads, and all planes of a file are read through one place in it."""

    @property
    def over(self) -> Section:
        """The part of the CCD that is covered."""
        return self._over

    def rows(self, y0: int, y1: int) -> NDArray[np.float32]:
        """Rows y0 to y1 of the CCD, shape (y1 - y0, nx), NaN where nothing is covered."""
        result = np.full((y1 - y0, self.shape[1]), np.nan, np.float32)
        low, high = max(y0, self._over.y0), min(y1, self._over.y1)
        if low >= high:
            return result
        first = self._first_row + self._row_step * (low - self._over.y0)
        last = self._first_row + self._row_step * (high - 1 - self._over.y0)
        with self._one_at_a_time:
            whole = np.asarray(self._pixels[min(first, last) : max(first, last) + 1, :])
        part = whole[:: self._row_step, self._x]
        result[low - y0 : high - y0, self._over.x0 : self._over.x1] = part
        return result


class CalibrationFrame:
    """A file of planes, open for as long as the image is worked on."""

    def __init__(self, path: Path, companions: str | None = None) -> None:
        """Open the file. `companions`: only planes that travel with the images of this file (`mask`, `weight`)."""
        self._stack = ExitStack()
        self._lock = RLock()
        try:
            with path.open("rb") as raw:
                self._packed = packing(raw.read(START_BYTES)) is not None
            self._hdus = self._stack.enter_context(fits.open(path, memmap=False, lazy_load_hdus=True))
            self._companion = None if companions is None else _COMPANIONS[companions]
            self._planes = [
                (index, hdu)
                for index, hdu in enumerate(self._hdus)
                if is_image(hdu) and self._is_wanted(hdu.header)
            ]
        except Exception as error:
            self._stack.close()
            # Verified when it came; damaged FITS makes readers stumble in every way there is.
            raise Misfit(
                "calibration_unreadable", f"{path.name} cannot be read.", str(error), "FITS"
            ) from error
        self._name = path.name

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def close(self) -> None:
        """Close the file."""
        self._stack.close()

    def __len__(self) -> int:
        return len(self._planes)

    def plane(self, ccd: Ccd, place: int, n_ccds: int) -> Plane:
        """The plane of a CCD, which is number `place` (from 0) of `n_ccds`. Raises `Misfit`."""
        with self._lock:
            return self._laid_over(ccd, place, n_ccds)

    def _laid_over(self, ccd: Ccd, place: int, n_ccds: int) -> Plane:
        hdu = self._find(ccd, place, n_ccds)
        ny, nx = int(hdu.header["NAXIS2"]), int(hdu.header["NAXIS1"])
        section = ccd.section
        size = (section.y1 - section.y0, section.x1 - section.x0)
        try:
            pixels = hdu.data if self._packed else hdu.section
        except Exception as error:
            raise Misfit(
                "calibration_unreadable", f"{self._name} cannot be read.", str(error), "pixels"
            ) from error
        if (ny, nx) == ccd.data.shape:
            return Plane((ny, nx), pixels, slice(None), 0, 1, Section(0, nx, 0, ny), self._lock)
        shape = (ccd.data.shape[0], ccd.data.shape[1])
        if (ny, nx) == size:
            return Plane(shape, pixels, slice(None), 0, 1, section, self._lock)
        found = _DETSEC.fullmatch(str(ccd.header.get("DETSEC", "")).strip())
        if found is not None and len(self._planes) == 1:
            x0, x1, y0, y1 = (int(number) for number in found.groups())
            inside = min(x0, x1) >= 1 and max(x0, x1) <= nx and min(y0, y1) >= 1 and max(y0, y1) <= ny
            if inside and (abs(y1 - y0) + 1, abs(x1 - x0) + 1) == size:
                step = 1 if x1 >= x0 else -1
                stop: int | None = x1 if step > 0 else x1 - 2
                return Plane(
                    shape, pixels, slice(x0 - 1, None if stop is not None and stop < 0 else stop, step),
                    y0 - 1, 1 if y1 >= y0 else -1, section, self._lock,
                )  # fmt: skip
        raise Misfit(
            "calibration_geometry",
            f"{self._name} does not fit {ccd.name}.",
            f"{nx}x{ny} pixels",
            f"{ccd.data.shape[1]}x{ccd.data.shape[0]} (all), {size[1]}x{size[0]} (light-sensitive), or a mosaic that "
            f"holds DETSEC {ccd.header.get('DETSEC', 'which is not in the header')}",
        )

    def _is_wanted(self, header: Mapping[str, Any]) -> bool:
        if self._companion is None:
            return True
        return any(
            self._companion.match(str(header.get(keyword, "")).strip())
            for keyword in ("EXTNAME", "DES_EXT", "EXTTYPE")
        )

    def _find(self, ccd: Ccd, place: int, n_ccds: int) -> Any:
        if self._companion is not None and len(self._planes) != n_ccds:
            # Behind the image that they belong to.
            behind = [hdu for index, hdu in self._planes if index > ccd.hdu]
            if behind:
                return behind[0]
        for keyword, value in (("EXTNAME", ccd.name), ("EXTVER", ccd.header.get("EXTVER"))):
            named = [hdu for _, hdu in self._planes if hdu.header.get(keyword) == value]
            if value not in (None, *_UNNAMED) and len(named) == 1 and self._companion is None:
                return named[0]
        if len(self._planes) in (1, n_ccds):
            return self._planes[place if len(self._planes) == n_ccds else 0][1]
        raise Misfit(
            "calibration_planes",
            f"{self._name} has no plane for {ccd.name}.",
            f"{len(self._planes)} planes, none of that name",
            f"one named {ccd.name}, {n_ccds} in the order of the CCDs, or one mosaic",
        )
