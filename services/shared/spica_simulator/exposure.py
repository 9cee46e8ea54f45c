"""One exposure: what was true while it was taken, and the pixels that came of it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from spica_simulator.camera import PIXEL_SCALE_ARCSEC, Camera, CcdWcs, Chip
from spica_simulator.detector import GAIN_E_PER_ADU, READ_NOISE_E, add_trail, read_out
from spica_simulator.psf import MOFFAT_BETA, Psf, add_stars, stamp_radius
from spica_simulator.sky import Sky

Floats = NDArray[np.float64]
Kind = Literal["good", "corrupted", "no_wcs", "out_of_focus"]

EXTINCTION_PER_AIRMASS = {"g": 0.18, "r": 0.10, "i": 0.04}
"""CFHT's, mag per airmass."""
ZEROPOINT_OUTSIDE_MAG = {"g": 26.6, "r": 26.1, "i": 25.9}
"""AB magnitude of 1 adu/s outside the atmosphere."""
SKY_MAG_ARCSEC2 = {"g": 21.9, "r": 20.9, "i": 20.0}


@dataclass(frozen=True, slots=True)
class Conditions:
    """All that was true of one exposure, besides the sky and the camera."""

    number: int
    """Odometer."""
    kind: Kind
    filter: str
    exposure_time_s: float
    mjd_obs: float
    airmass: float
    cloud_mag: float
    """What thin cirrus took away."""
    axis: tuple[float, float]
    """Where the optical axis really pointed (ra, dec in deg)."""
    rotation_deg: float
    header_pointing: tuple[float, float]
    """Where the header says it did."""
    psf: Psf
    sky_slope: tuple[float, float]
    """Relative change of the sky level from the middle to the edge, in x and y."""
    trail: bool = False

    @property
    def name(self) -> str:
        """Image name: odometer and suffix."""
        return f"{self.number}p"

    @property
    def band(self) -> str:
        """Band of the sky's magnitudes."""
        return self.filter[0]

    @property
    def zeropoint_mag(self) -> float:
        """AB magnitude of 1 adu/s above the atmosphere, as this exposure saw it (extinction included)."""
        return (
            ZEROPOINT_OUTSIDE_MAG[self.band]
            - EXTINCTION_PER_AIRMASS[self.band] * self.airmass
            - self.cloud_mag
        )

    @property
    def sky_adu(self) -> float:
        """Sky level on the optical axis, adu per pixel. Airglow is above the clouds, but not the zenith's alone."""
        rate = 10 ** (0.4 * (self.zeropoint_mag - SKY_MAG_ARCSEC2[self.band])) * PIXEL_SCALE_ARCSEC**2
        return rate * self.exposure_time_s * (0.8 + 0.2 * self.airmass)

    @property
    def epoch_year(self) -> float:
        """Julian year of the exposure's start."""
        return 2000.0 + (self.mjd_obs - 51544.5) / 365.25


@dataclass(frozen=True, slots=True)
class CcdTruth:
    """What is true of one CCD of one exposure."""

    name: str
    hdu: int
    wcs: CcdWcs
    fwhm_arcsec: float
    ellipticity: float
    sky_adu: float
    sources: dict[str, NDArray[Any]] = field(default_factory=dict)
    """Columns source_id, is_star, x, y (FITS pixels), ra_deg, dec_deg, flux_adu, mag."""


def _field_place(camera: Camera, chip: Chip, x: Floats | float, y: Floats | float) -> tuple[Any, Any]:
    """Place in the mosaic, -1 to 1 in both directions."""
    return (
        (x - chip.offset_px[0]) / (camera.size_px[0] / 2),
        (y - chip.offset_px[1]) / (camera.size_px[1] / 2),
    )


def _sources_on(
    sky: Sky, conditions: Conditions, wcs: CcdWcs, shape: tuple[int, int], margin: int
) -> dict[str, Any]:
    ra, dec = sky.at(conditions.epoch_year)
    x, y = wcs.sky_to_pixel(ra, dec)
    ny, nx = shape
    near = np.flatnonzero((x > -margin) & (x < nx + margin) & (y > -margin) & (y < ny + margin))
    mag = sky.mags[conditions.band][near]
    flux = 10 ** (0.4 * (conditions.zeropoint_mag - mag)) * conditions.exposure_time_s
    return {
        "source_id": near,
        "is_star": sky.is_star[near],
        "x": x[near],
        "y": y[near],
        "ra_deg": ra[near],
        "dec_deg": dec[near],
        "flux_adu": flux,
        "mag": mag,
    }


def add_galaxies(
    image: Floats, sky: Sky, sources: dict[str, Any], psf: Psf, middle: tuple[float, float]
) -> None:
    """Draw galaxies with GalSim: exponential discs (Spergel profiles for one in four), PSF of the CCD's middle."""
    import galsim

    fwhm, e1, e2 = (float(value) for value in psf.at(*middle))
    star = galsim.Moffat(beta=MOFFAT_BETA, fwhm=fwhm).shear(g1=e1, g2=e2)
    target = galsim.ImageD(image)  # a view: pixel (1, 1) is image[0, 0]
    for index in np.flatnonzero(~sources["is_star"]):
        number = int(sources["source_id"][index])
        size = sky.half_light_arcsec[number] / PIXEL_SCALE_ARCSEC
        if number % 4:
            profile = galsim.Exponential(half_light_radius=size)
        else:
            profile = galsim.Spergel(nu=-0.6, half_light_radius=size)
        profile = profile.shear(q=sky.axis_ratio[number], beta=sky.angle_deg[number] * galsim.degrees)
        light = galsim.Convolve(profile.withFlux(float(sources["flux_adu"][index])), star)
        x, y = float(sources["x"][index]), float(sources["y"][index])
        half = int(min(60.0, 12 + 5 * size))
        bounds = galsim.BoundsI(round(x) - half, round(x) + half, round(y) - half, round(y) + half)
        bounds = bounds & target.bounds
        if bounds.isDefined():
            light.drawImage(target[bounds], scale=1.0, center=galsim.PositionD(x, y), add_to_image=True)


def render_ccd(
    camera: Camera, number: int, sky: Sky, conditions: Conditions, seed: np.random.SeedSequence
) -> tuple[NDArray[np.uint16], CcdTruth]:
    """Pixels (shape ny, nx, adu) and truth of one CCD."""
    chip, (ny, nx) = camera.chips[number], camera.shape
    rng = np.random.default_rng(seed)
    wcs = camera.true_wcs(chip, conditions.axis, conditions.rotation_deg, conditions.airmass)
    sources = _sources_on(sky, conditions, wcs, camera.shape, margin=100)
    psf = conditions.psf

    u, v = _field_place(camera, chip, np.arange(1.0, nx + 1)[None, :], np.arange(1.0, ny + 1)[:, None])
    image = conditions.sky_adu * (1.0 + conditions.sky_slope[0] * u + conditions.sky_slope[1] * v)
    noise = math.hypot(math.sqrt(conditions.sky_adu / GAIN_E_PER_ADU), READ_NOISE_E / GAIN_E_PER_ADU)
    # Far out of focus, galaxies look like stars do.
    stars = sources["is_star"] | (conditions.kind == "out_of_focus")
    x, y, flux = (sources[name][stars] for name in ("x", "y", "flux_adu"))
    fwhm, e1, e2 = psf.at(*_field_place(camera, chip, x, y))
    radius = stamp_radius(flux, fwhm, noise, psf.profile)
    add_stars(image, x, y, flux, fwhm, e1, e2, radius, psf.profile.values, psf.profile.step)
    middle = _field_place(camera, chip, (nx + 1) / 2, (ny + 1) / 2)
    if not stars.all():
        add_galaxies(image, sky, sources, psf, middle)
    if conditions.trail:
        angle = math.radians(27.0)
        a, b = math.sin(angle), -math.cos(angle)
        offset = a * chip.offset_px[0] + b * chip.offset_px[1] + 0.1 * camera.size_px[1]
        add_trail(image, a, b, offset, 0.6 * conditions.sky_adu, psf.fwhm_px)

    pixels = read_out(image, chip.bad_columns, conditions.exposure_time_s, rng)
    fwhm_middle, e1_middle, e2_middle = (float(value) for value in psf.at(*middle))
    shear = math.hypot(e1_middle, e2_middle)
    inside = (
        (sources["x"] >= 0.5)
        & (sources["x"] <= nx + 0.5)
        & (sources["y"] >= 0.5)
        & (sources["y"] <= ny + 0.5)
    )
    truth = CcdTruth(
        name=chip.name,
        hdu=number + 1,
        wcs=wcs,
        fwhm_arcsec=fwhm_middle * PIXEL_SCALE_ARCSEC,
        ellipticity=1.0 - (1.0 - shear) / (1.0 + shear),
        sky_adu=float(conditions.sky_adu * (1 + np.dot(conditions.sky_slope, middle))),
        sources={name: column[inside] for name, column in sources.items()},
    )
    return pixels, truth
