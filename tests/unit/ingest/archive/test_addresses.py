"""Which addresses are asked, who is given a credential, and what of an address may be told."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from spica_ingest.archive import errors
from spica_ingest.archive.hosts import HostList, is_loopback, origin
from spica_ingest.archive.http import check_address
from spica_ingest.archive.locate import check_name, file_name, is_web, parse_transfer
from spica_ingest.archive.redact import shown
from spica_runtime.errors import NotRetriable, UsageError

KEY = "aGVsbG8gd29ybGQ~this.is-the_key"


@pytest.mark.parametrize(
    ("url", "told"),
    [
        (
            f"https://ws.example.org/minoc/files/{KEY}/cadc:CFHT/2p.fits.fz",
            "https://ws.example.org/…/2p.fits.fz",
        ),
        (f"https://ws.example.org:8443/a.fits?X-Signature={KEY}", "https://ws.example.org:8443/a.fits"),
        (f"https://{KEY}:{KEY}@ws.example.org/x/a.fits", "https://ws.example.org/…/a.fits"),
        (f"https://ws.example.org/{KEY * 4}", "https://ws.example.org/…"),
        (f"https://ws.example.org/files/{KEY * 4}.fits", "https://ws.example.org/…"),
        (f"https://ws.example.org/x#{KEY}", "https://ws.example.org/…"),
        ("https://ws.example.org", "https://ws.example.org"),
        (f"https://[{KEY}", "(not a URL)"),
        (f"https://ws.example.org:{KEY}/", "(not a URL)"),
    ],
)
def test_of_an_address_host_and_file_name_are_told(url: str, told: str) -> None:
    assert shown(url) == told
    assert KEY not in told


@given(st.text(max_size=80))
def test_any_text_can_be_told(text: str) -> None:
    assert isinstance(shown(text), str)


def test_messages_of_services_do_not_bring_keys_back() -> None:
    import httpx

    body = f"invalid token in https://ws.example.org/files/{KEY}/cadc:A/b.fits: {KEY * 3}"
    response = httpx.Response(403)
    error = errors.from_status("https://ws.example.org/x/b.fits", response, body, "anyone")
    assert KEY not in error.message
    assert "invalid token" in error.message and "b.fits" in error.message


@pytest.mark.parametrize(
    ("entries", "url", "covered"),
    [
        ((".canfar.net",), "https://ws-uv.canfar.net/minoc", True),
        ((".canfar.net",), "https://canfar.net/minoc", True),
        ((".canfar.net",), "https://canfar.net.evil.org/minoc", False),
        ((".canfar.net",), "https://evilcanfar.net/minoc", False),
        ((".canfar.net",), "https://evil.org/ws.canfar.net", False),
        ((".canfar.net",), "https://ws.canfar.net@evil.org/", False),
        ((".canfar.net",), "https://WS.CANFAR.NET./x", True),
        (("127.0.0.1:8080",), "http://127.0.0.1:8080/x", True),
        (("127.0.0.1:8080",), "http://127.0.0.1:8081/x", False),
        (("a.org:443",), "https://a.org/x", True),
        (("a.org:443",), "http://a.org/x", False),
        (("a.org",), "ftp://a.org/x", False),
        (("[::1]:80",), "http://[::1]/x", True),
        ((), "https://a.org", False),
    ],
)
def test_hosts_are_compared_as_a_whole(entries: tuple[str, ...], url: str, covered: bool) -> None:
    assert HostList(entries).covers(url) is covered


@pytest.mark.parametrize("text", ["", "https://a.org", "a.org/x", "*.a.org", "user@a.org", "a:b", "."])
def test_what_is_no_host_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        HostList((text,))


def test_origin_and_loopback() -> None:
    assert origin("https://a.org/reg/resource-caps") == "a.org:443"
    assert origin("http://[::1]:81/x") == "[::1]:81"
    assert (
        is_loopback("http://127.0.0.1:8/x")
        and is_loopback("http://[::1]/")
        and is_loopback("http://localhost")
    )
    assert not is_loopback("http://127.0.0.1.evil.org/")


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd",
        "gopher://a.org/x",
        "http:///x",
        "https://user:secret@a.org/x",
        "http://169.254.169.254/latest/meta-data",
        "http://127.0.0.1:8222/varz",
        "https://a.org.evil.org/x",
        "https://[broken/x",
    ],
)
def test_an_address_in_a_message_does_not_make_us_ask_anybody(url: str) -> None:
    with pytest.raises(NotRetriable) as caught:
        check_address(url, HostList(("a.org",)))
    assert caught.value.code == "unsupported_uri"
    assert "secret" not in caught.value.message


@pytest.mark.parametrize(
    "uri", ["cadc:CFHT/2376828p.fits.fz", "cadc:CFHTTERAPIX/a/b+c.fits", "cadc:X/10Bm03.flat.i2.36.01"]
)
def test_names_of_an_archive(uri: str) -> None:
    check_name(uri, ("cadc",))
    assert not is_web(uri)


@pytest.mark.parametrize(
    "uri",
    [
        "cadc:",
        "cadc:CFHT",
        "cadc:CFHT/",
        "mast:HST/a.fits",
        "cadc:CFHT/../x",
        "cadc:A/a b",
        "cadc:A/b?META=true",
        "cadc:A/b#c",
        "cadc:A/%2e%2e/b",
        "cadc:A/b\n",
        "cadc:A/" + "b" * 600,
        "CADC:A/b",
        "cadc:A\\b/c",
    ],
)
def test_what_is_no_name_is_refused_before_anybody_is_asked(uri: str) -> None:
    with pytest.raises(NotRetriable) as caught:
        check_name(uri, ("cadc",))
    assert caught.value.code == "unsupported_uri"


@pytest.mark.parametrize(
    ("uri", "name"),
    [
        ("cadc:CFHT/2376828p.fits.fz", "2376828p.fits.fz"),
        ("https://a.org/x/2376828p.fits.fz?key=a/b.exe", "2376828p.fits.fz"),
        ("https://a.org/x/", "file"),
        ("https://a.org/x/%2e%2e%2f%2e%2e%2fetc%2fpasswd", "etc_passwd"),
        ("https://a.org/.part", "part"),
    ],
)
def test_file_names_are_safe(uri: str, name: str) -> None:
    assert file_name(uri) == name


def test_endpoints_come_in_their_order_and_once() -> None:
    document = b"""<?xml version="1.0"?><vos:transfer xmlns:vos="http://www.ivoa.net/xml/VOSpace/v2.0" version="2.1">
      <vos:protocol uri="p"><vos:endpoint>https://b.org/k/x.fits</vos:endpoint></vos:protocol>
      <vos:protocol uri="p"><vos:endpoint> https://a.org/x.fits </vos:endpoint><vos:securityMethod/></vos:protocol>
      <vos:protocol uri="p"><vos:endpoint>file:///etc/passwd</vos:endpoint></vos:protocol>
      <vos:protocol uri="p"><vos:endpoint>https://b.org/k/x.fits</vos:endpoint></vos:protocol></vos:transfer>"""
    assert parse_transfer(document) == ("https://b.org/k/x.fits", "https://a.org/x.fits")
    with pytest.raises(ValueError, match="<html>"):
        parse_transfer(b"<html><body/></html>")
