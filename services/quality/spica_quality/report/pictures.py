"""The pictures of the page below the large one, in the order in which they are looked at."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import isfinite

from spica_quality.report import diagrams, focal
from spica_quality.report.contents import BARS, LABELS, TILES, about
from spica_quality.report.diagrams import Everything, Expectation
from spica_quality.report.gathering import CcdPictures
from spica_quality.report.layout import Layout
from spica_quality.report.outliers import outlying
from spica_quality.science.metrics.figures import Row, number


@dataclass(frozen=True, slots=True)
class Picture:
    """One picture."""

    id: str
    title: str
    svg: str
    caption: str


def pictures(
    ccds: Sequence[CcdPictures],
    layout: Layout,
    rows: Sequence[Row],
    image: Row,
    sources: Everything,
    expectation: Expectation | None,
) -> Iterator[Picture]:
    """All pictures for which something was measured."""
    if svg := focal.psf_picture(ccds, layout, rows):
        words = (
            "Median stars in cells: colour is the FWHM, the whisker's length and direction the ellipticity."
        )
        yield Picture("psf", "Point spread function over the field", svg, words)
    if svg := diagrams.radius_picture(sources, image):
        words = "Stars lie on a level line; saturated ones leave it at the bright end."
        yield Picture("radius", "Magnitude and half-light radius", svg, words)
    if svg := diagrams.counts_picture(sources, image, expectation):
        yield Picture("counts", "Number counts", svg, _counts_words(image, expectation))
    if stars := focal.stars_picture(ccds):
        svg, worst, n_stars = stars
        words = f"Median of {n_stars:,} stars; the largest residual is {100 * worst:.1f} % of the peak."
        yield Picture("stamps", "Stars and model", svg, words)
    if ccds:
        words = "1 / variance of the sky times the share of usable pixels; dark: not used."
        yield Picture("weight", "Weight", focal.weight_picture(ccds, layout), words)
    if any(ccd.sky is not None for ccd in ccds):
        words = "Level on the mesh from which it is subtracted."
        yield Picture("sky", "Sky background", focal.level_picture(ccds, layout), words)
        offset = " and an offset per CCD are" if len(ccds) > 1 else " is"
        words = f"One plane{' for the whole image' if len(ccds) > 1 else ''}{offset} taken off: stray light and haloes stay."
        yield Picture("deviation", "Sky less a plane", focal.deviation_picture(ccds, layout), words)
    if len(rows) > 1:
        yield from _of_ccds(ccds, layout, rows)
    elif svg := diagrams.levels_picture(ccds):
        yield Picture("levels", "Levels of the sky", svg, "In the boxes of the mesh.")


def _of_ccds(ccds: Sequence[CcdPictures], layout: Layout, rows: Sequence[Row]) -> Iterator[Picture]:
    def known(name: str) -> bool:
        return any(isfinite(number(row, name)) for row in rows)

    for names in TILES:
        if name := next(filter(known, names), ""):
            svg = focal.tiles_picture(ccds, layout, rows, name, outlying(rows, name))
            yield Picture(f"tiles-{name}", f"{LABELS[name]} per CCD", svg, about(name))
    for name in filter(known, BARS):
        svg = diagrams.bars_picture(rows, name, outlying(rows, name))
        yield Picture(f"bars-{name}", f"{LABELS[name]}, CCD by CCD", svg, about(name))


def _counts_words(image: Row, expectation: Expectation | None) -> str:
    words = []
    for kind in ("stars", "galaxies"):
        ratio = number(image, f"counts_ratio_{kind}")
        if isfinite(ratio):
            words.append(f"{kind}: {ratio:.2f} times what is expected")
    expected = " Thin lines: expected." if expectation is not None else ""
    return ("; ".join(words).capitalize() + "." if words else "By magnitude.") + expected
