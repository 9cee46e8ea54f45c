"""WCS cards: reading the kinds that telescopes write, writing the one kind that we write."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from astropy.io import fits

from spica_imaging.polynomial import tpv_from_polynomials
from spica_imaging.wcs import IDENTITY_PV, MAX_DEGREE, N_PV, TpvWcs, WcsError, n_pv_for

_CTYPE = re.compile(r"^(?P<axis>RA--|DEC-)-(?P<projection>[A-Z]{3})(?P<distortion>-SIP)?\s*$")


def real_card(keyword: str, value: float, comment: str = "") -> fits.Card:
    """Make a card for a real number in FITS fixed format that always shows a decimal point.

    astropy writes 2e-05 as ``2E-05``, which SWarp 2.41 reads as something else.
    """
    if not math.isfinite(value):
        raise ValueError(f"{keyword} = {value} cannot be written to a FITS header.")
    text = ""
    for digits in (repr(float(value)).upper(), *(f"{value:.{n}G}" for n in range(16, 11, -1))):
        mantissa, exponent, power = digits.partition("E")
        if "." not in mantissa:
            mantissa += ".0"
        text = mantissa + exponent + power
        if len(text) <= 20:
            break
    return fits.Card.fromstring(f"{keyword:<8}= {text:>20}" + (f" / {comment}" if comment else ""))


def _real(header: Mapping[str, Any], keyword: str, default: float | None = None) -> float:
    value = header.get(keyword, default)
    try:
        return float(value)
    except (TypeError, ValueError) as error:
        raise WcsError(f"WCS keyword {keyword} is {value!r}, expected a number.") from error


def _axes(header: Mapping[str, Any]) -> tuple[int, int, str, bool]:
    """Numbers of the RA and Dec axes (1 or 2), the projection, and whether SIP applies."""
    found = [_CTYPE.match(str(header.get(f"CTYPE{axis}", ""))) for axis in (1, 2)]
    if found[0] is None or found[1] is None:
        raise WcsError(
            f"CTYPE1, CTYPE2 = {header.get('CTYPE1')!r}, {header.get('CTYPE2')!r}: no celestial WCS."
        )
    names = [match["axis"] for match in found if match]
    projections = {match["projection"] for match in found if match}
    if sorted(names) != ["DEC-", "RA--"] or len(projections) != 1 or not projections <= {"TAN", "TPV"}:
        raise WcsError(f"WCS of type {header['CTYPE1']!r}, {header['CTYPE2']!r} is not supported.")
    ra_axis = 1 + names.index("RA--")
    return ra_axis, 3 - ra_axis, projections.pop(), bool(found[0]["distortion"])


def _pixel_matrix(
    header: Mapping[str, Any], rows: tuple[int, int]
) -> tuple[tuple[float, float], tuple[float, float]]:
    """CD matrix from CDi_j, or PCi_j and CDELTi, or CDELTi and CROTA2; rows in the order asked for."""
    keys = [(i, j) for i in (1, 2) for j in (1, 2)]
    matrix = np.zeros((2, 2))
    if any(f"CD{i}_{j}" in header for i, j in keys):
        for i, j in keys:
            matrix[i - 1, j - 1] = _real(header, f"CD{i}_{j}", 0.0)
    else:
        if "CDELT1" not in header or "CDELT2" not in header:
            raise WcsError("WCS has neither CDi_j nor CDELT1 and CDELT2.")
        scale = np.array([_real(header, "CDELT1"), _real(header, "CDELT2")])
        for i, j in keys:
            matrix[i - 1, j - 1] = _real(header, f"PC{i}_{j}", 1.0 if i == j else 0.0)
        angle = math.radians(_real(header, "CROTA2", 0.0))
        if angle and not any(f"PC{i}_{j}" in header for i, j in keys):
            cos, sin = math.cos(angle), math.sin(angle)
            matrix = np.array([[cos, -sin * scale[1] / scale[0]], [sin * scale[0] / scale[1], cos]])
        matrix *= scale[:, None]
    first, second = matrix[rows[0] - 1], matrix[rows[1] - 1]
    return (float(first[0]), float(first[1])), (float(second[0]), float(second[1]))


def _tpv(header: Mapping[str, Any], axis: int) -> tuple[float, ...]:
    """Coefficients of one axis; PVi_1 counts as 1 where it is absent."""
    return tuple(_real(header, f"PV{axis}_{index}", IDENTITY_PV[index]) for index in range(N_PV))


def _has_tpv(header: Mapping[str, Any], projection: str, ra_axis: int, dec_axis: int) -> bool:
    """Whether PV cards mean TPV: under TAN, those of the RA axis up to 4 mean something else (paper II)."""
    if projection == "TPV":
        return True
    return any(f"PV{ra_axis}_{index}" in header for index in range(5, N_PV)) or any(
        f"PV{dec_axis}_{index}" in header for index in range(N_PV)
    )


def wcs_from_header(header: Mapping[str, Any]) -> TpvWcs:
    """See `TpvWcs.from_header`."""
    ra_axis, dec_axis, projection, sip = _axes(header)
    if abs(_real(header, "LONPOLE", 180.0) - 180.0) > 1e-9:
        raise WcsError(f"LONPOLE = {header['LONPOLE']}: only 180 is supported.")
    system = str(header.get("RADESYS", header.get("RADECSYS", ""))).strip().upper()
    equinox = _real(header, "EQUINOX", 2000.0)
    if system not in ("ICRS", "") and (system != "FK5" or abs(equinox - 2000.0) > 0.01):
        raise WcsError(f"RADESYS = {system}, EQUINOX = {equinox}: only ICRS and FK5 J2000 are supported.")
    cd = _pixel_matrix(header, (ra_axis, dec_axis))
    pv1 = pv2 = IDENTITY_PV
    sip = sip and any(f"{axis}_ORDER" in header for axis in "AB")
    if not sip and _has_tpv(header, projection, ra_axis, dec_axis):
        pv1, pv2 = _tpv(header, ra_axis), _tpv(header, dec_axis)
    wcs = TpvWcs(
        crval=(_real(header, f"CRVAL{ra_axis}") % 360.0, _real(header, f"CRVAL{dec_axis}")),
        crpix=(_real(header, "CRPIX1"), _real(header, "CRPIX2")),
        cd=cd,
        pv1=pv1,
        pv2=pv2,
    )
    return _with_sip(header, wcs) if sip else wcs


def _with_sip(header: Mapping[str, Any], wcs: TpvWcs) -> TpvWcs:
    """Rewrite the SIP polynomial, which acts on pixels before CD, as the TPV polynomial after it.

    Plane coordinates are CD (u + A(u, v), v + B(u, v)) of pixels u, v from CRPIX (Shupe et al. 2012).
    """
    size = MAX_DEGREE + 1
    pixel = np.zeros((2, size, size))
    pixel[0, 1, 0] = pixel[1, 0, 1] = 1.0
    for axis, name in enumerate("AB"):
        order = int(_real(header, f"{name}_ORDER", 0))
        if order > MAX_DEGREE:
            raise WcsError(f"{name}_ORDER = {order}: SIP is supported up to degree {MAX_DEGREE}.")
        for p in range(order + 1):
            for q in range(order + 1 - p):
                pixel[axis, p, q] += _real(header, f"{name}_{p}_{q}", 0.0)
    xi, eta = np.einsum("ij,jkl->ikl", np.array(wcs.cd), pixel)
    return tpv_from_polynomials(wcs.crval, wcs.crpix, xi, eta)


def wcs_to_header(wcs: TpvWcs) -> fits.Header:
    """See `TpvWcs.to_header`."""
    projection = "TPV" if wcs.degree else "TAN"
    cards = [
        fits.Card("RADESYS", "ICRS", "Celestial reference system"),
        real_card("EQUINOX", 2000.0, "Mean equinox"),
        fits.Card("CTYPE1", f"RA---{projection}", "Gnomonic projection"),
        fits.Card("CTYPE2", f"DEC--{projection}", "Gnomonic projection"),
        fits.Card("CUNIT1", "deg"),
        fits.Card("CUNIT2", "deg"),
        real_card("CRVAL1", wcs.crval[0], "RA of the tangent point"),
        real_card("CRVAL2", wcs.crval[1], "Dec of the tangent point"),
        real_card("CRPIX1", wcs.crpix[0], "Its pixel"),
        real_card("CRPIX2", wcs.crpix[1], "Its pixel"),
    ]
    cards += [real_card(f"CD{i + 1}_{j + 1}", wcs.cd[i][j]) for i in (0, 1) for j in (0, 1)]
    if wcs.degree:
        # All of them, zeros too: readers differ in what they take an absent one for.
        for axis, pv in ((1, wcs.pv1), (2, wcs.pv2)):
            cards += [real_card(f"PV{axis}_{index}", pv[index]) for index in range(n_pv_for(wcs.degree))]
    return fits.Header(cards)
