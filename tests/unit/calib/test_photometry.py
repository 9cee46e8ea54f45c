"""What zero points mean."""

from __future__ import annotations

import numpy as np
import pytest
from spica_calib.science.photometry.zeropoint import flux_scale, limiting_mag


def test_scale_and_limit_mean_the_same_as_their_definitions() -> None:
    counts, zero, seconds = 5000.0, 26.4, 120.0
    magnitude = zero - 2.5 * np.log10(counts / seconds)
    assert -2.5 * np.log10(counts * flux_scale(zero, seconds)) + 30.0 == pytest.approx(magnitude)
    assert limiting_mag(zero, counts, seconds) == pytest.approx(magnitude)
