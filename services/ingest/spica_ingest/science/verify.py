"""The judgement whether a file is an exposure that the pipeline can use, and what its essentials are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from spica_imaging.frame import ccd_name, is_sky
from spica_imaging.profiles import Profile, profile_for

from spica_ingest.science.columns import Columns, Named, load_columns, named_auxiliaries
from spica_ingest.science.facts import FileFacts, Finding, HduFacts, HeaderValues
from spica_ingest.science.geometry import Geometry, locate
from spica_ingest.science.keywords import (
    RANGES,
    check_required,
    check_value,
    detector_assumed,
    present,
    time_of_day,
)
from spica_ingest.science.layout import ccds_of, check_layout, missing_names, mixed_exposures
from spica_ingest.science.place import Place, place_of_exposure
from spica_ingest.science.timing import check_times, utc_of_atomic
from spica_ingest.science.values import ObservedAt, as_number, as_observed_at, as_text

ASSUMED_EXPOSURE_TIME_S = 1.0


@dataclass(frozen=True, slots=True)
class CcdRecord:
    """What is kept of one CCD."""

    hdu: int
    name: str
    shape: tuple[int, int]
    header: HeaderValues
    footprint: tuple[float, ...] | None


@dataclass(frozen=True, slots=True)
class Exposure:
    """What is kept of a usable exposure."""

    profile: str
    instrument: str
    run: str
    filter: str
    object: str | None
    exposure_time_s: float
    mjd_obs: float | None
    airmass: float | None
    geometry: Geometry
    header: HeaderValues
    """The primary's values, overridden by the first CCD's."""
    ccds: tuple[CcdRecord, ...]
    primary: HeaderValues
    """The primary's values alone."""
    columns: Columns
    auxiliaries: tuple[Named, ...]
    place: Place


@dataclass(frozen=True, slots=True)
class Verdict:
    """Usable (`exposure` is there) or not (`reasons` tell why); `repairs` were made in the record."""

    exposure: Exposure | None
    reasons: tuple[Finding, ...]
    repairs: tuple[Finding, ...]


def judge(facts: FileFacts, profiles: Mapping[str, Profile]) -> Verdict:
    """Judge a file by what was found in it. All reasons are collected, not only the first."""
    reasons, repairs = list(facts.faults), list(facts.oddities)
    if not facts.hdus:
        return Verdict(None, tuple(reasons), tuple(repairs))
    primary = facts.hdus[0].header
    images = [hdu for hdu in facts.hdus if hdu.is_image and is_sky(hdu.header)]
    header = merge(primary, images[0].header) if images else dict(primary)
    profile = profile_for(header, profiles)
    ccds = ccds_of(profile, images)
    reasons += check_layout(profile, facts, ccds, repairs)
    if not ccds:
        return Verdict(None, tuple(reasons), tuple(repairs))
    reasons += check_required(profile, header)
    merged = [(ccd, merge(primary, ccd.header)) for ccd in ccds]
    geometry, against, repaired = locate(profile, header, merged)
    reasons += against
    repairs += repaired + missing_names(ccds) + detector_assumed(profile, merged)
    reasons += mixed_exposures(profile, primary, ccds)
    exposure_time_s = _exposure_time_s(profile, header, reasons, repairs)
    started = _started(profile, header, repairs)
    against, odd = check_times(profile, header, started, exposure_time_s)
    reasons += against
    repairs += odd
    if reasons or geometry is None:
        return Verdict(None, tuple(reasons), tuple(repairs))
    filter_name = _text(profile, header, profile.keywords.filter) or profile.default_filter
    columns, not_known = load_columns(profile, header, filter_name)
    repairs += not_known
    exposure = Exposure(
        profile=profile.name,
        instrument=as_text(header.get("INSTRUME", "")) or profile.name,
        run=_run(profile, header, started),
        filter=filter_name,
        object=_text(profile, header, profile.keywords.object),
        exposure_time_s=exposure_time_s,
        mjd_obs=_mjd(profile, header, started, repairs),
        airmass=_airmass(profile, header, repairs),
        geometry=geometry,
        header=header,
        ccds=_records(ccds, geometry),
        primary=primary,
        columns=columns,
        auxiliaries=named_auxiliaries(profile, header),
        place=place_of_exposure(profile, header, geometry, [ccd.shape for ccd in ccds]),
    )
    return Verdict(exposure, (), tuple(repairs))


def merge(primary: HeaderValues, extension: HeaderValues) -> dict[str, Any]:
    """Values of the primary, overridden by those of the extension (FITS INHERIT convention)."""
    structural = ("SIMPLE", "EXTEND", "NEXTEND", "CHECKSUM", "DATASUM", "INHERIT", "XTENSION")
    values = {
        keyword: value
        for keyword, value in primary.items()
        if keyword not in structural and not keyword.startswith(("NAXIS", "BITPIX"))
    }
    values.update({keyword: value for keyword, value in extension.items() if keyword not in structural})
    return values


def _text(profile: Profile, header: HeaderValues, keywords: tuple[str, ...]) -> str | None:
    found = present(profile, header, keywords)
    return as_text(found[1]) if found else None


def _exposure_time_s(
    profile: Profile, header: HeaderValues, reasons: list[Finding], repairs: list[Finding]
) -> float:
    found = present(profile, header, profile.keywords.exposure_time_s)
    if found is None:
        if not set(profile.keywords.exposure_time_s) & set(profile.keywords.required):
            repairs.append(
                Finding(
                    "exposure_time_assumed",
                    "The exposure time is not known: fluxes count as if it were one second.",
                    keyword=profile.keywords.exposure_time_s[0],
                    found="nothing",
                    expected="seconds",
                )
            )
        return ASSUMED_EXPOSURE_TIME_S
    keyword, value = found
    if keyword not in profile.keywords.required:
        reasons += check_value(profile, keyword, value, header)
    if isinstance(value, str) and as_number(value) is not None:
        repairs.append(
            Finding(
                "number_in_quotes", f"{keyword} is a number written as text.", keyword=keyword, found=value
            )
        )
    return as_number(value) or ASSUMED_EXPOSURE_TIME_S


def _started(profile: Profile, header: HeaderValues, repairs: list[Finding]) -> ObservedAt | None:
    found = present(profile, header, profile.keywords.date_obs)
    if found is None:
        return None
    started = as_observed_at(found[1], time_of_day(header))
    if started is not None and started.offset is not None:
        repairs.append(
            Finding(
                "date_obs_local_time",
                "DATE-OBS is in local time: converted to UTC by the offset it states.",
                keyword=found[0],
                found=str(found[1]),
                expected=started.utc.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            )
        )
    return started


def _mjd(
    profile: Profile, header: HeaderValues, started: ObservedAt | None, repairs: list[Finding]
) -> float | None:
    """MJD-OBS, or what atomic time or DATE-OBS make of it."""
    found = present(profile, header, profile.keywords.mjd_obs)
    number = as_number(found[1]) if found and not check_value(profile, *found, header) else None
    if number is not None:
        return number
    atomic = present(profile, header, profile.keywords.tai_s)
    seconds = as_number(atomic[1]) if atomic else None
    if (
        atomic is not None
        and seconds is not None
        and RANGES["mjd_obs"][0] < seconds / 86400.0 < RANGES["mjd_obs"][1]
    ):
        mjd, source = utc_of_atomic(seconds), f"{atomic[0]}, which is atomic time."
    elif started is not None:
        mjd = started.mjd
        source = "DATE-OBS" + (
            "." if started.has_time else ", which has no time: it is the beginning of that day."
        )
    else:
        return None
    repairs.append(
        Finding(
            "mjd_obs_computed",
            f"The Modified Julian Date was computed from {source}",
            keyword="MJD-OBS",
            found="nothing" if found is None else str(found[1]),
            expected=f"{mjd:.6f}",
        )
    )
    return mjd


def _airmass(profile: Profile, header: HeaderValues, repairs: list[Finding]) -> float | None:
    found = present(profile, header, profile.keywords.airmass)
    if found is None:
        return None
    wrong = check_value(profile, *found, header)
    repairs += [
        Finding(
            "airmass_unknown",
            f"{item.message} It counts as not known.",
            None,
            item.keyword,
            item.found,
            item.expected,
        )
        for item in wrong
    ]
    return None if wrong else as_number(found[1])


def _run(profile: Profile, header: HeaderValues, started: ObservedAt | None) -> str:
    """Run by keyword; an instrument without runs is filed by night."""
    run = _text(profile, header, profile.keywords.run)
    if run is not None:
        return run
    if not profile.keywords.run and started is not None:
        return started.night
    return profile.default_run


def _records(ccds: list[HduFacts], geometry: Geometry) -> tuple[CcdRecord, ...]:
    records = []
    for ccd, place in zip(ccds, geometry.footprints, strict=True):
        ny, nx = ccd.shape
        records.append(
            CcdRecord(
                hdu=ccd.index,
                name=ccd_name(ccd.header, ccd.index),
                shape=(ny, nx),
                header=ccd.header,
                footprint=place.corners if place else None,
            )
        )
    return tuple(records)
