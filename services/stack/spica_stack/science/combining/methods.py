"""Combining layers pixel by pixel: the one entrance to all methods.

| method | value | weight (1 / variance of the value), w = 1 / variance of a sample, p its priority |
|---|---|---|
| weighted_mean | Σ p w v / Σ p w | (Σ p w)² / Σ p² w |
| clipped_mean, sigma_clip | the same, without outliers | the same (see `clipped`, `sigma_clip`) |
| average | Σ v / n | n² / Σ (1/w) |
| sum | Σ v | 1 / Σ (1/w) |
| median | median | (2/π) (1 + c/n) (Σ √w)² / n; n² / Σ (1/w) for n ≤ 2 (see `median`) |
| weighted_median | weighted median, u = p √w | (2/π) (1 + c/n_e) (Σ p w)² / Σ p² w (see `weighted_median`) |
| minimum, maximum | the extreme sample | w of that sample: its own noise, not that of the extreme, which is biased |
| chi2 | centred χ | 1: the value is in units of its own noise on blank sky |

`chi2` is for finding sources, in one band or across several: χ² = Σ w v² (Szalay, Connolly & Szokoly 1999, AJ 117,
68), whose root, less its mean μ_n on blank sky, is divided by its spread there: (√χ² - μ_n) / √(n - μ_n²) with
μ_n = √2 Γ((n+1)/2) / Γ(n/2). So mean 0 and variance 1 hold on blank sky however many exposures cover it. It is what
SWarp calls CHI-MEAN.

n counts the exposures that went into the pixel, for an extreme all that were compared.
"""

from __future__ import annotations

from functools import cache
from math import exp, lgamma, sqrt
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from spica_stack.science.combining.clipped import clipped_mean, panel_px
from spica_stack.science.combining.linear import chi, extreme, plain_sum, weighted_mean
from spica_stack.science.combining.median import median
from spica_stack.science.combining.networks import networks
from spica_stack.science.combining.outliers import Found, Limits
from spica_stack.science.combining.result import Combined, Counts, Image, Layers, Rejected
from spica_stack.science.combining.rows import Stack
from spica_stack.science.combining.sigma_clip import sigma_clip
from spica_stack.science.combining.weighted_median import weighted_median
from spica_stack.science.parameters import Clipping, Method

FIRST_ROOM = 4096
"""Rejected samples there is room for at first. If there are more, the same is done again with room for all."""


class _Planes(NamedTuple):
    """What is filled by kernels."""

    value: Image
    weight: Image
    exposures: Counts


def halo_px(method: Method, clipping: Clipping) -> int:
    """Pixels around a tile that its result depends on."""
    return clipping.halo_px if method == "clipped_mean" else 0


def combine(
    value: Layers,
    weight: Layers,
    method: Method,
    *,
    halo: int = 0,
    share: NDArray[np.float32] | None = None,
    priority: NDArray[np.float32] | None = None,
    clipping: Clipping | None = None,
    want_rejected: bool = False,
) -> Combined:
    """Combine layers pixel by pixel, on the calling thread (other Python threads run meanwhile).

    * value, weight: float32, shape (n, height + 2 halo, width + 2 halo): samples and their
      1 / variance. Samples with weight 0, and values that are not finite, do not count. They may be
      views of rows and columns of larger arrays; nothing is copied as long as columns stand side by side and
      the arrays are not read-only (kernels only read them).
    * halo: pixels around the tile that are given for its neighbourhood's sake and not returned.
    * share: per layer, share of the local flux by which it may differ; default `clipping.flux_share`.
    * priority: per layer, factor on its weight in a mean (not negative), as for better seeing; default 1. The methods
      without weights (average, sum, median, minimum, maximum, chi2) know no priority, but a layer
      of priority 0 counts in none.
    * want_rejected: list the samples left out as outliers.

    The result does not depend on how the image is cut into tiles, to the bit, if `halo` is at least
    `halo_px(method, clipping)` (or the edge of the image is reached).
    """
    clipping = clipping or Clipping()
    n, full_height, full_width = value.shape
    priority = np.ones(n, np.float32) if priority is None else np.asarray(priority, np.float32)
    share = np.full(n, clipping.flux_share, np.float32) if share is None else np.asarray(share, np.float32)
    shape = (full_height - 2 * halo, full_width - 2 * halo)
    planes = _Planes(
        np.full(shape, np.nan, np.float32), np.zeros(shape, np.float32), np.zeros(shape, np.int16)
    )
    layers = np.flatnonzero(priority > 0).astype(np.int32)
    if not len(layers) or not planes.value.size:
        return Combined(*planes, 0, Rejected.none() if want_rejected else None)
    stack = _flat(value, weight, layers)
    if method in ("clipped_mean", "sigma_clip"):
        limits = Limits(
            share, np.float32(clipping.n_sigma**2), np.float32(clipping.n_sigma_grown**2), clipping.radius_px
        )
        n_rejected, rejected = _without_outliers(
            stack, method, limits, priority, (full_height, full_width), halo, planes, want_rejected
        )
        return Combined(*planes, n_rejected, rejected)
    _with_all(stack, method, priority, halo, planes)
    return Combined(*planes, 0, Rejected.none() if want_rejected else None)


def _with_all(
    stack: Stack, method: Method, priority: NDArray[np.float32], halo: int, planes: _Planes
) -> None:
    """The methods that leave nothing out."""
    n = len(stack.layers)
    if method == "weighted_mean":
        weighted_mean(stack, priority, halo, halo, *planes)
    elif method in ("average", "sum"):
        plain_sum(stack, method == "average", halo, halo, *planes)
    elif method == "median":
        median(stack, networks(n, "middle"), halo, halo, *planes)
        _unsign_zeros(planes.value)
    elif method == "weighted_median":
        weighted_median(stack, networks(n, "all"), priority, halo, halo, *planes)
        _unsign_zeros(planes.value)
    elif method in ("minimum", "maximum"):
        extreme(stack, np.float32(1 if method == "maximum" else -1), halo, halo, *planes)
    elif method == "chi2":
        mean, scale = _of_blank_sky(n)
        chi(stack, mean, scale, halo, halo, *planes)
    else:
        raise ValueError(f"unknown method {method}")


def _unsign_zeros(value: Image) -> None:
    """Zeros of either sign are equal to a sorting network: which one comes out must not tell how the image was cut."""
    np.add(value, np.float32(0.0), out=value)


@cache
def _of_blank_sky(n: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Mean, and 1 / spread, of the χ of 0 to n samples of noise."""
    mean = [sqrt(2.0) * exp(lgamma((k + 1) / 2) - lgamma(k / 2)) if k else 0.0 for k in range(n + 1)]
    scale = [1 / sqrt(k - m**2) if k else 0.0 for k, m in enumerate(mean)]
    return np.array(mean, np.float32), np.array(scale, np.float32)


def _flat(value: Layers, weight: Layers, layers: NDArray[np.int32]) -> Stack:
    """Layers as kernels take them, without copying pixels where that can be."""
    (values, v_layer, v_row), (weights, w_layer, w_row) = _line(value), _line(weight)
    return Stack(values, weights, v_layer, v_row, w_layer, w_row, layers)


def _line(layers: Layers) -> tuple[NDArray[np.float32], int, int]:
    """From the first sample to the last, in one line, with the steps from layer to layer and from row to row."""
    item = layers.itemsize
    as_it_is = layers.dtype == np.float32 and layers.strides[2] == item and min(layers.strides) >= 0
    # For arrays that may only be read, kernels would have to be compiled once more.
    if not (as_it_is and layers.flags.writeable):
        layers = np.array(layers, np.float32, order="C")
        item = layers.itemsize
    n, height, width = layers.shape
    by_layer, by_row = layers.strides[0] // item, layers.strides[1] // item
    length = (n - 1) * by_layer + (height - 1) * by_row + width
    return np.lib.stride_tricks.as_strided(layers, (length,), (item,)), by_layer, by_row


def _without_outliers(
    stack: Stack,
    method: Method,
    limits: Limits,
    priority: NDArray[np.float32],
    shape: tuple[int, int],
    halo: int,
    planes: _Planes,
    want_rejected: bool,
) -> tuple[int, Rejected | None]:
    """A mean without outliers into the planes; the number of samples left out and, if wanted, which."""
    nets = networks(len(stack.layers), "lower")
    room = FIRST_ROOM if want_rejected else 0
    while True:
        found = Found(
            np.empty(room, np.int32),
            np.empty(room, np.int32),
            np.empty(room, np.int16),
            np.empty(room, np.float32),
        )
        if method == "clipped_mean":
            panel = panel_px(len(stack.layers), limits.radius)
            n = clipped_mean(stack, nets, limits, priority, shape, panel, halo, halo, *planes, found)
        else:
            n = sigma_clip(stack, nets, limits.far, priority, halo, halo, *planes, found)
        if n <= room or not want_rejected:
            break
        room = n
    if not want_rejected:
        return n, None
    # Panels come one after the other; within each the order is that of rows, columns and layers.
    order = np.lexsort((found.layer[:n], found.x[:n], found.y[:n]))
    return n, Rejected(
        found.x[order] - np.int32(halo),
        found.y[order] - np.int32(halo),
        found.layer[order],
        found.n_sigma[order],
    )
