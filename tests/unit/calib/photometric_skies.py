"""Made-up photometry: stars, exposures and CCDs of which everything is known."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from spica_calib.science.photometry.problem import PhotometricDetections, PhotometricExposure

Floats = NDArray[np.float64]
CONTEXT = "r.MP9601|12A"
# Median errors of Gaia DR3, in G and in BP - RP.
_GAIA_AT, _GAIA_G, _GAIA_COLOUR = (13.0, 17.0, 20.0), (0.0002, 0.001, 0.006), (0.001, 0.013, 0.12)


@dataclass(frozen=True)
class Truth:
    """What the solver is to find."""

    exposures: list[PhotometricExposure]
    detections: PhotometricDetections
    zero: Floats
    illumination: Floats
    colour_term: float


def make(
    n_exposures: int = 5,
    n_ccds: int = 9,
    per_ccd: int = 150,
    *,
    flat: float = 0.01,
    colour_term: float = 0.08,
    outliers: float = 0.01,
    floor: float = 0.0005,
    with_reference: bool = True,
    clouds: dict[int, float] | None = None,
    blocks: int = 1,
    seed: int = 1,
) -> Truth:
    """Every star is on every exposure of its block, a third of the time on another CCD.

    `flat`: illumination per CCD; `floor`: what photon noise does not explain; `clouds`: magnitudes per exposure;
    `blocks`: parts of the sky that do not overlap.
    """
    rng = np.random.default_rng(seed)
    n_stars = n_ccds * per_ccd * blocks
    mag, tone = rng.uniform(15.5, 20.0, n_stars), rng.uniform(0.0, 2.0, n_stars)
    zero = 26.0 + 0.05 * rng.standard_normal(n_exposures)
    for number, absorbed in (clouds or {}).items():
        zero[number] -= absorbed
    block = np.arange(n_stars) % blocks
    star, exposure = (
        part.astype(np.int32)
        for part in np.nonzero(block[:, None] == (np.arange(n_exposures) % blocks)[None, :])
    )
    home = rng.integers(0, n_ccds, n_stars)
    ccd = np.where(rng.random(len(star)) < 0.3, rng.integers(0, n_ccds, len(star)), home[star])
    illumination = flat * rng.standard_normal(n_ccds)
    illumination -= illumination[ccd].mean()
    natural = mag - colour_term * tone
    counts = 120.0 * 10 ** (0.4 * (26.0 - natural[star]))
    error = 1.0857 * np.sqrt(1.6 * counts + 1e5) / 1.6 / counts
    measured = natural[star] - zero[exposure] - illumination[ccd]
    measured += np.hypot(error, floor) * rng.standard_normal(len(star))
    spoiled = rng.random(len(star)) < outliers
    measured[spoiled] += rng.normal(0.0, 0.5, int(spoiled.sum()))
    g_error = np.exp(np.interp(mag, _GAIA_AT, np.log(_GAIA_G)))
    tone_error = np.exp(np.interp(mag, _GAIA_AT, np.log(_GAIA_COLOUR)))
    reference = np.where(
        with_reference & (tone_error < 0.1), mag + g_error * rng.standard_normal(n_stars), np.nan
    )
    seen = tone + tone_error * rng.standard_normal(n_stars)
    detections = PhotometricDetections(
        exposure,
        ccd.astype(np.int32),
        star,
        measured,
        error,
        reference[star],
        np.hypot(g_error, 0.08 * tone_error)[star],
        np.where(np.isfinite(reference), seen, np.nan)[star],
    )
    exposures = [
        PhotometricExposure(
            f"e{number}", CONTEXT, 120.0, ccds=tuple(f"ccd{i:02d}" for i in range(n_ccds)), filter="r.MP9601"
        )
        for number in range(n_exposures)
    ]
    return Truth(exposures, detections, zero, illumination, colour_term)


def told(truth: Truth, number: int, **changes: object) -> Truth:
    """The same, with more told about one exposure."""
    exposures = list(truth.exposures)
    exposures[number] = replace(exposures[number], **changes)  # type: ignore[arg-type]
    return replace(truth, exposures=exposures)
