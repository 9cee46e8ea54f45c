"""Cards looked up in the bytes of a header: the values that astropy's header gives."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
from astropy.io import fits
from hypothesis import given, settings
from hypothesis import strategies as st
from spica_imaging.cards import Cards, CompressedCards, MergedCards, end_of_header
from spica_imaging.frame import ccd_name, is_image, is_sky, merged_header
from spica_imaging.rows import RowFile

from tests.support.realdata import real_data

TEXT = "".join(
    f"{line:<80}"
    for line in (
        "GAIN    =                  1.5 / e-/adu",
        "NUMBER  =                   -7",
        "NOPOINT =                2E-05",
        "DOUBLE  =             1.25D+03 / as FORTRAN writes it",
        "TINY    =                  .5",
        "YES     =                    T",
        "NO      =                    F / not so",
        "NAME    = 'O''Hara / not a comment'   / a comment",
        "EMPTY   = ''",
        "BLANKS  = '   a  '",
        "NOTHING =                      / no value",
        "COMPLEX =           (1.0, 2.0)",
        "LONG    = 'one &'",
        "CONTINUE  'two'  / three",
        "COMMENT GAIN    = 3.0",
        "HIERARCH ESO DET WIN1 = 12 / a long one",
        "TWICE   =                    1",
        "TWICE   =                    2",
        "BROKEN  = 'no end",
        "lower   =                    3",
        "HISTORY NUMBER  =          8",
    )
)  # fmt: skip


def test_values_of_all_kinds() -> None:
    cards, header = Cards(TEXT.encode()), fits.Header.fromstring(TEXT)
    for keyword in ("GAIN", "NUMBER", "NOPOINT", "DOUBLE", "TINY", "YES", "NO", "NAME", "EMPTY", "BLANKS", "LONG",
                    "COMPLEX", "ESO DET WIN1", "TWICE", "NOTHING"):  # fmt: skip
        assert cards[keyword] == header[keyword], keyword
        assert type(cards[keyword]) is type(header[keyword]), keyword
    assert cards["NAME"] == "O'Hara / not a comment" and cards["DOUBLE"] == 1250.0 and cards["TWICE"] == 1
    assert cards.find("TWICE", last=True) == (True, 2)
    for keyword in ("BROKEN", "ABSENT", "ESO DET WIN2", "COMMENT"):
        assert keyword not in cards and cards.get(keyword, 5) == 5


def test_a_keyword_within_a_value_is_none() -> None:
    text = f"{'A       = ' + chr(39) + 'x' * 62 + chr(39):<80}{'B       = ' + chr(39) + 'A       = 3' + chr(39):<80}"
    assert Cards(text.encode())["A"] == "x" * 62 and Cards(text.encode())["B"] == "A       = 3"


@settings(max_examples=200)
@given(st.one_of(
    st.integers(-(10**15), 10**15), st.floats(allow_nan=False, allow_infinity=False), st.booleans(),
    st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=60),
))  # fmt: skip
def test_whatever_astropy_writes_is_read(value: Any) -> None:
    header = fits.Header()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", fits.verify.VerifyWarning)
        header["KEY"] = (value, "of a comment")
        text = header.tostring(sep="", endcard=False, padding=False)
        wanted = fits.Header.fromstring(text)["KEY"]
        found = Cards(text.encode())["KEY"]
    assert found == wanted and type(found) is type(wanted)


def test_the_end_is_a_card_of_its_own() -> None:
    text = f"{'A       = ' + chr(39) + 'END' + chr(39):<80}{'':<40}{'END':<80}"
    assert end_of_header(text.ljust(240).encode()) == -1
    assert end_of_header(f"{'A       =  1':<80}{'END':<80}".encode()) == 80


def test_cards_go_on_being_a_mapping() -> None:
    cards = Cards(TEXT.encode())
    assert len(cards) == len(list(cards)) and {"GAIN", "TWICE"} <= set(cards)
    assert cards.to_header()["GAIN"] == 1.5


def test_headers_are_merged_as_the_frame_merges_them() -> None:
    primary, extension = fits.Header(), fits.Header()
    primary.extend([("SIMPLE", True), ("BITPIX", 8), ("A", 1), ("B", 2), ("EXTEND", True), ("EXTNAME", "P")])
    extension.extend([("BITPIX", 16), ("B", 3), ("C", 4), ("CHECKSUM", "x"), ("EXTNAME", "E")])
    merged = merged_header(primary, extension)
    found = MergedCards(
        *(Cards(h.tostring(endcard=False, padding=False).encode()) for h in (primary, extension))
    )
    assert dict(found) == dict(merged) and len(found) == len(merged)
    assert "SIMPLE" not in found and "CHECKSUM" not in found


def test_a_compressed_image_is_seen_as_an_image() -> None:
    table = Cards(
        b"".join(
            f"{line:<80}".encode()
            for line in ("NAXIS   = 2", "NAXIS1  = 8", "ZNAXIS  = 2", "ZNAXIS1 = 2048", "ZBITPIX = 16",
                         "EXTNAME = 'COMPRESSED_IMAGE'", "EXTVER  = 3")
        )
    )  # fmt: skip
    seen = CompressedCards(table)
    assert (seen["NAXIS1"], seen["BITPIX"], seen.get("EXTNAME")) == (2048, 16, None)
    assert ccd_name(seen, 4) == "ccd03" and len(seen) == len(table)


@pytest.mark.parametrize(
    "name",
    ["decam/DECam_00241238_01.fits.fz", "ngc7789/stack_V_300.fit", "sdss2583/frame-r-002583-2-0136.fits.bz2"],
)
def test_real_headers(name: str) -> None:
    path = real_data(name)
    file = RowFile(path)
    with fits.open(path) as hdus:
        wanted = [(index, hdu.header) for index, hdu in enumerate(hdus) if is_image(hdu)]
        assert [image.place.index for image in file.images()] == [index for index, _ in wanted]
        for image, (index, header) in zip(file.images(), wanted, strict=True):
            merged, ours = merged_header(hdus[0].header, header), MergedCards(file.primary, image.header)  # type: ignore[arg-type]
            assert ccd_name(ours, index) == ccd_name(merged, index) and is_sky(ours) == is_sky(merged)
            keywords = [
                k for k in merged if k and k not in ("COMMENT", "HISTORY", "XTENSION", "PCOUNT", "GCOUNT")
            ]
            assert len(keywords) > 10
            for keyword in keywords:
                assert ours.get(keyword) == merged[keyword], keyword
    file.close()


def test_a_mosaic_is_opened_without_parsing_its_cards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hdus: list[Any] = [fits.PrimaryHDU()]
    for ccd in range(36):
        hdu = fits.ImageHDU(name=f"ccd{ccd:02d}")
        hdu.header.extend([(f"KEY{n}", n, "some comment") for n in range(150)])
        hdus.append(hdu)
    fits.HDUList(hdus).writeto(tmp_path / "mosaic.fits")
    parsed = 0
    find = Cards.find

    def counted(self: Cards, keyword: str, *, last: bool = False) -> tuple[bool, Any]:
        nonlocal parsed
        parsed += 1
        return find(self, keyword, last=last)

    monkeypatch.setattr(Cards, "find", counted)
    assert RowFile(tmp_path / "mosaic.fits").images() == ()  # no pixels
    assert parsed < 12 * len(hdus)
