"""How far solved positions are from where the stars truly are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from spica_imaging.head import read_head
from spica_imaging.stats import SIGMA_PER_MAD
from spica_imaging.wcs import TpvWcs

from tests.support.skycat import Survey, bright_stars

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Worth:
    """Distances from the truth of one solution, mas."""

    n: int
    median: float
    p68: float
    p95: float
    offset: tuple[float, float]
    """Median along RA*cos(Dec) and Dec."""
    sigma: tuple[float, float]
    """Robust standard deviation about it."""

    @classmethod
    def of(cls, deviation: Floats) -> Worth:
        """Deviations, shape (2, n)."""
        median, p68, p95 = np.percentile(np.hypot(*deviation), [50, 68, 95])
        offset = np.median(deviation, axis=1)
        sigma = SIGMA_PER_MAD * np.median(np.abs(deviation - offset[:, None]), axis=1)
        return cls(
            deviation.shape[1],
            float(median),
            float(p68),
            float(p95),
            (float(offset[0]), float(offset[1])),
            (float(sigma[0]), float(sigma[1])),
        )

    def __str__(self) -> str:
        return (
            f"{self.median:7.2f} {self.p68:7.2f} {self.p95:8.2f}   σ {self.sigma[0]:6.2f} {self.sigma[1]:6.2f}"
            f"   offset {self.offset[0]:+6.2f} {self.offset[1]:+6.2f}"
        )


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a set of `.head` files is worth."""

    measured: Worth
    """Of the positions that were measured: what a user of the catalogue gets."""
    mapped: Worth
    """Of the true pixels of the same stars: the map alone, without the noise of the measurement."""
    internal_mas: tuple[float, float]
    """As the program itself tells it."""
    external_mas: tuple[float, float]


def read_heads(survey: Survey, folder: Path) -> list[list[TpvWcs]]:
    """Solved WCS of all exposures."""
    return [
        [TpvWcs.from_header(header) for header in read_head(folder / f"{exposure.name}.head")]
        for exposure in survey.exposures
    ]


def scamp_rms(survey: Survey, folder: Path) -> tuple[tuple[float, float], tuple[float, float]]:
    """Internal and external residual per axis that SCAMP tells of these exposures, mas."""
    firsts = [read_head(folder / f"{exposure.name}.head")[0] for exposure in survey.exposures]

    def told(stem: str) -> tuple[float, float]:
        return tuple(
            3.6e6 * float(np.median([header[f"{stem}{axis}"] for header in firsts])) for axis in (1, 2)
        )  # type: ignore[return-value]

    return told("ASTIRMS"), told("ASTRRMS")


def deviations(
    survey: Survey, solved: Sequence[Sequence[TpvWcs]], snr: float = 50.0
) -> tuple[Floats, Floats]:
    """Solved minus true positions of bright stars along RA*cos(Dec) and Dec, shape (2, n), mas: measured; mapped."""
    found: tuple[list[Floats], list[Floats]] = [], []
    for exposure, ccds in zip(survey.exposures, solved, strict=True):
        for wcs, truth, columns in zip(ccds, exposure.truth, exposure.columns, strict=True):
            k = bright_stars(truth, columns, snr)
            pixels = (columns["XWIN_IMAGE"][k], columns["YWIN_IMAGE"][k]), (truth.x[k], truth.y[k])
            for place, parts in zip(pixels, found, strict=True):
                ra, dec = wcs.pixel_to_sky(*place)
                east = (np.mod(ra - truth.ra_deg[k] + 180.0, 360.0) - 180.0) * np.cos(np.radians(dec))
                parts.append(3.6e6 * np.array([east, dec - truth.dec_deg[k]]))
    return np.concatenate(found[0], axis=1), np.concatenate(found[1], axis=1)


def judge(
    survey: Survey, folder: Path, internal_mas: tuple[float, float], external_mas: tuple[float, float]
) -> Verdict:
    """Compare the `.head` files of a folder with the truth."""
    measured, mapped = deviations(survey, read_heads(survey, folder))
    return Verdict(Worth.of(measured), Worth.of(mapped), internal_mas, external_mas)
