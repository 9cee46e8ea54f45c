"""Frames as they come from a telescope: one array and one header per CCD."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray

from spica_imaging.packed import START_BYTES, packing
from spica_imaging.profiles import Profile
from spica_imaging.sections import Section, parse_section
from spica_imaging.tiles import NotHandledError, decode_ccd
from spica_imaging.tiletable import TileError

_COMPANION = re.compile(
    r"(MASK|DQ|BPM|WEIGHT|WGT|WHT|INVVAR|VARIANCE|VAR|ERR|ERROR|SIGMA)(_\w*)?$", re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class Ccd:
    """One CCD of an exposure, on the full pixel grid of its HDU.

    Coordinates in catalogues and WCS refer to this grid, FITS convention (first pixel centre = 1).
    Pixels outside `section` (overscan) are not sky: their weight is zero.
    """

    hdu: int
    name: str
    data: NDArray[np.float32]
    """Shape (ny, nx), adu, BZERO and BSCALE applied; NaN where there is no value."""
    header: fits.Header
    """The extension's cards over the primary's."""
    section: Section
    gain_e_per_adu: float
    read_noise_e: float
    saturation_adu: float


def is_image(hdu: Any) -> bool:
    """Whether an HDU holds a two-dimensional image (compressed or not)."""
    return (
        isinstance(hdu, fits.ImageHDU | fits.PrimaryHDU | fits.CompImageHDU) and hdu.header.get("NAXIS") == 2
    )


def is_sky(header: Mapping[str, Any]) -> bool:
    """Whether an image is of the sky: not a mask, weight or variance map that travels with one.

    Told by EXTNAME, or by DES_EXT and EXTTYPE as the DECam pipelines write them.
    """
    return not any(
        _COMPANION.match(str(header.get(keyword, "")).strip())
        for keyword in ("EXTNAME", "DES_EXT", "EXTTYPE")
    )


def ccd_name(header: Mapping[str, Any], index: int) -> str:
    """EXTNAME where it tells CCDs apart, else `ccdNN` from EXTVER, else from the HDU's index.

    Compressed MegaCam frames may lack EXTNAME or carry `COMPRESSED_IMAGE` in all extensions.
    """
    name = str(header.get("EXTNAME", "")).strip()
    if name and name not in ("COMPRESSED_IMAGE", "PRIMARY"):
        return name
    number = header.get("EXTVER") if not name else None
    return f"ccd{int(number):02d}" if number is not None else f"ccd{max(index - 1, 0):02d}"


def merged_header(primary: fits.Header, extension: fits.Header) -> fits.Header:
    """Cards of the primary, overridden by those of the extension (FITS INHERIT convention)."""
    header = fits.Header()
    structural = {"SIMPLE", "EXTEND", "NEXTEND", "CHECKSUM", "DATASUM", "INHERIT", "COMMENT", "HISTORY", ""}
    for card in primary.cards:
        if card.keyword not in structural and not card.keyword.startswith(("NAXIS", "BITPIX")):
            _take(card, header)
    for card in extension.cards:
        if card.keyword not in structural:
            _take(card, header)
    return header


def _take(card: fits.Card, header: fits.Header) -> None:
    """Copy a card; one that no reader understands is left out, as ingest noted when it came."""
    with contextlib.suppress(fits.VerifyError, ValueError):
        keyword, value, comment = card.keyword, card.value, card.comment
        if keyword in header:
            header[keyword] = (value, comment)
        else:
            # The card itself: made anew, a long or lower-case keyword would warn of what the file has anyway.
            header.append(card, end=True)


def _number(profile: Profile, header: Mapping[str, Any], keywords: tuple[str, ...], default: float) -> float:
    value = profile.value(header, keywords)
    try:
        number = float(value) if value is not None else default
    except (TypeError, ValueError):
        return default
    return number if np.isfinite(number) and number > 0 else default


@dataclass(frozen=True, slots=True)
class Detector:
    """What header and profile say of a detector."""

    section: Section
    """Its light-sensitive part."""
    gain_e_per_adu: float
    read_noise_e: float
    saturation_adu: float


def detector_of(header: Mapping[str, Any], profile: Profile, shape: tuple[int, int]) -> Detector:
    """Read what a CCD's merged header says of its detector, of `shape` (ny, nx); the profile says the rest."""
    ny, nx = shape
    section = Section(0, nx, 0, ny)
    if profile.layout.section_keyword:
        text = str(header.get(profile.layout.section_keyword, ""))
        section = parse_section(text, nx, ny) or section
    detector = profile.detector
    saturation = detector.saturation_adu
    if detector.trust_header_saturation:
        saturation = _number(profile, header, profile.keywords.saturation, saturation)
    return Detector(
        section=section,
        gain_e_per_adu=_number(profile, header, profile.keywords.gain, detector.gain_e_per_adu),
        read_noise_e=_number(profile, header, profile.keywords.read_noise, detector.read_noise_e),
        saturation_adu=saturation,
    )


def make_ccd(index: int, data: NDArray[Any], header: fits.Header, profile: Profile) -> Ccd:
    """Put one HDU's pixels and merged header together with what the profile says of the detector."""
    detector = detector_of(header, profile, (data.shape[0], data.shape[1]))
    return Ccd(
        hdu=index,
        name=ccd_name(header, index),
        data=np.ascontiguousarray(data, dtype=np.float32),
        header=header,
        section=detector.section,
        gain_e_per_adu=detector.gain_e_per_adu,
        read_noise_e=detector.read_noise_e,
        saturation_adu=detector.saturation_adu,
    )


def iter_ccds(path: Path, profile: Profile) -> Iterator[Ccd]:
    """Read an exposure CCD by CCD (memory stays at one CCD). Plain, tile-compressed, .gz, .bz2 and .Z FITS.

    Raises OSError where a tile cannot be decoded.
    """
    with path.open("rb") as raw, fits.open(path, memmap=False, lazy_load_hdus=True) as hdus:
        packed = packing(raw.read(START_BYTES)) is not None
        primary = hdus[0].header
        for index, hdu in enumerate(hdus):
            if not (is_image(hdu) and is_sky(hdu.header)):
                continue
            data = None if packed else _decoded(raw, hdu, path, index)
            if data is None:
                data = hdu.data
            if data is None:
                continue
            ccd = make_ccd(index, data, merged_header(primary, hdu.header), profile)
            # Or its pixels would stay until those of the next one are there.
            del data, hdu.data
            yield ccd
            del ccd


def _decoded(raw: BinaryIO, hdu: Any, path: Path, index: int) -> NDArray[np.float32] | None:
    """Pixels of a tile-compressed image, decoded here; None for what is left to astropy."""
    if not isinstance(hdu, fits.CompImageHDU):
        return None
    place = hdu.fileinfo()
    start, data_start = int(place["hdrLoc"]), int(place["datLoc"])
    table = fits.Header.fromstring(os.pread(raw.fileno(), data_start - start, start))
    data = np.frombuffer(os.pread(raw.fileno(), int(place["datSpan"]), data_start), np.uint8)
    try:
        return decode_ccd(table, data, threads=min(4, os.cpu_count() or 1))
    except NotHandledError:
        return None
    except TileError as error:
        raise OSError(f"{path}, HDU {index}: {error}.") from error
