"""Which figures the page shows, in which order, and how numbers are written."""

from __future__ import annotations

from spica_quality.science.metrics.figures import FIGURES


def plain_value(style: str, value: object) -> str:
    """A figure for people; a dash for what was not measured."""
    if value is None:
        return "–"
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return str(value).replace("_", " ")
    if style == "d":
        return f"{value:,.0f}" if float(value).is_integer() else f"{value:,.1f}"
    text = format(value, style if style != "s" else "")
    # What is not zero is not to be told as zero: images in other units than adu have small numbers.
    return format(value, ".2g") if value and not text.strip("-0.,") else text


def with_unit(name: str, value: object) -> str:
    """The same with its unit: 0.82″."""
    unit = FIGURES[name].unit
    sign = {"arcsec": "″", "deg": "°"}.get(unit, f" {unit}" if unit else "")
    if name.endswith("_fraction") and isinstance(value, float):
        return f"{100 * value:.2f} %" if value > 1e-3 else f"{100 * value:.2g} %"
    return plain_value(FIGURES[name].style, value) + (sign if value is not None else "")


def about(name: str) -> str:
    """What the figure is, in a sentence that stands by itself."""
    return FIGURES[_SAME.get(name, name)].about


_SAME = {
    "fwhm_arcsec": "fwhm_px",
    "limiting_mag": "limiting_flux_adu",
    "completeness50_mag": "completeness50_flux_adu",
    "offset_dec_arcsec": "offset_ra_arcsec",
    "offset_sigma_dec_arcsec": "offset_sigma_ra_arcsec",
}
"""Of these the table of figures says no more than: the same, in another unit."""

FACTS = (
    ("fwhm_arcsec", "FWHM"), ("fwhm_px", "FWHM"), ("half_light_diameter_arcsec", "Half-light diameter"),
    ("ellipticity", "Ellipticity"), ("limiting_mag", "Depth, 5σ"), ("completeness50_mag", "Depth, 50 % found"),
    ("limiting_flux_adu", "Flux at 5σ"), ("n_stars", "Stars"), ("n_sources", "Detections"),
    ("background_adu", "Sky"), ("background_rms_adu", "Noise of the sky"), ("background_gradient_adu", "Gradient of sky"),
    ("saturation_adu", "Saturation"), ("saturated_fraction", "Saturated"), ("usable_fraction", "Usable"),
    ("n_cosmic", "Cosmic-ray pixels"), ("offset_ra_arcsec", "Offset in RA"), ("offset_sigma_ra_arcsec", "σ of it"),
    ("offset_dec_arcsec", "Offset in Dec"), ("offset_sigma_dec_arcsec", "σ of it"), ("n_reference", "Reference stars"),
    ("zeropoint_mag", "Zero point"), ("pixel_scale_arcsec", "Pixel scale"),
)  # fmt: skip

EXTREMES = (
    ("fwhm_arcsec", "PSF FWHM (Moffat)"), ("half_light_diameter_arcsec", "Half-light diameter"),
    ("elongation", "Elongation"), ("psf_chi2", "χ² of the PSF"), ("psf_residual", "Residual of the PSF"),
    ("psf_asymmetry", "Asymmetry of the PSF"), ("n_psf_stars", "Accepted PSF stars"), ("background_adu", "Sky background"),
    ("limiting_mag", "Depth, 5σ"),
)  # fmt: skip

COLUMNS = (
    ("condition", "Condition"), ("background_adu", "Sky"), ("background_rms_adu", "Noise"), ("fwhm_arcsec", "FWHM"),
    ("fwhm_px", "FWHM"), ("ellipticity", "Ellipt."), ("n_stars", "Stars"), ("n_psf_stars", "PSF stars"),
    ("n_sources", "Detections"), ("n_galaxies", "Galaxies"), ("limiting_mag", "Depth 5σ"),
    ("completeness50_mag", "50 % found"), ("usable_fraction", "Usable"), ("n_saturated", "Saturated"),
    ("n_cosmic", "Cosmics"), ("n_bad_column", "Bad col."), ("n_trail", "Trail"), ("psf_chi2", "χ²"),
    ("offset_ra_arcsec", "ΔRA"), ("offset_dec_arcsec", "ΔDec"),
)  # fmt: skip

TILES = (
    ("fwhm_arcsec", "fwhm_px"), ("background_adu",), ("n_sources",), ("ellipticity",),
    ("limiting_mag", "limiting_flux_adu"), ("usable_fraction",),
)  # fmt: skip

BARS = ("background_adu", "n_sources")

LABELS: dict[str, str] = {
    "fwhm_arcsec": "FWHM",
    "fwhm_px": "FWHM",
    "ellipticity": "Ellipticity",
    "background_adu": "Sky background",
    "background_rms_adu": "Noise of the sky",
    "n_sources": "Detections",
    "n_stars": "Stars",
    "limiting_mag": "Depth (5σ)",
    "limiting_flux_adu": "Depth (5σ)",
    "usable_fraction": "Usable share",
}
