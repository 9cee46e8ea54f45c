"""Work for worker processes: measuring images and stacks. Files in, files out.

The numerical libraries are imported inside the jobs, so that the service itself starts quickly.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spica_proto.base import Product, Reason
from spica_proto.images import Metrics, Verdict
from spica_runtime.storage import DataFolder

from spica_quality.science.policies import Policies
from spica_quality.science.runstatistics import NO_RUN, RunStatistics

if TYPE_CHECKING:
    from spica_quality.reference import ReferenceFile
    from spica_quality.science.engine import Options


_INJECTED_STARS = 3000
"""In an image with many CCDs, over all of them."""


@dataclass(frozen=True, slots=True)
class Tuning:
    """What the settings say about measuring."""

    threshold_sigma: float
    star_snr: float
    background_box_px: int
    cosmic_sigma: float

    def options(self, n_ccds: int = 1) -> Options:
        """As the engine wants them, for one of so many CCDs."""
        from spica_quality.science.engine import Options

        return Options(
            threshold_sigma=self.threshold_sigma,
            star_snr=self.star_snr,
            background_box_px=self.background_box_px,
            cosmic_sigma=self.cosmic_sigma,
            injected_stars=int(min(max(_INJECTED_STARS / max(n_ccds, 1), 120), 500)),
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
    policies: Policies
    tuning: Tuning
    filter: str = ""
    mjd_obs: float | None = None
    pointing_deg: tuple[float, float] | None = None
    """RA and Dec."""
    sha256: str = ""
    """Of the file."""
    reference: ReferenceFile | None = None
    """Catalogue that the header's WCS is compared with."""
    threads: int = 1
    """CCDs that are worked on at a time."""
    run: RunStatistics = NO_RUN
    """What is usual in its run, for policies that compare."""
    auxiliaries: Mapping[str, Product] = field(default_factory=dict)
    """Master flat and mask that are here, by kind."""


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
    policies: Policies
    tuning: Tuning
    tile_px: int
    filter: str = ""
    reference: ReferenceFile | None = None


@dataclass(frozen=True, slots=True)
class Assessment:
    """What came of measuring an image or a stack."""

    metrics: Metrics
    figures: Mapping[str, Any]
    """All that policies judge by, flat."""
    per_ccd: tuple[dict[str, Any], ...]
    grade: str
    reasons: tuple[Reason, ...]
    verdicts: tuple[Verdict, ...]
    """Of all policies."""
    catalogue: Product
    preview: Product
    weight: Product | None = None
    """Made for images; a stack brings its own."""
    flag_map: Product | None = None
    psf_model: Product | None = None
    report: Product | None = None
    products: tuple[Product, ...] = ()
    """What was made besides."""
    used: tuple[Product, ...] = ()
    """Master flat and mask that went in."""
    notes: tuple[str, ...] = ()
    """What is to be said in the log besides the reasons."""
    sources: tuple[tuple[Any, ...], ...] = ()
    """For stacks: rows of the final catalogue, in the order of the table `sources`."""

    @property
    def made(self) -> tuple[Product, ...]:
        """All files."""
        named = (self.catalogue, self.weight, self.flag_map, self.psf_model, self.preview, self.report)
        return (*(product for product in named if product is not None), *self.products)


def measure_image(order: ImageOrder) -> Assessment:
    """Measure an image CCD by CCD; writes catalogue, weight map and preview."""
    from spica_quality.imagework import assess_image

    return assess_image(order)


def measure_stack(order: StackOrder) -> Assessment:
    """Measure a stack tile by tile; writes catalogue and preview."""
    from spica_quality.stackwork import assess_stack

    return assess_stack(order)
