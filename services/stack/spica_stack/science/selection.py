"""Which images go into a stack: what is known of each candidate, what it must be, and the verdict on it.

The rules are applied in `spica_stack.science.choosing`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from spica_imaging.skyshapes import Cone, Shape

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
    canonical_filter: str | None = None
    sky_absorption_mag: float | None = None
    background_adu_per_s: float | None = None
    """Sky per pixel and second: as measured here, else as its header tells."""
    limiting_mag: float | None = None
    """AB magnitude of a point source of 5 sigma."""
    is_photometric: bool | None = None
    header_path: str | None = None
    """Of its own solution."""
    centre_x: float | None = None
    """Direction of its middle as a unit vector, and how far it reaches from there: as solved, else as its header tells."""
    centre_y: float | None = None
    centre_z: float | None = None
    radius_rad: float | None = None
    tags: Sequence[str] | None = None
    policy_grades: Mapping[str, tuple[str, str]] | None = None
    """By name of each policy that rules ask for: its grade, and name and version of who gave it."""


@dataclass(frozen=True, slots=True)
class Rules:
    """What a candidate must be, all of it; None (or empty) does not restrict. Fields as in the contract's Rules."""

    images: tuple[str, ...] = ()
    filter: str | None = None
    instrument: str | None = None
    run: str | None = None
    runs: tuple[str, ...] = ()
    object: str | None = None
    batch: str | None = None
    tags: tuple[str, ...] = ()
    without_tags: tuple[str, ...] = ()
    fwhm_max_arcsec: float | None = None
    fwhm_min_arcsec: float | None = None
    ellipticity_max: float | None = None
    exposure_time_min_s: float | None = None
    exposure_time_max_s: float | None = None
    airmass_max: float | None = None
    sky_absorption_max_mag: float | None = None
    background_max_adu_per_s: float | None = None
    limiting_mag_min: float | None = None
    photometric: bool | None = None
    mjd_min: float | None = None
    mjd_max: float | None = None
    near: Cone | None = None
    touches: Shape | None = None
    any_of: tuple[Rules, ...] = ()
    none_of: tuple[Rules, ...] = ()


@dataclass(frozen=True, slots=True)
class Selection:
    """Rules that an image must pass, and rules on what passes as a whole."""

    rules: Rules = Rules()
    grades: tuple[str, ...] = ("A", "B", "C")
    grade_policy: str | None = None
    """Name of the policy whose grade counts; None: the latest one, a person's over any policy's."""
    saved: tuple[Saved, ...] = ()
    """Saved selections, all of which must be passed too."""
    on_grid: Shape | None = None
    """The output grid, where the request says where it lies: what does not touch it adds nothing."""
    best_seeing_percent: float | None = None
    stop_below_gain_mag: float | None = None
    max_exposures: int | None = None


@dataclass(frozen=True, slots=True)
class Saved:
    """A selection that someone saved under a name."""

    name: str
    selection: Selection


@dataclass(frozen=True, slots=True)
class Verdict:
    """Why one candidate is, or is not, a member."""

    candidate: Candidate
    selected: bool
    rule: str
    found: str | None


def left_out_by(verdicts: Sequence[Verdict]) -> dict[str, int]:
    """How many candidates each rule left out, the hardest rule first."""
    counts = Counter(verdict.rule for verdict in verdicts if not verdict.selected)
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def explain(verdicts: Sequence[Verdict]) -> str:
    """One sentence on what the rules left over, with an example for each rule that left something out."""
    if not verdicts:
        return "No image in the store is of the batch, run, object, instrument, place or list of images asked for."
    examples: dict[str, Verdict] = {}
    for verdict in verdicts:
        examples.setdefault(verdict.rule, verdict)
    parts = [
        f"{count} by `{rule}` (as {examples[rule].candidate.name}: {examples[rule].found})"
        for rule, count in left_out_by(verdicts).items()
    ]
    chosen = sum(verdict.selected for verdict in verdicts)
    left_out = "; left out: " + ", ".join(parts) if parts else ""
    return f"{chosen} of {len(verdicts)} candidate images pass{left_out}."
