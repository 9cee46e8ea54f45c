"""From figures to a letter with reasons."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from spica_imaging.stats import SIGMA_PER_MAD
from spica_quality.policyfiles import load_policies
from spica_quality.science.metrics.conditions import FRAME_CONDITIONS
from spica_quality.science.metrics.figures import Value
from spica_quality.science.policy.judging import judge
from spica_quality.science.policy.policies import Policy, parse_policy
from spica_quality.science.policy.runstatistics import NO_RUN, RunStatistics, run_statistics
from spica_quality.science.policy.verdicts import Verdict
from spica_quality.science.policy.wording import words_for

GOOD: dict[str, Value] = {
    "condition": "ok",
    "n_ccds": 36,
    "n_ccds_blank": 0,
    "n_sources": 90_000,
    "n_stars": 5_000,
    "fwhm_px": 3.8,
    "fwhm_arcsec": 0.71,
    "ellipticity": 0.04,
    "central_dip": 0.0,
    "fwhm_spread": 0.1,
    "ccds_without_stars": 0.0,
    "background_adu": 900.0,
    "background_rms_adu": 25.0,
    "limiting_flux_adu": 800.0,
    "limiting_mag": 24.4,
    "saturated_fraction": 1e-4,
    "usable_fraction": 0.98,
    "pixel_scale_arcsec": 0.187,
}
CCD: dict[str, Value] = {
    "condition": "ok",
    "usable_fraction": 0.98,
    "fwhm_px": 3.8,
    "background_rms_adu": 25.0,
    "background_adu": 900.0,
    "n_psf_stars": 120,
    "ellipticity": 0.04,
}


def camera(n: int = 36, **changes: dict[str, Value]) -> list[dict[str, Value]]:
    """CCDs, with what is otherwise on some: ccd03={"condition": "dead"}."""
    names = [f"ccd{number:02d}" for number in range(n)]
    return [{"hdu": at + 1, "name": name} | CCD | changes.get(name, {}) for at, name in enumerate(names)]


def run_of(n: int = 30, **figures: tuple[float, float]) -> RunStatistics:
    """A run of which half the images lie above the median and half below, each by its median deviation."""
    return run_statistics(
        "19A",
        "r",
        {
            name: [middle + (-1) ** at * sigma / SIGMA_PER_MAD for at in range(n)]
            for name, (middle, sigma) in figures.items()
        },
    )


@pytest.fixture(scope="module")
def policy() -> Policy:
    return load_policies().default


def own(text: str) -> Policy:
    return parse_policy(f'name = "own"\nversion = 3\n{text}')


def letter_and_reasons(verdict: Verdict) -> tuple[str, list[str]]:
    return verdict.letter, [finding.message for finding in verdict.findings]


def test_a_good_frame_is_a_for_every_use_without_reasons() -> None:
    for policy in load_policies():
        verdict = judge(GOOD, camera(), policy, "megacam", "image")
        assert (verdict.letter, verdict.findings, verdict.out) == ("A", (), ()), policy.name
        assert verdict.policy == policy.tag
        assert verdict.checks


@pytest.mark.parametrize(
    ("change", "letter", "code", "message"),
    [
        ({"fwhm_arcsec": 1.12}, "B", "poor_seeing", "FWHM 1.12″ > 1″"),
        ({"fwhm_arcsec": 1.5}, "C", "poor_seeing", "FWHM 1.50″ > 1.3″"),
        ({"fwhm_arcsec": 2.41}, "D", "poor_seeing", "FWHM 2.41″ > 2″"),
        ({"ellipticity": 0.3}, "C", "elongated", "Ellipticity 0.300 > 0.25"),
        ({"ellipticity": 0.6}, "D", "trailed", "Ellipticity 0.600 > 0.4"),
        ({"n_stars": 30}, "D", "too_few_stars", "Stars 30 < 40"),
        ({"n_stars": 150}, "B", "few_stars", "Stars 150 < 200"),
        ({"central_dip": 0.5}, "D", "out_of_focus", "Central dip of stars 0.50 > 0.2"),
        ({"usable_fraction": 0.6}, "C", "masked", "Usable share of pixels 0.600 < 0.75"),
        ({"saturated_fraction": 0.3}, "D", "saturated", "Saturated share of pixels 0.30000 > 0.1"),
        ({"ccds_without_stars": 0.05}, "B", "ccds_without_stars", "Share of CCDs without stars 0.05 > 0"),
        ({"fwhm_spread": 0.4}, "B", "uneven_seeing", "Spread of FWHM over CCDs 0.40 > 0.25"),
        ({"offset_ra_arcsec": -95.0}, "B", "astrometric_offset", "Offset ra -95.00″ < -30″"),
        ({"n_ccds_missing": 6}, "C", "missing_ccds", "Missing CCDs 6 > 4"),
    ],
)
def test_each_rule_gives_its_grade_and_its_reason(
    policy: Policy, change: dict[str, Value], letter: str, code: str, message: str
) -> None:
    verdict = judge(GOOD | change, camera(), policy, "megacam", "image")
    (finding,) = verdict.findings
    assert (verdict.letter, finding.code, finding.message) == (
        letter,
        code,
        message.replace("ra -", "in RA -"),
    )
    assert finding.metric in change
    assert finding.found
    assert finding.expected.startswith(("≤", "≥"))


def test_the_worst_rule_decides_and_stands_first(policy: Policy) -> None:
    verdict = judge(GOOD | {"fwhm_arcsec": 1.1, "ellipticity": 0.5}, (), policy, "megacam", "image")
    assert verdict.letter == "D"
    assert [finding.letter for finding in verdict.findings] == ["D", "B"]


# ---- the frame as a whole ----


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"n_ccds_blank": 36, "n_stars": 0}, "blank"),
        ({"n_stars": 0, "fwhm_px": None, "fwhm_arcsec": None, "ellipticity": None}, "no_stars"),
        ({"n_ccds": 0}, "no_pixels"),
        ({"condition": "dark"}, "dark"),
        ({"condition": "blank", "n_stars": 0}, "blank"),
    ],
)
def test_where_nothing_was_measured_one_reason_has_a_name(
    policy: Policy, change: dict[str, Value], code: str
) -> None:
    verdict = judge(GOOD | change, camera(ccd01={"condition": "dead"}), policy, "megacam", "image")
    assert (verdict.letter, [finding.code for finding in verdict.findings]) == ("D", [code])
    # All of it is bad: no CCD needs to be taken out.
    assert (verdict.out, verdict.checks) == ((), ())


def test_conditions_are_a_d_with_their_sentence_and_their_numbers(policy: Policy) -> None:
    for name, sentence in FRAME_CONDITIONS.items():
        if name in policy.conditions:
            continue
        figures = GOOD | {"condition": name, "condition_reason": "Stars are 31 px long."}
        verdict = judge(figures, camera(), policy, "megacam", "image")
        assert letter_and_reasons(verdict) == ("D", [f"{sentence} Stars are 31 px long."])
    unheard = judge(GOOD | {"condition": "on_fire"}, (), policy, "megacam", "image")
    assert letter_and_reasons(unheard) == ("D", ["The frame is on fire."])


def test_a_policy_may_take_a_condition_less_seriously() -> None:
    mild = own('[conditions]\ntrailed = { grade = "B" }\ndoubled = { grade = "A" }\ndark = "Closed."')
    assert judge(GOOD | {"condition": "trailed"}, (), mild, None, "image").letter == "B"
    assert judge(GOOD | {"condition": "doubled"}, (), mild, None, "image").letter == "A"
    told = judge(GOOD | {"condition": "dark"}, (), mild, None, "image")
    assert letter_and_reasons(told) == ("D", ["Closed."])


# ---- sizes, instruments, stacks ----


def test_coarse_pixels_are_not_blamed_for_large_stars(policy: Policy) -> None:
    coarse = GOOD | {"pixel_scale_arcsec": 5.2, "fwhm_px": 2.2, "fwhm_arcsec": 11.4}
    assert judge(coarse, (), policy, "microobservatory", "image").letter == "A"
    assert judge(coarse, (), policy, "generic", "image").letter == "A"
    blurred = coarse | {"fwhm_px": 4.2, "fwhm_arcsec": 21.8}
    assert judge(blurred, (), policy, "microobservatory", "image").letter == "C"


def test_without_a_scale_sizes_are_judged_in_pixels(policy: Policy) -> None:
    unknown = GOOD | {"pixel_scale_arcsec": None, "fwhm_arcsec": None, "fwhm_px": 5.0}
    verdict = judge(unknown, (), policy, None, "image")
    assert letter_and_reasons(verdict) == ("B", ["FWHM 5.00 px > 4 px"])


def test_stacks_may_have_empty_margins_and_lose_no_ccd(policy: Policy) -> None:
    margins = GOOD | {"usable_fraction": 0.4}
    tiles = camera(4, ccd01={"condition": "blank"})
    assert judge(margins, camera(), policy, "megacam", "image").letter == "D"
    verdict = judge(margins, tiles, policy, "megacam", "stack", run_of(fwhm_arcsec=(0.5, 0.01)))
    assert (verdict.letter, verdict.out) == ("A", ())


def test_one_figure_may_be_judged_relative_to_another() -> None:
    sky = own(
        '[rules.g]\nfigure = "background_gradient_adu"\nover = "background_adu"\nmost = [0.02, 0.05, 0.15]'
    )
    for gradient, letter in ((9.0, "A"), (27.0, "B"), (900.0, "D")):
        assert judge(GOOD | {"background_gradient_adu": gradient}, (), sky, None, "image").letter == letter
    verdict = judge(GOOD | {"background_gradient_adu": 27.0}, (), sky, None, "image")
    assert letter_and_reasons(verdict)[1] == ["Gradient of the sky over sky 0.03 > 0.02"]
    for sky_level in (0.0, None):
        dark = GOOD | {"background_gradient_adu": 27.0, "background_adu": sky_level}
        assert judge(dark, (), sky, None, "image").letter == "A"


def test_what_was_not_measured_is_ignored_or_counts_as_the_rule_says() -> None:
    rule = "[rules.limiting_mag]\nleast = [24, 23, 22]\n"
    nothing = GOOD | {"limiting_mag": None}
    ignored = judge(nothing, (), own(rule), None, "image")
    assert (ignored.letter, ignored.checks[0].note) == ("A", "not measured: ignored")
    against = judge(nothing, (), own(rule + 'unmeasured = "C"'), None, "image")
    assert letter_and_reasons(against) == ("C", ["Depth could not be measured"])
    assert against.findings[0].code == "unmeasured"


# ---- the run ----


def test_the_reason_tells_limit_and_run(policy: Policy) -> None:
    run = run_of(fwhm_arcsec=(0.8, 0.2))
    verdict = judge(GOOD | {"fwhm_arcsec": 1.42}, (), policy, "megacam", "image", run)
    assert letter_and_reasons(verdict) == ("C", ["FWHM 1.42″ > 1.3″, 3.1σ above this run"])
    (check,) = (check for check in verdict.checks if check.rule == "fwhm_arcsec")
    assert check.z == pytest.approx(3.1, abs=0.01)
    assert check.limits == ("≤ 1″", "≤ 1.3″", "≤ 2″")


def test_an_image_that_is_worse_than_its_night_loses_a_letter(policy: Policy) -> None:
    run = run_of(fwhm_arcsec=(0.5, 0.06))
    verdict = judge(GOOD | {"fwhm_arcsec": 0.8}, (), policy, "megacam", "image", run)
    assert letter_and_reasons(verdict) == (
        "B",
        ["FWHM 0.80″, 5.0σ above this run (0.50″ ± 0.06″ in 30 images)"],
    )
    assert verdict.findings[0].expected == "≤ 4σ above this run"


def test_a_quiet_run_is_not_a_strict_one(policy: Policy) -> None:
    """0.57″ among images of 0.5″ ± 0.001″ is 70 sigma off, and as good as they are."""
    run = run_of(fwhm_arcsec=(0.5, 0.001))
    assert judge(GOOD | {"fwhm_arcsec": 0.57}, (), policy, "megacam", "image", run).letter == "A"


def test_an_even_run_may_be_given_a_share_of_its_median(policy: Policy) -> None:
    run = run_of(n_stars=(5000.0, 10.0))
    letters = [
        judge(GOOD | {"n_stars": n}, (), policy, "megacam", "image", run).letter for n in (4100, 3900, 2900)
    ]
    assert letters == ["A", "B", "C"]
    (check,) = (
        check
        for check in judge(GOOD | {"n_stars": 4000}, (), policy, "megacam", "image", run).checks
        if check.rule == "n_stars"
    )
    assert (check.z, check.run.sigma if check.run else None) == (pytest.approx(-4.0), 250.0)


def test_a_run_that_just_began_is_no_measure_and_this_is_said(policy: Policy) -> None:
    run = run_of(9, fwhm_arcsec=(0.5, 0.06))
    verdict = judge(GOOD | {"fwhm_arcsec": 0.9}, (), policy, "megacam", "image", run)
    (check,) = (check for check in verdict.checks if check.rule == "fwhm_arcsec")
    assert (verdict.letter, check.z) == ("A", None)
    assert check.note == "not compared with the run: 9 other images like it measured, needs 10"


def test_images_that_are_all_equal_are_no_measure_either() -> None:
    strict = own("[rules.n_stars]\nrun = { below = [1, 2, 3], images = 5 }")
    run = run_statistics("19A", "r", {"n_stars": [100.0] * 8})
    verdict = judge(GOOD | {"n_stars": 50}, (), strict, None, "image", run)
    assert (verdict.letter, verdict.checks[0].letter) == ("A", None)
    assert verdict.checks[0].note == "not compared with the run: 8 other images are all equal"


def test_below_the_run_counts_where_less_is_worse() -> None:
    clouds = own("[rules.n_stars]\nrun = { below = [3, 6, 9], images = 5 }")
    run = run_of(n_stars=(1000.0, 50.0))
    letters = [
        judge(GOOD | {"n_stars": n}, (), clouds, None, "image", run).letter
        for n in (2000, 900, 800, 600, 100)
    ]
    assert letters == ["A", "A", "B", "C", "D"]


# ---- single CCDs ----


def test_a_bad_ccd_leaves_and_not_the_exposure(policy: Policy) -> None:
    dead: dict[str, Value] = {"condition": "dead", "condition_reason": "3 adu."}
    verdict = judge(GOOD, camera(ccd07=dead), policy, "megacam", "image")
    assert (verdict.letter, verdict.ccds_out) == ("A", ("ccd07",))
    (finding,) = verdict.out[0].findings
    assert (finding.code, finding.hdu) == ("ccd_dead", 8)
    assert finding.message == "ccd07: No light, while the other CCDs saw the sky. 3 adu."


def test_each_ccd_out_says_why_and_many_cost_a_letter(policy: Policy) -> None:
    ccds = camera(
        ccd00={"fwhm_px": 9.0},
        ccd01={"usable_fraction": 0.02},
        ccd02={"background_rms_adu": 100.0},
        ccd03={"fwhm_px": None},
    )
    verdict = judge(GOOD, ccds, policy, "megacam", "image")
    assert [finding.message for ccd in verdict.out for finding in ccd.findings] == [
        "ccd00: FWHM 9.00 px > 2 × 3.80 px, the CCDs' median",
        "ccd01: Usable share of pixels 0.020 < 0.1",
        "ccd02: Noise of the sky 100.00 adu > 3 × 25.00 adu, the CCDs' median",
    ]
    assert letter_and_reasons(verdict) == ("B", ["3 of 36 CCDs cannot be used (ccd00, ccd01, ccd02)"])


@pytest.mark.parametrize(("n_dead", "letter"), [(0, "A"), (1, "A"), (4, "B"), (5, "C"), (12, "C"), (13, "D")])
def test_when_so_many_are_out_the_exposure_is(policy: Policy, n_dead: int, letter: str) -> None:
    dead = {f"ccd{number:02d}": {"condition": "dead"} for number in range(n_dead)}
    verdict = judge(GOOD, camera(**dead), policy, "megacam", "image")  # type: ignore[arg-type]
    assert (verdict.letter, len(verdict.out)) == (letter, n_dead)


def test_the_only_ccd_is_never_taken_out(policy: Policy) -> None:
    """Its exposure is a D; should a person know better, there are still pixels to use."""
    verdict = judge(GOOD | {"n_ccds": 1}, camera(1, ccd00={"condition": "dead"}), policy, None, "image")
    assert (verdict.letter, verdict.out) == ("D", ())
    assert [finding.code for finding in verdict.findings] == ["ccds_out"]


def test_instruments_have_ccd_rules_of_their_own() -> None:
    ridge = own(
        '[ccds]\nconditions = ["dead"]\n[ccds.rules.fwhm_px]\nmost_times = 2\n'
        "[profiles.owl.ccds]\nconditions = []\nmost_out = [0, 0.1, 0.2]\n"
        "[profiles.owl.ccds.rules.fwhm_px]\noff = true\n"
        '[profiles.owl.ccds.rules.n_psf_stars]\nleast = 10\nunmeasured = "out"\n'
    )
    ccds = camera(4, ccd00={"condition": "dead"}, ccd01={"fwhm_px": 40.0}, ccd02={"n_psf_stars": None})
    assert judge(GOOD, ccds, ridge, None, "image").ccds_out == ("ccd00", "ccd01")
    verdict = judge(GOOD, ccds, ridge, "owl", "image")
    assert (verdict.letter, verdict.ccds_out) == ("D", ("ccd02",))


# ---- for whatever figures ----

_FIGURES = ("fwhm_arcsec", "ellipticity", "n_stars", "usable_fraction", "offset_dec_arcsec", "background_adu")
_EITHER_WAY = own(
    "[rules.fwhm_arcsec]\narcsec = [1, 2, 3]\npixels = [4, 6, 9]\nrun = { above = [2, 4, 8], images = 5 }\n"
    "[rules.n_stars]\nleast = [100, 50, 10]\nrun = { below = [2, 4, 8], images = 5 }\n"
    "[rules.offset_dec_arcsec]\nwithin = [1, 2, 3]\n"
    "[rules.background_adu]\nmost = [1000, 2000, 3000]\nleast = [100, 10, 0]\n"
)
_RUN = run_of(fwhm_arcsec=(0.9, 0.1), n_stars=(300.0, 40.0))
_number = st.floats(allow_nan=True, allow_infinity=True) | st.floats(-10, 5000) | st.integers(-5, 500)


@given(value=_number, more=st.floats(0, 1e6), rule=st.sampled_from(["fwhm_arcsec", "n_stars"]))
@example(value=1.0, more=0.0, rule="fwhm_arcsec")
def test_a_worse_value_never_gives_a_better_letter(value: float, more: float, rule: str) -> None:
    worse = value + more if rule == "fwhm_arcsec" else value - more
    first, second = (
        judge(GOOD | {rule: found}, (), _EITHER_WAY, None, "image", _RUN) for found in (value, worse)
    )
    # What is not a number was not measured, and counts for nothing.
    if all(
        check.found is not None
        for verdict in (first, second)
        for check in verdict.checks
        if check.rule == rule
    ):
        assert second.letter >= first.letter


@given(value=st.floats(0, 1e6), more=st.floats(0, 1e6), sign=st.sampled_from([-1.0, 1.0]))
def test_further_from_the_middle_is_never_better(value: float, more: float, sign: float) -> None:
    letters = [
        judge(GOOD | {"offset_dec_arcsec": sign * found}, (), _EITHER_WAY, None, "image").letter
        for found in (value, value + more)
    ]
    assert letters == sorted(letters)


@given(st.dictionaries(st.sampled_from(_FIGURES), st.none() | _number), st.booleans())
def test_whatever_was_measured_there_is_a_verdict_that_its_reasons_explain(
    found: dict[str, Any], with_ccds: bool
) -> None:
    for policy in (*load_policies(), _EITHER_WAY):
        ccds = [found] * 3 if with_ccds else []
        verdict = judge(GOOD | found, ccds, policy, "megacam", "image", _RUN)
        letters = [finding.letter for finding in verdict.findings]
        assert letters == sorted(letters, reverse=True)
        assert verdict.letter == max(letters, default="A")
        assert all(finding.message and finding.found and finding.expected for finding in verdict.findings)


@given(st.integers(0, 36), st.integers(0, 36))
def test_more_ccds_out_are_never_better(one: int, other: int) -> None:
    policy = load_policies().default
    few, many = sorted((one, other))
    letters = [
        judge(
            GOOD, camera(**{f"ccd{at:02d}": {"condition": "dead"} for at in range(n)}), policy, None, "image"
        ).letter  # type: ignore[arg-type]
        for n in (few, many)
    ]
    assert letters == sorted(letters)


def test_without_a_run_nothing_is_compared(policy: Policy) -> None:
    verdict = judge(GOOD, (), policy, "megacam", "image", NO_RUN)
    assert all(check.z is None for check in verdict.checks)


def test_limits_are_shown_as_they_were_written() -> None:
    shown = own(
        "[rules.offset_ra_arcsec]\nwithin = [30, 60, inf]\n"
        "[rules.background_adu]\nmost = [1000, 2000, inf]\nleast = [100, 0, 0]\n"
        "[rules.fwhm_arcsec]\narcsec = [1.0, 1.3, 2.0]\npixels = [4, 6, 9]\n"
    )
    checks = {check.rule: check.limits for check in judge(GOOD, (), shown, None, "image").checks}
    assert checks == {
        "offset_ra_arcsec": ("± 30″", "± 60″", "any"),
        "background_adu": ("≤ 1000 adu and ≥ 100 adu", "≤ 2000 adu and ≥ 0 adu", "≥ 0 adu"),
        "fwhm_arcsec": ("≤ 1″", "≤ 1.3″", "≤ 2″"),
    }


def test_a_value_just_beyond_a_limit_does_not_look_like_it() -> None:
    words = words_for("ellipticity")
    assert words.beside(0.25004, 0.25) == "0.25004"
    assert words.beside(0.31, 0.25) == "0.310"
    assert words.beside(0.25, 0.25) == "0.250"
    assert words_for("fwhm_arcsec").beside(1.3001, 1.3) == "1.3001″"


# ---- skies that were subtracted ----

SUBTRACTED: dict[str, Value] = {
    "background_adu": 0.0056,
    "background_rms_adu": 0.021,
    "background_gradient_adu": 0.053,
    "background_residual_adu": 0.0087,
}


@pytest.mark.parametrize("name", ["low_surface_brightness", "photometric_calibration"])
def test_nothing_is_relative_to_a_sky_that_was_subtracted(name: str) -> None:
    policy = load_policies().named(name)
    verdict = judge(GOOD | SUBTRACTED, camera(), policy, "generic", "image", NO_RUN)
    assert verdict.letter == "A"
    (check,) = (check for check in verdict.checks if check.rule == "sky_gradient")
    assert (check.letter, check.note) == (None, "not applied: no level above the noise to compare with")
    uneven = judge(GOOD | {"background_gradient_adu": 400.0}, camera(), policy, "generic", "image", NO_RUN)
    assert uneven.letter == "D"
    stack = judge(GOOD | SUBTRACTED | {"background_adu": 0.5}, [], policy, None, "stack", NO_RUN)
    assert stack.letter == "A"


def test_ccds_are_not_held_against_a_sky_that_was_subtracted() -> None:
    policy = load_policies().named("photometric_calibration")
    for middle in (0.2, -0.2):
        around = {f"ccd{at:02d}": {"background_adu": middle + 0.1 * (at - 18)} for at in range(36)}
        assert not judge(GOOD, camera(**around), policy, "generic", "image", NO_RUN).out
    verdict = judge(GOOD, camera(ccd05={"background_adu": 300.0}), policy, "generic", "image", NO_RUN)
    assert verdict.ccds_out == ("ccd05",)
