"""How figures are said to people: a title, a value with its unit, and the codes of reasons."""

from __future__ import annotations

from dataclasses import dataclass

from spica_quality.science.metrics.figures import describe

_TITLES = {
    "fwhm": "FWHM",
    "fwhm_with_pixel": "FWHM with the pixel",
    "fwhm_spread": "Spread of FWHM over CCDs",
    "half_light_diameter": "Half-light diameter",
    "central_dip": "Central dip of stars",
    "usable_fraction": "Usable share of pixels",
    "saturated_fraction": "Saturated share of pixels",
    "lit_fraction": "Lit share of pixels",
    "ccds_without_stars": "Share of CCDs without stars",
    "ccds": "CCDs",
    "ccds_blank": "CCDs without signal",
    "ccds_missing": "Missing CCDs",
    "ccds_half_dead": "Half-dead CCDs",
    "psf_stars": "PSF stars",
    "psf_chi2": "Chi² of the PSF model",
    "psf_residual": "Residual of the PSF model",
    "psf_asymmetry": "Asymmetry of the PSF",
    "counts_ratio_stars": "Stars found over expected",
    "counts_ratio_galaxies": "Galaxies found over expected",
    "background": "Sky",
    "background_rms": "Noise of the sky",
    "background_gradient": "Gradient of the sky",
    "background_residual": "Unevenness of the sky",
    "limiting": "Depth",
    "completeness50": "Depth of 50 % completeness",
    "offset_ra": "Offset in RA",
    "offset_dec": "Offset in Dec",
    "reference": "Reference stars matched",
    "doubling": "Second image of stars",
    "trail_length": "Length of the stars",
}

_CODES: dict[str, tuple[str, str]] = {
    "fwhm": ("poor_seeing", "poor_seeing"),
    "half_light_diameter": ("poor_seeing", "poor_seeing"),
    "ellipticity": ("elongated", "trailed"),
    "elongation": ("elongated", "trailed"),
    "trail_length": ("elongated", "trailed"),
    "stars": ("few_stars", "too_few_stars"),
    "psf_stars": ("few_psf_stars", "too_few_psf_stars"),
    "central_dip": ("out_of_focus", "out_of_focus"),
    "doubling": ("doubled", "doubled"),
    "usable_fraction": ("masked", "masked"),
    "saturated_fraction": ("saturated", "saturated"),
    "fwhm_spread": ("uneven_seeing", "uneven_seeing"),
    "limiting": ("shallow", "shallow"),
    "background": ("bright_sky", "bright_sky"),
    "background_gradient": ("uneven_sky", "uneven_sky"),
    "background_residual": ("uneven_sky", "uneven_sky"),
    "background_rms": ("noisy", "noisy"),
    "offset_ra": ("astrometric_offset", "astrometric_offset"),
    "offset_dec": ("astrometric_offset", "astrometric_offset"),
    "ccds_missing": ("missing_ccds", "missing_ccds"),
    "counts_ratio_stars": ("counts_off", "counts_off"),
    "counts_ratio_galaxies": ("counts_off", "counts_off"),
}
"""Code of a reason below A, and at D; others: the figure's own name."""

_UNITS = {"arcsec": "″", "deg": "°", "": ""}
_ENDS = {"min": "smallest", "mean": "mean", "max": "largest"}


@dataclass(frozen=True, slots=True)
class Words:
    """How one figure is said."""

    title: str
    unit: str
    style: str
    codes: tuple[str, str]
    """Of a reason below A, and at D."""

    def text(self, value: float) -> str:
        """A value with its unit."""
        if self.style == "d":
            return f"{value:,.0f}".replace(",", " ") + self.unit
        return format(value, self.style) + self.unit

    def beside(self, value: float, limit: float) -> str:
        """A value that lies beyond a limit, with as many digits as it takes to see that."""
        shown = self.text(value)
        for digits in range(1, 7):
            if value == limit or float(shown.removesuffix(self.unit).replace(" ", "")) != limit:
                break
            shown = f"{value:.{3 + digits}g}{self.unit}"
        return shown

    def limit(self, value: float) -> str:
        """A limit, as short as it was written."""
        return f"{value:g}{self.unit}"


def words_for(
    figure: str, over: str | None = None, title: str | None = None, code: str | None = None
) -> Words:
    """How a figure (or its ratio to another) is said. KeyError: there is no such figure."""
    known = describe(figure)
    base, end = figure, ""
    if figure.rpartition("_")[2] in _ENDS and known.name == figure:
        base, _, end = figure.rpartition("_")
    bare = _bare(base)
    name = title or _TITLES.get(bare) or bare.replace("_", " ").capitalize()
    if end and not title:
        name = f"{name}, {_ENDS[end]} of the CCDs"
    codes = (code, code) if code else _CODES.get(bare, (bare, bare))
    if over is None:
        unit = _UNITS.get(known.unit, f" {known.unit}")
        return Words(name, unit, known.style, codes)
    if not title:
        name = f"{name} over {_TITLES.get(_bare(over), _bare(over)).lower()}"
    return Words(name, "", ".3g", codes)


def _bare(figure: str) -> str:
    """Without the unit at the end and the `n_` at the beginning."""
    for unit in ("_arcsec", "_px", "_adu", "_mag", "_deg"):
        figure = figure.removesuffix(unit)
    return figure.removeprefix("n_")
