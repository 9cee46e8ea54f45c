"""The pictures of the page below the large one, in the order in which they are looked at; and which are missing, and why."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from spica_calib.report import diagrams, skyplane
from spica_calib.report.remarks import Seen
from spica_calib.report.skyplane import Marks
from spica_calib.report.words import angle, plain, signed
from spica_calib.science.diagnostics.geometry import distortion, model_change
from spica_calib.science.diagnostics.residuals import against_magnitude, cloud
from spica_calib.science.diagnostics.zeropoints import extinction, magnitude_residuals, zero_points


@dataclass(frozen=True, slots=True)
class Picture:
    """One picture, or (without svg) why there is none."""

    id: str
    title: str
    svg: str
    caption: str


def pictures(seen: Seen, noted: Marks) -> tuple[list[Picture], list[Picture]]:
    """Pictures, and those that cannot be drawn with the reason as caption."""
    every = [*_residuals(seen, noted), *_magnitude(seen), *_geometry(seen, noted), *_photometry(seen)]
    return [one for one in every if one.svg], [one for one in every if not one.svg]


_ALONE = "No source of it was seen in another exposure."
_NO_STARS = "No reference star took part in the solution."


def _residuals(seen: Seen, noted: Marks) -> Iterator[Picture]:
    outer, inner = cloud(seen.plane, "external"), cloud(seen.plane, "internal")
    title = "External residuals, both axes"
    if outer is None:
        few = _NO_STARS if seen.external is None else "Fewer than three stars were kept."
        yield Picture("external-cloud", title, "", few)
    else:
        ra, dec = outer.centre_mas
        words = f"{len(outer.residual_mas):,} stars; medians {signed(ra)} and {signed(dec)} mas; "
        words += f"{outer.n_outside} outside of the frame. Curves: Gaussians of the robust scatter."
        yield Picture("external-cloud", title, diagrams.cloud_picture(outer, "external"), words)
    title = "Internal residuals over the field"
    if seen.internal is None or inner is None:
        yield Picture("internal", "Internal residuals", "", _ALONE)
        return
    if seen.external is not None:
        svg = skyplane.vector_picture(seen.plane, seen.internal, "internal", noted, skyplane.NORMAL)
        words = "Between exposures: mean of a source's detections less the detection. Strong arrows: more than chance."
        yield Picture("internal", title, svg, words)
    words = f"{len(inner.residual_mas):,} detections of sources that several exposures see, scaled to single ones."
    svg = diagrams.cloud_picture(inner, "internal")
    yield Picture("internal-cloud", "Internal residuals, both axes", svg, words)


def _magnitude(seen: Seen) -> Iterator[Picture]:
    found = [(kind, against_magnitude(seen.plane, kind)) for kind in ("external", "internal")]
    rows = [(kind, one) for kind, one in found if one is not None]
    if not rows:
        yield Picture("scatter", "Residuals against magnitude", "", "Too few stars for two bins of ten.")
        return
    d = seen.plane.detections
    title = "magnitude (AB)" if d.calibrated else "−2.5 log₁₀ (flux / adu)"
    floor = 1000.0 * seen.calibration.options.floor_px * seen.plane.pixel_scale_arcsec
    words = "In bins of equal numbers. Dashed: what the errors say; measured above it: errors are too small."
    yield Picture(
        "scatter", "Residuals against magnitude", diagrams.magnitude_picture(rows, floor, title), words
    )
    words = "1 is what the errors say; robust, each axis."
    yield Picture("chi2", "Chi² against magnitude", diagrams.chi2_picture(rows, title), words)


def _geometry(seen: Seen, noted: Marks) -> Iterator[Picture]:
    bends = distortion(seen.plane)
    if bends is None:
        yield Picture("scale", "Distortion", "", "The exposure has no CCD.")
        return
    low, high = bends.scale_range_arcsec
    if high / low - 1.0 < 1e-6:
        yield Picture("scale", "Distortion", "", f"There is none: one scale of {low:.4f}″ per px everywhere.")
    else:
        words = f"From {low:.5f}″ to {high:.5f}″ per px."
        yield Picture("scale", "Pixel scale over the field", skyplane.scale_picture(seen.plane, bends), words)
        most = angle(1000.0 * bends.largest_bend_arcsec)
        words = f"What the best linear map of each CCD would leave: up to {most}."
        yield Picture("bend", "Distortion within the CCDs", skyplane.bend_picture(seen.plane, bends), words)
    context = seen.calibration.exposures[seen.chosen[0]].context
    now, before = seen.calibration.astrometry.models.get(context), seen.calibration.previous.get(context)
    change = model_change(seen.plane, now, before) if now and before else None
    title = "Change of the model"
    if change is None:
        why = (
            "There is no model of this context yet."
            if now is None
            else "There is no version before to compare with."
        )
        yield Picture("change", title, "", why)
    elif change.largest_mas < 1e-3:
        yield Picture("change", title, "", "The solution left the model as it was.")
    else:
        words = f"Model now less the version before, but for shift, turn and stretch: {angle(change.rms_mas)} rms per axis, "
        words += f"at most {angle(change.largest_mas)}. Strong: more than 4σ of both versions."
        yield Picture("change", title, skyplane.change_picture(seen.plane, change, noted), words)


def _photometry(seen: Seen) -> Iterator[Picture]:
    if seen.calibration.photometry is None:
        yield Picture(
            "airmass", "Zero point and photometric residuals", "", "There is no photometric solution."
        )
        return
    points = zero_points(seen.calibration, seen.chosen)
    line = extinction(points)
    for x, key, title in (
        ("airmass", "airmass", "Zero point against airmass"),
        ("mjd_obs", "time", "Zero point against time"),
    ):
        svg = diagrams.zeropoint_picture(points, x, line)
        if svg is None:
            n = len(points)
            what = "airmass" if x == "airmass" else "time"
            why = (
                "No zero point was found."
                if not n
                else f"Zero point and {what} are known of one exposure only, or of none."
            )
            yield Picture(key, title, "", why)
            continue
        words = f"{len(points)} exposures; bars are standard errors."
        if line is not None and x == "airmass":
            slope, sigma = signed(line.slope_mag, 3), plain(line.slope_sigma_mag, 3)
            words += f" Line: {slope} ± {sigma} mag per airmass, scatter {1000 * line.rms_mag:.1f} mmag"
            words += "; what lies far below was left out."
        yield Picture(key, title, svg, words)
    yield from _magnitude_residuals(seen)


def _magnitude_residuals(seen: Seen) -> Iterator[Picture]:
    rest = magnitude_residuals(seen.calibration, seen.chosen)
    if rest is None:
        yield Picture("mag-magnitude", "Photometric residuals", "", "No star has a residual magnitude.")
        return
    words = f"Mean or reference less calibrated magnitude, {int(np.count_nonzero(rest.kept)):,} stars kept."
    svg = diagrams.residual_picture(rest, rest.mag, "magnitude (AB)", "Residual magnitudes against magnitude")
    few = "Fewer than three stars."
    yield Picture(
        "mag-magnitude", "Photometric residuals against magnitude", svg or "", words if svg else few
    )
    svg = diagrams.residual_picture(
        rest, rest.colour_mag, "colour, mag", "Residual magnitudes against colour"
    )
    words = "A slope would mean that the colour term is wrong."
    yield Picture(
        "mag-colour", "Photometric residuals against colour", svg or "",
        words if svg else "The reference catalogue tells no colour of these stars.",
    )  # fmt: skip
    if len(seen.plane.names) > 1:
        svg = diagrams.ccd_residual_picture(rest, seen.plane.names, rest.kept)
        words = "What is left after the illumination was taken off."
        yield Picture(
            "mag-ccd", "Photometric residuals per CCD", svg or "", words if svg else "Fewer than five stars per CCD.",
        )  # fmt: skip
