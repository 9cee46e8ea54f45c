"""Whether the keywords that tell the time agree with each other."""

from __future__ import annotations

from spica_imaging.profiles import Profile

from spica_ingest.science.facts import Finding, HeaderValues
from spica_ingest.science.keywords import check_value, present
from spica_ingest.science.values import ObservedAt, as_number

DAY_S = 86400.0
MAX_NIGHT_OFF_DAYS = 1.5
"""A date that was not advanced at midnight, or a local one, is off by less: MJD-OBS is believed."""
MAX_READOUT_S = 900.0
"""An exposure may seem to end this much later than it lasted: shutter, read-out, writing."""
_SLACK_S = 2.0


def check_times(
    profile: Profile, header: HeaderValues, started: ObservedAt | None, exposure_time_s: float
) -> tuple[list[Finding], list[Finding]]:
    """Compare start by date with start by MJD, and MJD of the end with start and exposure time.

    Returns reasons against the exposure and findings that do no harm.
    """
    found = present(profile, header, profile.keywords.mjd_obs)
    mjd = as_number(found[1]) if found and not check_value(profile, *found, header) else None
    if found is None or mjd is None:
        return [], []
    reasons, repairs = _start(found[0], mjd, started)
    repairs += _end(profile, header, mjd, exposure_time_s)
    return reasons, repairs


def utc_of_atomic(seconds: float) -> float:
    """Modified Julian Date (UTC) of atomic time in seconds since MJD 0: leap seconds taken off."""
    from astropy.time import Time

    return float(Time(seconds / DAY_S, format="mjd", scale="tai").utc.mjd)


def _start(keyword: str, mjd: float, started: ObservedAt | None) -> tuple[list[Finding], list[Finding]]:
    if started is None:
        return [], []
    off_days = abs(mjd - started.mjd)
    if not started.has_time:  # only the day is known, in whatever time it was written
        harmless = off_days <= 2.0
        allowed_s = 2.0 * DAY_S
    else:
        allowed_s = _SLACK_S + _rounding_s(mjd)
        harmless = off_days * DAY_S <= allowed_s
    if harmless:
        return [], []
    finding = Finding(
        "time_inconsistent",
        f"{keyword} and DATE-OBS tell different times"
        + ("." if off_days > MAX_NIGHT_OFF_DAYS else f": {keyword} is believed."),
        keyword=keyword,
        found=f"{mjd}, {off_days * DAY_S:.1f} s from DATE-OBS",
        expected=f"{started.mjd:.6f} within {allowed_s:.1f} s",
    )
    return ([finding], []) if off_days > MAX_NIGHT_OFF_DAYS else ([], [finding])


def _rounding_s(mjd: float) -> float:
    """Half of the last digit that MJD was written with, in seconds."""
    _, _, digits = repr(mjd).partition(".")
    return 0.5 * 10.0 ** -len(digits) * DAY_S


def _end(profile: Profile, header: HeaderValues, mjd: float, exposure_time_s: float) -> list[Finding]:
    found = present(profile, header, profile.columns.mjd_end)
    end = as_number(found[1]) if found else None
    if found is None or end is None:
        return []
    lasted_s = (end - mjd) * DAY_S
    slack_s = _SLACK_S + _rounding_s(mjd) + _rounding_s(end)
    if exposure_time_s - slack_s <= lasted_s <= exposure_time_s + MAX_READOUT_S + slack_s:
        return []
    return [
        Finding(
            "time_inconsistent",
            f"{found[0]} does not fit start and exposure time: it is not used.",
            keyword=found[0],
            found=f"{end}, {lasted_s:.1f} s after the start",
            expected=f"{exposure_time_s:g} to {exposure_time_s + MAX_READOUT_S:g} s after the start",
        )
    ]
