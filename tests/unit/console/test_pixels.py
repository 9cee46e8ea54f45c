"""Places as people write them, and what `spica pixel` shows of what was found."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from xml.etree.ElementTree import fromstring

import pytest
from hypothesis import given
from hypothesis import strategies as st
from spica_console.pixel_view import agreement, bar, png, print_pixel, summary, svg, write
from spica_console.pixels import Place, angle, place_of
from spica_runtime.errors import UsageError

FAINT: dict[str, Any] = {
    "image_id": "a.1",
    "name": "700p",
    "ccds": [{"name": "ccd03", "x_px": 104.25, "y_px": 9.5}],
    "value": 1.5,
    "weight": 4.0,
    "sigma": 0.5,
    "priority": 1.0,
    "share": 0.75,
    "n_sigma": 0.0,
    "off_sigma": -0.4,
    "clipped": False,
    "beside_outlier": False,
}
OTHER = FAINT | {"name": "701p", "value": 2.5, "weight": 1.0, "sigma": 1.0, "share": 0.25}
TRAIL = FAINT | {
    "name": "702p",
    "value": 90.0,
    "share": 0.0,
    "n_sigma": 80.0,
    "off_sigma": 85.0,
    "clipped": True,
}
HOLE = FAINT | {
    "name": "703p", "value": None, "weight": 0.0, "sigma": None, "share": 0.0, "n_sigma": None, "off_sigma": None,
}  # fmt: skip
ROW: dict[str, Any] = {
    "name": "D1_r",
    "combine": "clipped_mean",
    "x": 80,
    "y": 50,
    "ra_deg": 214.0,
    "dec_deg": -0.5,
    "stack": {"value": 1.75, "weight": 5.0},
    "again": {"value": 1.75, "weight": 5.0},
    "agrees": True,
    "contributions": [FAINT, OTHER, TRAIL, HOLE],
    "n_elsewhere": 2,
}


@pytest.mark.parametrize(
    ("ra", "dec", "expected"),
    [
        ("214.5", "-52.25", (214.5, -52.25)),
        ("14:18:00", "+52:30:00", (214.5, 52.5)),
        ("14h18m00.0s", "-00d30m36s", (214.5, -0.51)),
        ("0:00:01", "0:0:1", (15 / 3600, 1 / 3600)),
        ("14:18", "52:30", (214.5, 52.5)),
        ("0", "90", (0.0, 90.0)),
    ],
)
def test_places_on_the_sky(ra: str, dec: str, expected: tuple[float, float]) -> None:
    place = place_of(ra, dec)
    assert (place.ra_deg, place.dec_deg) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("ra", "dec"),
    [
        ("360", "0"), ("-1", "0"), ("0", "90.1"), ("24:00:00", "0"), ("1:60:00", "0"), ("1:00:60", "0"), ("1:2:3:4", "0"),
        ("", "0"), ("north", "0"), ("nan", "0"), ("1", "inf"), ("1:-2:3", "0"), (":1", "0"),
    ],
)  # fmt: skip
def test_what_is_no_place_is_refused(ra: str, dec: str) -> None:
    with pytest.raises(UsageError) as caught:
        place_of(ra, dec)
    assert caught.value.code == "bad_place"


@given(st.floats(-89.999, 89.999))
def test_sexagesimal_and_degrees_are_the_same_place(dec: float) -> None:
    sign, size = "-" if dec < 0 else "+", round(abs(dec) * 3600 * 1000)
    minutes, milli = divmod(size, 60_000)
    text = f"{sign}{minutes // 60}:{minutes % 60:02}:{milli / 1000:06.3f}"
    assert angle(text, hours=False) == pytest.approx(dec, abs=2e-7)


def test_pixels_are_those_of_fits() -> None:
    assert place_of("80", "50.4", pixel=True) == Place(x=80, y=50)
    assert place_of("80.5", "0.5", pixel=True) == Place(x=81, y=1)
    for text in ("east", "nan", "inf"):
        with pytest.raises(UsageError):
            place_of(text, "1", pixel=True)


@given(st.floats(0, 1), st.integers(1, 40))
def test_a_bar_is_as_long_as_its_share(share: float, width: int) -> None:
    drawn = bar(share, width)
    eighths = sum(8 if one == "█" else " ▏▎▍▌▋▊▉".index(one) for one in drawn)
    assert eighths == round(share * width * 8)
    assert len(drawn) <= width
    assert bar(None) == ""


def test_the_table_says_what_became_of_each(capsys: pytest.CaptureFixture[str]) -> None:
    print_pixel(ROW)
    lines = capsys.readouterr().out.splitlines()
    told = {name: next(line for line in lines if name in line) for name in ("700p", "701p", "702p", "703p")}
    assert "75.0 %" in told["700p"] and "ccd03" in told["700p"] and "104.2" in told["700p"]
    assert "●" in told["700p"] and told["700p"].index("●") < told["701p"].index("●")
    assert "clipped, +80.0 σ beyond what is allowed" in told["702p"] and "+85.0 σ" in told["702p"]
    assert "no usable pixel" in told["703p"] and "●" not in told["703p"]
    assert any(
        "1.75 ± 0.4472 from 2 exposures, 1 clipped, 1 without a usable pixel there" in line for line in lines
    )
    assert any("2 more of the stack's exposures do not cover it" in line for line in lines)


def test_where_nothing_is_it_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    nothing = {"value": None, "weight": 0.0}
    row = ROW | {"stack": nothing, "again": nothing, "contributions": []}
    print_pixel(row)
    told = capsys.readouterr().out
    assert "no value from 0 exposures" in told and "No exposure of the stack covers it" in told
    fromstring(svg(row).encode())


def test_what_differs_is_told_in_full() -> None:
    row = ROW | {"agrees": False, "again": {"value": 1.7500001, "weight": 5.0}}
    assert "1.7500001 with weight 5; the stack has 1.75 with 5" in agreement(row)
    assert "same to the last bit" in agreement(ROW)
    assert summary(ROW | {"contributions": [FAINT]}).endswith("from 1 exposure")


def test_the_diagram_marks_what_was_clipped(tmp_path: Path) -> None:
    drawn = svg(ROW)
    tree = fromstring(drawn.encode())
    kinds = [part.get("class") for part in tree.iter() if part.get("class")]
    assert (kinds.count("dot"), kinds.count("out"), kinds.count("used")) == (2, 3, 2)
    assert kinds.count("stack") == 1
    names = [part.text for part in tree.iter() if part.get("class") == "name"]
    assert names == ["700p", "701p", "702p"]
    assert png(ROW) == png(ROW)
    for name, start in (("a.svg", b"<?xml"), ("a.png", b"\x89PNG")):
        write(ROW, tmp_path / name)
        assert (tmp_path / name).read_bytes().startswith(start)
    with pytest.raises(UsageError, match=r"named \.svg or \.png"):
        write(ROW, tmp_path / "a.gif")


def test_many_exposures_are_not_named_all() -> None:
    many = ROW | {"contributions": [FAINT | {"name": f"{number}p"} for number in range(200)]}
    tree = fromstring(svg(many).encode())
    assert sum(part.get("class") == "name" for part in tree.iter()) == 40
