"""Events of stacks, from the wish to the receipt.

Events name a stack and its members by id. What goes with each member (its file, weight map,
solution) stands in the store, so that an event stays small however many images are stacked.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from spica_proto.base import Grade, Message, Part, Pointing, Product, Reason
from spica_proto.images import Engine, Metrics, Reference, Verdict
from spica_proto.units import (
    AngleDeg,
    Arcsec,
    Bytes,
    Count,
    Mag,
    Mas,
    MjdDay,
    PixelCount,
    Pixels,
    Ratio,
    Seconds,
    Sha256,
)

Combine = Literal["clipped_mean", "weighted_mean", "median"]


class Cone(Part):
    """A circle on the sky."""

    centre: Pointing
    radius_deg: AngleDeg = Field(gt=0.0, le=180.0)


class Selection(Part):
    """Rules an image must pass, all of them. A rule left out does not restrict."""

    images: tuple[str, ...] = Field((), description="Image names or ids; empty: any.")
    filter: str | None = None
    instrument: str | None = None
    run: str | None = None
    object: str | None = None
    batch: str | None = None
    grades: tuple[Grade, ...] = ("A", "B", "C")
    fwhm_max_arcsec: Arcsec | None = None
    ellipticity_max: float | None = None
    exposure_time_min_s: Seconds | None = None
    airmass_max: float | None = None
    mjd_min: MjdDay | None = None
    mjd_max: MjdDay | None = None
    near: Cone | None = None


class StackRequested(Message):
    """Please make a stack. Anyone may ask; an empty body stacks all that is usable of one filter."""

    request_id: str | None = Field(
        None, min_length=1, description="The same id twice is one stack; default: the event's id."
    )
    name: str | None = Field(
        None,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]*$",
        description="Name of the product; default: from object, filter and place.",
    )
    selection: Selection = Field(default_factory=Selection)
    combine: Combine = "clipped_mean"
    pixel_scale_arcsec: Arcsec | None = Field(None, gt=0.0, description="Default: median of the inputs.")
    centre: Pointing | None = Field(None, description="Default: centre of the inputs.")
    width_px: PixelCount | None = Field(None, description="Default: what covers all inputs.")
    height_px: PixelCount | None = None
    min_exposures: int = Field(1, ge=1, description="Fewer selected exposures than this is a failure.")
    requested_by: str | None = None
    astrometry_engine: Engine | None = Field(
        None, description="What solves the members' astrometry; default: the calib service's setting."
    )


class Grid(Part):
    """The pixel grid of a stack: TAN projection, north up, east left (FITS WCS paper II)."""

    crval_ra_deg: AngleDeg
    crval_dec_deg: AngleDeg
    crpix_x: Pixels = Field(description="FITS convention: the first pixel's centre is 1.")
    crpix_y: Pixels
    pixel_scale_arcsec: Arcsec = Field(gt=0.0)
    width_px: PixelCount
    height_px: PixelCount


class StackPlanned(Message):
    """Members are chosen (why each, stands in the store) and the output grid is fixed."""

    stack_id: str
    request_id: str
    name: str
    filter: str
    image_ids: tuple[str, ...] = Field(min_length=1)
    n_left_out: Count
    grid: Grid
    combine: Combine


class StackCalibrated(Message):
    """Joint solution of a stack's members: headers and flux scales on one common system."""

    stack_id: str
    name: str
    reference: Reference
    n_members: Count
    n_internal_matches: Count
    internal_rms_ra_mas: Mas | None = Field(None, description="Between exposures, robust, per axis.")
    internal_rms_dec_mas: Mas | None = None
    flux_scatter_mag: Mag | None = Field(None, description="Between exposures, robust, bright stars.")
    engine: Engine = "spica"
    n_reference: Count | None = Field(None, description="Matches with reference stars.")
    external_rms_ra_mas: Mas | None = Field(
        None, description="Against reference stars, robust, along RA*cos(Dec)."
    )
    external_rms_dec_mas: Mas | None = None
    chi2_internal: Ratio | None = Field(None, description="Reduced chi² between exposures.")
    chi2_external: Ratio | None = Field(None, description="Reduced chi² against reference stars.")
    contexts: tuple[str, ...] = Field((), description="Instrument contexts of the members.")
    anchors: tuple[str, ...] = Field((), description="Ids of the images that the flux scale stands on.")
    report: Product | None = Field(None, description="One self-contained HTML page.")


class StackCoadded(Message):
    """The members are resampled and combined."""

    stack_id: str
    name: str
    filter: str
    image: Product
    weight: Product
    n_exposures: Count
    exposure_time_s: Seconds = Field(description="Sum over the members.")
    zeropoint_mag: Mag
    rejected_pixels: Count = Field(0, description="Input samples left out as outliers.")


class StackDone(Message):
    """Done: coadded, measured by the same engine as the inputs, and graded."""

    stack_id: str
    request_id: str
    name: str
    filter: str
    image: Product
    weight: Product
    catalogue: Product
    preview: Product
    n_exposures: Count
    exposure_time_s: Seconds
    zeropoint_mag: Mag
    grade: Grade
    graded_by: str
    reasons: tuple[Reason, ...] = ()
    metrics: Metrics
    psf_model: Product | None = None
    report: Product | None = Field(None, description="One self-contained HTML page.")
    products: tuple[Product, ...] = Field(
        (), description="What else was made: VOTable, catalogue as Parquet ..."
    )
    verdicts: tuple[Verdict, ...] = Field((), description="Of all policies; `grade` is the default one's.")


class Receipt(Part):
    """One delivered file, its checksum read back from where it was put."""

    name: str
    path: str = Field(description="Where it was delivered.")
    sha256: Sha256
    size_bytes: Bytes
    kind: str


class StackExported(Message):
    """Delivered: every file was read back and its checksum agrees."""

    stack_id: str
    request_id: str
    name: str
    destination: str
    files: tuple[Receipt, ...] = Field(min_length=1)


class StackFailed(Message):
    """The stack could not be made, and why."""

    stack_id: str | None = None
    request_id: str | None = None
    name: str | None = None
    stage: str
    code: str
    message: str
    numbers: dict[str, float | int | str | None] = Field(default_factory=dict)
    dead_letter_id: str | None = None
    heard: str
    attempts: Count = 1
