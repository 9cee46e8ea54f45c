"""The figures of merit: plain dataclasses, so that judging them needs no numerical library."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite, nan


@dataclass(frozen=True, slots=True)
class Psf:
    """The point spread function as the stars of one frame show it (with the pixel's own width in it)."""

    n_stars: int
    sigma_px: float
    """Median width of the matching Gaussians."""
    fwhm_px: float
    """Full width at half maximum of the profile."""
    ellipticity: float
    """1 - b/a of the median star."""
    angle_deg: float
    """Of its major axis, from +x towards +y."""
    moffat_beta: float
    """Exponent of the Moffat profile; large for a Gaussian."""
    noise_area_px: float
    """1 / sum of psf²: the area over which an optimal measurement collects noise."""

    @property
    def fwhm_per_sigma(self) -> float:
        """From the width of a matching Gaussian to the FWHM, for this profile (2.355 for a Gaussian)."""
        return self.fwhm_px / self.sigma_px


NO_PSF = Psf(0, nan, nan, nan, nan, nan, nan)


@dataclass(frozen=True, slots=True)
class FrameFigures:
    """The figures of one CCD; NaN where something could not be measured. Lengths in px, fluxes in adu."""

    n_pixels: int
    """Pixels in the data section."""
    n_saturated: int
    saturation_adu: float
    """The level from which pixels were taken as saturated."""
    blank: bool = True
    """No spread at all in the pixels, or no pixel with a value."""
    n_usable: int = 0
    n_cosmic: int = 0
    n_sources: int = 0
    psf: Psf = NO_PSF
    dip: float = 0.0
    background_adu: float = nan
    background_rms_adu: float = nan
    limiting_flux_adu: float = nan
    noise_correlation: float = nan
    """Noise in star-sized apertures over that of independent pixels: 1 raw, more where resampled."""


@dataclass(frozen=True, slots=True)
class CcdFigures:
    """The figures of one CCD with its name and scale."""

    hdu: int
    name: str
    figures: FrameFigures
    pixel_scale_arcsec: float
    """NaN where it is not known."""

    def row(self) -> dict[str, float | int | str | bool | None]:
        """As it is kept in the store: plain values, null for what could not be measured."""
        f, psf = self.figures, self.figures.psf
        values: dict[str, float | int | str | bool] = {
            "hdu": self.hdu,
            "name": self.name,
            "n_sources": f.n_sources,
            "n_stars": psf.n_stars,
            "fwhm_px": psf.fwhm_px,
            "fwhm_arcsec": psf.fwhm_px * self.pixel_scale_arcsec,
            "ellipticity": psf.ellipticity,
            "angle_deg": psf.angle_deg,
            "moffat_beta": psf.moffat_beta,
            "central_dip": f.dip,
            "background_adu": f.background_adu,
            "background_rms_adu": f.background_rms_adu,
            "noise_correlation": f.noise_correlation,
            "limiting_flux_adu": f.limiting_flux_adu,
            "saturation_adu": f.saturation_adu,
            "n_pixels": f.n_pixels,
            "n_usable": f.n_usable,
            "n_saturated": f.n_saturated,
            "n_cosmic": f.n_cosmic,
            "pixel_scale_arcsec": self.pixel_scale_arcsec,
            "blank": f.blank,
        }
        return {key: _plain(value) for key, value in values.items()}


def _plain(value: float | int | str | bool) -> float | int | str | bool | None:
    if isinstance(value, float):
        # Six digits: more is noise, and short numbers keep rows readable.
        return float(f"{value:.6g}") if isfinite(value) else None
    return value


@dataclass(frozen=True, slots=True)
class ImageFigures:
    """The figures of one image; NaN where something could not be measured."""

    n_ccds: int
    n_blank: int
    n_sources: int
    n_stars: int
    fwhm_px: float
    fwhm_arcsec: float
    ellipticity: float
    central_dip: float
    fwhm_spread: float
    """(Largest - smallest) / median of the CCDs' FWHM; 0 for one CCD."""
    ccds_without_stars: float
    """Share of CCDs."""
    background_adu: float
    background_rms_adu: float
    limiting_flux_adu: float
    limiting_mag: float
    saturated_fraction: float
    usable_fraction: float
    pixel_scale_arcsec: float
