"""What a policy is: rules over flat figures, as they stand in a file (TOML).

Measuring never decides whether an image is fit; fitness depends on the use. A policy says for one use which
limits a figure must keep for A, B and C; `judging` applies it. A name that no figure has is refused with
those that look like it. How to write one: POLICIES.md of the service.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from spica_quality.science.metrics.conditions import CCD_CONDITIONS, FRAME_CONDITIONS
from spica_quality.science.metrics.figures import CCD_NAMES, FIGURES, IMAGE_NAMES
from spica_quality.science.policy.runstatistics import Statistic

Letter: TypeAlias = Literal["A", "B", "C", "D"]
Kind: TypeAlias = Literal["image", "stack"]
Limits: TypeAlias = tuple[float, float, float]
"""For A, B and C; what is beyond the third is D."""

DEFAULT = "default"
"""The policy that gives the grade."""

_TEXTS = ("name", "condition", "condition_reason")
IMAGE_FIGURES: tuple[str, ...] = tuple(name for name in IMAGE_NAMES if name not in _TEXTS)
"""Figures of images that rules can be about."""
CCD_FIGURES: tuple[str, ...] = tuple(name for name in CCD_NAMES if name not in (*_TEXTS, "hdu"))


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


def _not_looser(limits: Limits) -> bool:
    """Whether limits fail to become looser from A to C; those that are no numbers do."""
    a, b, c = limits
    return not a <= b <= c


class RunLimits(_Table):
    """How far a figure may lie from the other images of its run, in sigma, for A, B and C."""

    above: Limits | None = None
    below: Limits | None = None
    images: int = Field(10, ge=3, description="With fewer measured so far the limits are not applied.")
    least_sigma: float = Field(
        0.0,
        ge=0,
        description="In a run more even than this, sigma is taken to be this, in the figure's unit.",
    )

    least_share: float = Field(
        0.0,
        ge=0,
        description="The same, as a share of the run's median: 0.05 for counts that vary by 5 % anyway.",
    )

    def sigma(self, found: Statistic) -> float:
        """The sigma that values are compared with."""
        return max(found.sigma, self.least_sigma, self.least_share * abs(found.median))

    @model_validator(mode="after")
    def _sound(self) -> RunLimits:
        if self.above is None and self.below is None:
            raise ValueError("`run` has limits `above` or `below` the other images of the run, in sigma")
        for limits in (self.above, self.below):
            if limits is not None and (_not_looser(limits) or limits[0] < 0):
                raise ValueError(f"limits for A, B, C in sigma are above 0 and become looser: {limits}")
        return self


class Rule(_Table):
    """Limits of one figure for A, B and C: at `most`, at `least`, `within` ±; or a size in `arcsec` and `pixels`.

    Of `arcsec` and `pixels` the larger counts: coarse pixels are not blamed for large stars.
    """

    figure: str | None = Field(None, description="The figure that it is about; default: the rule's name.")
    over: str | None = Field(None, description="The figure is divided by this one first.")
    most: Limits | None = None
    least: Limits | None = None
    within: Limits | None = None
    arcsec: Limits | None = None
    pixels: Limits | None = None
    run: RunLimits | None = None
    unmeasured: Literal["ignored", "B", "C", "D"] = Field(
        "ignored", description="The letter that the rule gives where the figure could not be measured."
    )
    code: str | None = Field(None, pattern=r"^[a-z][a-z0-9_]*$", description="Code of the reason.")
    title: str | None = Field(None, description="The figure's name in the reason.")
    off: bool = Field(False, description="The rule is not applied: for a stack, or one instrument.")

    @property
    def is_size(self) -> bool:
        """Whether the limits are sizes."""
        return self.arcsec is not None or self.pixels is not None

    @model_validator(mode="after")
    def _sound(self) -> Rule:
        limited = [name for name in ("most", "least", "within") if getattr(self, name) is not None]
        if self.is_size and limited:
            raise ValueError(f"a rule has either `arcsec` and/or `pixels`, or `{limited[0]}`")
        if self.within is not None and len(limited) > 1:
            raise ValueError("a rule has either `within`, or `most` and/or `least`")
        if not (limited or self.is_size or self.run or self.off):
            raise ValueError("a rule has limits: most, least, within, arcsec, pixels or run (or it is `off`)")
        for limits in (self.most, self.within, self.arcsec, self.pixels):
            if limits is not None and _not_looser(limits):
                raise ValueError(f"limits for A, B, C must become looser: {limits}")
        if self.least is not None and _not_looser(self.least[::-1]):
            raise ValueError(f"limits for A, B, C must become looser: {self.least}")
        if self.most is not None and self.least is not None and self.most[0] < self.least[0]:
            raise ValueError(f"nothing is at most {self.most[0]:g} and at least {self.least[0]:g}")
        if self.run is not None and self.over is not None:
            raise ValueError("`run` compares one figure with the run's; it does not go with `over`")
        return self

    def figure_of(self, name: str) -> str:
        """The figure that a rule of this name is about."""
        return self.figure or name


class CcdRule(_Table):
    """Beyond which limit a single CCD is left out: its own, or relative to the median of the exposure's CCDs."""

    figure: str | None = None
    most: float | None = None
    least: float | None = None
    most_times: float | None = Field(None, gt=0, description="Times the median over the exposure's CCDs.")
    least_times: float | None = Field(None, ge=0)
    unmeasured: Literal["ignored", "out"] = "ignored"
    code: str | None = Field(None, pattern=r"^[a-z][a-z0-9_]*$")
    title: str | None = None
    off: bool = False

    @model_validator(mode="after")
    def _sound(self) -> CcdRule:
        limits = (self.most, self.least, self.most_times, self.least_times)
        if all(limit is None for limit in limits) and self.unmeasured == "ignored" and not self.off:
            raise ValueError("a rule of CCDs has limits: most, least, most_times or least_times")
        return self

    def figure_of(self, name: str) -> str:
        """The figure that a rule of this name is about."""
        return self.figure or name


Rules: TypeAlias = dict[str, Rule]
CcdRules: TypeAlias = dict[str, CcdRule]


class Ccds(_Table):
    """Which CCDs are left out (weight 0), and when so many are that the exposure is."""

    conditions: tuple[str, ...] = Field((), description="CCDs in these conditions are out.")
    most_out: Limits | None = Field(None, description="Share of the CCDs that may be out, for A, B and C.")
    rules: CcdRules = Field(default_factory=dict)


class Condition(_Table):
    """What a named condition of the frame means for this use."""

    grade: Letter = "D"
    says: str | None = Field(None, min_length=1)


def _condition(value: Any) -> Any:
    """A bare sentence is a D."""
    return {"says": value} if isinstance(value, str) else value


class Overrides(_Table):
    """What is otherwise for one instrument profile: each rule replaces the one of its name whole."""

    rules: Rules = Field(default_factory=dict)
    ccds: Ccds = Field(default_factory=Ccds)


class Policy(_Table):
    """A named, versioned set of rules for one use."""

    name: str = Field(pattern=r"^[A-Za-z0-9_.+-]+$")
    version: int = Field(ge=1)
    use: str = Field("", description="What images are judged for; default: the name.")
    description: str = ""
    rules: Rules = Field(default_factory=dict)
    stack: Rules = Field(default_factory=dict, description="What is otherwise for stacks.")
    profiles: dict[str, Overrides] = Field(default_factory=dict)
    conditions: dict[str, Annotated[Condition, BeforeValidator(_condition)]] = Field(default_factory=dict)
    ccds: Ccds = Field(default_factory=Ccds)

    @model_validator(mode="after")
    def _known_names(self) -> Policy:
        parts = [("rules", self.rules), ("stack", self.stack)]
        ccds = [("ccds", self.ccds)]
        for name, own in self.profiles.items():
            parts.append((f"profiles.{name}.rules", own.rules))
            ccds.append((f"profiles.{name}.ccds", own.ccds))
        faults = [
            *(fault for where, rules in parts for fault in _faults_of_rules(where, rules, self.rules)),
            *(fault for where, rules in ccds for fault in _faults_of_ccds(where, rules)),
            *(
                f"conditions.{name}: there is no such condition{near(name, FRAME_CONDITIONS)}"
                for name in self.conditions
                if name not in FRAME_CONDITIONS
            ),
        ]
        if faults:
            raise ValueError("; ".join(faults))
        return self

    @property
    def tag(self) -> str:
        """`name@version`."""
        return f"{self.name}@{self.version}"

    @property
    def label(self) -> str:
        """As it stands in `graded_by`."""
        return f"policy:{self.tag}"

    @property
    def purpose(self) -> str:
        """What images are judged for."""
        return self.use or self.name

    def rules_for(self, profile: str | None, kind: Kind) -> Rules:
        """Rules of all, overridden by those of the instrument, overridden by those of stacks; none that is off."""
        own = self.profiles[profile].rules if profile in self.profiles else {}
        rules = {**self.rules, **own, **(self.stack if kind == "stack" else {})}
        return {name: rule for name, rule in rules.items() if not rule.off}

    def ccds_for(self, profile: str | None) -> Ccds:
        """The same for single CCDs: what the instrument's part does not say is as for all."""
        own = self.profiles[profile].ccds if profile in self.profiles else Ccds()
        rules = {**self.ccds.rules, **own.rules}
        return Ccds(
            conditions=own.conditions if "conditions" in own.model_fields_set else self.ccds.conditions,
            most_out=own.most_out or self.ccds.most_out,
            rules={name: rule for name, rule in rules.items() if not rule.off},
        )

    def condition(self, name: str) -> Condition:
        """What a condition of the frame means: a D with its sentence, unless the policy says otherwise."""
        told = self.conditions.get(name, Condition())
        sentence = told.says or FRAME_CONDITIONS.get(name) or f"The frame is {name.replace('_', ' ')}."
        return Condition(grade=told.grade, says=sentence)

    def run_figures(self) -> frozenset[str]:
        """Figures that are compared with the other images of a run."""
        parts = [self.rules, *(own.rules for own in self.profiles.values())]
        return frozenset(
            figure
            for rules in parts
            for name, rule in rules.items()
            if rule.run is not None
            for figure in figures_of(rule.figure_of(name), rule)
        )


@dataclass(frozen=True, slots=True)
class Policies:
    """All policies that images are judged by; one of them is called `default`."""

    all: tuple[Policy, ...]

    def __post_init__(self) -> None:
        self.named(DEFAULT)

    def __iter__(self) -> Iterator[Policy]:
        return iter(self.all)

    @property
    def default(self) -> Policy:
        """The one that gives the grade."""
        return self.named(DEFAULT)

    def named(self, name: str) -> Policy:
        """By name. KeyError: there is none."""
        for policy in self.all:
            if policy.name == name:
                return policy
        raise KeyError(f"no policy is called {name!r}{near(name, [policy.name for policy in self.all])}")

    def run_figures(self) -> frozenset[str]:
        """Figures that any of them compares with the other images of a run."""
        return frozenset().union(*(policy.run_figures() for policy in self.all))


def parse_policy(text: str) -> Policy:
    """Read a policy from TOML.

    ValueError (pydantic's ValidationError and TOMLDecodeError are) names what does not fit.
    """
    return Policy.model_validate(tomllib.loads(text))


def figures_of(figure: str, rule: Rule) -> tuple[str, ...]:
    """The figures that a rule may look at: a size is judged in pixels where the scale is not known."""
    in_pixels = pixel_figure(figure)
    return (figure, in_pixels) if rule.is_size and in_pixels else (figure,)


def pixel_figure(figure: str) -> str | None:
    """The same size in pixels, where it is measured."""
    name = figure.removesuffix("_arcsec") + "_px"
    return name if figure.endswith("_arcsec") and name in IMAGE_FIGURES else None


def near(name: str, known: Mapping[str, Any] | list[str] | tuple[str, ...]) -> str:
    """Names that look like one that nothing has, as the end of a sentence."""
    found = get_close_matches(name, list(known), n=3, cutoff=0.5)
    parts = [other for other in known if name in other and other not in found][: 3 - len(found)]
    return f"; did you mean {' or '.join([*found, *parts])}?" if found or parts else ""


def letter_for(value: float, limits: Limits, *, upward: bool) -> Letter:
    """The letter that a value gets: upward limits are kept from below."""
    sign = 1.0 if upward else -1.0
    letters: tuple[Letter, ...] = ("A", "B", "C")
    # Not the other way round: a NaN keeps no limit.
    return next((at for at, limit in zip(letters, limits, strict=True) if sign * value <= sign * limit), "D")


def _faults_of_rules(where: str, rules: Rules, of_all: Rules) -> Iterator[str]:
    for name, rule in rules.items():
        if rule.off:
            if name not in of_all:
                yield f"{where}.{name}: there is no such rule to switch off{near(name, of_all)}"
            continue
        for figure in (rule.figure_of(name), rule.over):
            if figure is not None and figure not in IMAGE_FIGURES:
                yield f"{where}.{name}: there is no figure {figure!r}{_near_figure(figure, IMAGE_FIGURES)}"
        if rule.is_size and not rule.figure_of(name).endswith("_arcsec"):
            yield f"{where}.{name}: `arcsec` and `pixels` limit a size in arcsec, such as fwhm_arcsec"
        elif rule.pixels and pixel_figure(rule.figure_of(name)) is None and rule.arcsec is None:
            yield f"{where}.{name}: {rule.figure_of(name)} is not measured in pixels; limit it in `arcsec`"


def _faults_of_ccds(where: str, ccds: Ccds) -> Iterator[str]:
    for name in ccds.conditions:
        if name not in CCD_CONDITIONS:
            yield f"{where}.conditions: CCDs have no condition {name!r}{near(name, CCD_CONDITIONS)}"
    if ccds.most_out is not None and _not_looser(ccds.most_out):
        yield f"{where}.most_out: limits for A, B, C must become looser: {ccds.most_out}"
    for name, rule in ccds.rules.items():
        figure = rule.figure_of(name)
        if figure not in CCD_FIGURES:
            yield f"{where}.rules.{name}: CCDs have no figure {figure!r}{_near_figure(figure, CCD_FIGURES)}"


def _near_figure(name: str, known: tuple[str, ...]) -> str:
    """Figures that look like it; for one without its unit, those with."""
    units = [other for other in known if other.rpartition("_")[0] == name and other in FIGURES]
    return f"; did you mean {' or '.join(units)}?" if units else near(name, known)
