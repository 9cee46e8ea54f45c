"""What SWarp leaves: its stack, the resampled inputs, the list of what it clipped; and the stack's files made of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray
from spica_proto.base import Product
from spica_runtime.errors import NotRetriable
from spica_runtime.storage import whole_file

from spica_stack.fitsout import FitsWriter, ones_complement_sum, sealed, table_bytes
from spica_stack.making.members import CcdSource
from spica_stack.making.order import CoaddOrder
from spica_stack.making.partfile import REJECTED as RECORD
from spica_stack.making.swarp_inputs import Input, fields_of
from spica_stack.making.swarp_words import IMAGE, REJECTED, WEIGHT, not_applied
from spica_stack.making.tiling import product_path
from spica_stack.science.header import history, stack_header, table_header
from spica_stack.science.resampling import make_mesh
from spica_stack.science.totals import MemberNumbers, Totals, totals

_ROWS = 256
"""Even: rows of 16-bit numbers then come in whole words."""
Rows = Callable[[int, int], NDArray[Any]]
"""Rows of a plane, big-endian, from one to before another."""


@dataclass(frozen=True, slots=True)
class Resampled:
    """One CCD on the grid, as SWarp left it."""

    path: Path
    x0: int
    y0: int
    """Zero-based pixel of the stack at which it begins."""
    background_adu: float
    noise_adu: float

    def weight(self) -> NDArray[Any]:
        """Its weights, mapped: shape (ny, nx)."""
        return _mapped(self.path)


def _mapped(path: Path) -> NDArray[Any]:
    with fits.open(path, memmap=False, lazy_load_hdus=True) as hdus:
        header, place = hdus[0].header, hdus[0].fileinfo()["datLoc"]
    shape = header["NAXIS2"], header["NAXIS1"]
    return np.memmap(path, ">f4", "r", place, shape)


def resampled(scratch: Path, inputs: Sequence[Input]) -> dict[tuple[int, int], Resampled]:
    """By number of the member and of the CCD among those given; SWarp leaves out what does not touch the stack."""
    found = {}
    for one, ccd in fields_of(inputs):
        path = scratch / one.resampled(ccd)
        if path.exists():
            header = fits.getheader(path)
            found[one.number, ccd] = Resampled(
                path, header["COMIN1"] - 1, header["COMIN2"] - 1, header["BACKMEAN"], header["BACKSIG"]
            )
    return found


def numbers_of(
    order: CoaddOrder, one: Input, found: dict[tuple[int, int], Resampled]
) -> MemberNumbers | None:
    """One exposure's numbers, sky and noise as SWarp found them; None where it has no CCD on the stack."""
    ccds = [(ccd, found[one.number, k]) for k, ccd in enumerate(one.ccds) if (one.number, k) in found]
    if not ccds:
        return None
    return MemberNumbers(
        exposure_time_s=one.files.exposure_time_s,
        flux_scale=float(np.mean([ccd.flux_scale for ccd, _ in ccds])),
        gain_e_per_adu=float(np.mean([ccd.gain_e_per_adu for ccd, _ in ccds])),
        noise_adu=float(np.mean([left.noise_adu for _, left in ccds])),
        background_adu=float(np.mean([left.background_adu for _, left in ccds]))
        if order.parameters.subtract_background
        else 0.0,
        saturation_adu=min(ccd.saturation_adu for ccd, _ in ccds),
        mjd_obs=one.files.mjd_obs,
        pixel_area=float(np.mean([_pixel_area(order, ccd) for ccd, _ in ccds])),
    )


def _pixel_area(order: CoaddOrder, ccd: CcdSource) -> float:
    """Pixels of a CCD per pixel of the stack."""
    mesh = make_mesh(order.grid, ccd.wcs, ccd.shape, ccd.flux_scale, ccd.origin)
    return 1.0 if mesh is None else mesh.pixel_area


def rejected(scratch: Path, inputs: Sequence[Input]) -> NDArray[Any]:
    """What SWarp clipped, in the order of row, column, exposure: records as in the stack's table.

    Its list: number of the CCD from 0, FITS pixel of the stack, by how many sigma.
    """
    path = scratch / REJECTED
    if not path.exists():
        return np.empty(0, RECORD)
    flat = np.fromfile(path, np.float64, sep=" ")
    if flat.size % 4:
        raise NotRetriable("swarp_failed", f"SWarp's list of clipped samples is torn: {flat.size} numbers.")
    field, x, y, n_sigma = flat.reshape(-1, 4).T
    members = np.array([one.number for one, _ in fields_of(inputs)], np.int64)
    records = np.empty(len(x), RECORD)
    records["x"], records["y"], records["n_sigma"] = x, y, n_sigma
    records["exposure"] = members[field.astype(np.int64)] + 1
    return records[np.lexsort((records["exposure"], records["x"], records["y"]))]


def count_exposures(
    order: CoaddOrder, found: dict[tuple[int, int], Resampled], clipped: NDArray[Any], weight: NDArray[Any]
) -> NDArray[np.int16]:
    """Exposures in each pixel of the stack: those with weight there, less those that were clipped."""
    width, height = order.grid.width, order.grid.height
    count = np.zeros((height, width), np.int16)
    by_member: dict[int, list[Resampled]] = {}
    for (number, _), one in found.items():
        by_member.setdefault(number, []).append(one)
    for ccds in by_member.values():
        _count_one(count, ccds)
    once = np.unique(np.stack([clipped["x"], clipped["y"], clipped["exposure"]], axis=1), axis=0)
    np.subtract.at(count, (once[:, 1] - 1, once[:, 0] - 1), 1)
    # Where it clips all, it takes them all the same.
    valued = weight > 0
    np.maximum(count, valued, out=count)
    count[~valued] = 0
    return count


def _count_one(count: NDArray[np.int16], ccds: Sequence[Resampled]) -> None:
    """Add one exposure, where any of its CCDs has weight."""
    height, width = count.shape
    planes = [(one, one.weight()) for one in ccds]
    for y0 in range(0, height, _ROWS):
        y1 = min(y0 + _ROWS, height)
        seen = np.zeros((y1 - y0, width), np.bool_)
        for one, plane in planes:
            ny, nx = plane.shape
            top, bottom = max(y0, one.y0), min(y1, one.y0 + ny)
            left, right = max(0, one.x0), min(width, one.x0 + nx)
            if top < bottom and left < right:
                part = plane[top - one.y0 : bottom - one.y0, left - one.x0 : right - one.x0]
                seen[top - y0 : bottom - y0, left:right] |= part > 0
        count[y0:y1] += seen


class Finishing:
    """The stack's files, in the form that all stacks have."""

    def __init__(self, order: CoaddOrder, inputs: Sequence[Input], scratch: Path, version: str) -> None:
        self.order, self._scratch, self._version = order, scratch, version
        found = resampled(scratch, inputs)
        numbers = {one.number: told for one in inputs if (told := numbers_of(order, one, found)) is not None}
        self.used = [one for one in inputs if one.number in numbers]
        self.total: Totals = totals(list(numbers.values()), order.parameters.combine)
        self.rejected = rejected(scratch, inputs)
        self._image, self._weight = _mapped(scratch / IMAGE), _mapped(scratch / WEIGHT)
        shape = (order.grid.height, order.grid.width)
        if self._image.shape != shape:
            raise NotRetriable(
                "swarp_failed", f"SWarp made an image of shape {self._image.shape} instead of {shape}."
            )
        self._count = count_exposures(order, found, self.rejected, self._weight)
        self._history = [
            *history(
                f"SWarp {version} for Spica {order.label.software}",
                [(one.files.image.name, one.files.head.name) for one in self.used],
            ),
            *not_applied(order),
        ]

    def products(self) -> dict[str, Product]:
        """Write all files; they appear whole."""
        planes: dict[str, tuple[int, Rows]] = {
            "image": (-32, self._values),
            "weight": (-32, lambda y0, y1: self._weight[y0:y1]),
            "exposures": (16, lambda y0, y1: self._count[y0:y1].astype(">i2")),
        }
        made = {role: self._written(role, self._plane(role, *plane)) for role, plane in planes.items()}
        if self.order.parameters.rejection_map and self.order.parameters.combine == "clipped_mean":
            made["rejected"] = self._written("rejected", self._table)
        return made

    def _values(self, y0: int, y1: int) -> NDArray[Any]:
        """SWarp writes 0 where there is nothing: here that is NaN."""
        return np.where(self._weight[y0:y1] > 0, self._image[y0:y1], np.nan).astype(">f4")

    def _written(self, role: str, write: Callable[[FitsWriter], None]) -> Product:
        path = product_path(self.order, role)
        with whole_file(path) as part, FitsWriter(part) as out:
            write(out)
        return out.product(self.order.data, path, role)

    def _header(self, header: fits.Header) -> fits.Header:
        header["SOFTNAME"], header["SOFTVERS"] = "SWarp", self._version
        return header

    def _plane(self, role: str, bitpix: int, rows: Rows) -> Callable[[FitsWriter], None]:
        height = self.order.grid.height

        def pieces() -> list[tuple[int, int]]:
            return [(y0, min(y0 + _ROWS, height)) for y0 in range(0, height, _ROWS)]

        def write(out: FitsWriter) -> None:
            header = stack_header(
                self.order.grid,
                self.order.label,
                self.total,
                self.order.parameters,
                bitpix=bitpix,
                role=role,
                n_exposures=len(self.used),
            )
            total = 0
            for piece in pieces():
                data = rows(*piece).tobytes()
                total = ones_complement_sum(data + b"\0" * (-len(data) % 4), total)
            out.write(sealed(self._header(header), total, self._history))
            for piece in pieces():
                out.write(np.ascontiguousarray(rows(*piece)))
            out.pad()

        return write

    def _table(self, out: FitsWriter) -> None:
        """Tables REJECTED and EXPOSURES, as our own engine writes them."""
        out.write(sealed(self._header(table_header(self.order.label, "rejected")), 0, self._history))
        out.write(table_bytes(self.rejected, "REJECTED"))
        members, used = self.order.members, {one.number for one in self.used}
        names = [member.image.name.encode("ascii", "replace") for member in members]
        ids = [member.image_id.encode("ascii", "replace") for member in members]
        kinds = [
            ("number", ">i4"),
            ("name", f"S{max(map(len, names))}"),
            ("image_id", f"S{max(map(len, ids))}"),
            ("used", ">i2"),
        ]
        rows = [(k + 1, name, ids[k], k in used) for k, name in enumerate(names)]
        out.write(table_bytes(np.array(rows, np.dtype(kinds)), "EXPOSURES"))
