"""From the figures of single CCDs to those of the image."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import nan

from spica_imaging.stats import finite, median, weighted_median

from spica_quality.science.metrics.figures import (
    FIGURES,
    Combine,
    Figure,
    Figures,
    Row,
    Value,
    image_row,
    number,
)

WITHOUT_SIGNAL = ("blank", "dead")
"""Conditions of CCDs on which there is nothing to measure."""

_FIRM_STARS = 3
"""CCDs with so many stars or fewer say little of the spread over the field."""


def summarise(rows: Sequence[Row], of_image: Row | None = None) -> Figures:
    """The figures of an image: those of its CCDs, each combined as the table says, and the image's own.

    Args:
        rows: figures of all CCDs, blank ones too; a figure that is None or missing does not take part.
        of_image: what was measured on the image as a whole (condition, counts, gradient over the focal
            plane, CCDs missing, ...); it wins over what follows from the rows.

    Returns:
        All names of `figures.IMAGE_NAMES`, in that order.

    """
    values: dict[str, Value] = {}
    for figure in FIGURES.values():
        values |= _combined(figure, rows)
    values |= _of_field(rows)
    if len(rows) == 1:  # what one CCD shows is what the image shows
        values |= {name: rows[0].get(name) for name in _OF_ONE_CCD}
    return image_row(values | dict(of_image or {}))


_OF_ONE_CCD = (
    "background_gradient_adu",
    "background_gradient_angle_deg",
    "background_residual_adu",
)


def _combined(figure: Figure, rows: Sequence[Row]) -> dict[str, Value]:
    """The figure of the image under its own name, and its extremes where it has them."""
    values: dict[str, Value] = {}
    sample = [number(row, figure.name) for row in rows]
    match figure.combine:
        case Combine.SUM:
            values[figure.name] = int(finite(sample).sum()) if finite(sample).size else None
        case Combine.MEDIAN:
            values[figure.name] = median(sample)
        case Combine.STARS:
            values[figure.name] = weighted_median(sample, _weights(rows, "n_stars"))
        case Combine.BRIGHT:
            values[figure.name] = weighted_median(sample, _weights(rows, "n_star_like"))
        case Combine.REFERENCES:
            values[figure.name] = weighted_median(sample, _weights(rows, "n_reference"))
        case _:
            pass
    if figure.extremes:
        firm = _firm(rows) if figure.combine is Combine.STARS else rows
        known = finite([number(row, figure.name) for row in firm])
        low, mean, high = (known.min(), known.mean(), known.max()) if known.size else (None,) * 3
        whole = figure.style == "d"
        values[f"{figure.name}_min"] = int(low) if whole and low is not None else low
        values[f"{figure.name}_mean"] = mean
        values[f"{figure.name}_max"] = int(high) if whole and high is not None else high
    return values


def _weights(rows: Iterable[Row], name: str) -> list[float]:
    return [number(row, name) for row in rows]


def _firm(rows: Sequence[Row]) -> Sequence[Row]:
    """CCDs with enough stars; all of them where none has."""
    return [row for row in rows if number(row, "n_stars") > _FIRM_STARS] or rows


def _of_field(rows: Sequence[Row]) -> dict[str, Value]:
    """What only several CCDs together have."""
    widths = finite([number(row, "fwhm_px") for row in _firm(rows)])

    def share(name: str, of: str = "n_pixels") -> float:
        whole = finite([number(row, of) for row in rows]).sum()
        return float(finite([number(row, name) for row in rows]).sum() / whole) if whole else nan

    return {
        "n_ccds": len(rows),
        "n_ccds_blank": sum(row.get("condition") in WITHOUT_SIGNAL for row in rows),
        "n_ccds_half_dead": sum(row.get("condition") == "half_dead" for row in rows),
        "ccds_without_stars": sum(not number(row, "n_stars") > 0 for row in rows) / len(rows)
        if rows
        else None,
        "fwhm_spread": float(widths.max() - widths.min()) / median(widths) if widths.size else None,
        "usable_fraction": share("n_usable"),
        "saturated_fraction": share("n_saturated"),
        "star_share": share("n_star_like", "n_bright"),
    }
