"""A member made ready: of each CCD the sky's mesh and the scale of its weights, small numbers that are kept in a file.

No pixels are kept. `PreparedCcd.patch` reads those that are wanted, when they are wanted, and does to them what the
numbers say; what comes out for a pixel does not depend on which others are read with it.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from spica_imaging.profiles import load_profiles
from spica_runtime.storage import whole_file

from spica_stack.errors import input_unreadable, unknown_profile
from spica_stack.making.members import CcdSource, LeftOut, open_member
from spica_stack.making.order import CoaddOrder
from spica_stack.science.background import Background, BoxMeter, Edges, box_edges
from spica_stack.science.parameters import Parameters
from spica_stack.science.pixels import Box, Image, Patch
from spica_stack.science.preparing import (
    FILL_RADIUS_PX,
    LEAST_USABLE,
    NoiseSample,
    NoUsablePixels,
    fill_holes,
    mask_rows,
    prepare_rows,
)
from spica_stack.science.resampling import make_mesh

BAND_ROWS = 64
"""Rows of a patch that are worked on at a time: little enough to stay in a core's cache."""

Run = Callable[[Sequence[Callable[[], "PreparedCcd | LeftOut"]]], Sequence["PreparedCcd | LeftOut"]]
"""Does tasks, gives their results in order."""

_MAGIC = b"Spica prepared member 1\n"


@dataclass(frozen=True, slots=True)
class PreparedCcd:
    """What is to be done to the pixels of one CCD, and what is known of them."""

    name: str
    shape: tuple[int, int]
    """(ny, nx) of the light-sensitive part."""
    window: Box
    """Output pixels that may see it."""
    flux_scale: float
    gain_e_per_adu: float
    saturation_adu: float
    background_adu: float
    """Median level of the sky."""
    noise_adu: float
    """Sky noise per pixel (standard deviation) where the weight is the typical one."""
    weight_factor: float
    """From the weight map's numbers to 1 / variance in adu⁻²."""
    subtracted: bool
    """Whether the sky is subtracted."""
    pixel_area: float
    """Its pixels per pixel of the stack."""
    sky: Background

    def patch(self, source: CcdSource, box: Box, room: Room | None = None) -> Patch:
        """Read a box of pixels and prepare it: the same pixels are the same, to the bit, in every box.

        `box` is cut to the CCD. With `room` the arrays of the patch are memory of the room's, and good until it is
        used again. Raises `NotRetriable` (`input_unreadable`).
        """
        ny, nx = self.shape
        x0, x1 = max(box[0], 0), min(box[1], nx)
        y0, y1 = max(box[2], 0), min(box[3], ny)
        shape = max(y1 - y0, 0), max(x1 - x0, 0)
        data, weight = (room or Room()).arrays(shape)
        if data.size:
            left, right = max(x0 - FILL_RADIUS_PX, 0), min(x1 + FILL_RADIUS_PX, nx)
            window = _Window(source, left, right)
            sky = self.sky if self.subtracted else None
            for b0, b1 in _bands(y0, y1, source):
                top = max(b0 - FILL_RADIUS_PX, 0)
                new = window.move(top, min(b1 + FILL_RADIUS_PX, ny))
                pixels, weights = window.rows(*new)
                prepare_rows(pixels, weights, sky, self.weight_factor, new[0], left)
                pixels, weights = window.rows(top, new[1])
                rows = slice(b0 - y0, b1 - y0)
                fill_holes(pixels, weights, data[rows], weight[rows], b0 - top, x0 - left)
        return Patch(data, weight, x0, y0)


class Room:
    """Memory for patches, one at a time: fresh memory costs about as much as what is done in it."""

    def __init__(self) -> None:
        self._memory = np.empty((2, 0), np.float32)

    def arrays(self, shape: tuple[int, int]) -> tuple[Image, Image]:
        """Two arrays of this shape; what they hold means nothing."""
        size = shape[0] * shape[1]
        if self._memory.shape[1] < size:
            self._memory = np.empty((2, 0), np.float32)
            self._memory = np.empty((2, size), np.float32)
        return self._memory[0, :size].reshape(shape), self._memory[1, :size].reshape(shape)


def _bands(y0: int, y1: int, source: CcdSource) -> Iterable[tuple[int, int]]:
    """Ranges of rows, such that what has to be read for them ends where tiles end."""
    grain, origin = source.grain, source.origin[1]
    height = -(-BAND_ROWS // grain) * grain
    while y0 < y1:
        behind = (y0 + origin + FILL_RADIUS_PX) // grain * grain + height - origin - FILL_RADIUS_PX
        yield y0, min(behind, y1)
        y0 = behind


class _Window:
    """Some rows of a CCD, moving upwards: those that are needed again are not read again."""

    def __init__(self, source: CcdSource, x0: int, x1: int) -> None:
        self._source, self._x0, self._x1 = source, x0, x1
        self._first = self._behind = 0
        self._arrays: tuple[Image, Image] | None = None

    def move(self, y0: int, y1: int) -> tuple[int, int]:
        """Go to the rows from y0 to y1; returns which of them are new. Old ones stay as they were left."""
        nx = self._x1 - self._x0
        kept = max(self._behind - y0, 0) if y0 >= self._first else 0
        old = self._arrays
        arrays = _scratch.arrays((y1 - y0, nx))
        if kept and old is not None:
            for now, before in zip(arrays, old, strict=True):
                start = y0 - self._first
                now[:kept] = before[start : start + kept].copy()
        self._arrays, self._first, self._behind = arrays, y0, y1
        new = y0 + kept, y1
        if new[1] > new[0]:
            self._source.read_into((self._x0, self._x1, *new), *self.rows(*new))
        return new

    def rows(self, y0: int, y1: int) -> tuple[Image, Image]:
        """Data and weight of some of the rows that it is at."""
        assert self._arrays is not None
        data, weight = self._arrays
        return data[y0 - self._first : y1 - self._first], weight[y0 - self._first : y1 - self._first]


class _Scratch(threading.local):
    """Memory of each thread's own for bands of rows, used again and again."""

    def __init__(self) -> None:
        self._room = Room()

    def arrays(self, shape: tuple[int, int]) -> tuple[Image, Image]:
        return self._room.arrays(shape)


_scratch = _Scratch()


def prepare_ccd(
    source: CcdSource, parameters: Parameters, window: Box, ccd_weight: float = 1.0, pixel_area: float = 1.0
) -> PreparedCcd:
    """Measure the sky and the noise of one CCD, in one pass over its pixels; memory: a row of mesh boxes.

    Weight maps are often known up to a factor only. It is found from the frame itself: the scatter of
    (pixel - sky) × sqrt(weight) is 1 for weights that are 1 / variance. `ccd_weight`: factor that is asked for
    besides. Raises NoUsablePixels, and `NotRetriable` (`input_unreadable`).
    """
    sky, sample = _measured(source, parameters.background_mesh_px)
    scale = 1.0
    if parameters.rescale_weights:
        sigma = sample.scatter(sky)
        if not (np.isfinite(sigma) and sigma > 0):
            raise NoUsablePixels("the pixels with weight do not scatter at all")
        scale = sigma**-2
    return PreparedCcd(
        name=source.name,
        shape=source.shape,
        window=window,
        flux_scale=source.flux_scale,
        gain_e_per_adu=source.gain_e_per_adu,
        saturation_adu=source.saturation_adu,
        background_adu=sky.typical,
        noise_adu=(scale * sample.median_weight()) ** -0.5,
        weight_factor=scale * ccd_weight,
        subtracted=parameters.subtract_background,
        pixel_area=pixel_area,
        sky=sky,
    )


def _measured(source: CcdSource, mesh_px: int) -> tuple[Background, NoiseSample]:
    """The sky of a CCD, and pixels of which the noise is told."""
    ny, nx = source.shape
    edges_y, edges_x = box_edges(source.shape, mesh_px)
    meter, sample = BoxMeter(edges_y, edges_x), NoiseSample(source.shape)
    usable = _through(source, edges_y, meter, sample)
    if usable < LEAST_USABLE:
        raise NoUsablePixels(f"{usable} pixels have weight")
    sky = meter.background()
    if sky is None or len(sample) < LEAST_USABLE:
        # So few that no box has its share of them: they are one box by themselves, and all of them the sample.
        sample = NoiseSample(source.shape, nx * ny)
        level = _level_of(np.concatenate(list(_usable(source, edges_y, sample))))
        sky = sky or (None if level is None else Background.through(level, source.shape))
    if sky is None:
        raise NoUsablePixels("its sky cannot be told")
    return sky, sample


def _level_of(pixels: Image) -> Image | None:
    """Level of pixels as if they were one box, shape (1, 1)."""
    meter = BoxMeter(np.array([0, 1]), np.array([0, len(pixels)]))
    meter.measure(0, pixels[None])
    return meter.level if np.isfinite(meter.level).all() else None


def _through(source: CcdSource, edges_y: Edges, meter: BoxMeter, sample: NoiseSample) -> int:
    """Measure all boxes and take the sample; returns how many pixels are usable."""
    usable = 0
    for row, (band, new) in enumerate(_masked(source, edges_y, sample)):
        usable += new
        meter.measure(row, band)
    return usable


def _usable(source: CcdSource, edges_y: Edges, sample: NoiseSample) -> Iterator[Image]:
    """All usable pixels, some at a time; and take the sample."""
    for band, _ in _masked(source, edges_y, sample):
        yield band[np.isfinite(band)]


def _masked(source: CcdSource, edges_y: Edges, sample: NoiseSample) -> Iterator[tuple[Image, int]]:
    """Go through all pixels, a row of boxes at a time, NaN where they are not usable; and take the sample.

    Gives the rows (good until the next are asked for) and how many pixels that were read for them are usable.
    """
    ny, nx = source.shape
    window = _Window(source, 0, nx)
    for y0, y1 in pairwise(edges_y.tolist()):
        # As far as tiles reach that have to be decoded anyway.
        whole = -(-(y1 + source.origin[1]) // source.grain) * source.grain - source.origin[1]
        new = window.move(y0, min(whole, ny))
        data, weight = window.rows(*new)
        usable = mask_rows(data, weight)
        sample.add(data, weight, new[0])
        yield window.rows(y0, y1)[0], usable


@dataclass(frozen=True, slots=True)
class PreparedMember:
    """One exposure of a stack, made ready."""

    number: int
    """Its place in the order, from 0."""
    image_id: str
    ccds: tuple[PreparedCcd, ...]
    left_out: tuple[LeftOut, ...]
    key: str
    """Of what it was made from: see `prepared_key`."""

    def save(self, path: Path) -> None:
        """Write it to a file, whole or not at all; the same numbers give the same bytes."""
        meshes = [ccd.sky.level for ccd in self.ccds]
        content = {
            "number": self.number,
            "image_id": self.image_id,
            "key": self.key,
            "ccds": [
                {name: getattr(ccd, name) for name in ccd.__slots__ if name != "sky"}
                | {"mesh": ccd.sky.level.shape}
                for ccd in self.ccds
            ],
            "left_out": [asdict(one) for one in self.left_out],
        }
        with whole_file(path) as part, part.open("wb") as file:
            file.write(_MAGIC + json.dumps(content, sort_keys=True).encode() + b"\n")
            for mesh in meshes:
                file.write(np.ascontiguousarray(mesh, "<f4").tobytes())

    @classmethod
    def load(cls, path: Path, key: str | None = None) -> PreparedMember:
        """Read it back. Raises OSError, and ValueError for a file that is something else, or torn, or of another `key`."""
        content = path.read_bytes()
        if not content.startswith(_MAGIC):
            raise ValueError(f"{path.name} is no prepared member of this version.")
        text, _, meshes = content[len(_MAGIC) :].partition(b"\n")
        try:
            found = _from_plain(json.loads(text), meshes)
        except (KeyError, TypeError) as error:
            raise ValueError(f"{path.name} is no prepared member of this version: {error}.") from error
        if key is not None and found.key != key:
            raise ValueError(f"{path.name} was made for another stack.")
        return found


def _from_plain(content: dict[str, Any], meshes: bytes) -> PreparedMember:
    ccds, place = [], 0
    for ccd in content["ccds"]:
        my, mx = ccd.pop("mesh")
        mesh = np.frombuffer(meshes, "<f4", my * mx, place).astype(np.float32).reshape(my, mx)
        place += mesh.nbytes
        shape, window = tuple(ccd.pop("shape")), tuple(ccd.pop("window"))
        ccds.append(PreparedCcd(shape=shape, window=window, sky=Background.through(mesh, shape), **ccd))
    left_out = tuple(LeftOut(**one) for one in content["left_out"])
    return PreparedMember(content["number"], content["image_id"], tuple(ccds), left_out, content["key"])


def prepared_key(order: CoaddOrder, number: int) -> str:
    """What tells a prepared member from any that would be another, in hexadecimal; the same on every host."""
    files, parameters = order.members[number], order.parameters
    content = (
        order.label.software,
        order.grid,
        (parameters.resampling, parameters.oversampling, parameters.background_mesh_px),
        (parameters.subtract_background, parameters.rescale_weights, sorted(parameters.ccd_weights.items())),
        (number, files.image_id, files.profile, files.flux_scale),
        (files.image.name, files.weight.name, files.head.name),
    )
    return hashlib.sha256(repr(content).encode()).hexdigest()


def prepare_member(order: CoaddOrder, number: int, run: Run | None = None) -> PreparedMember:
    """Prepare one exposure of the order: its CCDs that touch the grid and can be used.

    `run` does tasks and gives their results in order, on as many threads as it likes; by default here, one by one.
    Raises `NotRetriable` (`unknown_profile`, `input_unreadable`, `header_does_not_fit`, `weight_does_not_fit`).
    """
    files = order.members[number]
    profiles = load_profiles(order.profiles)
    if files.profile not in profiles:
        raise unknown_profile(files.profile, profiles)
    tasks = [partial(_prepared, one, order) for one in open_member(files, profiles[files.profile])]
    found = run(tasks) if run is not None else [task() for task in tasks]
    return PreparedMember(
        number=number,
        image_id=files.image_id,
        ccds=tuple(one for one in found if isinstance(one, PreparedCcd)),
        left_out=tuple(one for one in found if isinstance(one, LeftOut)),
        key=prepared_key(order, number),
    )


def _prepared(source: CcdSource | LeftOut, order: CoaddOrder) -> PreparedCcd | LeftOut:
    if isinstance(source, LeftOut):
        return source
    parameters = order.parameters
    ccd_weight = parameters.ccd_weights.get(source.name, 1.0)
    if not ccd_weight > 0:
        return LeftOut(source.name, "by_request", "its weight was asked to be 0")
    try:
        mesh = make_mesh(
            order.grid, source.wcs, source.shape, source.flux_scale, source.origin,
            parameters.resampling, parameters.oversampling,
        )  # fmt: skip
    except ValueError as error:
        raise input_unreadable(source.image, error) from error
    if mesh is None:
        return LeftOut(source.name, "outside", "does not touch the stack")
    try:
        return prepare_ccd(source, parameters, mesh.window, ccd_weight, mesh.pixel_area)
    except NoUsablePixels as error:
        return LeftOut(source.name, "no_sky", str(error))
