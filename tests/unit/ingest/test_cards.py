"""Cards: the quick reader against astropy, and the rules of the standard."""

from __future__ import annotations

import warnings

import pytest
from astropy.io import fits
from hypothesis import given
from hypothesis import strategies as st
from spica_ingest.science.cards import Card, breaks_type, out_of_place, read_card
from spica_ingest.verification.headers import departures, read_header

values = st.one_of(
    st.booleans(),
    st.integers(-(10**18), 10**18),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=60),
)
keywords = st.text("ABCXYZ0189-_", min_size=1, max_size=8).filter(lambda text: text not in ("END",))


@given(keywords, values, st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=20))
def test_what_astropy_writes_is_read_as_astropy_reads_it(
    keyword: str, value: bool | int | float | str, comment: str
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        image = str(fits.Card(keyword, value, comment))
        expected = fits.Card.fromstring(image).value
    if len(image) > 80:
        return  # CONTINUE cards are left to astropy
    card = read_card(image)
    assert isinstance(card, Card), (image, card)
    assert (card.keyword, type(card.value), card.value) == (keyword, type(expected), expected)


@given(st.text(st.characters(max_codepoint=255), min_size=80, max_size=80))
def test_no_text_breaks_the_reader(image: str) -> None:
    card = read_card(image)
    assert isinstance(card, Card) or card
    header = read_header(image.encode("latin-1"))
    assert len(header.cards) <= 1
    departures(header, 0)


@pytest.mark.parametrize(
    ("image", "value", "fixed"),
    [
        ("SIMPLE  =                    T / standard", True, True),
        ("SIMPLE  = T", True, False),
        ("NAXIS   =                    2", 2, True),
        ("NAXIS   = 2", 2, False),
        ("OBJECT  = 'M 31    '           / it''s big", "M 31", True),
        ("OBJECT  = 'O''Neill'", "O'Neill", True),
        ("OBJECT  =     'late'", "late", False),
        ("CRVAL1  = 1.5D+02", 150.0, True),
        ("CRVAL1  = -.5", -0.5, True),
        ("Z       = (1.0, -2.0)", None, True),
        ("UNDEFIND=", None, True),
        ("COMMENT = 'not a value'", None, True),
    ],
)
def test_values(image: str, value: object, fixed: bool) -> None:
    card = read_card(image.ljust(80))
    assert isinstance(card, Card)
    assert (card.value, card.fixed) == (value, fixed)


@pytest.mark.parametrize(
    ("image", "problem"),
    [
        ("object  = 'x'", "A-Z"),
        ("OB JECT = 'x'", "A-Z"),
        ("OBJECT  ='x'", "no blank"),
        ("OBJECT  = 'x", "cannot be read"),
        ("AIRMASS = 1.2 zenith", "slash"),
        ("AIRMASS = 1.2e0", "slash"),
        ("AIRMASS = NaN", "cannot be read"),
        ("OBJECT  = 'é'", "ASCII"),
        ("OBJECT  = '\t'", "ASCII"),
        ("END     x", "END"),
    ],
)
def test_departures_are_told(image: str, problem: str) -> None:
    told = read_card(image.ljust(80))
    assert isinstance(told, str) and problem in told


@pytest.mark.parametrize(
    ("keyword", "value", "wrong"),
    [
        ("EXTNAME", "x", False), ("EXTNAME", 3, True), ("EXTVER", 3, False), ("EXTVER", 3.0, True),
        ("BSCALE", 1, False), ("BSCALE", "1", True), ("BSCALE", True, True), ("EXTEND", True, False),
        ("EXTEND", 1, True), ("DATE-OBS", "2005-03-12", False), ("DATE-OBS", "2005-03-12T01:02:03.4", False),
        ("DATE-OBS", "12/03/05", False), ("DATE-OBS", "2005-13-12", True), ("DATE", "yesterday", True),
        ("CRVAL1", "east", True), ("ANYTHING", "x", False), ("PV1_10", 1.0, False), ("PV1_10", "1", True),
    ],
)  # fmt: skip
def test_types_of_reserved_keywords(keyword: str, value: object, wrong: bool) -> None:
    assert bool(breaks_type(Card(keyword, value))) == wrong


def test_keywords_have_their_place() -> None:
    def judged(keyword: str, **kind: bool) -> bool:
        given_kind = {"primary": False, "table": False, "compressed": False, "groups": False} | kind
        return out_of_place(keyword, **given_kind)

    assert judged("PCOUNT", primary=True) and not judged("PCOUNT", primary=True, groups=True)
    assert judged("TFORM1") and not judged("TFORM1", table=True)
    assert judged("BSCALE", table=True) and not judged("BSCALE", table=True, compressed=True)
    assert judged("SIMPLE") and judged("XTENSION", primary=True)
