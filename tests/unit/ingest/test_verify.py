"""The judgement, on headers made for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from spica_imaging.profiles import Profile, load_profiles
from spica_ingest.science.facts import FileFacts, Finding, HduFacts, PixelFacts
from spica_ingest.science.geometry import middle_of
from spica_ingest.science.verify import Verdict, judge

from tests.unit.ingest.frames import PRIMARY, WCS

PROFILES = load_profiles()
NO_WCS = {"CTYPE1": None, "CTYPE2": None}
GOOD_PIXELS = PixelFacts(1.0, 0.0, 900.0)


def facts(
    primary: Mapping[str, Any] | None = None,
    wcs: Mapping[str, Any] | None = None,
    *,
    pixels: tuple[PixelFacts, ...] = (GOOD_PIXELS, GOOD_PIXELS),
    shape: tuple[int, int] = (40, 48),
    names: tuple[str | None, ...] = ("ccd00", "ccd01"),
) -> FileFacts:
    cards = _present({**PRIMARY, **(primary or {})})
    hdus = [HduFacts(0, cards, False, ())]
    for number, (figures, name) in enumerate(zip(pixels, names, strict=True), start=1):
        header = _present({"EXTNAME": name, **WCS, **(wcs or {})})
        hdus.append(HduFacts(number, header, True, shape, figures))
    return FileFacts(tuple(hdus))


def _present(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value is not None}


def codes(findings: tuple[Finding, ...]) -> list[tuple[str, str | None]]:
    return [(item.code, item.keyword) for item in findings]


def accepted(given_facts: FileFacts, profiles: Mapping[str, Profile] = PROFILES) -> Verdict:
    verdict = judge(given_facts, profiles)
    assert verdict.exposure is not None, verdict.reasons
    return verdict


def test_a_good_exposure_gives_its_essentials() -> None:
    verdict = accepted(facts())
    exposure = verdict.exposure
    assert exposure is not None
    assert verdict.repairs == ()
    assert (exposure.profile, exposure.instrument, exposure.run, exposure.filter, exposure.object) == (
        "megasim", "MegaSim", "25BQ07", "r.SIM", "D3",
    )  # fmt: skip
    assert (exposure.exposure_time_s, exposure.mjd_obs, exposure.airmass) == (120.0, 60980.25, 1.2)
    assert exposure.geometry.wcs == "full"
    assert exposure.geometry.ra_deg == pytest.approx(214.85, abs=1e-9)
    assert [ccd.name for ccd in exposure.ccds] == ["ccd00", "ccd01"]
    corners = exposure.ccds[0].footprint
    assert corners is not None
    half_width = 24 * 0.186 / 3600
    assert corners[1] == pytest.approx(52.65 - 20 * 0.186 / 3600, abs=1e-7)
    assert corners[0] > 214.85 > corners[2]
    assert (corners[0] - corners[2]) * 0.6067 == pytest.approx(2 * half_width, rel=1e-3)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"EXPTIME": None}, ("keyword_missing", "EXPTIME")),
        ({"EXPTIME": 0.0}, ("keyword_range", "EXPTIME")),
        ({"EXPTIME": -9999.0}, ("keyword_range", "EXPTIME")),
        ({"EXPTIME": "-9999"}, ("keyword_sentinel", "EXPTIME")),
        ({"EXPTIME": "long"}, ("keyword_type", "EXPTIME")),
        ({"EXPTIME": True}, ("keyword_type", "EXPTIME")),
        ({"FILTER": ""}, ("keyword_missing", "FILTER")),
        ({"FILTER": "NONE"}, ("keyword_sentinel", "FILTER")),
        ({"DATE-OBS": "soon"}, ("keyword_type", "DATE-OBS")),
        ({"QRUNID": None}, ("keyword_missing", "QRUNID")),
    ],
)
def test_a_required_keyword_must_be_there_and_make_sense(
    change: dict[str, Any], reason: tuple[str, str]
) -> None:
    verdict = judge(facts(change), PROFILES)
    assert verdict.exposure is None
    assert codes(verdict.reasons) == [reason]
    assert verdict.reasons[0].found and verdict.reasons[0].expected


def test_all_reasons_are_told_not_only_the_first() -> None:
    verdict = judge(facts({"EXPTIME": None, "OBJECT": None, "FILTER": "Null"}), PROFILES)
    assert [reason.keyword for reason in verdict.reasons] == ["EXPTIME", "FILTER", "OBJECT"]


@pytest.mark.parametrize(
    ("change", "repair"),
    [
        ({"EXPTIME": "120.0"}, ("number_in_quotes", "EXPTIME")),
        ({"MJD-OBS": None}, ("mjd_obs_computed", "MJD-OBS")),
        ({"MJD-OBS": 0.0}, ("mjd_obs_computed", "MJD-OBS")),
        ({"AIRMASS": 0.0}, ("airmass_unknown", "AIRMASS")),
        ({"DATE-OBS": "2025-10-31T20:00:00-1000", "MJD-OBS": 60980.25}, ("date_obs_local_time", "DATE-OBS")),
    ],
)
def test_what_can_be_repaired_is_and_is_said(change: dict[str, Any], repair: tuple[str, str]) -> None:
    verdict = accepted(facts(change))
    assert codes(verdict.repairs) == [repair]
    assert verdict.exposure is not None
    assert verdict.exposure.mjd_obs == pytest.approx(60980.25)
    assert verdict.exposure.exposure_time_s == 120.0
    assert verdict.exposure.airmass == (None if repair[0] == "airmass_unknown" else 1.2)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"CTYPE1": None, "CTYPE2": None}, "wcs_missing"),
        ({"CTYPE1": "RA---AIT", "CTYPE2": "DEC--AIT"}, "wcs_unreadable"),
        ({"CRVAL1": "east"}, "wcs_unreadable"),
        ({"CD1_1": 0.0}, "wcs_unreadable"),
        ({"CD1_1": -1.86 / 3600, "CD2_2": 1.86 / 3600}, "wcs_implausible"),
        ({"CD1_1": 0.186 / 3600}, "wcs_implausible"),
        ({"CD1_2": 0.15 / 3600}, "wcs_implausible"),
        ({"CD1_1": -0.22 / 3600, "CD2_2": 0.157 / 3600}, "wcs_implausible"),
        ({"CRPIX1": 900000.0}, "wcs_implausible"),
    ],
)
def test_a_wcs_that_cannot_be_believed_is_given_up_for_the_pointing(
    change: dict[str, Any], code: str
) -> None:
    verdict = accepted(facts(wcs=change))
    assert [item.code for item in verdict.repairs] == [code]
    assert verdict.exposure is not None
    geometry = verdict.exposure.geometry
    assert (geometry.wcs, geometry.ra_deg, geometry.dec_deg) == ("pointing", 214.85, 52.65)
    assert [ccd.footprint for ccd in verdict.exposure.ccds] == [None, None]


def test_one_ccd_without_wcs_makes_it_a_pointing_for_all() -> None:
    whole = facts()
    last = whole.hdus[2]
    bare = {key: value for key, value in last.header.items() if key not in WCS}
    partly = FileFacts((*whole.hdus[:2], HduFacts(2, bare, True, last.shape, last.pixels)))
    verdict = accepted(partly)
    assert [(item.code, item.hdu) for item in verdict.repairs] == [("wcs_missing", 2)]


def test_a_pointing_may_be_sexagesimal() -> None:
    change = {"RA_DEG": None, "DEC_DEG": None, "RA": "14:19:24.0", "DEC": "+52:39:00"}
    verdict = accepted(facts(change, wcs=NO_WCS))
    assert verdict.exposure is not None
    assert verdict.exposure.geometry.ra_deg == pytest.approx(214.85)
    assert verdict.exposure.geometry.dec_deg == pytest.approx(52.65)
    assert ("pointing_sexagesimal", "RA") in codes(verdict.repairs)


@pytest.mark.parametrize(
    "bad", [{"RA_DEG": None}, {"DEC_DEG": 91.0}, {"RA_DEG": "here"}, {"RA_DEG": float("inf")}]
)
def test_without_wcs_and_pointing_nothing_can_be_done(bad: dict[str, Any]) -> None:
    verdict = judge(facts(bad, wcs=NO_WCS), PROFILES)
    assert "no_pointing" in [reason.code for reason in verdict.reasons]


def test_a_pointing_without_a_scale_is_not_enough() -> None:
    generic = {"INSTRUME": "Unheard of"}
    verdict = judge(facts(generic, wcs=NO_WCS), PROFILES)
    assert [reason.code for reason in verdict.reasons] == ["wcs_missing", "pixel_scale_unknown"]
    accepted(facts(generic | {"PIXSCALE": 0.19}, wcs=NO_WCS))


def test_blank_ccds_are_noted_unless_they_are_too_many() -> None:
    blank, same = PixelFacts(0.0, None, None), PixelFacts(1.0, 5.0, 5.0)
    names = ("a", "b", "c")
    some = judge(facts(pixels=(GOOD_PIXELS, same, GOOD_PIXELS), names=names), PROFILES)
    assert some.exposure is not None
    assert [(item.code, item.hdu) for item in some.repairs] == [("constant_pixels", 2)]
    most = judge(facts(pixels=(blank, same, GOOD_PIXELS), names=names), PROFILES)
    assert [reason.code for reason in most.reasons] == ["blank_pixels", "constant_pixels"]


@pytest.mark.parametrize(
    "names", [(None, None), ("ccd00", "ccd00"), ("COMPRESSED_IMAGE", "COMPRESSED_IMAGE")]
)
def test_ccds_that_have_no_names_get_some(names: tuple[str | None, str | None]) -> None:
    verdict = accepted(facts(names=names))
    assert codes(verdict.repairs) == [("extname_missing", "EXTNAME")]


def test_the_layout_must_be_the_instruments() -> None:
    only_primary = FileFacts((HduFacts(0, {**PRIMARY, **WCS}, True, (40, 48), GOOD_PIXELS),))
    assert [r.code for r in judge(only_primary, PROFILES).reasons] == ["no_image"]
    generic = FileFacts((HduFacts(0, {**PRIMARY, **WCS, "INSTRUME": "x"}, True, (40, 48), GOOD_PIXELS),))
    assert accepted(generic).repairs == ()
    megacam = facts({"INSTRUME": "MegaPrime", "DETECTOR": "MegaCam", "RUNID": "x", "EQUINOX": 2000.0})
    verdict = judge(megacam, PROFILES)
    assert ("ccd_count", "2", "36 or 40 or 72") in [(r.code, r.found, r.expected) for r in verdict.reasons]
    assert "image_too_small" in [r.code for r in judge(facts(shape=(31, 48)), PROFILES).reasons]


def test_masks_and_weights_that_travel_with_an_image_are_no_ccds() -> None:
    whole = facts()
    mask = HduFacts(3, {"EXTNAME": "MASK", **WCS}, True, (40, 48), GOOD_PIXELS)
    weight = HduFacts(4, {"DES_EXT": "WEIGHT"}, True, (40, 48), GOOD_PIXELS)
    verdict = accepted(FileFacts((*whole.hdus, mask, weight)))
    assert verdict.exposure is not None
    assert [ccd.hdu for ccd in verdict.exposure.ccds] == [1, 2]


def test_an_instrument_without_runs_is_filed_by_night() -> None:
    night = PROFILES["megasim"].model_copy(
        update={"keywords": PROFILES["megasim"].keywords.model_copy(update={"run": (), "required": ()})}
    )
    verdict = accepted(facts(), {**PROFILES, "megasim": night})
    assert verdict.exposure is not None and verdict.exposure.run == "2025-10-31"


@given(st.floats(0, 359.999), st.floats(-89.9, 89.9), st.floats(0.001, 1.0))
def test_the_middle_of_places_around_one_is_that_one(ra: float, dec: float, spread: float) -> None:
    around = [((ra + spread) % 360, dec), ((ra - spread) % 360, dec)]
    middle = middle_of(around)
    assert 0 <= middle[0] < 360
    assert (middle[0] - ra + 180) % 360 - 180 == pytest.approx(0, abs=1e-6)
    assert middle[1] == pytest.approx(dec, abs=0.01)


header_values = st.one_of(
    st.none(), st.booleans(), st.integers(-(10**9), 10**9), st.floats(), st.text(max_size=20)
)


@given(st.dictionaries(st.sampled_from(sorted({**PRIMARY, **WCS, "RA": 0})), header_values, max_size=8))
def test_whatever_headers_say_there_is_a_verdict(values: dict[str, Any]) -> None:
    primary = {key: value for key, value in values.items() if key not in WCS}
    wcs = {key: value for key, value in values.items() if key in WCS}
    verdict = judge(facts(primary, wcs), PROFILES)
    assert (verdict.exposure is None) == bool(verdict.reasons)
    if verdict.exposure is not None:
        geometry = verdict.exposure.geometry
        assert 0 <= geometry.ra_deg < 360 and -90 <= geometry.dec_deg <= 90
        assert 0 < verdict.exposure.exposure_time_s <= 1e6
