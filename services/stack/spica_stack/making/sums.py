"""The sums of a weighted mean on disk, from which another stack goes on.

`<name>.sums.fits`: an image extension for each of the sums (see `science/combining`), one for the number of exposures,
and table MEMBERS with the numbers of each exposure, so that those that were there before need not be looked at again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray

from spica_stack.errors import input_unreadable
from spica_stack.science.pixels import Box
from spica_stack.science.totals import MemberNumbers

PLANES: dict[str, np.dtype[Any]] = {
    "total": np.dtype(np.float32),
    "share": np.dtype(np.float32),
    "square": np.dtype(np.float32),
}
"""Σ p w v, Σ p w and Σ p² w."""

EDGES = ("x0", "x1", "y0", "y1")

COUNT = "exposures"
"""The plane that the sums have in common with the stack's files."""


class SumsFile:
    """Sums of a stack that stands. Raises `NotRetriable` (`input_unreadable`)."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._places: dict[str, tuple[int, int, int]] = {}
        try:
            with fits.open(path, memmap=False) as hdus:
                for plane in (*PLANES, COUNT):
                    hdu = hdus[plane.upper()]
                    place = hdu.fileinfo()["datLoc"]
                    self._places[plane] = (place, hdu.header["NAXIS1"], hdu.header["NAXIS2"])
                self._members = np.array(hdus["MEMBERS"].data)
        except (OSError, KeyError, TypeError, ValueError) as error:
            raise input_unreadable(path, error) from error

    def members(self) -> dict[str, tuple[MemberNumbers, Box]]:
        """Numbers of the exposures that are in the sums and where they lie, by image_id."""
        return {
            bytes(record["IMAGE_ID"]).decode(): (_numbers(record), _box(record)) for record in self._members
        }

    def rows(self, plane: str, box: Box) -> NDArray[Any]:
        """A part of one of the sums, native byte order. Shape: of the box."""
        place, width, height = self._places[plane]
        x0, x1, y0, y1 = box
        if x1 > width or y1 > height:
            raise input_unreadable(self.path, ValueError("it belongs to a grid of another size"))
        dtype = PLANES.get(plane, np.dtype(np.int16)).newbyteorder(">")
        out = np.empty((y1 - y0, width), dtype)
        with self.path.open("rb", buffering=0) as file:
            file.seek(place + y0 * width * dtype.itemsize)
            room: Any = out.reshape(-1).view(np.uint8)
            if file.readinto(room) != out.nbytes:
                raise input_unreadable(self.path, ValueError("it ends before its pixels do"))
        return np.ascontiguousarray(out[:, x0:x1], dtype.newbyteorder("="))


def member_records(members: Sequence[tuple[str, MemberNumbers, Box]]) -> NDArray[Any]:
    """Table MEMBERS: image_id, all numbers, exactly (NaN for what is not known), and the output pixels they touch."""
    names = [field.name for field in fields(MemberNumbers)]
    longest = max((len(image_id.encode()) for image_id, *_ in members), default=1)
    kinds = [
        ("image_id", f"S{max(longest, 1)}"),
        *((name, ">f8") for name in names),
        *((edge, ">i4") for edge in EDGES),
    ]
    records = np.zeros(len(members), np.dtype(kinds))
    for record, (image_id, numbers, box) in zip(records, members, strict=True):
        record["image_id"] = image_id.encode()
        for name in names:
            value = getattr(numbers, name)
            record[name] = np.nan if value is None else value
        for edge, value in zip(EDGES, box, strict=True):
            record[edge] = value
    return records


def _box(record: Any) -> Box:
    x0, x1, y0, y1 = (int(record[edge.upper()]) for edge in EDGES)
    return x0, x1, y0, y1


def _numbers(record: Any) -> MemberNumbers:
    """The numbers of one row; NaN becomes None where that is allowed."""
    hints = get_type_hints(MemberNumbers)
    values: dict[str, Any] = {}
    for field in fields(MemberNumbers):
        value = float(record[field.name.upper()])
        values[field.name] = None if np.isnan(value) and hints[field.name] is not float else value
    return MemberNumbers(**values)
