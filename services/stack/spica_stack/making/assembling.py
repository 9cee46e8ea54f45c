"""From tiles to the files of a stack: one pass, every byte written and hashed once.

The sums that the FITS checksums want were taken when the tiles were made, so each header is known before its data.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import groupby

import numpy as np
from astropy.io import fits
from spica_proto.base import Product
from spica_runtime.errors import Retriable
from spica_runtime.storage import whole_file

from spica_stack.errors import no_joint_solution, no_overlap, no_usable_pixels
from spica_stack.fitsout import FitsWriter, sealed, table_bytes, table_cards
from spica_stack.making.gains import gains_of
from spica_stack.making.members import Reason
from spica_stack.making.order import CoaddOrder, CoaddResult
from spica_stack.making.partfile import MANY_RECORDS, REJECTED, PartFile, by_rows, standing
from spica_stack.making.preparing import PreparedMember
from spica_stack.making.roster import Entry, roster_of
from spica_stack.making.sums import COUNT, PLANES, member_records
from spica_stack.making.tiling import order_key, product_path, tile_path, tiles_of
from spica_stack.science.fitswords import folded
from spica_stack.science.header import history, stack_header, table_header, zeropoint_mag
from spica_stack.science.totals import deepest_overlap, totals

CHUNK_BYTES = 8_000_000
ROWS_OF_MANY = 16
"""Of the table of rejected samples at a time, where it is long."""
BITPIX = {"image": -32, "weight": -32, "exposures": 16}
CLIPPING = ("clipped_mean", "sigma_clip")
"""Methods that leave samples out."""


def roles_of(order: CoaddOrder) -> tuple[str, ...]:
    """The files that this order gives."""
    parameters = order.parameters
    rejected = ("rejected",) if parameters.rejection_map and parameters.combine in CLIPPING else ()
    sums = ("sums",) if parameters.keep_sums else ()
    return ("image", "weight", "exposures", *rejected, *sums)


def finished_tiles(order: CoaddOrder) -> list[PartFile]:
    """The files of all tiles. Raises `Retriable` (`tile_missing`) where one does not stand."""
    key = order_key(order)
    parts = []
    for number, box in enumerate(tiles_of(order)):
        part = standing(tile_path(order, number), key, box)
        if part is None:
            raise Retriable(
                "tile_missing",
                f"Tile {number} of {order.name} is not there, or was made for another order: {tile_path(order, number)}.",
                {"tile": number},
            )
        parts.append(part)
    return parts


def assemble(order: CoaddOrder, prepared: Sequence[PreparedMember]) -> CoaddResult:
    """Make the stack's files from its tiles, which must all stand. The tiles stay.

    Raises `NotRetriable` (`no_overlap`, `no_joint_solution`, `no_usable_pixels`), `Retriable` (`tile_missing`).
    """
    begun = time.monotonic()
    paths = {role: product_path(order, role) for role in roles_of(order)}
    roster = the_roster(order, prepared)
    maker = _Assembly(order, roster, finished_tiles(order))

    def make(role: str) -> Product:
        with whole_file(paths[role]) as path, FitsWriter(path) as out:
            maker.write(role, out)
        return out.product(order.data, paths[role], role)

    with ThreadPoolExecutor(1 if order.threads == 1 else len(paths), "assemble") as pool:
        products = dict(zip(paths, pool.map(make, paths), strict=True))
    kept = {entry.files.image_id for entry in roster}
    return CoaddResult(
        products=products,
        n_exposures=len(roster),
        exposure_time_s=maker.total.exposure_time_s,
        n_rejected=sum(part.n_rejected for part in maker.parts),
        left_out=tuple(sorted({member.image_id for member in order.members} - kept)),
        log=log_of(order, prepared),
        gains=gains_of(order, roster, maker.parts),
        zeropoint_mag=zeropoint_mag(maker.total),
        elapsed_s={"assemble": round(time.monotonic() - begun, 3)},
    )


def the_roster(order: CoaddOrder, prepared: Sequence[PreparedMember]) -> tuple[Entry, ...]:
    """What the stack is made of.

    Raises `NotRetriable` where there is nothing (`no_overlap`, `no_joint_solution`, `no_usable_pixels`).
    """
    roster = roster_of(order, prepared)
    if not roster:
        if any(ccd.reason == "no_flux_scale" for member in prepared for ccd in member.left_out):
            raise no_joint_solution({member.image_id for member in order.members}, len(order.members))
        if unusable := log_of(order, prepared, but="outside"):
            raise no_usable_pixels(len(order.members), unusable)
        raise no_overlap(order.grid)
    return roster


def log_of(
    order: CoaddOrder, prepared: Sequence[PreparedMember], but: Reason | None = None
) -> tuple[str, ...]:
    """What was not used, and why, `but` what was left out for this reason."""
    return tuple(
        f"{order.members[member.number].image.name}[{ccd.name}] left out: {ccd.why}"
        for member in prepared
        for ccd in member.left_out
        if ccd.reason != but
    )


class _Assembly:
    """Writes the files of one stack."""

    def __init__(self, order: CoaddOrder, roster: Sequence[Entry], parts: Sequence[PartFile]) -> None:
        self.order, self.roster, self.parts = order, roster, parts
        numbers = [entry.numbers for entry in roster]
        self.total = replace(
            totals(numbers, order.parameters.combine, deepest_overlap([entry.box for entry in roster])),
            exposure_time_s=float(sum(one.exposure_time_s for one in numbers)),
        )
        self._history = history(
            f"Spica {order.label.software}",
            [(entry.files.image.name, entry.files.head.name) for entry in roster],
        )

    def write(self, role: str, out: FitsWriter) -> None:
        """The file of this role."""
        writers: dict[str, Callable[[FitsWriter], None]] = {"rejected": self._rejected, "sums": self._sums}
        if (writer := writers.get(role)) is not None:
            writer(out)
            return
        header = stack_header(
            self.order.grid,
            self.order.label,
            self.total,
            self.order.parameters,
            bitpix=BITPIX[role],
            role=role,
            n_exposures=len(self.roster),
        )
        self._plane(out, role, header, self._history)

    def _plane(self, out: FitsWriter, plane: str, header: fits.Header, notes: Sequence[str] = ()) -> None:
        """One plane of pixels with its header."""
        out.write(sealed(header, folded(sum(part.sums[plane] for part in self.parts)), notes))
        for band in self._bands():
            height = band[0].box[3] - band[0].box[2]
            row_bytes = self.order.grid.width * 4
            step = max(1, CHUNK_BYTES // row_bytes)
            for first in range(0, height, step):
                rows = [part.rows(plane, first, min(first + step, height)) for part in band]
                out.write(rows[0] if len(rows) == 1 else np.concatenate(rows, axis=1, dtype=rows[0].dtype))
        out.pad()

    def _bands(self) -> Iterator[list[PartFile]]:
        """Tiles side by side, from the first rows of the stack to the last."""
        parts = sorted(self.parts, key=lambda part: (part.box[2], part.box[0]))
        for _, band in groupby(parts, key=lambda part: part.box[2]):
            yield list(band)

    def _rejected(self, out: FitsWriter) -> None:
        """Table REJECTED of samples, and table EXPOSURES of what their numbers mean."""
        out.write(sealed(table_header(self.order.label, "rejected"), 0, self._history))
        header = table_cards(np.empty(0, REJECTED), sum(part.n_records for part in self.parts), "REJECTED")
        for keyword, comment in (
            ("TTYPE1", "Column of the stack (the first is 1)"),
            ("TTYPE2", "Row of the stack"),
            ("TTYPE3", "Row of table EXPOSURES (the first is 1)"),
            ("TTYPE4", "By how many sigma it was off"),
        ):
            header.comments[keyword] = comment
        out.write(sealed(header, folded(sum(part.sums["rejected"] for part in self.parts))))
        for band in self._bands():
            _, _, first, last = band[0].box
            few = sum(part.n_records for part in band) <= MANY_RECORDS
            step = last - first if few else ROWS_OF_MANY
            for row in range(first, last, step):
                out.write(by_rows([part.rejected(row, min(row + step, last)) for part in band]))
        out.pad()
        out.write(table_bytes(self._exposures(), "EXPOSURES"))

    def _exposures(self) -> np.ndarray[tuple[int], np.dtype[np.void]]:
        """All members, in the order of their numbers."""
        members, used = self.order.members, {entry.number for entry in self.roster}
        names = [member.image.name.encode("ascii", "replace") for member in members]
        ids = [member.image_id.encode("ascii", "replace") for member in members]
        kinds = [
            ("number", ">i4"),
            ("name", f"S{max(map(len, names))}"),
            ("image_id", f"S{max(map(len, ids))}"),
            ("used", ">i2"),
        ]
        return np.array([(k + 1, name, ids[k], k in used) for k, name in enumerate(names)], np.dtype(kinds))

    def _sums(self, out: FitsWriter) -> None:
        """What another stack may go on from."""
        out.write(sealed(table_header(self.order.label, "sums"), 0, self._history))
        for plane in (*PLANES, COUNT):
            header = fits.Header(
                [
                    ("XTENSION", "IMAGE"),
                    ("BITPIX", BITPIX.get(plane, -32)),
                    ("NAXIS", 2),
                    ("NAXIS1", self.order.grid.width),
                    ("NAXIS2", self.order.grid.height),
                    ("PCOUNT", 0),
                    ("GCOUNT", 1),
                    ("EXTNAME", plane.upper()),
                ]
            )
            self._plane(out, plane, header)
        records = member_records([(entry.files.image_id, entry.numbers, entry.box) for entry in self.roster])
        out.write(table_bytes(records, "MEMBERS"))
