"""The contract's words of how pixels are made, as the engine takes them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from spica_proto.stacks import Grid, Processing, StackPlanned, StackRequested
from spica_stack.ordering import threads_of_each
from spica_stack.processing import configuration, engine_of, filled, identity, parameters_of
from spica_stack.science.parameters import Parameters
from spica_stack.settings import StackSettings

SETTINGS = StackSettings()
GRID = Grid(
    crval_ra_deg=1, crval_dec_deg=2, crpix_x=3, crpix_y=4, pixel_scale_arcsec=0.2, width_px=5, height_px=6
)


def planned(**changes: Any) -> StackPlanned:
    request = StackRequested(**changes)
    return StackPlanned(
        stack_id="s",
        request_id="r",
        name="n",
        filter="r",
        image_ids=("a",),
        n_left_out=0,
        grid=GRID,
        combine=request.combine,
        processing=filled(request, SETTINGS),
        solutions=request.solutions,
        engine=engine_of(request, SETTINGS),
    )


def test_by_default_pixels_are_made_as_the_settings_say_and_these_as_the_science_part_does() -> None:
    processing = filled(StackRequested(), SETTINGS)
    named = {"oversampling"}  # as many as are needed: no setting
    assert {name for name, value in processing if value is None} == named
    assert parameters_of("clipped_mean", processing, [], keep_sums=False) == Parameters()


def test_what_the_request_says_goes_over_the_settings() -> None:
    asked = Processing(
        resampling="bilinear", subtract_background=False, clip_sigma=7, ccd_weights={"b": 2, "a": 0}
    )
    settings = SETTINGS.model_copy(update={"clip_sigma": 3.0, "background_mesh_px": 64})
    parameters = parameters_of(
        "sigma_clip", filled(StackRequested(processing=asked), settings), [6.2, 4.0], keep_sums=False
    )
    assert (parameters.resampling, parameters.subtract_background) == ("bilinear", False)
    assert (parameters.clipping.n_sigma, parameters.background_mesh_px) == (7, 64)
    assert parameters.clipping.radius_px == 3
    assert list(parameters.ccd_weights.items()) == [("a", 0), ("b", 2)], (
        "in one order, whatever the request's"
    )


@pytest.mark.parametrize(
    ("combine", "has"), [("clipped_mean", True), ("sigma_clip", True), ("median", False)]
)
def test_only_what_clips_has_a_map_of_what_it_left_out(combine: Any, has: bool) -> None:
    processing = filled(StackRequested(), SETTINGS)
    assert parameters_of(combine, processing, [], keep_sums=False).rejection_map is has


@given(st.lists(st.floats(0.1, 100), max_size=5))
def test_the_box_of_the_local_flux_is_about_half_the_seeing_within_reason(fwhm_px: list[float]) -> None:
    radius = parameters_of("clipped_mean", Processing(), fwhm_px, keep_sums=False).clipping.radius_px
    assert 2 <= radius <= 8
    if fwhm_px and 5 <= max(fwhm_px) <= 15:
        assert abs(radius - 0.5 * max(fwhm_px)) <= 0.5


def test_all_that_changes_pixels_makes_another_stack_and_nothing_else_does() -> None:
    base = identity(planned())
    assert base == identity(
        planned(requested_by="x", min_exposures=3, processing=Processing(rejection_map=False))
    )
    values = {
        "resampling": "nearest",
        "oversampling": 2,
        "subtract_background": False,
        "background_mesh_px": 100,
        "rescale_weights": False,
        "psf_weight_power": 0.0,
        "exposure_weights": {"a": 2.0},
        "ccd_weights": {"a": 2.0},
        "clip_sigma": 3.0,
        "clip_sigma_grown": 3.0,
        "clip_flux_share": 0.2,
    }
    assert set(values) == set(Processing.model_fields) - {"rejection_map"}
    others = [planned(combine="median"), planned(solutions="own"), planned(engine="swarp")]
    others += [planned(processing=Processing(**{name: value})) for name, value in values.items()]
    assert all(identity(other) != base for other in others)


def test_provenance_tells_all_of_it() -> None:
    told = configuration("median", filled(StackRequested(), SETTINGS), "spica")
    assert told["combine"] == "median" and told["engine"] == "spica" and told["clip_sigma"] == 4.0


def test_workers_share_the_cores() -> None:
    alone = threads_of_each(1)
    assert alone >= 1
    assert threads_of_each(alone) == 1
    assert threads_of_each(1000) == 1
