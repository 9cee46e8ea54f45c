"""One realistic message per subject: the story of one exposure and of the stack it became part of.

Checksums are those of labels, so that the same file carries the same checksum throughout.
"""

from __future__ import annotations

import hashlib

from spica_proto.base import Message, Pointing, Product, Reason
from spica_proto.envelope import derived_id
from spica_proto.images import (
    AuxiliaryRegistered,
    AuxiliaryWanted,
    ImageArrived,
    ImageCalibrated,
    ImageCalibrationRequested,
    ImageFailed,
    ImageGraded,
    ImageProgress,
    ImageRejected,
    ImageVerified,
    ImageWanted,
    Metrics,
    Reference,
)
from spica_proto.placement import PlacementLost, PlacementMoved, PlacementWanted
from spica_proto.stacks import (
    Cone,
    Grid,
    Receipt,
    Selection,
    StackCalibrated,
    StackCoadded,
    StackDone,
    StackExported,
    StackFailed,
    StackPartWanted,
    StackPlanned,
    StackProgress,
    StackRequested,
    StackStale,
)
from spica_proto.subjects import BY_MODEL


def _sha256(label: str) -> str:
    return hashlib.sha256(label.encode()).hexdigest()


def _product(path: str, kind: str, size_bytes: int) -> Product:
    return Product(path=path, sha256=_sha256(path), size_bytes=size_bytes, kind=kind)


NAME = "2387301p"
BATCH = "night-2019-03-07"
FILTER = "r"
FIELD = Pointing(ra_deg=36.4951, dec_deg=-4.4948)

_FILE = _product(f"images/19AQ02/{FILTER}/{NAME}.fits.fz", "image", 368_121_600)
IMAGE_ID = f"{NAME}.{_FILE.sha256[:12]}"
MEASUREMENT_ID = derived_id("example", "measurement", IMAGE_ID)
SOLUTION_ID = derived_id("example", "solution", IMAGE_ID)
REFERENCE = Reference(name="gaia-dr3-d1", sha256=_sha256("gaia-dr3-d1"), epoch_year=2019.18)

REQUEST_ID = "d1-r-2019a"
STACK_NAME = "D1.r.2019A"
STACK_ID = derived_id("example", "stack", REQUEST_ID)
MEMBERS = (IMAGE_ID, *(f"{name}.{_sha256(name)[:12]}" for name in ("2387302p", "2387303p", "2387304p")))

_STACK_IMAGE = _product(f"stacks/{STACK_ID}/{STACK_NAME}.fits", "image", 1_521_792_000)
_STACK_WEIGHT = _product(f"stacks/{STACK_ID}/{STACK_NAME}.weight.fits", "weight", 1_521_792_000)
_STACK_CATALOGUE = _product(f"stacks/{STACK_ID}/{STACK_NAME}.ldac", "catalogue", 98_452_800)
_STACK_PREVIEW = _product(f"stacks/{STACK_ID}/{STACK_NAME}.png", "preview", 412_355)
_STACK_EXPOSURE_S = 4 * 360.2

ARRIVED = ImageArrived(
    uri=f"file:///data/incoming/{NAME}.fits.fz",
    source="cadc",
    name=NAME,
    size_bytes=_FILE.size_bytes,
    sha256=_FILE.sha256,
    batch=BATCH,
)

WANTED = ImageWanted(
    uri=f"cadc:CFHT/{NAME}.fits.fz",
    source="cadc",
    size_bytes=_FILE.size_bytes,
    md5=hashlib.md5(b"example", usedforsecurity=False).hexdigest(),
    batch=BATCH,
)

VERIFIED = ImageVerified(
    image_id=IMAGE_ID,
    name=NAME,
    file=_FILE,
    profile="megacam",
    instrument="MegaPrime",
    run="19AQ02",
    filter=FILTER,
    object="D1",
    exposure_time_s=360.2,
    mjd_obs=58549.2231,
    airmass=1.184,
    pointing=FIELD,
    wcs="full",
    n_ccds=36,
    batch=BATCH,
    repairs=(
        Reason(
            code="sentinel_value",
            message="SEEING holds a placeholder and was taken as unknown.",
            hdu=0,
            keyword="SEEING",
            found="9999.00",
            expected="a seeing in arcsec",
        ),
    ),
)

REJECTED = ImageRejected(
    name="2387309p",
    uri="file:///data/incoming/2387309p.fits.fz",
    sha256=_sha256("2387309p, broken in transfer"),
    set_aside=f"rejected/{_sha256('2387309p, broken in transfer')[:8]}_2387309p.fits.fz",
    reasons=(
        Reason(
            code="checksum_mismatch",
            message="The file is not the one that was announced: its SHA-256 differs.",
            found=_sha256("2387309p, broken in transfer"),
            expected=_sha256("2387309p"),
        ),
    ),
    batch=BATCH,
)

GRADED = ImageGraded(
    image_id=IMAGE_ID,
    name=NAME,
    grade="B",
    graded_by="policy:default@1",
    reasons=(
        Reason(
            code="seeing",
            message="The seeing is above the limit of grade A.",
            keyword="fwhm_arcsec",
            found="0.84",
            expected="<= 0.80",
        ),
    ),
    measurement_id=MEASUREMENT_ID,
    metrics=Metrics(
        fwhm_arcsec=0.84,
        fwhm_px=4.50,
        ellipticity=0.041,
        n_sources=121_904,
        n_stars=6_218,
        background_adu=1284.3,
        background_rms_adu=28.7,
        limiting_flux_adu=548.0,
        saturated_fraction=0.0004,
        usable_fraction=0.981,
        pixel_scale_arcsec=0.1867,
        condition="ok",
        fwhm_arcsec_min=0.81,
        fwhm_arcsec_max=0.89,
        half_light_diameter_arcsec=0.92,
        elongation=1.04,
        psf_chi2=1.12,
        psf_residual=0.021,
        psf_asymmetry=0.013,
        n_psf_stars=4_820,
        background_gradient_adu=14.2,
        offset_ra_arcsec=-0.42,
        offset_dec_arcsec=1.16,
        offset_sigma_ra_arcsec=0.21,
        offset_sigma_dec_arcsec=0.19,
    ),
    catalogue=_product(f"quality/{IMAGE_ID}/{NAME}.ldac", "catalogue", 31_208_320),
    weight=_product(f"quality/{IMAGE_ID}/{NAME}.weight.fits.fz", "weight", 24_776_640),
    preview=_product(f"quality/{IMAGE_ID}/{NAME}.png", "preview", 286_114),
    batch=BATCH,
)

CALIBRATED = ImageCalibrated(
    image_id=IMAGE_ID,
    name=NAME,
    filter=FILTER,
    solution_id=SOLUTION_ID,
    header=_product(f"calib/{SOLUTION_ID}/{NAME}.head", "header", 92_340),
    reference=REFERENCE,
    n_matched=2_871,
    residual_ra_mas=21.4,
    residual_dec_mas=20.2,
    rms_ra_mas=31.6,
    rms_dec_mas=29.9,
    distortion_degree=3,
    pixel_scale_arcsec=0.1867,
    rotation_deg=0.21,
    start="wcs",
    offset_arcsec=1.37,
    zeropoint_mag=26.214,
    zeropoint_sigma_mag=0.004,
    n_photometric=1_322,
    limiting_mag=25.76,
    batch=BATCH,
    version=1,
    context="megacam|r|19AQ05",
    model_version=14,
    n_context=4,
    n_internal=5_204,
    internal_rms_ra_mas=9.3,
    internal_rms_dec_mas=8.9,
    chi2_external=1.04,
    chi2_internal=0.98,
    anchor="reference",
)

CALIBRATION_REQUESTED = ImageCalibrationRequested(
    image_id=IMAGE_ID,
    name=NAME,
    reason="model 31 of its context differs from what it was solved with by 12.4 mas",
    requested_by="person:ada",
)

FAILED = ImageFailed(
    image_id=f"2387306p.{_sha256('2387306p')[:12]}",
    name="2387306p",
    stage="calib",
    code="too_few_matches",
    message="Only 7 stars matched the reference catalogue; 20 are needed for distortion degree 3.",
    numbers={"n_matched": 7, "n_needed": 20, "n_reference": 3104, "distortion_degree": 3},
    dead_letter_id=derived_id("example", "dead letter", "2387306p"),
    heard="image.graded",
    batch=BATCH,
)

REQUESTED = StackRequested(
    request_id=REQUEST_ID,
    name=STACK_NAME,
    selection=Selection(
        filter=FILTER,
        instrument="MegaPrime",
        object="D1",
        grades=("A", "B"),
        fwhm_max_arcsec=1.1,
        near=Cone(centre=FIELD, radius_deg=0.6),
    ),
    combine="clipped_mean",
    min_exposures=3,
    requested_by="person:ada",
)

PLANNED = StackPlanned(
    stack_id=STACK_ID,
    request_id=REQUEST_ID,
    name=STACK_NAME,
    filter=FILTER,
    image_ids=MEMBERS,
    n_left_out=2,
    grid=Grid(
        crval_ra_deg=FIELD.ra_deg,
        crval_dec_deg=FIELD.dec_deg,
        crpix_x=9_750.5,
        crpix_y=9_755.5,
        pixel_scale_arcsec=0.1867,
        width_px=19_500,
        height_px=19_510,
    ),
    combine="clipped_mean",
)

JOINTLY_CALIBRATED = StackCalibrated(
    stack_id=STACK_ID,
    name=STACK_NAME,
    reference=REFERENCE,
    n_members=len(MEMBERS),
    n_internal_matches=88_410,
    internal_rms_ra_mas=9.8,
    internal_rms_dec_mas=9.1,
    flux_scatter_mag=0.006,
    n_reference=31_870,
    external_rms_ra_mas=19.8,
    external_rms_dec_mas=19.1,
    chi2_internal=1.02,
    chi2_external=1.05,
    contexts=("megacam|r|19AQ05",),
    anchors=(IMAGE_ID,),
)

PART_WANTED = StackPartWanted(stack_id=STACK_ID, name=STACK_NAME, step="tile", number=17, of=74)

STALE = StackStale(
    stack_id=STACK_ID,
    name=STACK_NAME,
    image_id=IMAGE_ID,
    why="solved anew: with what its run taught since",
)

COADDED = StackCoadded(
    stack_id=STACK_ID,
    name=STACK_NAME,
    filter=FILTER,
    image=_STACK_IMAGE,
    weight=_STACK_WEIGHT,
    n_exposures=len(MEMBERS),
    exposure_time_s=_STACK_EXPOSURE_S,
    zeropoint_mag=30.0,
    rejected_pixels=1_204_118,
)

DONE = StackDone(
    stack_id=STACK_ID,
    request_id=REQUEST_ID,
    name=STACK_NAME,
    filter=FILTER,
    image=_STACK_IMAGE,
    weight=_STACK_WEIGHT,
    catalogue=_STACK_CATALOGUE,
    preview=_STACK_PREVIEW,
    n_exposures=len(MEMBERS),
    exposure_time_s=_STACK_EXPOSURE_S,
    zeropoint_mag=30.0,
    grade="A",
    graded_by="policy:default@1",
    metrics=Metrics(
        fwhm_arcsec=0.79,
        fwhm_px=4.23,
        ellipticity=0.032,
        n_sources=384_581,
        n_stars=9_120,
        background_adu=0.02,
        background_rms_adu=1.38,
        limiting_flux_adu=24.1,
        limiting_mag=26.54,
        saturated_fraction=0.0003,
        usable_fraction=0.962,
        pixel_scale_arcsec=0.1867,
    ),
)

EXPORTED = StackExported(
    stack_id=STACK_ID,
    request_id=REQUEST_ID,
    name=STACK_NAME,
    destination=f"/data/delivered/{STACK_NAME}",
    files=tuple(
        Receipt(
            name=product.path.rsplit("/", 1)[-1],
            path=f"/data/delivered/{STACK_NAME}/{product.path.rsplit('/', 1)[-1]}",
            sha256=product.sha256,
            size_bytes=product.size_bytes,
            kind=product.kind,
        )
        for product in (_STACK_IMAGE, _STACK_WEIGHT, _STACK_CATALOGUE, _STACK_PREVIEW)
    ),
)

NOT_STACKED = StackFailed(
    request_id="d1-u-2019a",
    name="D1.u.2019A",
    stage="stack",
    code="too_few_exposures",
    message="The selection holds 1 exposure; the request asks for at least 3.",
    numbers={"n_selected": 1, "min_exposures": 3},
    dead_letter_id=derived_id("example", "dead letter", "d1-u-2019a"),
    heard="stack.requested",
)

FLAT = "19AQ02.flat.r.40.00"
FLAT_URI = f"cadc:CFHT/{FLAT}.fits.fz"

FLAT_WANTED = AuxiliaryWanted(
    name=FLAT, kind="flat", keyword="IMRED_FF", image_id=IMAGE_ID, uris=(FLAT_URI, f"cadc:CFHT/{FLAT}.fits")
)

FLAT_REGISTERED = AuxiliaryRegistered(
    name=FLAT,
    kind="flat",
    state="here",
    file=_product(f"auxiliary/flat/{FLAT}.fits.fz", "flat", 612_401_280),
    uri=FLAT_URI,
)

TO_BE_MOVED = PlacementWanted(image_id=IMAGE_ID, name=NAME, run="19AQ02", filter=FILTER, why="placed")

MOVED = PlacementMoved(
    image_id=IMAGE_ID,
    name=NAME,
    run="19AQ02",
    filter=FILTER,
    from_node="spica1",
    to_node="spica2",
    files=6,
    size_bytes=_FILE.size_bytes + 56_363_414,
    batch=BATCH,
)

LOST = PlacementLost(
    image_id=IMAGE_ID,
    name=NAME,
    run="19AQ02",
    filter=FILTER,
    node="spica1",
    uri=f"cadc:CFHT/{NAME}.fits.fz",
)

FETCHING = ImageProgress(
    name=NAME,
    stage="fetch",
    uri=f"cadc:CFHT/{NAME}.fits.fz",
    done=184_549_376,
    total=368_121_600,
    per_second=21_400_000.0,
)

STACKING = StackProgress(stack_id=STACK_ID, name=STACK_NAME, step="tile", done=18, total=74, per_second=0.42)

EXAMPLES: dict[str, Message] = {
    BY_MODEL[type(message)].name: message
    for message in (
        ARRIVED,
        WANTED,
        VERIFIED,
        REJECTED,
        GRADED,
        CALIBRATED,
        CALIBRATION_REQUESTED,
        FAILED,
        FLAT_WANTED,
        FLAT_REGISTERED,
        TO_BE_MOVED,
        MOVED,
        LOST,
        REQUESTED,
        PLANNED,
        JOINTLY_CALIBRATED,
        PART_WANTED,
        COADDED,
        STALE,
        DONE,
        EXPORTED,
        NOT_STACKED,
        FETCHING,
        STACKING,
    )
}
"""Subject name to its example."""
