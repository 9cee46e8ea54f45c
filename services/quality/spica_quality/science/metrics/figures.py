"""The figures of merit: one table says what each is, in which unit, and how CCDs make the image's.

Figures are kept flat, as plain values by name: one dictionary per CCD and one per image, the unit in the name,
None for what could not be measured. Nothing here needs a numerical library.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from math import isfinite, nan
from typing import TypeAlias

Value: TypeAlias = float | int | str | bool | None
Figures: TypeAlias = dict[str, Value]
"""Of one CCD or of one image: name -> plain value, None where not measured."""

Row: TypeAlias = Mapping[str, Value]


class Combine(Enum):
    """How the figures of the CCDs make the image's. CCDs where the figure is None do not take part."""

    CCD_ONLY = "of one CCD only"
    SUM = "sum over the CCDs"
    MEDIAN = "median over the CCDs"
    STARS = "median over the CCDs, each weighted with its stars"
    BRIGHT = "median over the CCDs, each weighted with its star-like bright sources"
    REFERENCES = "median over the CCDs, each weighted with its matched reference stars"
    IMAGE = "of the whole image"


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure of merit."""

    name: str
    unit: str
    """As it is printed; empty for numbers and shares."""
    about: str
    """One sentence."""
    combine: Combine
    extremes: bool = False
    """The image has `<name>_min`, `<name>_mean` and `<name>_max` over the CCDs besides."""
    style: str = ".4g"
    """Format of the value where people read it."""

    def names(self) -> Iterator[str]:
        """Names under which it stands in the figures of an image."""
        if self.combine is not Combine.CCD_ONLY:
            yield self.name
        if self.extremes:
            for end in ("min", "mean", "max"):
                yield f"{self.name}_{end}"


def _table() -> Iterator[Figure]:  # noqa: PLR0915 - a table, one line each
    ccd, total, middle = Combine.CCD_ONLY, Combine.SUM, Combine.MEDIAN
    stars, bright, matched, image = Combine.STARS, Combine.BRIGHT, Combine.REFERENCES, Combine.IMAGE
    f = Figure
    # What it is
    yield f("hdu", "", "Index of the CCD's HDU in the file, the primary one being 0.", ccd, style="d")
    yield f("name", "", "Name of the CCD: its EXTNAME.", ccd, style="s")
    yield f("condition", "", "What is wrong at first sight, by name; `ok`: nothing.", image, style="s")
    yield f("condition_reason", "", "The numbers that led to the condition, in a sentence.", image, style="s")
    yield f("pixel_scale_arcsec", "arcsec", "Side of a pixel on the sky.", middle, style=".4f")
    yield f("zeropoint_mag", "mag", "AB magnitude of 1 adu in this exposure.", middle, style=".3f")
    # Pixels
    yield f("n_pixels", "", "Pixels in the data section.", total, style="d")
    yield f(
        "n_usable",
        "",
        "Pixels that nothing is known against; those of CCDs that a policy leaves out too.",
        total,
        style="d",
    )
    yield f("n_saturated", "", "Pixels at or above saturation.", total, style="d")
    yield f("n_cosmic", "", "Pixels hit by cosmic rays, and hot ones.", total, style="d")
    yield f("n_trail", "", "Pixels in trails of satellites, aircraft or meteors.", total, style="d")
    yield f("n_bad_column", "", "Pixels in bad columns.", total, style="d")
    yield f("n_bleed", "", "Pixels with charge that ran over from saturated ones.", total, style="d")
    yield f(
        "n_masked", "", "Pixels bad in the instrument's mask or dark in its flat field.", total, style="d"
    )
    yield f("usable_fraction", "", "Share of pixels that nothing is known against.", image, style=".3f")
    yield f("saturated_fraction", "", "Share of pixels at or above saturation.", image, style=".5f")
    yield f(
        "lit_fraction",
        "",
        "Share of the pixels on which sky light falls: their level follows the rest's.",
        middle,
        style=".3f",
    )
    yield f("saturation_adu", "adu", "Level from which pixels are taken as saturated.", middle, style=".0f")
    # Background
    yield f("background_adu", "adu", "Median level of the sky.", middle, extremes=True, style=".1f")
    yield f(
        "background_rms_adu", "adu", "Median standard deviation of the sky's pixels.", middle, style=".2f"
    )
    yield f(
        "background_gradient_adu",
        "adu",
        "Rise of the plane that fits the sky's level best, from lowest to highest corner.",
        image,
        style=".2f",
    )
    yield f(
        "background_gradient_angle_deg",
        "deg",
        "Direction of the rise, from +x towards +y; of an image on the sky: from north towards east.",
        image,
        style=".0f",
    )
    yield f(
        "background_residual_adu",
        "adu",
        "Standard deviation of the sky's level about that plane.",
        image,
        style=".2f",
    )
    yield f(
        "noise_correlation",
        "",
        "Noise in star-sized apertures over that of independent pixels: 1 raw, more where resampled.",
        middle,
        style=".2f",
    )
    # Point spread function
    yield f(
        "fwhm_px",
        "px",
        "Full width at half maximum of the Moffat profile that fits the stars, without the pixel's own width.",
        stars,
        style=".2f",
    )
    yield f("fwhm_arcsec", "arcsec", "The same on the sky.", stars, extremes=True, style=".2f")
    yield f(
        "fwhm_with_pixel_px",
        "px",
        "Full width at half maximum of the stars as sampled, the pixel's own width in it.",
        stars,
        style=".2f",
    )
    yield f(
        "half_light_diameter_arcsec",
        "arcsec",
        "Diameter of the circle that holds half of a star's light.",
        stars,
        extremes=True,
        style=".2f",
    )
    yield f("ellipticity", "", "1 - b/a of the median star.", stars, style=".3f")
    yield f("elongation", "", "Axis ratio a/b of the median star.", stars, extremes=True, style=".3f")
    yield f(
        "angle_deg", "deg", "Direction of the median star's major axis, from +x towards +y.", ccd, style=".0f"
    )
    yield f("moffat_beta", "", "Exponent of the Moffat profile; large for a Gaussian.", stars, style=".2f")
    yield f(
        "psf_asymmetry",
        "",
        "What is left of the stars' light after turning them by 180 degrees, relative to all of it.",
        stars,
        extremes=True,
        style=".4f",
    )
    yield f(
        "psf_chi2",
        "",
        "Reduced chi² of the stars against the model of the point spread function.",
        stars,
        extremes=True,
        style=".2f",
    )
    yield f(
        "psf_residual",
        "",
        "Sum of |star - model| over the star's light, less what noise alone gives (0: no more); brighter half of the stars.",
        stars,
        extremes=True,
        style=".4f",
    )
    yield f(
        "psf_noise_area_px",
        "px²",
        "1 / sum of psf²: the area over which an optimal measurement collects noise.",
        stars,
        style=".1f",
    )
    yield f("n_stars", "", "Sources on the stellar locus.", total, style="d")
    yield f(
        "n_psf_stars",
        "",
        "Stars accepted for the model of the point spread function.",
        total,
        extremes=True,
        style="d",
    )
    # The bright sources as they are, whether or not stars could be told
    yield f("n_bright", "", "Bright sources looked at.", total, style="d")
    yield f("n_star_like", "", "Of them: wide in all directions, and of one size.", total, style="d")
    yield f("star_share", "", "Share of the bright sources that look like stars.", image, style=".2f")
    yield f(
        "star_width_px",
        "px",
        "FWHM of the star-like bright sources along their narrow side.",
        bright,
        style=".1f",
    )
    yield f("star_length_px", "px", "FWHM of the same along their wide side.", bright, style=".1f")
    yield f(
        "trail_length_px",
        "px",
        "Length of the line over which they are smeared; 0 where they are not.",
        bright,
        style=".1f",
    )
    yield f("trail_angle_deg", "deg", "Direction of that line, from +x towards +y.", ccd, style=".0f")
    yield f(
        "doubling",
        "",
        "Flux of their second image relative to the first; 0 where there is none.",
        bright,
        style=".2f",
    )
    yield f("doubling_px", "px", "Distance of the second image from the first.", bright, style=".1f")
    yield f(
        "central_dip",
        "",
        "How much darker they are at the centre than in a ring about it.",
        bright,
        style=".2f",
    )
    # Sources and depth
    yield f("n_sources", "", "Sources in the catalogue.", total, style="d")
    yield f("n_galaxies", "", "Sources wider than stars by more than their errors.", total, style="d")
    yield f(
        "limiting_flux_adu",
        "adu",
        "Flux of a point source at 5 sigma, measured with the stars' profile.",
        middle,
        style=".1f",
    )
    yield f("limiting_mag", "mag", "Its magnitude (AB).", middle, style=".2f")
    yield f(
        "completeness50_flux_adu",
        "adu",
        "Flux at which half of the injected stars are found.",
        middle,
        style=".1f",
    )
    yield f("completeness50_mag", "mag", "Its magnitude (AB).", middle, style=".2f")
    yield f(
        "completeness50_error_mag",
        "mag",
        "Standard error of that magnitude, from the number of injected stars.",
        ccd,
        style=".2f",
    )
    yield f("n_injected", "", "Stars injected to learn the completeness.", total, style="d")
    # Against the reference catalogue
    yield f(
        "offset_ra_arcsec",
        "arcsec",
        "Offset of the stars from the reference, by the header's WCS: along RA, times cos Dec.",
        matched,
        style=".2f",
    )
    yield f("offset_dec_arcsec", "arcsec", "The same along Dec.", matched, style=".2f")
    yield f(
        "offset_sigma_ra_arcsec",
        "arcsec",
        "Scatter of single stars about that offset, along RA.",
        matched,
        style=".3f",
    )
    yield f("offset_sigma_dec_arcsec", "arcsec", "The same along Dec.", matched, style=".3f")
    yield f("n_reference", "", "Reference stars matched.", total, style="d")
    # Of images only
    yield f("n_ccds", "", "CCDs in the file.", image, style="d")
    yield f("n_ccds_blank", "", "CCDs without any signal: blank or dead.", image, style="d")
    yield f("n_ccds_half_dead", "", "CCDs of which a large part is dead.", image, style="d")
    yield f("n_ccds_missing", "", "CCDs that the instrument has and the file has not.", image, style="d")
    yield f("ccds_without_stars", "", "Share of the CCDs without stars.", image, style=".2f")
    yield f("fwhm_spread", "", "(Largest - smallest) / median of the CCDs' FWHM.", image, style=".2f")
    yield f(
        "counts_ratio_stars",
        "",
        "Stars found over stars expected in this direction, to the depth of the count.",
        image,
        style=".2f",
    )
    yield f(
        "counts_ratio_stars_error",
        "",
        "Standard error of that ratio: counting, and the model's own.",
        image,
        style=".2f",
    )
    yield f(
        "counts_ratio_galaxies",
        "",
        "Galaxies found over galaxies expected, to the depth of the count.",
        image,
        style=".2f",
    )
    yield f(
        "counts_ratio_galaxies_error",
        "",
        "Standard error of that ratio: counting, clustering, and the model's own.",
        image,
        style=".2f",
    )
    yield f("counts_mag", "mag", "Magnitude (AB) down to which was counted.", image, style=".2f")


FIGURES: dict[str, Figure] = {figure.name: figure for figure in _table()}
"""By name, in the order in which people read them."""

IMAGE_ONLY = tuple(FIGURES)[tuple(FIGURES).index("n_ccds") :]
CCD_NAMES: tuple[str, ...] = tuple(name for name in FIGURES if name not in IMAGE_ONLY)
IMAGE_NAMES: tuple[str, ...] = tuple(name for figure in FIGURES.values() for name in figure.names())


def describe(name: str) -> Figure:
    """The entry of a figure, of `<name>_min`, `_mean` and `_max` too; KeyError for a name that is not in the table."""
    if name in FIGURES:
        return FIGURES[name]
    base, _, end = name.rpartition("_")
    figure = FIGURES[base]
    if not figure.extremes or end not in _EXTREMES:
        raise KeyError(name)
    about = f"{_EXTREMES[end]} of {figure.name} over the CCDs."
    return Figure(name, figure.unit, about, Combine.IMAGE, style=figure.style if end != "mean" else ".4g")


_EXTREMES = {"min": "Smallest", "mean": "Mean", "max": "Largest"}


def row(values: Row) -> Figures:
    """The figures of one CCD as they are kept: all names of the table in its order, plain values, None where missing.

    KeyError names a value that the table does not know.
    """
    return _complete(values, CCD_NAMES)


def image_row(values: Row) -> Figures:
    """The same for an image."""
    return _complete(values, IMAGE_NAMES)


def _complete(values: Row, names: tuple[str, ...]) -> Figures:
    if unknown := sorted(set(values) - set(names)):
        raise KeyError(
            f"no such figure: {', '.join(unknown)}; the table in science/metrics/figures.py has all"
        )
    return {name: plain(values.get(name)) for name in names}


def number(figures: Row, name: str) -> float:
    """A figure as a number; NaN where it was not measured."""
    value = figures.get(name)
    return float(value) if isinstance(value, (int, float)) else nan


def plain(value: object) -> Value:
    """A value as it is kept: numbers of libraries as plain ones, six significant digits, None for NaN and infinity."""
    if value is None or isinstance(value, (str, bool)):
        return value
    if isinstance(value, int):
        return value
    if hasattr(value, "item"):
        return plain(value.item())
    if isinstance(value, float):
        # Six digits: more is noise, and short numbers keep rows readable.
        return float(f"{value:.6g}") if isfinite(value) else None
    raise TypeError(f"{value!r} ({type(value).__name__}) is no figure: numbers and text are")
