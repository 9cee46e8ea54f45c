"""From a catalogue file of the quality service to the fields of an exposure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from astropy.io import fits
from spica_imaging.ldac import LdacTable, read_ldac
from spica_imaging.profiles import Profile
from spica_imaging.wcs import TPV_POWERS, TpvWcs, WcsError

from spica_calib.errors import CalibrationFailed
from spica_calib.science.matching.geometry import pointing_wcs
from spica_calib.science.sources import USED_COLUMNS, flux_outside, sources_from_columns
from spica_calib.science.stars import CcdField

_SMALLEST_ARCSEC = 0.001


def read_catalogue(path: Path) -> list[LdacTable]:
    """Tables of an LDAC catalogue, one per CCD. Raises `CalibrationFailed` (`bad_catalogue`)."""
    try:
        return read_ldac(path, USED_COLUMNS)
    except (OSError, ValueError, KeyError) as error:
        raise CalibrationFailed("bad_catalogue", f"Catalogue {path} cannot be read: {error}") from error


def assumed_scale(profile: Profile, header: fits.Header) -> float:
    """Pixel scale (arcsec) without a WCS: from the header, else from the profile."""
    value = profile.value(header, profile.keywords.pixel_scale_arcsec)
    try:
        scale = abs(float(value)) if value is not None else 0.0
    except (TypeError, ValueError):
        scale = 0.0
    scale = scale or profile.detector.pixel_scale_arcsec or 0.0
    if scale <= 0:
        raise CalibrationFailed(
            "bad_wcs",
            f"Neither the header nor profile {profile.name!r} tells a pixel scale; "
            "set detector.pixel_scale_arcsec in the profile.",
        )
    return scale


def _aperture_loss(header: fits.Header, beta: float | None) -> float:
    """Share of a star's flux outside of FLUX_APER, from what the quality service noted."""
    diameter, fwhm = header.get("APERDIAM"), header.get("PSF_FWHM")
    if not diameter or not fwhm or beta is None:
        return 0.0
    return flux_outside(float(diameter) / 2.0, float(fwhm), beta)


def fields_of(
    tables: list[LdacTable],
    profile: Profile,
    names: Sequence[str],
    psf_beta: Mapping[str, float],
    wcs: Sequence[TpvWcs] | None,
    pointing: tuple[float, float] | None,
) -> list[CcdField]:
    """One field per CCD, with WCS as given, or from the pointing, or from each CCD's own header.

    `psf_beta`: exponent of the Moffat profile of stars by CCD name, where it was measured.
    Only usable sources are kept. Raises `CalibrationFailed`: `bad_catalogue`, `bad_wcs`.
    """
    if len(tables) != len(names) or (wcs is not None and len(wcs) != len(names)):
        raise CalibrationFailed(
            "bad_catalogue",
            f"The catalogue has {len(tables)} CCDs, the image {len(names)}"
            + (f", its solution {len(wcs)}." if wcs is not None else "."),
        )
    fields = []
    for number, table in enumerate(tables):
        header = table.header
        nx, ny = int(header.get("NAXIS1", 0)), int(header.get("NAXIS2", 0))
        try:
            sources = sources_from_columns(table.columns, _aperture_loss(header, psf_beta.get(names[number])))
        except KeyError as error:
            raise CalibrationFailed("bad_catalogue", f"The catalogue lacks {error}.") from error
        try:
            if wcs is not None:
                ccd_wcs = wcs[number]
            elif pointing is not None:
                scale = assumed_scale(profile, header)
                ccd_wcs = pointing_wcs(
                    *pointing, nx, ny, scale, profile.pointing.rotation_deg, profile.pointing.flip == "yes"
                )
            else:
                ccd_wcs = TpvWcs.from_header(header)
        except WcsError as error:
            raise CalibrationFailed("bad_wcs", f"CCD {number}: {error}") from error
        fields.append(CcdField(number, names[number], nx, ny, sources.take(sources.usable), ccd_wcs))
    return fields


def corners_of(fields: Sequence[CcdField], wcs: Sequence[TpvWcs]) -> tuple[float, ...]:
    """ra, dec (deg) of the four corners of every CCD, around each: outer edges of its corner pixels."""
    corners: list[float] = []
    for field, one in zip(fields, wcs, strict=True):
        x = np.array([0.5, field.nx + 0.5, field.nx + 0.5, 0.5])
        y = np.array([0.5, 0.5, field.ny + 0.5, field.ny + 0.5])
        ra, dec = one.pixel_to_sky(x, y)
        corners += np.column_stack([np.mod(ra, 360.0), dec]).ravel().tolist()
    return tuple(corners)


def degree_of(fields: Sequence[CcdField], wcs: Sequence[TpvWcs]) -> int:
    """Highest degree whose terms move a corner of some CCD by 1 mas and more."""
    highest = 1
    for field, one in zip(fields, wcs, strict=True):
        far = (
            one.pixel_scale_arcsec
            / 3600.0
            * float(
                np.hypot(
                    max(abs(one.crpix[0] - x) for x in (1, field.nx)),
                    max(abs(one.crpix[1] - y) for y in (1, field.ny)),
                )
            )
        )
        for pv in (one.pv1, one.pv2):
            for index, (first, second) in TPV_POWERS.items():
                total = first + second
                if total > highest and abs(pv[index]) * far**total * 3600.0 >= _SMALLEST_ARCSEC:
                    highest = total
    return highest
