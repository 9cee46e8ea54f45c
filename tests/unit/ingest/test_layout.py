"""CCDs of a mosaic, times, and what lies between them."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
from spica_imaging.profiles import load_profiles
from spica_ingest.science.facts import FileFacts, HduFacts, PixelFacts
from spica_ingest.science.timing import check_times, utc_of_atomic
from spica_ingest.science.values import as_observed_at
from spica_ingest.science.verify import Verdict, judge

from tests.support import megaframe

PROFILES = load_profiles()
PIXELS = PixelFacts(1.0, 0.0, 900.0)


def values_of(header: Any) -> dict[str, Any]:
    return dict(header.items())


def mosaic(number: int = 36) -> FileFacts:
    """A frame of MegaCam's, as headers tell it."""
    hdus = [HduFacts(0, values_of(megaframe.primary_header(number)), False, ())]
    for ccd in range(number):
        header = values_of(megaframe.ccd_header(ccd))
        hdus.append(HduFacts(ccd + 1, header, True, megaframe.CCD_SHAPE, PIXELS, (9_000_000, ccd)))
    return FileFacts(tuple(hdus))


def changed(hdu: int, **values: Any) -> FileFacts:
    facts = mosaic()
    hdus = list(facts.hdus)
    header = {**hdus[hdu].header, **values}
    hdus[hdu] = replace(hdus[hdu], header={key: value for key, value in header.items() if value is not None})
    return FileFacts(tuple(hdus))


def told(verdict: Verdict) -> tuple[list[tuple[str, int | None]], list[tuple[str, int | None]]]:
    return (
        [(item.code, item.hdu) for item in verdict.reasons],
        [(item.code, item.hdu) for item in verdict.repairs],
    )


def test_a_whole_mosaic_is_good() -> None:
    verdict = judge(mosaic(), PROFILES)
    assert told(verdict) == ([], [])
    assert verdict.exposure is not None
    centre = verdict.exposure.geometry
    assert (centre.wcs, centre.ra_deg, centre.dec_deg) == (
        "full",
        pytest.approx(214.87, abs=0.01),
        pytest.approx(52.68, abs=0.01),
    )


@pytest.mark.parametrize(
    ("values", "reasons", "repairs"),
    [
        ({"EXTVER": 7}, [("duplicate_ccd", 8)], []),
        ({"EXTNAME": "ccd07"}, [("duplicate_ccd", 8)], [("extname_missing", 6)]),
        ({"EXTNAME": None}, [], [("extname_missing", 6)]),
        ({"EXPNUM": 3}, [("mixed_exposures", 6)], []),
        ({"MJD-OBS": 53442.5}, [("mixed_exposures", 6)], []),
        ({"GAIN": 0.0}, [], [("detector_assumed", 6)]),
        ({"RDNOISE": "low"}, [], [("detector_assumed", 6)]),
        ({"CRVAL1": math.nan}, [], [("wcs_unreadable", 6)]),
        ({"CRVAL1": 220.0}, [], [("wcs_implausible", 6)]),
        ({"CRPIX1": megaframe.ccd_header(6)["CRPIX1"]}, [], [("wcs_implausible", 6)]),
        ({"CD1_1": 0.0, "CD1_2": 5e-5, "CD2_1": -5e-5, "CD2_2": 0.0}, [], [("wcs_implausible", 6)]),
    ],
)
def test_what_is_wrong_with_one_ccd_is_told(
    values: dict[str, Any], reasons: list[tuple[str, int]], repairs: list[tuple[str, int]]
) -> None:
    assert told(judge(changed(6, **values), PROFILES)) == (reasons, repairs)


def test_sizes_are_the_instruments() -> None:
    facts = mosaic()
    hdus = list(facts.hdus)
    hdus[4] = replace(hdus[4], shape=(4612, 2048))
    reasons, _ = told(judge(FileFacts(tuple(hdus)), PROFILES))
    assert reasons == [("ccd_size", 4)]


def test_pixels_that_are_there_twice_are_found() -> None:
    facts = mosaic()
    hdus = list(facts.hdus)
    hdus[9] = replace(hdus[9], fingerprint=hdus[3].fingerprint)
    assert told(judge(FileFacts(tuple(hdus)), PROFILES))[0] == [("duplicate_ccd", 9)]
    dead = PixelFacts(1.0, 7.0, 7.0)  # two dead CCDs are alike, and no duplicates
    hdus[3], hdus[9] = replace(hdus[3], pixels=dead), replace(hdus[9], pixels=dead)
    assert told(judge(FileFacts(tuple(hdus)), PROFILES)) == (
        [],
        [("constant_pixels", 3), ("constant_pixels", 9)],
    )


@pytest.mark.parametrize(
    ("stated", "has_data", "reasons", "repairs"),
    [
        (36, False, [], []),
        (40, False, [("hdu_count", 0)], []),
        (40, True, [], [("hdu_count", 0)]),
        (30, False, [], [("hdu_count", 0)]),
        ("36", False, [], []),
        (True, False, [], []),
    ],
)
def test_extensions_are_counted(
    stated: Any, has_data: bool, reasons: list[tuple[str, int]], repairs: list[tuple[str, int]]
) -> None:
    facts = changed(0, NEXTEND=stated)
    if has_data:
        facts = FileFacts((replace(facts.hdus[0], shape=(10,)), *facts.hdus[1:]))
    assert told(judge(facts, PROFILES)) == (reasons, repairs)


def test_an_order_that_is_not_theirs_is_noted() -> None:
    facts = mosaic()
    first, second = facts.hdus[3], facts.hdus[4]
    swapped = (replace(second, index=3), replace(first, index=4))
    verdict = judge(FileFacts((*facts.hdus[:3], *swapped, *facts.hdus[5:])), PROFILES)
    assert told(verdict) == ([], [("hdu_order", 4)])
    assert verdict.exposure is not None
    assert [ccd.name for ccd in verdict.exposure.ccds[2:4]] == ["ccd03", "ccd02"]


def test_pointing_and_wcs_that_are_apart_are_noted() -> None:
    facts = mosaic()
    header = {**facts.hdus[0].header, "RA_DEG": 100.0}
    hdus = [replace(facts.hdus[0], header=header)]
    hdus += [replace(hdu, header={**hdu.header, "RA_DEG": 100.0}) for hdu in facts.hdus[1:]]
    assert told(judge(FileFacts(tuple(hdus)), PROFILES)) == ([], [("pointing_off_wcs", None)])


@pytest.mark.parametrize(
    ("mjd", "date", "time", "reasons", "repairs"),
    [
        (53441.5242683, "2005-03-12", "12:34:56.78", 0, 0),
        (53441.524, "2005-03-12", "12:34:56.78", 0, 0),  # rounded to three digits
        (53441.5242683, "2005-03-12", "12:36:56.78", 0, 1),
        (53441.5242683, "2005-03-11", "12:34:56.78", 0, 1),  # not advanced at midnight
        (53441.5242683, "2005-03-15", "12:34:56.78", 1, 0),
        (53441.5242683, "2005-03-12", None, 0, 0),  # only the day
        (53441.5242683, "2003-03-12", None, 1, 0),
    ],
)
def test_start_by_date_and_by_mjd_agree(
    mjd: float, date: str, time: str | None, reasons: int, repairs: int
) -> None:
    against, odd = check_times(PROFILES["megacam"], {"MJD-OBS": mjd}, as_observed_at(date, time), 300.0)
    assert (len(against), len(odd)) == (reasons, repairs)
    assert all(item.code == "time_inconsistent" for item in (*against, *odd))


@pytest.mark.parametrize(
    ("lasted_s", "fits"),
    [(300.0, True), (340.0, True), (1190.0, True), (290.0, False), (-5.0, False), (5000.0, False)],
)
def test_the_end_fits_start_and_exposure_time(lasted_s: float, fits: bool) -> None:
    header = {"MJD-OBS": 53441.5242683, "MJDEND": 53441.5242683 + lasted_s / 86400}
    _, odd = check_times(PROFILES["megacam"], header, None, 300.0)
    assert [item.keyword for item in odd] == ([] if fits else ["MJDEND"])


def test_atomic_time_loses_its_leap_seconds() -> None:
    # 32 s between 1999 and 2005.
    assert utc_of_atomic(4507684167.79) == pytest.approx((4507684167.79 - 32) / 86400, abs=1e-9)
