"""Relative zero points of 40 real frames of one night: from one half of the stars as from the other."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import sep
from astropy.io import fits
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from spica_calib.photometrywork import Calibrated, calibrate_exposures, photometric_exposure
from spica_calib.science.astrometry.problem import Detections
from spica_calib.science.matching.geometry import pointing_wcs
from spica_calib.science.matching.locate import locate
from spica_calib.science.matching.search import Prior
from spica_calib.science.sources import sources_from_columns
from spica_calib.science.stars import CcdField, Stars, julian_year
from spica_imaging.profiles import load_profiles
from spica_imaging.references import stars_in_cone
from spica_imaging.stats import robust_sigma
from spica_imaging.wcs import tan_project

from tests.support.realdata import real_data

pytestmark = pytest.mark.real
PROFILE = load_profiles()["microobservatory"]
SECONDS = 60.0
RADIUS_ARCSEC = 2.5
"""Half a pixel: cross-identification."""
STAR_RADIUS_ARCSEC = 10.0
"""Positions of the catalogue are rounded, and the frame's distortion is not solved for here."""
Floats = NDArray[np.float64]


def solved(frame: Path, reference: Path) -> tuple[CcdField, Floats, Floats, Stars]:
    """A frame with its sources measured in apertures, and where its own matching puts them."""
    with fits.open(frame) as hdus:
        header, data = hdus[0].header.copy(), np.ascontiguousarray(hdus[0].data, dtype=np.float32)
    background = sep.Background(data)
    signal = data - background.back()
    found = sep.extract(signal, 2.0, err=background.globalrms, minarea=4)
    x, y, failed = sep.winpos(signal, found["x"], found["y"], 1.0)
    flux, error, _ = sep.sum_circle(signal, found["x"], found["y"], 4.0, err=background.globalrms, gain=2.0)
    radius, _ = sep.flux_radius(signal, found["x"], found["y"], np.full(len(x), 6.0), 0.5)
    saturated = found["peak"] + background.globalback > PROFILE.detector.saturation_adu
    sources = sources_from_columns(
        {
            "XWIN_IMAGE": np.where(failed == 0, x, found["x"]) + 1,
            "YWIN_IMAGE": np.where(failed == 0, y, found["y"]) + 1,
            "FLUX_AUTO": flux,
            "FLUXERR_AUTO": error,
            "FLUX_RADIUS": radius,
            "FLAGS": (4 * saturated).astype(np.int16),
        }
    )
    sources = sources.take(sources.usable)
    ny, nx = data.shape
    pointing = float(header["RA"]), float(header["DEC"])
    start = pointing_wcs(*pointing, nx, ny, 5.165, PROFILE.pointing.rotation_deg, True)
    stars = stars_in_cone(reference, "", *pointing, 2.0).at_epoch(julian_year(float(header["MJD-OBS"])))
    place = locate(
        [CcdField(0, "ccd00", nx, ny, sources, start)],
        stars,
        "V",
        Prior(shift_arcsec=1800.0, rotation_deg=10.0, scale=0.05),
        rigid=False,
        limit_log10=-6.0,
    )
    wcs = place.wcs[0]
    return CcdField(0, "ccd00", nx, ny, sources, wcs), *wcs.pixel_to_sky(sources.x, sources.y), stars


def cross_identified(frames: list[tuple[CcdField, Floats, Floats, Stars]]) -> Detections:
    """Sources numbered by where they are on the sky; reference stars are those of the first frame's area."""
    centre = float(np.median(frames[0][1])), float(np.median(frames[0][2]))
    known = np.empty((0, 2))
    stars = frames[0][3]
    star_tree = cKDTree(np.column_stack(tan_project(stars.ra_deg, stars.dec_deg, *centre)) * 3600.0)
    exposure, row, group, star = [], [], [], []
    for number, (_, ra, dec, _) in enumerate(frames):
        place = np.column_stack(tan_project(ra, dec, *centre)) * 3600.0
        away, who = (
            cKDTree(known).query(place, distance_upper_bound=RADIUS_ARCSEC)
            if len(known)
            else (np.full(len(place), np.inf), np.zeros(len(place), dtype=int))
        )
        new = ~np.isfinite(away)
        who[new] = len(known) + np.arange(np.count_nonzero(new))
        known = np.vstack([known, place[new]])
        near, which = star_tree.query(place, distance_upper_bound=STAR_RADIUS_ARCSEC)
        exposure.append(np.full(len(place), number, dtype=np.int32))
        row.append(np.arange(len(place), dtype=np.int32))
        group.append(who.astype(np.int32))
        star.append(np.where(np.isfinite(near), which, -1).astype(np.int32))
    n = sum(len(part) for part in row)
    return Detections(
        np.concatenate(exposure),
        np.zeros(n, np.int32),
        np.concatenate(row),
        np.concatenate(group),
        np.concatenate(star),
        np.ones(n, dtype=bool),
        *(np.zeros((n, 2)) for _ in range(3)),
        np.ones(n),
    )


def test_zero_points_of_a_night_repeat_to_15_mmag() -> None:
    reference = real_data("refcats/stars.bigsky.mag11.parquet")
    paths = sorted(real_data("hatp32").glob("*.FITS"))
    assert len(paths) == 40
    frames = [solved(path, reference) for path in paths]
    detections = cross_identified(frames)
    exposures = [
        photometric_exposure(
            name=path.stem,
            context="night",
            filter="Clear",
            exposure_time_s=SECONDS,
            ccds=("ccd00",),
            facts=None,
        )
        for path in paths
    ]

    def calibrated(which: NDArray[np.bool_], stars: Stars) -> Calibrated:
        part = Detections(*(getattr(detections, name)[which] for name in Detections.__slots__))
        return calibrate_exposures(exposures, [[one[0]] for one in frames], part, stars, PROFILE)

    stars = frames[0][3]
    everything = np.ones(len(detections.row), dtype=bool)
    found = calibrated(everything, stars)
    assert all(one.anchor == "reference" and one.n_reference >= 5 for one in found.solution.exposures)
    assert found.solution.band == "V"
    assert found.solution.internal_mag is not None
    assert found.solution.internal_mag < 0.03
    # Relative ones from stars in common alone: no reference, either half of the stars.
    blind = Stars(*(getattr(stars, name) for name in Stars.__slots__ if name not in ("mags", "mag_errors")))
    half = np.random.default_rng(32).random(int(detections.group.max()) + 1) < 0.5
    first, second = (calibrated(half[detections.group] == side, blind) for side in (True, False))
    assert first.is_absolute == (False,) * 40
    difference = np.array(first.zeropoint_mag) - second.zeropoint_mag
    assert robust_sigma(difference) <= 0.015
    assert np.std(difference) <= 0.015
    # A negative control: stars that are not the same on all frames tie nothing together.
    shuffled = np.random.default_rng(1).permutation(detections.group)
    wrong = Detections(
        *(shuffled if name == "group" else getattr(detections, name) for name in Detections.__slots__)
    )
    lost = calibrate_exposures(exposures, [[one[0]] for one in frames], wrong, blind, PROFILE)
    assert lost.solution.internal_mag is not None
    assert lost.solution.internal_mag > 0.2
