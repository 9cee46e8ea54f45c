"""The other images of a run: what is usual there, robustly."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from spica_imaging.stats import finite, median_sigma


@dataclass(frozen=True, slots=True)
class Statistic:
    """One figure over the other images of a run."""

    n_images: int
    median: float
    sigma: float
    """Standard deviation, from the median absolute deviation: what a few bad images do not spoil."""

    def z(self, value: float) -> float | None:
        """How many sigma above the run a value lies; None where the run has no spread at all."""
        return (value - self.median) / self.sigma if self.sigma > 0 else None


@dataclass(frozen=True, slots=True)
class RunStatistics:
    """What is usual in a run, through one filter, with one instrument. Empty: nothing to compare with."""

    run: str = ""
    filter: str = ""
    figures: Mapping[str, Statistic] = field(default_factory=dict)

    def plain(self) -> dict[str, Any]:
        """As it goes into provenance."""
        return {
            "run": self.run,
            "filter": self.filter,
            "figures": {
                name: {"n_images": s.n_images, "median": s.median, "sigma": s.sigma}
                for name, s in sorted(self.figures.items())
            },
        }


NO_RUN = RunStatistics()

_EXPOSURE_RATIO = 1.1


def exposed_alike(exposure_time_s: float) -> tuple[float, float]:
    """Shortest and longest exposure that an image is compared with, seconds: sky, depth and number of stars go with it."""
    return exposure_time_s / _EXPOSURE_RATIO, exposure_time_s * _EXPOSURE_RATIO


def statistic(values: Iterable[float]) -> Statistic:
    """Robust middle and spread of the finite values; NaN for none."""
    known = finite(list(values))
    return Statistic(int(known.size), *median_sigma(known))


def run_statistics(run: str, filter: str, values: Mapping[str, Iterable[float]]) -> RunStatistics:
    """Statistics of the values of each figure."""
    found = {name: statistic(sample) for name, sample in values.items()}
    return RunStatistics(run, filter, {name: one for name, one in found.items() if one.n_images})


class RunSample:
    """All images of a run: each is compared with the others that were exposed about as long, never with itself."""

    def __init__(self, run: str, filter: str) -> None:
        self.run, self.filter = run, filter
        self._values: dict[str, dict[str, float]] = {}
        self._exposure_times_s: dict[str, float] = {}
        self._last: tuple[str, RunStatistics] | None = None

    @property
    def image_ids(self) -> frozenset[str]:
        """All of which a figure is known."""
        return frozenset().union(*self._values.values())

    def exposed(self, image_id: str, exposure_time_s: float) -> None:
        """Say how long an image was exposed; one of which nobody says it is compared with all."""
        self._last = None
        self._exposure_times_s[image_id] = exposure_time_s

    def add(self, image_id: str, figure: str, value: float) -> None:
        """Add a figure of an image."""
        self._last = None
        self._values.setdefault(figure, {})[image_id] = value

    def without(self, image_id: str) -> RunStatistics:
        """Statistics of the other images."""
        if self._last is None or self._last[0] != image_id:  # several policies ask for the same
            values = {
                figure: [value for other, value in sample.items() if self._alike(image_id, other)]
                for figure, sample in self._values.items()
            }
            self._last = image_id, run_statistics(self.run, self.filter, values)
        return self._last[1]

    def _alike(self, image_id: str, other: str) -> bool:
        own, its = self._exposure_times_s.get(image_id), self._exposure_times_s.get(other)
        if other == image_id or own is None or its is None:
            return other != image_id
        shortest_s, longest_s = exposed_alike(own)
        return shortest_s <= its <= longest_s
