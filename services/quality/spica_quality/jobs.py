"""Work for worker processes: measuring images and stacks. Files in, files out.

The numerical libraries are imported inside the jobs, so that the service itself starts quickly.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spica_proto.base import Product, Reason
from spica_proto.images import Metrics
from spica_runtime.storage import DataFolder

from spica_quality.science.grading import Policy

if TYPE_CHECKING:
    from spica_quality.science.engine import Options


@dataclass(frozen=True, slots=True)
class Tuning:
    """What the settings say about measuring."""

    threshold_sigma: float
    star_snr: float
    background_box_px: int
    cosmic_sigma: float

    def options(self) -> Options:
        """As the engine wants them."""
        from spica_quality.science.engine import Options

        return Options(
            threshold_sigma=self.threshold_sigma,
            star_snr=self.star_snr,
            background_box_px=self.background_box_px,
            cosmic_sigma=self.cosmic_sigma,
        )


@dataclass(frozen=True, slots=True)
class ImageOrder:
    """One image to be measured and graded."""

    data: DataFolder
    image_id: str
    name: str
    path: str
    profile: str
    profiles: Path | None
    n_ccds: int
    on_sky: bool
    """Whether every CCD has a WCS."""
    exposure_time_s: float
    label: tuple[str, ...]
    """Object, filter and the like, for the preview."""
    policy: Policy
    tuning: Tuning


@dataclass(frozen=True, slots=True)
class StackOrder:
    """One stack to be measured and graded."""

    data: DataFolder
    stack_id: str
    name: str
    image: str
    weight: str
    profile: str | None
    """Instrument profile of the members, where it is one."""
    zeropoint_mag: float
    label: tuple[str, ...]
    policy: Policy
    tuning: Tuning
    tile_px: int


@dataclass(frozen=True, slots=True)
class Assessment:
    """What came of measuring an image or a stack."""

    metrics: Metrics
    per_ccd: tuple[dict[str, Any], ...]
    grade: str
    reasons: tuple[Reason, ...]
    catalogue: Product
    preview: Product
    weight: Product | None = None
    """Made for images; a stack brings its own."""
    sources: tuple[tuple[Any, ...], ...] = ()
    """For stacks: rows of the final catalogue, in the order of the table `sources`."""


def measure_image(order: ImageOrder) -> Assessment:
    """Measure an image CCD by CCD; writes catalogue, weight map and preview."""
    from spica_quality.imagework import assess_image

    return assess_image(order)


def measure_stack(order: StackOrder) -> Assessment:
    """Measure a stack tile by tile; writes catalogue and preview."""
    from spica_quality.stackwork import assess_stack

    return assess_stack(order)
