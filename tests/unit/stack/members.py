"""Members of a stack on disk, in the forms in which they come: written as tests want them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray
from spica_imaging.head import add_cards, format_head
from spica_imaging.profiles import Profile, load_profiles
from spica_stack.making.members import CcdSource, open_member
from spica_stack.making.order import MemberFiles

from tests.unit.stack.sky import wcs_at

GENERIC = load_profiles()["generic"]
MEGACAM = load_profiles()["megacam"]

Hdu = Callable[[NDArray[Any], str], fits.ImageHDU | fits.CompImageHDU]


def floats(data: NDArray[Any], name: str) -> fits.ImageHDU:
    """Plain float32."""
    return fits.ImageHDU(data.astype(np.float32), name=name)


def shorts(data: NDArray[Any], name: str) -> fits.ImageHDU:
    """Plain int16, unsigned by BZERO."""
    return fits.ImageHDU(np.nan_to_num(data).round().astype(np.uint16), name=name)


def rice(data: NDArray[Any], name: str) -> fits.CompImageHDU:
    """Rice-compressed whole numbers, a tile per row."""
    return fits.CompImageHDU(
        np.nan_to_num(data).round().astype(np.int16), name=name, compression_type="RICE_1"
    )


def rice16(data: NDArray[Any], name: str) -> fits.CompImageHDU:
    """Rice-compressed whole numbers, 16 rows to a tile, as the weight maps of the quality service."""
    return fits.CompImageHDU(
        np.nan_to_num(data).round().astype(np.int16), name=name, compression_type="RICE_1",
        tile_shape=(16, data.shape[1]),
    )  # fmt: skip


@dataclass
class Written:
    """One member as it was written: all of it can be asked for otherwise."""

    folder: Path
    data: Sequence[NDArray[Any]]
    weight: Sequence[NDArray[Any]]
    image_hdu: Hdu = floats
    weight_hdu: Hdu = floats
    names: Sequence[str] | None = None
    weight_names: Sequence[str] | None = None
    head_names: Sequence[str | None] | None = None
    """Of the blocks, in their order; None: a block without EXTNAME."""
    flux_scale: float | str | None = 0.01
    member_flux_scale: float | None = None
    primary: dict[str, Any] | None = None
    extension: dict[str, Any] | None = None
    profile: str = "generic"
    shifts: Sequence[tuple[float, float]] | None = None

    def files(self) -> MemberFiles:
        """Write image, weight map and solution."""
        names = self.names or [f"CCD{k:02d}" for k in range(len(self.data))]
        weight_names = self.weight_names if self.weight_names is not None else names
        heads = self.head_names if self.head_names is not None else names
        image, weight, head = (self.folder / f"m.{kind}" for kind in ("fits", "weight.fits", "head"))
        primary = fits.PrimaryHDU()
        primary.header.update(self.primary or {})
        hdus = [self.image_hdu(data, name) for data, name in zip(self.data, names, strict=True)]
        for hdu in hdus:
            hdu.header.update(self.extension or {})
        fits.HDUList([primary, *hdus]).writeto(image, overwrite=True)
        maps = [self.weight_hdu(data, name) for data, name in zip(self.weight, weight_names, strict=False)]
        fits.HDUList([fits.PrimaryHDU(), *maps]).writeto(weight, overwrite=True)
        head.write_text(format_head([self._block(k, name) for k, name in enumerate(heads)]))
        return MemberFiles(
            "m.0", "m", image, self.profile, weight, head, self.member_flux_scale, 60.0, 60000.0, 0.8
        )  # fmt: skip

    def _block(self, number: int, name: str | None) -> fits.Header:
        shift = self.shifts[number] if self.shifts else (0.0, 0.0)
        block = wcs_at(self.data[min(number, len(self.data) - 1)].shape, shift=shift).to_header()
        if name is not None:
            add_cards(block, [("EXTNAME", name, "")])
        if self.flux_scale is not None:
            add_cards(block, [("FLXSCALE", self.flux_scale, "")])
        return block

    def sources(self, profile: Profile = GENERIC) -> list[CcdSource]:
        """Write, open, and take the CCDs, all of which must be usable."""
        found = open_member(self.files(), profile)
        assert all(isinstance(one, CcdSource) for one in found), found
        return [one for one in found if isinstance(one, CcdSource)]
