"""Measuring one image, CCD by CCD. Runs in a worker process."""

from __future__ import annotations

from collections.abc import Iterator
from math import log10, nan
from pathlib import Path

import numpy as np
from astropy.io import fits
from spica_imaging.frame import Ccd, iter_ccds
from spica_imaging.ldac import LdacTable
from spica_imaging.profiles import Profile, load_profiles
from spica_imaging.wcs import TpvWcs, WcsError
from spica_runtime.errors import Retriable
from spica_runtime.storage import segment

from spica_quality.errors import unknown_profile, unreadable
from spica_quality.jobs import Assessment, ImageOrder
from spica_quality.products import (
    caption_of,
    metrics_of,
    reasons_of,
    weight_file,
    write_catalogue,
    write_preview,
)
from spica_quality.science.engine import Frame, Measurement, Options, measure
from spica_quality.science.figures import CcdFigures
from spica_quality.science.grading import grade
from spica_quality.science.preview import Panel, bin_pixels, plane_matrix
from spica_quality.science.summary import summarise

_PREVIEW_PX = 870


class _ImageWork:
    """What is gathered while the CCDs go by."""

    def __init__(self, order: ImageOrder, profile: Profile) -> None:
        self.order, self.profile = order, profile
        self.figures: list[CcdFigures] = []
        self.tables: list[LdacTable] = []
        self.panels: list[Panel] = []
        self.zeropoint = nan
        self._centre: tuple[float, float] | None = None

    def take(self, ccd: Ccd, options: Options) -> Measurement:
        """Measure one CCD and keep what is small."""
        measured = measure(Frame(ccd.data, ccd.section, ccd.gain_e_per_adu, ccd.saturation_adu), options)
        wcs = _wcs(ccd.header) if self.order.on_sky else None
        scale = pixel_scale(ccd, wcs, self.profile)
        self.figures.append(CcdFigures(ccd.hdu, ccd.name, measured.figures, scale))
        self.tables.append(LdacTable(_catalogue_header(ccd, measured), measured.columns))
        self.panels.append(self._panel(ccd, measured, wcs))
        if not np.isfinite(self.zeropoint):
            self.zeropoint = nominal_zeropoint(ccd.header, self.profile, self.order.exposure_time_s)
        return measured

    def _panel(self, ccd: Ccd, measured: Measurement, wcs: TpvWcs | None) -> Panel:
        rows, columns = ccd.section.slices
        # Saturated cores have no weight, but are to be seen.
        usable = measured.subtracted[rows, columns] != 0
        per_side = max(1.0, float(np.sqrt(self.order.n_ccds)))
        factor = max(1, int(np.ceil(max(usable.shape) * per_side / _PREVIEW_PX)))
        small = bin_pixels(measured.subtracted[rows, columns], usable, factor)
        if wcs is None:
            return Panel(small, None)
        if self._centre is None:
            self._centre = wcs.crval
        return Panel(small, plane_matrix(wcs, ccd.section.x0, ccd.section.y0, factor, small, self._centre))


def assess_image(order: ImageOrder) -> Assessment:
    """See `jobs.measure_image`."""
    profiles = load_profiles(order.profiles)
    if order.profile not in profiles:
        raise unknown_profile(order.profile, sorted(profiles))
    source = order.data.path(order.path)
    base = f"quality/{segment('image_id', order.image_id)}/{segment('name', order.name)}"
    work = _ImageWork(order, profiles[order.profile])
    weight_path = order.data.path(f"{base}.weight.fits.fz")
    options = order.tuning.options()
    with weight_file(weight_path) as weights:
        for ccd in _ccds(source, work.profile):
            weights.add(ccd.name, work.take(ccd, options).weight)
    figures = summarise(work.figures, work.zeropoint)
    verdict = grade(figures, order.policy, order.profile, "image")
    caption = caption_of(order.name, order.label, figures, verdict, order.policy.label)
    return Assessment(
        metrics=metrics_of(figures),
        per_ccd=tuple(ccd.row() for ccd in work.figures),
        grade=verdict.letter,
        reasons=reasons_of(verdict),
        catalogue=write_catalogue(order.data, order.data.path(f"{base}.ldac"), work.tables),
        weight=order.data.product(weight_path, "weight"),
        preview=write_preview(order.data, order.data.path(f"{base}.png"), work.panels, caption),
    )


def _ccds(path: Path, profile: Profile) -> Iterator[Ccd]:
    """The CCDs of the file; reading errors, which come out lazily, get a name."""
    ccds = iter_ccds(path, profile)
    while True:
        try:
            ccd = next(ccds)
        except StopIteration:
            return
        except FileNotFoundError as error:
            raise Retriable(
                "frame_missing", f"{path} is not there. Is the data folder mounted?", {"path": str(path)}
            ) from error
        except MemoryError:
            raise
        except Exception as error:
            # Damaged FITS makes readers stumble in every way there is: a division by zero, a missing module.
            raise unreadable(path, error) from error
        if ccd.data.size:
            yield ccd


def _wcs(header: fits.Header) -> TpvWcs | None:
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
        number = float(stated) if stated is not None else nan
    except (TypeError, ValueError):
        number = nan
    if np.isfinite(number) and number > 0:
        return number
    return profile.detector.pixel_scale_arcsec or nan


def nominal_zeropoint(header: fits.Header, profile: Profile, exposure_time_s: float) -> float:
    """AB magnitude of 1 adu in this exposure, from the header's nominal value for 1 adu/s; NaN without."""
    stated = profile.value(header, profile.keywords.nominal_zeropoint)
    try:
        return float(stated) + 2.5 * log10(exposure_time_s) if stated is not None else nan
    except (TypeError, ValueError):
        return nan


def _catalogue_header(ccd: Ccd, measured: Measurement) -> fits.Header:
    """The CCD's header with what readers of catalogues look for."""
    header = ccd.header.copy()
    ny, nx = ccd.data.shape
    figures = measured.figures
    header["NAXIS1"], header["NAXIS2"] = nx, ny
    header["EXTNAME"] = ccd.name
    header["GAIN"] = (ccd.gain_e_per_adu, "e-/adu, as used")
    header["SATURATE"] = (figures.saturation_adu, "adu, as used")
    for keyword, value, comment in (
        ("SEXBKGND", figures.background_adu, "median background, adu"),
        ("SEXBKDEV", figures.background_rms_adu, "median background rms, adu"),
        ("PSF_FWHM", figures.psf.fwhm_px, "FWHM of stars, px"),
        ("APERDIAM", 4.0 * figures.psf.fwhm_px, "diameter of FLUX_APER, px"),
    ):
        if np.isfinite(value):
            header[keyword] = (round(value, 5), comment)
    return header
