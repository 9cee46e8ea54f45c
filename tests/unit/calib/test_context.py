"""Which images are a new one's context, and which part of the sky it needs stars of."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from spica_calib.cones import cone_of_stack, cones_of_image
from spica_calib.context import overlapping, rough_place
from spica_calib.records import Facts, Measured, Place, SolvedRecord, context_of, place_of_corners
from spica_calib.store import ImageRecord
from spica_imaging.profiles import load_profiles
from spica_imaging.references import separation_deg

FACTS = Facts("100p.0", "100p", "megacam", "r.MP9601", 60.0, 55000.0, 1.2, (10.0, 20.0), {})
MEASURED = Measured("m", "quality/100p.ldac", {}, None)


def corners(ra: float, dec: float, ccds: int = 1, half: float = 0.05) -> tuple[float, ...]:
    """CCDs of 0.1 deg, one beside the other towards the east."""
    found: list[float] = []
    for k in range(ccds):
        at = ra + 2 * half * k / np.cos(np.radians(dec))
        wide = half / np.cos(np.radians(dec))
        found += [at - wide, dec - half, at + wide, dec - half, at + wide, dec + half, at - wide, dec + half]
    return tuple(found)


def solved(name: str, at: tuple[float, ...] | None) -> SolvedRecord:
    return SolvedRecord(replace(FACTS, name=name), MEASURED, name, f"calib/{name}.head", 25.0, {}, at)


def as_mas(at: tuple[float, ...]) -> bytes:
    return np.rint(np.array(at) * 3.6e6).astype("<i4").tobytes()


def test_only_images_of_which_a_ccd_overlaps_take_part() -> None:
    own = corners(10.0, 20.0, ccds=2)
    records = [
        solved("same", own),
        solved("edge", corners(10.15, 20.0)),
        solved("beside", corners(10.5, 20.0)),
        solved("between", corners(10.0, 20.2, ccds=2)),
        solved("unknown", None),
    ]
    place = place_of_corners(own)
    assert [one.facts.name for one in overlapping(as_mas(own), place, records)] == ["same", "edge"]


def test_without_a_wcs_all_that_it_may_reach_counts() -> None:
    place = Place(place_of_corners(corners(10.0, 20.0)).centre, np.radians(0.3))
    records = [solved("near", corners(10.3, 20.0)), solved("far", corners(11.0, 20.0))]
    assert [one.facts.name for one in overlapping(None, place, records)] == ["near"]


@pytest.mark.parametrize("ra", [0.0, 359.98, 0.03])
def test_across_ra_zero(ra: float) -> None:
    own = tuple(np.mod(v, 360.0) if i % 2 == 0 else v for i, v in enumerate(corners(0.0, 89.0)))
    other = tuple(np.mod(v, 360.0) if i % 2 == 0 else v for i, v in enumerate(corners(ra, 89.0)))
    assert overlapping(as_mas(own), place_of_corners(own), [solved("a", other)])
    assert place_of_corners(own).radius_rad < np.radians(0.1)


def test_the_context_is_what_the_profile_names() -> None:
    profile = load_profiles()["megacam"]
    header = {"FILTER": "r.MP9601", "QRUNID": "10BQ08 ", "OBJECT": "D1"}
    assert context_of(profile, header) == "megacam|r.MP9601|10BQ08"
    assert context_of(profile, {"FILTER": "r.MP9601"}) == "megacam|r.MP9601|"


def test_cones_hold_the_image_wherever_its_pointing_may_be_off_to() -> None:
    profile = load_profiles()["megacam"]
    ccds = tuple((f"ccd{k:02d}", 2112, 4644) for k in range(36))
    own = corners(10.2, 20.1, ccds=9, half=0.06)
    image = ImageRecord(FACTS, True, ccds, place_of_corners(own), as_mas(own), None)
    around, aside = cones_of_image(image, profile)
    assert around[:2] == (10.0, 20.0)
    flat = np.array(own).reshape(-1, 2)
    far = separation_deg(flat[:, 0], flat[:, 1], *aside[:2]).max()
    assert aside[2] > far + profile.pointing.radius_arcmin / 60
    assert aside[2] < 1.2 * far
    assert len(cones_of_image(replace(image, has_wcs=False), profile)) == 1
    # 36 CCDs are 0.96 by 0.94 deg together.
    assert 0.68 < around[2] < 1.2
    assert rough_place(image, profile).radius_rad == pytest.approx(np.radians(around[2]))


def test_one_cone_holds_all_members_of_a_stack() -> None:
    places = [place_of_corners(corners(ra, 20.0)) for ra in (10.0, 10.2, 10.4)]
    ra, dec, radius = cone_of_stack(places)
    for place in places:
        flat = np.array(place.corners).reshape(-1, 2)
        assert separation_deg(flat[:, 0], flat[:, 1], ra, dec).max() < radius < 0.4
