"""Catalogues as files: FITS_LDAC for SCAMP and PSFEx, Parquet for everything else."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import isfinite, nan
from pathlib import Path

from astropy.io import fits
from spica_imaging.ldac import LdacTable
from spica_imaging.parquet import write_parquet_catalogue

from spica_quality.science.photometry.apertures import KRON_FACTOR, LEAST_KRON


@dataclass(frozen=True, slots=True)
class CatalogueFacts:
    """What readers of catalogues ask of a CCD. NaN: not known, and not written."""

    name: str
    nx: int
    ny: int
    gain_e_per_adu: float = 0.0
    """0: unknown."""
    saturation_adu: float = nan
    """Of the raw pixels, background included."""
    background_adu: float = nan
    background_rms_adu: float = nan
    threshold_adu: float = nan
    fwhm_px: float = nan
    aperture_diameters_px: Sequence[float] = ()
    """In the order of FLUX_APER."""
    zeropoint_mag: float = nan
    pixel_scale_arcsec: float = nan


def catalogue_header(header: fits.Header, facts: CatalogueFacts) -> fits.Header:
    """The CCD's header with the cards that readers of catalogues look for.

    SCAMP reads the WCS, EXPTIME, AIRMASS, FILTER and the like, which are the image's own. PSFEx reads SEXBKDEV
    (noise of a pixel), SEXGAIN and SEXBKGND. The others are what source-extractor writes besides.
    """
    out = header.copy()
    out["NAXIS1"], out["NAXIS2"] = facts.nx, facts.ny
    out["EXTNAME"] = facts.name
    diameters = list(facts.aperture_diameters_px)
    main = diameters[0] if diameters else nan
    cards: list[tuple[str, float, str]] = [
        ("GAIN", facts.gain_e_per_adu, "e-/adu, as used"),
        ("SATURATE", facts.saturation_adu, "adu, as used"),
        ("SEXBKGND", facts.background_adu, "median background, adu"),
        ("SEXBKDEV", facts.background_rms_adu, "median background rms, adu"),
        ("SEXTHLD", facts.threshold_adu, "detection threshold, adu"),
        ("SEXGAIN", facts.gain_e_per_adu, "e-/adu, as used"),
        ("SEXSATLV", facts.saturation_adu, "adu, as used"),
        ("SEXMGZPT", facts.zeropoint_mag, "magnitude of 1 adu"),
        ("SEXPXSCL", facts.pixel_scale_arcsec, "arcsec per pixel"),
        ("SEXSFWHM", facts.fwhm_px * facts.pixel_scale_arcsec, "FWHM of stars, arcsec"),
        ("SEXAUTP1", KRON_FACTOR, "Kron factor of AUTO"),
        ("SEXAUTP2", LEAST_KRON, "least radius of AUTO, A_IMAGE"),
        *((f"SEXAPED{k}", diameter, "diameter, px") for k, diameter in enumerate(diameters, start=1)),
        ("PSF_FWHM", facts.fwhm_px, "FWHM of stars, px"),
        ("APERDIAM", main, "diameter of the first FLUX_APER, px"),
    ]
    for keyword, value, comment in cards:
        if isfinite(value):
            # Significant digits, not decimals: images in Jy have a noise of 1e-9.
            out[keyword] = (float(f"{value:.9g}"), comment)
    return out


def write_parquet(path: Path, tables: Iterable[LdacTable], about: dict[str, str] | None = None) -> None:
    """Write the same sources as the LDAC file; the CCD's name is its header's EXTNAME."""
    named = [(str(table.header.get("EXTNAME", "")), table.columns) for table in tables]
    write_parquet_catalogue(path, named, about)
