"""The slow twin of comparing instrument models: plain loops and normal equations."""

from __future__ import annotations

import numpy as np
from spica_calib.science.astrometry.problem import CcdPlane, InstrumentModel

PER_AXIS = 7


def place(ccd: CcdPlane, x: float, y: float) -> tuple[float, float]:
    """Where a pixel lies in the focal plane, term by term."""
    u, v = (x - ccd.centre_px[0]) / ccd.half_px, (y - ccd.centre_px[1]) / ccd.half_px
    xi = eta = 0.0
    at = 0
    for total in range(ccd.degree + 1):
        for power in range(total + 1):
            value = u ** (total - power) * v**power
            xi += value * ccd.coefficients[at, 0]
            eta += value * ccd.coefficients[at, 1]
            at += 1
    return xi, eta


def apart_mas(first: InstrumentModel, second: InstrumentModel) -> float:
    """Largest distance over all CCDs once the best affine map is taken out."""
    a, b = [], []
    for name, ccd in first.ccds.items():
        for x in np.linspace(0.5, 2 * ccd.centre_px[0] - 0.5, PER_AXIS):
            for y in np.linspace(0.5, 2 * ccd.centre_px[1] - 0.5, PER_AXIS):
                a.append(place(ccd, x, y))
                b.append((1.0, *place(second.ccds[name], x, y)))
    left, right = np.zeros((3, 3)), np.zeros((3, 2))
    for one, other in zip(a, b, strict=True):
        for i in range(3):
            for j in range(3):
                left[i, j] += other[i] * other[j]
            for j in range(2):
                right[i, j] += other[i] * one[j]
    affine = np.linalg.solve(left, right)
    worst = 0.0
    for one, other in zip(a, b, strict=True):
        moved = [sum(other[i] * affine[i, j] for i in range(3)) for j in range(2)]
        worst = max(worst, float(np.hypot(moved[0] - one[0], moved[1] - one[1])))
    return 1000.0 * worst
