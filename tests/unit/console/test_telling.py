"""Every kind of event has its gist, and none breaks the teller."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from spica_console.commands.tail import line
from spica_console.tailing import Event
from spica_console.telling import gist
from spica_proto.examples import EXAMPLES
from spica_proto.subjects import SUBJECTS

TELLING = {
    "image.arrived": "2387301p.fits.fz  368.1 MB",
    "image.verified": "2387301p  MegaPrime r 360.2 s, 36 CCDs",
    "image.rejected": "2387309p  The file is not the one that was announced: its SHA-256 differs",
    "image.graded": "2387301p  B  FWHM 0.84″  ellipticity 0.041  seeing",
    "image.calibrated": "2387301p  2871 stars, rms 32/30 mas  zp 26.214",
    "stack.planned": "D1.r.2019A  4 images, 2 left out, 19500×19510 px",
    "stack.calibrated": "D1.r.2019A  4 members, internal rms 9.8/9.1 mas",
    "stack.coadded": "D1.r.2019A  4 exposures, 1440.8 s",
    "stack.part_wanted": "D1.r.2019A  tile 18 of 74",
    "stack.stale": "D1.r.2019A  solved anew: with what its run taught since",
    "progress.stack": "D1.r.2019A  tile 18 of 74  0.42/s",
    "stack.done": "D1.r.2019A  A  seeing 0.79″  depth 26.54",
    "stack.exported": "D1.r.2019A  4 files to /data/delivered/D1.r.2019A",
}


def body(name: str) -> dict[str, Any]:
    return EXAMPLES[name].model_dump(mode="json", exclude_none=True)


@pytest.mark.parametrize(("name", "told"), TELLING.items())
def test_the_gist_of_the_examples(name: str, told: str) -> None:
    assert gist(name, body(name)) == told


def test_failures_say_who_where_and_why() -> None:
    for name in ("image.failed", "stack.failed"):
        told = gist(name, body(name))
        assert body(name)["code"] in told
        assert body(name)["stage"] in told
        assert body(name)["name"] in told


def test_a_persons_grade_names_the_person_and_the_reason() -> None:
    told = gist("image.graded", body("image.graded") | {"graded_by": "person:ada", "comment": "a satellite"})
    assert "by ada: a satellite" in told


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(
    st.sampled_from([*EXAMPLES, "image.unheard"]),
    st.dictionaries(
        st.sampled_from(["name", "uri", "metrics", "reasons", "grid", "grade", "x"]), json_values
    ),
)
def test_a_body_that_does_not_fit_is_told_all_the_same(name: str, data: dict[str, Any]) -> None:
    assert isinstance(gist(name, data), str)


@pytest.mark.parametrize("subject", SUBJECTS, ids=lambda subject: subject.name)
def test_a_line_of_the_tail_is_one_line_and_safe_markup(subject: Any) -> None:
    data = body(subject.name) | {"name": "[red]x[/nope]"}
    event = Event(1, subject.name, "i", datetime.now(UTC), "/spica/ingest", "", data)
    console = Console(width=400)
    with console.capture() as captured:
        console.print(line(event), soft_wrap=True)
    assert captured.get().count("\n") == 1
    assert subject.name in captured.get()
    if "[red]x" in gist(subject.name, data):
        assert "[red]x[/nope]" in captured.get()
