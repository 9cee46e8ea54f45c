"""The hot loop of matching: counting, for many rotations and scales at once, which shift agrees best."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from spica_calib.science._jit import exact

Floats = NDArray[np.float64]


# No fastmath: the twin in the tests agrees exactly.
@exact
def vote_shifts(
    image_x: Floats,
    image_y: Floats,
    star_x: Floats,
    star_y: Floats,
    turn_cos: Floats,
    turn_sin: Floats,
    radius: float,
    cell: float,
) -> tuple[NDArray[np.int32], Floats, Floats]:
    """For each turn, the shift onto which most (image, star) pairs agree.

    Image points, shape (n,), are turned and scaled by (cos, sin) times scale, shape (k,); every star,
    shape (m,), within `radius` per axis votes for the shift that brings it onto the star. Cells have
    width `cell` and overlap by half, so that no peak is split. Returns votes, shift_x, shift_y, shape (k,).
    """
    n_turns = len(turn_cos)
    stride = cell / 2.0
    n_cells = int(np.ceil(2.0 * radius / stride)) + 2
    counts = np.zeros((n_cells, n_cells), dtype=np.int32)
    best = np.zeros(n_turns, dtype=np.int32)
    best_x = np.zeros(n_turns)
    best_y = np.zeros(n_turns)
    # Few cells are touched in a turn: clearing those only is what makes wide searches fast.
    touched = np.empty((len(image_x) * len(star_x), 2), dtype=np.int32)
    n_touched = 0
    for turn in range(n_turns):
        for k in range(n_touched):
            i, j = touched[k, 0], touched[k, 1]
            counts[i, j] = 0
            counts[i - 1, j] = 0
            counts[i, j - 1] = 0
            counts[i - 1, j - 1] = 0
        n_touched = 0
        top, top_i, top_j = 0, 0, 0
        for k in range(len(image_x)):
            x = turn_cos[turn] * image_x[k] - turn_sin[turn] * image_y[k]
            y = turn_sin[turn] * image_x[k] + turn_cos[turn] * image_y[k]
            for m in range(len(star_x)):
                dx = star_x[m] - x
                dy = star_y[m] - y
                if dx < -radius or dx >= radius or dy < -radius or dy >= radius:
                    continue
                i = int((dx + radius) / stride) + 1
                j = int((dy + radius) / stride) + 1
                touched[n_touched, 0] = i
                touched[n_touched, 1] = j
                n_touched += 1
                for a in range(i - 1, i + 1):
                    for b in range(j - 1, j + 1):
                        counts[a, b] += 1
                        if counts[a, b] > top:
                            top, top_i, top_j = counts[a, b], a, b
        best[turn] = top
        best_x[turn] = top_i * stride - radius
        best_y[turn] = top_j * stride - radius
    return best, best_x, best_y
