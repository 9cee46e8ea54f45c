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
    AduPerSecond,
    AngleDeg,
    Arcsec,
    Bytes,
    Count,
    Fraction,
    Mag,
    Mas,
    MjdDay,
    OffsetArcsec,
    PixelCount,
    Pixels,
    Ratio,
    Seconds,
    Sha256,
)

Combine = Literal[
    "clipped_mean",
    "sigma_clip",
    "weighted_mean",
    "average",
    "median",
    "weighted_median",
    "minimum",
    "maximum",
    "sum",
    "chi2",
]
"""How the samples of one pixel become one value; `clipped_mean` after Gruen et al. 2014, `chi2` after Szalay et al. 1999."""

Kernel = Literal["nearest", "bilinear", "lanczos2", "lanczos3", "lanczos4"]
"""What interpolates between the pixels of an input."""

StackEngine = Literal["spica", "swarp"]
"""What makes the pixels."""

Mode = Literal["single", "object", "area", "list"]
"""One image; all of an object; all that touch a place on the sky; those named."""

Solutions = Literal["joint", "own"]
"""Members are solved together for this stack; or taken with the solution that each has of its own."""

Projection = Literal["TAN", "STG", "SIN", "ZEA", "ARC", "CAR", "CEA", "SFL", "AIT", "MOL"]
"""Of the output grid (FITS WCS paper II)."""


class Cone(Part):
    """A circle on the sky."""

    centre: Pointing
    radius_deg: AngleDeg = Field(gt=0.0, le=180.0)


class Polygon(Part):
    """A polygon on the sky, of great circles between its corners."""

    corners: tuple[Pointing, ...] = Field(min_length=3)


class Rules(Part):
    """What an image must be, all of it. A rule left out does not restrict."""

    images: tuple[str, ...] = Field((), description="Image names or ids; empty: any.")
    filter: str | None = None
    instrument: str | None = None
    run: str | None = None
    runs: tuple[str, ...] = Field((), description="Any of these runs.")
    object: str | None = None
    batch: str | None = None
    tags: tuple[str, ...] = Field((), description="Tags that people gave it, all of them.")
    without_tags: tuple[str, ...] = Field((), description="None of these.")
    fwhm_max_arcsec: Arcsec | None = Field(None, description="Seeing as measured here.")
    fwhm_min_arcsec: Arcsec | None = None
    ellipticity_max: float | None = None
    exposure_time_min_s: Seconds | None = None
    exposure_time_max_s: Seconds | None = None
    airmass_max: float | None = None
    sky_absorption_max_mag: Mag | None = Field(None, description="By clouds, as SkyProbe saw it.")
    background_max_adu_per_s: AduPerSecond | None = Field(None, description="Sky level per pixel and second.")
    limiting_mag_min: Mag | None = Field(None, description="Depth (AB, 5 sigma, point source).")
    photometric: bool | None = Field(None, description="Whether the night is marked as photometric.")
    mjd_min: MjdDay | None = None
    mjd_max: MjdDay | None = None
    near: Cone | None = Field(None, description="Its centre lies within.")
    touches: Cone | Polygon | None = Field(None, description="Any of its CCDs touches this area.")
    any_of: tuple[Rules, ...] = Field((), description="At least one of these; empty: no matter.")
    none_of: tuple[Rules, ...] = Field((), description="Not one of these.")


class Selection(Rules):
    """Rules an image must pass, and rules on what passes as a whole."""

    grades: tuple[Grade, ...] = ("A", "B", "C")
    grade_policy: str | None = Field(
        None,
        description="Name of the policy whose grade counts; default: the latest, a person's over any policy's.",
    )
    saved: tuple[str, ...] = Field((), description="Names of saved selections that must be passed too.")
    best_seeing_percent: float | None = Field(
        None, gt=0.0, le=100.0, description="Of what passes, this share with the best seeing."
    )
    stop_below_gain_mag: Mag | None = Field(
        None, description="The deepest first, until the next adds less depth than this."
    )
    max_exposures: int | None = Field(None, ge=1, description="Of what passes, the deepest so many.")


class Processing(Part):
    """How pixels are made. None: the stack service's setting."""

    resampling: Kernel | None = None
    oversampling: int | None = Field(
        None, ge=1, le=32, description="Samples per output pixel and axis; default: as many as are needed."
    )
    subtract_background: bool | None = None
    background_mesh_px: PixelCount | None = None
    rescale_weights: bool | None = Field(
        None, description="Weights are known up to a factor only, which is found from the frame itself."
    )
    psf_weight_power: float | None = Field(None, ge=0.0, le=4.0)
    exposure_weights: dict[str, float] = Field(
        default_factory=dict, description="Factor on the weight of an image, by name or id."
    )
    ccd_weights: dict[str, float] = Field(
        default_factory=dict, description="Factor on the weight of a CCD of all images, by EXTNAME."
    )
    clip_sigma: float | None = Field(None, gt=0.0)
    clip_sigma_grown: float | None = Field(None, gt=0.0)
    clip_flux_share: float | None = Field(None, ge=0.0)
    rejection_map: bool | None = Field(
        None, description="Write which samples were left out, and by how much."
    )


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
    mode: Mode | None = Field(None, description="Says what is meant, and is held against the selection.")
    preset: str | None = Field(
        None,
        description="A recipe by name, such as `cfhtls-wide`; what the request says itself goes over it.",
    )
    selection: Selection = Field(default_factory=Selection)
    combine: Combine = "clipped_mean"
    processing: Processing = Field(default_factory=Processing)
    pixel_scale_arcsec: Arcsec | None = Field(None, gt=0.0, description="Default: median of the inputs.")
    centre: Pointing | None = Field(None, description="Default: centre of the inputs.")
    width_px: PixelCount | None = Field(None, description="Default: what covers all inputs.")
    height_px: PixelCount | None = None
    rotation_deg: AngleDeg = Field(0.0, description="Position angle of the +y axis, east of north.")
    mirrored: bool = Field(False, description="East to the right of north.")
    projection: Projection = "TAN"
    min_exposures: int = Field(1, ge=1, description="Fewer selected exposures than this is a failure.")
    requested_by: str | None = None
    astrometry_engine: Engine | None = Field(
        None, description="What solves the members' astrometry; default: the calib service's setting."
    )
    solutions: Solutions = "joint"
    engine: StackEngine | None = Field(
        None, description="What makes the pixels; default: the stack service's setting."
    )
    extends: str | None = Field(
        None,
        description="Id of a weighted-mean stack with own solutions, on whose grid and sums this one goes on: only what "
        "it adds is worked on.",
    )
    replaces: str | None = Field(None, description="Id of the stack that this one makes anew.")
    survey: str | None = Field(None, description="The standing survey that asks.")


class Grid(Part):
    """The pixel grid of a stack (FITS WCS paper II)."""

    crval_ra_deg: AngleDeg
    crval_dec_deg: AngleDeg
    crpix_x: Pixels = Field(description="FITS convention: the first pixel's centre is 1.")
    crpix_y: Pixels
    pixel_scale_arcsec: Arcsec = Field(gt=0.0)
    width_px: PixelCount
    height_px: PixelCount
    rotation_deg: AngleDeg = Field(0.0, description="Position angle of the +y axis, east of north.")
    mirrored: bool = Field(False, description="East to the right of north.")
    projection: Projection = "TAN"


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
    processing: Processing = Field(default_factory=Processing, description="With the settings filled in.")
    solutions: Solutions = "joint"
    engine: StackEngine = "spica"
    extends: str | None = None
    survey: str | None = None


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


class StackPartWanted(Message):
    """One unit of the work on a stack: whoever of the stack service's workers is free takes it."""

    stack_id: str
    name: str
    step: Literal["prepare", "tile", "assemble"] = Field(
        description="A member's sky and noise; the pixels of a tile; the files of tiles into one."
    )
    number: Count = Field(description="Of the member, or of the tile, from 0.")
    of: Count = Field(description="How many there are of this step.")


class StackProgress(Message):
    """How far the work on a stack is. Told while it goes on, and not kept in the stream."""

    stack_id: str
    name: str
    step: str = Field(description="What is being done: prepare, tile, assemble.")
    done: Count
    total: Count | None = Field(None, description="Null where nobody knows.")
    unit: str = Field("part", description="What `done` and `total` count.")
    per_second: float | None = Field(None, ge=0, description="Rate so far.")
    ended: bool = Field(False, description="The last one told of this work.")


class Gain(Part):
    """What one exposure added to the stack, in the order in which they were added."""

    image_id: str
    name: str
    depth_mag: Mag | None = Field(None, description="Added depth: median over the pixels that both cover.")
    fwhm_arcsec: OffsetArcsec | None = Field(None, description="Change of the expected seeing.")
    coverage: Fraction | None = Field(
        None, description="Share of the grid's pixels that had no value before."
    )


class StackStale(Message):
    """A stack would come out otherwise today: a grade or a solution of its members changed."""

    stack_id: str
    name: str
    image_id: str
    why: str


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
    exposures: Product | None = Field(None, description="How many exposures are in each pixel.")
    rejected: Product | None = Field(None, description="Which samples were left out, and by how many sigma.")
    sums: Product | None = Field(None, description="From which another stack may go on.")
    gains: tuple[Gain, ...] = Field((), description="Of what was added last, one by one.")
    engine: StackEngine = "spica"


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
