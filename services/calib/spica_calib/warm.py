"""Compile the kernels of calib into numba's cache: `python -m spica_calib.warm`, or `spica warm` for all services.

Not needed, but the first image of a fresh installation is then calibrated as quickly as the second.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from astropy.io import fits
from numpy.typing import NDArray
from spica_imaging.ldac import LdacTable, write_ldac
from spica_imaging.wcs import TpvWcs

from spica_calib.jobs import (
    ImageJob,
    ImageResult,
    JointJob,
    Limits,
    MemberJob,
    calibrate_image,
    calibrate_stack,
)
from spica_calib.records import Facts, SolvedImage
from spica_calib.reference.area import ReferenceArea
from spica_calib.reference.file import identify

Floats = NDArray[np.float64]

_CENTRE = (150.0, 2.0)
_NX, _NY = 1024, 1024
_SCALE_DEG = 0.2 / 3600.0
_CONTEXT = "generic|r|"
_CCDS = ("ccd00", "ccd01")
_ZEROPOINT_MAG = 25.0
_EXPOSURE_S = 60.0


@dataclass(frozen=True, slots=True)
class _Sky:
    folder: Path
    random: np.random.Generator
    ra_deg: Floats
    dec_deg: Floats
    mag: Floats
    reference: ReferenceArea


def warm_up() -> int:
    """Calibrate tiny exposures, from their WCS and from their pointing, and a stack of them; returns the matched stars."""
    with tempfile.TemporaryDirectory(prefix="spica-warm-") as folder:
        sky = _sky(Path(folder))
        first, alone = _solved(sky, "warm0", None, (), has_wcs=True)
        second, _ = _solved(sky, "warm1", alone, (first,), has_wcs=True)
        _, roughly = _solved(sky, "warm2", alone, (first, second), has_wcs=False)
        members = tuple(
            MemberJob(image, f"joint-{image.solution_id}", sky.folder / f"joint-{image.facts.name}.head")
            for image in (first, second)
        )
        together = calibrate_stack(
            JointJob(
                stack_id="warm",
                name="warm",
                members=members,
                profiles_folder=None,
                reference=sky.reference,
                photometric_reference=None,
                limits=_LIMITS,
                models={_CONTEXT: alone.model} if alone.model else {},
                illuminations={},
                engine="spica",
                page=sky.folder / "stack.html",
            )
        )
        return alone.n_matched + roughly.n_matched + together.n_reference


_LIMITS = Limits(false_match_log10=-3.0, faint_mag=None, max_stars=20_000)


def _sky(folder: Path) -> _Sky:
    random = np.random.default_rng(1)
    n, half_deg = 700, 0.1
    ra = _CENTRE[0] + random.uniform(-half_deg, half_deg, n)
    dec = _CENTRE[1] + random.uniform(-half_deg, half_deg, n)
    mag = random.uniform(14.0, 20.0, n)
    path = folder / "stars.parquet"
    pq.write_table(pa.table({"ra_deg": ra, "dec_deg": dec, "mag_r": mag}), path)
    return _Sky(folder, random, ra, dec, mag, identify(path))


def _solved(
    sky: _Sky, name: str, before: ImageResult | None, neighbours: tuple[SolvedImage, ...], *, has_wcs: bool
) -> tuple[SolvedImage, ImageResult]:
    facts = Facts(name, name, "generic", "r", _EXPOSURE_S, 60_000.0, 1.2, _CENTRE, _HEADER)
    catalogue, head = sky.folder / f"{name}.ldac", sky.folder / f"{name}.head"
    write_ldac(catalogue, [_table(sky, number) for number in range(len(_CCDS))])
    result = calibrate_image(
        ImageJob(
            facts=facts,
            profiles_folder=None,
            has_wcs=has_wcs,
            ccd_names=_CCDS,
            psf_beta={},
            catalogue=catalogue,
            limiting_flux_adu=100.0,
            reference=sky.reference,
            photometric_reference=None,
            limits=_LIMITS,
            context=_CONTEXT,
            model=before.model if before else None,
            illumination=before.illumination if before else None,
            neighbours=neighbours,
            model_version=1 if before else 0,
            engine="spica",
            head=head,
            page=sky.folder / f"{name}.html",
        )
    )
    image = SolvedImage(
        facts, {}, 100.0, name, catalogue, head, result.zeropoint_mag, result.zeropoint_sigma_mag
    )
    return image, result


_HEADER: Mapping[str, Any] = {"FILTER": "r", "PIXSCALE": 0.2}


def _table(sky: _Sky, number: int) -> LdacTable:
    """What one CCD shows of the sky, and some sources that are no stars."""
    header = fits.Header(
        [
            ("NAXIS1", _NX),
            ("NAXIS2", _NY),
            ("EXTNAME", _CCDS[number]),
            ("PIXSCALE", 0.2),
            ("CTYPE1", "RA---TAN"),
            ("CTYPE2", "DEC--TAN"),
            ("CRVAL1", _CENTRE[0]),
            ("CRVAL2", _CENTRE[1]),
            ("CRPIX1", (_NX + 20.0) * (1 - number) + 0.5),
            ("CRPIX2", 0.5 * _NY),
            ("CD1_1", -_SCALE_DEG),
            ("CD1_2", 0.0),
            ("CD2_1", 0.0),
            ("CD2_2", _SCALE_DEG),
        ]
    )
    x, y = TpvWcs.from_header(header).sky_to_pixel(sky.ra_deg, sky.dec_deg)
    seen = (x > 1) & (x < _NX) & (y > 1) & (y < _NY)
    n = int(np.count_nonzero(seen))
    flux = (
        _EXPOSURE_S
        * 10 ** (0.4 * (_ZEROPOINT_MAG - sky.mag[seen]))
        * (1 + 0.01 * sky.random.standard_normal(n))
    )
    x, y = (values[seen] + 0.03 * sky.random.standard_normal(n) for values in (x, y))
    # The header is off by a few pixels, as headers are.
    header["CRPIX1"] += 5.0
    columns: dict[str, NDArray[Any]] = {
        **dict.fromkeys(("X_IMAGE", "XWIN_IMAGE"), x),
        **dict.fromkeys(("Y_IMAGE", "YWIN_IMAGE"), y),
        **dict.fromkeys(("ERRAWIN_IMAGE", "ERRBWIN_IMAGE"), np.full(n, 0.03)),
        **dict.fromkeys(("FLUX_AUTO", "FLUX_APER"), flux),
        **dict.fromkeys(("FLUXERR_AUTO", "FLUXERR_APER"), 0.01 * flux),
        "FLUX_RADIUS": np.full(n, 2.0),
        "FWHM_IMAGE": np.full(n, 4.0),
        "ELLIPTICITY": np.full(n, 0.05),
        "FLAGS": np.zeros(n, dtype=np.int16),
        "CLASS_STAR": np.full(n, 0.98),
    }
    return LdacTable(header, columns)


if __name__ == "__main__":
    print(f"Kernels of the calib service are compiled ({warm_up()} stars matched).")
