"""The members of a stack as they come from the data folder: where their pixels and weights stand, and their solutions.

Opening a member reads headers only. Pixels are read by rows, when they are asked for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
from astropy.io import fits
from spica_imaging.cards import CARD, Cards, MergedCards
from spica_imaging.frame import ccd_name, detector_of, is_sky, merged_header
from spica_imaging.openfiles import OpenFiles
from spica_imaging.profiles import Profile
from spica_imaging.rows import ImageRows, Place, RowFile, read_rows
from spica_imaging.wcs import WcsError

from spica_stack.errors import head_does_not_fit, input_unreadable, weight_does_not_fit
from spica_stack.making.order import MemberFiles
from spica_stack.science.grid import Wcs
from spica_stack.science.pixels import Box, Image
from spica_stack.science.resampling.worlds import wcs_from_header

Reason = Literal["no_solution", "no_weight", "no_flux_scale", "by_request", "outside", "no_sky"]


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A CCD that is not used, and why."""

    name: str
    reason: Reason
    why: str
    """In words."""


@cache
def shared_files() -> OpenFiles:
    """The files that this process holds open."""
    return OpenFiles()


@dataclass(frozen=True, slots=True)
class CcdSource:
    """One CCD of a member: what is known of it, and its pixels when they are asked for.

    Positions count from the first pixel of its light-sensitive part, zero-based. Picklable; any thread may read.
    """

    name: str
    """Of no other CCD of the member."""
    shape: tuple[int, int]
    """(ny, nx) of the light-sensitive part."""
    origin: tuple[int, int]
    """Zero-based pixel (x, y) of the CCD at which that part begins."""
    wcs: Any
    """A `Wcs`, in pixels of the whole CCD: `TpvWcs` (of which some ask more) for TAN, TPV and SIP, else astropy's."""
    flux_scale: float
    gain_e_per_adu: float
    saturation_adu: float
    image: Path
    weight: Path
    places: tuple[Place, Place]
    """Of image and weight in their files."""
    grain: int
    """Rows that are decoded at a time: reading is cheapest up to multiples of it, less `origin`."""
    files: OpenFiles | None = field(default=None, compare=False, repr=False)
    """None: those of the process."""

    def read(self, box: Box) -> tuple[Image, Image]:
        """Pixels and weights of a box, shape (y1 - y0, x1 - x0); NaN where there is no value.

        Raises `NotRetriable` (`input_unreadable`).
        """
        shape = (box[3] - box[2], box[1] - box[0])
        data, weight = np.empty(shape, np.float32), np.empty(shape, np.float32)
        self.read_into(box, data, weight)
        return data, weight

    def read_into(self, box: Box, data: Image, weight: Image) -> None:
        """The same into arrays that are there, contiguous."""
        self._read(self.image, self.places[0], box, data)
        self._read(self.weight, self.places[1], box, weight)

    def _read(self, path: Path, place: Place, box: Box, out: Image) -> None:
        (x, y), (x0, x1, y0, y1) = self.origin, box
        try:
            with (self.files or shared_files()).file(path) as file:
                read_rows(file.at(place), y0 + y, y1 + y, x0 + x, x1 + x, out)
        except (OSError, IndexError) as error:
            raise input_unreadable(path, error) from error

    def close(self) -> None:
        """Nothing is held by a source itself: its files are closed when others need the room."""

    def __getstate__(self) -> tuple[Any, ...]:
        return tuple(None if name == "files" else getattr(self, name) for name in self.__slots__)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        for name, value in zip(self.__slots__, state, strict=True):
            object.__setattr__(self, name, value)


def read_head(path: Path) -> list[Cards]:
    """Header blocks of a `.head` file, ours or SCAMP's; an unreadable one is told by name."""
    try:
        text = path.read_bytes().decode("ascii", errors="replace").replace("\ufffd", "?")
    except OSError as error:
        raise input_unreadable(path, error) from error
    blocks: list[Cards] = []
    cards: list[str] = []
    for line in text.splitlines():
        if line.rstrip() == "END":
            blocks.append(Cards("".join(cards).encode()))
            cards = []
        elif line.strip():
            cards.append(f"{line[:CARD]:<{CARD}}")
    if cards:
        raise input_unreadable(path, ValueError(f"it ends without END after {len(blocks)} complete blocks"))
    return blocks


def head_for(heads: Sequence[Cards], names: Sequence[str], path: Path) -> list[Cards | None]:
    """Put header blocks to CCDs: by EXTNAME where all blocks have one, else by their order.

    A CCD without a block was not solved: None.
    """
    by_name = {str(head["EXTNAME"]).strip(): head for head in heads if "EXTNAME" in head}
    if heads and len(by_name) == len(heads) and set(by_name) <= set(names):
        return [by_name.get(name) for name in names]
    if len(heads) != len(names):
        raise head_does_not_fit(path, len(heads), len(names))
    return list(heads)


def wcs_of(head: Mapping[str, Any], path: Path) -> Wcs:
    """World coordinates of one header block."""
    try:
        return wcs_from_header(head)
    except WcsError as error:
        raise input_unreadable(path, error) from error


def open_member(
    files: MemberFiles, profile: Profile, opened: OpenFiles | None = None
) -> list[CcdSource | LeftOut]:
    """Find the CCDs of one exposure, in the order of its file, with their weights and their solutions.

    Raises `NotRetriable` (`input_unreadable`, `header_does_not_fit`, `weight_does_not_fit`) for files that cannot be
    used.
    """
    cabinet = opened or shared_files()
    heads = read_head(files.head)
    ccds = _ccds(cabinet, files.image)
    names = [name for name, _, _ in ccds]
    blocks = head_for(heads, names, files.head)
    weights = _weights(cabinet, files.weight, names)
    found: list[CcdSource | LeftOut] = []
    for (name, image, header), block, weight in zip(ccds, blocks, weights, strict=True):
        found.append(_source(files, profile, name, image, header, block, weight))
    return [
        one if opened is None or isinstance(one, LeftOut) else replace(one, files=opened)
        for one in _told_apart(found)
    ]


def _ccds(cabinet: OpenFiles, path: Path) -> list[tuple[str, ImageRows, Mapping[str, Any]]]:
    """Name, pixels and merged header of all CCDs."""
    try:
        with cabinet.file(path) as file:
            found = []
            for image in file.images():
                if is_sky(image.header):
                    header = _merged(file, image)
                    found.append((ccd_name(header, image.place.index), image, header))
            return found
    except (OSError, TypeError) as error:
        raise input_unreadable(path, error) from error


def _merged(file: RowFile, image: ImageRows) -> Mapping[str, Any]:
    primary, own = file.primary, image.header
    if isinstance(primary, fits.Header) or isinstance(own, fits.Header):
        merged: Mapping[str, Any] = merged_header(cast(fits.Header, primary), cast(fits.Header, own))
        return merged
    return MergedCards(primary, own)


def _weights(cabinet: OpenFiles, path: Path, names: Sequence[str]) -> list[ImageRows | None]:
    """Weight maps of the CCDs: by name, or by their order where there are as many."""
    try:
        with cabinet.file(path) as file:
            images = file.images()
    except (OSError, TypeError) as error:
        raise input_unreadable(path, error) from error
    by_name = {ccd_name(image.header, image.place.index): image for image in images}
    in_order: Sequence[ImageRows | None] = images if len(images) == len(names) else [None] * len(names)
    if len(set(names)) < len(names):
        return list(in_order)
    return [by_name.get(name) or other for name, other in zip(names, in_order, strict=True)]


def _source(
    files: MemberFiles,
    profile: Profile,
    name: str,
    image: ImageRows,
    header: Mapping[str, Any],
    block: Cards | None,
    weight: ImageRows | None,
) -> CcdSource | LeftOut:
    if block is None:
        return LeftOut(name, "no_solution", "no solution")
    if weight is None:
        return LeftOut(name, "no_weight", "no weight map")
    if weight.shape != image.shape:
        raise weight_does_not_fit(files.weight, name, weight.shape, image.shape)
    scale = block.get("FLXSCALE", files.flux_scale)
    if not isinstance(scale, int | float) or not (np.isfinite(scale) and scale > 0):
        return LeftOut(name, "no_flux_scale", "no flux scale")
    if min(image.shape) < 1:
        return LeftOut(name, "no_sky", "it has no pixels")
    detector = detector_of(header, profile, image.shape)
    section = detector.section
    return CcdSource(
        name=name,
        # No interpolation reaches into the overscan.
        shape=(section.y1 - section.y0, section.x1 - section.x0),
        origin=(section.x0, section.y0),
        wcs=wcs_of(block, files.head),
        flux_scale=float(scale),
        gain_e_per_adu=detector.gain_e_per_adu,
        saturation_adu=detector.saturation_adu,
        image=files.image,
        weight=files.weight,
        places=(image.place, weight.place),
        grain=max(image.grain, weight.grain),
    )


def _told_apart(found: Sequence[CcdSource | LeftOut]) -> list[CcdSource | LeftOut]:
    """Names that are there twice get a number."""
    seen: dict[str, int] = {}
    result = []
    for one in found:
        seen[one.name] = number = seen.get(one.name, 0) + 1
        result.append(one if number == 1 else replace(one, name=f"{one.name}#{number}"))
    return result
