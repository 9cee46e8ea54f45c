"""Where the zenith was during an exposure, from what its header tells of the site and the time."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from spica_calib.records import Facts
from spica_calib.science.astrometry.problem import Zenith

_LATITUDE = ("LATITUDE", "OBS-LAT", "SITELAT", "OBSGEO-B", "GEOLAT")
_LONGITUDE = ("LONGITUD", "OBS-LONG", "SITELONG", "OBSGEO-L", "GEOLON")
_PRESSURE_HPA = ("PRESSURE", "PRESSUR", "AIRPRESS")
_TEMPERATURE_C = ("TEMPERAT", "OUTTEMP", "AIRTEMP")
_SECONDS_PER_DAY = 86400.0
_LOWEST_DEG = 80.0
"""Below, the formulas of refraction mean little, and headers are likelier wrong."""
_AGREE = 0.03
"""The header's airmass must agree so well (relatively): longitudes are counted east here and west there."""


def zenith_of(facts: Facts) -> Zenith | None:
    """Zenith of an exposure's middle; None where its header does not tell, or contradicts itself."""
    latitude, longitude = _number(facts.header, _LATITUDE, 90.0), _number(facts.header, _LONGITUDE, 360.0)
    if latitude is None or longitude is None or facts.mjd_obs is None or not facts.airmass:
        return None
    mjd = facts.mjd_obs + 0.5 * facts.exposure_time_s / _SECONDS_PER_DAY
    for east in (longitude, -longitude):
        distance, angle = zenith_at(*facts.pointing, latitude, east, mjd)
        if distance < _LOWEST_DEG and abs(airmass_at(distance) / facts.airmass - 1.0) < _AGREE:
            pressure = _number(facts.header, _PRESSURE_HPA, 1100.0, least=400.0)
            temperature = _number(facts.header, _TEMPERATURE_C, 50.0, least=-50.0)
            return Zenith(
                distance,
                angle,
                **({"pressure_hpa": pressure} if pressure is not None else {}),
                **({"temperature_c": temperature} if temperature is not None else {}),
            )
    return None


def zenith_at(
    ra_deg: float, dec_deg: float, latitude_deg: float, east_longitude_deg: float, mjd: float
) -> tuple[float, float]:
    """Zenith distance, and position angle of the zenith east of north, degrees.

    Greenwich sidereal time after Meeus, Astronomical Algorithms (1998), eq. 12.4, with UTC for UT1 (15 arcsec at most);
    precession since J2000 is left out (0.2 deg in 25 years).
    """
    sidereal = 280.46061837 + 360.98564736629 * (mjd - 51544.5) + east_longitude_deg
    hour = math.radians((sidereal - ra_deg) % 360.0)
    dec, latitude = math.radians(dec_deg), math.radians(latitude_deg)
    high = math.sin(latitude) * math.sin(dec) + math.cos(latitude) * math.cos(dec) * math.cos(hour)
    east = math.cos(latitude) * math.sin(hour)
    north = math.sin(latitude) * math.cos(dec) - math.cos(latitude) * math.sin(dec) * math.cos(hour)
    return math.degrees(math.acos(max(-1.0, min(1.0, high)))), math.degrees(math.atan2(east, north))


def airmass_at(zenith_distance_deg: float) -> float:
    """Airmass of a plane-parallel atmosphere: good to 1 % down to airmass 4."""
    return 1.0 / math.cos(math.radians(zenith_distance_deg))


def _number(
    header: Mapping[str, Any], keywords: tuple[str, ...], most: float, *, least: float | None = None
) -> float | None:
    """The first of these that is a number within limits; 0 is how headers say that they do not know."""
    for keyword in keywords:
        try:
            value = float(header[keyword])
        except (KeyError, TypeError, ValueError):
            continue
        if value != 0 and (-most if least is None else least) <= value <= most:
            return value
    return None
