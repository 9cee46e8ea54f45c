"""From figures to a verdict: which letter each rule gives, why, and which CCDs are not to be used.

The letter of an image is the worst that any rule gives, and every rule that does not give an A is a reason.
Nothing here measures: the same figures can be judged again, by other policies, at any time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf, isfinite, nan
from typing import TypeAlias

from spica_imaging.stats import median

from spica_quality.science.metrics.conditions import CCD_CONDITIONS
from spica_quality.science.metrics.figures import Value
from spica_quality.science.policy.policies import (
    CcdRule,
    Ccds,
    Kind,
    Letter,
    Limits,
    Policy,
    Rule,
    letter_for,
    pixel_figure,
)
from spica_quality.science.policy.runstatistics import NO_RUN, RunStatistics, Statistic
from spica_quality.science.policy.verdicts import CcdOut, Check, Finding, Verdict
from spica_quality.science.policy.wording import Words, words_for

Figures: TypeAlias = Mapping[str, Value]

_NOTHING_TO_JUDGE = ("no_pixels", "blank", "saturated", "dark", "no_stars")
"""Conditions in which no other figure means anything: they are the one reason."""
_NOISE_OF = {"background_adu": "background_rms_adu"}
"""Levels, and the noise of a pixel about them. One within its noise is a sky that was subtracted, and no measure."""


def judge(
    figures: Figures,
    ccds: Sequence[Figures],
    policy: Policy,
    profile: str | None,
    kind: Kind,
    run: RunStatistics = NO_RUN,
) -> Verdict:
    """Judge what was measured.

    Args:
        figures: of the image or stack (names of `figures.IMAGE_NAMES`); one that is missing or None was not measured.
        ccds: of each CCD (`figures.CCD_NAMES`); of a stack: its tiles, none of which is ever left out.
        policy: the rules.
        profile: instrument profile, whose own rules go over those of all; None: not one.
        kind: image, or stack.
        run: what is usual in the image's run.

    """
    whole = _of_condition(figures, policy)
    if whole is not None and whole.code in _NOTHING_TO_JUDGE:
        return Verdict(policy.tag, policy.purpose, whole.letter, (whole,), (), ())
    checks = [
        check_rule(name, rule, figures, run if kind == "image" else None)
        for name, rule in policy.rules_for(profile, kind).items()
    ]
    out: tuple[CcdOut, ...] = ()
    too_many = None
    if kind == "image":
        out, too_many = _ccds_out(ccds, policy.ccds_for(profile))
    told = (whole, *(check.finding for check in checks), too_many)
    findings = sorted((one for one in told if one is not None), key=lambda one: one.letter, reverse=True)
    letter: Letter = findings[0].letter if findings else "A"
    return Verdict(policy.tag, policy.purpose, letter, tuple(findings), out, tuple(checks))


def _is_level(level: float, noise: float) -> bool:
    """Whether a level is more than what subtracting the sky left of it; one whose noise is not known is."""
    return not level <= noise


def number(figures: Figures, name: str) -> float:
    """A figure as a number; NaN where it was not measured."""
    value = figures.get(name)
    return float(value) if isinstance(value, int | float) else nan


# ---- the frame as a whole ----


def _condition(figures: Figures) -> str | None:
    """What is wrong with the frame as a whole; what the counts say goes before what was recognised."""
    if figures.get("n_ccds") == 0:
        return "no_pixels"
    named = figures.get("condition")
    if isinstance(named, str) and named not in ("ok", ""):
        return named
    n_ccds = number(figures, "n_ccds")
    if n_ccds > 0 and number(figures, "n_ccds_blank") == n_ccds:
        return "blank"
    return "no_stars" if figures.get("n_stars") == 0 else None


def _of_condition(figures: Figures, policy: Policy) -> Finding | None:
    """The reason that the frame's condition is; None where nothing is wrong, or nothing that matters here."""
    name = _condition(figures)
    if name is None or (told := policy.condition(name)).grade == "A":
        return None
    return Finding(told.grade, name, _with_reason(str(told.says), figures), "condition", name, "ok")


def _with_reason(sentence: str, figures: Figures) -> str:
    """The sentence of a condition, and the numbers that led to it."""
    why = figures.get("condition_reason")
    return f"{sentence} {why}" if isinstance(why, str) and why else sentence


# ---- one rule ----


def check_rule(name: str, rule: Rule, figures: Figures, run: RunStatistics | None) -> Check:
    """Hold one figure against its limits, and against the run's where the rule says so. `run` None: never."""
    figure, value = _figure(name, rule, figures)
    words = words_for(figure, rule.over, rule.title, rule.code)
    limits = _limits(rule, figure, figures)
    shown = _limits_text(rule, limits, words)
    if not isfinite(value):
        check = _unmeasured(name, rule, figure, words, shown)
        if rule.over is None or check.finding or not isfinite(number(figures, rule.over)):
            return check
        return replace(check, note="not applied: no level above the noise to compare with")
    letters = [
        (letter_for(value, limit, upward=upward), limit, upward)
        for limit, upward in limits
        if any(isfinite(bound) for bound in limit)
    ]
    compared = _compare(rule, figure, value, run)
    own = max(letters, default=None, key=lambda entry: entry[0])
    letter: Letter = max(own[0] if own else "A", compared.letter or "A")
    finding = None
    if letter != "A":
        beyond = own if own and own[0] != "A" else None
        finding = _finding(letter, figure, value, words, beyond, compared)
    applied = bool(letters) or compared.letter is not None
    return Check(
        rule=name,
        figure=figure,
        found=words.text(value),
        value=value,
        limits=shown,
        z=compared.z,
        run=compared.statistic,
        letter=letter if applied else None,
        note=compared.note,
        finding=finding,
    )


def _figure(name: str, rule: Rule, figures: Figures) -> tuple[str, float]:
    """The figure that the rule is about, and its value; NaN where not measured."""
    figure = rule.figure_of(name)
    value = number(figures, figure)
    in_pixels = pixel_figure(figure)
    if rule.is_size and in_pixels and not isfinite(value):
        # Without a pixel scale sizes are judged in pixels only.
        value = number(figures, in_pixels)
        figure = in_pixels if isfinite(value) else figure
    if rule.over is not None:
        below = number(figures, rule.over)
        value = value / below if below and _is_level(below, _noise(rule.over, figures)) else nan
    return figure, value


def _noise(figure: str, figures: Figures) -> float:
    """The noise about a level; NaN for what is none."""
    return number(figures, _NOISE_OF[figure]) if figure in _NOISE_OF else nan


def _limits(rule: Rule, figure: str, figures: Figures) -> list[tuple[Limits, bool]]:
    """Limits in the unit of the figure, each with whether it limits from above."""
    if not rule.is_size:
        limits = [(rule.most, True), (rule.least, False)]
        if rule.within is not None:
            a, b, c = rule.within
            limits += [((a, b, c), True), ((-a, -b, -c), False)]
        return [(bounds, upward) for bounds, upward in limits if bounds is not None]
    if not figure.endswith("_arcsec"):
        return [(rule.pixels or (inf, inf, inf), True)]
    scale = number(figures, "pixel_scale_arcsec")
    arcsec, pixels = rule.arcsec or (0.0, 0.0, 0.0), rule.pixels or (0.0, 0.0, 0.0)
    if isfinite(scale):
        a, b, c = (max(angle, size * scale) for angle, size in zip(arcsec, pixels, strict=True))
        return [((a, b, c), True)]
    return [(rule.arcsec or (inf, inf, inf), True)]


def _limits_text(rule: Rule, limits: list[tuple[Limits, bool]], words: Words) -> tuple[str, ...]:
    def text(at: int) -> str:
        if rule.within is not None:
            return f"± {words.limit(rule.within[at])}" if isfinite(rule.within[at]) else "any"
        parts = [
            ("≤ " if upward else "≥ ") + words.limit(bounds[at])
            for bounds, upward in limits
            if isfinite(bounds[at])
        ]
        return " and ".join(parts) or "any"

    return tuple(text(at) for at in range(3 if limits else 0))


def _unmeasured(name: str, rule: Rule, figure: str, words: Words, shown: tuple[str, ...]) -> Check:
    finding = None
    letter: Letter | None = None
    if rule.unmeasured != "ignored":
        letter = rule.unmeasured
        message = f"{words.title} could not be measured"
        finding = Finding(letter, "unmeasured", message, figure, "nothing", shown[0] if shown else "a value")
    note = "not measured" if finding else "not measured: ignored"
    return Check(name, figure, None, nan, shown, None, None, letter, note, finding)


@dataclass(frozen=True, slots=True)
class _Compared:
    """How a figure compares with the run."""

    z: float | None = None
    statistic: Statistic | None = None
    letter: Letter | None = None
    expected: str = ""
    note: str = ""

    def words(self) -> str:
        """As in "3.1σ above this run"."""
        return "" if self.z is None else f"{abs(self.z):.1f}σ {'above' if self.z >= 0 else 'below'} this run"


def _compare(rule: Rule, figure: str, value: float, run: RunStatistics | None) -> _Compared:
    """Against the other images of the run: only where enough of them were measured."""
    if rule.run is None or run is None:
        return _Compared()
    found = run.figures.get(figure)
    n_images = found.n_images if found else 0
    if found is None or n_images < rule.run.images:
        least = rule.run.images
        return _Compared(
            note=f"not compared with the run: {n_images} other images like it measured, needs {least}"
        )
    found = replace(found, sigma=rule.run.sigma(found))
    z = found.z(value)
    if z is None:
        return _Compared(
            statistic=found, note=f"not compared with the run: {n_images} other images are all equal"
        )
    letters: list[tuple[Letter, str]] = []
    if rule.run.above is not None:
        letters.append((letter_for(z, rule.run.above, upward=True), f"≤ {rule.run.above[0]:g}σ above"))
    if rule.run.below is not None:
        letters.append((letter_for(-z, rule.run.below, upward=True), f"≤ {rule.run.below[0]:g}σ below"))
    letter, expected = max(letters)
    return _Compared(z, found, letter, f"{expected} this run")


def _finding(
    letter: Letter,
    figure: str,
    value: float,
    words: Words,
    beyond: tuple[Letter, Limits, bool] | None,
    compared: _Compared,
) -> Finding:
    """The reason in people's words: "FWHM 1.42″ > 1.3″, 3.1σ above this run"."""
    found = words.text(value)
    code = words.codes[letter == "D"]
    if beyond is not None:
        own, limits, upward = beyond
        crossed = limits["ABCD".index(own) - 1]
        exceeded, found = words.limit(crossed), words.beside(value, crossed)
        message = f"{words.title} {found} {'>' if upward else '<'} {exceeded}"
        expected = f"{'≤' if upward else '≥'} {words.limit(limits[0])}"
    else:
        message, expected = f"{words.title} {found}", compared.expected
    if told := compared.words():
        message += f", {told}"
    statistic = compared.statistic
    if beyond is None and statistic is not None:
        usual = f"{words.text(statistic.median)} ± {words.text(statistic.sigma)}"
        message += f" ({usual} in {statistic.n_images} images)"
    return Finding(letter, code, message, figure, found, expected)


# ---- single CCDs ----


def _ccds_out(ccds: Sequence[Figures], rules: Ccds) -> tuple[tuple[CcdOut, ...], Finding | None]:
    """CCDs that are not to be used; and a reason where so many are that the exposure suffers.

    None is taken out of an exposure of which none would be left: then the exposure itself is what is bad.
    """
    middles = {
        rule.figure_of(name): _middle(ccds, rule.figure_of(name)) for name, rule in rules.rules.items()
    }
    out = []
    for index, ccd in enumerate(ccds):
        findings = _ccd_findings(ccd, rules, middles)
        if findings:
            hdu = ccd.get("hdu")
            name = str(ccd.get("name") or index)
            out.append(CcdOut(name, hdu if isinstance(hdu, int) else index, tuple(findings)))
    too_many = _too_many(out, len(ccds), rules.most_out)
    return (tuple(out) if len(out) < len(ccds) else ()), too_many


def _middle(ccds: Sequence[Figures], figure: str) -> float:
    """Median over the CCDs; NaN where a single one cannot be held against it."""
    middle = median([number(ccd, figure) for ccd in ccds])
    return middle if _is_level(middle, median([_noise(figure, ccd) for ccd in ccds])) else nan


def _ccd_findings(ccd: Figures, rules: Ccds, middles: Mapping[str, float]) -> list[Finding]:
    hdu = ccd.get("hdu")
    at = hdu if isinstance(hdu, int) else None
    name = ccd.get("name")
    condition = ccd.get("condition")
    if condition in rules.conditions:
        message = f"{name}: {_with_reason(CCD_CONDITIONS[str(condition)], ccd)}"
        return [Finding("D", f"ccd_{condition}", message, "condition", str(condition), "ok", at)]
    found = []
    for rule_name, rule in rules.rules.items():
        figure = rule.figure_of(rule_name)
        words = words_for(figure, None, rule.title, rule.code)
        if told := _ccd_fault(rule, number(ccd, figure), middles[figure], words):
            message, value, expected = told
            found.append(
                Finding(
                    "D",
                    rule.code or f"ccd_{words.codes[0]}",
                    f"{name}: {message}",
                    figure,
                    value,
                    expected,
                    at,
                )
            )
    return found


def _ccd_fault(rule: CcdRule, value: float, middle: float, words: Words) -> tuple[str, str, str] | None:
    """Message, what was found and what was expected; None where the CCD keeps the rule."""
    if not isfinite(value):
        if rule.unmeasured == "ignored":
            return None
        return f"{words.title} could not be measured", "nothing", "a value"
    found = words.text(value)
    for limit, upward in ((rule.most, True), (rule.least, False)):
        if limit is not None and (value > limit if upward else value < limit):
            sign = ">" if upward else "<"
            return (
                f"{words.title} {found} {sign} {words.limit(limit)}",
                found,
                f"{'≤' if upward else '≥'} {words.limit(limit)}",
            )
    for times, upward in ((rule.most_times, True), (rule.least_times, False)):
        if times is None or not isfinite(middle):
            continue
        if value > times * middle if upward else value < times * middle:
            usual = f"{times:g} × {words.text(middle)}, the CCDs' median"
            return f"{words.title} {found} {'>' if upward else '<'} {usual}", found, usual
    return None


def _too_many(out: Sequence[CcdOut], n_ccds: int, limits: Limits | None) -> Finding | None:
    if limits is None or not out:
        return None
    share = len(out) / n_ccds
    letter = letter_for(share, limits, upward=True)
    if letter == "A":
        return None
    names = ", ".join(ccd.name for ccd in out[:6]) + (" …" if len(out) > 6 else "")
    message = f"{len(out)} of {n_ccds} CCDs cannot be used ({names})"
    return Finding(letter, "ccds_out", message, "ccds_out", f"{share:.2f}", f"≤ {limits[0]:g}")
