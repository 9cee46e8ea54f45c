"""The point spread function of real frames."""

from __future__ import annotations

import numpy as np
import pytest
from astropy.io.fits.verify import VerifyWarning
from spica_imaging.frame import Ccd, iter_ccds
from spica_imaging.profiles import load_profiles
from spica_quality.science.background.sky import measure_sky, subtract
from spica_quality.science.detection.segmentation import detect
from spica_quality.science.flags import UNUSABLE
from spica_quality.science.masking import marking as masks
from spica_quality.science.photometry.shapes import adaptive_moments
from spica_quality.science.psf.measure import PsfResult, measure_psf

from tests.support.realdata import real_data

pytestmark = [
    pytest.mark.real,
    pytest.mark.filterwarnings(f"ignore::{VerifyWarning.__module__}.VerifyWarning"),
]


def measured(ccd: Ccd, fwhm_px: float, gain: float) -> PsfResult:
    data = np.array(ccd.data, dtype=np.float32)
    flags = masks.initial_flags(data, ccd.section)
    masks.mark_saturated(data, flags, masks.saturation_level(data, ccd.saturation_adu))
    data[(flags & UNUSABLE) != 0] = 0.0
    sky = measure_sky(data, flags)
    subtract(data, flags, sky)
    sources, segments = detect(data, flags, sky, fwhm_px=fwhm_px)
    rms = sky.rms_at(sources.x, sources.y)
    moments = adaptive_moments(data, flags, sources, segments, rms, fwhm_px / 2.355)
    return measure_psf(data, flags, moments, rms, gain_e_per_adu=gain, flux=sources.flux, segments=segments)


# name, profile, rough FWHM, gain, FWHM expected, ellipticity at most, stars at least
FRAMES = [
    ("decam/DECam_00241238_01.fits.fz", "generic", 4.0, 4.0, (3.7, 3.9), 0.09, 80),
    ("ngc7789/stack_V_30.fit", "generic", 3.5, 1.0, (2.9, 3.5), 0.12, 150),
    ("ngc7789/stack_V_300.fit", "generic", 3.5, 1.0, (3.4, 4.0), 0.14, 150),
    ("sdss2583/frame-r-002583-2-0136.fits.bz2", "generic", 2.5, 0.0, (1.75, 2.1), 0.06, 150),
    ("hatp32/HATP-32171220024512.FITS", "microobservatory", 2.0, 0.0, (1.2, 1.8), 0.3, 150),
]


@pytest.mark.parametrize("frame", FRAMES, ids=[frame[0].split("/")[1].split(".")[0] for frame in FRAMES])
def test_real_frames_have_a_plausible_profile(
    frame: tuple[str, str, float, float, tuple[float, float], float, int],
) -> None:
    path, profile, rough, gain, (low, high), flattest, least = frame
    ccd = next(iter_ccds(real_data(path), load_profiles()[profile]))
    result = measured(ccd, rough, gain)
    figures, model = result.figures, result.model
    assert model is not None
    assert figures.n_stars >= least
    assert figures.n_stars > 0.7 * figures.n_candidates
    assert low < figures.fwhm_px < high
    assert figures.fwhm_px < figures.fwhm_with_pixel_px
    assert figures.ellipticity < flattest
    assert figures.fwhm_spread < 0.5
    assert np.all(model.at(ccd.data.shape[1] / 3, ccd.data.shape[0] / 3).max() > 0)
    stamp = model.at(100.0, 100.0)
    middle = stamp.shape[0] // 2
    assert np.unravel_index(np.argmax(stamp), stamp.shape) == (middle, middle)
    assert stamp.min() > -0.03 * stamp.max()
    assert all(value is not None for value in figures.row(1.0).values())
