from __future__ import annotations

from dataclasses import replace

import pytest
from spica_proto.base import Pointing
from spica_proto.stacks import Cone, Selection, StackRequested
from spica_runtime.errors import NotRetriable
from spica_stack.jobs import CcdFootprint, Footprint
from spica_stack.planning import choose, contract_grid, lay_out, plan, rules_of, science_grid
from spica_stack.science.grid import outline
from spica_stack.science.selection import Rules
from spica_stack.settings import StackSettings

from tests.unit.stack.sky import CENTRE, wcs_at
from tests.unit.stack.test_selection import GOOD

SETTINGS = StackSettings()


def footprint(
    shift: tuple[float, float] = (0.0, 0.0), scale: float = 0.2, centre: tuple[float, float] = CENTRE
) -> Footprint:
    wcs = wcs_at((200, 300), scale=scale, shift=shift, centre=centre)
    return Footprint("x", (CcdFootprint(*outline(wcs, 0, 300, 0, 200), scale),))


def exposures(n: int) -> list:
    return [
        replace(GOOD, image_id=f"{k}.0", name=f"{k}", mjd_obs=float(k), solution_id=f"s{k}") for k in range(n)
    ]


def test_every_rule_of_the_contract_reaches_the_science() -> None:
    selection = Selection(
        images=("a",), filter="r", instrument="i", run="n", object="o", batch="b", grades=("A",), fwhm_max_arcsec=1,
        ellipticity_max=0.2, exposure_time_min_s=60, airmass_max=1.7, mjd_min=1, mjd_max=2,
        near=Cone(centre=Pointing(ra_deg=10, dec_deg=20), radius_deg=0.5),
    )  # fmt: skip
    assert rules_of(selection) == Rules(
        ("a",), "r", "i", "n", "o", "b", ("A",), 1, 0.2, 60, 1.7, 1, 2, (10, 20, 0.5)
    )
    assert set(Selection.model_fields) == set(Rules.__dataclass_fields__)


def test_nothing_selected_says_which_rule_left_out_most() -> None:
    rows = [replace(row, grade="D") for row in exposures(5)] + [replace(GOOD, solution_id=None)]
    with pytest.raises(NotRetriable, match="`grades` left out most") as caught:
        choose(Rules(), rows, 1)
    assert caught.value.code == "nothing_selected"
    assert caught.value.numbers["left_out_by_grades"] == 5
    with pytest.raises(NotRetriable, match="No image in the store"):
        choose(Rules(batch="x"), [], 1)


def test_too_few_exposures_says_how_many() -> None:
    with pytest.raises(NotRetriable, match="at least 4 exposures, 3 can be had") as caught:
        choose(Rules(), exposures(3), 4)
    assert (caught.value.code, caught.value.numbers["wanted"]) == ("too_few_exposures", 4)
    assert len(choose(Rules(), exposures(4), 4).members) == 4


def test_the_one_filter_is_taken_and_several_are_named() -> None:
    rows = exposures(2)
    assert choose(Rules(), rows, 1).filter == "r.MP9601"
    other = replace(GOOD, name="g1", filter="g.MP9401")
    with pytest.raises(NotRetriable, match=r"g\.MP9401 \(1\), r\.MP9601 \(2\)") as caught:
        choose(Rules(), [*rows, other], 1)
    assert caught.value.code == "several_filters"
    # One that breaks another rule does not count.
    assert choose(Rules(), [*rows, replace(other, grade="D")], 1).filter == "r.MP9601"


def test_the_scale_is_the_median_of_the_inputs() -> None:
    grid = lay_out(StackRequested(), [footprint(scale=s) for s in (0.19, 0.20004, 0.3)], SETTINGS)
    assert grid.scale_arcsec == 0.2
    assert lay_out(StackRequested(pixel_scale_arcsec=0.5), [footprint()], SETTINGS).scale_arcsec == 0.5


def test_a_stack_too_large_is_refused_with_its_size() -> None:
    far = [footprint(), footprint(centre=(CENTRE[0] + 20, CENTRE[1]))]
    with pytest.raises(NotRetriable, match="allowed are") as caught:
        lay_out(StackRequested(), far, SETTINGS)
    assert caught.value.code == "stack_too_large"
    with pytest.raises(NotRetriable, match="Narrow the selection") as caught:
        lay_out(StackRequested(), [footprint(), footprint(centre=(CENTRE[0] + 180, -CENTRE[1]))], SETTINGS)
    assert caught.value.code in ("no_common_plane", "stack_too_large")


def test_an_area_without_inputs_is_refused() -> None:
    request = StackRequested(centre=Pointing(ra_deg=10, dec_deg=52.5), width_px=50, height_px=50)
    with pytest.raises(NotRetriable) as caught:
        lay_out(request, [footprint(), footprint()], SETTINGS)
    assert caught.value.code == "no_overlap"


def test_the_id_follows_from_all_that_the_stack_is_made_of() -> None:
    choice = choose(Rules(), exposures(3), 1)
    grid = lay_out(StackRequested(), [footprint()], SETTINGS)
    first = plan(StackRequested(), "r1", choice, grid, SETTINGS)
    assert plan(StackRequested(), "r1", choice, grid, SETTINGS) == first
    solved_anew = choose(Rules(), [replace(exposures(3)[0], solution_id="new"), *exposures(3)[1:]], 1)
    others = [
        plan(StackRequested(), "r2", choice, grid, SETTINGS),
        plan(StackRequested(combine="median"), "r1", choice, grid, SETTINGS),
        plan(StackRequested(), "r1", solved_anew, grid, SETTINGS),
        plan(StackRequested(), "r1", choose(Rules(), exposures(2), 1), grid, SETTINGS),
        plan(StackRequested(), "r1", choice, replace(grid, width=grid.width + 1), SETTINGS),
        plan(StackRequested(), "r1", choice, grid, StackSettings(clip_sigma=5.0)),
    ]
    assert len({first.stack_id, *(other.stack_id for other in others)}) == 7
    # How much memory is used does not change what comes out.
    assert plan(StackRequested(), "r1", choice, grid, StackSettings(memory_mb=64)).stack_id == first.stack_id
    assert first.name == "D3_r_141600+523000"
    assert first.image_ids == ("0.0", "1.0", "2.0")
    assert science_grid(first.grid) == grid and contract_grid(grid) == first.grid
