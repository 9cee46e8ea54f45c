"""What rules select on, out of headers: real ones, and ones that lie."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from astropy.io import fits
from hypothesis import given
from hypothesis import strategies as st
from spica_imaging.profiles import Auxiliary, load_profiles
from spica_ingest.science.columns import Columns, Named, load_columns, named_auxiliaries

from tests.support.realdata import real_data

PROFILES = load_profiles()
MEGACAM = PROFILES["megacam"]


def real_header(name: str) -> dict[str, Any]:
    """Values of the primary header of a dump."""
    path = real_data(f"megacam/headers/{name}.fits.header")
    text = path.read_text()
    lines = [line for line in text[: text.index("\nEND")].splitlines() if not line.startswith("#")]
    header = fits.Header.fromstring("".join(line.ljust(80)[:80] for line in lines))
    return {key: value for key, value in header.items() if isinstance(value, str | int | float | bool)}


def test_columns_of_a_real_detrended_megacam_frame() -> None:
    columns, repairs = load_columns(MEGACAM, real_header("mega__1257365p"), "i.MP9702")
    assert repairs == []
    assert columns == Columns(
        canonical_filter="i.MP9702",
        agency_run="10BD90",
        queue_run="10BQ08",
        camera_run="10Bm03",
        sequence_number=1257365,
        observation_type="OBJECT",
        principal_investigator="Karun Thanjavur",
        released_at=datetime(2012, 2, 28, tzinfo=UTC),
        mjd_end=55503.1937753,
        header_zeropoint_mag=25.833,
        header_zeropoint_sigma_mag=0.0069,
        header_zeropoint_nominal_mag=25.743,
        header_airmass_term_mag=-0.04,
        header_colour_term=0.083,
    )


def test_a_real_raw_frame_has_no_photometry_and_that_is_no_fault() -> None:
    columns, repairs = load_columns(MEGACAM, real_header("mega__979412o"), "r.MP9601")
    assert repairs == []
    assert (columns.queue_run, columns.sequence_number) == ("08AQ05", 979412)
    assert columns.header_zeropoint_mag is None


def test_calibration_frames_that_a_real_header_names() -> None:
    assert named_auxiliaries(MEGACAM, real_header("mega__1257365p")) == (
        Named(
            "flat",
            "10Bm03.flat.i2.36.01",
            "IMRED_FF",
            ("cadc:CFHT/10Bm03.flat.i2.36.01.fits.fz", "cadc:CFHT/10Bm03.flat.i2.36.01.fits"),
        ),
        Named(
            "mask",
            "2003A.mask.0.36.02",
            "IMRED_MK",
            ("cadc:CFHT/2003A.mask.0.36.02.fits.fz", "cadc:CFHT/2003A.mask.0.36.02.fits"),
        ),
    )
    assert named_auxiliaries(MEGACAM, real_header("mega__979412o")) == ()


GOOD: dict[str, Any] = {
    "IQMEASUR": 0.71,
    "SPOZPMED": 0.05,
    "BGMEASUR": 4.2,
    "ISPHOTOM": True,
    "QSOGRADE": 1,
    "OBSID": 2452990,
    "REL_DATE": "2019-02-28T00:00:00",
}


def test_columns_of_queue_observing() -> None:
    columns, repairs = load_columns(MEGACAM, GOOD, "r.MP9602")
    assert repairs == []
    assert columns == Columns(
        canonical_filter="r.MP9602",
        seeing_arcsec=0.71,
        sky_absorption_mag=0.05,
        background_adu_per_s=4.2,
        is_photometric=True,
        queue_grade=1,
        sequence_number=2452990,
        released_at=datetime(2019, 2, 28, tzinfo=UTC),
    )


@pytest.mark.parametrize(
    ("keyword", "value", "column"),
    [
        ("IQMEASUR", -9999.9, "seeing_arcsec"),
        ("IQMEASUR", 0.0, "seeing_arcsec"),
        ("IQMEASUR", "bad", "seeing_arcsec"),
        ("IQMEASUR", float("nan"), "seeing_arcsec"),
        ("IQMEASUR", True, "seeing_arcsec"),
        ("SPOZPMED", -9999.90, "sky_absorption_mag"),
        ("SPOZPMED", 99.0, "sky_absorption_mag"),
        ("BGMEASUR", -1.0, "background_adu_per_s"),
        ("ISPHOTOM", "perhaps", "is_photometric"),
        ("QSOGRADE", 7, "queue_grade"),
        ("QSOGRADE", 1.5, "queue_grade"),
        ("OBSID", -3, "sequence_number"),
        ("OBSID", 10**300, "sequence_number"),
        ("OBSID", "Null", "sequence_number"),
        ("REL_DATE", "next year", "released_at"),
        ("PHOT_C", 0.0, "header_zeropoint_mag"),
        ("MJDEND", 4.0, "mjd_end"),
        ("PI_NAME", "\x07\x07", "principal_investigator"),
    ],
)
def test_what_cannot_be_is_not_known_and_said_so(keyword: str, value: object, column: str) -> None:
    columns, (repair,) = load_columns(MEGACAM, GOOD | {keyword: value}, "r.MP9602")
    assert getattr(columns, column) is None
    assert (repair.code, repair.keyword) == ("column_unknown", keyword)
    assert column in repair.message and repair.expected


def test_the_next_keyword_counts_where_the_first_is_not_known() -> None:
    header = GOOD | {"SPOZPMED": -9999.9, "SPOZPMEN": 0.2, "OBSID": "Null", "EXPNUM": 12}
    columns, repairs = load_columns(MEGACAM, header, "r.MP9602")
    assert (columns.sky_absorption_mag, columns.sequence_number) == (0.2, 12)
    assert [repair.keyword for repair in repairs] == ["OBSID", "SPOZPMED"]


def test_an_empty_value_is_no_value() -> None:
    columns, repairs = load_columns(MEGACAM, {"PI_NAME": "  ", "QRUNID": ""}, "x")
    assert (columns, repairs) == (Columns(canonical_filter="x"), [])


@given(st.dictionaries(
    st.sampled_from(["IQMEASUR", "OBSID", "REL_DATE", "ISPHOTOM", "QSOGRADE", "PI_NAME", "PHOT_C", "IMRED_FF"]),
    st.one_of(st.text(max_size=30), st.floats(), st.integers(), st.booleans()),
))  # fmt: skip
def test_no_value_breaks_it(header: dict[str, Any]) -> None:
    for profile in PROFILES.values():
        columns, _ = load_columns(profile, header, "r")
        assert columns.queue_grade in (None, 1, 2, 3, 4, 5)
        for named in named_auxiliaries(profile, header):
            assert named.name and not set(named.name) & set("/\\ \0")


@pytest.mark.parametrize(
    ("value", "name"),
    [
        ("10Bm03.flat.i2.36.01", "10Bm03.flat.i2.36.01"),
        ("/data/elixir/flats/10Bm03.flat.i2.36.01.fits", "10Bm03.flat.i2.36.01"),
        ("10Bm03.flat.i2.36.01.fits.fz[ccd00]", "10Bm03.flat.i2.36.01"),
        ("C:\\flats\\a1.fits", "a1"),
        ("07Bm06.flat.z.36.02  ", "07Bm06.flat.z.36.02"),
        ("NONE", None),
        ("none", None),
        ("/path/none.fits", None),
        ("-9999", None),
        ("", None),
        ("dome.flat.z", "dome.flat.z"),
        ("..", None),
        (".hidden.fits", None),
        ("a flat of ours", None),
        ("x" * 300, None),
        (5, None),
        (True, None),
        ("flat\0.fits", None),
        ("../../etc/passwd", "passwd"),
    ],
)
def test_names_of_calibration_frames(value: object, name: str | None) -> None:
    found = named_auxiliaries(MEGACAM, {"IMRED_FF": value})
    assert [named.name for named in found] == ([] if name is None else [name])


def test_one_frame_of_a_kind_the_first_that_is_named() -> None:
    second = Auxiliary(kind="flat", keyword="OTHERFF", uris=("cadc:X/{name}",))
    profile = MEGACAM.model_copy(update={"auxiliaries": (*MEGACAM.auxiliaries, second)})
    assert [n.keyword for n in named_auxiliaries(profile, {"OTHERFF": "b1", "IMRED_MK": "m1"})] == [
        "OTHERFF",
        "IMRED_MK",
    ]
    (both,) = named_auxiliaries(profile, {"OTHERFF": "b1", "IMRED_FF": "a1"})
    assert (both.name, both.uris[0]) == ("a1", "cadc:CFHT/a1.fits.fz")


def test_filters_of_several_names_are_kept_under_one() -> None:
    assert load_columns(MEGACAM, {}, "y.MP9702")[0].canonical_filter == "i.MP9702"
    assert load_columns(MEGACAM, {}, "i.MP9702")[0].canonical_filter == "i.MP9702"
    profile = MEGACAM.model_copy(update={"canonical_filters": {r"^([ugrizY]) DECam": r"\1.DECam"}})
    assert profile.canonical_filter("g DECam SDSS c0001 4720.0 1520.0") == "g.DECam"
