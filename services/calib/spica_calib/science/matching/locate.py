"""Where an exposure's CCDs lie on the sky, from a rough pointing: as one rigid frame, or each looked for by itself."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from spica_imaging.wcs import TpvWcs, tan_project

from spica_calib.science.matching.bend import bend_of, bent_wcs
from spica_calib.science.matching.geometry import Motion, NoMatch, field_centre, unit_vectors
from spica_calib.science.matching.located import Located
from spica_calib.science.matching.search import Frame, PlaneMatch, PlanePoints, Prior, Stage, search, weigh
from spica_calib.science.matching.sky import Footprint, StarSky, motion_of, whole_points
from spica_calib.science.stars import CcdField, Stars, separation_deg

_NARROW = Prior(shift_arcsec=30.0, rotation_deg=0.2, scale=0.003)
"""What a header with a full WCS is usually good to; tried before the whole range."""
_NEIGHBOUR = Prior(shift_arcsec=30.0, rotation_deg=0.5, scale=0.01)
"""How well one CCD of a mosaic tells of the next."""
_SISTER_DEG, _SISTER_SCALE = 1.0, 0.01
"""How well the rotation and scale of one CCD tell those of another, or the opposite of it."""
_START_PX = 10.0
_FIRST_CCDS = 2
"""So many of the richest CCDs are tried as what the whole frame is found by."""
_NEIGHBOURS = 4
_MIDDLE_PX = 2100.0
"""Of larger CCDs the middle is looked for first, so far along x and y: there distortion is small."""
_ARCSEC = 3600.0


@dataclass(frozen=True, slots=True)
class _Found:
    """One CCD, or the frame, and how it moves."""

    match: PlaneMatch
    motion: Motion
    wcs: TpvWcs | None = None
    """With distortion, where the matches bear that."""


def locate(
    fields: Sequence[CcdField],
    stars: Stars,
    band: str | None,
    prior: Prior,
    *,
    rigid: bool,
    limit_log10: float,
) -> Located:
    """Locate an exposure.

    Args:
        fields: the CCDs, with sources and assumed WCS.
        stars: reference stars at the exposure's epoch, of the whole area that the prior allows.
        band: magnitude to sort stars by; None or unknown: the one most stars have.
        prior: how far the assumed WCS can be off.
        rigid: whether the WCS say how the CCDs lie to each other (full WCS), or each is looked for by itself.
        limit_log10: log10 of the highest tolerable probability of a false match.

    CCDs in which too little is found are placed by the others: `Located.found` is False for them.

    Raises:
        NoMatch: with the numbers, when sources and stars do not fit together.

    """
    prior = _near_poles(prior, fields)
    sky = StarSky.of(stars, band)
    ccds = [Footprint.of(field) for field in fields]
    whole, found = _rigid(ccds, sky, prior, limit_log10) if rigid else _each(ccds, sky, prior, limit_log10)
    motions, radii = _all_placed(ccds, found, whole, prior, rigid)
    bent = [found[k].wcs if k in found else None for k in range(len(ccds))]
    wcs = tuple(
        one or motion.move(ccd.field.wcs) for one, motion, ccd in zip(bent, motions, ccds, strict=True)
    )
    before = np.array(field_centre(fields))
    after = field_centre([replace(f, wcs=w) for f, w in zip(fields, wcs, strict=True)])
    needed = [whole.match] if rigid else [one.match for one in found.values()]
    counted = [one.match for one in found.values()] or needed
    matrix = whole.motion.matrix
    mirrored = bool(np.linalg.det(matrix) < 0)
    sign = -1.0 if mirrored else 1.0
    north = matrix[0, 1] - sign * matrix[1, 0], matrix[1, 1] + sign * matrix[0, 0]
    return Located(
        wcs=wcs,
        radius_arcsec=radii,
        found=tuple(k in found for k in range(len(ccds))),
        log10_false=max(match.log10_false for match in needed),
        expected_by_chance=sum(match.expected_by_chance for match in counted),
        n_matched=sum(match.n_matched for match in counted),
        offset_arcsec=_ARCSEC * float(separation_deg(before[:1], before[1:], *after)[0]),
        rotation_deg=math.degrees(math.atan2(*north)),
        scale=math.sqrt(abs(float(np.linalg.det(matrix)))),
        mirrored=mirrored,
    )


def _near_poles(prior: Prior, fields: Sequence[CcdField]) -> Prior:
    """Who points a little off near a pole has north elsewhere: by so much the rotation can be off as well."""
    if not fields:
        return prior
    polar_arcsec = _ARCSEC * (90.0 - abs(field_centre(fields)[1]))
    turn = 180.0
    if polar_arcsec > prior.shift_arcsec:
        turn = math.degrees(math.asin(prior.shift_arcsec / polar_arcsec))
    return replace(prior, rotation_deg=min(180.0, prior.rotation_deg + turn))


def _stage(
    points: PlanePoints, frame: Frame, sky: StarSky, motion: Motion, shift_arcsec: float, ranked: bool
) -> Stage:
    """Sources under the linear part of a motion, laid over the stars around its target."""
    frame = frame.mapped(motion.matrix, np.zeros(2))
    moved = motion.matrix @ np.stack((points.x, points.y))
    around = sky.around(motion.target, 1.5 * frame.half_diagonal + shift_arcsec)
    return Stage(PlanePoints(moved[0], moved[1]), around, frame, ranked)


def _refuse(ccds: Sequence[Footprint], sky: StarSky, best: PlaneMatch | None, limit_log10: float) -> NoMatch:
    n_sources = sum(len(ccd.field.sources) for ccd in ccds)
    numbers: dict[str, float | int | str | None] = {
        "n_sources": n_sources,
        "n_reference": len(sky),
        "limit_log10_false_match": limit_log10,
        "ccds": ",".join(ccd.field.name for ccd in ccds),
        **(best.numbers if best else {}),
    }
    detail = (
        f"the best match has {best.n_matched} of {best.n_tried} ({best.expected_by_chance:.1f} expected by chance)"
        if best
        else "too few of either"
    )
    return NoMatch(
        f"{n_sources} sources do not match the {len(sky)} reference stars of the area: {detail}.", numbers
    )


# ---- one rigid frame ----


def _first_frames(ccds: Sequence[Footprint], centre: tuple[float, float]) -> list[list[Footprint]]:
    """What to find the frame by: the richest CCD near the middle, all of them, the next one."""
    rich = [ccd for ccd in ccds if len(ccd.field.sources) >= 3]
    if len(rich) < 2:
        return [[_middle(ccd)] for ccd in rich] + [[ccd] for ccd in rich if _middle(ccd) is not ccd]
    most = max(len(ccd.field.sources) for ccd in rich)

    def poor(ccd: Footprint) -> tuple[bool, float]:
        away = float(separation_deg(np.array([ccd.centre[0]]), np.array([ccd.centre[1]]), *centre)[0])
        return len(ccd.field.sources) < 0.5 * most, away

    singles = [[_middle(ccd)] for ccd in sorted(rich, key=poor)[:_FIRST_CCDS]]
    return [singles[0], rich, *singles[1:]]


def _middle(ccd: Footprint) -> Footprint:
    """The middle of a large CCD; a small one, or one with little there, as it is."""
    if math.hypot(*ccd.half_px) <= 1.5 * _MIDDLE_PX:
        return ccd
    middle = Footprint.of(ccd.field, _MIDDLE_PX)
    return middle if len(middle) >= 20 else ccd


def _rigid(
    ccds: Sequence[Footprint], sky: StarSky, prior: Prior, limit_log10: float
) -> tuple[_Found, dict[int, _Found]]:
    """Find the frame by one CCD or all, then every CCD from what its neighbours tell."""
    centre = field_centre([ccd.field for ccd in ccds])
    best: PlaneMatch | None = None
    whole: _Found | None = None
    frames = _first_frames(ccds, centre)
    # A header is as good as it usually is, or it needs the whole search: no time is lost on the way.
    for wide, depth, some in ((_NARROW, 2, frames[:1]), (prior, None, frames)):
        for frame in some:
            one = _search_frame(frame, centre, sky, wide, limit_log10, depth)
            if one is not None and (best is None or one.match.log10_false < best.log10_false):
                best = one.match
            if one is not None and one.match.log10_false < limit_log10:
                whole = one
                break
        if whole is not None:
            break
    if whole is None:
        raise _refuse(ccds, sky, best, limit_log10)
    return whole, _spread(ccds, sky, whole, limit_log10)


def _search_frame(
    frame: list[Footprint],
    centre: tuple[float, float],
    sky: StarSky,
    prior: Prior,
    limit_log10: float,
    depth: int | None,
) -> _Found | None:
    if len(frame) == 1:
        at = frame[0].centre
        points, outline = frame[0].points(at), frame[0].frame(at)
        # Off the pivot, rotation and scale of the frame move the CCD as well.
        arm = _ARCSEC * float(separation_deg(np.array([at[0]]), np.array([at[1]]), *centre)[0])
        scale, cos = 1.0 + prior.scale, math.cos(math.radians(min(prior.rotation_deg, 180.0)))
        swing = 1.0 + scale if any(prior.mirrored) else math.sqrt(1.0 + scale**2 - 2.0 * scale * cos)
        prior = replace(prior, shift_arcsec=prior.shift_arcsec + swing * arm)
    else:
        at = centre
        points, outline = whole_points(frame, at)
    margin = prior.shift_arcsec + prior.scale * outline.half_diagonal
    stage = _stage(points, outline, sky, Motion.still(at), margin, all(ccd.ranked for ccd in frame))
    match = search(stage, prior, limit_log10, depth=depth)
    return None if match is None else _Found(match, motion_of(at, match.matrix, match.offset))


def _spread(ccds: Sequence[Footprint], sky: StarSky, whole: _Found, limit_log10: float) -> dict[int, _Found]:
    """Every CCD by itself, from where the nearest one found so far puts it, outwards."""
    vectors = unit_vectors(np.array([c.centre[0] for c in ccds]), np.array([c.centre[1] for c in ccds]))
    start = unit_vectors(np.array([whole.motion.origin[0]]), np.array([whole.motion.origin[1]]))[0]
    order = np.argsort(((vectors - start) ** 2).sum(axis=1), kind="stable")
    found: dict[int, _Found] = {}
    for k in order.tolist():
        # The nearest CCD found tells best: the farther one goes, the more distortion adds up.
        near = min(found, key=lambda m: float(((vectors[m] - vectors[k]) ** 2).sum()), default=None)
        told = whole.motion if near is None else found[near].motion
        one = _nearby(ccds[k], sky, told.at(ccds[k].centre), limit_log10)
        if one is not None:
            found[k] = one
    return found


def _nearby(ccd: Footprint, sky: StarSky, told: Motion, limit_log10: float) -> _Found | None:
    """One CCD from about where it is: neighbours from there, else a narrow search around."""
    if len(ccd) < 3:
        return None
    half = 2.0 * _MIDDLE_PX
    # From the middle of a large CCD outwards, that no part is off by more than can be bridged.
    while _middle(ccd) is not ccd and half < max(ccd.half_px):
        part = Footprint.of(ccd.field, half)
        one = _settled(part, sky, told, limit_log10)
        told = told if one is None else one[1].motion
        half *= 2.0
    one = _settled(ccd, sky, told, limit_log10)
    if one is None:
        return None
    stage, found = one
    bend = bend_of(stage, found.match)
    if bend is None:
        return found
    match = replace(found.match, radius_arcsec=bend.radius_arcsec)
    return _Found(match, found.motion, bent_wcs(ccd.field, told, bend))


def _settled(ccd: Footprint, sky: StarSky, told: Motion, limit_log10: float) -> tuple[Stage, _Found] | None:
    stage = _stage(
        ccd.points(ccd.centre), ccd.frame(ccd.centre), sky, told, _NEIGHBOUR.shift_arcsec, ccd.ranked
    )
    start = _START_PX * stage.frame.pixel_arcsec
    match: PlaneMatch | None = weigh(stage, np.eye(2), np.zeros(2), start, _NEIGHBOUR)
    if match is None or match.log10_false >= limit_log10:
        match = search(stage, _NEIGHBOUR, limit_log10)
    if match is None or match.log10_false >= limit_log10:
        return None
    return stage, _Found(match, told.then(match.matrix, match.offset))


# ---- each CCD for itself ----


def _each(
    ccds: Sequence[Footprint], sky: StarSky, prior: Prior, limit_log10: float
) -> tuple[_Found, dict[int, _Found]]:
    """Look for every CCD by itself; rotation, scale and parity of the first one found narrow the others.

    In mosaics some CCDs are upside down: with more than one, the opposite of every rotation counts too.
    """
    found: dict[int, _Found] = {}
    best: PlaneMatch | None = None
    first: _Found | None = None
    turns = (0.0, math.pi) if len(ccds) > 1 and prior.rotation_deg < 90.0 else (0.0,)
    sister = Prior(prior.shift_arcsec, _SISTER_DEG, _SISTER_SCALE)
    for k in sorted(range(len(ccds)), key=lambda n: -len(ccds[n].field.sources)):
        ccd = ccds[k]
        if len(ccd) < 3:
            continue
        points, frame = ccd.points(ccd.centre), ccd.frame(ccd.centre)
        margin = prior.shift_arcsec + prior.scale * frame.half_diagonal
        attempts = [(Motion.still(ccd.centre), prior, turns)]
        if first is not None:
            told = Motion(ccd.centre, ccd.centre, first.motion.matrix, np.zeros(2))
            attempts.insert(0, (told, sister, (0.0, math.pi)))
        for told, wide, about in attempts:
            stage = _stage(points, frame, sky, told, margin, ccd.ranked)
            match = search(stage, wide, limit_log10, about)
            if match is not None and (best is None or match.log10_false < best.log10_false):
                best = match
            if match is not None and match.log10_false < limit_log10:
                # Once more in the tangent plane where the CCD is; what speaks for it is the search over all.
                moved = told.then(match.matrix, match.offset)
                closer = _nearby(ccd, sky, moved, limit_log10)
                found[k] = _Found(match, moved)
                if closer is not None:
                    found[k] = replace(closer, match=replace(closer.match, log10_false=match.log10_false))
                first = first or found[k]
                break
    if first is None:
        raise _refuse(ccds, sky, best, limit_log10)
    return first, found


# ---- what was not found ----


def _all_placed(
    ccds: Sequence[Footprint], found: dict[int, _Found], whole: _Found, prior: Prior, rigid: bool
) -> tuple[list[Motion], tuple[float, ...]]:
    """Motions and radii (arcsec) of all CCDs: those found, and the others by their neighbours."""
    motions, radii = [], []
    for k, ccd in enumerate(ccds):
        if k in found:
            motions.append(found[k].motion)
            radii.append(1.5 * found[k].match.radius_arcsec)
        elif rigid:
            motion, radius = _by_neighbours(ccd, ccds, found, whole)
            motions.append(motion)
            radii.append(radius)
        else:
            # Nothing tells where in the mosaic it is: turned and scaled like the others, it stays.
            motions.append(Motion(ccd.centre, ccd.centre, whole.motion.matrix, np.zeros(2)))
            radii.append(prior.shift_arcsec)
    return motions, tuple(radii)


def _by_neighbours(
    ccd: Footprint, ccds: Sequence[Footprint], found: dict[int, _Found], whole: _Found
) -> tuple[Motion, float]:
    """Where the nearest CCDs that were found put another one: their mean, and how far they disagree."""
    start = _START_PX * ccd.pixel_arcsec
    if not found:
        return whole.motion.at(ccd.centre), max(start, 1.5 * whole.match.radius_arcsec)
    here = np.array([ccd.centre])

    def away(k: int) -> float:
        return float(separation_deg(here[:, 0], here[:, 1], *ccds[k].centre)[0])

    told = [found[k].motion.at(ccd.centre) for k in sorted(found, key=away)[:_NEIGHBOURS]]
    base = told[0]
    targets = np.array([one.target for one in told])
    places = np.column_stack(tan_project(targets[:, 0], targets[:, 1], *base.target)) * _ARCSEC
    mean = places.mean(axis=0)
    matrix = np.mean([one.matrix for one in told], axis=0)
    spread = float(np.hypot(*(places - mean).T).max())
    return Motion(base.origin, base.target, matrix, mean), max(start, 1.5 * spread)
