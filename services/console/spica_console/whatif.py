"""What another limit would change: how many images stay, how deep they are together, and how sharp.

A limit that is set is the last one: what is beyond it is not used. Depths are combined as a stack of all images on one
field would combine them, with weights 1/σ² of a point source: σ follows from each image's 5 σ limiting magnitude, so that
m = 1.25 log10(Σ 10^(0.8 mᵢ)). Seeing is the median with the same weights.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from spica_imaging.stats import weighted_median
from spica_quality.science.policy.judging import number
from spica_quality.science.policy.policies import IMAGE_FIGURES, Limits, Overrides, Policy, Rule, near
from spica_quality.science.policy.verdicts import Verdict
from spica_quality.science.policy.wording import words_for
from spica_runtime.errors import UsageError

_SYNONYMS = {
    "seeing": "fwhm_arcsec",
    "fwhm": "fwhm_arcsec",
    "depth": "limiting_mag",
    "sky": "background_adu",
    "usable": "usable_fraction",
    "saturated": "saturated_fraction",
}
_UNITS = ("_arcsec", "_mag", "_adu", "_px", "_deg")
_MORE_IS_BETTER = ("n_", "usable", "lit", "limiting", "completeness", "counts_ratio")
_LESS_IS_BETTER = ("n_ccds", "n_saturated", "n_cosmic", "n_trail", "n_bad_column", "n_masked", "n_bleed")
_BARS = "▁▂▃▄▅▆▇█"
_BINS = 40


@dataclass(frozen=True, slots=True)
class Setting:
    """One limit that is tried: `fwhm_max=1.2`."""

    figure: str
    limits: tuple[float, ...]
    """One: the last that is used; three: for A, B and C."""
    upward: bool
    """Whether it limits from above."""

    @property
    def last(self) -> float:
        """Beyond this an image is not used."""
        return self.limits[-1]

    def text(self) -> str:
        """As people read it."""
        words = words_for(self.figure)
        limits = "/".join([*(f"{limit:g}" for limit in self.limits[:-1]), words.limit(self.last)])
        return f"{words.title} {'≤' if self.upward else '≥'} {limits}"


def read_setting(text: str, policy: Policy) -> Setting:
    """Read `fwhm_arcsec=1.2`, `fwhm_max=1.2`, `n_stars_min=100`, or three limits: `fwhm_max=0.8,1,1.2`.

    Raises
    ------
    UsageError
        It is no setting; the message says how one is written, or which figures have names like it.

    """
    name, sign, value = text.partition("=")
    try:
        limits = tuple(float(part) for part in value.split(","))
    except ValueError:
        limits = ()
    if not sign or len(limits) not in (1, 3) or not all(math.isfinite(limit) for limit in limits):
        raise UsageError(
            "bad_setting",
            f"{text!r} sets no limit: write FIGURE=LIMIT, such as fwhm_max=1.2, n_stars_min=100, "
            "or limits for A, B and C: ellipticity=0.05,0.1,0.15.",
        )
    figure, upward = _figure_named(name.strip(), policy)
    if list(limits) != sorted(limits, reverse=not upward):
        raise UsageError("bad_setting", f"{text!r}: limits for A, B and C become looser.")
    return Setting(figure, limits, upward)


def _figure_named(name: str, policy: Policy) -> tuple[str, bool]:
    """The figure that is meant, and whether it is limited from above."""
    if name in IMAGE_FIGURES:
        return name, _limited_from_above(name, policy)
    for end, upward in (("max", True), ("min", False)):
        stem, found, unit = name.rpartition(f"_{end}")
        if found and (figure := _resolved(stem, unit)):
            return figure, upward
    if figure := _resolved(name, ""):
        return figure, _limited_from_above(figure, policy)
    stem = name.removesuffix("_max").removesuffix("_min")
    raise UsageError("unknown_figure", f"There is no figure {stem!r}{near(stem, IMAGE_FIGURES) or '.'}")


def _resolved(stem: str, unit: str) -> str | None:
    """A figure by its full name, or as people call it, or without its unit."""
    candidates = [stem + unit, _SYNONYMS.get(stem, ""), f"n_{stem}", *(stem + end for end in _UNITS)]
    return next((name for name in candidates if name in IMAGE_FIGURES and name.endswith(unit)), None)


def _limited_from_above(figure: str, policy: Policy) -> bool:
    """As the policy has it; else as its name suggests."""
    for name, rule in policy.rules.items():
        if rule.figure_of(name) == figure and not rule.over:
            if rule.most or rule.within or rule.is_size:
                return True
            if rule.least:
                return False
    return figure.startswith(_LESS_IS_BETTER) or not figure.startswith(_MORE_IS_BETTER)


def with_settings(policy: Policy, settings: Sequence[Setting]) -> Policy:
    """The policy with these limits instead of its own, for all instruments."""
    for setting in settings:
        rules = dict(policy.rules)
        own = _rule_about(policy.rules, setting.figure)
        rules[own or setting.figure] = _limited(policy.rules.get(own or ""), setting)
        profiles = {}
        for profile, overrides in policy.profiles.items():
            theirs = dict(overrides.rules)
            if name := _rule_about(overrides.rules, setting.figure):
                theirs[name] = _limited(overrides.rules[name], setting)
            profiles[profile] = Overrides(rules=theirs, ccds=overrides.ccds)
        policy = policy.model_copy(update={"rules": rules, "profiles": profiles})
    return policy


def _rule_about(rules: Mapping[str, Rule], figure: str) -> str | None:
    return next(
        (name for name, rule in rules.items() if rule.figure_of(name) == figure and not rule.over), None
    )


def _limited(rule: Rule | None, setting: Setting) -> Rule:
    """The rule with another last limit; those for A and B stay where they are within it."""
    before = (
        (rule.most or rule.within or rule.arcsec) if rule and setting.upward else rule.least if rule else None
    )
    if len(setting.limits) == 3:
        a, b, c = setting.limits
        limits: Limits = (a, b, c)
    else:
        tighter = min if setting.upward else max
        a, b = (tighter(limit, setting.last) for limit in (before or (setting.last,) * 3)[:2])
        limits = (a, b, setting.last)
    kept = rule or Rule(figure=setting.figure, off=True)
    changes = (
        {"most": None, "within": None, "arcsec": None, "pixels": None} if setting.upward else {"least": None}
    )
    # A figure that may lie either way from zero is still limited either way.
    upper = "within" if rule is not None and rule.within else "most"
    changes |= {upper if setting.upward else "least": limits, "figure": setting.figure, "off": False}  # type: ignore[dict-item]
    return kept.model_copy(update=changes)


# ---- what comes of it ----


@dataclass(frozen=True, slots=True)
class Image:
    """One image, judged before and after."""

    name: str
    instrument: str
    filter: str
    exposure_time_s: float
    fwhm_arcsec: float
    limiting_mag: float
    """5 σ, AB: of its own solution, else by the header's zero point; NaN where neither is known."""
    limiting_adu_per_s: float
    used: tuple[bool, bool]
    letters: tuple[str, str]
    reason: str
    """Why it is not used, or not as good, after."""
    values: Mapping[str, float]
    """Of the figures that are set."""


def image_of(
    row: Mapping[str, Any], verdicts: tuple[Verdict, Verdict], letters: Iterable[str], figures: Iterable[str]
) -> Image:
    """An image as it stands in the store, with what the policy says before and after.

    A person's grade counts over the default policy's, as it does everywhere; for other uses only a person's D does.
    """
    wanted = tuple(letters)
    person = row["person_grade"]
    is_default = verdicts[0].policy.startswith("default@")
    stands = person if person is not None and (is_default or person == "D") else None
    given = tuple(stands or verdict.letter for verdict in verdicts)
    found = row["figures"]
    solved = row["limiting_mag"]
    flux, seconds = number(found, "limiting_flux_adu"), row["exposure_time_s"]
    return Image(
        name=row["name"],
        instrument=row["instrument"],
        filter=row["filter"],
        exposure_time_s=seconds,
        fwhm_arcsec=number(found, "fwhm_arcsec"),
        limiting_mag=number(found, "limiting_mag") if solved is None else solved,
        limiting_adu_per_s=flux / seconds if seconds else math.nan,
        used=(given[0] in wanted, given[1] in wanted),
        letters=(given[0], given[1]),
        reason=f"{row['person']} says {person}"
        if stands
        else "; ".join(f.message for f in verdicts[1].findings[:2]),
        values={figure: number(found, figure) for figure in figures},
    )


def combined_depth(magnitudes: Iterable[float]) -> float:
    """5 σ depth of a stack with weights 1/σ², from the 5 σ depths of its images; NaN for none."""
    known = [magnitude for magnitude in magnitudes if math.isfinite(magnitude)]
    if not known:
        return math.nan
    # From the deepest one, so that no power overflows.
    deepest = max(known)
    return deepest + 1.25 * math.log10(sum(10 ** (0.8 * (magnitude - deepest)) for magnitude in known))


@dataclass(frozen=True, slots=True)
class Sum:
    """What the used images of one filter are together."""

    images: int
    exposure_time_s: float
    depth_mag: float
    """NaN where no depth is known."""
    without_depth: int
    fwhm_arcsec: float


@dataclass(slots=True)
class Group:
    """Images through one filter with one instrument: only these add up."""

    instrument: str
    filter: str
    images: list[Image] = field(default_factory=list)

    def sums(self) -> tuple[Sum, Sum, float]:
        """Before, after, and by how many magnitudes the depth changes (NaN: not known)."""
        before, after = (self._sum([image for image in self.images if image.used[at]]) for at in (0, 1))
        change = after.depth_mag - before.depth_mag
        if not math.isfinite(change):
            # Without zero points: by counts per second, which are comparable through one filter of one instrument.
            relative = [
                combined_depth(
                    -2.5 * math.log10(image.limiting_adu_per_s)
                    for image in self.images
                    if image.used[at] and image.limiting_adu_per_s > 0
                )
                for at in (0, 1)
            ]
            change = relative[1] - relative[0]
        return before, after, change

    @staticmethod
    def _sum(used: Sequence[Image]) -> Sum:
        known = [image for image in used if math.isfinite(image.limiting_mag)]
        depth = combined_depth(image.limiting_mag for image in known)
        weights = [10 ** (0.8 * (image.limiting_mag - depth)) if known else 1.0 for image in used]
        return Sum(
            images=len(used),
            exposure_time_s=sum(image.exposure_time_s for image in used),
            depth_mag=depth,
            without_depth=len(used) - len(known),
            fwhm_arcsec=weighted_median([image.fwhm_arcsec for image in used], weights),
        )


def grouped(images: Iterable[Image]) -> list[Group]:
    """Images by instrument and filter."""
    groups: dict[tuple[str, str], Group] = {}
    for image in images:
        key = (image.instrument, image.filter)
        groups.setdefault(key, Group(*key)).images.append(image)
    return [groups[key] for key in sorted(groups)]


# ---- a small plot ----


@dataclass(frozen=True, slots=True)
class Histogram:
    """How many images have which value, and where the limit lies."""

    low: float
    high: float
    counts: tuple[int, ...]

    def bars(self) -> str:
        """One character per bin: higher is more."""
        most = max(self.counts, default=0)
        return "".join(
            " " if not count else _BARS[max(0, math.ceil(count / most * len(_BARS)) - 1)]
            for count in self.counts
        )

    def place(self, value: float) -> int:
        """The bin of a value; the ends take what is beyond them."""
        if self.high <= self.low:
            return 0
        at = int((value - self.low) / (self.high - self.low) * len(self.counts))
        return min(max(at, 0), len(self.counts) - 1)


def histogram(values: Iterable[float], limit: float, bins: int = _BINS) -> Histogram | None:
    """Counts of the finite values, over a range in which the limit lies too; None for no values."""
    known = [value for value in values if math.isfinite(value)]
    if not known:
        return None
    empty = Histogram(min(*known, limit), max(*known, limit), (0,) * bins)
    counts = [0] * bins
    for value in known:
        counts[empty.place(value)] += 1
    return Histogram(empty.low, empty.high, tuple(counts))
