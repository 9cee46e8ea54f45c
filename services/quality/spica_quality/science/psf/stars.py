"""Which sources the model of the point spread function may rest on.

Candidates are bright, of the stars' size and shape where they are on the frame, alone, and whole. Those that the
model then does not fit (doubles, compact galaxies, hit by cosmic rays) are left out in fitting it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from spica_imaging.stats import SIGMA_PER_MAD, median, median_sigma, mode

from spica_quality.science._jit import jit
from spica_quality.science.flags import Flags
from spica_quality.science.photometry.shapes import AdaptiveMoments
from spica_quality.science.psf.basis import vandermonde
from spica_quality.science.psf.stamps import Stamps

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]

LEAST_STARS = 3
"""Fewer cannot tell what they have in common."""

MIN_STAR_SIGMA_PX = 0.50
"""No optics with pixels that sample it at all makes stars narrower (FWHM 1.2 px); hot pixels are."""

_NEAR = 0.15
"""Of ln sigma: how far from the most frequent size stars are looked for at first."""
_SIZE_SIGMA, _SHAPE_SIGMA = 3.0, 4.0
_MOST_SNR = 300.0
_ERROR_SCALE = 1.5
"""Sizes scatter by so much more than the sky's noise says: photons, neighbours, background."""
_LEAST_SCATTER = 0.015
"""Of ln sigma and of shapes: what polynomials do not follow, and no noise."""
_LEAKS = (5e-3, 2e-2, 1e-1)
"""Light of a neighbour at the star's centre, over the star's own. The first one that leaves enough stars counts."""
_MOFFAT = 4.0 * (2.0 ** (1.0 / 2.5) - 1.0)
_ENOUGH = 30
_CELLS = 4


def on_locus(moments: AdaptiveMoments, usable: Mask, shape: tuple[int, int], least_snr: float = 20.0) -> Mask:
    """Sources of the stars' size and shape, both as smooth functions of the position.

    Among the brightest usable sources the most frequent size is that of stars, as galaxies differ from each other.
    From there on size and shape are clipped about polynomials of the position (of degree 0 to 2 by number)
    fitted to those kept, so that a point spread function that changes over the field does not lose its
    corners. How much stars scatter is read off their small side, where no galaxies are; only bright ones say where
    the locus lies, fainter ones are admitted by their errors. No limit on the ellipticity itself: in a
    trailed exposure the stars are the elongated ones.

    Args:
        moments: adaptive moments of all sources, arrays of shape (n,).
        usable: sources that may be taken at all.
        shape: (ny, nx) of the frame.
        least_snr: signal-to-noise ratio from which a source may count.

    Returns:
        Mask of shape (n,).

    """
    sigma = moments.sigma
    with np.errstate(invalid="ignore", divide="ignore"):
        candidate = usable & (moments.snr >= least_snr) & (sigma > MIN_STAR_SIGMA_PX) & np.isfinite(sigma)
        size = np.log(sigma)
        total = moments.xx + moments.yy
        shapes = ((moments.xx - moments.yy) / total, 2.0 * moments.xy / total)
    n = int(np.count_nonzero(candidate))
    if n < LEAST_STARS:
        return np.asarray(candidate)
    u, v = 2.0 * moments.x / shape[1] - 1.0, 2.0 * moments.y / shape[0] - 1.0
    error = _ERROR_SCALE / (np.sqrt(2.0) * np.maximum(moments.snr, 1.0))
    guides = np.zeros(candidate.shape, np.bool_)
    most = int(np.clip(n // 3, 60, 400))
    guides[np.argsort(np.where(candidate, -moments.snr, np.inf), kind="stable")[:most]] = True
    guides &= candidate
    chosen = guides & (np.abs(size - mode(size[guides])) < _NEAR)
    kept = chosen
    for _ in range(6):
        kept = candidate & _close(size, error, u, v, chosen, _SIZE_SIGMA, from_below=True)
        for component in shapes:
            kept &= _close(component, np.sqrt(2.0) * error, u, v, chosen, _SHAPE_SIGMA)
        again = kept & guides
        if np.array_equal(again, chosen) or np.count_nonzero(again) < LEAST_STARS:
            break
        chosen = again
    return np.asarray(kept if np.count_nonzero(kept) >= LEAST_STARS else chosen)


def _close(
    values: Floats,
    error: Floats,
    u: Floats,
    v: Floats,
    chosen: Mask,
    limit: float,
    *,
    from_below: bool = False,
) -> Mask:
    """Which values lie within their error and the scatter of the chosen ones about a polynomial through these."""
    n = int(np.count_nonzero(chosen))
    terms = vandermonde(sum(n >= least for least in (12, 40)), u, v)
    trust = 1.0 / np.hypot(error[chosen], 0.02)
    weight, centre = trust, median(values[chosen])
    # Robust by weights: what lies far off is believed less (Huber).
    for _ in range(3):
        coefficients, *_ = np.linalg.lstsq(
            terms[chosen] * weight[:, None], (values[chosen] - centre) * weight, rcond=None
        )
        left = values - centre - terms @ coefficients
        _, scatter = median_sigma(left[chosen])
        weight = trust / np.sqrt(np.maximum(np.abs(left[chosen]) / max(scatter, _LEAST_SCATTER), 1.0))
    if from_below:
        low = left[chosen & (left < 0.0)]
        scatter = SIGMA_PER_MAD * median(-low) if low.size >= 3 else scatter
    with np.errstate(invalid="ignore"):
        return np.asarray(np.abs(left) < limit * np.hypot(max(scatter, _LEAST_SCATTER), error))


def telling(snr: Floats, chosen: Mask, share: float = 0.998, least: int = 150) -> Mask:
    """The brightest of the chosen that hold nearly all that there is to know: fainter ones add doubt, not knowledge.

    What a star tells goes with the square of its signal-to-noise ratio, up to where the model's own accuracy limits it.
    """
    indices = np.flatnonzero(chosen)
    order = indices[np.argsort(-snr[indices], kind="stable")]
    told = np.cumsum(np.minimum(snr[order], _MOST_SNR) ** 2)
    needed = int(np.searchsorted(told, share * told[-1])) + 1 if order.size else 0
    kept = np.zeros(chosen.shape, np.bool_)
    kept[order[: max(needed, least)]] = True
    return kept


def isolated(x: Floats, y: Floats, flux: Floats, candidates: Mask, fwhm_px: float) -> Mask:
    """Candidates without a neighbour that shines into them.

    The neighbour's light at the star's centre is that of a Moffat profile of exponent 2.5. In crowded fields the
    limit is loosened until 30 stars are left.

    Args:
        x: positions of all sources, px, shape (n,).
        y: the same along y.
        flux: their fluxes; not finite or negative: taken as none.
        candidates: those that are asked about.
        fwhm_px: width of stars.

    """
    asked = np.flatnonzero(candidates)
    if asked.size == 0:
        return candidates.copy()
    everything = np.stack([x, y], axis=1)
    sound = np.flatnonzero(np.isfinite(everything).all(axis=1) & (flux > 0))
    near = cKDTree(everything[asked]).sparse_distance_matrix(
        cKDTree(everything[sound]), 5.0 * fwhm_px, output_type="ndarray"
    )
    star, other, distance = asked[near["i"]], sound[near["j"]], near["v"]
    with np.errstate(invalid="ignore", divide="ignore"):
        leak = flux[other] / flux[star] * (1.0 + _MOFFAT * (distance / fwhm_px) ** 2) ** -2.5
    leak[star == other] = 0.0
    worst = np.zeros(len(x))
    np.maximum.at(worst, star, np.nan_to_num(leak, nan=np.inf))
    for limit in _LEAKS:
        alone = candidates & (worst < limit)
        if np.count_nonzero(alone) >= _ENOUGH:
            break
    return np.asarray(alone)


@jit
def _clean(flags: Flags, x: Floats, y: Floats, radius: float, asked: Mask, result: Mask) -> None:
    ny, nx = flags.shape
    for s in range(x.size):
        result[s] = False
        if not (asked[s] and np.isfinite(x[s]) and np.isfinite(y[s])):
            continue
        y_lo, y_hi = int(np.ceil(y[s] - radius)), int(np.floor(y[s] + radius))
        x_lo, x_hi = int(np.ceil(x[s] - radius)), int(np.floor(x[s] + radius))
        if y_lo < 0 or x_lo < 0 or y_hi >= ny or x_hi >= nx:
            continue
        fine = True
        for j in range(y_lo, y_hi + 1):
            for i in range(x_lo, x_hi + 1):
                if flags[j, i] != 0 and (i - x[s]) ** 2 + (j - y[s]) ** 2 <= radius * radius:
                    fine = False
        result[s] = fine


def core_clean(flags: Flags, x: Floats, y: Floats, radius_px: float, asked: Mask) -> Mask:
    """Sources, among those asked about, without a flagged pixel within `radius_px` and not cut by the edge."""
    result = np.zeros(len(x), np.bool_)
    _clean(flags, x, y, radius_px, asked, result)
    return result


def strongest(x: Floats, y: Floats, snr: Floats, chosen: Mask, most: int, shape: tuple[int, int]) -> Mask:
    """At most so many, spread over the frame: the best of each of 16 cells, then the second best, and so on."""
    indices = np.flatnonzero(chosen)
    if indices.size <= most:
        return chosen
    cell = np.clip((x[indices] * _CELLS / shape[1]).astype(np.intp), 0, _CELLS - 1) * _CELLS
    cell += np.clip((y[indices] * _CELLS / shape[0]).astype(np.intp), 0, _CELLS - 1)
    order = np.lexsort((-snr[indices], cell))
    first = np.searchsorted(cell[order], np.arange(_CELLS * _CELLS))
    rank = np.empty(indices.size, np.intp)
    rank[order] = np.arange(indices.size) - first[cell[order]]
    kept = np.zeros(len(x), np.bool_)
    kept[indices[np.lexsort((-snr[indices], rank))[:most]]] = True
    return kept


def whole(stamps: Stamps, core_px: float, least_share: float = 0.6) -> Mask:
    """Stamps whose core is usable to the last pixel, and most of the rest too; shape (n,)."""
    k = stamps.size
    axis = np.arange(k) - k // 2
    core = np.hypot(axis[:, None], axis[None, :]) <= core_px
    return np.asarray(stamps.usable[:, core].all(axis=1) & (stamps.usable.mean(axis=(1, 2)) >= least_share))
