"""What is told of members that are taken with the solutions they have."""

from __future__ import annotations

from dataclasses import replace

import pytest
from spica_calib.errors import CalibrationFailed
from spica_calib.ownwork import OwnMember, calibrated, check, entries
from spica_proto.stacks import Grid, StackPlanned

GRID = Grid(
    crval_ra_deg=1.0,
    crval_dec_deg=2.0,
    crpix_x=1.0,
    crpix_y=1.0,
    pixel_scale_arcsec=0.2,
    width_px=9,
    height_px=9,
)
PLANNED = StackPlanned(
    stack_id="s", request_id="r", name="D1", filter="r", image_ids=("a", "b", "c"), n_left_out=0, grid=GRID,
    combine="weighted_mean", solutions="own",
)  # fmt: skip
FIRST = OwnMember(
    "a", "700p", "sa", "calib/sa/700p.head", "gaia", "0" * 64, 26.0, 0.5,
    {"n_matched": 100, "n_internal": 7, "rms_mas": [8.0, 10.0], "internal_rms_mas": [5.0, 7.0], "epoch_year": 2010.0,
     "chi2_external": 1.0, "anchor": "reference"},
    "spica", "megacam|r",
)  # fmt: skip
# The first of its run: nothing to compare with.
SECOND = replace(
    FIRST, image_id="b", name="701p", solution_id="sb",
    quality={"n_matched": 50, "n_internal": 0, "rms_mas": [12.0, 14.0], "internal_rms_mas": None, "epoch_year": 2012.0,
             "anchor": "context"},
)  # fmt: skip
THIRD = replace(FIRST, image_id="c", name="702p", solution_id="sc", engine="scamp", quality={}, context=None)


def test_numbers_are_the_middle_of_those_that_are_known() -> None:
    said = calibrated(PLANNED, [FIRST, SECOND, THIRD])
    assert (said.n_members, said.n_internal_matches, said.n_reference) == (3, 7, 150)
    assert (said.external_rms_ra_mas, said.external_rms_dec_mas) == (10.0, 12.0)
    assert (said.internal_rms_ra_mas, said.internal_rms_dec_mas) == (5.0, 7.0)
    assert (said.chi2_external, said.chi2_internal, said.flux_scatter_mag) == (1.0, None, None)
    assert (said.engine, said.contexts, said.anchors) == ("spica", ("megacam|r",), ("a",))
    assert (said.reference.name, said.reference.epoch_year) == ("gaia", 2011.0)


def test_several_reference_catalogues_are_told() -> None:
    other = replace(SECOND, reference_name="sdss", reference_sha256="1" * 64)
    said = calibrated(PLANNED, [FIRST, other, THIRD])
    assert (said.reference.name, said.reference.sha256) == ("gaia and 1 more", "0" * 64)


def test_nothing_known_is_nothing_told() -> None:
    said = calibrated(PLANNED, [replace(THIRD, quality=None)])
    assert (said.external_rms_ra_mas, said.n_reference, said.reference.epoch_year) == (None, 0, 2000.0)


def test_entries_are_each_stacks_own() -> None:
    here, there = entries("s", [FIRST, SECOND]), entries("t", [FIRST, SECOND])
    assert list(here) == ["sa", "sb"]
    assert len({*here.values(), *there.values()}) == 4
    assert entries("s", [FIRST, SECOND]) == here


@pytest.mark.parametrize(
    ("members", "code"),
    [
        ([], "no_members"),
        ([FIRST, replace(SECOND, solution_id=None)], "no_solution"),
        ([FIRST, replace(SECOND, flux_scale=None)], "no_flux_scale"),
    ],
)
def test_who_cannot_be_taken_as_it_is_fails_the_stack(members: list[OwnMember], code: str) -> None:
    with pytest.raises(CalibrationFailed) as caught:
        check("s", members)
    assert caught.value.code == code
    check("s", [FIRST, SECOND])
