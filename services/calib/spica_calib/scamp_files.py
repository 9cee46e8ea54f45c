"""What SCAMP is given: a configuration, a catalogue per exposure, and the reference stars, all in one folder.

Catalogues are written anew: only the columns that SCAMP uses, and headers with the assumed WCS alone, for a card left
over from another WCS (a PV of higher degree, a SIP order) would be taken for part of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray
from spica_imaging.head import Value, add_cards
from spica_imaging.ldac import LdacTable, write_ldac
from spica_imaging.polynomial import as_matrix, design, tpv_from_polynomials
from spica_imaging.wcs import TpvWcs, tan_project

from spica_calib.errors import CalibrationFailed
from spica_calib.fields import read_catalogue
from spica_calib.science.astrometry.problem import Exposure, Options
from spica_calib.science.matching.geometry import field_centre
from spica_calib.science.matching.search import Prior
from spica_calib.science.photometry.problem import PhotometricExposure
from spica_calib.science.photometry.zeropoint import STACK_ZEROPOINT_MAG
from spica_calib.science.sources import sources_from_columns
from spica_calib.science.stars import CcdField, Stars

REFERENCE = "reference.cat"
CONFIGURATION = "scamp.conf"
XML = "scamp.xml"
_CONTEXT_KEY, _FILTER_KEY = "SPCONTXT", "SPFILTER"
_COPIED = ("FLUX_AUTO", "FLUXERR_AUTO", "FLAGS", "FLUX_RADIUS", "ELONGATION", "FLAGS_WEIGHT", "SPREAD_MODEL")
_MJD_J2000, _DAYS_PER_YEAR = 2000.0, 365.25
_GRID, _START_DEGREE = 8, 3
_UNKNOWN_MAG = 98.0
"""Fainter than any star, and within SCAMP's default limits."""

MosaicType = Literal["UNCHANGED", "SAME_CRVAL", "SHARE_PROJAXIS", "FIX_FOCALPLANE", "LOOSE"]


@dataclass(frozen=True, slots=True)
class ScampSettings:
    """How SCAMP is run."""

    program: str = "scamp"
    """Name on the search path, or path."""
    time_limit_s: float = 3600.0
    n_threads: int = 1
    contrast_limit: float = 2.0
    """A match counts only if both of SCAMP's contrasts are at least this; SCAMP itself calls less than 2 doubtful."""
    mosaic_type: MosaicType = "UNCHANGED"
    passes: int = 1
    """How often it is run, each time from the headers of the last: SCAMP linearises, so that from headers without
    distortion a second pass gains some mas at the corners. 1 is what SCAMP does by itself."""


DEFAULTS = ScampSettings()


def catalogue_name(number: int, suffix: str = ".cat") -> str:
    """Name of an exposure's file in the folder: names of images may be anything, these are not."""
    return f"exposure{number:05d}{suffix}"


def write_inputs(
    folder: Path,
    exposures: Sequence[Exposure],
    catalogues: Sequence[Path],
    stars: Stars,
    band: str | None,
    options: Options,
    photometry: Sequence[PhotometricExposure] | None,
) -> None:
    """Write catalogues and reference stars. Raises `CalibrationFailed` (`bad_catalogue`)."""
    contexts = list(dict.fromkeys(exposure.context for exposure in exposures))
    filters = list(dict.fromkeys(one.context for one in photometry or ()))
    for number, (exposure, path) in enumerate(zip(exposures, catalogues, strict=True)):
        cards: list[tuple[str, Value, str]] = [
            ("OBJECT", f"exposure {number}", ""),
            ("MJD-OBS", 51544.5 + _DAYS_PER_YEAR * (exposure.epoch_year - _MJD_J2000), ""),
            (
                _CONTEXT_KEY,
                f"context{contexts.index(exposure.context):04d}",
                "Exposures that share a distortion",
            ),
        ]
        if photometry is not None:
            cards += _photometric_cards(photometry[number], filters)
        tables, crval = read_catalogue(path), field_centre(exposure.ccds)
        write_ldac(
            folder / catalogue_name(number),
            [_table(_own(tables, ccd, path), ccd, crval, cards) for ccd in exposure.ccds],
        )
    epoch = float(np.mean([exposure.epoch_year for exposure in exposures]))
    write_reference(folder / REFERENCE, stars.at_epoch(epoch), band, options.reference_floor_mas)


def _own(tables: Sequence[LdacTable], ccd: CcdField, path: Path) -> LdacTable:
    if not 0 <= ccd.hdu < len(tables):
        raise CalibrationFailed(
            "bad_catalogue", f"Catalogue {path} has {len(tables)} CCDs; there is no number {ccd.hdu}."
        )
    return tables[ccd.hdu]


def _table(
    table: LdacTable, ccd: CcdField, crval: tuple[float, float], cards: Sequence[tuple[str, Value, str]]
) -> LdacTable:
    header = fits.Header([("NAXIS1", ccd.nx), ("NAXIS2", ccd.ny), ("EXTNAME", f"ccd{ccd.hdu:02d}")])
    header.extend(wcs_at(ccd, crval).to_header(), end=True)
    return LdacTable(add_cards(header, cards), columns_for_scamp(table.columns))


def columns_for_scamp(columns: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Positions with errors under SCAMP's default names, and what else it looks at.

    Rows without a finite position or flux are left out: they do not stop SCAMP, but they spoil its statistics.
    Raises `CalibrationFailed` (`bad_catalogue`).
    """
    try:
        sources = sources_from_columns(columns)
    except KeyError as error:
        raise CalibrationFailed("bad_catalogue", f"The catalogue lacks {error}.") from error
    chosen: dict[str, NDArray[Any]] = {
        "XWIN_IMAGE": sources.x,
        "YWIN_IMAGE": sources.y,
        "ERRAWIN_IMAGE": sources.error_px,
        "ERRBWIN_IMAGE": sources.error_px,
        "ERRTHETAWIN_IMAGE": np.zeros(len(sources)),
        "FLAGS": np.zeros(len(sources), dtype=np.int16),
    }
    measured = ("ERRAWIN_IMAGE", "ERRBWIN_IMAGE", "ERRTHETAWIN_IMAGE")
    if all(name in columns for name in measured):
        ellipse = [np.asarray(columns[name], dtype=np.float64) for name in measured]
        known = np.isfinite(ellipse).all(axis=0) & (ellipse[1] > 0)
        for name, values in zip(measured, ellipse, strict=True):
            chosen[name] = np.where(known, values, chosen[name])
    chosen |= {name: np.asarray(columns[name]) for name in _COPIED if name in columns}
    sound = np.isfinite(sources.x) & np.isfinite(sources.y)
    sound &= np.isfinite(chosen["FLUX_AUTO"]) & np.isfinite(chosen["FLUXERR_AUTO"])
    return {name: values[sound] for name, values in chosen.items()}


def wcs_at(ccd: CcdField, crval: tuple[float, float]) -> TpvWcs:
    """The CCD's assumed WCS, told from a tangent point that all CCDs of the exposure share, as headers of mosaics do.

    A cubic through a grid over the CCD: good to some 0.01 px, and a start is all it has to be.
    """
    x, y = (c.ravel() for c in np.meshgrid(np.linspace(1, ccd.nx, _GRID), np.linspace(1, ccd.ny, _GRID)))
    plane = np.column_stack(tan_project(*ccd.wcs.pixel_to_sky(x, y), *crval))
    basis = np.column_stack((np.ones(len(x)), x - ccd.centre[0], y - ccd.centre[1]))
    linear = np.linalg.lstsq(basis, plane, rcond=None)[0]
    offset = np.linalg.solve(linear[1:].T, -linear[0])
    crpix = float(ccd.centre[0] + offset[0]), float(ccd.centre[1] + offset[1])
    unit = float(max(np.abs(x - crpix[0]).max(), np.abs(y - crpix[1]).max()))
    u, v = (x - crpix[0]) / unit, (y - crpix[1]) / unit
    fit = np.asarray(np.linalg.lstsq(design(u, v, _START_DEGREE), plane, rcond=1e-14)[0], dtype=np.float64)
    return tpv_from_polynomials(
        crval, crpix, as_matrix(fit[:, 0], _START_DEGREE), as_matrix(fit[:, 1], _START_DEGREE), unit
    )


def _photometric_cards(exposure: PhotometricExposure, filters: Sequence[str]) -> list[tuple[str, Value, str]]:
    cards: list[tuple[str, Value, str]] = [
        (_FILTER_KEY, f"filter{filters.index(exposure.context):04d}", "Exposures that share a zero point"),
        ("EXPTIME", exposure.exposure_time_s, "[s]"),
        ("PHOTFLAG", bool(exposure.is_photometric and exposure.header_zeropoint_mag is not None), ""),
    ]
    known = (
        ("AIRMASS", exposure.airmass),
        ("PHOT_C", exposure.header_zeropoint_mag),
        ("PHOT_K", exposure.header_airmass_term_mag),
    )
    return cards + [(keyword, float(value), "") for keyword, value in known if value is not None]


def write_reference(path: Path, stars: Stars, band: str | None, floor_mas: float) -> None:
    """Reference stars as SCAMP takes them (ASTREF_CATALOG FILE), at the epoch that they are at."""
    error_deg = np.hypot(1000.0 * stars.error_arcsec, floor_mas) / 3.6e6
    mag = stars.brightness(band)
    write_ldac(
        path,
        [
            LdacTable(
                fits.Header(),
                {
                    "X_WORLD": stars.ra_deg,
                    "Y_WORLD": stars.dec_deg,
                    "ERRA_WORLD": error_deg,
                    "ERRB_WORLD": error_deg,
                    "ERRTHETA_WORLD": np.zeros(len(stars)),
                    "MAG": np.where(np.isfinite(mag), mag, _UNKNOWN_MAG),
                    "MAGERR": np.full(len(stars), 0.01),
                    "OBSDATE": stars.epoch_year,
                    "FLAGS": np.zeros(len(stars), dtype=np.int16),
                },
            )
        ],
    )


def configuration(
    options: Options, prior: Prior | None, settings: ScampSettings, *, with_photometry: bool
) -> dict[str, str]:
    """SCAMP's parameters: ours by its names. Without a prior it does not match, but trusts the WCS."""
    matching = (
        {
            "MATCH": "Y",
            "POSITION_MAXERR": f"{prior.shift_arcsec / 60.0:.4f}",
            "POSANGLE_MAXERR": f"{min(prior.rotation_deg, 180.0):.4f}",
            "PIXSCALE_MAXERR": f"{1.0 + max(prior.scale, 0.001):.4f}",
            "MATCH_FLIPPED": "Y" if True in prior.mirrored else "N",
        }
        if prior is not None
        else {"MATCH": "N"}
    )
    return {
        "ASTREF_CATALOG": "FILE",
        "ASTREFCAT_NAME": REFERENCE,
        **matching,
        "MOSAIC_TYPE": settings.mosaic_type,
        "CROSSID_RADIUS": f"{options.crossid_arcsec:.4f}",
        "PROJECTION_TYPE": "TPV",
        "ASTRINSTRU_KEY": _CONTEXT_KEY,
        "STABILITY_TYPE": "INSTRUMENT",
        "DISTORT_DEGREES": str(options.degree),
        "FOCDISTORT_DEGREE": "3" if options.atmosphere == "polynomial" else "1",
        "ASTRACCURACY_TYPE": "SIGMA-PIXEL",
        "ASTR_ACCURACY": f"{options.floor_px:.6f}",
        "ASTRCLIP_NSIGMA": f"{options.clip_sigma:.3f}",
        "SOLVE_PHOTOM": "Y" if with_photometry else "N",
        "PHOTINSTRU_KEY": _FILTER_KEY if with_photometry else _CONTEXT_KEY,
        "MAGZERO_OUT": f"{STACK_ZEROPOINT_MAG:.1f}",
        "CHECKPLOT_TYPE": "NONE",
        "WRITE_XML": "Y",
        "XML_NAME": XML,
        "XSL_URL": ".",
        "VERBOSE_TYPE": "LOG",
        "NTHREADS": str(settings.n_threads),
    }


def write_configuration(path: Path, parameters: Mapping[str, str]) -> None:
    """A configuration file as SCAMP reads it."""
    path.write_text("".join(f"{name:<24}{value}\n" for name, value in parameters.items()), encoding="ascii")
