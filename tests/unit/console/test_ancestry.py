"""From edges to a tree."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from spica_console.ancestry import tree

START = datetime(2026, 3, 1, tzinfo=UTC)


def product(number: int, used: list[int] | None) -> dict[str, Any]:
    made = used is not None
    return {
        "product_id": number,
        "path": f"p{number}",
        "kind": "image",
        "sha256": f"{number:064x}",
        "size_bytes": 1,
        "activity_id": f"a{number}" if made else None,
        "service": "stack",
        "activity": "coadd",
        "version": "1",
        "host": "h",
        "started_at": START,
        "ended_at": START + timedelta(seconds=2.5),
        "outcome": "done",
        "about": "x",
        "event_id": "e",
        "configuration": {},
        "log": [],
        "used": used or [],
    }


def known(edges: dict[int, list[int] | None]) -> dict[int, dict[str, Any]]:
    return {number: product(number, used) for number, used in edges.items()}


def paths(node: dict[str, Any]) -> list[str]:
    inner = node.get("made_by", {}).get("used", [])
    return [node["path"], *(path for child in inner for path in paths(child))]


def test_a_stack_is_followed_back_to_the_files_that_arrived() -> None:
    grown = tree(known({1: [2, 3], 2: [4], 3: [5], 4: None, 5: None}), 1)
    assert paths(grown) == ["p1", "p2", "p4", "p3", "p5"]
    assert grown["made_by"]["seconds"] == 2.5
    assert "made_by" not in grown["made_by"]["used"][0]["made_by"]["used"][0]


def test_what_was_used_twice_is_unfolded_once() -> None:
    grown = tree(known({1: [2, 3], 2: [3], 3: [4], 4: None}), 1)
    assert paths(grown) == ["p1", "p2", "p3", "p4", "p3"]
    assert grown["made_by"]["used"][1]["repeated"] is True


@given(st.dictionaries(st.integers(0, 6), st.none() | st.lists(st.integers(0, 6), max_size=4), min_size=1))
def test_even_a_circle_ends(edges: dict[int, list[int] | None]) -> None:
    complete = {**dict.fromkeys(range(7)), **edges}
    assert paths(tree(known(complete), 0))[0] == "p0"
