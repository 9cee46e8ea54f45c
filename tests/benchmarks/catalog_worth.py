"""What a catalogue is worth: completeness, purity and positions against the truth."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from tests.benchmarks.catalog_frames import BenchFrame, Truth, matches

Columns = dict[str, NDArray[Any]]
Counts = NDArray[np.int64]

RADIUS_PX = 2.0
FAINTEST_MAG = 26.0
"""Fainter true sources than that are not to be seen, and would match by chance."""

EDGES = np.arange(16.5, 26.01, 0.5)


@dataclass(frozen=True)
class Worth:
    """One catalogue of one frame against its truth."""

    truth: Truth
    columns: Columns
    own: NDArray[np.intp]
    """For each true source its detection, or -1."""
    mag: NDArray[np.float64]
    """Isophotal magnitude of each detection."""
    is_real: NDArray[np.bool_]

    @classmethod
    def of(cls, columns: Columns, frame: BenchFrame) -> Worth:
        if frame.truth is None:
            raise ValueError(f"{frame.name} has no truth")
        seen = frame.truth.mag < FAINTEST_MAG
        truth = Truth(*(getattr(frame.truth, name)[seen] for name in ("x", "y", "mag", "is_star")))
        x, y = columns["X_IMAGE"].astype(float) - 1.0, columns["Y_IMAGE"].astype(float) - 1.0
        own = matches(x, y, truth, RADIUS_PX)
        is_real = np.zeros(len(x), np.bool_)
        is_real[own[own >= 0]] = True
        mag = frame.zeropoint - 2.5 * np.log10(np.maximum(columns["FLUX_ISO"].astype(float), 1.0))
        return cls(truth, columns, own, mag, is_real)

    def counts(self, what: str) -> tuple[Counts, Counts]:
        """Per bin of `EDGES`: how many are found, or real, and of how many."""
        mag, good = (self.truth.mag, self.own >= 0) if what == "completeness" else (self.mag, self.is_real)
        return np.histogram(mag[good], EDGES)[0], np.histogram(mag, EDGES)[0]


def total(parts: list[Worth], what: str) -> tuple[int, int]:
    """Over all frames and bins."""
    counts = [part.counts(what) for part in parts]
    return sum(int(good.sum()) for good, _ in counts), sum(int(every.sum()) for _, every in counts)


def slack(what: str, other: tuple[int, int]) -> float:
    """A tenth of a per cent, and for purity one standard error of its few spurious sources: frames are few."""
    if what == "completeness":
        return 0.001
    share = other[0] / other[1]
    return float(np.sqrt(max(share * (1.0 - share), 1e-9) / other[1]))


def table(title: str, own: Worth, peer: Worth) -> str:
    """Both curves in columns: found of true ones, real of detections, by magnitude."""
    lines = [
        f"{title}: found of true | real of detected",
        "  mag    true  ours  peer |       ours        peer",
    ]
    found, true = own.counts("completeness")
    peer_found, _ = peer.counts("completeness")
    good, every = own.counts("purity")
    peer_good, peer_every = peer.counts("purity")
    for k, start in enumerate(EDGES[:-1]):
        lines.append(
            f"{start:5.1f} {true[k]:7d} {found[k]:5d} {peer_found[k]:5d} | {good[k]:5d}/{every[k]:5d} "
            f"{peer_good[k]:5d}/{peer_every[k]:5d}"
        )
    return "\n".join(lines)


def draw(path: Path, names: list[str], own: list[Worth], peers: list[Worth]) -> None:
    """Curves of completeness and purity, ours and the peer's, with binomial errors."""
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot as plt

    figure, panels = plt.subplots(2, len(names), figsize=(4.5 * len(names), 7), sharex=True, squeeze=False)
    middle = 0.5 * (EDGES[1:] + EDGES[:-1])
    for column, name in enumerate(names):
        for row, what in enumerate(("completeness", "purity")):
            panel = panels[row][column]
            for part, label, colour, shift in (
                (own[column], "Spica", "C0", -0.05),
                (peers[column], "peer", "C1", 0.05),
            ):
                good, every = part.counts(what)
                some = every > 0
                share = good[some] / every[some]
                error = np.sqrt(np.maximum(share * (1 - share), 0.25 / every[some]) / every[some])
                panel.errorbar(
                    middle[some] + shift, share, error, fmt="o-", ms=3, lw=1, color=colour, label=label
                )
            panel.set_ylim((0.0, 1.03) if what == "completeness" else (0.85, 1.01))
            panel.grid(alpha=0.3)
            panel.set_title(f"{name}: {what}", fontsize=10)
        panels[1][column].set_xlabel("magnitude (true; of purity: isophotal)")
    panels[0][0].legend()
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def position_errors(own: Worth, peer: Worth, frame: BenchFrame) -> tuple[float, float]:
    """Median distance of windowed positions from the truth, px, of the same unsaturated, unblended stars, S/N > 20."""
    both = (own.own >= 0) & (peer.own >= 0) & own.truth.is_star
    rows = np.flatnonzero(both)
    errors, good = [], np.ones(len(rows), np.bool_)
    for part in (own, peer):
        columns, index = part.columns, part.own[rows]
        good &= (columns["FLAGS"][index] == 0) & (columns["FLUX_MAX"][index] < 0.8 * frame.saturation)
        good &= columns["FLUX_AUTO"][index] > 20.0 * columns["FLUXERR_AUTO"][index]
        dx = columns["XWIN_IMAGE"][index] - 1.0 - part.truth.x[rows]
        dy = columns["YWIN_IMAGE"][index] - 1.0 - part.truth.y[rows]
        errors.append(np.hypot(dx, dy))
    return float(np.median(errors[0][good])), float(np.median(errors[1][good]))


def by_chance(columns: Columns, other: BenchFrame) -> tuple[float, float]:
    """Share of detections that are real by the truth of another sky, and what chance makes of it."""
    judged = Worth.of(columns, other)
    truth = judged.truth
    area = (truth.x.max() - truth.x.min()) * (truth.y.max() - truth.y.min())
    chance = 1.0 - np.exp(-len(truth.x) / area * np.pi * RADIUS_PX**2)
    return float(np.mean(judged.is_real)), float(chance)


def shared(of: Columns, other: Columns) -> float:
    """Share of the sources well above the noise (isophotes of 25 px or more) that the other catalogue has too."""
    large = of["ISOAREA_IMAGE"] >= 25
    tree = cKDTree(np.stack([other["X_IMAGE"], other["Y_IMAGE"]], axis=1))
    distance, _ = tree.query(np.stack([of["X_IMAGE"][large], of["Y_IMAGE"][large]], axis=1))
    return float(np.mean(distance < RADIUS_PX))
