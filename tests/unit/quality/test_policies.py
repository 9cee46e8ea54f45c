"""Policy files: what they may say, and what is refused, by name."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import spica_quality
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from spica_console.commands import policy as policy_command
from spica_quality.policyfiles import SHIPPED, load_policies, policy_files, read_policy
from spica_quality.science.metrics.conditions import FRAME_CONDITIONS
from spica_quality.science.policy.judging import judge
from spica_quality.science.policy.policies import (
    CcdRule,
    Ccds,
    Overrides,
    Policies,
    Policy,
    Rule,
    RunLimits,
    parse_policy,
)
from spica_quality.science.policy.runstatistics import RunSample, run_statistics, statistic
from spica_runtime.errors import UsageError


def test_those_that_come_along() -> None:
    policies = load_policies()
    assert [policy.tag for policy in policies] == [
        "default@2",
        "low_surface_brightness@1",
        "photometric_calibration@2",
        "weak_lensing@1",
    ]
    assert policies.default.label == "policy:default@2"
    assert all(policy.description and policy.use for policy in policies)
    assert {"fwhm_arcsec", "fwhm_px", "n_stars", "limiting_mag"} <= policies.run_figures()


@pytest.mark.parametrize(
    ("rule", "complaint"),
    [
        ("[rules.fwhm_arcsec]\nmost = [1, 2, 3]\narcsec = [1, 2, 3]", "either"),
        ("[rules.fwhm_arcsec]\nmost = [3, 2, 1]", "looser"),
        ("[rules.n_stars]\nleast = [1, 2, 3]", "looser"),
        ("[rules.n_stars]\nleast = [3, 2, 1]\nmost = [1, 2, 3]", "nothing is at most 1 and at least 3"),
        ("[rules.n_stars]\n", "a rule has limits"),
        ("[rules.fwhm_arcsec]\nmost = [1, 2]", "most"),
        ("[rules.fwhm_arcsec]\nmost = [1, nan, 2]", "looser"),
        ("[rules.sharpness]\nmost = [1, 2, 3]", "there is no figure 'sharpness'"),
        ("[rules.fwhm]\nmost = [1, 2, 3]", "did you mean fwhm_px or fwhm_arcsec"),
        ("[rules.elipticity]\nmost = [1, 2, 3]", "'elipticity'; did you mean ellipticity"),
        ("[rules.x]\nfigure = 'n_stars'\nover = 'n_pixel'\nmost = [1, 2, 3]", "did you mean n_pixels"),
        ("[rules.condition]\nmost = [1, 2, 3]", "there is no figure 'condition'"),
        ("[rules.n_stars]\narcsec = [1, 2, 3]", "limit a size"),
        ("[rules.half_light_diameter_arcsec]\npixels = [1, 2, 3]", "not measured in pixels"),
        ("[rules.n_stars]\nrun = { images = 5 }", "above"),
        ("[rules.n_stars]\nrun = { below = [3, 2, 1] }", "looser"),
        ("[rules.n_stars]\nrun = { below = [1, 2, 3], images = 2 }", "images"),
        ("[rules.n_stars]\nover = 'n_pixels'\nrun = { below = [1, 2, 3] }", "over"),
        ("[stack.usable_fracton]\noff = true", "no such rule to switch off"),
        ("[conditions]\ntrail = 'x'", "did you mean trailed"),
        ("[ccds]\nconditions = ['ded']", "did you mean dead"),
        ("[ccds]\nmost_out = [0.5, 0.1, 0.2]", "looser"),
        ("[ccds.rules.n_ccds]\nmost = 3", "CCDs have no figure 'n_ccds'"),
        ("[ccds.rules.fwhm_px]\n", "a rule of CCDs has limits"),
        ("[profiles.megacam.rules.fwmh_arcsec]\nmost = [1, 2, 3]", r"profiles\.megacam\.rules\.fwmh_arcsec"),
        ("grades = 'x'", "grades"),
    ],
)
def test_a_policy_that_makes_no_sense_is_refused(rule: str, complaint: str) -> None:
    with pytest.raises(ValidationError, match=complaint):
        parse_policy(f'name = "x"\nversion = 1\n{rule}')


def test_all_faults_of_a_file_are_told_with_its_name(tmp_path: Path) -> None:
    path = tmp_path / "faulty.toml"
    path.write_text(
        'name = "x"\nversion = 1\n[rules.fwhm]\nmost = [1, 2, 3]\n[rules.stars]\nleast = [3, 2, 1]\n'
    )
    with pytest.raises(UsageError, match=r"faulty\.toml.*rules\.fwhm.*rules\.stars.*n_stars") as caught:
        read_policy(path)
    assert caught.value.code == "bad_policy"
    assert "\n" not in caught.value.message
    path.write_text("name = ")
    with pytest.raises(UsageError, match=r"faulty\.toml"):
        read_policy(path)


def test_a_folder_of_ones_own_adds_and_replaces(tmp_path: Path) -> None:
    strict = (SHIPPED / "default.toml").read_text().replace("version = 2", "version = 7")
    (tmp_path / "ours.toml").write_text(strict)
    (tmp_path / "moon.toml").write_text(
        'name = "moon"\nversion = 1\n[rules.background_adu]\nmost = [1, 2, 3]'
    )
    files = policy_files(tmp_path)
    assert list(files) == [
        "default",
        "low_surface_brightness",
        "moon",
        "photometric_calibration",
        "weak_lensing",
    ]
    assert (files["default"].policy.version, files["default"].shipped) == (7, False)
    assert files["weak_lensing"].shipped
    assert load_policies(tmp_path).default.tag == "default@7"
    (tmp_path / "again.toml").write_text('name = "moon"\nversion = 2\n')
    with pytest.raises(UsageError, match="another `name`"):
        load_policies(tmp_path)


def test_a_folder_that_is_none_is_told(tmp_path: Path) -> None:
    for path in (tmp_path / "absent", SHIPPED / "default.toml"):
        with pytest.raises(UsageError, match="SPICA_QUALITY_POLICIES names a folder"):
            load_policies(path)


def test_a_name_that_is_none_is_told_with_those_like_it() -> None:
    with pytest.raises(KeyError, match="did you mean weak_lensing"):
        load_policies().named("weak-lensing")
    with pytest.raises(KeyError, match="default"):
        Policies(())


@given(st.lists(st.floats(-1e6, 1e6) | st.just(float("nan")), max_size=40))
def test_the_statistic_is_median_and_median_deviation(values: list[float]) -> None:
    known = sorted(value for value in values if value == value)  # noqa: PLR0124 - NaN
    found = statistic(values)
    assert found.n_images == len(known)
    if known:
        assert found.median == pytest.approx(np.median(known))
        assert found.sigma == pytest.approx(
            1.4826 * np.median([abs(v - np.median(known)) for v in known]), rel=1e-4
        )
        assert found.z(found.median) == (0.0 if found.sigma > 0 else None)


def test_an_image_is_compared_with_the_others_and_not_with_itself() -> None:
    values = {"a": 1.0, "b": 2.0, "c": 4.0, "d": 100.0}
    sample = RunSample("19A", "r")
    for image, value in values.items():
        sample.add(image, "n_stars", value)
    for image in values:
        others = [value for other, value in values.items() if other != image]
        assert sample.without(image) == run_statistics("19A", "r", {"n_stars": others})
    assert sample.without("e").figures["n_stars"].n_images == 4
    assert sample.without("d").plain()["figures"]["n_stars"]["median"] == 2.0
    assert sample.image_ids == set(values)
    # Only with those that were exposed about as long, where it is known of both.
    for image, seconds in {"a": 100.0, "b": 105.0, "c": 10.0, "e": 100.0}.items():
        sample.exposed(image, seconds)
    assert sample.without("e") == run_statistics("19A", "r", {"n_stars": [1.0, 2.0, 100.0]})
    assert sample.without("d").figures["n_stars"].n_images == 3


# ---- the page ----

PAGE = Path(spica_quality.__file__).parents[1] / "POLICIES.md"


@pytest.fixture
def example(tmp_path: Path) -> Policy:
    """The policy that the page shows, as a file of a folder."""
    (text,) = re.findall(r"```toml\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)
    (tmp_path / "exoplanets.toml").write_text(text)
    return load_policies(tmp_path).named("exoplanets")


def test_the_pages_example_is_a_policy_that_works(example: Policy) -> None:
    good = {
        "n_ccds": 1,
        "n_stars": 60,
        "fwhm_arcsec": 2.0,
        "pixel_scale_arcsec": 0.5,
        "ellipticity": 0.1,
        "background_adu": 1000.0,
        "background_gradient_adu": 5.0,
    }
    ccds = [{"name": "one", "usable_fraction": 0.9, "background_rms_adu": 5.0}]
    assert judge(good, ccds, example, None, "image").letter == "A"
    for change, letter, code in (
        ({"fwhm_arcsec": None}, "D", "unmeasured"),
        ({"background_gradient_adu": 150.0}, "C", "sloping_sky"),
        ({"condition": "trailed"}, "C", "trailed"),
        ({"offset_ra_arcsec": -12.0}, "B", "astrometric_offset"),
    ):
        verdict = judge({**good, **change}, ccds, example, None, "image")
        assert (verdict.letter, [finding.code for finding in verdict.findings]) == (letter, [code])
    assert judge({**good, "background_gradient_adu": 150.0}, (), example, None, "stack").letter == "A"
    dull = judge(good, [{"name": "one", "usable_fraction": 0.9}], example, None, "image")
    assert (dull.letter, dull.out) == ("D", ())


def test_the_page_shows_every_key_that_a_policy_may_have(example: Policy) -> None:
    text = PAGE.read_text()
    for model in (Policy, Rule, RunLimits, CcdRule, Ccds, Overrides):
        for name in model.model_fields:
            assert re.search(rf"\b{name}\b", text), (model.__name__, name)


def test_the_page_names_what_comes_along_and_every_condition() -> None:
    text = PAGE.read_text()
    linked = re.findall(
        r"^\| \[(\w+)\]\(spica_quality/policies/(\w+)\.toml\) \| ([^|]+) \|", text, flags=re.MULTILINE
    )
    files = policy_files()
    assert {name: use.strip() for name, file, use in linked if name == file} == {
        name: file.policy.use for name, file in files.items()
    }
    assert dict(re.findall(r"^\| `(\w+)` \| (.+) \|$", text, flags=re.MULTILINE)) == FRAME_CONDITIONS


def test_the_pages_complaint_is_the_one_that_comes(tmp_path: Path) -> None:
    (complaint,) = re.findall(r"```\n(there is no figure.*)\n```", PAGE.read_text())
    with pytest.raises(ValidationError, match=re.escape(complaint)):
        parse_policy('name = "x"\nversion = 1\n[rules.fwhm]\nmost = [1, 2, 3]')


def test_the_pages_commands_are_commands() -> None:
    text = PAGE.read_text()
    lines = [
        line
        for block in re.findall(r"```console\n(.*?)```", text, flags=re.DOTALL)
        for line in block.splitlines()
    ]
    assert len(lines) == 7
    words = {line.split()[3] for line in lines}
    assert all(line.startswith("$ spica policy ") for line in lines)
    assert words <= {command.name for command in policy_command.app.registered_commands}
