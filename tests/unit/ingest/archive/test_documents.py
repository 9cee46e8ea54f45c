"""The registry's list, capabilities, and the listing of headers."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from spica_imaging.profiles import load_profiles
from spica_ingest.archive.metaheader import HeaderReader, read_headers
from spica_ingest.archive.registry import LOCATE, TAP, Interface, parse_capabilities, parse_list
from spica_ingest.science.facts import HeaderValues
from spica_ingest.science.precheck import refusals, tells_enough
from spica_ingest.verification.headers import describe_hdu

from tests.support.realdata import real_data

CAPABILITIES = b"""<?xml version="1.0" encoding="UTF-8"?>
<vosi:capabilities xmlns:vosi="http://www.ivoa.net/xml/VOSICapabilities/v1.0"
    xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" xmlns:vs="http://www.ivoa.net/xml/VODataService/v1.1">
  <capability standardID="http://www.opencadc.org/std/storage#locate-1.0">
    <interface xsi:type="vs:ParamHTTP" role="std">
      <accessURL use="base">https://ws.example.org/raven/locate</accessURL>
      <securityMethod/>
      <securityMethod standardID="ivo://ivoa.net/sso#tls-with-certificate"/>
    </interface>
  </capability>
  <capability standardID="ivo://ivoa.net/std/TAP">
    <interface><accessURL>https://ws.example.org/argus</accessURL></interface>
    <interface><accessURL>nonsense</accessURL></interface>
    <interface/>
  </capability>
</vosi:capabilities>"""


def test_the_list_of_services() -> None:
    text = """
# comment = not a service
ivo://cadc.nrc.ca/argus = https://ws.example.org/argus/capabilities
  ivo://cadc.nrc.ca/x=https://ws.example.org/x?a=b
no equals sign here
"""
    assert parse_list(text) == {
        "ivo://cadc.nrc.ca/argus": "https://ws.example.org/argus/capabilities",
        "ivo://cadc.nrc.ca/x": "https://ws.example.org/x?a=b",
    }


def test_capabilities() -> None:
    certificate = "ivo://ivoa.net/sso#tls-with-certificate"
    assert parse_capabilities(CAPABILITIES) == (
        Interface(LOCATE, "https://ws.example.org/raven/locate", frozenset({"", certificate})),
        Interface(TAP, "https://ws.example.org/argus", frozenset({""})),
    )


def test_a_document_that_would_blow_up_is_refused() -> None:
    from defusedxml import DefusedXmlException

    bomb = b'<!DOCTYPE a [<!ENTITY b "bbbb"><!ENTITY c "&b;&b;">]><capabilities>&c;</capabilities>'
    with pytest.raises(DefusedXmlException):
        parse_capabilities(bomb)
    with pytest.raises(ValueError, match="root"):
        parse_capabilities(b"<html/>")


def card(keyword: str, value: str) -> str:
    return f"{keyword:8}= {value}".ljust(80)


HEADERS = [
    [card("SIMPLE", "T"), card("BITPIX", "16"), card("NAXIS", "0"), card("OBJECT", "'D1'"), "END".ljust(80)],
    [card("XTENSION", "'IMAGE'"), card("BITPIX", "16"), card("NAXIS", "2"), card("NAXIS1", "9"), card("NAXIS2", "8"),
     "COMMENT END of story".ljust(80), card("EXPTIME", "30.5"), "END"],
]  # fmt: skip


def all_of(reader: HeaderReader, text: str, step: int) -> list[HeaderValues]:
    found = []
    for at in range(0, len(text), step):
        found += list(reader.feed(text[at : at + step]))
    return found + list(reader.end())


@given(st.integers(1, 300), st.sampled_from(["\n", "\r\n", "packed"]), st.booleans())
def test_headers_come_out_however_the_text_is_cut(step: int, ending: str, title: bool) -> None:
    if ending == "packed":
        text = "".join(line.ljust(80) for header in HEADERS for line in [*header, *([" " * 80] * 20)])
    else:
        text = ending.join(
            line for header in HEADERS for line in ([*(["# HDU 0 in x.fits:"] * title), *header, ""])
        )
    primary, extension = all_of(HeaderReader(), text, step)
    assert primary == {"SIMPLE": True, "BITPIX": 16, "NAXIS": 0, "OBJECT": "D1"}
    assert (extension["NAXIS2"], extension["EXPTIME"]) == (8, 30.5)


@given(st.text(max_size=2000))
def test_any_text_is_taken(text: str) -> None:
    for header in all_of(HeaderReader(), text, 100):
        assert isinstance(header, dict)


async def test_reading_a_listing_ends() -> None:
    async def endless() -> AsyncIterator[str]:
        while True:
            yield card("SIMPLE", "T") + "\n" + "X" * 100_000

    assert [header async for header in read_headers(endless())] == []


@pytest.mark.real
@pytest.mark.parametrize("name", ["1257365o", "1257365p", "979412o", "979412p"])
def test_real_megacam_listings(name: str) -> None:
    text = (real_data("megacam/headers") / f"mega__{name}.fits.header").read_text(encoding="latin-1")
    reader, hdus = HeaderReader(), []
    for at in range(0, len(text), 65536):
        for values in reader.feed(text[at : at + 65536]):
            hdus.append(describe_hdu(dict(values), len(hdus)))
        if tells_enough(hdus):
            break
    assert 2 <= len(hdus) < 10
    assert hdus[0].header["INSTRUME"] == "MegaPrime"
    assert refusals(hdus, load_profiles()) == ()
    bias = [
        hdus[0],
        hdus[1].__class__(1, {**hdus[1].header, "EXPTIME": 0.0, "FILTER": None}, True, hdus[1].shape),
    ]
    bias[0] = hdus[0].__class__(0, {**hdus[0].header, "EXPTIME": 0.0}, False, ())
    assert "keyword_range" in {finding.code for finding in refusals(bias, load_profiles())}
