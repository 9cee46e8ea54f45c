"""Events of single images, in the order in which an image lives through them."""

from __future__ import annotations

from typing import Literal

from pydantic import AwareDatetime, Field

from spica_proto.base import Grade, Message, Part, Pointing, Product, Reason
from spica_proto.units import (
    Adu,
    AngleDeg,
    Arcsec,
    Bytes,
    Count,
    Fraction,
    JulianYear,
    Mag,
    Mas,
    Md5,
    MjdDay,
    OffsetArcsec,
    Pixels,
    Ratio,
    Seconds,
    Sha256,
)


class ImageArrived(Message):
    """A file is there to be taken in. Anyone may say so; only `uri` is needed."""

    uri: str = Field(
        min_length=1,
        description="Absolute path or file:// URL that ingest can read; http(s):// URL; or an archive's name "
        "for the file (`cadc:CFHT/2376828p.fits.fz`), which ingest fetches from there.",
    )
    source: str = Field("other", description="Who brought it: submit, folder, cadc, http, other.")
    name: str | None = Field(None, description="Image name (odometer + suffix); default: from the file name.")
    size_bytes: Bytes | None = Field(None, description="Expected size; a difference rejects the file.")
    sha256: Sha256 | None = Field(None, description="Expected SHA-256; a difference rejects the file.")
    md5: Md5 | None = Field(
        None, description="Expected MD5 (archives state it); a difference rejects the file."
    )
    modified_at: AwareDatetime | None = Field(
        None,
        description="When the archive last changed what this URI names: of two contents, the later one counts.",
    )
    batch: str | None = Field(None, description="Free label that groups files, such as a night.")
    node: str | None = Field(
        None,
        description="Node whose disk a path is on, where images are placed on nodes; null: any node can read it.",
    )


class ImageWanted(ImageArrived):
    """A file that arrived is in an archive: it is to be fetched.

    Ingest says so to itself. Downloads so have a queue of their own, and no file that is here already waits
    behind them.
    """


class ImageVerified(Message):
    """The file is sound, filed away by run and filter, and its headers are loaded."""

    image_id: str = Field(description="Name and content: `<name>.<first 12 hex digits of the sha256>`.")
    name: str
    file: Product
    profile: str = Field(description="Instrument profile that read it.")
    instrument: str
    run: str
    filter: str
    object: str | None = None
    exposure_time_s: Seconds
    mjd_obs: MjdDay | None = None
    airmass: float | None = None
    pointing: Pointing
    wcs: Literal["full", "pointing"] = Field(
        description="`full`: every CCD has a WCS; `pointing`: only a rough pointing is known."
    )
    n_ccds: Count
    batch: str | None = None
    repairs: tuple[Reason, ...] = Field(
        (), description="What was repaired in the record (never in the file)."
    )
    uri: str | None = Field(
        None, description="What the file is called where it came from, if that is an archive."
    )
    supersedes: tuple[str, ...] = Field(
        (),
        description="Ids of images that are earlier versions of the same archive file; no longer selected.",
    )


class ImageRejected(Message):
    """The file is not usable: set aside, with all reasons."""

    name: str
    uri: str
    sha256: Sha256 | None = None
    set_aside: str | None = Field(None, description="Path in the data folder where the file was put.")
    reasons: tuple[Reason, ...] = Field(min_length=1)
    batch: str | None = None


class Metrics(Part):
    """What was measured on one image or stack. Angles on the sky, fluxes in the image's own unit."""

    fwhm_arcsec: Arcsec | None = Field(None, description="Median FWHM of stars.")
    fwhm_px: Pixels | None = None
    ellipticity: Fraction | None = Field(None, description="Median 1 - b/a of stars.")
    n_sources: Count = 0
    n_stars: Count = 0
    background_adu: Adu | None = None
    background_rms_adu: Adu | None = Field(None, description="Standard deviation per pixel.")
    limiting_flux_adu: Adu | None = Field(None, description="Flux of a 5 sigma point source.")
    limiting_mag: Mag | None = Field(None, description="Its magnitude (AB), where a zero point is known.")
    saturated_fraction: Fraction = Field(0.0, description="Share of pixels at or above saturation.")
    usable_fraction: Fraction = Field(1.0, description="Share of pixels with weight above zero.")
    pixel_scale_arcsec: Arcsec | None = None
    condition: str | None = Field(
        None, description="What is wrong at first sight, by name: dark, trailed, doubled, ...; `ok`: nothing."
    )
    fwhm_arcsec_min: Arcsec | None = Field(None, description="Of the CCDs, as the other extremes.")
    fwhm_arcsec_max: Arcsec | None = None
    half_light_diameter_arcsec: Arcsec | None = Field(
        None, description="Diameter of the circle that holds half of a star's light."
    )
    elongation: Ratio | None = Field(None, description="Median a/b of stars.")
    psf_chi2: Ratio | None = Field(None, description="Reduced chi² of the stars against the PSF model.")
    psf_residual: Ratio | None = Field(
        None, description="Of the stars against the model, relative to their light."
    )
    psf_asymmetry: Ratio | None = Field(None, description="Of the stars under a turn by 180 degrees.")
    n_psf_stars: Count | None = Field(None, description="Stars accepted for the PSF model.")
    completeness50_mag: Mag | None = Field(
        None, description="Half of the stars of this magnitude (AB) are found."
    )
    background_gradient_adu: Adu | None = Field(None, description="Rise of the sky over the image.")
    offset_ra_arcsec: OffsetArcsec | None = Field(
        None, description="Of the header's WCS against the reference catalogue, times cos Dec."
    )
    offset_dec_arcsec: OffsetArcsec | None = None
    offset_sigma_ra_arcsec: Arcsec | None = Field(
        None, description="Scatter of single stars about the offset."
    )
    offset_sigma_dec_arcsec: Arcsec | None = None
    counts_ratio_stars: Ratio | None = Field(None, description="Stars found over stars expected there.")
    counts_ratio_galaxies: Ratio | None = None


class Verdict(Part):
    """What a policy says of an image or a stack, for one use."""

    policy: str = Field(description="`<name>@<version>`.")
    use: str = Field(description="What it is judged for: default, weak_lensing, photometric_calibration ...")
    grade: Grade
    reasons: tuple[Reason, ...] = ()
    ccds_out: tuple[str, ...] = Field((), description="Names of CCDs that are not to be used.")


class ImageGraded(Message):
    """The image is measured and has a grade: from a policy, or from a person (one more event)."""

    image_id: str
    name: str
    grade: Grade
    graded_by: str = Field(description="`policy:<name>@<version>` or `person:<name>`.")
    reasons: tuple[Reason, ...] = ()
    comment: str | None = None
    measurement_id: str
    metrics: Metrics
    catalogue: Product
    weight: Product
    preview: Product
    flag_map: Product | None = None
    psf_model: Product | None = None
    report: Product | None = Field(None, description="One self-contained HTML page.")
    products: tuple[Product, ...] = Field(
        (), description="What else was made: VOTable, catalogue as Parquet ..."
    )
    verdicts: tuple[Verdict, ...] = Field((), description="Of all policies; `grade` is the default one's.")
    batch: str | None = None


class Reference(Part):
    """The reference catalogue that a solution stands on."""

    name: str
    sha256: Sha256
    epoch_year: JulianYear = Field(description="Epoch to which proper motions were applied.")


Engine = Literal["spica", "scamp"]
"""What solves the astrometry."""

Anchor = Literal["reference", "header", "context", "overlap", "none"]
"""What a zero point stands on: reference stars; its own header (photometric night); other images of its context;
overlaps with anchored images; nothing."""


class ImageCalibrated(Message):
    """Astrometric and photometric solution of one image."""

    image_id: str
    name: str
    filter: str
    solution_id: str
    header: Product = Field(description="`.head` file: one TPV block per CCD.")
    reference: Reference
    n_matched: Count
    residual_ra_mas: Mas = Field(description="Median absolute residual along RA*cos(Dec).")
    residual_dec_mas: Mas
    rms_ra_mas: Mas = Field(description="Robust standard deviation along RA*cos(Dec).")
    rms_dec_mas: Mas
    distortion_degree: int = Field(ge=1, le=7)
    pixel_scale_arcsec: Arcsec
    rotation_deg: AngleDeg = Field(description="Position angle of the +y axis, east of north.")
    start: Literal["wcs", "pointing"] = Field(description="What the match started from.")
    offset_arcsec: Arcsec = Field(description="How far the pointing was off.")
    zeropoint_mag: Mag | None = Field(None, description="Magnitude (AB) of 1 adu/s; null: no photometry.")
    zeropoint_sigma_mag: Mag | None = None
    n_photometric: Count = 0
    limiting_mag: Mag | None = Field(None, description="Magnitude of a 5 sigma point source.")
    batch: str | None = None
    version: Count | None = Field(
        None, description="Number of this solution among the image's own ones, from 1; the highest counts."
    )
    supersedes: str | None = Field(None, description="The solution that counted before.")
    reason: str | None = Field(None, description="Why it was solved anew, where it was.")
    engine: Engine = "spica"
    context: str | None = Field(
        None, description="Instrument context: images equal in this share a model of their instrument."
    )
    model_version: Count | None = Field(
        None, description="Version of the context's instrument model that it started from; 0: none yet."
    )
    n_context: Count | None = Field(
        None, description="Overlapping images of the same context that took part, held as they were."
    )
    n_internal: Count | None = Field(None, description="Sources also seen on images of the context.")
    internal_rms_ra_mas: Mas | None = Field(
        None, description="Against images of the context: robust standard deviation along RA*cos(Dec)."
    )
    internal_rms_dec_mas: Mas | None = None
    chi2_external: Ratio | None = Field(None, description="Reduced chi² against reference stars.")
    chi2_internal: Ratio | None = Field(None, description="Reduced chi² between exposures.")
    anchor: Anchor | None = Field(None, description="What its zero point stands on.")
    report: Product | None = Field(None, description="One self-contained HTML page.")


class ImageCalibrationRequested(Message):
    """Please calibrate an image again, with what its run has taught since."""

    image_id: str
    name: str
    reason: str = Field(description="Why, for people.")
    requested_by: str | None = None


class ImageFailed(Message):
    """A stage could not do its work on this image: the message became a dead letter."""

    image_id: str | None = None
    name: str | None = None
    stage: str
    code: str
    message: str
    numbers: dict[str, float | int | str | None] = Field(default_factory=dict)
    dead_letter_id: str
    heard: str = Field(description="Subject of the message that could not be handled.")
    attempts: Count = 1
    batch: str | None = None


class AuxiliaryWanted(Message):
    """A calibration frame that an image's header names (master flat, mask) is not here yet."""

    name: str = Field(description="As the header names it, e.g. `10Bm03.flat.i2.36.01`.")
    kind: Literal["flat", "mask"]
    keyword: str = Field(description="Header keyword that names it, e.g. IMRED_FF.")
    image_id: str = Field(description="The first image that asked for it.")
    uris: tuple[str, ...] = Field(min_length=1, description="Where it may be, in the order to be tried.")


class AuxiliaryRegistered(Message):
    """A calibration frame was fetched and verified; or nobody has it."""

    name: str
    kind: Literal["flat", "mask"]
    state: Literal["here", "missing", "rejected"]
    file: Product | None = Field(None, description="Where it is, if it is here.")
    uri: str | None = Field(None, description="Where it came from.")
    reasons: tuple[Reason, ...] = ()


class ImageProgress(Message):
    """How far long work on one image is. Told now and then while it goes on, and not kept in the stream."""

    name: str
    stage: str = Field(description="What is being done: fetch, move.")
    uri: str | None = None
    done: Count
    total: Count | None = Field(None, description="Null where nobody knows.")
    unit: str = Field("byte", description="What `done` and `total` count.")
    per_second: float | None = Field(None, ge=0, description="Rate of the last seconds.")
    ended: bool = Field(False, description="The last one told of this work.")
