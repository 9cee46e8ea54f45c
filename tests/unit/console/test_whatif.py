"""What other limits would change: settings read, policies changed, depths combined."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from spica_console.whatif import (
    Image,
    Setting,
    combined_depth,
    grouped,
    histogram,
    image_of,
    read_setting,
    with_settings,
)
from spica_quality.policyfiles import load_policies
from spica_quality.science.policy.judging import judge
from spica_quality.science.policy.policies import Policy, parse_policy
from spica_runtime.errors import UsageError

DEFAULT = load_policies().default
FIGURES: dict[str, Any] = {"n_ccds": 1, "n_stars": 500, "pixel_scale_arcsec": 0.187, "ellipticity": 0.02}


@pytest.mark.parametrize(
    ("text", "setting"),
    [
        ("fwhm_arcsec=1.2", Setting("fwhm_arcsec", (1.2,), True)),
        ("fwhm_max=1.2", Setting("fwhm_arcsec", (1.2,), True)),
        ("fwhm_max_px=5", Setting("fwhm_px", (5.0,), True)),
        ("seeing=0.8,1,1.2", Setting("fwhm_arcsec", (0.8, 1.0, 1.2), True)),
        ("n_stars_min=100", Setting("n_stars", (100.0,), False)),
        ("stars=100", Setting("n_stars", (100.0,), False)),
        ("depth_min=24", Setting("limiting_mag", (24.0,), False)),
        ("limiting_mag=24", Setting("limiting_mag", (24.0,), False)),
        ("ellipticity_max=0.1", Setting("ellipticity", (0.1,), True)),
        ("usable=0.9", Setting("usable_fraction", (0.9,), False)),
        ("background=3000", Setting("background_adu", (3000.0,), True)),
        ("fwhm_arcsec_max=1.2", Setting("fwhm_arcsec_max", (1.2,), True)),  # of the CCDs
        ("seeing_max_arcsec=1.2", Setting("fwhm_arcsec", (1.2,), True)),
        ("background_rms=9", Setting("background_rms_adu", (9.0,), True)),
        ("n_ccds_missing=3", Setting("n_ccds_missing", (3.0,), True)),
    ],
)
def test_a_setting_is_read_as_people_write_it(text: str, setting: Setting) -> None:
    assert read_setting(text, DEFAULT) == setting


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("fwhm_arcsec", "write FIGURE=LIMIT"),
        ("fwhm_arcsec=", "write FIGURE=LIMIT"),
        ("fwhm_arcsec=sharp", "write FIGURE=LIMIT"),
        ("fwhm_arcsec=1,2", "limits for A, B and C"),
        ("fwhm_arcsec=nan", "write FIGURE=LIMIT"),
        ("elipticity_max=0.1", "did you mean ellipticity"),
        ("n_stars=10,50,100", "become looser"),
    ],
)
def test_what_is_no_setting_is_told(text: str, complaint: str) -> None:
    with pytest.raises(UsageError, match=complaint):
        read_setting(text, DEFAULT)


def letter(policy: Policy, profile: str | None = None, **figures: float) -> str:
    return judge(FIGURES | figures, (), policy, profile, "image").letter


def test_beyond_a_limit_that_is_set_nothing_is_used_whatever_the_instrument() -> None:
    tried = with_settings(DEFAULT, [read_setting("fwhm_max=1.2", DEFAULT)])
    assert [letter(tried, "megacam", fwhm_arcsec=fwhm) for fwhm in (0.9, 1.1, 1.21)] == ["A", "B", "D"]
    assert [letter(tried, None, fwhm_arcsec=fwhm) for fwhm in (0.9, 1.19, 1.21)] == ["A", "A", "D"]
    coarse = {"pixel_scale_arcsec": 5.0, "fwhm_arcsec": 1.3}
    assert letter(tried, "microobservatory", **coarse) == "D"
    loose = with_settings(DEFAULT, [read_setting("fwhm_max=5", DEFAULT)])
    assert [letter(loose, "megacam", fwhm_arcsec=fwhm) for fwhm in (0.9, 1.1, 4.9, 5.1)] == [
        "A",
        "B",
        "C",
        "D",
    ]


def test_a_figure_without_a_rule_gets_one_and_other_rules_stay() -> None:
    tried = with_settings(DEFAULT, [read_setting("depth_min=24,23,22", DEFAULT)])
    assert [letter(tried, limiting_mag=mag) for mag in (24.5, 23.5, 22.5, 21.0)] == ["A", "B", "C", "D"]
    assert letter(tried, limiting_mag=24.5, ellipticity=0.9) == "D"
    # The policy itself is what it was.
    assert "limiting_mag" not in DEFAULT.rules


@given(st.lists(st.floats(15, 30), min_size=1, max_size=50))
def test_depths_combine_as_inverse_variances(magnitudes: list[float]) -> None:
    sigmas = np.array([10 ** (-0.4 * magnitude) for magnitude in magnitudes])
    expected = -2.5 * math.log10(1 / math.sqrt(np.sum(1 / sigmas**2)))
    assert combined_depth(magnitudes) == pytest.approx(expected, abs=1e-9)
    assert combined_depth([*magnitudes, math.nan]) == combined_depth(magnitudes)


def test_a_hundred_equal_images_are_two_and_a_half_magnitudes_deeper() -> None:
    assert combined_depth([24.0] * 100) == pytest.approx(26.5)
    assert math.isnan(combined_depth([]))


def image(
    fwhm: float, mag: float = math.nan, adu: float = 100.0, *, used: tuple[bool, bool] = (True, True)
) -> Image:
    return Image("i", "MegaPrime", "r", 100.0, fwhm, mag, adu, used, ("A", "A"), "", {"fwhm_arcsec": fwhm})


def test_what_stays_is_summed_by_filter() -> None:
    images = [image(0.7, 24.0), image(0.8, 24.0), image(1.5, 24.0, used=(True, False))]
    (group,) = grouped(images)
    before, after, change = group.sums()
    assert (before.images, after.images, after.exposure_time_s) == (3, 2, 200.0)
    assert change == pytest.approx(1.25 * math.log10(2 / 3))
    assert after.depth_mag == pytest.approx(24.0 + 1.25 * math.log10(2))
    assert (before.fwhm_arcsec, after.fwhm_arcsec) == (pytest.approx(0.8), pytest.approx(0.7, abs=0.11))


def test_shallow_images_count_little_for_the_seeing() -> None:
    (group,) = grouped([image(0.7, 25.0), image(2.0, 20.0), image(2.1, 20.0)])
    assert group.sums()[0].fwhm_arcsec == pytest.approx(0.7, abs=0.01)


def test_without_zero_points_the_change_follows_from_counts() -> None:
    (group,) = grouped([image(0.7), image(0.8), image(1.5, used=(True, False)), image(1.5, adu=math.nan)])
    before, after, change = group.sums()
    assert math.isnan(before.depth_mag)
    assert before.without_depth == 4
    assert change == pytest.approx(1.25 * math.log10(2 / 3))
    assert math.isnan(grouped([image(0.7, used=(False, False))])[0].sums()[2])
    assert after.images == 3


def row(person: str | None) -> dict[str, Any]:
    return {
        "name": "a", "instrument": "MegaPrime", "filter": "r", "exposure_time_s": 100.0, "limiting_mag": None,
        "person_grade": person, "person": person and "person:ada", "figures": FIGURES | {"limiting_mag": 24.0},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("policy", "person", "used"),
    [
        ("default", None, (True, False)),
        ("default", "A", (True, True)),
        ("default", "D", (False, False)),
        ("own", "A", (True, False)),
        ("own", "D", (False, False)),
    ],
)
def test_a_persons_grade_stands(policy: str, person: str | None, used: tuple[bool, bool]) -> None:
    rule = f'name = "{policy}"\nversion = 1\n[rules.n_stars]\nleast = '
    verdicts = tuple(
        judge(FIGURES, (), parse_policy(rule + limits), None, "image")
        for limits in ("[3, 2, 1]", "[1e6, 1e6, 1e6]")
    )
    found = image_of(row(person), (verdicts[0], verdicts[1]), ("A", "B", "C"), ["n_stars"])
    assert (found.used, found.values, found.limiting_mag) == (used, {"n_stars": 500.0}, 24.0)


@given(st.lists(st.floats(-1e6, 1e6) | st.just(math.nan), max_size=60), st.floats(-1e6, 1e6))
def test_a_histogram_has_every_value_and_the_limit(values: list[float], limit: float) -> None:
    found = histogram(values, limit, bins=12)
    known = [value for value in values if math.isfinite(value)]
    if not known:
        assert found is None
        return
    assert found is not None
    assert sum(found.counts) == len(known)
    assert len(found.bars()) == 12
    assert found.low <= limit <= found.high
    assert all((bar == " ") == (not count) for bar, count in zip(found.bars(), found.counts, strict=True))
    assert 0 <= found.place(limit) < 12
