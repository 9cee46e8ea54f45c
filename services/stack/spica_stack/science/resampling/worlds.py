"""World coordinates of inputs: our own where they are of the kind that is fast, astropy's for all the rest."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
from astropy.coordinates import ICRS, BaseCoordinateFrame, SkyCoord
from astropy.io import fits
from astropy.wcs import WCS
from astropy.wcs.utils import wcs_to_celestial_frame
from numpy.typing import ArrayLike, NDArray
from spica_imaging.wcs import TpvWcs, WcsError

from spica_stack.science.grid import Wcs

Floats = NDArray[np.float64]

_LARGEST_CONDITION = 1e9
"""Pixels a billion times longer than wide are a mistake, which wcslib does not see."""


class AstropyWcs:
    """A celestial WCS as astropy (wcslib) reads it: any projection, any distortion, any frame that it can turn into ICRS.

    Pixel positions are FITS (first centre = 1), the sky is ICRS, in degrees; NaN where there is none.
    """

    def __init__(self, header: fits.Header) -> None:
        """Raise `WcsError` where the header has no celestial axes, or none that astropy understands."""
        try:
            with warnings.catch_warnings():
                # Old headers in other words (RADECSYS, dates): astropy says how it took them.
                warnings.simplefilter("ignore")
                found = WCS(header, fix=True)
                self._wcs = found if found.naxis == 2 else found.celestial
                self._wcs.wcs.set()
                self._frame: BaseCoordinateFrame = wcs_to_celestial_frame(self._wcs)
        except Exception as error:  # wcslib's errors have no common class
            raise WcsError(f"The WCS cannot be used: {error}") from error
        if not self._wcs.has_celestial or self._wcs.naxis != 2:
            raise WcsError("The header has no celestial WCS of two axes.")
        if not np.linalg.cond(self._wcs.pixel_scale_matrix) < _LARGEST_CONDITION:
            raise WcsError("The WCS's matrix is singular.")
        self._header = header
        # FK5 of 2000 is taken for ICRS, as `TpvWcs` does.
        name, equinox = self._frame.name, getattr(self._frame, "equinox", None)
        of_2000 = equinox is not None and abs(equinox.jyear - 2000.0) < 0.01
        self._as_it_is = name == "icrs" or (name == "fk5" and of_2000)

    def __reduce__(self) -> tuple[type[AstropyWcs], tuple[fits.Header]]:
        return AstropyWcs, (self._header,)

    def pixel_to_sky(self, x: ArrayLike, y: ArrayLike) -> tuple[Floats, Floats]:
        """RA and Dec (deg) of pixel positions."""
        first, second = np.broadcast_arrays(np.asarray(x, np.float64), np.asarray(y, np.float64))
        sky_axes = self._wcs.all_pix2world(first.ravel(), second.ravel(), 1)
        lon, lat = sky_axes[self._wcs.wcs.lng], sky_axes[self._wcs.wcs.lat]
        if not self._as_it_is:
            known = np.isfinite(lon) & np.isfinite(lat)
            sky = SkyCoord(lon[known], lat[known], unit="deg", frame=self._frame).transform_to(ICRS())
            lon[known], lat[known] = sky.ra.deg, sky.dec.deg
        return lon.reshape(first.shape) % 360.0, lat.reshape(first.shape)

    def sky_to_pixel(self, ra_deg: ArrayLike, dec_deg: ArrayLike) -> tuple[Floats, Floats]:
        """Pixel positions of RA and Dec (deg)."""
        ra, dec = np.broadcast_arrays(np.asarray(ra_deg, np.float64), np.asarray(dec_deg, np.float64))
        lon, lat = ra.ravel().copy(), dec.ravel().copy()
        known = np.isfinite(lon) & np.isfinite(lat)
        if not self._as_it_is:
            sky = SkyCoord(lon[known], lat[known], unit="deg", frame="icrs").transform_to(self._frame)
            lon[known], lat[known] = sky.spherical.lon.deg, sky.spherical.lat.deg
        x, y = np.full(lon.shape, np.nan), np.full(lon.shape, np.nan)
        if np.any(known):
            # The iteration (SIP) must not begin from places that the projection does not have.
            known[known] = np.isfinite(
                self._wcs.wcs_world2pix(*self._on_axes(lon[known], lat[known]), 1)
            ).all(0)
        if np.any(known):
            places = self._on_axes(lon[known], lat[known])
            x[known], y[known] = self._wcs.all_world2pix(*places, 1, quiet=True, tolerance=1e-7)
        return x.reshape(ra.shape), y.reshape(ra.shape)

    def _on_axes(self, lon: Floats, lat: Floats) -> tuple[Floats, Floats]:
        """Longitude and latitude in the order of the header's axes."""
        return (lon, lat) if self._wcs.wcs.lng == 0 else (lat, lon)


def wcs_from_header(header: Mapping[str, Any] | fits.Header) -> Wcs:
    """World coordinates of a header: `TpvWcs` for TAN, TPV and SIP, which is fast; else what astropy makes of it.

    Raises `WcsError`.
    """
    try:
        return TpvWcs.from_header(header)
    except WcsError:
        return AstropyWcs(header if isinstance(header, fits.Header) else fits.Header(dict(header)))
