"""One CCD from FITS to LDAC, as a worker does it: called by a warm process, or a process of its own.

`python -m tests.benchmarks.catalog_job [--memory] MODE IMAGE OUT FWHM GAIN SATURATION ZEROPOINT [MASK]`
"""

from __future__ import annotations

import sys
from math import pi
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray
from spica_imaging.ldac import LdacTable, write_ldac
from spica_quality.science.background.sky import measure_sky, subtract
from spica_quality.science.detection.segmentation import detect
from spica_quality.science.flags import Bit
from spica_quality.science.photometry.shapes import ellipse

MINIMAL = ("NUMBER", "X_IMAGE", "Y_IMAGE", "FLUX_ISO", "FLUX_MAX", "A_IMAGE", "B_IMAGE", "THETA_IMAGE",
           "ISOAREA_IMAGE", "FLAGS")  # fmt: skip
FULL = ("NUMBER", "X_IMAGE", "Y_IMAGE", "XWIN_IMAGE", "YWIN_IMAGE", "ERRAWIN_IMAGE", "ERRBWIN_IMAGE",
        "ERRTHETAWIN_IMAGE", "FLUX_ISO", "FLUX_AUTO", "FLUXERR_AUTO", "FLUX_APER", "FLUXERR_APER", "FLUX_RADIUS",
        "KRON_RADIUS", "FLUX_MAX", "A_IMAGE", "B_IMAGE", "THETA_IMAGE", "ELONGATION", "ELLIPTICITY", "FWHM_IMAGE",
        "SNR_WIN", "BACKGROUND", "THRESHOLD", "ISOAREA_IMAGE", "FLAGS", "CLASS_STAR")  # fmt: skip
THRESHOLD, MIN_AREA, BOX_PX, CONTRAST = 1.5, 5, 128, 0.005


def read(path: Path) -> tuple[NDArray[Any], fits.Header]:
    """Pixels and header of a plain FITS image, without a second copy in memory."""
    with path.open("rb") as file:
        header = fits.Header.fromfile(file)
        kind = {-32: ">f4", 8: ">u1"}[header["BITPIX"]]
        pixels = np.fromfile(file, kind, header["NAXIS1"] * header["NAXIS2"])
    shape = header["NAXIS2"], header["NAXIS1"]
    return pixels.byteswap(inplace=True).view(pixels.dtype.newbyteorder("=")).reshape(shape), header


def catalogue(
    mode: str,
    image: Path,
    out: Path,
    *,
    fwhm_px: float,
    gain: float,
    saturation: float,
    zeropoint: float,
    mask: Path | None = None,
) -> int:
    """Measure one frame; returns how many sources it has."""
    data, header = read(image)
    flags = np.zeros(data.shape, np.uint16)
    # Some rows at a time: no second array of the frame's size.
    bad = np.memmap(mask, np.uint8, "r", 2880, data.shape) if mask is not None else None
    for y in range(0, len(data), 64):
        rows = slice(y, y + 64)
        flags[rows][data[rows] >= saturation] = Bit.SATURATED
        if bad is not None:
            flags[rows][bad[rows] != 0] |= Bit.MASKED
    sky = measure_sky(data, flags, BOX_PX)
    subtract(data, flags, sky)
    sources, segments = detect(
        data,
        flags,
        sky,
        fwhm_px=fwhm_px,
        threshold_sigma=THRESHOLD,
        min_area=MIN_AREA,
        contrast=CONTRAST,
    )
    if mode == "full":
        from spica_quality.science.photometry.catalogue import measure_catalogue

        columns = measure_catalogue(
            data, flags, sky, sources, segments, gain=gain, fwhm_px=fwhm_px, zeropoint=zeropoint
        )
        columns = {name: values for name, values in columns.items() if name in FULL}
    else:
        a, b, theta = ellipse(sources.xx, sources.yy, sources.xy)
        columns = {
            "NUMBER": np.arange(1, len(sources) + 1, dtype=np.int32),
            "X_IMAGE": (sources.x + 1.0).astype(np.float32),
            "Y_IMAGE": (sources.y + 1.0).astype(np.float32),
            "FLUX_ISO": sources.flux.astype(np.float32),
            "FLUX_MAX": sources.peak.astype(np.float32),
            "A_IMAGE": a.astype(np.float32),
            "B_IMAGE": b.astype(np.float32),
            "THETA_IMAGE": (theta * (180.0 / pi)).astype(np.float32),
            "ISOAREA_IMAGE": sources.n_pixels,
            "FLAGS": sources.flags,
        }
    write_ldac(out, [LdacTable(header, columns)])
    return len(sources)


def _resident_mb(what: str) -> float:
    """VmRSS or VmHWM of this process."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(what):
            return float(line.split()[1]) / 1024.0
    raise RuntimeError(f"/proc/self/status has no {what}")


def memory_times_ccd(mode: str, image: Path, out: Path, **about: Any) -> float:
    """Most memory above that of this interpreter when it has compiled everything, over the pixels' float32 size."""
    # A corner of the same frame: every kernel is loaded, and its memory counted before.
    data, header = read(image)
    corner = image.with_suffix(".corner.fits")
    fits.PrimaryHDU(data[:256, :256]).writeto(corner, overwrite=True)
    size_mb = header["NAXIS1"] * header["NAXIS2"] * 4 / 2**20
    del data
    catalogue(mode, corner, out, **{**about, "mask": None})
    before = _resident_mb("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the high-water mark begins anew
    catalogue(mode, image, out, **about)
    return (_resident_mb("VmHWM") - before) / size_mb


def main(arguments: list[str]) -> None:
    weigh = arguments[0] == "--memory"
    mode, image, out, fwhm, gain, saturation, zeropoint, *mask = arguments[1:] if weigh else arguments
    about: dict[str, Any] = {
        "fwhm_px": float(fwhm),
        "gain": float(gain),
        "saturation": float(saturation),
        "zeropoint": float(zeropoint),
        "mask": Path(mask[0]) if mask else None,
    }
    if weigh:
        print(f"{memory_times_ccd(mode, Path(image), Path(out), **about):.4f}")
    else:
        catalogue(mode, Path(image), Path(out), **about)


if __name__ == "__main__":
    main(sys.argv[1:])
