"""Which images go into a stack: each candidate gets a verdict, the rule that gave it, and the value found."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

CHOSEN = "chosen"


@dataclass(frozen=True, slots=True)
class Candidate:
    """What the store knows of one image when a stack is planned. None: not known."""

    image_id: str
    name: str
    instrument: str
    run: str
    filter: str
    object: str | None
    batch: str | None
    exposure_time_s: float
    mjd_obs: float | None
    airmass: float | None
    ra_deg: float
    dec_deg: float
    grade: str | None
    graded_by: str | None
    fwhm_arcsec: float | None
    ellipticity: float | None
    solution_id: str | None
    superseded_by: str | None = None
    """The version that its archive has now instead of it."""
    newer_id: str | None = None
    """A later delivery of the same exposure (same name, instrument and time), if there is one."""


@dataclass(frozen=True, slots=True)
class Rules:
    """What a candidate must be; None (or empty) does not restrict. Fields as in the contract's Selection."""

    images: tuple[str, ...] = ()
    filter: str | None = None
    instrument: str | None = None
    run: str | None = None
    object: str | None = None
    batch: str | None = None
    grades: tuple[str, ...] = ("A", "B", "C")
    fwhm_max_arcsec: float | None = None
    ellipticity_max: float | None = None
    exposure_time_min_s: float | None = None
    airmass_max: float | None = None
    mjd_min: float | None = None
    mjd_max: float | None = None
    near: tuple[float, float, float] | None = None
    """RA, Dec of the centre and radius, all in degrees."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Why one candidate is, or is not, a member."""

    candidate: Candidate
    selected: bool
    rule: str
    found: str | None


def separation_deg(ra1: float, dec1: float, ra2: float, dec2: float) -> float:
    """Angle between two places on the sky (Vincenty's formula: good at all distances)."""
    delta, phi1, phi2 = math.radians(ra2 - ra1), math.radians(dec1), math.radians(dec2)
    across = math.hypot(
        math.cos(phi2) * math.sin(delta),
        math.cos(phi1) * math.sin(phi2) - math.sin(phi1) * math.cos(phi2) * math.cos(delta),
    )
    along = math.sin(phi1) * math.sin(phi2) + math.cos(phi1) * math.cos(phi2) * math.cos(delta)
    return math.degrees(math.atan2(across, along))


_Check = tuple[bool, str | None]


def _equal(wanted: str | None, found: str | None) -> _Check:
    return wanted is None or found == wanted, found


def _at_most(limit: float | None, found: float | None, unit: str = "") -> _Check:
    """A value that is not known does not pass a rule that asks for it."""
    if limit is None:
        return True, None
    return found is not None and found <= limit, "not known" if found is None else f"{found:.6g}{unit}"


def _at_least(limit: float | None, found: float | None, unit: str = "") -> _Check:
    if limit is None:
        return True, None
    return found is not None and found >= limit, "not known" if found is None else f"{found:.8g}{unit}"


def _near(rules: Rules, row: Candidate) -> _Check:
    if rules.near is None:
        return True, None
    ra, dec, radius = rules.near
    distance = separation_deg(ra, dec, row.ra_deg, row.dec_deg)
    return distance <= radius, f"{distance:.4f} deg from the centre"


def _superseded(_rules: Rules, row: Candidate) -> _Check:
    """What its archive has replaced is not selected, whoever names it."""
    return row.superseded_by is None, f"superseded by {row.superseded_by}"


def _newest(rules: Rules, row: Candidate) -> _Check:
    """An exposure that was delivered anew counts once; whoever names an id gets that very one."""
    return row.newer_id is None or row.image_id in rules.images, row.newer_id


def _grade(rules: Rules, row: Candidate) -> _Check:
    return row.grade in rules.grades, f"{row.grade} by {row.graded_by}" if row.grade else "not graded"


# In this order: first what an image is, then what was found out about it. The first rule broken is told.
RULES: tuple[tuple[str, Callable[[Rules, Candidate], _Check]], ...] = (
    ("images", lambda rules, row: (not rules.images or {row.name, row.image_id} & {*rules.images} != set(), row.name)),
    ("batch", lambda rules, row: _equal(rules.batch, row.batch)),
    ("run", lambda rules, row: _equal(rules.run, row.run)),
    ("object", lambda rules, row: _equal(rules.object, row.object)),
    ("instrument", lambda rules, row: _equal(rules.instrument, row.instrument)),
    ("filter", lambda rules, row: _equal(rules.filter, row.filter)),
    ("near", _near),
    ("superseded", _superseded),
    ("newest", _newest),
    ("exposure_time_min_s", lambda rules, row: _at_least(rules.exposure_time_min_s, row.exposure_time_s, " s")),
    ("airmass_max", lambda rules, row: _at_most(rules.airmass_max, row.airmass)),
    ("mjd_min", lambda rules, row: _at_least(rules.mjd_min, row.mjd_obs)),
    ("mjd_max", lambda rules, row: _at_most(rules.mjd_max, row.mjd_obs)),
    ("grades", _grade),
    ("fwhm_max_arcsec", lambda rules, row: _at_most(rules.fwhm_max_arcsec, row.fwhm_arcsec, " arcsec")),
    ("ellipticity_max", lambda rules, row: _at_most(rules.ellipticity_max, row.ellipticity)),
    ("calibrated", lambda rules, row: (row.solution_id is not None, row.solution_id or "no solution")),
)  # fmt: skip


def judge(rules: Rules, candidate: Candidate) -> Verdict:
    """Apply the rules in order; the first one broken decides."""
    for name, check in RULES:
        passed, found = check(rules, candidate)
        if not passed:
            return Verdict(candidate, False, name, found)
    return Verdict(candidate, True, CHOSEN, f"grade {candidate.grade} by {candidate.graded_by}")


def select(rules: Rules, candidates: Iterable[Candidate]) -> list[Verdict]:
    """Judge all candidates, in the order in which they were exposed (then by name, then by id)."""
    ordered = sorted(candidates, key=lambda row: (row.mjd_obs or 0.0, row.name, row.image_id))
    return [judge(rules, candidate) for candidate in ordered]


def left_out_by(verdicts: Sequence[Verdict]) -> dict[str, int]:
    """How many candidates each rule left out, the hardest rule first."""
    counts = Counter(verdict.rule for verdict in verdicts if not verdict.selected)
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def explain(verdicts: Sequence[Verdict]) -> str:
    """One sentence on what the rules left over, with an example for each rule that left something out."""
    if not verdicts:
        return "No image in the store is of the batch, run, object, instrument or list of images asked for."
    parts = []
    for rule, count in left_out_by(verdicts).items():
        example = next(verdict for verdict in verdicts if verdict.rule == rule)
        parts.append(f"{count} by `{rule}` (as {example.candidate.name}: {example.found})")
    chosen = sum(verdict.selected for verdict in verdicts)
    left_out = "; left out: " + ", ".join(parts) if parts else ""
    return f"{chosen} of {len(verdicts)} candidate images pass{left_out}."
