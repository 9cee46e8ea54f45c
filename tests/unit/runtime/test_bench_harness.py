from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from tests.benchmarks import harness


async def test_pairs_alternate_their_order() -> None:
    calls: list[str] = []

    async def ours() -> float:
        calls.append("a")
        return 1.0

    async def peers() -> float:
        calls.append("b")
        return 2.0

    own, other = await harness.alternating(ours, peers, 3)
    assert "".join(calls) == "abbaab"
    assert (own, other) == ([1.0] * 3, [2.0] * 3)


def test_figures_are_replaced_by_name_and_others_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(harness, "RESULTS", tmp_path / "bench.json")
    harness.write([harness.figure("a", [1, 3, 2], "s"), harness.figure("b", [5], "s")], [])
    harness.write([harness.figure("a", [7], "s")], [harness.Missing("swarp", "apt install swarp")])
    found = json.loads((tmp_path / "bench.json").read_text())
    assert {item["name"]: item["value"] for item in found["figures"]} == {"a": 7, "b": 5}
    assert found["peers_not_installed"] == [{"peer": "swarp", "install": "apt install swarp"}]


_LONG = "astrometry.large.solve_only.internal_residual_of_the_peer_mas"


@pytest.mark.parametrize("width", [40, 80, 130])
def test_no_number_is_cut_short_however_narrow_the_terminal(width: int) -> None:
    paper = io.StringIO()
    figures = [harness.figure(_LONG, [0.01234, 0.05678, 0.09], "mas", peer="scamp", peer_version="2.10.0")]
    harness.show(Console(file=paper, width=width), figures, [harness.Missing("scamp", "apt install scamp")])
    told = paper.getvalue()
    assert _LONG in told.replace("\n", "")
    assert "0.05678" in told
    assert "0.01234 – 0.09" in told
    assert "apt install scamp" in told


def test_output_to_a_file_is_wide_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr("sys.stdout", io.StringIO())
    assert harness.console().width >= 130


async def test_the_peer_against_itself_is_one_or_ends_the_run() -> None:
    async def steady() -> float:
        return 2.0

    figure = await harness.peer_against_itself("a.control", steady, 3, peer="scamp")
    assert (figure.value, figure.name, figure.peer) == (1.0, "a.control", "scamp")

    times = iter([1.0, 2.0, 2.0, 1.0, 1.0, 2.0])

    async def restless() -> float:
        return next(times)

    with pytest.raises(RuntimeError, match="too restless"):
        await harness.peer_against_itself("a.control", restless, 3)
