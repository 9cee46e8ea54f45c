"""What instrument and observatory say of an image's pixels, laid over its CCDs: masks, flats, companions in the file."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from spica_imaging.frame import Ccd
from spica_imaging.profiles import Profile
from spica_proto.base import Product
from spica_runtime.storage import DataFolder

from spica_quality.auxiliaries import CalibrationFrame, Misfit
from spica_quality.science.flags import MEANINGS, Flags
from spica_quality.science.masking.instrumentmask import FlatField, flat_field, mark_masked, mark_weightless

_BITS: Mapping[str, int] = {name: 1 << bit for bit, name, _ in MEANINGS}


class InstrumentWord:
    """Masks and flats of one image, open while its CCDs are worked on. What does not fit is left out, and said so."""

    def __init__(
        self,
        image: Path,
        profile: Profile,
        n_ccds: int,
        data: DataFolder,
        auxiliaries: Mapping[str, Product] | None = None,
    ) -> None:
        """Open what there is.

        Args:
            image: the image's file; masks and weights that travel in it count.
            profile: its instrument's.
            n_ccds: how many CCDs the image has.
            data: the data folder.
            auxiliaries: files of master masks and flats, by kind (`mask`, `flat`).

        """
        self._profile, self._n_ccds = profile, n_ccds
        self._stack = ExitStack()
        self._notes: dict[str, None] = {}
        self._files = dict(auxiliaries or {})
        self._used: dict[str, Product] = {}
        self._frames: dict[str, CalibrationFrame] = {}
        for kind, product in self._files.items():
            self._open(kind, data.path(product.path), None)
        for kind in ("mask", "weight"):
            self._open(f"own {kind}", image, kind)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    @property
    def notes(self) -> tuple[str, ...]:
        """What was used how, and what could not be used and why: for the log."""
        return tuple(self._notes)

    @property
    def used(self) -> tuple[Product, ...]:
        """Master masks and flats that went in."""
        return tuple(self._used.values())

    def mark(self, ccd: Ccd, place: int, flags: Flags) -> FlatField | None:
        """Add what is known of a CCD to its flag map; returns its flat, where there is one.

        To be called after `masks.initial_flags` and before the pixels are looked at. `place`: number of the CCD within the
        image, from 0.
        """
        if "mask" in self._frames:
            self._mask(ccd, place, flags, "mask", None)
        if "own mask" in self._frames:
            bits = {
                value: _BITS[name]
                for name, values in self._profile.layout.mask_bits.items()
                for value in values
            }
            self._mask(ccd, place, flags, "own mask", bits or None)
        if "own weight" in self._frames:
            try:
                mark_weightless(
                    self._frames["own weight"].plane(ccd, place, self._n_ccds), flags, ccd.section
                )
            except Misfit as misfit:
                self._note(str(misfit))
        if "flat" not in self._frames:
            return None
        try:
            flat = flat_field(self._frames["flat"].plane(ccd, place, self._n_ccds), flags, ccd.section)
        except Misfit as misfit:
            self._note(str(misfit))
            return None
        self._took("flat")
        return flat

    def _mask(self, ccd: Ccd, place: int, flags: Flags, kind: str, bits: Mapping[int, int] | None) -> None:
        try:
            reading = mark_masked(
                self._frames[kind].plane(ccd, place, self._n_ccds), flags, ccd.section, bits
            )
        except Misfit as misfit:
            self._note(str(misfit))
            return
        self._note(
            f"{kind}: all pixels of {ccd.name} have one value, nothing is masked"
            if reading.bad_is == "nothing"
            else f"{kind}: bad pixels are {reading.bad_is}"
        )
        self._took(kind)

    def _took(self, kind: str) -> None:
        if kind in self._files:
            self._used[kind] = self._files[kind]

    def _note(self, line: str) -> None:
        self._notes[line] = None

    def _open(self, kind: str, path: Path, companions: str | None) -> None:
        try:
            frame = CalibrationFrame(path, companions)
        except Misfit as misfit:
            # The image's own reader says what is wrong with it.
            if companions is None:
                self._note(str(misfit))
            return
        if len(frame):
            self._frames[kind] = self._stack.enter_context(frame)
        else:
            frame.close()
            if companions is None:
                self._note(f"calibration_planes: {path.name} holds no two-dimensional image.")
