"""A whole exposure: from where its CCDs are thought to point to where they do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from spica_imaging.wcs import TpvWcs, tan_deproject, tan_project

from spica_calib.science.astrometry.ccd import CcdSolution, solve_ccd, wcs_through
from spica_calib.science.matching.search import Frame, PlaneMatch, PlanePoints, Prior, refine, search
from spica_calib.science.stars import CcdField, Floats, Stars, separation_deg

_BRIGHT_LADDER = (40, 80, 160)
"""How many sources vote: few first, for the brightest are the surest to be stars of the catalogue."""
_CELL_PX = 7.0
"""Width of the cells in which shifts are counted."""
_NARROW = Prior(shift_arcsec=30.0, rotation_deg=0.2, scale=0.003)
"""What a header with a full WCS is usually good to; tried before the whole range."""


class NoMatch(Exception):
    """The sources cannot be told to be these stars."""

    def __init__(self, message: str, numbers: dict[str, float | int | str | None]) -> None:
        super().__init__(message)
        self.message = message
        self.numbers = numbers

    def __reduce__(self) -> tuple[type[NoMatch], tuple[str, dict[str, float | int | str | None]]]:
        return type(self), (self.message, self.numbers)


@dataclass(frozen=True, slots=True)
class FrameSolution:
    """The astrometric solution of an exposure."""

    ccds: tuple[CcdSolution, ...]
    log10_false: float
    """Of the least credible match that was needed."""
    expected_by_chance: float
    offset_arcsec: float
    """How far the exposure's centre is from where it was thought to be."""


def pointing_wcs(
    ra_deg: float, dec_deg: float, nx: int, ny: int, scale_arcsec: float, rotation_deg: float, mirrored: bool
) -> TpvWcs:
    """A TAN WCS from a pointing of the CCD's centre; rotation is the position angle of +y, east of north."""
    angle, scale = np.radians(rotation_deg), scale_arcsec / 3600.0
    sin, cos = float(np.sin(angle)) * scale, float(np.cos(angle)) * scale
    # Usual parity: seen with north up, east is left: +x is 90° clockwise of +y, towards west.
    sign = 1.0 if mirrored else -1.0
    return TpvWcs((ra_deg, dec_deg), ((nx + 1) / 2, (ny + 1) / 2), ((sign * cos, sin), (-sign * sin, cos)))


def field_centre(fields: Sequence[CcdField]) -> tuple[float, float]:
    """Mean direction of the CCDs' centres: RA and Dec, deg."""
    sky = np.array([[float(c) for c in f.wcs.pixel_to_sky(*f.centre)] for f in fields])
    ra, dec = np.radians(sky[:, 0]), np.radians(sky[:, 1])
    vector = np.array([np.cos(dec) * np.cos(ra), np.cos(dec) * np.sin(ra), np.sin(dec)]).mean(axis=1)
    return (
        float(np.degrees(np.arctan2(vector[1], vector[0])) % 360.0),
        float(np.degrees(np.arctan2(vector[2], np.hypot(vector[0], vector[1])))),
    )


def field_radius(fields: Sequence[CcdField], ra_deg: float, dec_deg: float) -> float:
    """Angle from a centre to the farthest corner, deg."""
    corners = [f.wcs.pixel_to_sky([1, f.nx, f.nx, 1], [1, 1, f.ny, f.ny]) for f in fields]
    return max(float(separation_deg(ra, dec, ra_deg, dec_deg).max()) for ra, dec in corners)


def _plane(fields: Sequence[CcdField], centre: tuple[float, float]) -> tuple[PlanePoints, Frame]:
    """Usable sources of these CCDs, brightest first, and their frame, in the plane at `centre`."""
    xs, ys, flux, quads = [], [], [], []
    for field in fields:
        sources = field.sources.take(field.sources.usable)
        xi, eta = tan_project(*field.wcs.pixel_to_sky(sources.x, sources.y), *centre)
        xs.append(xi * 3600.0)
        ys.append(eta * 3600.0)
        flux.append(sources.flux_adu)
        corners = field.wcs.pixel_to_sky([1, field.nx, field.nx, 1], [1, 1, field.ny, field.ny])
        quads.append(np.column_stack(tan_project(*corners, *centre)) * 3600.0)
    order = np.argsort(-np.concatenate(flux), kind="stable")
    frame = Frame(np.array(quads), fields[0].wcs.scale_at(*fields[0].centre))
    return PlanePoints(np.concatenate(xs)[order], np.concatenate(ys)[order]), frame


def _star_points(stars: Stars, band: str | None, centre: tuple[float, float]) -> PlanePoints:
    xi, eta = tan_project(stars.ra_deg, stars.dec_deg, *centre)
    mag = stars.brightness(band)
    order = np.argsort(np.where(np.isfinite(mag), mag, np.inf), kind="stable")
    order = order[np.isfinite(xi[order])]
    return PlanePoints(xi[order] * 3600.0, eta[order] * 3600.0)


def match(
    fields: Sequence[CcdField],
    stars: Stars,
    band: str | None,
    priors: Sequence[Prior],
    limit_log10: float,
    centre: tuple[float, float],
) -> PlaneMatch:
    """Match these CCDs as one rigid frame, from the narrowest prior to the widest.

    Raises `NoMatch` when even the best match may be chance (log10 of its probability above the limit).
    """
    image, frame = _plane(fields, centre)
    points = _star_points(stars, band, centre)
    best: PlaneMatch | None = None
    for prior in priors:
        for n_bright in _BRIGHT_LADDER:
            found = search(image, points, frame, prior, n_bright)
            if found is not None and (best is None or found.log10_false < best.log10_false):
                best = found
            # Well below the limit nothing better is to be found by asking more sources.
            if best is not None and best.log10_false < 2.0 * limit_log10:
                return best
            if n_bright >= len(image):
                break
        if best is not None and best.log10_false < limit_log10:
            return best
    numbers: dict[str, float | int | str | None] = {
        "n_sources": len(image),
        "n_reference": len(points),
        "limit_log10_false_match": limit_log10,
        "ccds": ",".join(field.name for field in fields),
        **(best.numbers if best else {}),
    }
    detail = (
        f"the best match has {best.n_matched} of {best.n_tried} ({best.expected_by_chance:.1f} expected by chance)"
        if best
        else "too few of either"
    )
    raise NoMatch(
        f"{len(image)} sources do not match the {len(points)} reference stars of the area: {detail}.", numbers
    )


def moved_wcs(field: CcdField, found: PlaneMatch, centre: tuple[float, float]) -> TpvWcs:
    """Move the CCD's assumed WCS by an affine map in the plane at `centre`."""

    def sky_of(x: Floats, y: Floats) -> tuple[Floats, Floats]:
        xi, eta = tan_project(*field.wcs.pixel_to_sky(x, y), *centre)
        mapped = found.apply(xi * 3600.0, eta * 3600.0)
        return tan_deproject(mapped[0] / 3600.0, mapped[1] / 3600.0, *centre)

    return wcs_through(field, sky_of, max(3, field.wcs.degree))


def _solve_one(
    field: CcdField, stars: Stars, guess: TpvWcs, radius_arcsec: float, max_degree: int
) -> CcdSolution:
    """Solve one CCD from a good guess; where there is too little to solve, the guess is the solution."""
    solution = solve_ccd(field, stars, guess, radius_arcsec, max_degree)
    if solution is not None:
        return solution
    none = np.empty(0, dtype=np.intp)
    return CcdSolution(guess, guess.degree, none, none, np.empty(0), np.empty((0, 2)), np.nan)


def _own_guess(
    field: CcdField, stars: Stars, band: str | None, guess: TpvWcs, limit_log10: float
) -> tuple[TpvWcs, float]:
    """Where a CCD lies after the whole frame was matched: CCDs are seldom exactly where headers put them.

    Returns a WCS and the radius (arcsec) it is good to.
    """
    moved = replace(field, wcs=guess)
    centre = guess.crval
    image, frame = _plane([moved], centre)
    points = _star_points(stars.within(*centre, 2.0 * field_radius([moved], *centre)), band, centre)
    start = _CELL_PX * frame.pixel_arcsec
    found: PlaneMatch | None = refine(image.first(300), points, frame, np.eye(2), np.zeros(2), start, 100.0)
    if found is None or found.log10_false > limit_log10:
        found = search(image, points, frame, _NARROW, _BRIGHT_LADDER[1])
    if found is None or found.log10_false > limit_log10:
        return guess, start
    return moved_wcs(moved, found, centre), 1.5 * found.radius_arcsec


def _match_each(
    fields: Sequence[CcdField], stars: Stars, band: str | None, prior: Prior, limit_log10: float
) -> tuple[list[PlaneMatch], list[tuple[TpvWcs, float]]]:
    """Match every CCD by itself; what the richest one tells of rotation and scale narrows the search of the others."""
    found: dict[int, tuple[PlaneMatch, TpvWcs]] = {}
    turned: PlaneMatch | None = None
    for number in sorted(range(len(fields)), key=lambda k: -len(fields[k].sources)):
        field = fields[number]
        priors = [prior]
        if turned is not None:
            cd = turned.matrix @ np.array(field.wcs.cd)
            field = replace(
                field,
                wcs=replace(
                    field.wcs, cd=((float(cd[0, 0]), float(cd[0, 1])), (float(cd[1, 0]), float(cd[1, 1])))
                ),
            )
            priors.insert(0, replace(prior, rotation_deg=0.5, scale=0.005, mirrored=(False,)))
        one = match([field], stars, band, priors, limit_log10, field.wcs.crval)
        found[number] = one, moved_wcs(field, one, field.wcs.crval)
        turned = turned or one
    ordered = [found[number] for number in range(len(fields))]
    return [one for one, _ in ordered], [(wcs, 1.5 * one.radius_arcsec) for one, wcs in ordered]


def solve_frame(
    fields: Sequence[CcdField],
    stars: Stars,
    band: str | None,
    prior: Prior,
    *,
    rigid: bool,
    max_degree: int,
    limit_log10: float,
) -> FrameSolution:
    """Solve an exposure from its assumed WCS.

    Args:
        fields: the CCDs, with sources and assumed WCS.
        stars: reference stars at the exposure's epoch, of the whole area that the prior allows.
        band: magnitude to sort stars by; None or unknown: the one most stars have.
        prior: how far the assumed WCS can be off.
        rigid: whether the WCS say how the CCDs lie to each other (full WCS), or each is looked for by itself.
        max_degree: highest degree of the distortion polynomial.
        limit_log10: log10 of the highest tolerable probability of a false match.

    Raises:
        NoMatch: with the numbers, when sources and stars do not fit together.

    """
    before = field_centre(fields)
    if rigid:
        found = match(fields, stars, band, (_NARROW, prior), limit_log10, before)
        matches = [found]
        starts = [_own_guess(f, stars, band, moved_wcs(f, found, before), limit_log10) for f in fields]
    else:
        matches, starts = _match_each(fields, stars, band, prior, limit_log10)
    solutions = tuple(
        _solve_one(f, stars, guess, radius, max_degree)
        for f, (guess, radius) in zip(fields, starts, strict=True)
    )
    after = field_centre([replace(f, wcs=s.wcs) for f, s in zip(fields, solutions, strict=True)])
    return FrameSolution(
        ccds=solutions,
        log10_false=max(m.log10_false for m in matches),
        expected_by_chance=sum(m.expected_by_chance for m in matches),
        offset_arcsec=3600.0 * float(separation_deg(np.array(before[0]), np.array(before[1]), *after)),
    )
