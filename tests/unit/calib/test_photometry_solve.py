"""The photometric solution against truth, and what is said of it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from spica_calib.science.photometry.problem import (
    ColourTerm,
    Illumination,
    Options,
    PhotometricDetections,
    PhotometricExposure,
    PhotometricSolution,
)
from spica_calib.science.photometry.solve import solve

from tests.unit.calib.photometric_skies import CONTEXT, Truth, make, told

OPTIONS = Options(band="G", colour_terms={CONTEXT: ColourTerm(0.0, 0.3)})


def run(truth: Truth, options: Options = OPTIONS, **more: object) -> PhotometricSolution:
    return solve(truth.exposures, truth.detections, options=options, **more)  # type: ignore[arg-type]


def zeros(solution: PhotometricSolution) -> np.ndarray:
    return np.array([np.nan if e.mag is None else e.mag for e in solution.exposures])


def relative(solution: PhotometricSolution) -> np.ndarray:
    return np.array([e.mag if e.relative_mag is None else e.relative_mag for e in solution.exposures])


def offsets(solution: PhotometricSolution) -> np.ndarray:
    return np.array(list(solution.illumination[CONTEXT].offset_mag.values()))


@pytest.mark.parametrize(("n_exposures", "per_ccd"), [(1, 100), (1, 300), (5, 100), (20, 100)])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_zero_points_within_2_mmag_of_truth(n_exposures: int, per_ccd: int, seed: int) -> None:
    truth = make(n_exposures, 36, per_ccd, seed=seed)
    found = run(truth)
    assert np.abs(zeros(found) - truth.zero).max() < 0.002
    assert np.abs(offsets(found) - truth.illumination).max() < 0.002
    term = found.illumination[CONTEXT]
    assert term.significant
    assert term.colour_term == pytest.approx(0.08, abs=0.001)
    assert all(e.anchor == "reference" and e.is_anchor for e in found.exposures)
    assert all(e.sigma_mag is not None and 0.0005 <= e.sigma_mag < 0.001 for e in found.exposures)


def test_standard_errors_are_what_realisations_scatter_by() -> None:
    """Few stars, so that noise rules: pulls of zero points, offsets and colour terms."""
    pulls: dict[str, list[float]] = {"zero": [], "illumination": [], "colour": []}
    options = replace(
        OPTIONS, systematic_mag=0.0, illumination_sigma_mag=0.1, floor_mag=0.0005, reference_floor_mag=0.0
    )
    for seed in range(60):
        truth = make(3, 4, 12, flat=0.05, outliers=0.0, seed=seed)
        found = run(truth, options)
        sigma = np.array([e.sigma_mag for e in found.exposures])
        pulls["zero"] += list((zeros(found) - truth.zero) / sigma)
        term = found.illumination[CONTEXT]
        pulls["illumination"] += list(
            (offsets(found) - truth.illumination) / np.array(list(term.sigma_mag.values()))
        )
        assert term.colour_term is not None
        assert term.colour_term_sigma is not None
        pulls["colour"].append((term.colour_term - 0.08) / term.colour_term_sigma)
    for name, values in pulls.items():
        assert 0.7 < np.sqrt(np.mean(np.square(values))) < 1.4, name


def test_relative_zero_points_without_any_reference() -> None:
    truth = make(6, with_reference=False, clouds={2: 0.8})
    found = run(truth)
    assert zeros(found).tolist() == pytest.approx([np.nan] * 6, nan_ok=True)
    assert {e.anchor for e in found.exposures} == {"none"}
    away = relative(found) - truth.zero
    assert np.abs(away - away.mean()).max() < 0.001
    assert relative(found).mean() == pytest.approx(25.0)
    assert np.abs(offsets(found) - truth.illumination).max() < 0.004
    assert found.internal_mag is not None
    assert found.external_mag is None


def test_a_clouded_exposure_hangs_on_a_photometric_one() -> None:
    truth = make(4, with_reference=False, clouds={1: 0.5, 3: 0.2})
    truth = told(
        truth, 0, header_zeropoint_mag=truth.zero[0] + 0.02, header_airmass_term_mag=-0.1, airmass=1.2,
        header_zeropoint_sigma_mag=0.007, is_photometric=True,
    )  # fmt: skip
    truth = told(truth, 1, header_zeropoint_mag=truth.zero[0] + 0.02, is_photometric=False)
    truth = told(
        truth, 2, header_zeropoint_mag=truth.zero[2], is_photometric=True, absorption_mag=0.3,
    )  # fmt: skip
    found = run(truth)
    assert [e.anchor for e in found.exposures] == ["header", "overlap", "overlap", "overlap"]
    assert [e.is_anchor for e in found.exposures] == [True, False, False, False]
    assert np.abs(zeros(found) - truth.zero).max() < 0.002
    first, second = found.exposures[:2]
    assert f"zero point {truth.zero[0] + 0.02:.3f}" in first.why
    assert "-0.100 mag per airmass at airmass 1.20" in first.why
    assert "flagged photometric" in first.why
    assert "hangs on 1 photometric exposures" in second.why
    assert first.sigma_mag == pytest.approx(np.hypot(0.007, 0.01), rel=0.1)
    assert second.absorption_mag == pytest.approx(truth.zero[0] + 0.02 - truth.zero[1], abs=0.01)


def test_headers_that_say_clear_under_clouds_are_not_believed() -> None:
    truth = make(6, with_reference=False, clouds={4: 0.3})
    for number in range(6):
        clear = truth.zero[number] + (0.3 if number == 4 else 0.0)
        truth = told(truth, number, header_zeropoint_mag=clear, is_photometric=True)
    found = run(truth)
    assert [e.is_anchor for e in found.exposures] == [True, True, True, True, False, True]
    assert np.abs(zeros(found) - truth.zero).max() < 0.003
    assert "0.30 mag fainter than on others said to be clear" in found.exposures[4].why


def test_without_overlap_the_context_lends_its_zero_point() -> None:
    truth = make(4, with_reference=False, blocks=4)
    level = 26.0
    for number in (0, 1, 2):
        truth = told(truth, number, header_zeropoint_mag=level, is_photometric=True)
        truth = told(truth, number, header_airmass_term_mag=-0.1, airmass=1.0)
    truth = told(truth, 3, airmass=1.5, header_airmass_term_mag=-0.1)
    lent = run(truth).exposures[3]
    assert lent.anchor == "context"
    assert not lent.is_anchor
    assert lent.mag == pytest.approx(25.95, abs=0.001)
    assert lent.sigma_mag is not None
    assert lent.sigma_mag >= 0.1
    assert "taken over, not measured" in lent.why
    seen_through = run(told(truth, 3, absorption_mag=0.4)).exposures[3]
    assert seen_through.mag == pytest.approx(25.55, abs=0.001)
    clouded = run(told(truth, 3, is_photometric=False)).exposures[3]
    assert clouded.sigma_mag is not None
    assert clouded.sigma_mag > 0.3


def test_own_zero_points_anchor_where_there_is_no_reference() -> None:
    truth = make(4, with_reference=False)
    for number in (0, 2):
        truth = told(truth, number, own_zeropoint_mag=truth.zero[number], own_zeropoint_sigma_mag=0.004)
    found = run(truth)
    assert np.abs(zeros(found) - truth.zero).max() < 0.002
    assert [e.is_anchor for e in found.exposures] == [True, False, True, False]
    unbelieved = told(told(truth, 0, own_anchor="context"), 2, own_anchor="none")
    assert {e.anchor for e in run(unbelieved).exposures} == {"none"}


def test_own_zero_points_do_not_count_twice_beside_reference_stars() -> None:
    truth = make(3)
    wrong = told(truth, 1, own_zeropoint_mag=truth.zero[1] + 1.0, own_zeropoint_sigma_mag=0.001)
    assert zeros(run(wrong)).tolist() == zeros(run(truth)).tolist()


def test_an_exposure_without_reference_stars_hangs_on_the_others() -> None:
    truth = make(3)
    reference = np.where(truth.detections.exposure == 2, np.nan, truth.detections.reference_mag)
    # Its stars are the others' stars: it is tied to the reference through them.
    found = run(replace(truth, detections=replace(truth.detections, reference_mag=reference)))
    assert np.abs(zeros(found) - truth.zero).max() < 0.002
    few = truth.detections.group % 3 == 0
    reference = np.where(few | (truth.detections.exposure == 2), np.nan, truth.detections.reference_mag)
    only_few = replace(
        truth.detections,
        reference_mag=np.where(few, np.nan, truth.detections.reference_mag),
        mag=np.where((truth.detections.exposure == 2) & ~few, np.nan, truth.detections.mag),
    )
    tied = run(replace(truth, detections=only_few)).exposures[2]
    assert tied.anchor == "overlap"
    assert tied.n_reference == 0
    assert tied.mag == pytest.approx(truth.zero[2], abs=0.002)


def test_no_illumination_is_made_up() -> None:
    for seed in range(5):
        found = run(make(5, flat=0.0, seed=seed))
        assert not found.illumination[CONTEXT].significant
        assert set(found.illumination[CONTEXT].offset_mag.values()) == {0.0}
        assert any("no significant illumination" in note for note in found.notes)


def test_without_stars_no_illumination_is_known() -> None:
    whole = make(1)
    blind = replace(whole.detections, mag=np.full_like(whole.detections.mag, np.nan))
    light = run(replace(whole, detections=blind)).illumination[CONTEXT]
    assert light.n_stars == 0
    assert not light.significant
    # What was known before stays.
    taught = run(make(10, seed=5)).illumination[CONTEXT]
    kept = run(replace(whole, detections=blind), known={CONTEXT: taught}).illumination[CONTEXT]
    assert kept.significant
    assert kept.offset_mag == pytest.approx(taught.offset_mag)


def test_known_illumination_helps_an_image_with_few_stars() -> None:
    taught = run(make(10, seed=5))
    again = Illumination.from_json(taught.illumination[CONTEXT].to_json())
    assert again == taught.illumination[CONTEXT]
    # The same camera (same seed of flats), few stars, no overlap.
    whole = make(10, seed=5)
    few = whole.detections.group % 15 == 0
    few &= whole.detections.exposure == 0
    part = PhotometricDetections(
        *(getattr(whole.detections, name)[few] for name in PhotometricDetections.__slots__)
    )
    alone = replace(whole, detections=part, exposures=whole.exposures[:1])
    known = run(alone, known={CONTEXT: again})
    assert np.abs(offsets(known) - whole.illumination).max() < 0.002
    assert np.abs(offsets(run(alone)) - whole.illumination).max() > 0.002
    assert abs(zeros(known)[0] - whole.zero[0]) < 0.003


def test_colours_too_much_alike_leave_the_profiles_colour_term() -> None:
    truth = make(3)
    grey = replace(
        truth.detections, colour_mag=np.where(np.isfinite(truth.detections.colour_mag), 1.0, np.nan)
    )
    options = replace(OPTIONS, colour_terms={CONTEXT: ColourTerm(0.05, 0.3)})
    found = run(replace(truth, detections=grey), options)
    assert found.illumination[CONTEXT].colour_term == pytest.approx(0.05)
    assert found.illumination[CONTEXT].colour_term_sigma is None
    assert any("taken as +0.050" in note for note in found.notes)


def test_filters_are_kept_apart() -> None:
    truth = make(4, with_reference=False)
    own = [told(truth, n, own_zeropoint_mag=truth.zero[n]).exposures[n] for n in range(4)]
    mixed = [replace(e, filter="g.MP9401" if n % 2 else "r.MP9601") for n, e in enumerate(own)]
    mixed = [
        replace(e, own_zeropoint_mag=e.own_zeropoint_mag if n < 2 else None) for n, e in enumerate(mixed)
    ]
    # The stars have other magnitudes in the other filter: nothing of that may reach the zero points.
    rng = np.random.default_rng(3)
    tone = rng.normal(0.5, 0.4, int(truth.detections.group.max()) + 1)
    bluer = truth.detections.exposure % 2 == 1
    detections = replace(
        truth.detections, mag=truth.detections.mag + np.where(bluer, tone[truth.detections.group], 0.0)
    )
    found = solve(mixed, detections, options=OPTIONS)
    assert np.abs(zeros(found) - truth.zero).max() < 0.003


def test_the_same_input_gives_the_same_output_and_order_does_not_matter() -> None:
    truth = make(4, 4, 40)
    first, second = run(truth), run(truth)
    assert first.exposures == second.exposures
    assert first.residual_mag.tobytes() == second.residual_mag.tobytes()
    shuffle = np.random.default_rng(2).permutation(len(truth.detections.mag))
    moved = PhotometricDetections(
        *(getattr(truth.detections, name)[shuffle] for name in PhotometricDetections.__slots__)
    )
    third = run(replace(truth, detections=moved))
    assert np.abs(zeros(third) - zeros(first)).max() < 2e-5
    assert np.allclose(third.residual_mag, first.residual_mag[shuffle], atol=5e-5, equal_nan=True)


def test_outliers_are_found_and_the_rest_is_kept() -> None:
    truth = make(5, outliers=0.0)
    spoiled = np.random.default_rng(7).random(len(truth.detections.mag)) < 0.03
    detections = replace(truth.detections, mag=truth.detections.mag + np.where(spoiled, 0.7, 0.0))
    found = run(replace(truth, detections=detections))
    bright = truth.detections.error_mag < 0.05
    assert not found.kept[spoiled & bright].any()
    assert found.kept[~spoiled].mean() > 0.99
    assert np.abs(zeros(found) - truth.zero).max() < 0.002
    assert np.nanmedian(np.abs(found.residual_mag[spoiled & bright])) == pytest.approx(0.7, abs=0.05)


def test_nothing_and_nonsense() -> None:
    none = PhotometricDetections(*[np.empty(0, np.int32)] * 3, *[np.empty(0)] * 5)
    assert solve([], none).exposures == ()
    (alone,) = solve([PhotometricExposure("a", "c", 60.0)], none).exposures
    assert (alone.anchor, alone.mag, alone.n_overlap) == ("none", None, 0)
    assert alone.why.startswith("None: no reference stars")
    header = PhotometricExposure(
        "a", "c", 60.0, header_zeropoint_mag=26.0, is_photometric=True, header_zeropoint_sigma_mag=0.01
    )
    (from_header,) = solve([header], none).exposures
    assert (from_header.anchor, from_header.mag) == ("header", pytest.approx(26.0))
    truth = make(3, 2, 60)
    rows = np.arange(len(truth.detections.mag))
    bad = replace(
        truth.detections,
        mag=np.where(rows % 7 == 0, np.nan, np.where(rows % 11 == 0, np.inf, truth.detections.mag)),
        error_mag=np.where(rows % 5 == 0, 0.0, np.where(rows % 13 == 0, np.nan, truth.detections.error_mag)),
        reference_mag=np.where(rows % 3 == 0, np.nan, truth.detections.reference_mag),
    )
    found = run(replace(truth, detections=bad))
    assert np.abs(zeros(found) - truth.zero).max() < 0.006
    assert not found.kept[(rows % 7 == 0) | (rows % 5 == 0)].any()


def test_thin_clouds_that_drift_make_an_exposure_count_less() -> None:
    """Patches of cloud on one exposure: its own scatter is found, and it does not spoil the others."""
    truth = make(5, outliers=0.0)
    patchy = truth.detections.exposure == 3
    shadow = 0.08 * np.abs(np.random.default_rng(4).standard_normal(len(patchy)))
    detections = replace(truth.detections, mag=truth.detections.mag + np.where(patchy, shadow, 0.0))
    found = run(replace(truth, detections=detections))
    scatter = [e.scatter_mag for e in found.exposures]
    assert scatter[3] is not None
    assert scatter[3] == pytest.approx(0.048, rel=0.2)
    assert max(s for n, s in enumerate(scatter) if n != 3 and s is not None) < 0.01
    others = np.array([0, 1, 2, 4])
    assert np.abs(zeros(found) - truth.zero)[others].max() < 0.002
    sigma = [e.sigma_mag for e in found.exposures]
    assert sigma[3] is not None
    assert sigma[0] is not None
    assert sigma[3] > 1.5 * sigma[0]


def test_magnitudes_of_other_stars_are_no_reference() -> None:
    """A negative control: shuffled reference magnitudes scatter by a magnitude, and the answer says so."""
    truth = make(3)
    n_stars = int(truth.detections.group.max()) + 1
    magnitudes = np.full(n_stars, np.nan)
    magnitudes[truth.detections.group] = truth.detections.reference_mag
    shuffled = np.random.default_rng(5).permutation(magnitudes)[truth.detections.group]
    found = run(replace(truth, detections=replace(truth.detections, reference_mag=shuffled)))
    assert found.external_mag is not None
    assert found.external_mag > 1.0
    assert all(e.sigma_mag is not None and e.sigma_mag > 0.02 for e in found.exposures)
    # Relative zero points do not suffer.
    away = zeros(found) - truth.zero
    assert np.abs(away - away.mean()).max() < 0.002


@pytest.mark.parametrize(("n_stars", "anchor"), [(2, "none"), (6, "reference")])
def test_a_few_reference_stars_spread_over_exposures_are_enough_together(n_stars: int, anchor: str) -> None:
    truth = make(6, colour_term=0.0)
    # Each is measured on one exposure only, and no exposure has more than one.
    chosen = np.random.default_rng(6).choice(int(truth.detections.group.max()), n_stars, replace=False)
    only = {int(star): number % 6 for number, star in enumerate(chosen)}
    home = np.array([only.get(int(star), -1) for star in truth.detections.group])
    detections = replace(
        truth.detections,
        mag=np.where((home >= 0) & (truth.detections.exposure != home), np.nan, truth.detections.mag),
        reference_mag=np.where(home >= 0, truth.detections.reference_mag, np.nan),
    )
    found = run(replace(truth, detections=detections), Options())
    assert {e.anchor for e in found.exposures} == {anchor}
    if anchor == "reference":
        assert np.abs(zeros(found) - truth.zero).max() < 0.02
