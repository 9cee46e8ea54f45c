"""What the keywords must be: type and range of each, by what the instrument's profile calls them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from spica_imaging.profiles import Profile

from spica_ingest.science.facts import Finding, HduFacts, HeaderValues
from spica_ingest.science.values import as_angle, as_number, as_observed_at, as_text

RANGES: dict[str, tuple[float, float]] = {
    "exposure_time_s": (0.0, 1e6),
    "mjd_obs": (10000.0, 100000.0),
    "airmass": (1.0, 40.0),
    "ra": (-360.0, 360.0),
    "dec": (-90.0, 90.0),
    "pixel_scale_arcsec": (1e-3, 1e3),
    "gain": (0.0, 1e4),
    "read_noise": (0.0, 1e5),
    "saturation": (0.0, 1e12),
}
"""Lowest and highest possible value. Exposure time must be above zero: a bias frame is no exposure."""

_LOOSE_RANGES: dict[str, tuple[float, float]] = {"EQUINOX": (1800.0, 2100.0)}
_TEXTS = ("filter", "run", "object")
_TIME_KEYWORDS = ("UTC-OBS", "TIME-OBS", "UT-OBS", "UTC", "UT", "UTSHUT")


def present(profile: Profile, header: HeaderValues, keywords: Sequence[str]) -> tuple[str, Any] | None:
    """First of these keywords that has a value and not a sentinel, with its value."""
    for keyword in keywords:
        value = profile.value(header, (keyword,))
        if value is not None:
            return keyword, value
    return None


def time_of_day(header: HeaderValues) -> Any | None:
    """Value of whichever keyword holds the time that DATE-OBS may lack."""
    return next((header[keyword] for keyword in _TIME_KEYWORDS if header.get(keyword)), None)


def check_required(profile: Profile, header: HeaderValues) -> list[Finding]:
    """Every keyword that the profile requires: there, not a sentinel, of its type, in its range."""
    findings = []
    for keyword in profile.keywords.required:
        raw = header.get(keyword)
        if raw is None or str(raw).strip() == "":
            findings.append(
                Finding(
                    "keyword_missing",
                    f"{keyword} is required for {profile.title}.",
                    keyword=keyword,
                    found="nothing" if raw is None else "an empty value",
                    expected="a value",
                )
            )
        elif profile.value(header, (keyword,)) is None:
            findings.append(
                Finding(
                    "keyword_sentinel",
                    f"{keyword} holds a value that means: not known.",
                    keyword=keyword,
                    found=str(raw),
                    expected="a value",
                )
            )
        else:
            findings += check_value(profile, keyword, raw, header)
    return findings


def detector_assumed(profile: Profile, ccds: Sequence[tuple[HduFacts, HeaderValues]]) -> list[Finding]:
    """Gain, read noise and saturation that a CCD states but that cannot be: the profile's count. Said once for each."""
    findings = []
    uses = ["gain", "read_noise"] + ["saturation"] * profile.detector.trust_header_saturation
    for use in uses:
        for ccd, header in ccds:
            found = present(profile, header, getattr(profile.keywords, use))
            number = as_number(found[1]) if found else None
            if found is None or (number is not None and 0 < number <= RANGES[use][1]):
                continue
            findings.append(
                Finding(
                    "detector_assumed",
                    f"{found[0]} cannot be: the instrument profile's value counts.",
                    hdu=ccd.index,
                    keyword=found[0],
                    found=f"{found[1]!s:.60}",
                    expected=f"above 0, up to {RANGES[use][1]:g}",
                )
            )
            break
    return findings


def meaning(profile: Profile, keyword: str) -> str | None:
    """What the profile uses this keyword for (a field name of its `keywords`), if anything."""
    for name, keywords in profile.keywords.model_dump().items():
        if name not in ("required", "sentinels") and keyword in keywords:
            return str(name)
    return None


def check_value(profile: Profile, keyword: str, value: Any, header: HeaderValues) -> list[Finding]:
    """Type and range of one keyword, by its meaning; keywords without a known meaning may be anything."""
    use = meaning(profile, keyword)
    if use == "date_obs":
        readable = as_observed_at(value, time_of_day(header)) is not None
        return [] if readable else [_wrong_type(keyword, value, "a date such as 2005-03-21T09:15:00")]
    if use in _TEXTS:
        return [] if as_text(value) else [_wrong_type(keyword, value, "text")]
    bounds = RANGES.get(use or "") or _LOOSE_RANGES.get(keyword)
    return _check_number(keyword, value, use, bounds) if bounds else []


def _check_number(keyword: str, value: Any, use: str | None, bounds: tuple[float, float]) -> list[Finding]:
    number = as_number(value)
    if number is None and use in ("ra", "dec"):
        angle = as_angle(value, hours=use == "ra")
        number = angle.degrees if angle else None
    if number is None:
        return [_wrong_type(keyword, value, "a number")]
    low, high = bounds
    above_zero = use == "exposure_time_s"
    if low <= number <= high and not (above_zero and number == 0):
        return []
    return [
        Finding(
            "keyword_range",
            f"{keyword} is outside of what is possible.",
            keyword=keyword,
            found=str(value),
            expected=f"above {low:g}, up to {high:g}" if above_zero else f"{low:g} to {high:g}",
        )
    ]


def _wrong_type(keyword: str, value: Any, expected: str) -> Finding:
    return Finding(
        "keyword_type",
        f"{keyword} cannot be read as {expected}.",
        keyword=keyword,
        found=f"{value!s:.60}",
        expected=expected,
    )
