"""A dossier to try things on."""

from __future__ import annotations

from typing import Any

from spica_export.science.dossier import Dossier, File, Input, LeftOut, Step

INPUT = Input(
    name="744331p",
    image_id="744331p.0123456789ab",
    sha256="a" * 64,
    instrument="MegaPrime",
    run="04BQ05",
    filter="r.MP9601",
    object="D3 <&> Ω",
    exposure_time_s=500.0,
    mjd_obs=None,
    airmass=1.2,
    grade="A",
    graded_by="person:Yannick",
    fwhm_arcsec=0.81,
    ellipticity=0.04,
    zeropoint_mag=26.1,
    flux_scale=0.07,
    limiting_mag=None,
    solution_id="s1",
    reference="gaia-dr3",
    reference_sha256="b" * 64,
)


def dossier(**changes: Any) -> Dossier:
    """One stack of two exposures, one left out."""
    values: dict[str, Any] = {
        "stack_id": "0a1b2c3d",
        "request_id": "r1",
        "name": "D3_r",
        "filter": "r.MP9601",
        "combine": "clipped_mean",
        "requested_at": "2004-12-24T00:00:00",
        "grade": "B",
        "graded_by": "policy:survey@1",
        "reasons": "seeing",
        "n_exposures": 2,
        "exposure_time_s": 1000.0,
        "zeropoint_mag": 30.0,
        "request": '{"combine": "clipped_mean"}',
        "grid": {"crval_ra_deg": 214.8, "crval_dec_deg": 52.6, "width_px": 100, "pixel_scale_arcsec": 0.186},
        "metrics": {"fwhm_arcsec": 0.8, "limiting_mag": 27.5, "n_stars": 12},
        "inputs": (INPUT, INPUT),
        "left_out": (LeftOut("744333p", "744333p.0", "fwhm_max_arcsec", "1.7 arcsec"),),
        "steps": (Step("stack", "calibrated", "0.1.0", "0a1b2c3d", "2 exposures", '{"clip_sigma": 4.0}'),),
        "files": (
            File("D3_r.fits", "image", 2880, "c" * 64),
            File("D3_r_weight.fits", "weight", 5760, "d" * 64),
        ),
    }
    return Dossier(**{**values, **changes})
