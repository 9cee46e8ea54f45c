from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from spica_imaging.skyshapes import Cone, Polygon
from spica_imaging.wcs import TpvWcs
from spica_proto import stacks as contract
from spica_proto.base import Pointing
from spica_proto.stacks import Selection, StackRequested
from spica_runtime.errors import NotRetriable
from spica_stack.choosing import Choice, choose, doubles, grid_asked_for, rules_of, selection_of
from spica_stack.laying import corners_of_head
from spica_stack.planning import (
    MARGIN,
    Placed,
    contract_grid,
    in_order,
    lay_out,
    pixel_scale_arcsec,
    plan,
    science_grid,
)
from spica_stack.science.choosing.judging import judge
from spica_stack.science.choosing.table import Footprints, Table
from spica_stack.science.grid import outline
from spica_stack.science.selection import Candidate, Rules
from spica_stack.settings import StackSettings

from tests.unit.stack.sky import CENTRE, wcs_at
from tests.unit.stack.test_selection import GOOD

SETTINGS = StackSettings()
NX, NY = 300, 200


def corners(
    shift: tuple[float, float] = (0.0, 0.0), scale: float = 0.2, centre: tuple[float, float] = CENTRE
) -> np.ndarray[Any, Any]:
    wcs = wcs_at((NY, NX), scale=scale, shift=shift, centre=centre)
    x, y = np.array([0.5, NX + 0.5, NX + 0.5, 0.5]), np.array([0.5, 0.5, NY + 0.5, NY + 0.5])
    return np.stack(wcs.pixel_to_sky(x, y), axis=-1)[None]


def placed(*ccds: np.ndarray[Any, Any], scale: float = 0.2) -> Placed:
    return Placed(Footprints.of(list(ccds)), scale)


def exposures(n: int) -> list[Candidate]:
    return [
        replace(GOOD, image_id=f"{k}.0", name=f"{k}", mjd_obs=float(k), solution_id=f"s{k}") for k in range(n)
    ]


def chosen(rows: list[Candidate], **request: Any) -> Choice:
    asked = StackRequested(**request)
    return choose(asked, selection_of(asked.selection), Table.of(rows))


# ---- the contract's words ----


def test_every_rule_of_the_contract_reaches_the_science() -> None:
    cone = contract.Cone(centre=Pointing(ra_deg=10, dec_deg=20), radius_deg=0.5)
    corner = [Pointing(ra_deg=ra, dec_deg=dec) for ra, dec in ((1, 2), (3, 2), (2, 4))]
    rules: dict[str, Any] = {
        "images": ("a",), "filter": "r", "instrument": "i", "run": "n", "runs": ("n", "m"), "object": "o", "batch": "b",
        "tags": ("t",), "without_tags": ("w",), "fwhm_max_arcsec": 1, "fwhm_min_arcsec": 0.5, "ellipticity_max": 0.2,
        "exposure_time_min_s": 60, "exposure_time_max_s": 600, "airmass_max": 1.7, "sky_absorption_max_mag": 0.3,
        "background_max_adu_per_s": 5, "limiting_mag_min": 24, "photometric": True, "mjd_min": 1, "mjd_max": 2,
    }  # fmt: skip
    told = contract.Rules(
        **rules,
        near=cone,
        touches=contract.Polygon(corners=tuple(corner)),
        any_of=(contract.Rules(touches=cone),),
        none_of=(contract.Rules(run="x"), contract.Rules(filter="z")),
    )
    assert rules_of(told) == Rules(
        **rules,
        near=Cone(10, 20, 0.5),
        touches=Polygon(((1, 2), (3, 2), (2, 4))),
        any_of=(Rules(touches=Cone(10, 20, 0.5)),),
        none_of=(Rules(run="x"), Rules(filter="z")),
    )
    assert set(contract.Rules.model_fields) == set(Rules.__dataclass_fields__)
    assert {*rules, "near", "touches", "any_of", "none_of"} == set(contract.Rules.model_fields)


def test_saved_selections_are_taken_with_those_that_they_name() -> None:
    saved = {
        "outer": Selection(saved=("inner",), run="x", max_exposures=5),
        "inner": Selection(grades=("A",), grade_policy="weak"),
    }
    taken = selection_of(Selection(saved=("outer",)), saved)
    assert taken.grades == ("A", "B", "C")
    (outer,) = taken.saved
    assert (outer.name, outer.selection.grades, outer.selection.max_exposures) == ("outer", (), 5)
    assert outer.selection.saved[0].selection.grades == ("A",)
    saved["inner"] = Selection(saved=("outer",))
    with pytest.raises(NotRetriable, match="outer > inner > outer") as caught:
        selection_of(Selection(saved=("outer",)), saved)
    assert caught.value.code == "bad_selection"


def test_an_area_that_is_none_is_refused() -> None:
    flat = contract.Polygon(corners=tuple(Pointing(ra_deg=ra, dec_deg=0) for ra in (0, 120, 240)))
    with pytest.raises(NotRetriable, match="at most 60 deg") as caught:
        rules_of(contract.Rules(touches=flat))
    assert caught.value.code == "bad_area"


# ---- what was chosen ----


def test_nothing_selected_says_which_rule_left_out_most_and_what_would_help() -> None:
    rows = [replace(row, fwhm_arcsec=1.28) for row in exposures(5)] + [replace(GOOD, solution_id=None)]
    problem = chosen(rows, selection=Selection(fwhm_max_arcsec=1.0)).problem
    assert problem is not None and problem.code == "nothing_selected"
    assert "`fwhm_max_arcsec` left out most" in problem.message
    assert "Widening `fwhm_max_arcsec` to 1.3 lets 5 in; 1 wait for a solution." in problem.message
    assert problem.numbers["left_out_by_fwhm_max_arcsec"] == 5
    problem = chosen([]).problem
    assert problem is not None and "No image in the store" in problem.message


def test_too_few_exposures_says_how_many() -> None:
    choice = chosen(exposures(3), min_exposures=4)
    with pytest.raises(NotRetriable, match="at least 4 exposures, 3 can be had") as caught:
        choice.require()
    assert (caught.value.code, caught.value.numbers["wanted"]) == ("too_few_exposures", 4)
    assert len(choice.members) == 3
    assert len(chosen(exposures(4), min_exposures=4).require().members) == 4


def test_the_one_filter_is_taken_and_several_are_named() -> None:
    rows = exposures(2)
    assert chosen(rows).require().filter == "r.MP9601"
    other = replace(GOOD, name="g1", filter="g.MP9401")
    problem = chosen([*rows, other]).problem
    assert problem is not None and problem.code == "several_filters"
    assert "g.MP9401 (1), r.MP9601 (2)" in problem.message
    # One that breaks another rule does not count.
    assert chosen([*rows, replace(other, grade="D")]).require().filter == "r.MP9601"
    # Detection images are made of several.
    both = chosen([*rows, other], combine="chi2").require()
    assert both.filter == "g.MP9401+r.MP9601"
    grid = lay_out(StackRequested(), placed(corners()), SETTINGS)
    assert plan(both.request, "r1", both, grid, SETTINGS).name.startswith("D3_g+r_")


def test_one_name_for_two_images_is_not_a_single_one() -> None:
    twins = [replace(row, name="744331p") for row in exposures(2)]
    problem = chosen(twins, mode="single", selection=Selection(images=("744331p",))).problem
    assert problem is not None and problem.code == "mode_does_not_fit"
    assert "0.0, 1.0" in problem.message


# ---- the grid ----


def test_the_grid_covers_all_corners_and_the_edges_between_them() -> None:
    shifts = [(0.0, 0.0), (3.0, -2.0), (-6.0, 1.0)]
    grid = lay_out(StackRequested(), placed(*(corners(shift) for shift in shifts)), SETTINGS)
    for shift in shifts:
        x, y = grid.sky_to_pixel(*outline(wcs_at((NY, NX), shift=shift), 0, NX, 0, NY))
        assert x.min() >= 0.5 and x.max() <= grid.width + 0.5
        assert y.min() >= 0.5 and y.max() <= grid.height + 0.5
    assert grid.width <= NX + 9.0 / 0.2 + 2 * (MARGIN * NX + 3)
    # A size that is asked for stays.
    assert lay_out(StackRequested(width_px=200), placed(corners()), SETTINGS).width == 200


def test_the_margin_holds_what_a_distorted_focal_plane_bulges() -> None:
    """CCDs at the edges of a MegaCam whose scale falls by 1 % over the field: their outer edges bulge outwards."""
    step, powers = 0.186 / 3600.0, [0.0] * 40
    powers[1], powers[7], powers[9] = 1.0, -0.005, -0.005
    nx, ny = 2048, 4612
    ccds, edges = [], []
    for right, up in ((-8400, 0), (8400, 0), (0, -7050), (0, 7050)):
        wcs = TpvWcs(
            crval=CENTRE,
            crpix=(1024.5 - right, 2306.5 - up),
            cd=((-step, 0.0), (0.0, step)),
            pv1=tuple(powers),
            pv2=tuple(powers),
        )
        x, y = np.array([0.5, nx + 0.5, nx + 0.5, 0.5]), np.array([0.5, 0.5, ny + 0.5, ny + 0.5])
        ccds.append(np.stack(wcs.pixel_to_sky(x, y), axis=-1)[None])
        edges.append(outline(wcs, 0, nx, 0, ny, 41))
    grid = lay_out(StackRequested(), placed(*ccds, scale=0.186), SETTINGS)
    corner_x, corner_y = grid.sky_to_pixel(*np.concatenate(ccds).transpose(2, 0, 1))
    x, y = grid.sky_to_pixel(*np.concatenate(edges, axis=1))
    bulge = max(corner_x.min() - x.min(), x.max() - corner_x.max(), y.max() - corner_y.max())
    assert 0.1 < bulge < 0.25 * MARGIN * ny
    assert x.min() > 0.5 and x.max() < grid.width + 0.5 and y.min() > 0.5 and y.max() < grid.height + 0.5


def test_the_scale_is_that_of_the_inputs_or_the_one_asked_for() -> None:
    assert lay_out(StackRequested(), placed(corners(), scale=0.18604), SETTINGS).scale_arcsec == 0.186
    assert lay_out(StackRequested(pixel_scale_arcsec=0.5), placed(corners()), SETTINGS).scale_arcsec == 0.5


@pytest.mark.parametrize("dec", [0.0, 52.5, 89.0])
def test_the_pixel_scale_follows_from_the_corners(dec: float) -> None:
    ccds = np.concatenate([corners(scale=scale, centre=(359.99, dec)) for scale in (0.1, 0.25)])
    found = pixel_scale_arcsec(ccds, np.array([NX, NX]), np.array([NY, NY]))
    # Distortion makes the mean over a CCD differ a little from the scale in the middle of the focal plane.
    np.testing.assert_allclose(found, [0.1, 0.25], rtol=2e-3)


@pytest.mark.parametrize(
    "area",
    [
        contract.Cone(centre=Pointing(ra_deg=CENTRE[0], dec_deg=CENTRE[1]), radius_deg=0.02),
        contract.Polygon(
            corners=tuple(
                Pointing(ra_deg=CENTRE[0] + ra, dec_deg=CENTRE[1] + dec)
                for ra, dec in ((-0.03, -0.01), (0.03, -0.01), (0.0, 0.02))
            )
        ),
    ],
)
def test_an_area_is_covered_whatever_the_members_are(area: contract.Cone | contract.Polygon) -> None:
    request = StackRequested(mode="area", selection=Selection(touches=area))
    here, wide = placed(corners()), placed(corners(), corners((60.0, 60.0)))
    grid = lay_out(request, here, SETTINGS)
    assert lay_out(request, wide, SETTINGS) == grid
    shape = rules_of(request.selection).touches
    assert shape is not None
    rng = np.random.default_rng(5)
    x, y = rng.uniform(0.5, grid.width + 0.5, 4000), rng.uniform(0.5, grid.height + 0.5, 4000)
    ra, dec = np.radians(grid.pixel_to_sky(x, y))
    held = shape.holds(np.stack([np.cos(dec) * np.cos(ra), np.cos(dec) * np.sin(ra), np.sin(dec)], axis=-1))
    for values, size in ((x[held], grid.width), (y[held], grid.height)):
        # It reaches from one edge to the other, and no further.
        assert values.min() < 0.03 * size and values.max() > 0.97 * size
    inside = np.radians(area.radius_deg) if isinstance(area, contract.Cone) else None
    if inside is not None:
        assert grid.width == pytest.approx(2 * 0.02 * 3600 / 0.2, abs=4)


def test_a_stack_too_large_is_refused_with_its_size() -> None:
    far = placed(corners(), corners(centre=(CENTRE[0] + 20, CENTRE[1])))
    with pytest.raises(NotRetriable, match="allowed are") as caught:
        lay_out(StackRequested(), far, SETTINGS)
    assert caught.value.code == "stack_too_large"
    opposite = placed(corners(), corners(centre=(CENTRE[0] + 180, -CENTRE[1])))
    with pytest.raises(NotRetriable, match="Narrow the selection") as caught:
        lay_out(StackRequested(), opposite, SETTINGS)
    assert caught.value.code in ("no_common_plane", "stack_too_large")


def test_an_area_without_inputs_is_refused() -> None:
    request = StackRequested(centre=Pointing(ra_deg=10, dec_deg=52.5), width_px=50, height_px=50)
    with pytest.raises(NotRetriable) as caught:
        lay_out(request, placed(corners(), corners()), SETTINGS)
    assert caught.value.code == "no_overlap"


# ---- from the store ----


def test_arrays_are_read_as_postgresql_sends_them() -> None:
    values = np.array([1.5, -2.25, 1e300])
    head = np.array([1, 0, 701, 3, 1], dtype=">i4").tobytes()
    elements = np.array([(8, value) for value in values], dtype=[("bytes", ">i4"), ("value", ">f8")])
    sent = head + elements.tobytes()
    assert doubles(sent).tolist() == values.tolist()
    assert doubles(np.array([0, 0, 701], dtype=">i4").tobytes()).tolist() == []


def test_corners_of_a_header_file_are_those_of_its_solution(tmp_path: Path) -> None:
    from spica_imaging.head import format_head

    blocks = []
    for name, shift in (("ccd01", (0.0, 0.0)), ("ccd00", (5.0, 0.0))):
        header = wcs_at((NY, NX), shift=shift).to_header()
        header["EXTNAME"] = name
        blocks.append(header)
    path = tmp_path / "a.head"
    path.write_text(format_head(blocks), encoding="ascii")
    sizes = [("ccd00", NX, NY), ("ccd01", NX, NY), ("ccd02", NX, NY)]
    found = corners_of_head(path, sizes)
    np.testing.assert_allclose(found, np.concatenate([corners((5.0, 0.0)), corners()]), atol=1e-9)
    with pytest.raises(NotRetriable, match=r"2 header blocks, the image 1 CCDs"):
        corners_of_head(path, [("x", NX, NY)])
    with pytest.raises(NotRetriable, match=r"b\.head"):
        corners_of_head(tmp_path / "b.head", sizes)


# ---- the plan ----


def test_the_id_follows_from_all_that_the_stack_is_made_of() -> None:
    choice = chosen(exposures(3))
    grid = lay_out(StackRequested(), placed(corners()), SETTINGS)
    first = plan(StackRequested(), "r1", choice, grid, SETTINGS)
    assert plan(StackRequested(), "r1", choice, grid, SETTINGS) == first
    solved_anew = chosen([replace(exposures(3)[0], solution_id="new"), *exposures(3)[1:]])
    others = [
        plan(StackRequested(), "r2", choice, grid, SETTINGS),
        plan(StackRequested(combine="median"), "r1", choice, grid, SETTINGS),
        plan(StackRequested(solutions="own"), "r1", choice, grid, SETTINGS),
        plan(StackRequested(engine="swarp"), "r1", choice, grid, SETTINGS),
        plan(StackRequested(processing={"resampling": "nearest"}), "r1", choice, grid, SETTINGS),
        plan(StackRequested(processing={"exposure_weights": {"0": 0.5}}), "r1", choice, grid, SETTINGS),
        plan(StackRequested(), "r1", solved_anew, grid, SETTINGS),
        plan(StackRequested(), "r1", chosen(exposures(2)), grid, SETTINGS),
        plan(StackRequested(), "r1", choice, replace(grid, width=grid.width + 1), SETTINGS),
        plan(StackRequested(), "r1", choice, grid, StackSettings(clip_sigma=5.0)),
        plan(StackRequested(), "r1", in_order(choice, ["1.0", "0.0"]), grid, SETTINGS),
    ]
    assert len({first.stack_id, *(other.stack_id for other in others)}) == 1 + len(others)
    # How much memory is used does not change what comes out.
    assert plan(StackRequested(), "r1", choice, grid, StackSettings(memory_mb=64)).stack_id == first.stack_id
    assert first.name == "D3_r_141600+523000"
    assert first.image_ids == ("0.0", "1.0", "2.0")
    assert science_grid(first.grid) == grid and contract_grid(grid) == first.grid


def test_a_grid_may_be_turned_and_mirrored_and_of_any_projection() -> None:
    request = StackRequested(rotation_deg=30.0, mirrored=True, projection="SIN")
    grid = lay_out(request, placed(corners(), corners((60.0, 0.0))), SETTINGS)
    assert (grid.rotation_deg, grid.mirrored, grid.projection) == (30.0, True, "SIN")
    assert science_grid(contract_grid(grid)) == grid
    x, y = grid.sky_to_pixel(*outline(wcs_at((NY, NX), shift=(60.0, 0.0)), 0, NX, 0, NY))
    assert x.min() > 0.5 and x.max() < grid.width + 0.5 and y.min() > 0.5 and y.max() < grid.height + 0.5


def test_what_does_not_touch_the_grid_asked_for_is_left_out() -> None:
    request = StackRequested(
        centre=Pointing(ra_deg=CENTRE[0], dec_deg=CENTRE[1]),
        width_px=300,
        height_px=200,
        pixel_scale_arcsec=0.2,
    )
    area = grid_asked_for(request)
    assert area is not None
    ra, dec = CENTRE
    table = Table.of([replace(row, ra_deg=ra, dec_deg=dec, radius_rad=0.01) for row in exposures(2)])
    table = replace(table, footprints={0: corners(), 1: corners((400.0, 0.0))})
    rows = judge(replace(selection_of(request.selection), on_grid=area), table).verdicts
    assert [(row.selected, row.rule) for row in rows] == [(True, "chosen"), (False, "grid")]
    assert grid_asked_for(StackRequested(width_px=300, height_px=200)) is None


def test_the_plan_says_how_pixels_are_made() -> None:
    request = StackRequested(
        processing={"clip_sigma": 3.0}, survey="deep", solutions="own", combine="weighted_mean"
    )
    choice = chosen([*exposures(3), replace(GOOD, grade="D")])
    grid = lay_out(request, placed(corners()), SETTINGS)
    planned = plan(request, "r1", choice, grid, SETTINGS)
    assert planned.processing.clip_sigma == 3.0
    assert planned.processing.resampling == SETTINGS.resampling
    assert (planned.survey, planned.solutions, planned.engine) == ("deep", "own", SETTINGS.engine)
    assert (planned.n_left_out, planned.filter) == (1, "r.MP9601")


def test_members_that_go_first_do_so() -> None:
    choice = chosen([*exposures(4), replace(GOOD, grade="D", mjd_obs=0.5)])
    again = in_order(choice, ["2.0", "0.0"])
    assert [member.name for member in again.members] == ["2", "0", "1", "3"]
    assert len(again.verdicts) == 5
