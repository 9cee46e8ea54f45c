"""Measuring one CCD of an image: pixels in, what is small out. Runs in a thread of a worker process."""

from __future__ import annotations

from dataclasses import dataclass
from math import log10, nan
from typing import Any

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray
from spica_imaging.frame import Ccd
from spica_imaging.ldac import LdacTable
from spica_imaging.profiles import Profile
from spica_imaging.wcs import TpvWcs, WcsError
from spica_runtime.memory import give_back

from spica_quality.cataloguefiles import CatalogueFacts, catalogue_header
from spica_quality.instrument import InstrumentWord
from spica_quality.maps import CcdMaps, FlatRows, encode_ccd
from spica_quality.report.gathering import CcdPictures, gather
from spica_quality.science.engine import Frame, Measurement, Options, measure
from spica_quality.science.flags import Flags
from spica_quality.science.masking.detector import split
from spica_quality.science.metrics.completeness import generator_for
from spica_quality.science.metrics.figures import Figures, number, row
from spica_quality.science.photometry.catalogue import APERTURES_PER_FWHM, Columns, add_sky_positions
from spica_quality.science.psf.model import PsfModel

Floats = NDArray[np.float64]

_MOST_STARS_ON_SKY = 400


class NoNoise:
    """Of a CCD on which no noise could be measured: weight 0 everywhere."""

    median_rms = 0.0

    def rms_rows(self, y0: int, y1: int) -> Any:
        """Not asked for where the median is zero."""
        raise AssertionError(f"rows {y0} to {y1} of a noise that nobody knows")


@dataclass(frozen=True, slots=True)
class StarsOnSky:
    """The brightest stars by the header's WCS; arrays of shape (n,)."""

    ra_deg: Floats
    dec_deg: Floats
    flux: Floats


@dataclass(frozen=True, slots=True)
class CcdResult:
    """What is kept of a CCD: everything but its pixels."""

    name: str
    figures: Figures
    table: LdacTable
    maps: CcdMaps | None
    """None once they are written; and of stacks, which bring their own weight map."""
    pictures: CcdPictures
    psf: PsfModel | None
    stars: StarsOnSky | None
    """None without WCS."""
    corners_deg: tuple[tuple[float, float], ...]
    """RA and Dec of centre and corners; empty without WCS."""
    gain_e_per_adu: float
    read_noise_e: float


@dataclass(frozen=True, slots=True)
class CcdContext:
    """What all CCDs of an image share."""

    image_id: str
    profile: Profile
    on_sky: bool
    exposure_time_s: float
    n_ccds: int
    options: Options
    instrument: InstrumentWord
    centre_deg: tuple[float, float] | None
    """About which pictures are projected."""


def measure_ccd(ccd: Ccd, place: int, context: CcdContext) -> CcdResult:
    """Measure one CCD; its pixels are used up. `place`: number of the CCD within the image, from 0."""
    profile = context.profile
    wcs = wcs_of(ccd.header) if context.on_sky else None
    scale = pixel_scale(ccd, wcs, profile)
    zeropoint = nominal_zeropoint(ccd.header, profile, context.exposure_time_s)
    flat: FlatRows | None = None

    def mark(flags: Flags) -> None:
        nonlocal flat
        flat = context.instrument.mark(ccd, place, flags)

    frame = Frame(
        ccd.data,
        ccd.section,
        ccd.gain_e_per_adu,
        ccd.saturation_adu,
        pixel_scale_arcsec=scale,
        zeropoint_mag=zeropoint,
        amplifiers=split(ccd.section, *profile.detector.amplifiers),
        readout=profile.detector.readout,
        mark=mark,
    )
    # What reading left behind, and then what measuring did: the peak is what comes on top of it.
    give_back()
    done = measure(frame, context.options, generator_for(context.image_id, ccd.name))
    give_back()
    if wcs is not None and done.columns:
        add_sky_positions(done.columns, wcs)
    figures = row({**done.figures, "hdu": ccd.hdu, "name": ccd.name})
    pictures = gather(
        done.data, done.flags, done.sky, done.columns, figures,
        section=ccd.section, wcs=wcs, centre=context.centre_deg, psf=done.psf, n_ccds=context.n_ccds,
    )  # fmt: skip
    # Last: the flags are used up by it.
    maps = encode_ccd(
        ccd.name,
        ccd.header,
        done.flags,
        done.sky or NoNoise(),
        flat=flat,
        detector_noise_adu=ccd.read_noise_e / max(ccd.gain_e_per_adu, 1e-6),
    )
    return CcdResult(
        ccd.name,
        figures,
        LdacTable(_header(ccd, done, figures), done.columns),
        maps,
        pictures,
        done.psf,
        stars_on_sky(done.columns, wcs),
        corners_on_sky(wcs, ccd.data.shape),
        ccd.gain_e_per_adu,
        ccd.read_noise_e,
    )


def wcs_of(header: fits.Header) -> TpvWcs | None:
    """The WCS of a header; None where there is none to be used."""
    try:
        return TpvWcs.from_header(header)
    except (WcsError, KeyError, ValueError):
        return None


def pixel_scale(ccd: Ccd, wcs: TpvWcs | None, profile: Profile) -> float:
    """Arcsec per pixel: from the WCS, else from the header, else from the profile; NaN where none says."""
    if wcs is not None:
        ny, nx = ccd.data.shape
        return wcs.scale_at(0.5 * nx, 0.5 * ny)
    stated = profile.value(ccd.header, profile.keywords.pixel_scale_arcsec)
    try:
        value = float(stated) if stated is not None else nan
    except (TypeError, ValueError):
        value = nan
    if np.isfinite(value) and value > 0:
        return value
    return profile.detector.pixel_scale_arcsec or nan


def nominal_zeropoint(header: fits.Header, profile: Profile, exposure_time_s: float) -> float:
    """AB magnitude of 1 adu in this exposure, from the header's nominal value for 1 adu/s; NaN without."""
    stated = profile.value(header, profile.keywords.nominal_zeropoint)
    try:
        return float(stated) + 2.5 * log10(exposure_time_s) if stated is not None else nan
    except (TypeError, ValueError):
        return nan


def _header(ccd: Ccd, done: Measurement, figures: Figures) -> fits.Header:
    ny, nx = ccd.data.shape
    width = number(figures, "fwhm_with_pixel_px")
    used = width if width > 0 else nan
    thresholds = done.columns.get("THRESHOLD", np.empty(0))
    return catalogue_header(
        ccd.header,
        CatalogueFacts(
            ccd.name,
            nx,
            ny,
            gain_e_per_adu=ccd.gain_e_per_adu,
            saturation_adu=number(figures, "saturation_adu"),
            background_adu=number(figures, "background_adu"),
            background_rms_adu=number(figures, "background_rms_adu"),
            threshold_adu=float(np.median(thresholds)) if thresholds.size else nan,
            fwhm_px=used,
            aperture_diameters_px=[factor * used for factor in APERTURES_PER_FWHM] if used > 0 else (),
            zeropoint_mag=number(figures, "zeropoint_mag"),
            pixel_scale_arcsec=number(figures, "pixel_scale_arcsec"),
        ),
    )


def stars_on_sky(columns: Columns, wcs: TpvWcs | None) -> StarsOnSky | None:
    """The brightest stars of a catalogue; None without WCS."""
    if wcs is None:
        return None
    if not columns:
        return StarsOnSky(*(np.empty(0),) * 3)
    sound = (columns["SPICA_STAR"] > 0) | ((columns["FLAGS"] & 4) != 0)
    flux = np.where(sound, columns["FLUX_AUTO"], 0.0)
    order = np.argsort(-flux, kind="stable")[: min(_MOST_STARS_ON_SKY, int(np.count_nonzero(sound)))]
    return StarsOnSky(
        columns["ALPHAWIN_J2000"][order], columns["DELTAWIN_J2000"][order], flux[order].astype(np.float64)
    )


def corners_on_sky(wcs: TpvWcs | None, shape: tuple[int, ...]) -> tuple[tuple[float, float], ...]:
    """RA and Dec, degrees, of the middle and the corners; empty without WCS."""
    if wcs is None:
        return ()
    ny, nx = shape
    ra, dec = wcs.pixel_to_sky(
        np.array([(nx + 1) / 2, 1.0, nx, 1.0, nx]), np.array([(ny + 1) / 2, 1.0, 1.0, ny, ny])
    )
    return tuple(zip(ra.tolist(), dec.tolist(), strict=True))
