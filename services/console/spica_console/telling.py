"""The gist of an event in a few words: for the tail, the page and the demo."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Body = dict[str, Any]


def gist(subject: str, data: Body) -> str:
    """What an event says, on one line. Bodies that do not fit are shown by what they have."""
    tell = _GISTS.get(subject)
    try:
        return tell(data) if tell else _any(data)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError):
        return _any(data)


def _any(data: Body) -> str:
    return " ".join(f"{key}={value}" for key, value in list(data.items())[:4])


def _arrived(data: Body) -> str:
    size = f"  {data['size_bytes'] / 1e6:.1f} MB" if data.get("size_bytes") is not None else ""
    return f"{data['uri'].rsplit('/', 1)[-1]}{size}"


def _verified(data: Body) -> str:
    ccds = f"{data['n_ccds']} CCD{'s' if data['n_ccds'] != 1 else ''}"
    wcs = "" if data["wcs"] == "full" else ", pointing only"
    return f"{data['name']}  {data['instrument']} {data['filter']} {data['exposure_time_s']:g} s, {ccds}{wcs}"


def _rejected(data: Body) -> str:
    return f"{data['name']}  {'; '.join(reason['message'].rstrip('.') for reason in data['reasons'])}"


def _graded(data: Body) -> str:
    metrics = data["metrics"]
    parts = [f"{data['name']}  {data['grade']}"]
    if metrics.get("fwhm_arcsec") is not None:
        parts.append(f"FWHM {metrics['fwhm_arcsec']:.2f}″")
    if metrics.get("ellipticity") is not None:
        parts.append(f"ellipticity {metrics['ellipticity']:.3f}")
    if data["graded_by"].startswith("person:"):
        parts.append(f"by {data['graded_by'].removeprefix('person:')}: {data.get('comment') or ''}")
    elif data.get("reasons"):
        parts.append("; ".join(reason["code"] for reason in data["reasons"]))
    return "  ".join(parts)


def _calibrated(data: Body) -> str:
    zero = f"  zp {data['zeropoint_mag']:.3f}" if data.get("zeropoint_mag") is not None else ""
    return f"{data['name']}  {data['n_matched']} stars, rms {data['rms_ra_mas']:.0f}/{data['rms_dec_mas']:.0f} mas{zero}"


def _failed(data: Body) -> str:
    who = data.get("name") or data.get("image_id") or data.get("stack_id") or data.get("request_id") or "?"
    return f"{who}  {data['stage']}: {data['code']}: {data['message']}"


def _requested(data: Body) -> str:
    rules = {key: value for key, value in data.get("selection", {}).items() if value}
    wanted = ", ".join(
        f"{key} {' '.join(value) if isinstance(value, list) else value}"
        for key, value in rules.items()
        if key not in ("images", "near")
    )
    return f"{data.get('name') or data.get('request_id') or 'stack'}  {wanted}"


def _planned(data: Body) -> str:
    grid = data["grid"]
    return (
        f"{data['name']}  {len(data['image_ids'])} images, {data['n_left_out']} left out, "
        f"{grid['width_px']}×{grid['height_px']} px"
    )


def _jointly_calibrated(data: Body) -> str:
    ra, dec = data.get("internal_rms_ra_mas"), data.get("internal_rms_dec_mas")
    rms = f", internal rms {ra:.1f}/{dec:.1f} mas" if ra is not None and dec is not None else ""
    return f"{data['name']}  {data['n_members']} members{rms}"


def _coadded(data: Body) -> str:
    gains: list[Body] = data.get("gains") or []
    last = gains[-1].get("depth_mag") if len(gains) == 1 else None
    added = f", {gains[-1]['name']} added {last:+.3f} mag" if last is not None else ""
    return f"{data['name']}  {data['n_exposures']} exposures, {data['exposure_time_s']:g} s{added}"


def _part_wanted(data: Body) -> str:
    return f"{data['name']}  {data['step']} {data['number'] + 1} of {data['of']}"


def _stale(data: Body) -> str:
    return f"{data['name']}  {data['why']}"


def _done(data: Body) -> str:
    metrics = data["metrics"]
    parts = [f"{data['name']}  {data['grade']}"]
    if metrics.get("fwhm_arcsec") is not None:
        parts.append(f"seeing {metrics['fwhm_arcsec']:.2f}″")
    if metrics.get("limiting_mag") is not None:
        parts.append(f"depth {metrics['limiting_mag']:.2f}")
    return "  ".join(parts)


def _exported(data: Body) -> str:
    return f"{data['name']}  {len(data['files'])} files to {data['destination']}"


def _auxiliary_wanted(data: Body) -> str:
    return f"{data['name']}  {data['kind']}, named by {data['keyword']}"


def _auxiliary_registered(data: Body) -> str:
    return f"{data['name']}  {data['kind']} {data['state']}"


def _placement_wanted(data: Body) -> str:
    return f"{data['name']}  run {data['run']} {data['filter']} ({data['why'].replace('_', ' ')})"


def _placement_moved(data: Body) -> str:
    amount = f"{data['files']} files, {data['size_bytes'] / 1e6:.1f} MB"
    return f"{data['name']}  {data['from_node']} to {data['to_node']}, {amount}"


def _placement_lost(data: Body) -> str:
    return f"{data['name']}  lost with {data['node']}" + (
        f", fetched again from {data['uri']}" if data.get("uri") else ""
    )


def _progress(data: Body) -> str:
    total = f" of {data['total']}" if data.get("total") is not None else ""
    return f"{data['name']}  {data['stage']} {data['done']}{total} {data.get('unit', 'byte')}"


def _stack_progress(data: Body) -> str:
    total = f" of {data['total']}" if data.get("total") is not None else ""
    rate = f"  {data['per_second']:.2g}/s" if data.get("per_second") else ""
    return f"{data['name']}  {data['step']} {data['done']}{total}{rate}"


_GISTS: dict[str, Callable[[Body], str]] = {
    "image.arrived": _arrived,
    "image.wanted": _arrived,
    "image.verified": _verified,
    "image.rejected": _rejected,
    "image.graded": _graded,
    "image.calibrated": _calibrated,
    "image.failed": _failed,
    "auxiliary.wanted": _auxiliary_wanted,
    "auxiliary.registered": _auxiliary_registered,
    "placement.wanted": _placement_wanted,
    "placement.moved": _placement_moved,
    "placement.lost": _placement_lost,
    "stack.requested": _requested,
    "stack.planned": _planned,
    "stack.calibrated": _jointly_calibrated,
    "stack.part_wanted": _part_wanted,
    "stack.stale": _stale,
    "stack.coadded": _coadded,
    "stack.done": _done,
    "stack.exported": _exported,
    "stack.failed": _failed,
    "progress.image": _progress,
    "progress.stack": _stack_progress,
}
