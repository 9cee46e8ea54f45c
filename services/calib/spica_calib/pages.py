"""A solution as numbers for the store and as a page for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from spica_imaging.profiles import Profile

from spica_calib.exposures import Taken
from spica_calib.photometrywork import Calibrated, photometric_detections
from spica_calib.reference.area import ReferenceArea
from spica_calib.science.astrometry.problem import AstrometricSolution, InstrumentModel, Options
from spica_calib.science.diagnostics.inputs import Calibration, Photometry, earlier_zero_points
from spica_calib.science.diagnostics.numbers import numbers
from spica_calib.science.matching.located import Located
from spica_calib.science.photometry.problem import ExposureZeroPoint, PhotometricExposure
from spica_calib.science.photometry.referencing import reference_magnitudes
from spica_calib.science.stars import Stars


def calibration_of(
    images: Sequence[Taken],
    astrometry: AstrometricSolution,
    photometry: Calibrated,
    photometric: Sequence[PhotometricExposure],
    stars: Stars,
    profile: Profile,
    options: Options,
    located: Mapping[str, Located],
    previous: Mapping[str, InstrumentModel],
) -> Calibration:
    """All that is known of a solution. `photometric`: exposures of the photometric solution, in its order."""
    magnitudes = {
        name: reference_magnitudes(
            profile.photometry.references_for(name), stars.mags, stars.mag_errors, len(stars)
        )
        for name in {image.photometric.filter for image in images}
    }
    given = photometric_detections(
        [image.photometric for image in images],
        [image.fields for image in images],
        astrometry.detections,
        magnitudes,
    )
    titles = {image.astrometric.name: image.title for image in images}
    earlier = earlier_zero_points(image.photometric for image in images if image.astrometric.held)
    return Calibration(
        tuple(image.astrometric for image in images),
        astrometry,
        options,
        located,
        Photometry(tuple(photometric), given, photometry.solution),
        previous,
        tuple(replace(one, name=titles[one.name]) for one in earlier),
        1000.0 * stars.error_arcsec,
        titles,
    )


def figures(calibration: Calibration, exposure: int) -> dict[str, Any]:
    """Numbers of one exposure, as the diagnostics have them."""
    return numbers(calibration, exposure)


def anchor_figures(zero: ExposureZeroPoint) -> dict[str, Any]:
    """What an exposure's zero point stands on."""
    return {
        "anchor": zero.anchor,
        "is_anchor": zero.is_anchor,
        "anchor_why": zero.why,
        "zeropoint_sigma_mag": zero.sigma_mag,
        "zeropoint_scatter_mag": zero.scatter_mag,
        "absorption_mag": zero.absorption_mag,
        "n_photometric": zero.n_reference,
        "n_photometric_overlap": zero.n_overlap,
    }


def write_page(
    path: Path,
    name: str,
    calibration: Calibration,
    reference: ReferenceArea,
    epoch_year: float,
    engine: str,
    model_version: int | None,
    header: Mapping[str, object] | None,
    provenance: Sequence[tuple[str, str]],
    *,
    stack: bool,
) -> None:
    """Write the page of an image's, or of a stack's calibration, and beside it a small picture for lists (.png)."""
    from spica_calib.plots import write_plot
    from spica_calib.report.page import ReferenceUsed, Subject, write_image_page, write_stack_page

    subject = Subject(
        name,
        ReferenceUsed(reference.name, reference.sha256, epoch_year),
        engine,
        model_version,
        header,
        tuple(provenance),
    )
    if stack:
        write_stack_page(path, subject, calibration)
    else:
        write_image_page(path, subject, calibration, 0)
    write_plot(path.with_suffix(".png"), calibration, None if stack else 0)
