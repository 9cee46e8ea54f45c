"""From figures to a grade A to D, by rules that stand in a file.

A policy has rules; a rule has a limit for each of A, B and C. The grade is the worst that any rule
gives, and every rule that does not give A is a reason.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from math import isfinite
from typing import Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, model_validator

from spica_quality.science.figures import ImageFigures

Letter: TypeAlias = Literal["A", "B", "C", "D"]
_LETTERS: tuple[Letter, ...] = ("A", "B", "C", "D")

Limits = tuple[float, float, float]


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Rule(_Table):
    """Limits for A, B and C: `most`, or `least`, or a size in `arcsec` and/or `pixels` (the larger counts)."""

    most: Limits | None = None
    least: Limits | None = None
    arcsec: Limits | None = None
    pixels: Limits | None = None

    @model_validator(mode="after")
    def _one_direction(self) -> Rule:
        sizes = self.arcsec is not None or self.pixels is not None
        if sum((self.most is not None, self.least is not None, sizes)) != 1:
            raise ValueError("a rule has either `most`, or `least`, or `arcsec` and/or `pixels`")
        upward = self.least is None
        for limits in (self.most, self.least, self.arcsec, self.pixels):
            if limits is not None and sorted(limits, reverse=not upward) != list(limits):
                raise ValueError(f"limits for A, B, C must become looser: {limits}")
        return self


RuleName: TypeAlias = Literal[
    "fwhm",
    "ellipticity",
    "stars",
    "central_dip",
    "usable_fraction",
    "saturated_fraction",
    "ccds_without_stars",
    "fwhm_spread",
]
Rules = dict[RuleName, Rule]


class Policy(_Table):
    """A named, versioned set of rules."""

    name: str = Field(pattern=r"^[A-Za-z0-9_.+-]+$")
    version: int = Field(ge=1)
    rules: Rules
    stack: Rules = Field(default_factory=dict)
    profiles: dict[str, Rules] = Field(default_factory=dict)

    @property
    def label(self) -> str:
        """As it stands in `graded_by`."""
        return f"policy:{self.name}@{self.version}"

    def rules_for(self, profile: str | None, kind: Literal["image", "stack"]) -> Rules:
        """Rules of all, overridden by those of the instrument, overridden by those of stacks."""
        own = self.profiles.get(profile, {}) if profile else {}
        return {**self.rules, **own, **(self.stack if kind == "stack" else {})}


def parse_policy(text: str) -> Policy:
    """Read a policy from TOML; pydantic's error names what does not fit."""
    return Policy.model_validate(tomllib.loads(text))


@dataclass(frozen=True, slots=True)
class Finding:
    """One reason for a grade below A."""

    letter: Letter
    code: str
    message: str
    metric: str
    found: str
    expected: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """A grade and its reasons, the gravest first."""

    letter: Letter
    findings: tuple[Finding, ...]


def grade(
    figures: ImageFigures, policy: Policy, profile: str | None, kind: Literal["image", "stack"]
) -> Verdict:
    """Judge what was measured. Frames on which nothing could be measured get a D that says why."""
    if nothing := _nothing_measured(figures):
        return Verdict("D", (nothing,))
    rules = policy.rules_for(profile, kind)
    findings = [finding for name, rule in rules.items() if (finding := _judge(name, rule, figures))]
    findings.sort(key=lambda finding: finding.letter, reverse=True)
    return Verdict(findings[0].letter if findings else "A", tuple(findings))


def _nothing_measured(figures: ImageFigures) -> Finding | None:
    if figures.n_ccds == 0:
        return Finding("D", "no_pixels", "The file holds no image.", "n_ccds", "0", "≥ 1")
    if figures.n_blank == figures.n_ccds:
        return Finding(
            "D",
            "blank",
            "All pixels are equal, saturated or without a value.",
            "background_rms_adu",
            "0",
            "> 0",
        )
    if figures.n_stars == 0:
        seen = f"{figures.n_sources} detections" if figures.n_sources else "nothing"
        message = f"No star among {seen}: dark, clouded, or far out of focus."
        return Finding("D", "no_stars", message, "n_stars", "0", "≥ 1")
    return None


@dataclass(frozen=True, slots=True)
class _Metric:
    """How a rule's figure is found in the figures, and said."""

    value: float
    title: str
    codes: tuple[str, str]
    """Reason code below A, and at D."""
    metric: str
    style: str
    unit: str = ""

    def text(self, value: float) -> str:
        return format(value, self.style) + self.unit


def _metric(name: RuleName, figures: ImageFigures) -> _Metric:
    table: dict[RuleName, _Metric] = {
        "fwhm": _Metric(
            figures.fwhm_arcsec, "FWHM", ("poor_seeing", "out_of_focus"), "fwhm_arcsec", ".2f", "″"
        ),
        "ellipticity": _Metric(
            figures.ellipticity, "Ellipticity", ("elongated", "trailed"), "ellipticity", ".3f"
        ),
        "stars": _Metric(figures.n_stars, "Stars", ("few_stars", "too_few_stars"), "n_stars", ".0f"),
        "central_dip": _Metric(
            figures.central_dip, "Central dip of stars", ("out_of_focus",) * 2, "central_dip", ".2f"
        ),
        "usable_fraction": _Metric(
            figures.usable_fraction, "Usable share of pixels", ("masked",) * 2, "usable_fraction", ".3f"
        ),
        "saturated_fraction": _Metric(
            figures.saturated_fraction,
            "Saturated share of pixels",
            ("saturated",) * 2,
            "saturated_fraction",
            ".4f",
        ),
        "ccds_without_stars": _Metric(
            figures.ccds_without_stars,
            "Share of CCDs without stars",
            ("ccds_without_stars",) * 2,
            "n_stars",
            ".2f",
        ),
        "fwhm_spread": _Metric(
            figures.fwhm_spread, "Spread of FWHM over CCDs", ("uneven_seeing",) * 2, "fwhm_px", ".2f"
        ),
    }
    return table[name]


def _judge(name: RuleName, rule: Rule, figures: ImageFigures) -> Finding | None:
    metric = _metric(name, figures)
    if name == "fwhm" and not isfinite(metric.value):
        # Without a pixel scale sizes are judged in pixels only.
        metric = _Metric(figures.fwhm_px, metric.title, metric.codes, "fwhm_px", ".2f", " px")
    if not isfinite(metric.value):
        return None
    limits, upward = _limits(rule, figures)
    sign = 1.0 if upward else -1.0
    letter: Letter = next(
        (
            letter
            for letter, limit in zip(_LETTERS, limits, strict=False)
            if sign * metric.value <= sign * limit
        ),
        "D",
    )
    if letter == "A":
        return None
    exceeded = limits[_LETTERS.index(letter) - 1]
    found, expected = metric.text(metric.value), metric.text(exceeded)
    return Finding(
        letter,
        metric.codes[letter == "D"],
        f"{metric.title} {found} {'>' if upward else '<'} {expected}",
        metric.metric,
        found,
        f"{'≤' if upward else '≥'} {metric.text(limits[0])}",
    )


def _limits(rule: Rule, figures: ImageFigures) -> tuple[Limits, bool]:
    """The three limits, in the unit of the figure, and whether they limit from above."""
    if rule.most is not None:
        return rule.most, True
    if rule.least is not None:
        return rule.least, False
    scale = figures.pixel_scale_arcsec
    if not isfinite(scale):
        pixels = rule.pixels or (float("inf"),) * 3
        return pixels, True
    arcsec = rule.arcsec or (0.0, 0.0, 0.0)
    in_pixels = rule.pixels or (0.0, 0.0, 0.0)
    a, b, c = (max(angle, size * scale) for angle, size in zip(arcsec, in_pixels, strict=True))
    return (a, b, c), True
