from __future__ import annotations

from dataclasses import replace
from math import nan
from pathlib import Path

import pytest
from pydantic import ValidationError
from spica_quality.science.figures import ImageFigures
from spica_quality.science.grading import Policy, grade, parse_policy
from spica_quality.service import DEFAULT_POLICY, load_policy
from spica_runtime.errors import UsageError

GOOD = ImageFigures(
    n_ccds=36,
    n_blank=0,
    n_sources=90_000,
    n_stars=5_000,
    fwhm_px=3.8,
    fwhm_arcsec=0.71,
    ellipticity=0.04,
    central_dip=0.0,
    fwhm_spread=0.1,
    ccds_without_stars=0.0,
    background_adu=900.0,
    background_rms_adu=25.0,
    limiting_flux_adu=800.0,
    limiting_mag=24.4,
    saturated_fraction=1e-4,
    usable_fraction=0.98,
    pixel_scale_arcsec=0.187,
)


@pytest.fixture(scope="module")
def policy() -> Policy:
    return load_policy(None)


def test_a_good_frame_is_a_without_reasons(policy: Policy) -> None:
    verdict = grade(GOOD, policy, "megacam", "image")
    assert (verdict.letter, verdict.findings) == ("A", ())
    assert policy.label == "policy:default@1"


@pytest.mark.parametrize(
    ("change", "letter", "code", "message"),
    [
        ({"fwhm_arcsec": 1.12}, "B", "poor_seeing", "FWHM 1.12″ > 1.00″"),
        ({"fwhm_arcsec": 1.5}, "C", "poor_seeing", "FWHM 1.50″ > 1.30″"),
        ({"fwhm_arcsec": 2.41}, "D", "out_of_focus", "FWHM 2.41″ > 2.00″"),
        ({"ellipticity": 0.3}, "C", "elongated", "Ellipticity 0.300 > 0.250"),
        ({"ellipticity": 0.6}, "D", "trailed", "Ellipticity 0.600 > 0.400"),
        ({"n_stars": 30}, "D", "too_few_stars", "Stars 30 < 40"),
        ({"n_stars": 150}, "B", "few_stars", "Stars 150 < 200"),
        ({"central_dip": 0.5}, "D", "out_of_focus", "Central dip of stars 0.50 > 0.20"),
        ({"usable_fraction": 0.6}, "C", "masked", "Usable share of pixels 0.600 < 0.750"),
        ({"saturated_fraction": 0.3}, "D", "saturated", "Saturated share of pixels 0.3000 > 0.1000"),
        ({"ccds_without_stars": 0.05}, "B", "ccds_without_stars", "Share of CCDs without stars 0.05 > 0.00"),
        ({"fwhm_spread": 0.4}, "B", "uneven_seeing", "Spread of FWHM over CCDs 0.40 > 0.25"),
    ],
)
def test_each_rule_gives_its_grade_and_its_reason(
    policy: Policy, change: dict[str, float], letter: str, code: str, message: str
) -> None:
    verdict = grade(replace(GOOD, **change), policy, "megacam", "image")
    assert verdict.letter == letter
    (finding,) = verdict.findings
    assert (finding.code, finding.message) == (code, message)
    assert finding.found
    assert finding.expected.startswith(("≤", "≥"))


def test_the_worst_rule_decides_and_stands_first(policy: Policy) -> None:
    verdict = grade(replace(GOOD, fwhm_arcsec=1.1, ellipticity=0.5), policy, "megacam", "image")
    assert verdict.letter == "D"
    assert [finding.letter for finding in verdict.findings] == ["D", "B"]


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"n_blank": 36, "n_stars": 0}, "blank"),
        ({"n_stars": 0, "fwhm_px": nan, "fwhm_arcsec": nan, "ellipticity": nan}, "no_stars"),
        ({"n_ccds": 0}, "no_pixels"),
    ],
)
def test_nothing_measured_is_d_with_a_name(policy: Policy, change: dict[str, float], code: str) -> None:
    verdict = grade(replace(GOOD, **change), policy, "megacam", "image")
    assert (verdict.letter, [finding.code for finding in verdict.findings]) == ("D", [code])


def test_coarse_pixels_are_not_blamed_for_large_stars(policy: Policy) -> None:
    coarse = replace(GOOD, pixel_scale_arcsec=5.2, fwhm_px=2.2, fwhm_arcsec=11.4)
    assert grade(coarse, policy, "microobservatory", "image").letter == "A"
    assert grade(coarse, policy, "generic", "image").letter == "A"
    blurred = replace(coarse, fwhm_px=4.2, fwhm_arcsec=21.8)
    assert grade(blurred, policy, "microobservatory", "image").letter == "C"


def test_without_a_scale_sizes_are_judged_in_pixels(policy: Policy) -> None:
    unknown = replace(GOOD, pixel_scale_arcsec=nan, fwhm_arcsec=nan, fwhm_px=5.0)
    (finding,) = grade(unknown, policy, None, "image").findings
    assert finding.message == "FWHM 5.00 px > 4.00 px"


def test_stacks_may_have_empty_margins(policy: Policy) -> None:
    margins = replace(GOOD, usable_fraction=0.4)
    assert grade(margins, policy, "megacam", "image").letter == "D"
    assert grade(margins, policy, "megacam", "stack").letter == "A"


@pytest.mark.parametrize(
    ("rule", "complaint"),
    [
        ("[rules.fwhm]\nmost = [1, 2, 3]\nleast = [3, 2, 1]", "either"),
        ("[rules.fwhm]\nmost = [3, 2, 1]", "looser"),
        ("[rules.stars]\nleast = [1, 2, 3]", "looser"),
        ("[rules.sharpness]\nmost = [1, 2, 3]", "sharpness"),
        ("[rules.fwhm]\nmost = [1, 2]", "most"),
    ],
)
def test_a_policy_that_makes_no_sense_is_refused(rule: str, complaint: str) -> None:
    with pytest.raises(ValidationError, match=complaint):
        parse_policy(f'name = "x"\nversion = 1\n{rule}')


def test_a_missing_or_broken_policy_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"absent\.toml"):
        load_policy(tmp_path / "absent.toml")
    broken = tmp_path / "broken.toml"
    broken.write_text("name = ")
    with pytest.raises(UsageError, match=r"broken\.toml"):
        load_policy(broken)


def test_a_policy_of_ones_own_replaces_the_shipped_one(tmp_path: Path) -> None:
    own = tmp_path / "strict.toml"
    own.write_text(
        DEFAULT_POLICY.read_text().replace('"default"', '"strict"').replace("version = 1", "version = 7")
    )
    assert load_policy(own).label == "policy:strict@7"
