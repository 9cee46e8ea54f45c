"""The diagnostics as plain numbers, to be stored and compared over a survey."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from typing import Any

import numpy as np

from spica_calib.science.diagnostics.ccds import CcdFigures, ccd_figures
from spica_calib.science.diagnostics.geometry import distortion, model_change
from spica_calib.science.diagnostics.inputs import Calibration
from spica_calib.science.diagnostics.plane import FocalPlane, focal_plane
from spica_calib.science.diagnostics.residuals import cloud, vector_map
from spica_calib.science.diagnostics.zeropoints import extinction, magnitude_residuals, trend, zero_points

Numbers = dict[str, Any]
"""Flat but for `ccds` and `exposures`, which are lists of flat ones; units in the keys, None for what is not known."""


def numbers(calibration: Calibration, exposure: int | None = None) -> Numbers:
    """Figures of one exposure, or (None) of all that were solved, together."""
    chosen = calibration.own if exposure is None else (exposure,)
    plane = focal_plane(calibration, chosen)
    return numbers_on(plane, ccd_figures(calibration, plane, chosen), calibration, chosen)


def numbers_on(
    plane: FocalPlane, rows: Sequence[CcdFigures], calibration: Calibration, chosen: Sequence[int]
) -> Numbers:
    """The same, where the focal plane and the CCDs' figures are at hand."""
    found: Numbers = {
        **_astrometric(calibration, plane, chosen),
        **_matched(calibration, chosen),
        **_patterns(plane),
        **_geometry(calibration, plane, chosen[0]),
        **_photometric(calibration, chosen),
        "ccds": [_ccd(row) for row in rows],
    }
    if len(chosen) > 1:
        found["exposures"] = [_exposure(calibration, index) for index in chosen]
    return {key: _plain(value) for key, value in found.items()}


def _plain(value: Any) -> Any:
    """JSON's own kinds; None for what is not finite."""
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, (bool, np.bool_)):
        return bool(value)
    if isinstance(value, (int, np.integer)):
        return int(value)
    if isinstance(value, (float, np.floating)):
        return float(value) if isfinite(value) else None
    return value


def _astrometric(calibration: Calibration, plane: FocalPlane, chosen: Sequence[int]) -> Numbers:
    whole = calibration.astrometry
    one = whole.exposures[chosen[0]] if len(chosen) == 1 else None
    source = one or whole
    told = whole.detections
    here = np.isin(told.exposure, chosen)
    star = here & (told.star >= 0)
    d = plane.detections
    errors = d.external_sigma_mas[d.kept & np.isfinite(d.external_mas).all(axis=1)]
    own = [whole.exposures[index] for index in chosen]
    return {
        "external_ra_mas": source.external_mas[0],
        "external_dec_mas": source.external_mas[1],
        "internal_ra_mas": source.internal_mas[0],
        "internal_dec_mas": source.internal_mas[1],
        "expected_mas": float(np.median(errors)) if errors.size else None,
        "chi2_external": source.chi2_external,
        "chi2_internal": source.chi2_internal,
        "n_external": source.n_external,
        "n_internal": source.n_internal,
        "n_detections": int(np.count_nonzero(here)),
        "n_matched": int(np.count_nonzero(star)),
        "n_cut": int(np.count_nonzero(here & ~told.kept)),
        "degree": max((each.degree for each in own), default=0),
        "model_error_mas": max((each.model_error_mas for each in own), default=None),
        "rounds": whole.rounds,
        "n_exposures": len(chosen),
    }


def _matched(calibration: Calibration, chosen: Sequence[int]) -> Numbers:
    located = calibration.located.get(calibration.exposures[chosen[0]].name) if len(chosen) == 1 else None
    if located is None:
        return {}
    return {
        "offset_arcsec": located.offset_arcsec,
        "rotation_deg": located.rotation_deg,
        "scale_ratio": located.scale,
        "log10_false_match": located.log10_false,
        "n_matched_by_search": located.n_matched,
        "n_ccds_matched": sum(located.found),
    }


def _patterns(plane: FocalPlane) -> Numbers:
    found: Numbers = {}
    for kind in ("external", "internal"):
        spots, points = vector_map(plane, kind), cloud(plane, kind)
        if spots is not None and spots.binned:
            length = np.hypot(*spots.vector_mas.T)
            found[f"{kind}_cells"] = len(length)
            found[f"{kind}_cells_off"] = int(np.count_nonzero(spots.strong))
            found[f"{kind}_cells_excess"] = spots.excess
            found[f"{kind}_systematic_mas"] = spots.systematic_mas(np.ones(len(length), np.bool_))
            found[f"{kind}_largest_cell_mas"] = float(length.max()) if length.size else None
        if points is not None:
            found[f"{kind}_mean_ra_mas"], found[f"{kind}_mean_dec_mas"] = points.centre_mas
    return found


def _geometry(calibration: Calibration, plane: FocalPlane, home: int) -> Numbers:
    found: Numbers = {}
    bends = distortion(plane)
    if bends is not None:
        found["pixel_scale_arcsec"] = plane.pixel_scale_arcsec
        found["pixel_scale_min_arcsec"], found["pixel_scale_max_arcsec"] = bends.scale_range_arcsec
        found["largest_bend_arcsec"] = bends.largest_bend_arcsec
    context = calibration.exposures[home].context
    now, before = calibration.astrometry.models.get(context), calibration.previous.get(context)
    if now is not None:
        found["model_repeat_mas"], found["model_n_exposures"] = now.repeat_mas, now.n_exposures
    change = model_change(plane, now, before) if now and before else None
    if change is not None:
        found["model_change_rms_mas"], found["model_change_largest_mas"] = change.rms_mas, change.largest_mas
    return found


def _photometric(calibration: Calibration, chosen: Sequence[int]) -> Numbers:
    if calibration.photometry is None:
        return {}
    solution = calibration.photometry.solution
    found: Numbers = {
        "band": solution.band,
        "photometric_internal_mag": solution.internal_mag,
        "photometric_external_mag": solution.external_mag,
        "photometric_chi2_internal": solution.chi2_internal,
        "photometric_chi2_external": solution.chi2_external,
    }
    zero = calibration.zero_point(chosen[0]) if len(chosen) == 1 else None
    if zero is not None:
        found |= {
            "zeropoint_mag": zero.mag,
            "zeropoint_sigma_mag": zero.sigma_mag,
            "zeropoint_scatter_mag": zero.scatter_mag,
            "zeropoint_anchor": zero.anchor,
            "absorption_mag": zero.absorption_mag,
            "n_photometric_reference": zero.n_reference,
            "n_photometric_overlap": zero.n_overlap,
        }
    line = extinction(zero_points(calibration, chosen))
    if line is not None:
        found["extinction_mag_per_airmass"] = line.slope_mag
        found["extinction_sigma_mag_per_airmass"] = line.slope_sigma_mag
    rest = magnitude_residuals(calibration, chosen)
    if rest is not None:
        for name, x in (("magnitude", rest.mag), ("colour", rest.colour_mag)):
            slope = trend(x[rest.kept], rest.residual_mag[rest.kept])
            found[f"residual_slope_with_{name}"] = slope.slope if slope else None
            found[f"residual_slope_with_{name}_sigma"] = slope.sigma if slope else None
    return found


def _ccd(row: CcdFigures) -> Numbers:
    placed = row.placement
    return {
        "name": row.name,
        "n_matched": row.n_matched,
        "n_kept": row.n_kept,
        "n_internal": row.n_internal,
        "external_ra_mas": row.external_mas[0],
        "external_dec_mas": row.external_mas[1],
        "internal_ra_mas": row.internal_mas[0],
        "internal_dec_mas": row.internal_mas[1],
        "mean_ra_mas": row.mean_mas[0],
        "mean_dec_mas": row.mean_mas[1],
        "scale_arcsec": row.scale_arcsec,
        "rotation_deg": row.rotation_deg,
        "offset_ra_arcsec": placed.offset_arcsec[0] if placed else None,
        "offset_dec_arcsec": placed.offset_arcsec[1] if placed else None,
        "turn_arcsec": placed.turn_arcsec if placed else None,
        "stretch": placed.stretch if placed else None,
        "illumination_mag": row.illumination_mag,
        "located": row.located,
    }


def _exposure(calibration: Calibration, index: int) -> Numbers:
    one, zero = calibration.astrometry.exposures[index], calibration.zero_point(index)
    return {
        "name": calibration.title(index),
        "external_ra_mas": one.external_mas[0],
        "external_dec_mas": one.external_mas[1],
        "internal_ra_mas": one.internal_mas[0],
        "internal_dec_mas": one.internal_mas[1],
        "chi2_external": one.chi2_external,
        "chi2_internal": one.chi2_internal,
        "n_external": one.n_external,
        "n_internal": one.n_internal,
        "degree": one.degree,
        "zeropoint_mag": zero.mag if zero else None,
        "zeropoint_sigma_mag": zero.sigma_mag if zero else None,
        "zeropoint_anchor": zero.anchor if zero else None,
        "is_anchor": zero.is_anchor if zero else None,
    }
