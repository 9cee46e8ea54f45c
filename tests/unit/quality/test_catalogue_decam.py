"""A real CCD: our catalogue against the one that its survey made of the same pixels with source-extractor."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from astropy.io.fits.verify import VerifyWarning
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from spica_imaging.frame import iter_ccds
from spica_imaging.ldac import read_ldac
from spica_imaging.profiles import load_profiles
from spica_quality.science.background.sky import measure_sky, subtract
from spica_quality.science.detection.segmentation import detect
from spica_quality.science.flags import Bit
from spica_quality.science.masking import marking as masks
from spica_quality.science.photometry.catalogue import Columns, measure_catalogue
from spica_quality.science.photometry.shapes import adaptive_moments
from spica_quality.science.psf.measure import measure_psf

from tests.support.realdata import real_data

pytestmark = [
    pytest.mark.real,
    pytest.mark.filterwarnings(f"ignore::{VerifyWarning.__module__}.VerifyWarning"),
]

GAIN, SATURATION, FWHM = 4.039, 38_652.0, 3.9
DIAMETERS = (1.85, 3.7, 5.55, 7.41, 11.11, 14.81)
"""Those of the survey, px."""


@dataclass(frozen=True)
class Pair:
    """The survey's sources with S/N > 10, and ours beside them."""

    ours: Columns
    theirs: Columns
    rows: NDArray[np.intp]
    """Of ours, the one nearest to each of theirs."""
    near: NDArray[np.bool_]
    """Within 2 px by barycentre or windowed position."""

    @property
    def clean(self) -> NDArray[np.bool_]:
        """Found, and flagged by nobody."""
        return self.near & (self.theirs["FLAGS"] == 0) & (self.ours["FLAGS"][self.rows] == 0)

    def ratio(self, name: str) -> NDArray[np.float64]:
        mine, other = self.ours[name][self.rows][self.clean], self.theirs[name][self.clean]
        return np.asarray(mine[other > 0] / other[other > 0], np.float64)


@pytest.fixture(scope="module")
def pair() -> Pair:
    path = real_data("decam/DECam_00241238_01.fits.fz")
    ccd = next(iter_ccds(path, load_profiles()["generic"]))
    data = np.array(ccd.data, np.float32)
    flags = masks.initial_flags(data, ccd.section)
    flags[data >= SATURATION] |= Bit.SATURATED
    sky = measure_sky(data, flags)
    subtract(data, flags, sky)
    sources, segments = detect(data, flags, sky, fwhm_px=FWHM)
    rms = sky.rms_at(sources.x, sources.y)
    shapes = adaptive_moments(data, flags, sources, segments, rms, FWHM / 2.355)
    model = measure_psf(data, flags, shapes, rms, gain_e_per_adu=GAIN, segments=segments).model
    assert model is not None
    columns = measure_catalogue(
        data, flags, sky, sources, segments, gain=GAIN, fwhm_px=model.fwhm_px, psf=model, zeropoint=25.0,
        shapes=shapes, aperture_diameters_px=DIAMETERS,
    )  # fmt: skip
    (peer,) = read_ldac(real_data("decam/DECam_00241238_01_cat.fits"))
    with np.errstate(invalid="ignore", divide="ignore"):
        bright = peer.columns["FLUX_AUTO"] > 10.0 * peer.columns["FLUXERR_AUTO"]
    theirs = {name: values[bright] for name, values in peer.columns.items()}
    distances, rows = [], []
    for part in ("", "WIN"):
        mine, other = (np.column_stack([c[f"X{part}_IMAGE"], c[f"Y{part}_IMAGE"]]) for c in (columns, theirs))
        distance, row = cKDTree(mine).query(other)
        distances.append(distance)
        rows.append(row)
    by_barycentre = distances[0] < distances[1]
    return Pair(columns, theirs, np.where(by_barycentre, *rows), np.minimum(*distances) < 2.0)


def spread(values: NDArray[np.float64]) -> float:
    return float(1.4826 * np.median(np.abs(values - np.median(values))))


def test_nearly_all_sources_are_found(pair: Pair) -> None:
    assert len(pair.near) > 900
    assert np.mean(pair.near) >= 0.99


def test_windowed_positions_agree(pair: Pair) -> None:
    off = [
        pair.ours[name][pair.rows][pair.near] - pair.theirs[name][pair.near]
        for name in ("XWIN_IMAGE", "YWIN_IMAGE")
    ]
    assert np.median(np.hypot(*off)) < 0.02
    clean = pair.clean[pair.near]
    assert max(abs(np.median(values[clean])) for values in off) < 0.003


def test_fluxes_agree(pair: Pair) -> None:
    """Apertures to 1 %; AUTO to its scatter: the survey's ellipses follow from a higher detection threshold."""
    assert np.count_nonzero(pair.clean) > 600
    mine, other = pair.ours["FLUX_APER"][pair.rows][pair.clean], pair.theirs["FLUX_APER"][pair.clean]
    for k, diameter in enumerate(DIAMETERS):
        lit = other[:, k] > 0
        assert np.mean(lit) > 0.99
        ratio = mine[lit, k] / other[lit, k]
        assert np.median(ratio) == pytest.approx(1.0, abs=0.01), diameter
        assert spread(ratio) < (0.04 if diameter < 2.0 else 0.015), diameter
    assert np.median(pair.ratio("FLUX_AUTO")) == pytest.approx(1.0, abs=0.04)
    assert spread(pair.ratio("FLUX_AUTO")) < 0.06
    assert np.median(pair.ratio("FLUX_PSF")) == pytest.approx(1.0, abs=0.04)
    assert spread(pair.ratio("FLUX_PSF")) < 0.03
    assert np.median(pair.ratio("FLUX_RADIUS")) == pytest.approx(1.0, abs=0.04)
    assert np.median(pair.ratio("BACKGROUND")) == pytest.approx(1.0, abs=0.001)


def test_stars_and_galaxies_are_told_apart_as_the_survey_does(pair: Pair) -> None:
    mine, other = (
        values[pair.clean] for values in (pair.ours["SPREAD_MODEL"][pair.rows], pair.theirs["SPREAD_MODEL"])
    )
    known = np.isfinite(mine) & (pair.theirs["SPREADERR_MODEL"][pair.clean] < 0.002)
    stars, galaxies = np.abs(other) < 0.002, other > 0.01
    likeness = pair.ours["CLASS_STAR"][pair.rows][pair.clean]
    assert np.count_nonzero(known & stars) > 80
    assert np.count_nonzero(known & galaxies) > 50
    assert np.mean(likeness[known & stars] > 0.5) > 0.9
    assert np.mean(likeness[known & galaxies] < 0.5) > 0.95
