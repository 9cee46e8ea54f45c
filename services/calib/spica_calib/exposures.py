"""From images, their catalogues and headers to the exposures that the solvers take."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from spica_imaging.profiles import Profile
from spica_imaging.wcs import TpvWcs

from spica_calib.errors import CalibrationFailed
from spica_calib.fields import fields_of, read_catalogue
from spica_calib.heads import read_head_names, read_wcs
from spica_calib.photometrywork import photometric_exposure
from spica_calib.records import Facts, SolvedImage
from spica_calib.science.astrometry.problem import Exposure, Options
from spica_calib.science.photometry.problem import PhotometricExposure
from spica_calib.science.stars import CcdField, julian_year
from spica_calib.zenith import zenith_of


@dataclass(frozen=True, slots=True)
class Taken:
    """One image as both solvers take it, with the catalogue that it comes from."""

    astrometric: Exposure
    photometric: PhotometricExposure
    catalogue: Path
    title: str
    """What people call it: names of exposures are ids here."""

    @property
    def fields(self) -> tuple[CcdField, ...]:
        """Its CCDs."""
        return self.astrometric.ccds


def options_of(profiles: Sequence[Profile]) -> Options:
    """How images of these instruments are solved together: the highest degree that one of them asks for."""
    return Options(degree=max(profile.astrometry.distortion_degree for profile in profiles))


def new_image(
    facts: Facts,
    context: str,
    fields: Sequence[CcdField],
    wcs: Sequence[TpvWcs],
    epoch_year: float,
    catalogue: Path,
) -> Taken:
    """An image that was located, and is to be solved."""
    ccds = tuple(replace(field, wcs=one) for field, one in zip(fields, wcs, strict=True))
    return _taken(facts, context, ccds, epoch_year, catalogue, held=False)


def solved_image(
    image: SolvedImage, profile: Profile, context: str, epoch_year: float | None, *, held: bool
) -> Taken:
    """An image that was solved before: with its own WCS, to be held or to be improved.

    `epoch_year`: where its header tells no time. Raises `CalibrationFailed` (`bad_catalogue`, `bad_header`).
    """
    names = read_head_names(image.head)
    wcs = read_wcs(image.head)
    fields = fields_of(read_catalogue(image.catalogue), profile, names, image.psf_beta, wcs, None)
    own = {
        "own_zeropoint_mag": image.zeropoint_mag,
        "own_zeropoint_sigma_mag": image.zeropoint_sigma_mag,
        "own_anchor": image.anchor,
    }
    epoch = epoch_of(image.facts)
    if epoch is None:
        epoch = epoch_year if epoch_year is not None else 2000.0
    return _taken(image.facts, context, tuple(fields), epoch, image.catalogue, held=held, **own)


def epoch_of(facts: Facts) -> float | None:
    """Julian year of an exposure; None where its header does not tell."""
    return julian_year(facts.mjd_obs) if facts.mjd_obs is not None else None


def _taken(
    facts: Facts,
    context: str,
    ccds: tuple[CcdField, ...],
    epoch_year: float,
    catalogue: Path,
    *,
    held: bool,
    **own: Any,
) -> Taken:
    if facts.exposure_time_s <= 0:
        raise CalibrationFailed(
            "bad_exposure_time",
            f"{facts.name} has an exposure time of {facts.exposure_time_s:g} s: its flux means nothing. Mend the header, "
            "and bring the image in again.",
            {"exposure_time_s": facts.exposure_time_s},
        )
    return Taken(
        # Ids differ where names are the same: two versions of one archive file.
        Exposure(facts.image_id, context, ccds, epoch_year, zenith_of(facts), held),
        photometric_exposure(
            name=facts.image_id,
            context=context,
            filter=facts.filter,
            exposure_time_s=facts.exposure_time_s,
            ccds=[ccd.name for ccd in ccds],
            facts=facts,
            **own,
        ),
        catalogue,
        facts.name,
    )
