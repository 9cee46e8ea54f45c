"""Where the CCDs look: their WCS judged, their corners on the sky, or an approximate pointing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from spica_imaging.profiles import Profile
from spica_imaging.wcs import TpvWcs, WcsError

from spica_ingest.science.facts import Finding, HduFacts, HeaderValues
from spica_ingest.science.keywords import RANGES, present
from spica_ingest.science.values import as_angle, as_number

SCALE_RANGE_ARCSEC = RANGES["pixel_scale_arcsec"]
MAX_SKEW_DEG = 5.0
MAX_AXIS_RATIO = 1.1
MAX_TO_TANGENT_POINT_DEG = 15.0
MAX_BACK_OFF_PX = 1.0
ROTATION_SLACK_DEG = 10.0
"""Beyond what the profile allows for matching: a WCS outside of it is not merely imprecise."""
MIN_APART = 0.5
"""Of a CCD's shorter side: closer to each other, two CCDs of a mosaic claim the same sky."""


@dataclass(frozen=True, slots=True)
class Footprint:
    """Where one CCD lies on the sky (ICRS, degrees)."""

    corners: tuple[float, ...]
    """ra, dec of the corners (1,1), (nx,1), (nx,ny), (1,ny), outer edges of the pixels."""
    centre: tuple[float, float]
    pixel_scale_arcsec: float


def footprint(
    header: HeaderValues, shape: tuple[int, ...], profile: Profile, hdu: int
) -> Footprint | Finding:
    """Judge one CCD's WCS; the footprint if it can be believed, else why it cannot."""
    try:
        wcs = TpvWcs.from_header(header)
    except WcsError as error:
        has_any = any(str(header.get(f"CTYPE{axis}", "")).strip() for axis in (1, 2))
        return Finding(
            "wcs_unreadable" if has_any else "wcs_missing",
            str(error),
            hdu=hdu,
            keyword="CTYPE1",
            found=str(header.get("CTYPE1", "nothing")),
            expected="RA---TAN, RA---TPV or RA---TAN-SIP",
        )
    ny, nx = shape
    x, y = [0.5, nx + 0.5, nx + 0.5, 0.5], [0.5, 0.5, ny + 0.5, ny + 0.5]
    with np.errstate(all="ignore"):
        matrix = wcs.local_matrix((nx + 1) / 2, (ny + 1) / 2) * 3600.0
        ra, dec = wcs.pixel_to_sky([*x, (nx + 1) / 2], [*y, (ny + 1) / 2])
    if not (np.isfinite(ra).all() and np.isfinite(dec).all() and np.isfinite(matrix).all()):
        return _implausible(
            hdu, "gives no position for some pixels", "not a number", "a position for every pixel"
        )
    with np.errstate(all="ignore"):
        back = np.subtract(wcs.sky_to_pixel(ra[:4], dec[:4]), (x, y))
    off = float(abs(back).max())
    if not off <= MAX_BACK_OFF_PX:
        return _implausible(
            hdu, "cannot be inverted", f"{off:.3g} px off at a corner", "the pixel one began with"
        )
    away = _separation_deg((ra[4], dec[4]), wcs.crval)
    if away > MAX_TO_TANGENT_POINT_DEG:
        return _implausible(
            hdu, "has its tangent point far from the CCD", f"{away:.1f} deg", "15 deg at most"
        )
    fault = _judge_matrix(matrix, profile, header, hdu)
    if fault is not None:
        return fault
    corners = tuple(float(value) for pair in zip(ra[:4], dec[:4], strict=True) for value in pair)
    scale = math.sqrt(abs(float(np.linalg.det(matrix))))
    return Footprint(corners, (float(ra[4]), float(dec[4])), scale)


def _judge_matrix(
    matrix: np.ndarray[tuple[int, ...], np.dtype[np.float64]],
    profile: Profile,
    header: HeaderValues,
    hdu: int,
) -> Finding | None:
    """Scale, squareness and parity of d(xi, eta)/d(x, y), arcsec per pixel, at the CCD's centre."""
    determinant = float(np.linalg.det(matrix))
    scale = math.sqrt(abs(determinant))
    expected = pixel_scale_arcsec(profile, header)
    low, high = SCALE_RANGE_ARCSEC
    if expected is not None:
        tolerance = 1.0 + profile.pointing.scale_tolerance
        low, high = expected / tolerance, expected * tolerance
    if not low <= scale <= high:
        return _implausible(
            hdu, "has an impossible scale", f"{scale:.4g} arcsec/px", f"{low:.4g} to {high:.4g} arcsec/px"
        )
    x_axis, y_axis = matrix[:, 0], matrix[:, 1]
    ratio = float(np.hypot(*x_axis) / np.hypot(*y_axis))
    sine = min(1.0, abs(determinant) / float(np.hypot(*x_axis) * np.hypot(*y_axis)))
    skew = 90.0 - math.degrees(math.asin(sine))
    if skew > MAX_SKEW_DEG or not 1 / MAX_AXIS_RATIO <= ratio <= MAX_AXIS_RATIO:
        return _implausible(
            hdu,
            "does not have square pixels",
            f"axis ratio {ratio:.3f}, skew {skew:.1f} deg",
            "ratio 1, skew 0",
        )
    turned = _turned_deg(matrix, profile)
    if turned > profile.pointing.rotation_tolerance_deg + ROTATION_SLACK_DEG:
        return _implausible(
            hdu,
            "has an impossible orientation",
            f"{turned:.1f} deg off",
            f"+y at position angle {profile.pointing.rotation_deg:g} deg, or opposite, within "
            f"{profile.pointing.rotation_tolerance_deg + ROTATION_SLACK_DEG:g} deg",
        )
    mirrored = determinant > 0
    if (profile.pointing.flip == "no" and mirrored) or (profile.pointing.flip == "yes" and not mirrored):
        return _implausible(
            hdu,
            "has the wrong parity",
            "mirrored" if mirrored else "as seen on the sky",
            "as seen on the sky" if mirrored else "mirrored",
        )
    return None


def _turned_deg(matrix: np.ndarray[tuple[int, ...], np.dtype[np.float64]], profile: Profile) -> float:
    """How far +y is from where the profile has it; half of a mosaic's CCDs may be upside down."""
    angle = math.degrees(math.atan2(float(matrix[0, 1]), float(matrix[1, 1])))
    return abs((angle - profile.pointing.rotation_deg + 90.0) % 180.0 - 90.0)


def _judge_together(
    profile: Profile, ccds: Sequence[tuple[HduFacts, HeaderValues]], found: Sequence[Footprint]
) -> list[Finding]:
    """Whether the CCDs of a mosaic lie side by side within its field."""
    reach = profile.pointing.field_radius_deg
    if reach is None or len(found) < 2:
        return []
    vectors = np.array([_vector(*item.centre) for item in found])
    middle = _vector(*middle_of([item.centre for item in found]))
    cosines = np.clip(vectors @ vectors.T, -1.0, 1.0)
    np.fill_diagonal(cosines, -1.0)
    findings = []
    for (ccd, _), item, vector, near in zip(ccds, found, vectors, cosines, strict=True):
        from_middle = math.degrees(math.acos(max(-1.0, min(1.0, float(vector @ middle)))))
        to_next = math.degrees(math.acos(float(near.max())))
        side = min(ccd.shape) * item.pixel_scale_arcsec / 3600.0
        if from_middle > reach:
            findings.append(
                _implausible(
                    ccd.index,
                    "puts the CCD outside of the field",
                    f"{from_middle:.2f} deg off",
                    f"{reach:g} deg at most",
                )
            )
        elif to_next < MIN_APART * side:
            findings.append(
                _implausible(
                    ccd.index,
                    "puts the CCD where another one is",
                    f"{to_next * 3600:.1f} arcsec from another",
                    f"{MIN_APART * side * 3600:.0f} arcsec or more",
                )
            )
    return findings


def _off_pointing(profile: Profile, header: HeaderValues, found: Sequence[Footprint]) -> list[Finding]:
    """Where WCS and telescope disagree on the field, the WCS is believed, and it is said."""
    place = pointing(profile, header)
    if place is None:
        return []
    middle = middle_of([item.centre for item in found])
    off = _separation_deg(middle, (place.ra_deg, place.dec_deg))
    allowed = (profile.pointing.field_radius_deg or 1.0) + profile.pointing.radius_arcmin / 60.0
    if off <= allowed:
        return []
    return [
        Finding(
            "pointing_off_wcs",
            "The telescope's pointing is not where the WCS looks: the WCS is believed.",
            keyword=place.keywords[0],
            found=f"{off:.2f} deg apart",
            expected=f"{allowed:.2f} deg at most",
        )
    ]


def _implausible(hdu: int, what: str, found: str, expected: str) -> Finding:
    return Finding("wcs_implausible", f"The WCS {what}.", hdu=hdu, found=found, expected=expected)


def _separation_deg(first: tuple[float, float], second: tuple[float, float]) -> float:
    return math.degrees(math.acos(max(-1.0, min(1.0, float(np.dot(_vector(*first), _vector(*second)))))))


def _vector(ra_deg: float, dec_deg: float) -> tuple[float, float, float]:
    ra, dec = math.radians(ra_deg), math.radians(dec_deg)
    return math.cos(dec) * math.cos(ra), math.cos(dec) * math.sin(ra), math.sin(dec)


def middle_of(places: list[tuple[float, float]]) -> tuple[float, float]:
    """Mean direction of sky positions (ra, dec in deg); safe across RA 0 and at the poles."""
    x, y, z = np.mean([_vector(*place) for place in places], axis=0)
    ra = math.degrees(math.atan2(y, x)) % 360.0
    return (0.0 if ra >= 360.0 else ra), math.degrees(math.atan2(z, math.hypot(x, y)))


def pixel_scale_arcsec(profile: Profile, header: HeaderValues) -> float | None:
    """Pixel scale by header keyword, else by profile; None where neither knows."""
    found = present(profile, header, profile.keywords.pixel_scale_arcsec)
    number = as_number(found[1]) if found else None
    if number is not None and SCALE_RANGE_ARCSEC[0] <= number <= SCALE_RANGE_ARCSEC[1]:
        return number
    return profile.detector.pixel_scale_arcsec


@dataclass(frozen=True, slots=True)
class Pointing:
    """An approximate pointing by keywords (degrees), and the keywords it came from."""

    ra_deg: float
    dec_deg: float
    keywords: tuple[str, str]
    sexagesimal: bool


def pointing(profile: Profile, header: HeaderValues) -> Pointing | None:
    """First pair of usable coordinates; CRVALi counts only where CTYPEi says that it is one."""
    right_ascension = _coordinate(profile, header, profile.keywords.ra, "RA", hours=True)
    declination = _coordinate(profile, header, profile.keywords.dec, "DEC", hours=False)
    if right_ascension is None or declination is None:
        return None
    (ra_keyword, ra, ra_text), (dec_keyword, dec, dec_text) = right_ascension, declination
    # Twice: a tiny number below zero becomes 360 the first time.
    return Pointing(ra % 360.0 % 360.0, dec, (ra_keyword, dec_keyword), ra_text or dec_text)


def _coordinate(
    profile: Profile, header: HeaderValues, keywords: tuple[str, ...], axis: str, *, hours: bool
) -> tuple[str, float, bool] | None:
    low, high = RANGES["ra" if hours else "dec"]
    for keyword in keywords:
        value = profile.value(header, (keyword,))
        if keyword.startswith("CRVAL") and not str(header.get(f"CTYPE{keyword[5:]}", "")).startswith(axis):
            continue
        angle = as_angle(value, hours=hours) if value is not None else None
        if angle is not None and low <= angle.degrees <= high:
            return keyword, angle.degrees, angle.sexagesimal
    return None


@dataclass(frozen=True, slots=True)
class Geometry:
    """Where an exposure points, and how well that is known."""

    wcs: str
    """`full`: every CCD has a WCS to be believed; `pointing`: only a rough pointing."""
    ra_deg: float
    dec_deg: float
    footprints: tuple[Footprint | None, ...]


def locate(
    profile: Profile, header: HeaderValues, ccds: Sequence[tuple[HduFacts, HeaderValues]]
) -> tuple[Geometry | None, list[Finding], list[Finding]]:
    """Geometry of an exposure, reasons against it, and repairs.

    `header` is the exposure's (primary and first CCD), `ccds` each CCD with its merged header. A WCS
    that is missing or cannot be believed in some CCD is given up for all of them, for the pointing.
    """
    found = [footprint(merged, ccd.shape, profile, ccd.index) for ccd, merged in ccds]
    good = tuple(item for item in found if isinstance(item, Footprint))
    faults = [item for item in found if isinstance(item, Finding)] or _judge_together(profile, ccds, good)
    if not faults:
        ra, dec = middle_of([item.centre for item in good])
        return Geometry("full", ra, dec, good), [], _off_pointing(profile, header, good)
    place = pointing(profile, header)
    if place is None:
        keywords = "/".join((*profile.keywords.ra, *profile.keywords.dec))
        return None, [*_first_of_each(faults), _no_pointing(keywords)], []
    if pixel_scale_arcsec(profile, header) is None:
        return None, [*_first_of_each(faults), _no_scale(profile)], []
    repairs = _first_of_each(faults)
    if place.sexagesimal:
        repairs.append(
            Finding(
                "pointing_sexagesimal",
                "The pointing was read from sexagesimal text.",
                keyword=place.keywords[0],
                found=str(header.get(place.keywords[0])),
                expected=f"{place.ra_deg:.6f} deg",
            )
        )
    nowhere: tuple[Footprint | None, ...] = tuple(None for _ in ccds)
    return Geometry("pointing", place.ra_deg, place.dec_deg, nowhere), [], repairs


def _first_of_each(faults: list[Finding]) -> list[Finding]:
    """One finding per code, saying how many CCDs it is about."""
    chosen: dict[str, Finding] = {}
    for fault in faults:
        chosen.setdefault(fault.code, fault)
    return list(chosen.values())


def _no_pointing(keywords: str) -> Finding:
    return Finding(
        "no_pointing",
        "Neither a WCS nor an approximate pointing tells where this looks.",
        keyword=keywords,
        found="nothing usable",
        expected="a WCS in every CCD, or RA and Dec in degrees or sexagesimal",
    )


def _no_scale(profile: Profile) -> Finding:
    return Finding(
        "pixel_scale_unknown",
        "There is a pointing but no WCS, and nothing tells the pixel scale.",
        keyword="/".join(profile.keywords.pixel_scale_arcsec) or None,
        found="nothing",
        expected="arcsec per pixel, in the header or in an instrument profile",
    )
