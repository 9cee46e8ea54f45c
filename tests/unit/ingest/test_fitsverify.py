"""Structure as fitsverify judges it: whatever it calls an error is told here too, or stands in the table below."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from spica_ingest.verification.reading import Limits, read_facts

from tests.support.corruptions import CORRUPTIONS, Frame
from tests.support.realdata import peer_program, real_data
from tests.unit.ingest.frames import frame
from tests.unit.ingest.test_corruptions import whole

pytestmark = pytest.mark.peer
LIMITS = Limits(max_bytes=10**9, max_pixels=10**8)
_FOUND = re.compile(r"found \d+ warning\(s\) and (\d+) error\(s\)")

DIFFERENCES = {
    "random_groups.fits": "fitsverify compares the index of PSCALn with GCOUNT; the standard ties it to PCOUNT.",
    "theap-gap.fits": "cfitsio adds the gap before the heap to PCOUNT, which holds it already: no block is missing.",
    "vla_logical_pre_fix.fits": "What stands in the cells of tables is not looked at: no table is taken in.",
}
"""Errors of fitsverify that are not told here, and why. The same table stands in VERDICTS.md."""


def errors_of(path: Path) -> int:
    """Number of errors that fitsverify finds; one where it gives up."""
    ended = subprocess.run(
        [peer_program("fitsverify"), "-e", path], capture_output=True, check=False, timeout=60
    )
    found = _FOUND.search(ended.stdout.decode("latin-1"))
    return int(found[1]) if found else 1


def told(path: Path) -> list[str]:
    """Codes of everything about structure that is told of a file."""
    facts = read_facts(path, LIMITS)
    return [finding.code for finding in (*facts.faults, *facts.oddities)]


@pytest.mark.real
def test_on_files_that_other_libraries_test_with() -> None:
    files = [path for path in sorted(real_data("odd_fits").rglob("*")) if path.is_file()]
    silent = {path.name for path in files if errors_of(path) and not told(path)}
    assert silent == DIFFERENCES.keys()


def test_the_differences_are_documented() -> None:
    page = Path("services/ingest/VERDICTS.md").read_text()
    for name, reason in DIFFERENCES.items():
        assert f"| `{name}` | {reason} |" in page


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_on_damaged_frames(tmp_path: Path, name: str) -> None:
    path = tmp_path / "a.fits.fz"
    path.write_bytes(CORRUPTIONS[name](whole(False)))
    assert told(path) or not errors_of(path)


def _card(text: str, keyword: str = "AIRMASS") -> Callable[[Frame], bytes]:
    return lambda f: f.put(f.card(keyword, 0), text.ljust(80).encode("latin-1"))


HEADERS: dict[str, Callable[[Frame], bytes]] = {
    "lower-case keyword": _card("airmass =                  1.2"),
    "blank in a keyword": _card("AIR MASS=                  1.2"),
    "no blank behind the equals sign": _card("AIRMASS =1.2"),
    "no slash before the comment": _card("AIRMASS =                  1.2 at the zenith"),
    "lower-case exponent": _card("AIRMASS =               1.2e00"),
    "no closing quote": _card("OBJECT  = 'M 13", "OBJECT"),
    "not ASCII": _card("OBJECT  = 'Andromède'", "OBJECT"),
    "a text that should be a number": _card("EQUINOX = '2000'"),
    "a number that should be a text": _card("OBJECT  =                    7", "OBJECT"),
    "a date that is none": _card("DATE-OBS= '2025-13-01'", "DATE-OBS"),
    "a table's keyword in an image": _card("TFORM1  = 'J       '"),
    "NAXIS twice": _card("NAXIS   =                    0"),
    "BITPIX and NAXIS swapped": lambda f: f.put(
        f.card("BITPIX", 0), f.content[f.card("NAXIS", 0) :][:80] + f.content[f.card("BITPIX", 0) :][:80]
    ),
    "BITPIX not in fixed format": lambda f: f.put(f.card("BITPIX", 0), b"BITPIX  = 8".ljust(80)),
    "SIMPLE = F": lambda f: f.put(0, b"SIMPLE  =                    F".ljust(80)),
    "text behind END": lambda f: f.put(f.card("END", 0) + 200, b"something"),
    "data not filled with zeros": lambda f: f.put(f.places[1].end - 5, b"12345"),
    "an extension of no known kind": lambda f: f.put(f.places[1].header, b"XTENSION= 'PICTURE '".ljust(80)),
    "no GCOUNT": lambda f: f.without_card("GCOUNT", 1),
    "INHERIT is a number": lambda f: f.put(f.card("EXTNAME", 1), b"INHERIT =                    1".ljust(80)),
    "WCS as text": lambda f: f.put(f.card("CRVAL1", 1), b"CRVAL1  = '214.85  '".ljust(80)),
}


@pytest.mark.parametrize("name", HEADERS)
def test_on_headers_that_break_rules(tmp_path: Path, name: str) -> None:
    path = tmp_path / "a.fits"
    path.write_bytes(HEADERS[name](Frame(frame(checksum=False), hdu=1)))
    assert told(path), f"fitsverify: {errors_of(path)} error(s)"


def test_a_sound_frame_is_sound_for_both(tmp_path: Path) -> None:
    for content in (frame(), frame(compressed=True), whole(False).content):
        path = tmp_path / "a.fits"
        path.write_bytes(content)
        assert (told(path), errors_of(path)) == ([], 0)
