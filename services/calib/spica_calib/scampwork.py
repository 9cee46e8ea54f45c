"""SCAMP as another engine: the same exposures and stars in, the same kind of solution out.

SCAMP (Bertin 2006, ASP Conf. 351, 112) runs as a program of its own, in a folder of its own. What it returns, one WCS
per CCD, is judged by our association and our residuals, so that both engines' numbers mean the same; its own figures
go along. There is no way back from one engine to the other by itself: where SCAMP is not installed or does not
succeed, the error says so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from spica_imaging.wcs import TpvWcs

from spica_calib.errors import CalibrationFailed
from spica_calib.scamp_files import (
    CONFIGURATION,
    DEFAULTS,
    XML,
    ScampSettings,
    catalogue_name,
    configuration,
    write_configuration,
    write_inputs,
)
from spica_calib.scamp_output import Report, SolvedHead, read_report, read_solved
from spica_calib.scamp_process import EngineUnavailable, find_program, run_scamp
from spica_calib.scamp_residuals import as_solution
from spica_calib.science.astrometry.problem import AstrometricSolution, Exposure, InstrumentModel, Options
from spica_calib.science.matching.geometry import field_centre, field_radius
from spica_calib.science.matching.search import Prior
from spica_calib.science.photometry.problem import PhotometricExposure
from spica_calib.science.photometry.zeropoint import STACK_ZEROPOINT_MAG
from spica_calib.science.stars import Stars, separation_deg

__all__ = ["EngineUnavailable", "ScampRun", "ScampSettings", "run", "solve_with_scamp"]

_ROUNDS = 2
"""SCAMP solves, cuts outliers, and solves again."""


@dataclass(frozen=True, slots=True)
class ScampRun:
    """All that SCAMP told."""

    heads: tuple[SolvedHead, ...]
    """Per exposure."""
    report: Report
    parameters: Mapping[str, str]
    log: tuple[str, ...]

    @property
    def wcs(self) -> tuple[tuple[TpvWcs, ...], ...]:
        """Per exposure and CCD."""
        return tuple(head.wcs for head in self.heads)

    def zeropoints_mag(self, exposures: Sequence[PhotometricExposure]) -> tuple[float | None, ...]:
        """AB magnitude of 1 adu/s per exposure, as SCAMP's photometry has it.

        It is absolute only for exposures that are linked (`SolvedHead.linked`) to photometric ones; for the others only
        the differences mean something.
        """
        return tuple(
            STACK_ZEROPOINT_MAG - 2.5 * float(np.log10(head.flux_scale * exposure.exposure_time_s))
            if head.flux_scale
            else None
            for head, exposure in zip(self.heads, exposures, strict=True)
        )


def solve_with_scamp(
    exposures: Sequence[Exposure],
    catalogues: Sequence[Path],
    stars: Stars,
    options: Options,
    prior: Prior | None,
    scratch: Path,
    *,
    band: str | None = None,
    photometry: Sequence[PhotometricExposure] | None = None,
    known: Mapping[str, InstrumentModel] | None = None,
    settings: ScampSettings = DEFAULTS,
) -> AstrometricSolution:
    """Solve exposures with SCAMP; arguments as for `run`.

    `known` comes back as it is: SCAMP has no memory of instruments. Exposures that are `held` take part and keep their
    WCS. The notes tell SCAMP's version, figures and warnings. Errors as of `run`.
    """
    told = run(
        exposures,
        catalogues,
        stars,
        options,
        prior,
        scratch,
        band=band,
        photometry=photometry,
        settings=settings,
    )
    wcs = tuple(
        tuple(ccd.wcs for ccd in exposure.ccds) if exposure.held else found
        for exposure, found in zip(exposures, told.wcs, strict=True)
    )
    return as_solution(
        exposures,
        wcs,
        stars,
        options,
        models=known or {},
        rounds=_ROUNDS,
        notes=_notes(told, exposures, options),
    )


def run(
    exposures: Sequence[Exposure],
    catalogues: Sequence[Path],
    stars: Stars,
    options: Options,
    prior: Prior | None,
    scratch: Path,
    *,
    band: str | None = None,
    photometry: Sequence[PhotometricExposure] | None = None,
    settings: ScampSettings = DEFAULTS,
) -> ScampRun:
    """Run SCAMP on these exposures.

    Args:
        exposures: their CCDs' WCS are where SCAMP starts; `hdu` of a CCD is its number in the catalogue.
        catalogues: LDAC catalogue per exposure, as the quality service or source-extractor wrote it.
        stars: reference stars of the area, at any epoch.
        options: degree, floors, radius and clipping; the degree is taken as it is, and an atmosphere of the kind
            "polynomial" becomes a focal-plane polynomial per exposure; refraction SCAMP does not know.
        prior: how far the WCS can be off; None: they are good to less than `crossid_arcsec`, nothing is matched.
        scratch: an empty folder for SCAMP's files; they are left there.
        band: magnitudes of the stars by which SCAMP chooses the brightest.
        photometry: what headers tell; None: SCAMP does not solve for zero points.
        settings: program, time limit, threads.

    Raises:
        EngineUnavailable: `scamp_missing`.
        CalibrationFailed: `scamp_failed` with SCAMP's last lines; `no_match` with its contrasts; `bad_catalogue`.

    """
    if not exposures:
        raise ValueError("There are no exposures to solve.")
    program = find_program(settings.program)
    _check_reference(exposures, stars, prior)
    told = _pass(program, exposures, catalogues, stars, options, prior, scratch, band, photometry, settings)
    matched = told.report
    for number in range(2, settings.passes + 1):
        folder = scratch / f"pass{number}"
        folder.mkdir()
        placed = [_placed(exposure, wcs) for exposure, wcs in zip(exposures, told.wcs, strict=True)]
        told = _pass(program, placed, catalogues, stars, options, None, folder, band, photometry, settings)
    # What matching found stands in the first report only.
    fields = tuple(
        replace(last, match=first.match)
        for first, last in zip(matched.fields, told.report.fields, strict=True)
    )
    return replace(told, report=replace(told.report, fields=fields))


def _placed(exposure: Exposure, wcs: Sequence[TpvWcs]) -> Exposure:
    ccds = tuple(replace(ccd, wcs=one) for ccd, one in zip(exposure.ccds, wcs, strict=True))
    return replace(exposure, ccds=ccds)


def _pass(
    program: str,
    exposures: Sequence[Exposure],
    catalogues: Sequence[Path],
    stars: Stars,
    options: Options,
    prior: Prior | None,
    scratch: Path,
    band: str | None,
    photometry: Sequence[PhotometricExposure] | None,
    settings: ScampSettings,
) -> ScampRun:
    """One run of the program."""
    write_inputs(scratch, exposures, catalogues, stars, band, options, photometry)
    parameters = configuration(options, prior, settings, with_photometry=photometry is not None)
    write_configuration(scratch / CONFIGURATION, parameters)
    names = [catalogue_name(number) for number in range(len(exposures))]
    finished = run_scamp(program, [*names, "-c", CONFIGURATION], scratch, settings.time_limit_s)
    report = read_report(scratch / XML)
    if len(report.fields) != len(exposures):
        raise CalibrationFailed(
            "scamp_failed", f"SCAMP reports on {len(report.fields)} exposures of {len(exposures)}."
        )
    if prior is not None:
        _check_contrast(exposures, report, stars, settings.contrast_limit)
    _check_ties(exposures, report)
    heads = tuple(
        read_solved(scratch / catalogue_name(number, ".head"), [ccd.name for ccd in exposure.ccds])
        for number, exposure in enumerate(exposures)
    )
    return ScampRun(heads, report, parameters, finished.log)


def _check_reference(exposures: Sequence[Exposure], stars: Stars, prior: Prior | None) -> None:
    """SCAMP crashes where there is not one star to meet: say so instead."""
    margin_deg = (prior.shift_arcsec if prior is not None else 0.0) / 3600.0
    for exposure in exposures:
        centre = field_centre(exposure.ccds)
        radius = field_radius(exposure.ccds, *centre) + margin_deg
        if np.any(separation_deg(stars.ra_deg, stars.dec_deg, *centre) <= radius):
            return
    raise CalibrationFailed(
        "no_match",
        f"No reference star lies within the fields of the {len(exposures)} exposures.",
        {"engine": "scamp", "n_reference": len(stars)},
    )


def _check_contrast(exposures: Sequence[Exposure], report: Report, stars: Stars, limit: float) -> None:
    """Refuse what SCAMP matched by chance: it writes headers all the same, and ends with status 0."""
    contrast = [
        min(figures.match.scale_contrast, figures.match.shift_contrast) if figures.match else float("nan")
        for figures in report.fields
    ]
    # Written so that a NaN does not pass.
    poor = [number for number, value in enumerate(contrast) if not value >= limit]
    if not poor:
        return
    worst = min(poor, key=lambda number: contrast[number])
    match = report.fields[worst].match
    scale, shift = (match.scale_contrast, match.shift_contrast) if match else (None, None)
    names = ", ".join(exposures[number].name for number in poor[:5])
    raise CalibrationFailed(
        "no_match",
        f"SCAMP does not match {len(poor)} of {len(exposures)} exposures ({names}): its contrasts of scale and rotation "
        f"({scale}) and of the shift ({shift}) are to be {limit:g} or more.",
        {
            "engine": "scamp",
            "as_contrast": scale,
            "xy_contrast": shift,
            "contrast_limit": limit,
            "n_sources": report.fields[worst].n_detections,
            "n_reference": len(stars),
            "n_poor": len(poor),
        },
    )


def _check_ties(exposures: Sequence[Exposure], report: Report) -> None:
    """Without a star or a source in common an exposure's header is what it was: that is no solution."""
    for exposure, figures in zip(exposures, report.fields, strict=True):
        if not figures.n_reference and not figures.n_internal:
            raise CalibrationFailed(
                "no_match",
                f"SCAMP ties no source of {exposure.name} to a reference star or to another exposure.",
                {"engine": "scamp", "n_sources": figures.n_detections, "n_reference": 0},
            )


def _notes(told: ScampRun, exposures: Sequence[Exposure], options: Options) -> tuple[str, ...]:
    report = told.report
    notes = [f"SCAMP {report.version}, {report.duration_s:.0f} s, {len(report.groups)} groups of exposures."]
    for number, group in enumerate(report.groups, start=1):
        internal, external = group.sigma_internal_arcsec, group.sigma_reference_arcsec
        notes.append(
            f"SCAMP's own figures, group {number}: internal {1000 * internal[0]:.1f}, {1000 * internal[1]:.1f} mas "
            f"(chi2 {group.chi2_internal:.2f}, {group.n_internal} detections), reference {1000 * external[0]:.1f}, "
            f"{1000 * external[1]:.1f} mas (chi2 {group.chi2_reference:.2f}, {group.n_reference} stars)."
        )
    if options.atmosphere == "refraction" and any(exposure.zenith is not None for exposure in exposures):
        notes.append(
            "SCAMP does not model differential refraction: what is linear in it is in the affine maps."
        )
    if any(exposure.held for exposure in exposures):
        notes.append("SCAMP solved held exposures too; their WCS stay as they were.")
    notes += [f"SCAMP warns: {warning}" for warning in report.warnings[:10]]
    return tuple(notes)
