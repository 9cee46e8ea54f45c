"""Frames as files: headers like the archive's, RICE-compressed integers, checksums; and how to spoil one."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from astropy.io import fits
from astropy.time import Time
from numpy.typing import NDArray

from spica_simulator.camera import GAP_PX, Camera, Chip
from spica_simulator.detector import GAIN_E_PER_ADU, READ_NOISE_E, SATURATION_ADU
from spica_simulator.exposure import Conditions

RUN = "25BQ07"
OBJECT = "SIM-D3"


def primary_header(conditions: Conditions, n_ccds: int) -> fits.Header:
    """Cards of the primary HDU, in the words of CFHT's archive."""
    start = Time(conditions.mjd_obs, format="mjd", scale="utc").isot
    header = fits.Header()
    header["NEXTEND"] = (n_ccds, "Number of extensions")
    for keyword, value, comment in (
        ("OBJECT", OBJECT, "Field"),
        ("OBSTYPE", "OBJECT", "Exposure type"),
        ("RUNID", "25BF99", "Programme"),
        ("QRUNID", RUN, "Camera run"),
        ("FILENAME", conditions.name, "Odometer and suffix"),
        ("TELESCOP", "Spica simulator", "There is no such telescope"),
        ("INSTRUME", "MegaSim", "Simulated camera"),
        ("DETECTOR", "MegaSim", "Simulated CCDs"),
        ("FILTER", conditions.filter, "Filter"),
        ("EXPTIME", conditions.exposure_time_s, "[s] Exposure time"),
        ("DATE-OBS", start[:10], "UTC date of the start"),
        ("UTC-OBS", start[11:22], "UTC time of the start"),
        ("MJD-OBS", round(conditions.mjd_obs, 8), "[d] Modified Julian date of the start"),
        ("AIRMASS", round(conditions.airmass, 4), "Airmass at the start"),
        ("RA_DEG", round(conditions.header_pointing[0], 7), "[deg] Pointing, ICRS"),
        ("DEC_DEG", round(conditions.header_pointing[1], 7), "[deg] Pointing, ICRS"),
        ("EQUINOX", 2000.0, "Equinox of coordinates"),
        ("RADESYS", "ICRS", "Reference system"),
    ):
        header[keyword] = (value, comment)
    return header


def detector_section(camera: Camera, chip: Chip) -> str:
    """Place of a CCD in the mosaic, IRAF notation, gaps left out as CFHT does."""
    ny, nx = camera.shape
    column = round((camera.size_px[0] / 2 + 0.5 - chip.offset_px[0]) / (nx + GAP_PX))
    row = round((camera.size_px[1] / 2 + 0.5 - chip.offset_px[1]) / (ny + GAP_PX))
    return f"[{column * nx + 1}:{(column + 1) * nx},{row * ny + 1}:{(row + 1) * ny}]"


def ccd_header(camera: Camera, chip: Chip, conditions: Conditions) -> fits.Header:
    """Cards of one CCD; a frame without WCS has none of its keywords."""
    ny, nx = camera.shape
    header = fits.Header()
    header["EXTNAME"] = (chip.name, "CCD")
    header["INHERIT"] = (True, "The primary's cards count here too")
    header["FILTER"] = conditions.filter
    header["GAIN"] = (GAIN_E_PER_ADU, "[electron/adu]")
    header["RDNOISE"] = (READ_NOISE_E, "[electron]")
    header["SATURATE"] = (SATURATION_ADU, "[adu]")
    header["DETSEC"] = detector_section(camera, chip)
    header["DATASEC"] = f"[1:{nx},1:{ny}]"
    if conditions.kind != "no_wcs":
        header.update(camera.nominal_wcs(chip, conditions.header_pointing).header())
    return header


def frame_bytes(primary: fits.Header, ccds: list[tuple[fits.Header, NDArray[np.uint16]]]) -> bytes:
    """A whole multi-extension file. The same pixels give the same bytes: no wall-clock time in any card."""
    hdus = fits.HDUList([fits.PrimaryHDU(header=primary)])
    for header, pixels in ccds:
        hdus.append(fits.CompImageHDU(pixels, header=header, compression_type="RICE_1"))
    plain, summed = io.BytesIO(), io.BytesIO()
    hdus.writeto(plain)
    plain.seek(0)
    # Sums of what is really in the file, i.e. of the compressed tables.
    with fits.open(plain, disable_image_compression=True) as tables:
        for table in tables:
            table.add_checksum(when="checksum of this HDU")
        tables.writeto(summed)
    return summed.getvalue()


def spoil(whole: bytes, rng: np.random.Generator) -> bytes:
    """What a bad transfer makes of a file: some bytes changed half-way, the last tenth missing."""
    spoiled = bytearray(whole[: int(len(whole) * 0.9)])
    start = len(spoiled) // 2
    for place in start + rng.choice(4096, size=40, replace=False):
        spoiled[place] ^= int(rng.integers(1, 256))
    return bytes(spoiled)


def write_whole(path: Path, content: bytes) -> None:
    """Write beside and rename, so that a watcher never sees half a file."""
    part = path.with_name(f".{path.name}.part")
    part.write_bytes(content)
    part.replace(path)
