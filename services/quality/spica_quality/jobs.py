"""Work for worker processes: measuring images and stacks. Files in, files out.

The numerical libraries are imported inside the jobs, so that the service itself starts quickly.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spica_proto.base import Product, Reason
from spica_proto.images import ImageVerified, Metrics, Verdict
from spica_runtime.storage import DataFolder

from spica_quality.science.policy.policies import Policies
from spica_quality.science.policy.runstatistics import NO_RUN, RunStatistics

if TYPE_CHECKING:
    from spica_quality.reference import ReferenceFile
    from spica_quality.science.engine import Options
    from spica_quality.settings import QualitySettings


_INJECTED_STARS = 3000
"""In an image with many CCDs, over all of them."""


@dataclass(frozen=True, slots=True)
class Tuning:
    """What the settings say about measuring."""

    threshold_sigma: float
    star_snr: float
    background_box_px: int
    cosmic_sigma: float

    @classmethod
    def of(cls, settings: QualitySettings) -> Tuning:
        """What these settings say."""
        return cls(
            threshold_sigma=settings.threshold_sigma,
            star_snr=settings.star_snr,
            background_box_px=settings.background_box_px,
            cosmic_sigma=settings.cosmic_sigma,
        )

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
    why_no_reference: str = ""
    """Why the one that is set cannot be: see `reference.why_none`."""
    threads: int = 1
    """CCDs that are worked on at a time."""
    run: RunStatistics = NO_RUN
    """What is usual in its run, for policies that compare."""
    auxiliaries: Mapping[str, Product] = field(default_factory=dict)
    """Master flat and mask that are here, by kind."""
    source: Path | None = None
    """The image's file, where it is not in the data folder; `path` is then only what it is called."""
    folder: str | None = None
    """Where the products go, below the data folder; by default `quality/<image_id>`."""


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
    why_no_reference: str = ""


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
    """Master flat and mask, and the reference catalogue, that went in."""
    notes: tuple[str, ...] = ()
    """What is to be said in the log besides the reasons."""
    sources: tuple[tuple[Any, ...], ...] = ()
    """For stacks: rows of the final catalogue, in the order of the table `sources`."""

    @property
    def made(self) -> tuple[Product, ...]:
        """All files."""
        named = (self.catalogue, self.weight, self.flag_map, self.psf_model, self.preview, self.report)
        return (*(product for product in named if product is not None), *self.products)


def order_of(
    message: ImageVerified,
    *,
    data: DataFolder,
    profiles: Path | None,
    policies: Policies,
    tuning: Tuning,
    reference: ReferenceFile | None = None,
    why_no_reference: str = "",
    threads: int = 1,
    run: RunStatistics = NO_RUN,
    auxiliaries: Mapping[str, Product] | None = None,
    source: Path | None = None,
    folder: str | None = None,
) -> ImageOrder:
    """What is to be measured of a verified image; what the message does not tell is as in `ImageOrder`."""
    label = (message.instrument, message.object or "", f"filter {message.filter}", f"run {message.run}")
    return ImageOrder(
        data=data,
        image_id=message.image_id,
        name=message.name,
        path=message.file.path,
        profile=message.profile,
        profiles=profiles,
        n_ccds=message.n_ccds,
        on_sky=message.wcs == "full",
        exposure_time_s=message.exposure_time_s,
        label=(*filter(None, label), f"{message.exposure_time_s:g} s"),
        policies=policies,
        tuning=tuning,
        filter=message.filter,
        mjd_obs=message.mjd_obs,
        pointing_deg=(message.pointing.ra_deg, message.pointing.dec_deg),
        sha256=message.file.sha256,
        reference=reference,
        why_no_reference=why_no_reference,
        threads=threads,
        run=run,
        auxiliaries=auxiliaries or {},
        source=source,
        folder=folder,
    )


def measure_image(order: ImageOrder) -> Assessment:
    """Measure an image CCD by CCD; writes catalogues, maps, PSF models, pictures, and the report."""
    from spica_quality.imagework import assess_image

    return assess_image(order)


def measure_stack(order: StackOrder) -> Assessment:
    """Measure a stack tile by tile; writes catalogue and preview."""
    from spica_quality.stackwork import assess_stack

    return assess_stack(order)
