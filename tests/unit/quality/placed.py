"""Sources whose pixels are given by a map of labels: what detection would hand over, without detection."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from spica_quality.science.background.sky import Sky
from spica_quality.science.detection.segments import Segments, Sources
from spica_quality.science.psf.basis import coefficients, n_terms, powers
from spica_quality.science.psf.model import PsfModel

from tests.support.ccdsim import PsfField

Labels = NDArray[np.int32]


def segments_of(labels: Labels) -> Segments:
    """Runs of a map of labels."""
    rows: list[int] = [0]
    x0: list[int] = []
    x1: list[int] = []
    label: list[int] = []
    for row in labels:
        edges = np.flatnonzero(np.diff(np.r_[0, row, 0]))
        for begin, end in pairwise(edges):
            if row[begin]:
                x0.append(int(begin))
                x1.append(int(end))
                label.append(int(row[begin]))
        rows.append(len(x0))
    ny, nx = labels.shape
    return Segments((ny, nx), *(np.array(values, np.int32) for values in (rows, x0, x1, label)))


def sources_of(data: NDArray[Any], labels: Labels, threshold: float = 0.0) -> Sources:
    """Isophotal moments of labels 1 to n, each with plain sums; pixels without a value count for nothing."""
    columns: list[tuple[float, ...]] = []
    ny, nx = labels.shape
    for label in range(1, int(labels.max(initial=0)) + 1):
        j, i = np.nonzero(labels == label)
        light = np.maximum(np.nan_to_num(data[j, i].astype(np.float64), posinf=0.0, neginf=0.0), 0.0)
        light = light if light.sum() > 0 else np.ones(len(j))
        x, y = np.average(i, weights=light), np.average(j, weights=light)
        best = int(np.argmax(light))
        edge = 8 * bool(i.min() == 0 or j.min() == 0 or i.max() == nx - 1 or j.max() == ny - 1)
        columns.append(
            (
                *(x, y, np.average((i - x) ** 2, weights=light), np.average((j - y) ** 2, weights=light)),
                *(np.average((i - x) * (j - y), weights=light), light.sum(), light.max(), i[best], j[best]),
                *(len(j), i.min(), i.max(), j.min(), j.max(), threshold, edge),
            )
        )
    table = np.array(columns, np.float64).reshape(-1, 16).T
    whole = [values.astype(np.int32) for values in table[7:14]]
    return Sources(*table[:7], *whole, table[14], table[15].astype(np.int16))


def isophotes_of(data: NDArray[Any], threshold: float, least: int = 3) -> tuple[Sources, Segments]:
    """Connected pixels above a threshold: detection in its simplest form."""
    labels, n = ndimage.label(data > threshold, structure=np.ones((3, 3)))
    areas = np.bincount(labels.ravel(), minlength=n + 1)
    kept = np.flatnonzero(areas >= least)
    number = np.zeros(n + 1, np.int32)
    number[kept[kept > 0]] = np.arange(1, np.count_nonzero(kept > 0) + 1)
    labels = number[labels]
    return sources_of(data, labels, threshold), segments_of(labels)


def flat_sky(shape: tuple[int, int], rms: float, level: float = 0.0) -> Sky:
    """The same level and noise everywhere."""
    mesh = np.full((4, 4), level, np.float32), np.full((4, 4), rms, np.float32)
    bends = np.zeros((4, 4)), np.zeros((4, 4))
    return Sky(*mesh, 128, shape, level, rms, *bends)


def true_psf(field: PsfField, shape: tuple[int, int], step: float = 0.5, reach: float = 12.0) -> PsfModel:
    """The simulator's own profile as a model of second degree, pixel's width included."""
    ny, nx = shape
    zero, scale, degree = (0.5 * nx, 0.5 * ny), (0.5 * nx, 0.5 * ny), 2
    m = 2 * int(reach / step) + 1
    places = [(u, v) for u in (-0.9, 0.0, 0.9) for v in (-0.9, 0.0, 0.9)]
    samples = np.array([_moffat(field, u, v, m, step) for u, v in places])
    terms = np.empty((len(places), n_terms(degree)))
    for row, (u, v) in zip(terms, places, strict=True):
        powers(degree, u, v, row)
    cube = np.linalg.lstsq(terms, samples.reshape(len(places), -1), rcond=None)[0].reshape(-1, m, m)
    return PsfModel(coefficients(cube.astype(np.float32)), degree, zero, scale, step, field.fwhm_px)


def _moffat(field: PsfField, u: float, v: float, m: int, step: float) -> NDArray[np.float64]:
    width, e1, e2 = (float(value) for value in field.at(np.float64(u), np.float64(v)))
    e = np.hypot(e1, e2)
    q, theta = (1.0 - e) / (1.0 + e), 0.5 * np.arctan2(e2, e1)
    a2 = (0.5 * width) ** 2 / (2.0 ** (1.0 / field.beta) - 1.0)
    nodes, weights = np.polynomial.legendre.leggauss(3)
    axis = (np.arange(m) - m // 2) * step
    y, x = axis[:, None], axis[None, :]
    total = np.zeros((m, m))
    for wy, dy in zip(weights, 0.5 * nodes, strict=True):
        for wx, dx in zip(weights, 0.5 * nodes, strict=True):
            along = np.cos(theta) * (x + dx) + np.sin(theta) * (y + dy)
            across = -np.sin(theta) * (x + dx) + np.cos(theta) * (y + dy)
            total += 0.25 * wx * wy * (1.0 + (q * along**2 + across**2 / q) / a2) ** -field.beta
    profile = (field.beta - 1.0) / (np.pi * a2) * total * step**2
    # The grid holds what is within its reach; sums to 1, as models do.
    return profile / profile.sum()
