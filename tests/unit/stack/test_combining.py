from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from math import gamma
from typing import get_args

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from spica_stack.science.combining import Combined, combine, halo_px, methods
from spica_stack.science.combining.networks import merge_exchange, networks, only_for, ranks_of
from spica_stack.science.parameters import Clipping, Method

Floats = NDArray[np.float64]

METHODS: tuple[Method, ...] = get_args(Method)
NEAR_EVEN, NEAR_ODD = 1.25, 0.48


class Pixel:
    """The samples of one pixel and what each method makes of them: plain loops, double precision."""

    def __init__(self, value: list[float], weight: list[float], priority: list[float]) -> None:
        self.v, self.w, self.p = value, weight, priority
        self.n = len(value)

    def weighted_mean(self) -> tuple[float, float]:
        u = [p * w for p, w in zip(self.p, self.w, strict=True)]
        mean = sum(a * v for a, v in zip(u, self.v, strict=True)) / sum(u)
        return mean, sum(u) ** 2 / sum(a * a / w for a, w in zip(u, self.w, strict=True))

    def average(self) -> tuple[float, float]:
        return sum(self.v) / self.n, self.n**2 / sum(1 / w for w in self.w)

    def sum(self) -> tuple[float, float]:
        return sum(self.v), 1 / sum(1 / w for w in self.w)

    def median(self) -> tuple[float, float]:
        middle = float(np.median(self.v))
        if self.n <= 2:
            return middle, self.average()[1]
        extra = NEAR_ODD if self.n % 2 else NEAR_EVEN
        roots = sum(w**0.5 for w in self.w)
        return middle, 2 / np.pi * (1 + extra / self.n) * roots**2 / self.n

    def weighted_median(self) -> tuple[float, float]:
        u = [p * w**0.5 for p, w in zip(self.p, self.w, strict=True)]
        if self.n <= 2:
            weight = sum(u) ** 2 / sum(p * p for p in self.p)
        else:
            alike = sum(u) ** 2 / sum(a * a for a in u)
            unlike = max(self.n / alike - 1, 0)
            parity = NEAR_ODD if self.n % 2 else NEAR_EVEN
            forgets = 100 * unlike if self.n % 2 else (20 * unlike) ** 2
            extra = 0.865 + (parity - 0.865) / (1 + forgets)
            weight = min(2 / np.pi * (1 + extra / alike), 1) * self.weighted_mean()[1]
        below, places, values = 0.0, [], []
        for v, a in sorted(zip(self.v, u, strict=True)):
            places.append(below + a / 2)
            values.append(v)
            below += a
        return float(np.interp(below / 2, places, values)), weight

    def minimum(self) -> tuple[float, float]:
        at = self.v.index(min(self.v))
        return self.v[at], self.w[at]

    def maximum(self) -> tuple[float, float]:
        at = self.v.index(max(self.v))
        return self.v[at], self.w[at]

    def chi2(self) -> tuple[float, float]:
        if self.n == 1:
            return self.v[0] * self.w[0] ** 0.5, 1.0
        chi = sum(w * v * v for v, w in zip(self.v, self.w, strict=True)) ** 0.5
        mean = 2**0.5 * gamma((self.n + 1) / 2) / gamma(self.n / 2)
        return (chi - mean) / (self.n - mean**2) ** 0.5, 1.0

    def lower_median(self) -> float:
        return sorted(self.v)[(self.n - 1) // 2]

    def without(self, out: set[int]) -> Pixel:
        keep = [i for i in range(self.n) if i not in out]
        return Pixel([self.v[i] for i in keep], [self.w[i] for i in keep], [self.p[i] for i in keep])

    def sigma_clipped(self, n_sigma: float) -> set[int]:
        out: set[int] = set()
        while True:
            rest = self.without(out)
            middle, total = rest.lower_median(), sum(rest.w)
            new = {
                i
                for i in range(self.n)
                if i not in out
                and abs(self.v[i] - middle) > n_sigma * (1 / self.w[i] + np.pi / 2 / total) ** 0.5
                and rest.n > 1
            }
            if not new:
                return out
            out |= new


def marks_of(value: NDArray, there: NDArray, weight: NDArray, share: NDArray, clipping: Clipping) -> NDArray:
    """Clipped mean: 2 an outlier, 1 one only beside another."""
    n, height, width = value.shape
    middle, total = np.full((height, width), np.nan), np.zeros((height, width))
    for y, x in np.ndindex(height, width):
        samples = sorted(float(v) for v in value[there[:, y, x], y, x])
        total[y, x] = sum(float(w) for w in weight[there[:, y, x], y, x])
        if samples:
            middle[y, x] = samples[(len(samples) - 1) // 2]
    mark, radius = np.zeros(value.shape, int), clipping.radius_px
    for i, y, x in np.ndindex(n, height, width):
        if not there[i, y, x] or there[:, y, x].sum() == 1:
            continue
        box = middle[max(y - radius, 0) : y + radius + 1, max(x - radius, 0) : x + radius + 1]
        brightest = max([0.0, *box[np.isfinite(box)]])
        off = abs(float(value[i, y, x]) - middle[y, x]) - float(share[i]) * brightest
        sigma = np.sqrt(1 / float(weight[i, y, x]) + np.pi / 2 / total[y, x])
        mark[i, y, x] = 2 if off > clipping.n_sigma * sigma else int(off > clipping.n_sigma_grown * sigma)
    out = mark.copy()
    for i, y, x in np.ndindex(n, height, width):
        around = mark[i, max(y - 1, 0) : y + 2, max(x - 1, 0) : x + 2]
        if mark[i, y, x] == 1 and not (around == 2).any():
            out[i, y, x] = 0
    return out


def twin(
    value: NDArray, weight: NDArray, method: Method, share: NDArray, priority: NDArray, clipping: Clipping
) -> tuple[Floats, Floats, NDArray, list[tuple[int, int, int]]]:
    """Value, weight, number of exposures and (y, x, layer) of what is left out, pixel by pixel."""
    height, width = value.shape[1:]
    there = (weight > 0) & np.isfinite(weight) & np.isfinite(value) & (priority > 0)[:, None, None]
    out, out_weight = np.full((height, width), np.nan), np.zeros((height, width))
    count, rejected = np.zeros((height, width), int), []
    marks = marks_of(value, there, weight, share, clipping) if method == "clipped_mean" else None
    for y, x in np.ndindex(height, width):
        layers = np.flatnonzero(there[:, y, x])
        if not len(layers):
            continue
        at = (layers, y, x)
        pixel = Pixel(
            value[at].astype(float).tolist(),
            weight[at].astype(float).tolist(),
            priority[layers].astype(float).tolist(),
        )
        bad: set[int] = set()
        if marks is not None:
            bad = {int(k) for k in np.flatnonzero(marks[at])}
        elif method == "sigma_clip":
            bad = pixel.sigma_clipped(clipping.n_sigma)
        rejected += [(y, x, int(layers[k])) for k in sorted(bad)]
        rest = pixel.without(bad)
        count[y, x] = rest.n
        name = "weighted_mean" if method in ("clipped_mean", "sigma_clip") else method
        if rest.n:
            out[y, x], out_weight[y, x] = getattr(rest, name)()
    return out, out_weight, count, rejected


# Values on a coarse lattice: comparisons near a threshold then fall alike in single and double precision.
layers = hnp.arrays(
    np.float32,
    hnp.array_shapes(min_dims=3, max_dims=3, min_side=1, max_side=7),
    elements=st.sampled_from([-3.0, -1.0, 0.0, 0.5, 1.0, 2.0, 7.0, 40.0, 900.0]),
)


def dressed(value: NDArray, seed: int) -> tuple[NDArray, NDArray, NDArray, NDArray]:
    """Values with gaps and nonsense in them, weights, shares, priorities."""
    rng = np.random.default_rng(seed)
    weight = rng.choice(
        np.array([0, 0.5, 1, 3, np.nan, np.inf], np.float32),
        value.shape,
        p=[0.15, 0.3, 0.25, 0.25, 0.03, 0.02],
    )
    nonsense = rng.choice(np.array([np.nan, np.inf, -np.inf, 0], np.float32), value.shape)
    value = np.where((weight > 0) & (rng.random(value.shape) > 0.03), value, nonsense)
    share = rng.choice(np.array([0, 0.3, 1.1], np.float32), len(value))
    priority = rng.choice(np.array([0.25, 1, 2, 0], np.float32), len(value), p=[0.3, 0.35, 0.3, 0.05])
    return value.astype(np.float32), weight, share, priority


@pytest.mark.parametrize("method", METHODS)
@settings(max_examples=80, deadline=None)
@given(layers, st.integers(0, 2**31))
def test_it_does_what_its_slow_twin_does(method: Method, value: NDArray, seed: int) -> None:
    value, weight, share, priority = dressed(value, seed)
    clipping = Clipping(radius_px=1)
    found = combine(
        value, weight, method, share=share, priority=priority, clipping=clipping, want_rejected=True
    )
    out, out_weight, count, rejected = twin(value, weight, method, share, priority, clipping)
    # Where values are interpolated or differences taken, what is small beside the largest is not known better.
    exact = method not in ("weighted_median", "chi2")
    np.testing.assert_allclose(found.value, out, rtol=4e-6, atol=2e-6 if exact else 3e-3)
    np.testing.assert_allclose(found.weight, out_weight, rtol=4e-6)
    np.testing.assert_array_equal(found.exposures, count)
    assert found.rejected is not None
    listed = found.rejected
    assert list(zip(listed.y.tolist(), listed.x.tolist(), listed.layer.tolist(), strict=True)) == rejected
    assert found.n_rejected == len(rejected) == len(listed)
    kinds = (listed.x.dtype, listed.y.dtype, listed.layer.dtype, listed.n_sigma.dtype)
    assert kinds == (np.int32, np.int32, np.int16, np.float32)
    assert (np.abs(listed.n_sigma) > clipping.n_sigma_grown * (1 - 1e-6)).all()


@pytest.mark.parametrize("method", METHODS)
@settings(max_examples=40, deadline=None)
@given(st.data())
def test_cuts_leave_no_trace(method: Method, data: st.DataObject) -> None:
    """Any box of the layers, with its halo, gives the bits that the whole has there."""
    n, height, width = (data.draw(st.integers(1, top)) for top in (9, 30, 40))
    seed = data.draw(st.integers(0, 2**31))
    rng = np.random.default_rng(seed)
    value = rng.normal(0, 1, (n, height, width)).astype(np.float32)
    value[rng.random(value.shape) < 0.03] += 30
    value[rng.random(value.shape) < 0.05] *= 0
    weight = rng.uniform(-0.2, 1, value.shape).astype(np.float32)
    weight[0, :, : width // 2] = 0
    priority = rng.uniform(0.5, 2, n).astype(np.float32)
    clipping = Clipping(radius_px=data.draw(st.integers(0, 4)), flux_share=0.1)
    whole = combine(value, weight, method, priority=priority, clipping=clipping, want_rejected=True)
    halo = halo_px(method, clipping)
    assume(height > 2 * halo and width > 2 * halo)
    x0, y0 = data.draw(st.integers(halo, width - halo - 1)), data.draw(st.integers(halo, height - halo - 1))
    x1, y1 = data.draw(st.integers(x0 + 1, width - halo)), data.draw(st.integers(y0 + 1, height - halo))
    outer = np.s_[:, y0 - halo : y1 + halo, x0 - halo : x1 + halo]
    tile = combine(
        value[outer],
        weight[outer],
        method,
        halo=halo,
        priority=priority,
        clipping=clipping,
        want_rejected=True,
    )
    assert same_bits(tile, whole, np.s_[y0:y1, x0:x1])


def same_bits(tile: Combined, whole: Combined, box: tuple[slice, slice]) -> bool:
    """Whether a tile is what the whole has in the box, rejected samples included."""
    images = all(
        getattr(tile, name).tobytes() == getattr(whole, name)[box].tobytes()
        for name in ("value", "weight", "exposures")
    )
    ours, theirs = tile.rejected, whole.rejected
    assert ours is not None and theirs is not None
    rows, columns = box
    inside = (theirs.y >= rows.start) & (theirs.y < rows.stop)
    inside &= (theirs.x >= columns.start) & (theirs.x < columns.stop)
    return (
        images
        and np.array_equal(ours.y + rows.start, theirs.y[inside])
        and np.array_equal(ours.x + columns.start, theirs.x[inside])
        and np.array_equal(ours.layer, theirs.layer[inside])
        and ours.n_sigma.tobytes() == theirs.n_sigma[inside].tobytes()
    )


def noisy(rng: np.random.Generator, n: int, height: int, width: int) -> tuple[NDArray, NDArray]:
    value = rng.normal(0, 1, (n, height, width)).astype(np.float32)
    value[rng.random(value.shape) < 0.01] += 50
    weight = rng.uniform(0.1, 1, value.shape).astype(np.float32)
    weight[rng.random(value.shape) < 0.02] = 0
    return value, weight


def test_panels_and_threads_leave_no_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    """However wide the panels, and rows combined by many threads at once: the same bits, in the same order."""
    value, weight = noisy(np.random.default_rng(3), 7, 90, 700)
    whole = combine(value, weight, "clipped_mean", want_rejected=True)
    assert whole.n_rejected > 3000
    for width in (5, 64, 999):
        monkeypatch.setattr(methods, "panel_px", lambda n, radius, width=width: width)
        assert same_bits(
            combine(value, weight, "clipped_mean", want_rejected=True), whole, np.s_[0:90, 0:700]
        )
    monkeypatch.undo()
    halo = halo_px("clipped_mean", Clipping())

    def strip(y0: int) -> bool:
        rows = np.s_[:, y0 - halo : y0 + 12 + halo]
        tile = combine(value[rows], weight[rows], "clipped_mean", halo=halo, want_rejected=True)
        return same_bits(tile, whole, np.s_[y0 : y0 + 12, halo : 700 - halo])

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(strip, range(halo, 90 - 12 - halo, 6)))


def test_lists_longer_than_there_was_room_for() -> None:
    rng = np.random.default_rng(5)
    value, weight = noisy(rng, 12, 100, 120)
    value[rng.random(value.shape) < 0.1] += 80
    for method in ("clipped_mean", "sigma_clip"):
        found = combine(value, weight, method, want_rejected=True)
        assert found.rejected is not None
        assert found.n_rejected == len(found.rejected) > 10_000
        assert combine(value, weight, method).rejected is None
        assert combine(value, weight, method).n_rejected == found.n_rejected
        keys = np.stack([found.rejected.y, found.rejected.x, found.rejected.layer.astype(np.int32)])
        assert (np.lexsort(keys[::-1]) == np.arange(found.n_rejected)).all()
        # What is left out and what went in are all there is.
        assert int(found.exposures.sum()) + found.n_rejected == int((weight > 0).sum())


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("n", [40, 130, 260, 300])
def test_hundreds_of_layers(method: Method, n: int) -> None:
    rng = np.random.default_rng(n)
    value = rng.normal(0, 1, (n, 3, 4)).astype(np.float32)
    value[rng.random(value.shape) < 0.02] += 40
    weight = rng.choice(np.array([0, 0.5, 1], np.float32), value.shape, p=[0.1, 0.4, 0.5])
    priority, share = rng.uniform(0.5, 2, n).astype(np.float32), np.zeros(n, np.float32)
    found = combine(value, weight, method, share=share, priority=priority, clipping=Clipping(flux_share=0))
    if method == "chi2":
        assert np.isfinite(found.value).all()
        return
    out, out_weight, count, rejected = twin(value, weight, method, share, priority, Clipping(flux_share=0))
    np.testing.assert_allclose(found.value, out, rtol=2e-5, atol=1e-5)
    np.testing.assert_allclose(found.weight, out_weight, rtol=2e-5)
    np.testing.assert_array_equal(found.exposures, count)
    assert found.n_rejected == len(rejected)


@pytest.mark.parametrize("method", METHODS)
def test_layers_may_be_parts_of_larger_arrays_of_any_kind(method: Method) -> None:
    value, weight = noisy(np.random.default_rng(8), 5, 20, 30)
    whole = combine(value[:, 3:17, 4:21].copy(), weight[:, 3:17, 4:21].copy(), method)
    read_only = weight.copy()
    read_only.flags.writeable = False
    turned = np.asfortranarray(value)
    for v, w in (
        (value, weight),
        (turned, weight),
        (value.astype(np.float64), read_only),
        (value[::-1][::-1], weight),
    ):
        part = combine(v[:, 3:17, 4:21], w[:, 3:17, 4:21], method)
        assert part.value.tobytes() == whole.value.tobytes()
        assert part.weight.tobytes() == whole.weight.tobytes()


@pytest.mark.parametrize("method", METHODS)
def test_no_sample_is_nan_and_never_zero(method: Method) -> None:
    nothing = np.zeros((2, 3, 3), np.float32)
    for value, weight, priority in (
        (nothing, nothing, None),
        (nothing, nothing + 1, np.zeros(2, np.float32)),
        (nothing[:0], nothing[:0], None),
        (nothing * np.nan, nothing + 1, None),
        (nothing, nothing * np.nan, None),
    ):
        combined = combine(value, weight, method, priority=priority, want_rejected=True)
        assert np.isnan(combined.value).all()
        assert (combined.weight == 0).all() and (combined.exposures == 0).all()
        assert combined.n_rejected == 0
    empty = combine(nothing[:, :0], nothing[:, :0], method)
    assert empty.value.shape == (0, 3)


@pytest.mark.parametrize("method", METHODS)
def test_what_is_not_finite_does_not_count(method: Method) -> None:
    value = np.zeros((3, 4, 4), np.float32)
    value[0, 1, 1], value[1, 2, 2] = np.inf, np.nan
    combined = combine(value, np.ones_like(value), method)
    assert np.isfinite(combined.value).all()
    assert (combined.exposures[1, 1], combined.exposures[2, 2], combined.exposures[0, 0]) == (2, 2, 3)


def test_zeros_of_either_sign_do_not_tell_how_the_image_was_cut() -> None:
    value = np.array([0.0, -0.0, 0.0, -0.0, 1.0], np.float32)[:, None, None]
    for order in (value, value[::-1]):
        for method in ("median", "weighted_median"):
            out = combine(np.ascontiguousarray(order), np.ones((5, 1, 1), np.float32), method)
            assert out.value.tobytes() == np.zeros((1, 1), np.float32).tobytes()


@pytest.mark.parametrize("n", [*range(1, 34), 50, 61, 100])
def test_networks_put_their_ranks_right(n: int) -> None:
    """By the 0-1 principle, a network is right if it is for zeros and ones: all of them up to 12, some beyond."""
    rng = np.random.default_rng(n)
    if n <= 12:
        cases = (np.arange(2**n)[:, None] >> np.arange(n)) & 1
    else:
        cases = (rng.random((3000, n)) < rng.random((3000, 1))).astype(int)
    steps = merge_exchange(n)
    for ranks in ("lower", "middle", "all"):
        wanted = ranks_of(n, ranks)
        got = cases.copy()
        for i, j, keep in only_for(steps, wanted):
            low, high = np.minimum(got[:, i], got[:, j]), np.maximum(got[:, i], got[:, j])
            if keep & 1:
                got[:, i] = low
            if keep & 2:
                got[:, j] = high
        at = sorted(wanted)
        np.testing.assert_array_equal(got[:, at], np.sort(cases, axis=1)[:, at])
        nets = networks(n, ranks)
        start, end = nets.start[n]
        assert int(end - start) == len(
            only_for(merge_exchange(int(nets.size[n])), ranks_of(int(nets.size[n]), ranks))
        )
