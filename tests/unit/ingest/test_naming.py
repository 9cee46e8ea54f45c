from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from spica_ingest.locating import source_path
from spica_ingest.science import naming
from spica_runtime.errors import NotRetriable


@pytest.mark.parametrize(
    ("file_name", "name"),
    [
        ("900001p.fits.fz", "900001p"),
        ("HATP-32171220013343.FITS", "HATP-32171220013343"),
        ("frame-g-002583-2-0136.fits.bz2", "frame-g-002583-2-0136"),
        ("stack_V_30.fit", "stack_V_30"),
        ("a.totsky.gz", "a.totsky"),
        ("two words (1).fits", "two_words_1"),
        (".fits", "image"),
        ("../../etc/passwd", "etc_passwd"),
    ],
)
def test_image_names(file_name: str, name: str) -> None:
    assert naming.image_name(file_name) == name


@given(st.text(max_size=300))
def test_a_safe_name_is_one_harmless_path_segment(text: str) -> None:
    safe = naming.safe(text)
    assert safe and len(safe) <= naming.MAX_LENGTH
    assert safe[0] not in ".-"
    assert set(safe) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._+-")
    assert naming.safe(safe) == safe


def test_the_mark_goes_before_the_suffix() -> None:
    assert naming.with_mark("900001p.fits.fz", "ab" * 32) == "900001p.abababab.fits.fz"
    assert naming.with_mark("raw", "ab" * 32) == "raw.abababab"


def test_an_image_is_its_name_and_its_content() -> None:
    assert naming.image_id("900001p", "0123456789abcdef" * 4) == "900001p.0123456789ab"


@pytest.mark.parametrize(
    ("uri", "path"),
    [
        ("/data/a b.fits", "/data/a b.fits"),
        ("file:///data/a%20b.fits", "/data/a b.fits"),
        ("FILE://localhost/x.fits", "/x.fits"),
        ("/data/100%25.fits", "/data/100%25.fits"),
    ],
)
def test_paths_and_file_urls(uri: str, path: str) -> None:
    assert str(source_path(uri)) == path


@pytest.mark.parametrize(
    "uri",
    [
        "a.fits",
        "http://host/a.fits",
        "file://host/a.fits",
        "s3://b/k",
        "file:a.fits",
        "/a\0b",
        "file:///a%00b",
    ],
)
def test_anything_else_is_unsupported(uri: str) -> None:
    with pytest.raises(NotRetriable) as caught:
        source_path(uri)
    assert caught.value.code == "unsupported_uri"
    assert "absolute path or a file:// URL" in caught.value.message
