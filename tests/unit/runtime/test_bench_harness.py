from __future__ import annotations

import json
from pathlib import Path

import pytest

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
