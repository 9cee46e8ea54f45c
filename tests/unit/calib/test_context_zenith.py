"""Where the zenith was, and magnitudes from another catalogue."""

from __future__ import annotations

from dataclasses import replace

import astropy.units as u
import numpy as np
import pytest
from astropy.coordinates import AltAz, EarthLocation, SkyCoord
from astropy.time import Time
from astropy.utils import iers
from hypothesis import given
from hypothesis import strategies as st
from spica_calib.records import Facts
from spica_calib.science.magnitudes import with_magnitudes
from spica_calib.science.stars import Stars
from spica_calib.zenith import airmass_at, zenith_at, zenith_of

# CFHT, 1257365p: as its header has it.
HEADER = {"LATITUDE": 19.825252, "LONGITUD": -155.468876, "PRESSURE": 618.94, "TEMPERAT": 5.66}
FACTS = Facts(
    "i", "1257365p", "megacam", "i.MP9702", 20.2, 55503.1929897, 1.471, (280.572958, 59.516694), HEADER
)


@pytest.mark.parametrize(
    ("ra", "dec", "latitude", "longitude", "mjd"),
    [
        (280.57, -0.05, 19.83, -155.47, 55503.193),
        (40.0, 60.0, 19.83, -155.47, 55503.4),
        (200.0, -70.0, -30.2, -70.8, 52000.1),
    ],
)
def test_zenith_is_where_astropy_has_it(
    ra: float, dec: float, latitude: float, longitude: float, mjd: float
) -> None:
    with iers.conf.set_temp("auto_download", False):
        place = EarthLocation(lat=latitude * u.deg, lon=longitude * u.deg)
        time = Time(mjd, format="mjd", scale="utc", location=place)
        star = SkyCoord(ra * u.deg, dec * u.deg)
        frame = AltAz(obstime=time, location=place)
        seen = star.transform_to(frame)
        up = SkyCoord(seen.az, seen.alt + 0.5 * u.deg, frame=frame).transform_to("icrs")
    distance, angle = zenith_at(ra, dec, latitude, longitude, mjd)
    assert distance == pytest.approx(seen.zen.deg, abs=0.3)
    off = (angle - star.position_angle(up).deg + 180) % 360 - 180
    assert abs(off) < 0.6


def test_a_header_is_believed_if_it_agrees_with_itself() -> None:
    zenith = zenith_of(FACTS)
    assert zenith is not None
    assert airmass_at(zenith.distance_deg) == pytest.approx(1.471, rel=0.02)
    assert (zenith.pressure_hpa, zenith.temperature_c) == (618.94, 5.66)
    # Longitudes counted west are found out; other contradictions leave nothing.
    west = zenith_of(replace(FACTS, header={**HEADER, "LONGITUD": 155.468876}))
    assert west == zenith
    assert zenith_of(replace(FACTS, airmass=1.1)) is None
    assert zenith_of(replace(FACTS, header={})) is None
    assert zenith_of(replace(FACTS, mjd_obs=None)) is None
    odd = zenith_of(replace(FACTS, header={**HEADER, "PRESSURE": "none", "TEMPERAT": 1e9}))
    assert odd is not None and odd.temperature_c == 0.0


def stars(rng: np.random.Generator, n: int, band: str) -> Stars:
    zeros = np.zeros(n)
    return Stars(
        10.0 + rng.uniform(0, 0.05, n), rng.uniform(-0.02, 0.02, n), zeros, zeros, zeros, zeros,
        {band: rng.uniform(15, 20, n)}, {band: np.full(n, 0.01)},
    )  # fmt: skip


@given(st.integers(0, 2**31), st.integers(0, 60), st.integers(0, 60))
def test_magnitudes_go_to_the_nearest_of_each_other(seed: int, n: int, m: int) -> None:
    rng = np.random.default_rng(seed)
    own, others = stars(rng, n, "G"), stars(rng, m, "r")
    found = with_magnitudes(own, others, 20.0)
    assert set(found.mags) == set(found.mag_errors) == {"r"}

    def apart(i: int, j: int) -> float:
        return 3600.0 * float(np.hypot(own.ra_deg[i] - others.ra_deg[j], own.dec_deg[i] - others.dec_deg[j]))

    for i in range(n):
        j = min(range(m), key=lambda k, i=i: apart(i, k), default=None)
        mutual = j is not None and apart(i, j) <= 20.0 and min(range(n), key=lambda k: apart(k, j)) == i
        assert found.mags["r"][i] == (
            pytest.approx(others.mags["r"][j]) if mutual else pytest.approx(np.nan, nan_ok=True)
        )
